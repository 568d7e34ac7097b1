"""Native loop and indexing kernels against the reference, bit for bit: layouts, dtypes, folds, cuts, in-place results.

Where the reference uses NumPy's own exp, the native kernels are compared among themselves.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, Loop, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.commands import command
from dualgraph.kernels.llvm.loop_binder import loop_command
from dualgraph.kernels.llvm.loop_variants import Columns, Flat, Rows
from dualgraph.kernels.program import Step, View, row_shape, row_view
from dualgraph.kernels.reference.steps import RUN
from dualgraph.spec import DTYPES, FLOATS, NUMPY_DTYPES

Array = np.ndarray[Any, Any]
KERNEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
FORMS = ({}, {"orientation": "rows"}, {"orientation": "columns"}, {"width": 32})


# ------------------------------------------------------------------------------------------------------------- harness


def loop(results: Sequence[E.Expr], dtypes: Sequence[str], rows: Sequence[bool] | None = None) -> Loop:
    code, numbers = E.linearise(results)
    return Loop(code, numbers, tuple(dtypes), tuple(rows or [False] * len(dtypes)))


def view(buffer: int, array: Array) -> View:
    """A view of a whole NumPy array, which must start at the buffer's first element or lie behind it."""
    strides = tuple(s // array.itemsize for s in array.strides)
    return View(buffer, array.shape, strides, 0, array.dtype.name)


def run(step: Step, arrays: Sequence[Array], cuts: Sequence[int] = (), **form: Any) -> int:
    """Run the step's native kernel, its units cut as told."""
    where = [array.__array_interface__["data"][0] for array in arrays]
    locate = lambda buffer: (buffer, 0)  # noqa: E731
    bound = loop_command(step, locate, **form) if isinstance(step.kernel, Loop) else command(step, locate)
    kernel = KERNEL(engine.addresses([bound.variant])[0])
    slots, args = np.array([*where, 0], np.int64), np.array([*bound.args, 0], np.int64)
    edges = [0, *sorted(min(cut, bound.units) for cut in cuts), bound.units]
    failed = [kernel(slots.ctypes.data, args.ctypes.data, begin, end) for begin, end in itertools.pairwise(edges)]
    return max(failed)


def assert_same(x: Array, y: Array, note: object = "") -> None:
    """Equal bits; a NaN equals any NaN."""
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    equal = x.view(f"u{x.itemsize}") == y.view(f"u{y.itemsize}")
    if x.dtype.kind == "f":
        equal |= np.isnan(x) & np.isnan(y)
    assert equal.all(), (note, x[~equal][:5], y[~equal][:5])


def compare(step: Step, arrays: Sequence[Array], first_output: int, note: object = "", **form: Any) -> list[Array]:
    """Native against reference on copies of the outputs; returns the native outputs."""
    native = [*arrays[:first_output], *(np.copy(a, order="K") for a in arrays[first_output:])]
    with np.errstate(all="ignore"):
        RUN[Loop](step.kernel, step, dict(enumerate(arrays)))
    assert run(step, native, **form) == 0
    for x, y in zip(native[first_output:], arrays[first_output:], strict=True):
        assert_same(x, y, note)
    return native[first_output:]


def sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    x = rng.standard_normal(shape) * 50
    return np.asarray(x > 0 if dtype == "bool" else x).astype(dtype)


def fold_step(kernel: Loop, arrays: Sequence[Array], outs: Sequence[Array], axes: tuple[int, ...]) -> Step:
    """Views of inputs and outputs over the domain of the first input; arrays with folded axes of length 1 are rows."""
    domain = arrays[0].shape
    views = [view(i, a) for i, a in enumerate((*arrays, *outs))]
    whole = [
        v
        if v.shape == domain
        else row_view(v, domain, axes)
        if v.shape == row_shape(domain, axes)
        else v.broadcast_to(domain)
        for v in views
    ]
    return Step(kernel, tuple(whole[len(arrays) :]), tuple(whole[: len(arrays)]), domain, axes)


# --------------------------------------------------------------------------------------------------------- elementwise

X, Y = E.input(0, "float32"), E.input(1, "float32")


def layouts(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> dict[str, Array]:
    """The same shape in all kinds of memory order."""
    order = tuple(reversed(range(len(shape))))
    doubled = tuple(2 * n for n in shape)
    steps = (slice(None, None, 2),) * len(shape)
    back = (slice(None, None, -1),) * len(shape)
    found = {
        "contiguous": sample(rng, shape, dtype),
        "transposed": sample(rng, shape[::-1], dtype).transpose(order),
        "every second": sample(rng, doubled, dtype)[steps],
        "backwards": sample(rng, shape, dtype)[back],
        "scalar": np.broadcast_to(sample(rng, (), dtype), shape),
    }
    if shape:
        found["row"] = np.broadcast_to(sample(rng, shape[-1:], dtype), shape)
        found["column"] = np.broadcast_to(sample(rng, (*shape[:-1], 1), dtype), shape)
    return {name: np.asarray(x) for name, x in found.items()}  # indexing makes scalars of arrays without axes


@pytest.mark.parametrize("shape", [(), (1,), (7,), (33,), (3, 20), (5, 1, 6), (2, 3, 4, 5)], ids=str)
def test_every_layout_gives_the_bits_of_the_reference(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    kernel = loop([X * Y + X], ["float32", "float32"])
    out = np.zeros(shape, np.float32)
    for (name, x), y in itertools.product(layouts(rng, shape, "float32").items(), [sample(rng, shape, "float32")]):
        step = Step(kernel, (view(2, out),), (view(0, x), view(1, y)), shape)
        compare(step, [x, y, out], 2, name)


@pytest.mark.parametrize("name", ["transposed", "every second", "backwards"])
def test_results_may_be_strided(name: str) -> None:
    rng = np.random.default_rng(1)
    x, out = sample(rng, (6, 21), "float32"), layouts(rng, (6, 21), "float32")[name]
    step = Step(loop([-X], ["float32"]), (view(1, out),), (view(0, x),), x.shape)
    assert run(step, [x, out]) == 0
    assert_same(out, -x)


def test_domains_of_any_rank_and_size() -> None:
    rng = np.random.default_rng(2)
    kernel = loop([X - Y], ["float32", "float32"])
    for _ in range(60):
        shape = tuple(int(n) for n in rng.integers(0 if rng.random() < 0.1 else 1, 6, rng.integers(0, 6)))
        found = layouts(rng, shape, "float32")
        names = [str(name) for name in rng.choice(list(found), 2)]
        x, y, out = found[names[0]], found[names[1]], np.zeros(shape, np.float32)
        compare(Step(kernel, (view(2, out),), (view(0, x), view(1, y)), shape), [x, y, out], 2, (shape, names))


def test_blocks_and_cuts_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(3)
    x, y = sample(rng, (3, 10000), "float32"), sample(rng, (1, 10000), "float32")
    out, again = np.zeros_like(x), np.zeros_like(x)
    ins = view(0, x), view(1, y).broadcast_to(x.shape)
    step = Step(loop([E.call("exp", X) / Y], ["float32"] * 2), (view(2, out),), ins, x.shape)
    run(step, [x, y, out])
    run(step, [x, y, again], cuts=(1, 2, 4, 8), width=32)
    assert_same(out, again)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_in_every_layout(dtype: str) -> None:
    rng = np.random.default_rng(4)
    condition, x, y = E.input(0, "bool"), E.input(1, dtype), E.input(2, dtype)
    kernel = loop([E.select(condition, x, y), E.cast(x, "bool")], ["bool", dtype, dtype])
    for name, a in layouts(rng, (5, 19), dtype).items():
        c, b = sample(rng, (5, 19), "bool"), sample(rng, (5, 19), dtype)
        outs = [np.zeros((5, 19), NUMPY_DTYPES[dtype]), np.zeros((5, 19), bool)]
        step = Step(
            kernel, tuple(view(3 + i, o) for i, o in enumerate(outs)), (view(0, c), view(1, a), view(2, b)), (5, 19)
        )
        compare(step, [c, a, b, *outs], 3, name)


def test_index_counts_the_domain_whatever_the_order_of_the_loops() -> None:
    kernel = loop([E.cast(E.index(), "float64") + E.input(0, "float64")], ["float64"])
    rng = np.random.default_rng(5)
    for name, x in layouts(rng, (3, 4, 18), "float64").items():
        for out in (np.zeros((3, 4, 18)), np.zeros((18, 4, 3)).T):
            step = Step(kernel, (view(1, out),), (view(0, x),), (3, 4, 18))
            compare(step, [x, out], 1, name)


def test_in_place_update_of_three_states() -> None:
    rng = np.random.default_rng(6)
    p, g, m, v = (E.input(i, "float32") for i in range(4))
    m1, v1 = m * 0.9 + g * 0.1, v * 0.999 + g * g * 0.001
    kernel = loop([p - m1 / (E.call("sqrt", v1) + 1e-8), m1, v1], ["float32"] * 4)
    before = [np.abs(sample(rng, (5000,), "float32")) for _ in range(4)]
    fresh = [np.zeros(5000, np.float32) for _ in range(3)]
    views = [view(i, a) for i, a in enumerate((*before, *fresh))]
    compare(Step(kernel, tuple(views[4:]), tuple(views[:4]), (5000,)), [*before, *fresh], 4)
    run(Step(kernel, (views[0], views[2], views[3]), tuple(views[:4]), (5000,)), before, cuts=(1,))
    for x, y in zip((before[0], before[2], before[3]), fresh, strict=True):
        assert_same(x, y)


def test_a_product_and_a_sum_are_two_roundings() -> None:
    x = np.zeros((100, 100), np.float32)
    y = E.input(2, "float32")
    for results, axes in (([X * Y + y], ()), ([E.fold("sum", X * Y)], (1,)), ([E.fold("sum", X * Y)], (0,))):
        outs = [np.zeros(row_shape(x.shape, axes), np.float32)]
        step = fold_step(loop(results, ["float32"] * 3), [x, x, x], outs, axes)
        text = engine.assembly(loop_command(step, lambda buffer: (buffer, 0)).variant)
        assert "mulps" in text or "mulss" in text
        assert "fmadd" not in text


def test_kernels_serve_every_size() -> None:
    kernel = loop([X + Y], ["float32"] * 2)
    variants = set()
    for shape in ((), (1,), (9,), (100000,), (4, 5), (0, 3)):
        x = np.zeros(shape, np.float32)
        step = Step(kernel, (view(2, x),), (view(0, x), view(1, x)), shape)
        bound = loop_command(step, lambda buffer: (buffer, 0))
        variants.update([bound.variant] if bound.units else [])
    assert len(variants) == 1
    assert isinstance(variants.pop(), Flat)


# --------------------------------------------------------------------------------------------------------------- folds

LENGTHS = (0, 1, 2, 10, 16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 129, 4095, 4096, 4097, 10000, 20481)


@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_folds_follow_the_canonical_order(monoid: str, dtype: str) -> None:
    rng = np.random.default_rng(7)
    kernel = loop([E.fold(monoid, E.input(0, dtype))], [dtype])
    for n, (a, b) in itertools.product(LENGTHS, ((1, 1), (2, 1), (1, 20), (2, 3))):
        x = sample(rng, (a, n, b), dtype) / 50 if dtype in FLOATS else sample(rng, (a, n, b), dtype)
        x = x.astype(dtype)
        for form in FORMS:
            step = fold_step(kernel, [x], [out := np.zeros((a, 1, b), dtype)], (1,))
            compare(step, [x, out], 1, (n, a, b, form), **form)


@pytest.mark.parametrize("monoid", ["any", "all", "max"])
def test_folds_of_booleans(monoid: str) -> None:
    rng = np.random.default_rng(8)
    kernel = loop([E.fold(monoid, E.input(0, "bool"))], ["bool"])
    for n, share, form in itertools.product((0, 1, 5, 40, 5000), (0.0, 0.001, 1.0), FORMS):
        x = rng.random((3, n, 2)) < share
        out = np.zeros((3, 1, 2), bool)
        compare(fold_step(kernel, [x], [out], (1,)), [x, out], 1, (n, share, form), **form)


def test_special_values_in_folds() -> None:
    rng = np.random.default_rng(9)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38], np.float32)
    for monoid, n in itertools.product(("sum", "max", "min"), (3, 40)):
        x = rng.choice(special, (50, n, 2))
        for form in FORMS:
            out = np.zeros((50, 1, 2), np.float32)
            compare(fold_step(loop([E.fold(monoid, X)], ["float32"]), [x], [out], (1,)), [x, out], 1, form, **form)


def test_layout_does_not_change_a_fold() -> None:
    rng = np.random.default_rng(10)
    kernel = loop([E.fold("sum", X * Y)], ["float32"] * 2)
    for (a, n, b), axes in itertools.product(((3, 40, 5), (1, 5000, 2), (20, 33, 1)), ((1,), (0,), (2,))):
        x, y = sample(rng, (a, n, b), "float32"), sample(rng, (a, n, b), "float32")
        outs = []
        for order in itertools.permutations(range(3)):
            inverse = tuple(np.argsort(order))
            turned = np.ascontiguousarray(x.transpose(order)).transpose(inverse)
            out = np.zeros(row_shape(x.shape, axes), np.float32)
            compare(fold_step(kernel, [turned, y], [out], axes), [turned, y, out], 2, (order, axes))
            outs.append(out)
        for out in outs[1:]:
            assert_same(out, outs[0])


def test_several_axes_fold_as_one() -> None:
    rng = np.random.default_rng(11)
    for shape, axes in (((4, 5, 6), (1, 2)), ((4, 5, 6), (0, 1)), ((4, 5, 6), (0, 1, 2)), ((2, 70, 65, 3), (1, 2))):
        x = sample(rng, shape, "float32")
        results = [E.fold("sum", X), E.fold("min", E.select(E.call("gt", X, 60.0), E.position(), 1 << 40))]
        outs = [np.zeros(row_shape(shape, axes), np.float32), np.zeros(row_shape(shape, axes), np.int64)]
        for form in FORMS:
            compare(fold_step(loop(results, ["float32"]), [x], outs, axes), [x, *outs], 1, (shape, form), **form)


def normalised(n: int) -> list[E.Expr]:
    """Layer norm without transcendental functions: two levels of folds, full and row results, row operands."""
    weight, shift = E.input(1, "float32"), E.input(2, "float32")
    mean = E.fold("sum", X) * (1 / n)
    centred = X - mean
    variance = E.fold("sum", centred * centred) * (1 / n) + shift
    return [centred / E.call("sqrt", variance) * weight, mean, variance, centred]


@pytest.mark.parametrize("n", [1, 2, 10, 16, 30, 33, 64, 100, 200, 300, 4096, 4100])
@pytest.mark.parametrize("axis", [0, 1])
def test_folds_of_folds(n: int, axis: int) -> None:
    rng = np.random.default_rng(12)
    shape = (19, n) if axis == 1 else (n, 19)
    weights = (1, n) if axis == 1 else (n, 1)
    x, w = sample(rng, shape, "float32"), sample(rng, weights, "float32")
    shift = np.abs(sample(rng, row_shape(shape, (axis,)), "float32"))
    kernel = loop(normalised(n), ["float32"] * 3, [False, False, True])
    for form in FORMS:
        rows = [np.zeros_like(shift) for _ in range(2)]
        arrays = [x, w, shift]
        outs = [np.zeros_like(x), *rows, np.zeros_like(x)]
        results = compare(fold_step(kernel, arrays, outs, (axis,)), [*arrays, *outs], 3, form, **form)
        in_place = x.copy()
        step = fold_step(kernel, [in_place, w, shift], outs, (axis,))
        aliased = step.outs[0].__class__(
            0, *[getattr(step.outs[0], f) for f in ("shape", "strides", "offset", "dtype")]
        )
        step = Step(kernel, (aliased, *step.outs[1:]), step.ins, step.domain, step.fold_axes)
        run(step, [in_place, w, shift, *outs], cuts=(1, 5), **form)
        assert_same(in_place, results[0], ("in place", form))


@pytest.mark.parametrize("n", [2, 10, 20, 100, 250, 1000, 5000])
def test_softmax_in_every_form(n: int) -> None:
    rng = np.random.default_rng(13)
    biggest = E.fold("max", X)
    e = E.call("exp", X - biggest)
    total = E.fold("sum", e)
    kernel = loop([e / total, biggest + E.call("log", total)], ["float32"])
    x = sample(rng, (18, n), "float32")
    results = []
    for form, transposed, cuts in itertools.product(FORMS, (False, True), ((), (1, 7))):
        y = np.ascontiguousarray(x.T).T if transposed else x
        outs = [np.zeros_like(y), np.zeros((18, 1), np.float32)]
        run(fold_step(kernel, [y], outs, (1,)), [y, *outs], cuts=cuts, **form)
        results.append(outs)
    expected = np.exp(x - x.max(1, keepdims=True)) / np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)
    np.testing.assert_allclose(results[0][0], expected, rtol=1e-5, atol=1e-30)
    for outs in results[1:]:
        assert_same(outs[0], results[0][0])
        assert_same(outs[1], results[0][1])


