"""Deliberate faults: each must be caught by the very machinery that the other conformance tests use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import (
    assert_bits,
    assert_modes_agree,
    differentiated,
    run_eager,
)
from conformance.programs import program_of
from conformance.runs import bound, same_outcome
from conformance.test_gradients import check_gradient
from dualgraph import autodiff, static
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.kernels.kinds import External
from dualgraph.kernels.program import Program, View
from dualgraph.ops import OPS
from dualgraph.ops.symbol import Symbol
from dualgraph.static import passes
from dualgraph.static.algebra import EXACT, plus_zero, times_zero
from dualgraph.static.provenance import Provenance
from dualgraph.static.rewriter import Rewriter

X = np.random.default_rng(0).normal(size=(5, 37)).astype(np.float32)
X[0, :4] = [0.0, -0.0, np.inf, -np.inf]


def _external_fma(x: Any, y: Any, z: Any) -> tuple[Any]:
    """One rounding instead of two: exact in float64 up to the last rounding."""
    return ((x.astype(np.float64) * y + z).astype(x.dtype),)


def _lower_fma(program: Program, operands: tuple[Operand, ...], specs: Any, params: Any) -> tuple[View, ...]:
    out = program.new(specs[0])
    views = [as_view(program, x).broadcast_to(out.shape) for x in operands]
    program.add(External("fma", _external_fma), (out,), views)
    return (out,)


FMA = Op("fma", lambda x, y, z: z, _lower_fma, literal_scalars=False)


def contracted(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """x * y + z → fma(x, y, z)"""
    if call.op is not OPS["add"] or inputs[0].node.op is not OPS["multiply"] or call.specs[0].dtype != "float32":
        return None
    return rw.emit(call, FMA, (*inputs[0].node.inputs, inputs[1]), call.specs[0])


def _sequential(x: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Any]:
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = x.transpose(*axes, *kept).reshape(-1, *(x.shape[a] for a in kept))
    total = np.full(rows.shape[1:], -0.0, x.dtype)
    for row in rows:
        total = total + row
    return (np.asarray(total, x.dtype).reshape(shape),)


def _lower_sequential(program: Program, operands: tuple[Operand, ...], specs: Any, params: Any) -> tuple[View, ...]:
    out = program.new(specs[0])
    given = (("axes", params["axes"]), ("shape", specs[0].shape))
    program.add(External("sequential", _sequential, given), (out,), (as_view(program, operands[0]),))
    return (out,)


SEQUENTIAL = Op("sequential_sum", OPS["sum"].spec, _lower_sequential, literal_scalars=False)


def reordered(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """A sum from left to right"""
    if call.op is not OPS["sum"] or inputs[0].spec.size == 0:
        return None
    return rw.emit(call, SEQUENTIAL, inputs, call.specs[0], **call.params)


def swapped(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """x - y → y - x"""
    return rw.emit(call, call.op, inputs[::-1], call.specs[0]) if call.op is OPS["subtract"] else None


def forgotten_axis(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """A merge of calls that looks at the operands and forgets the parameters."""
    if call.op not in (OPS["slice"], OPS["sum"]):
        return None
    for other in rw.calls:
        if other.op is not call.op or list(map(id, other.inputs)) != list(map(id, inputs)):
            continue
        if other.specs == call.specs and other.params != call.params:
            return Symbol(None, other, 0)  # type: ignore[arg-type]
    return None


def double_rounding(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """x / y → x * (1 / y)"""
    if call.op is not OPS["divide"]:
        return None
    inverse = rw.emit(call, OPS["reciprocal"], inputs[1:], inputs[1].spec)
    return rw.emit(call, OPS["multiply"], (inputs[0], inverse), call.specs[0])


def foreign_nan(rw: Rewriter, call: Any, inputs: tuple[Symbol, ...]) -> Any:
    """x * 1 → x and the like, whoever made the NaN in x"""
    rw.provenance = _Trusting()
    found = (rule(rw, call, inputs) for rule in EXACT)
    return next((x for x in found if x is not None), None)


class _Trusting(Provenance):
    def is_computed(self, x: Symbol) -> bool:
        return True


FAULTS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "fma": (contracted, lambda x: x * x + x),
    "reordered-sum": (reordered, lambda x: dg.sum(x[1:], axis=1)),
    "swapped-operands": (swapped, lambda x: x - x[:, :1]),
    "plus-zero": (plus_zero, lambda x: x + 0.0),
    "times-zero": (times_zero, lambda x: x * 0.0),
    "forgotten-parameter": (forgotten_axis, lambda x: [x[1:3] * 1.0, x[2:4] * 1.0]),
    "foreign-nan": (foreign_nan, lambda x: dg.where(x > 0.5, x, -np.float32(np.nan)) * 1.0),
    "double-rounding": (double_rounding, lambda x: x / (x * x + 3.0)),
}


@pytest.fixture
def faulty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A compiler with one wrong rewrite among its exact passes."""
    rule, function = FAULTS[request.param]

    def run(dag: Any) -> tuple[Any, list[str]]:
        return Rewriter(dag).run(lambda rw, call, inputs: None if (x := rule(rw, call, inputs)) is None else [x]), []

    wrong = passes.Pass("faulty", "graph", "exact", "a deliberate fault", run)
    monkeypatch.setattr(passes, "PASSES", (wrong, *passes.PASSES))
    return function


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_a_wrong_pass_is_caught(faulty: Callable[[Any], Any]) -> None:
    assert_modes_agree(faulty, [X], levels=["none"])
    with pytest.raises(AssertionError, match="static exact against eager"):
        assert_modes_agree(faulty, [X])


