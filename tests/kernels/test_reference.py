"""The reference interpreter against NumPy, and against a second, scalar writing of the canonical fold."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest

from dualgraph.errors import ArgumentError, DTypeError
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import (
    CheckIndex,
    External,
    Gather,
    GatherAlong,
    Loop,
    MatMul,
    ScatterAdd,
    ScatterAddAlong,
)
from dualgraph.kernels.monoids import MONOIDS, monoid
from dualgraph.kernels.program import Program, View, row_view
from dualgraph.kernels.reference import NUMPY, load
from dualgraph.kernels.reference.folds import fold
from dualgraph.spec import Spec

FLOATS = ["float32", "float64"]


def bits(x):
    return np.asarray(x).tobytes()


def scalar(function, *operands):
    """An elementwise expression over one-dimensional operands, through a program."""
    program = Program()
    arrays = [np.atleast_1d(x) for x in operands]
    inputs = [E.input(i, x.dtype.name) for i, x in enumerate(arrays)]
    code, results = E.linearise([function(*inputs)])
    views = [program.input(Spec(x.shape, x.dtype.name)).broadcast_to(arrays[0].shape) for x in arrays]
    kernel = Loop(code, results, tuple(v.dtype for v in views), (False,) * len(views))
    out = program.new(Spec(arrays[0].shape, kernel.output_dtypes[0]))
    program.outputs.append(out.buffer)
    program.add(kernel, [out], views, arrays[0].shape)
    return load(program).launch(*arrays)


def apply(op, *operands):
    return scalar(lambda *xs: E.call(op, *xs), *operands)


# ---------------------------------------------------------------------------------------------- scalar instructions


def test_every_instruction_has_a_meaning():
    assert set(NUMPY) == set(E.INSTRUCTIONS)


def test_every_monoid_joins_by_an_instruction():
    for row in MONOIDS.values():
        assert E.INSTRUCTIONS[row.instruction].arity == 2


def test_an_unknown_monoid_is_an_error():
    """Where a fold is made, rather than one that starts with a number that happens to be there."""
    for make in (monoid, lambda name: E.fold(name, E.input(0, "float32"))):
        with pytest.raises(ArgumentError, match="got monoid 'median'; there is none of this name; known are sum, prod"):
            make("median")
    with pytest.raises(DTypeError, match="got a fold of float32"):
        E.fold("any", E.input(0, "float32"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", [name for name, row in E.INSTRUCTIONS.items() if row.kinds == "float"])
def test_bits_do_not_depend_on_length_or_place(op, dtype):
    rng = np.random.default_rng(0)
    x, y = (3 * rng.standard_normal((2, 201))).astype(dtype)
    y[::5], y[1::5], y[2::5] = 2, 0.5, -1
    args = (x, y)[: E.INSTRUCTIONS[op].arity]
    whole = apply(op, *args)
    for length in (1, 3, 17):
        parts = [apply(op, *(a[i : i + length] for a in args)) for i in range(0, 201, length)]
        assert bits(np.concatenate(parts)) == bits(whole)


def meaningful():
    """Every instruction with the dtypes it is meant for."""
    for op, row in E.INSTRUCTIONS.items():
        only_integers = "bitwise" in op or "shift" in op
        floats = () if only_integers or op == "mul_high_u32" else FLOATS
        integers = () if row.kinds == "float" else ("int32",) if op == "mul_high_u32" else ("int32", "int64")
        if op not in (*E.CONVERSIONS, "select"):
            yield from ((op, dtype) for dtype in (*floats, *integers))


@pytest.mark.parametrize(("op", "dtype"), list(meaningful()))
def test_no_warning_leaks_and_dtypes_hold(op, dtype):
    row, is_float = E.INSTRUCTIONS[op], dtype in FLOATS
    edge = (
        [0.0, -0.0, 1, -1, math.inf, -math.inf, math.nan, 1e30, 1e-40] if is_float else [0, 1, -1, 2**31 - 1, -(2**31)]
    )
    x, y = (a.ravel() for a in np.meshgrid(np.array(edge, dtype), np.array(edge, dtype)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = apply(op, *(x, y)[: row.arity])
    assert out.dtype == (np.bool_ if row.predicate else x.dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_maximum_and_minimum_order_zeros_and_propagate_nan(dtype):
    x = np.array([0.0, -0.0, np.nan, 1.0, -0.0], dtype)
    y = np.array([-0.0, 0.0, 1.0, np.nan, -0.0], dtype)
    assert bits(apply("maximum", x, y)[[0, 1, 4]]) == bits(np.array([0.0, 0.0, -0.0], dtype))
    assert bits(apply("minimum", x, y)[[0, 1, 4]]) == bits(np.array([-0.0, -0.0, -0.0], dtype))
    assert np.isnan(apply("maximum", x, y)[2:4]).all()
    assert np.isnan(apply("minimum", x, y)[2:4]).all()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integer_division_is_total_and_floors(dtype):
    lowest = np.iinfo(dtype).min
    x = np.array([7, -7, 7, -7, 5, lowest], dtype)
    y = np.array([2, 2, -2, -2, 0, -1], dtype)
    assert apply("floor_divide", x, y).tolist() == [3, -4, -4, 3, 0, lowest]
    assert apply("remainder", x, y).tolist() == [1, 1, -1, -1, 0, 0]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_shifts_by_the_width_or_more(dtype):
    width = 8 * np.dtype(dtype).itemsize
    x = np.array([5, -5, 5, -5, -5, 5, -5, -1], dtype)
    y = np.array([1, 1, width, width, -1, width - 1, 0, width - 1], dtype)
    top = np.iinfo(dtype).min
    unsigned = (-5) % 2**width
    assert apply("left_shift", x, y).tolist() == [10, -10, 0, 0, 0, top, -5, top]
    assert apply("right_shift", x, y).tolist() == [2, -3, 0, -1, -1, 0, -5, -1]
    assert apply("logical_right_shift", x, y).tolist() == [2, unsigned >> 1, 0, 0, 0, 0, -5, 1]


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("to", ["int32", "int64"])
def test_float_to_integer_casts_truncate_and_saturate(source, to):
    low, high = np.iinfo(to).min, np.iinfo(to).max
    x = np.array([1.9, -1.9, np.nan, np.inf, -np.inf, 1e30, -1e30, float(high), float(low)], source)
    last = 2**31 - 1 if (to, source) == ("int32", "float64") else high
    assert scalar(lambda e: E.cast(e, to), x).tolist() == [1, -1, 0, high, low, high, low, last, low]
    below = np.nextafter(np.array([2.0**31], source), np.array([0], source))
    assert scalar(lambda e: E.cast(e, to), below).tolist() == [math.trunc(float(below[0]))]


def test_other_casts():
    assert scalar(lambda e: E.cast(e, "bool"), np.array([0.0, -0.0, 1e-45, np.nan], "float32")).tolist() == [0, 0, 1, 1]
    assert scalar(lambda e: E.cast(e, "int32"), np.array([2**32 + 5, -1, 2**31])).tolist() == [5, -1, -(2**31)]
    assert scalar(lambda e: E.cast(e, "float32"), np.array([True, False])).tolist() == [1, 0]


def test_arithmetic_stays_in_the_dtype_of_the_operands():
    x = np.array([1e30, 2**31 - 1], "float32")
    assert apply("mul", x, x).tolist()[0] == math.inf
    assert apply("add", np.array([2**31 - 1], "int32"), np.array([1], "int32")).tolist() == [-(2**31)]


def test_mul_high_u32_is_the_upper_word():
    x, y = (np.random.default_rng(1).integers(-(2**31), 2**31, (2, 100))).astype("int32")
    expected = [((int(a) % 2**32) * (int(b) % 2**32)) >> 32 for a, b in zip(x, y, strict=True)]
    assert apply("mul_high_u32", x, y).view("uint32").tolist() == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid_and_erf(dtype):
    x = np.array([-1000, -88, -1, -0.0, 0.5, 30, 1000, np.nan], dtype)
    exact = [0, 1 / (1 + math.exp(88)), 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-30)), 1]
    assert np.allclose(apply("sigmoid", x)[:-1], exact, rtol=4 * np.finfo(dtype).eps, atol=0)
    assert np.isnan(apply("sigmoid", x)[-1])
    assert np.isnan(apply("erf", x)[-1])
    assert apply("erf", x[:-1]).tolist() == [float(np.dtype(dtype).type(math.erf(v))) for v in x[:-1]]


def test_literals_keep_their_bits():
    out = scalar(
        lambda e: E.select(e, E.literal(-0.0, "float32"), E.literal(math.inf, "float32")), np.array([True, False])
    )
    assert bits(out) == bits(np.array([-0.0, math.inf], "float32"))


# ------------------------------------------------------------------------------------------------------------ folds


def scalar_fold(combine, values, start):
    """The canonical order once more, one element at a time and recursive over chunks."""
    results = []
    for first in range(0, len(values), 4096):
        lanes = [start] * 32
        for k, value in enumerate(values[first : first + 4096]):
            lanes[k % 32] = combine(lanes[k % 32], value)
        for half in (16, 8, 4, 2, 1):
            lanes = [combine(lanes[i], lanes[i + half]) for i in range(half)]
        results.append(lanes[0])

    def merge(parts):
        if len(parts) == 1:
            return parts[0]
        left = 2 ** ((len(parts) - 1).bit_length() - 1)  # the largest power of two below the number of parts
        return combine(merge(parts[:left]), merge(parts[left:]))

    return merge(results)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 100, 4095, 4096, 4097, 12289, 28672, 30000])
def test_sum_has_the_canonical_order(size, dtype):
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    make = np.dtype(dtype).type
    assert bits(fold("sum", x)) == bits(scalar_fold(lambda a, b: a + b, list(x), make(-0.0)))


@pytest.mark.parametrize("name", ["prod", "max", "min"])
def test_other_monoids_agree_with_numpy(name):
    x = np.random.default_rng(2).integers(-3, 4, 300).astype("int64")
    assert fold(name, x) == getattr(np, name)(x)
    y = x.astype("float64") + 0.5
    assert np.isclose(fold(name, y), getattr(np, name)(y), rtol=1e-12)


def test_any_and_all():
    x = np.array([[True, False, True], [True, False, False]])
    assert fold("any", x).tolist() == [True, False, True]
    assert fold("all", x).tolist() == [True, False, False]


def test_sum_is_accurate():
    x = np.random.default_rng(3).standard_normal(100_000).astype("float32")
    assert abs(float(fold("sum", x)) - float(sum(Fraction(float(v)) for v in x))) < 1e-3


def test_fold_of_nothing_is_the_identity_but_sums_give_plus_zero():
    empty = np.empty((0, 2), "float32")
    assert bits(fold("sum", empty)) == bits(np.zeros(2, "float32"))
    assert fold("prod", empty).tolist() == [1, 1]
    assert fold("max", empty).tolist() == [-math.inf] * 2
    assert fold("min", empty).tolist() == [math.inf] * 2
    assert fold("any", empty > 0).tolist() == [False] * 2
    assert fold("all", empty > 0).tolist() == [True] * 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_identities_leave_every_value_alone(name, dtype):
    values = {"f": [0.0, -0.0, 1.5, math.inf, -math.inf], "i": [0, 1, -7], "b": [True, False]}[np.dtype(dtype).kind]
    x = np.array(values, dtype)
    start = np.full(x.shape, MONOIDS[name].identity(dtype), dtype)
    join = NUMPY[MONOIDS[name].instruction]
    assert bits(join(start, x)) == bits(x) == bits(join(x, start))


def test_sum_of_negative_zeros_keeps_the_sign():
    assert np.signbit(fold("sum", np.full(5, -0.0)))


# ---------------------------------------------------------------------------------------------------- loops, memory


def reduction(shape, axes, monoid="sum", dtype="float32", view=None):
    """A program folding one input, of which it sees `view` (or the whole)."""
    program = Program()
    x = program.input(Spec(shape, dtype))
    x = x if view is None else view(x)
    code, results = E.linearise([E.fold(monoid, E.input(0, dtype))])
    out = program.new(Spec(tuple(1 if a in axes else n for a, n in enumerate(x.shape)), dtype))
    program.outputs.append(out.buffer)
    program.add(Loop(code, results, (dtype,), (False,)), [row_view(out, x.shape, axes)], [x], x.shape, axes)
    return program


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_folds_along_any_axes_have_the_bits_of_the_flat_fold(axes):
    x = np.random.default_rng(4).standard_normal((7, 40, 9)).astype("float32")
    out = load(reduction(x.shape, axes)).launch(x)
    kept = [a for a in range(3) if a not in axes]
    rows = x.transpose(*kept, *axes).reshape(out.size, -1)
    assert bits(out) == bits(np.array([fold("sum", row.copy()) for row in rows]))


def test_folds_over_empty_axes_and_empty_domains():
    assert load(reduction((3, 0), (1,))).launch(np.empty((3, 0), "float32")).tolist() == [[0], [0], [0]]
    assert load(reduction((0, 3), (1,))).launch(np.empty((0, 3), "float32")).shape == (0, 1)
    assert load(reduction((3,), ())).launch(np.arange(3, dtype="float32")).tolist() == [0, 1, 2]
    assert load(reduction((), ())).launch(np.array(2, "float32")).shape == ()


def test_softmax_mixes_rows_and_full_values():
    program = Program()
    x, shift = program.input(Spec((4, 50), "float64")), program.input(Spec((4, 1), "float64"))
    e = E.call("exp", E.input(0, "float64") - E.input(1, "float64"))
    total = E.fold("sum", e)
    code, results = E.linearise([e / total, E.call("log", total)])
    full, row = program.new(Spec((4, 50), "float64")), program.new(Spec((4, 1), "float64"))
    program.outputs += [full.buffer, row.buffer]
    domain, axes = (4, 50), (1,)
    kernel = Loop(code, results, ("float64",) * 2, (False, True))
    outs = [full, row_view(row, domain, axes)]
    program.add(kernel, outs, [x, row_view(shift, domain, axes)], domain, axes)
    a = np.random.default_rng(5).standard_normal((4, 50))
    top = a.max(1, keepdims=True)
    softmax, logsum = load(program).launch(a, top)
    assert np.allclose(softmax.sum(1), 1)
    assert np.allclose(softmax, np.exp(a - top - logsum))


def test_index_and_position():
    program = Program()
    outs = [program.new(Spec((2, 3), "int64")) for _ in range(2)]
    program.outputs += [o.buffer for o in outs]
    code, results = E.linearise([E.index(), E.position()])
    program.add(Loop(code, results, (), ()), outs, [], (2, 3), (1,))
    number, place = load(program).launch()
    assert number.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert place.tolist() == [[0, 1, 2], [0, 1, 2]]


def copy_program(view_of, shape=(6,), dtype="float64"):
    program = Program()
    x = view_of(program.input(Spec(shape, dtype)))
    code, results = E.linearise([E.input(0, dtype)])
    out = program.new(Spec(x.shape, dtype))
    program.outputs.append(out.buffer)
    program.add(Loop(code, results, (dtype,), (False,)), [out], [x], x.shape)
    return program


def test_views_are_relative_to_the_data_pointer():
    whole = np.arange(24.0).reshape(4, 6)
    identity_view = copy_program(lambda x: x)
    assert load(identity_view).launch(whole[2]).tolist() == whole[2].tolist()
    backwards = copy_program(lambda x: x.with_layout((6,), (-1,)))  # the array itself runs backwards
    assert load(backwards).launch(whole[1, ::-1]).tolist() == whole[1, ::-1].tolist()
    reversed_view = copy_program(lambda x: x.with_layout((6,), (-1,), 5))
    assert load(reversed_view).launch(whole[1]).tolist() == whole[1, ::-1].tolist()
    columns = copy_program(lambda x: x.with_layout((3, 4), (1, 6), 2), (4, 6))
    assert load(columns).launch(whole).tolist() == whole.T[2:5].tolist()


def test_steps_may_write_inputs_in_place_and_swap():
    program = Program()
    x, y = (program.input(Spec((3,), "float32")) for _ in range(2))
    code, results = E.linearise([E.input(1, "float32"), E.input(0, "float32")])
    program.add(Loop(code, results, ("float32",) * 2, (False,) * 2), [x, y], [x, y], (3,))
    a, b = np.arange(3, dtype="float32"), np.ones(3, "float32")
    assert load(program).launch(a, b) is None
    assert a.tolist() == [1, 1, 1]
    assert b.tolist() == [0, 1, 2]


def test_constants_scratch_and_stepwise():
    program = Program()
    x, two = program.input(Spec((3,), "float64")), program.constant(np.array([2.0]))
    code, results = E.linearise([E.input(0, "float64") * E.input(1, "float64")])
    kernel = Loop(code, results, ("float64",) * 2, (False,) * 2)
    middle, out = program.new(x.spec), program.new(x.spec)
    program.outputs.append(out.buffer)
    for target, source in ((middle, x), (out, middle)):
        program.add(kernel, [target], [source, two.broadcast_to((3,))], (3,))
    seen = {}
    result = load(program).stepwise([np.arange(3.0)], lambda n, wrote: seen.update({(n, *wrote): list(wrote.values())}))
    assert result.tolist() == [0, 4, 8]
    assert {key: v[0].tolist() for key, v in seen.items()} == {
        (0, middle.buffer): [0, 2, 4],
        (1, out.buffer): [0, 4, 8],
    }


def test_an_arena_places_scratch_buffers():
    class Plan:
        size = 24
        offsets = {2: 0}  # noqa: RUF012

    program = Program()
    x, y = program.input(Spec((3,), "float64")), program.input(Spec((3,), "float64"))
    code, results = E.linearise([E.input(0, "float64") + E.input(1, "float64")])
    kernel = Loop(code, results, ("float64",) * 2, (False,) * 2)
    middle, out = program.new(x.spec), program.new(x.spec)
    program.outputs.append(out.buffer)
    program.add(kernel, [middle], [x, y], (3,))
    program.add(kernel, [out], [middle, middle], (3,))
    assert load(program, Plan()).launch(np.ones(3), np.ones(3)).tolist() == [4, 4, 4]


# ---------------------------------------------------------------------------------------------------- other kernels


def step(kernel, out_shape, *arrays, dtype=None):
    program = Program()
    views = [program.input(Spec(a.shape, a.dtype.name)) for a in arrays]
    outs = [] if out_shape is None else [program.new(Spec(out_shape, dtype or arrays[0].dtype.name))]
    program.outputs += [o.buffer for o in outs]
    program.add(kernel, outs, views)
    return load(program).launch(*arrays)


def test_matmul_does_not_depend_on_layout():
    a, b = np.random.default_rng(6).standard_normal((2, 3, 5, 5)).astype("float32")
    program = Program()
    x, y = program.input(Spec(a.shape, "float32")), program.input(Spec(b.shape, "float32"))
    out = program.new(Spec(a.shape, "float32"))
    program.outputs.append(out.buffer)
    program.add(MatMul("float32"), [out], [x.with_layout((3, 5, 5), (25, 1, 5)), y])
    assert bits(load(program).launch(a, b)) == bits(np.matmul(a.transpose(0, 2, 1).copy(), b))


def test_gather_and_scatter_add():
    rng = np.random.default_rng(7)
    x, index = rng.standard_normal((2, 4, 3)).astype("float32"), np.array([3, 0, 3, 1, 3])
    assert bits(step(Gather("float32", "int64"), (2, 5, 3), x, index)) == bits(x[:, index])
    g = rng.standard_normal((2, 5, 3)).astype("float32")
    expected = np.zeros_like(x)
    np.add.at(expected, (slice(None), index), g)
    assert bits(step(ScatterAdd("float32", "int64"), x.shape, g, index)) == bits(expected)


def test_gather_and_scatter_add_along():
    rng = np.random.default_rng(8)
    x, g = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 6, 3))
    index = rng.integers(0, 4, (2, 6, 3)).astype("int32")
    out = step(GatherAlong("float64", "int32"), index.shape, x, index)
    assert bits(out) == bits(np.take_along_axis(x, index, 1))
    expected = np.zeros_like(x)
    for a, i, b in np.ndindex(*index.shape):
        expected[a, index[a, i, b], b] += g[a, i, b]
    assert bits(step(ScatterAddAlong("float64", "int32"), x.shape, g, index)) == bits(expected)


@pytest.mark.parametrize("bad", [-5, 4])
def test_bad_indices_fail_the_step(bad):
    x, index = np.zeros((2, 4, 3), "float32"), np.array([0, bad])
    along = np.full((2, 2, 3), bad)
    assert step(Gather("float32", "int64"), (2, 2, 3), x, index) == 0
    assert step(ScatterAdd("float32", "int64"), (2, 4, 3), x[:, :2].copy(), index) == 0
    assert step(GatherAlong("float32", "int64"), (2, 2, 3), x, along) == 0
    assert step(ScatterAddAlong("float32", "int64"), (2, 4, 3), x[:, :2].copy(), along) == 0
    assert step(CheckIndex("int64", 0, 4, "index"), None, index) == 0
    assert step(CheckIndex("int64", -5, 5, "index"), None, index) is None


def test_external_functions_get_copies_and_are_checked():
    def split(x, sign):
        x *= sign
        return np.sort(x), np.argsort(x)

    program = Program()
    x = program.input(Spec((3,), "float64"))
    outs = [program.new(Spec((3,), "float64")), program.new(Spec((3,), "int64"))]
    program.outputs += [o.buffer for o in outs]
    program.add(External("sort", split, (("sign", -1.0),)), outs, [x])
    a = np.array([3.0, 1.0, 2.0])
    values, order = load(program).launch(a)
    assert values.tolist() == [-3, -2, -1]
    assert order.tolist() == [0, 2, 1]
    assert a.tolist() == [3, 1, 2]
    with pytest.raises(TypeError, match="external kernel wrong returned"):
        step(External("wrong", lambda x: (x[:1],)), (3,), a)


def test_a_view_may_start_anywhere_in_a_buffer():
    program = Program()
    x = program.input(Spec((8,), "int32"))
    part = View(x.buffer, (2,), (3,), 1, "int32")
    code, results = E.linearise([E.literal(9, "int32")])
    program.add(Loop(code, results, (), ()), [part], [], (2,))
    a = np.zeros(8, "int32")
    load(program).launch(a)
    assert a.tolist() == [0, 9, 0, 0, 9, 0, 0, 0]


def test_bools_divide_as_integers():
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    for op, expected in (("floor_divide", [True, False, False, False]), ("remainder", [False] * 4)):
        result = apply(op, x, y)
        assert result.dtype == bool
        assert result.tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0, 0.0, 1.0, 3.0, -0.5, 1.5])
def test_powers_do_not_depend_on_the_shape(exponent: float, dtype: str) -> None:
    """NumPy has short cuts, of other roundings, where one exponent serves a whole array."""
    x = np.random.default_rng(0).uniform(0.1, 9.0, 500).astype(dtype)
    other = np.full(x.shape, exponent, dtype)
    whole = NUMPY["pow"](x, np.where(np.arange(500) % 2, exponent, 7.0).astype(dtype))[1::2]
    for shape in ((), (1,), (1, 1)):
        single = [NUMPY["pow"](v.reshape(shape), e.reshape(shape)).reshape(()) for v, e in zip(x, other, strict=True)]
        assert np.array(single)[1::2].tobytes() == whole.tobytes()
    assert NUMPY["pow"](x, other)[1::2].tobytes() == whole.tobytes()
