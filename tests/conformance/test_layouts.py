"""Operands in every layout give the bits of contiguous ones, in both modes, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.layouts import LAYOUTS
from conformance.modes import assert_bits, assert_modes_agree, gradients, leaves, run_eager, same_bits
from conformance.samples import ELEMENTWISE, SAMPLES, Sample

WITH_OPERANDS = [s for s in SAMPLES if s.operands]
VIEWS = [name for name in LAYOUTS if name != "contiguous"]


def viewed(function: Callable[..., Any], views: list[Any]) -> Callable[..., list[Any]]:
    """The function of the views of its operands; results, and gradients with respect to the views."""

    def run(*bases: Any) -> list[Any]:
        xs = [view(base) for view, base in zip(views, bases, strict=True)]
        outputs = leaves(function(*xs))
        return [*outputs, *gradients(outputs, [x for x in xs if x.requires_grad])]

    return run


def laid(layout: str, arrays: list[Any]) -> tuple[list[Any], list[Any]]:
    pairs = [LAYOUTS[layout](a) if a.ndim else LAYOUTS["contiguous"](a) for a in arrays]
    return [p[0] for p in pairs], [p[1] for p in pairs]


@pytest.mark.parametrize("layout", VIEWS)
@pytest.mark.parametrize("sample", WITH_OPERANDS, ids=str)
def test_layouts(sample: Sample, layout: str) -> None:
    arrays = sample.arrays("float32")
    bases, views = laid(layout, arrays)
    contiguous = run_eager(viewed(sample.function, [lambda x: x] * len(arrays)), arrays)
    found = assert_modes_agree(viewed(sample.function, views), bases, f"{sample} {layout}", order=0)
    assert_bits(found, contiguous, f"{sample} {layout} against contiguous")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sample", [s for s in ELEMENTWISE if s.op != "where"], ids=str)
def test_broadcast_operands(sample: Sample, axis: int) -> None:
    """A stride of 0 along either axis, in the first operand: the bits of the repeated elements."""
    arrays = [np.broadcast_to(a, (3, 4)) for a in sample.arrays("float32")]
    short = arrays[0][:1] if axis == 0 else arrays[0][:, :1]
    repeated = np.ascontiguousarray(np.broadcast_to(short, (3, 4)))
    expected = run_eager(sample.function, [repeated, *map(np.ascontiguousarray, arrays[1:])])
    views = [lambda x: dg.broadcast_to(x, (3, 4)), *[lambda x: x] * (len(arrays) - 1)]
    bases = [np.ascontiguousarray(a) for a in (short, *arrays[1:])]
    found = assert_modes_agree(viewed(sample.function, views), bases, f"{sample} broadcast", order=0)
    assert_bits(found[: len(expected)], expected, f"{sample}, broadcast against repeated")


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0), (1, 1, 1), (2, 1, 3, 1, 2), (65,)], ids=str)
@pytest.mark.parametrize("sample", ELEMENTWISE, ids=str)
def test_shapes(sample: Sample, shape: tuple[int, ...]) -> None:
    """Scalars, nothing at all, many axes: the elements are those of a vector."""
    rng = np.random.default_rng(3)
    arrays = [rng.choice(a.reshape(-1), shape) if shape else a.reshape(-1)[0] for a in sample.arrays("float32")]
    arrays = [np.asarray(a) for a in arrays]
    found = assert_modes_agree(sample.function, arrays, f"{sample} {shape}")
    for result in found:
        assert result.shape == shape
    flat = run_eager(sample.function, [np.ascontiguousarray(a).reshape(-1) for a in arrays])
    assert same_bits(found[0].reshape(-1), flat[0])


EMPTY: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: dg.sum(x, axis=0), "sum-all": dg.sum, "prod": lambda x: dg.prod(x, axis=0), "mean": dg.mean,
    "any": lambda x: dg.any(x, axis=0), "all": lambda x: dg.all(x, axis=0), "max-other": lambda x: dg.max(x, axis=1),
    "softmax": lambda x: dg.softmax(x, axis=1), "logsumexp": lambda x: dg.logsumexp(x, axis=1),
    "argmax": lambda x: dg.argmax(x, axis=1), "matmul": lambda x: dg.matmul(x.mT, x), "matmul-out": lambda x: x @ x.mT,
    "concat": lambda x: dg.concat([x, x], axis=0), "reshape": lambda x: dg.reshape(x, (3, 0)), "slice": lambda x: x[:, 1:],
    "flip": dg.flip, "take": lambda x: dg.take(x, np.array([0, 2]), axis=1), "transpose": lambda x: x.T * 2.0,
    "take-nothing": lambda x: dg.take(x, np.array([], np.int64), axis=1), "broadcast": lambda x: x[None] + dg.ones((2, 1, 1)),
    "sort": lambda x: dg.sort(x, axis=0), "sort-other": lambda x: [dg.sort(x), dg.argsort(x)],
    "var": lambda x: dg.var(x, axis=1), "linear": lambda x: dg.linear(x, np.ones((2, 3), np.float32)),
    "cross_entropy-sum": lambda x: dg.cross_entropy(x, np.zeros(0, np.int64), "sum"),
    "mse-sum": lambda x: dg.mse_loss(x, x * 2.0, "sum"), "one_hot": lambda x: dg.one_hot(np.zeros(0, np.int64), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_nothing(name: str) -> None:
    """Tensors without elements, values and gradients."""
    assert_modes_agree(EMPTY[name], [np.zeros((0, 3), np.float32)], name)


def test_sums_of_nothing() -> None:
    """The identities: a sum of nothing is +0."""
    x = np.zeros((0, 2), np.float32)
    total, product = run_eager(lambda x: [dg.sum(x, axis=0), dg.prod(x, axis=0)], [x])
    assert_bits([total, product], [np.zeros(2, np.float32), np.ones(2, np.float32)], "identities")
