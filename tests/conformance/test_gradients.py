"""Gradients and second gradients against finite differences in float64; and the checker against wrong rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import leaves, tensors, weight
from conformance.samples import SAMPLES, Sample
from dualgraph.core.mode import bind
from dualgraph.ops import OPS

SMOOTH = [s for s in SAMPLES if s.has_floats and s.smooth]
STEP = 1e-5
TOLERANCE = 1e-7


def check_gradient(function: Callable[..., Any], arrays: Sequence[Any], what: str = "") -> None:
    """Compare the gradient for each float operand with the slope of the function, in two random directions.

    An output that needs no gradient must be flat.
    """

    def floats(xs: Sequence[Any]) -> list[Any]:
        return [y for y in leaves(function(*xs)) if y.dtype.kind == "f"]

    xs = tensors(arrays)
    outputs = floats(xs)
    seeds = [weight(y.shape, y.dtype, n) for n, y in enumerate(outputs)]
    wanted = [n for n, x in enumerate(xs) if x.requires_grad]
    live = [n for n, y in enumerate(outputs) if y.requires_grad]
    found = [np.zeros(arrays[n].shape) for n in wanted]
    if live:
        chosen = [outputs[n] for n in live]
        given = dg.grad(chosen, [xs[n] for n in wanted], [seeds[n] for n in live], allow_unused=True)
        found = [g.numpy() for g in given]

    rng = np.random.default_rng(9)
    for place, g in zip(wanted, found, strict=True):
        assert g.shape == arrays[place].shape
        for _ in range(2):
            direction = rng.uniform(-1, 1, arrays[place].shape)
            ends = []
            for sign in (1, -1):
                moved = list(arrays)
                moved[place] = arrays[place] + sign * STEP * direction
                ends.append([y.numpy() for y in floats(tensors(moved))])
            expected = sum(float(np.sum((a - b) * s)) for a, b, s in zip(*ends, seeds, strict=True)) / (2 * STEP)
            got = float(np.sum(g * direction))
            room = TOLERANCE * max(1.0, abs(expected), *(float(np.abs(e).max(initial=0)) for e in ends[0]))
            assert abs(got - expected) <= room, f"{what}: gradient of operand {place}: {got}, by differences {expected}"


def gradient_of(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The gradients of a function as a function of its `count` operands and of the incoming gradients after them."""

    def run(*operands: Any) -> list[Any]:
        outputs = [y for y in leaves(function(*operands[:count])) if y.requires_grad]
        wanted = [x for x in operands[:count] if x.requires_grad]
        return dg.grad(outputs, wanted, list(operands[count:]), create_graph=True, allow_unused=True) if outputs else []

    return run


def second(sample: Sample) -> tuple[Callable[..., Any], list[Any]]:
    arrays = sample.arrays("float64")
    outputs = [y for y in leaves(sample.function(*tensors(arrays))) if y.requires_grad]
    seeds = [weight(y.shape, np.float64, n) for n, y in enumerate(outputs)]
    return gradient_of(sample.function, len(arrays)), [*arrays, *seeds]


@pytest.mark.parametrize("sample", SMOOTH, ids=str)
def test_gradient(sample: Sample) -> None:
    check_gradient(sample.function, sample.arrays("float64"), str(sample))


@pytest.mark.parametrize("sample", SMOOTH, ids=str)
def test_second_gradient(sample: Sample) -> None:
    function, arrays = second(sample)
    check_gradient(function, arrays, f"{sample}, second")


def test_third_gradient() -> None:
    def second_of(x: Any) -> Any:
        (g,) = dg.grad(dg.sum(dg.sin(x) * x), [x], create_graph=True)
        (h,) = dg.grad(dg.sum(g * g), [x], create_graph=True)
        return h

    check_gradient(second_of, [np.linspace(-2, 2, 5)], "third")


# ------------------------------------------------------------------------------------------------- the checker itself


def op_with(name: str, **changes: Any) -> Callable[..., Any]:
    """A public op with another record."""
    op = replace(OPS[name], **changes)
    return lambda *xs: bind(op, *xs)


WRONG_RULES: dict[str, tuple[Any, Any]] = {
    "factor": ("sin", (lambda g, out, x: g * dg.cos(x) * 1.001,)),
    "sign": ("sin", (lambda g, out, x: -g * dg.cos(x),)),
    "forgotten": ("multiply", (lambda g, out, x, y: g * y, None)),
    "swapped": ("multiply", (lambda g, out, x, y: g * x, lambda g, out, x, y: g * y)),
    "no-g": ("exp", (lambda g, out, x: out,)),
    "out-for-x": ("square", (lambda g, out, x: g * 2.0 * out,)),
}


@pytest.mark.parametrize("fault", WRONG_RULES)
def test_wrong_rules_are_found(fault: str) -> None:
    name, vjp = WRONG_RULES[fault]
    arrays = [np.linspace(0.3, 2.0, 6), np.linspace(1.5, 0.4, 6)][: OPS[name].scalar.arity]
    check_gradient(op_with(name), arrays)
    with pytest.raises(AssertionError, match="by differences"):
        check_gradient(op_with(name, vjp=vjp), arrays)


def test_a_wrong_second_rule_is_found() -> None:
    """The first gradient is right, the rule of the rule is not."""
    lying = op_with("cos", vjp=(lambda g, out, x: g * dg.sin(x),))
    sin = op_with("sin", vjp=(lambda g, out, x: g * lying(x),))
    sample = replace(SMOOTH[0], function=sin, operands=("real:3,4",))
    check_gradient(sample.function, sample.arrays("float64"))
    with pytest.raises(AssertionError, match="by differences"):
        check_gradient(*second(sample))
