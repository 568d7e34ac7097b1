"""Native loop kernels against the reference, bit for bit: layouts, dtypes, folds, cuts, in-place results.

Where the reference uses NumPy's own exp, the native kernels are compared among themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dualgraph.dtypes import FLOATS, NAMES, NUMPY_DTYPES, converted
from dualgraph.kernels import expr as E
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.loops.selection import loop_command
from dualgraph.kernels.llvm.loops.variants import Columns, Flat, Rows
from dualgraph.kernels.program import Step, row_shape
from native import FORMS, Array, assert_same, compare, fold_step, layouts, loop, run, sample, view

# --------------------------------------------------------------------------------------------------------- elementwise

X, Y = E.input(0, "float32"), E.input(1, "float32")


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


@pytest.mark.parametrize("dtype", NAMES)
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


@pytest.mark.slow
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


# ---------------------------------------------------------------------------------------------------- all of it at once


def scattered(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """An array with axes in any order in memory, and gaps."""
    order = rng.permutation(len(shape))
    room = [shape[axis] * int(rng.integers(1, 3)) + int(rng.integers(0, 2)) for axis in order]
    x = sample(rng, tuple(room), dtype).transpose(np.argsort(order)) / 20
    return np.asarray(converted(x, dtype)[tuple(slice(n) for n in shape)])


def random_results(rng: np.random.Generator, exprs: list[E.Expr], folded: bool) -> list[E.Expr]:
    """Grow expressions from `exprs`, mostly of the newest ones, and choose results."""
    leaves, dtype = len(exprs), exprs[0].dtype

    def computed(make: Callable[..., E.Expr], *operands: E.Expr) -> E.Expr:
        return E.cast(make(*map(E.widened, operands)), dtype)

    def pick() -> E.Expr:
        return exprs[int(rng.integers(max(0, len(exprs) - 6), len(exprs)))]

    for _ in range(int(rng.integers(2, 14))):
        kind = rng.random()
        if kind < 0.25 and folded:
            exprs.append(computed(partial(E.fold, str(rng.choice(["sum", "max", "min", "prod"]))), pick()))
        elif kind < 0.75:
            name = str(rng.choice(["add", "sub", "mul", "minimum", "maximum", "div"]))
            exprs.append(computed(partial(E.call, name), pick(), pick()))
        elif kind < 0.85:
            exprs.append(E.select(E.call("gt", E.widened(pick()), E.widened(pick())), pick(), pick()))
        else:
            exprs.append(
                computed(partial(E.call, str(rng.choice(["neg", "abs", "square", "floor", "sqrt", "sign"]))), pick())
            )
    return [exprs[i] for i in {len(exprs) - 1, *(int(i) for i in rng.integers(leaves - 1, len(exprs), 2))}]


@pytest.mark.parametrize("seed", range(40))
def test_random_kernels_follow_the_reference(seed: int) -> None:
    """Random code with folds of folds over scattered operands, in every form, with cuts, perhaps in place."""
    rng = np.random.default_rng(seed)
    dtype, folded = str(rng.choice(FLOATS)), bool(rng.random() < 0.8)
    before, after = (tuple(int(n) for n in rng.integers(1, 24, rng.integers(0, 3))) for _ in range(2))
    shape = (*before, int(rng.choice([1, 2, 7, 16, 20, 33, 70])), *after)
    axes = (len(before),) if folded else ()
    rows = [bool(folded and rng.random() < 0.3) for _ in range(int(rng.integers(1, 5)))]
    shapes = [row_shape(shape, axes) if row else shape for row in rows]
    arrays = [scattered(rng, s, dtype) for s in shapes]
    exprs = [E.input(i, dtype) for i in range(len(rows))]
    exprs += [E.cast(E.index(), dtype), E.cast(E.position(), dtype), E.literal(float(rng.standard_normal()), dtype)]
    kernel = loop(random_results(rng, exprs, folded), [dtype] * len(rows), rows)
    is_row = kernel.is_row()
    outs = [scattered(rng, row_shape(shape, axes) if is_row[r] else shape, dtype) for r in kernel.results]
    step = fold_step(kernel, arrays, outs, axes, shape)
    target = next((n for n, r in enumerate(kernel.results) if not is_row[r]), None)
    source = next((i for i, row in enumerate(rows) if not row), None)
    for form in FORMS:
        results = compare(step, [*arrays, *outs], len(arrays), form, cuts=sorted(rng.integers(0, 50, 2)), **form)
        if target is not None and source is not None:
            fresh = [np.copy(a, order="K") for a in arrays]
            on_fresh = fold_step(kernel, fresh, outs, axes, shape)
            aliased = list(on_fresh.outs)
            aliased[target] = on_fresh.ins[source]
            run(Step(kernel, tuple(aliased), on_fresh.ins, shape, axes), [*fresh, *outs], **form)
            assert_same(fresh[source], results[target], ("in place", form))
