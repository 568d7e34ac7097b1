"""One NaN: whatever sign and payload an operation gives, what is computed is one NaN; copies keep the bits they find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.bits import same_bits
from dualgraph.dtypes import DTYPES
from dualgraph.kernels import expr as E
from dualgraph.kernels import nan, provider, reference
from dualgraph.kernels.kinds import OTHER, External, Loop
from dualgraph.kernels.program import Program
from dualgraph.spec import Spec

Array = np.ndarray[Any, Any]

UNSIGNED = {"float32": np.uint32, "float64": np.uint64}
FLOATS = ("float32", "float64")
INSTRUCTIONS = [n for n, row in E.INSTRUCTIONS.items() if row.kinds not in ("bits", "integer") and n != "widen"]
QUIET = {"float32": 1 << 22, "float64": 1 << 51}


def nans(dtype: str) -> Array:
    """Quiet and signalling NaNs of either sign, with payloads, and the one NaN."""
    sign, infinity = 1 << (8 * np.dtype(dtype).itemsize - 1), DTYPES[dtype].infinity
    quiet = [infinity | QUIET[dtype], infinity | QUIET[dtype] | 0x12345]
    bits = [*quiet, *(b | sign for b in quiet), infinity | 0x777, infinity | sign | 0x1]
    return np.array(bits, UNSIGNED[dtype]).view(dtype)


def odd_values(dtype: str) -> Array:
    f = np.finfo(dtype)
    plain = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 0.3, np.inf, -np.inf, f.max, -f.max, f.tiny / 4, -f.tiny / 4, 1e6]
    return np.concatenate([nans(dtype), np.array(plain, dtype)])


def operands(arity: int, dtype: str) -> list[Array]:
    """Every combination of odd values."""
    grid = np.meshgrid(*[odd_values(dtype)] * arity, indexing="ij")
    return [np.ascontiguousarray(x.reshape(-1)) for x in grid]


def launch(load: Any, results: list[E.Expr], arrays: list[Array]) -> list[Array]:
    """The expressions as one kernel over the arrays."""
    program = Program()
    views = [program.input(Spec(a.shape, a.dtype.name)) for a in arrays]
    code, numbers = E.linearise(results)
    loop = Loop(code, numbers, tuple(a.dtype.name for a in arrays), (False,) * len(arrays))
    outs = [program.new(Spec(arrays[0].shape, r.dtype)) for r in results]
    program.add(loop, outs, views, arrays[0].shape)
    program.outputs = [o.buffer for o in outs]
    found = load(program).launch(*arrays)
    return list(found) if isinstance(found, tuple) else [found]


def applied(name: str, dtype: str) -> tuple[E.Expr, list[Array]]:
    row = E.INSTRUCTIONS[name]
    if name == "cast":
        return E.cast(E.input(0, dtype), "float32" if dtype == "float64" else "float64"), operands(1, dtype)
    if name == "select":
        x, y = operands(2, dtype)
        condition = np.arange(len(x)) % 3 == 0
        return E.call("select", E.input(0, "bool"), E.input(1, dtype), E.input(2, dtype)), [condition, x, y]
    return E.call(name, *(E.input(i, dtype) for i in range(row.arity))), operands(row.arity, dtype)


def wrapped(value: E.Expr) -> list[E.Expr]:
    """What a compiler may take for the value itself."""
    return [
        value * 1.0, value - 0.0, value / 1.0, value + -0.0, E.call("neg", -value), E.call("abs", value),
        E.call("maximum", value, value), E.select(E.call("eq", value, value), value, value),
    ]  # fmt: skip


def other(x: Array) -> Array:
    """Where x holds another NaN than the one NaN."""
    return np.isnan(x) & (x.view(UNSIGNED[x.dtype.name]) != DTYPES[x.dtype.name].one_nan)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_every_instruction(name: str, dtype: str) -> None:
    """Computed NaNs are one, stored or observed, alone or fused, in both providers; copies are copies."""
    value, arrays = applied(name, dtype)
    row = E.INSTRUCTIONS[name]
    if row.predicate:
        (native,), (numpy,) = (launch(load, [value], arrays) for load in (provider.load, reference.load))
        assert same_bits(native, numpy)
        return
    one = E.literal(1.0, value.dtype)
    seen = [E.call("signbit", value), E.call("copysign", one, value)]
    later = E.input(0, value.dtype)
    for load in (provider.load, reference.load):
        (alone,) = launch(load, [value], arrays)
        expected = launch(load, [E.call("signbit", later), E.call("copysign", one, later)], [alone])
        found = launch(load, [value, *seen, *wrapped(value)], arrays)
        without = launch(load, seen, arrays)  # where the value itself is not stored
        for x, y in zip([*found[:3], *without], [alone, *expected, *expected], strict=True):
            assert same_bits(x, y)
        if row.copies:
            source = np.where(*arrays)
            assert same_bits(alone, source)
            assert other(alone).any()
        else:
            assert not other(alone).any()
        for x in found[3:-1]:
            assert not other(x).any()
        assert same_bits(found[-1], alone)
    native, numpy = (launch(load, [value], arrays)[0] for load in (provider.load, reference.load))
    np.testing.assert_array_equal(np.isnan(native), np.isnan(numpy))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("extent", [1, 2, 5, 70])
@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min"])
def test_folds_compute(monoid: str, extent: int, dtype: str) -> None:
    """Also those of one element, of which LLVM sees through the square root."""
    x = np.resize(nans(dtype), (12, extent))
    negative = np.full((12, extent), -2.0, dtype)
    for array, expression in ((x, E.input(0, dtype)), (negative, E.call("sqrt", E.input(0, dtype)))):
        total = E.fold(monoid, expression)
        code, numbers = E.linearise([total, E.call("signbit", total)])
        program = Program()
        view = program.input(Spec(array.shape, dtype))
        outs = [program.new(Spec((12, 1), d)) for d in (dtype, "bool")]
        wide = [o.with_layout(array.shape, (o.strides[0], 0)) for o in outs]
        program.add(Loop(code, numbers, (dtype,), (False,)), wide, [view], array.shape, (1,))
        program.outputs = [o.buffer for o in outs]
        for load in (provider.load, reference.load):
            value, sign = load(program).launch(array)
            assert set(value.view(UNSIGNED[dtype]).reshape(-1).tolist()) == {DTYPES[dtype].one_nan}
            assert not sign.any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_literals_keep_their_bits(dtype: str) -> None:
    x = np.ones(40, dtype)
    for bits in nans(dtype).view(UNSIGNED[dtype]).tolist():
        literal = E.Expr(E.LITERAL, (), dtype, bits)
        chosen = E.select(E.call("lt", E.input(0, dtype), 0.0), E.input(0, dtype), literal)
        for load in (provider.load, reference.load):
            stored, sign = launch(load, [chosen, E.call("signbit", chosen)], [x])
            assert set(stored.view(UNSIGNED[dtype]).tolist()) == {bits}
            assert sign.all() == bool(bits >> (8 * x.itemsize - 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_scatter_adds_compute(dtype: str) -> None:
    x = np.zeros((8, 3), dtype)
    g = np.resize(nans(dtype), (4, 3))
    index = np.array([0, 2, 2, 5])

    def rows(x: Any, g: Any) -> Any:
        return dg.grad(dg.take(x, index, axis=0), [x], g)[0]

    def along(x: Any, g: Any) -> Any:
        return dg.grad(dg.take_along_axis(x, np.repeat(index[:, None], 3, 1), axis=0), [x], g)[0]

    for function in (rows, along):
        eager = function(dg.tensor(x, requires_grad=True), dg.tensor(g)).numpy()
        assert np.isnan(eager).sum() == 9
        assert not other(eager).any()


def test_what_is_copied_lies_among_the_operands() -> None:
    assert nan.copied_operands(External("f", lambda x: (x,)), 0) == {OTHER}
    for row in E.INSTRUCTIONS.values():
        assert all(0 <= n < row.arity for n in (*row.copies, *row.observes))


# Through the public functions, in every mode.


def bits(x: Any) -> set[int]:
    array = np.ascontiguousarray(x.numpy()).reshape(-1)
    return set(array.view(UNSIGNED[array.dtype.name]).tolist())


COMPUTED: list[Callable[[Any, Any], Any]] = [  # x is infinite, y a negative NaN
    lambda x, y: x - x,
    lambda x, y: -(x - x),
    lambda x, y: y + (x - x),
    lambda x, y: (x - x) + y,
    lambda x, y: dg.sum(x - x, axis=1),
    lambda x, y: dg.sum(x - x, axis=0),
    lambda x, y: dg.sum(-(x - x) + y),
    lambda x, y: dg.maximum(y, x),
    lambda x, y: dg.max(y * x, axis=0),
    lambda x, y: dg.softmax(x, axis=1),
    lambda x, y: dg.abs(y) * 1.0,
    lambda x, y: dg.sin(x),
    lambda x, y: dg.sqrt(-x),
    lambda x, y: dg.std(x, axis=1),
    lambda x, y: x @ y.mT,
    lambda x, y: x.mT @ (x * 0.0),
    lambda x, y: dg.linear(x, y),
    lambda x, y: dg.sum(y[:, :1], axis=1),
    lambda x, y: dg.where(x > 0, y * 2.0, y + 1.0),
    lambda x, y: dg.clip(y, -1.0, 1.0),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("number", range(len(COMPUTED)))
def test_computed_nans_are_one(number: int, dtype: str) -> None:
    function = COMPUTED[number]
    x, y = np.full((3, 40), np.inf, dtype), np.full((3, 40), -np.nan, dtype)
    assert bits(function(dg.tensor(x), dg.tensor(y))) == {DTYPES[dtype].one_nan}
    spec = static.spec(x.shape, dtype)
    for level in ("none", "exact"):
        compiled = static.compile(lambda x, y: (function(x, y), dg.signbit(function(x, y))), spec, spec, optimize=level)
        value, sign = compiled(x, y)
        assert bits(value) == {DTYPES[dtype].one_nan}
        assert not sign.numpy().any()


COPIES: dict[str, Callable[[Any], Any]] = {
    "flip": lambda x: dg.flip(dg.flip(x)),
    "concat": lambda x: dg.concat([x, x])[: x.shape[0]],
    "reshape": lambda x: x.reshape(2, -1).mT.reshape(-1, 2).mT.reshape(-1),
    "where": lambda x: dg.where(x == x, 1.0, x),
    "where-both": lambda x: dg.where(dg.isnan(x), x, x * 2.0),
    "relu": dg.relu,
    "take": lambda x: dg.take(x, np.arange(x.shape[0])),
    "take_along_axis": lambda x: dg.take_along_axis(x, np.arange(x.shape[0]), axis=0),
    "sort": lambda x: dg.sort(x),
    "sort-descending": lambda x: dg.sort(x, descending=True),
    "broadcast": lambda x: dg.broadcast_to(x, (3, *x.shape))[1],
    "detach": lambda x: x.detach(),
    "two": lambda x: dg.where(dg.isnan(x), dg.take(dg.relu(x), np.arange(6)), 0.0),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", COPIES)
def test_copies_keep_their_bits(name: str, dtype: str) -> None:
    function, x = COPIES[name], nans(dtype)
    spec = static.spec(x.shape, dtype)
    runs = [lambda x: function(dg.tensor(x))]
    runs += [static.compile(function, spec, optimize=level) for level in ("none", "exact")]
    for run in runs:
        assert same_bits(np.ascontiguousarray(run(x).numpy()), x)