def test_row_results_need_no_fold() -> None:
    rng = np.random.default_rng(14)
    x, r = sample(rng, (6, 40), "float32"), sample(rng, (6, 1), "float32")
    kernel = loop([Y * 2.0, X * Y], ["float32"] * 2, [False, True])
    outs = [np.zeros((6, 1), np.float32), np.zeros((6, 40), np.float32)]
    compare(fold_step(kernel, [x, r], outs, (1,)), [x, r, *outs], 2)


def test_the_form_follows_the_memory() -> None:
    x = np.zeros((300, 200), np.float32)
    kernel = loop([E.fold("sum", X)], ["float32"])
    for array, axis, form in ((x, 1, Rows), (x, 0, Columns), (x.T, 0, Rows), (x.T, 1, Columns)):
        out = np.zeros(row_shape(array.shape, (axis,)), np.float32)
        step = fold_step(kernel, [array], [out], (axis,))
        assert isinstance(loop_command(step, lambda buffer: (buffer, 0)).variant, form)


def test_wide_columns_have_the_bits_of_narrow_ones() -> None:
    rng = np.random.default_rng(15)
    x = sample(rng, (5000, 150), "float32")
    out = np.zeros((1, 150), np.float32)
    step = fold_step(loop([E.fold("sum", X)], ["float32"]), [x], [out], (0,))
    assert loop_command(step, lambda buffer: (buffer, 0)).variant.width == 64
    compare(step, [x, out], 1)