@pytest.mark.slow
@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_random_programs_catch_it(faulty: Any) -> None:
    """Without an example made for the fault: the programs that the other tests draw, up to the first that notices."""
    for seed in range(4000):
        program = program_of(seed)._replace(order=0, left=False)
        eager, compiled = bound(program), bound(program)
        found = compiled.outcome(static.jit(compiled.function))
        if not same_outcome(found, eager.outcome(eager.function)):
            return
    pytest.fail("no program noticed the fault")


# ------------------------------------------------------------------------------------------------- differentiation


def product(x: Any) -> Any:
    return x * dg.tanh(x)


def test_a_dropped_accumulation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both modes: by finite differences. In static mode alone: by the comparison of modes."""
    add = autodiff.add
    monkeypatch.setattr(autodiff, "add", lambda held, g: g)
    with pytest.raises(AssertionError, match="by differences"):
        check_gradient(product, [np.linspace(0.5, 2, 5)])
    monkeypatch.setattr(autodiff, "add", lambda held, g: g if isinstance(g, Symbol) else add(held, g))
    check_gradient(product, [np.linspace(0.5, 2, 5)])
    with pytest.raises(AssertionError, match="static none against eager, result 1"):
        assert_modes_agree(product, [X])


def test_another_order_of_accumulation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three contributions: (a + b) + c against a + (b + c). No tolerance would find it."""

    def three(x: Any) -> Any:
        return [x * 1.1, x * dg.tanh(x), dg.sin(x) * 3.0]

    x = np.random.default_rng(1).normal(size=(50,)).astype(np.float32)
    assert_modes_agree(three, [x])
    contribute = autodiff.sum_to
    late: dict[Any, Any] = {}

    def delayed(g: Any, spec: Any) -> Any:
        g = contribute(g, spec)
        if not isinstance(g, Symbol) or spec.shape != (50,) or late.get("used"):
            return g
        if "first" not in late:
            late["first"] = g
            return dg.zeros_like(g)
        late["used"] = True
        return late["first"] + g

    monkeypatch.setattr(autodiff, "sum_to", delayed)
    with pytest.raises(AssertionError, match="result 2 of 3"):
        assert_modes_agree(lambda x: [three(x)[0] + three(x)[1], three(x)[2]], [x], "")


@pytest.mark.parametrize("mode", ["both", "static"])
def test_a_wrong_vjp_is_caught(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By finite differences where both modes have it, by the comparison of bits where one has."""
    scalar = OPS["tanh"].scalar
    right = scalar.vjp

    def wrong(number: int, g: Any, out: Any, x: Any) -> Any:
        found = right(number, g, out, x)
        return found * 1.0000002 if mode == "both" or isinstance(getattr(g, "recorder", None), static.Graph) else found

    lying = Op("tanh", OPS["tanh"].spec, OPS["tanh"].lower, wrong, scalar=scalar)

    def run(x: Any) -> Any:
        return dg.core.mode.bind(lying, x) * 2.0

    if mode == "both":
        with pytest.raises(AssertionError, match="by differences"):
            check_gradient(run, [np.linspace(-1, 1, 5) * 1.0])
    else:
        with pytest.raises(AssertionError, match="static none against eager, result 1"):
            assert_modes_agree(run, [X])


def test_a_reused_buffer_is_caught() -> None:
    """What the tests of held results would see."""
    run = static.compile(lambda x: x * 2.0, static.spec((5, 37)))
    first = run(X)
    kept = first.numpy().copy()
    second = run(X + 1)
    first.storage[...] = second.storage
    with pytest.raises(AssertionError, match="held"):
        assert_bits([first.numpy()], [kept], "held")


# ------------------------------------------------------------------------------------------------- the comparison itself


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.float32(0.0), np.float32(-0.0)), (np.float32(1.0), np.nextafter(np.float32(1.0), np.float32(2))),
        (np.float32(1.0), np.float64(1.0)), (np.zeros(3, np.float32), np.zeros((3, 1), np.float32)),
        (np.float64(5e-324), np.float64(0.0)), (np.float32(np.inf), np.float32(-np.inf)), (np.int64(1), np.int64(2)),
        (np.float32(np.nan), np.float32(0)), (np.array([True]), np.array([False])),
    ],
    ids=range(9),
)  # fmt: skip
def test_the_comparison_of_bits(a: Any, b: Any) -> None:
    assert_bits([a, b], [a, b], "equal")
    with pytest.raises(AssertionError, match="unequal"):
        assert_bits([a], [b], "unequal")


def test_missing_results_are_noticed() -> None:
    with pytest.raises(AssertionError, match="1 results, expected 2"):
        assert_bits([X], [X, X], "count")


def test_gradients_are_part_of_the_comparison() -> None:
    """`differentiated` really adds the gradients, up to the order asked for."""
    assert [len(run_eager(differentiated(product, n), [X])) for n in (1, 2)] == [2, 3]