# ------------------------------------------------------------------------------------------------------------ indexing

SHAPES = ((1, 5, 7, 20), (3, 4, 2, 1), (2, 1, 3, 600), (1, 10, 0, 3), (2, 3, 4, 0), (0, 3, 1, 2))  # A, N, I, B


def index_step(kernel: Any, ins: Sequence[Array], out: Array) -> int:
    """Run natively and by the reference, on outputs in this order; returns 1 where both refuse."""
    expected = np.copy(out, order="K")
    step = Step(kernel, (view(len(ins), out),), tuple(view(i, a) for i, a in enumerate(ins)))
    failed = run(step, [*ins, out], cuts=(1, 3))
    assert RUN[type(kernel)](kernel, step, dict(enumerate((*ins, expected)))) == (not failed)
    if not failed:
        assert_same(out, expected, (kernel, [a.shape for a in ins]))
    return failed


def empty(shape: tuple[int, ...], dtype: str, order: Any) -> Array:
    return np.full(shape, 7, NUMPY_DTYPES[dtype], order=order)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("index_dtype", ["int64", "int32"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_indexing_follows_the_reference(dtype: str, index_dtype: str, order: Any) -> None:
    rng = np.random.default_rng(16)
    for a, n, i, b in SHAPES:
        x, g = (np.asarray(sample(rng, s, dtype), order=order) for s in ((a, n, b), (a, i, b)))
        index = rng.integers(-n, n, i).astype(index_dtype)
        along = np.asarray(rng.integers(-n, n, (a, i, b)).astype(index_dtype), order=order)
        assert not index_step(Gather(dtype, index_dtype), [x, index], empty((a, i, b), dtype, order))
        assert not index_step(GatherAlong(dtype, index_dtype), [x, along], empty((a, i, b), dtype, order))
        if dtype != "bool":
            assert not index_step(ScatterAdd(dtype, index_dtype), [g, index], empty((a, n, b), dtype, order))
            assert not index_step(ScatterAddAlong(dtype, index_dtype), [g, along], empty((a, n, b), dtype, order))
        for bad in (n, -n - 1) if math.prod((a, i, b)) else ():
            index[-1], along[-1, -1, -1] = bad, bad
            assert index_step(Gather(dtype, index_dtype), [x, index], empty((a, i, b), dtype, order))
            assert index_step(GatherAlong(dtype, index_dtype), [x, along], empty((a, i, b), dtype, order))
            if dtype != "bool":
                assert index_step(ScatterAdd(dtype, index_dtype), [g, index], empty((a, n, b), dtype, order))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_check_index(dtype: str) -> None:
    rng = np.random.default_rng(17)
    for shape in ((), (5,), (7, 11), (9000,), (0,)):
        for name, x in layouts(rng, shape, dtype).items():
            low, high = (int(x.min()), int(x.max()) + 1) if x.size else (0, 0)
            for lower, upper in ((low, high), (low + 1, high), (low, high - 1), (high, low)):
                step = Step(CheckIndex(dtype, lower, upper, "index"), (), (view(0, x),), shape)
                expected = 0 if RUN[CheckIndex](step.kernel, step, {0: x}) else 1
                assert run(step, [x]) == expected, (shape, name, lower, upper)
