"""Every op: eager bits == static bits at every level, with first and second gradients, for every float."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import (
    assert_bits,
    assert_modes_agree,
    define,
    differentiated,
    run_eager,
    run_executable,
    run_static,
)
from conformance.samples import SAMPLES, Sample
from dualgraph import static
from dualgraph.dtypes import FLOATS
from dualgraph.static.passes import PASSES

EXACT = [p.name for p in PASSES if p.numerics == "exact"]  # the last one is fusion
CASES = [(s, d) for s in SAMPLES for d in FLOATS if d == "float32" or s.has_floats]


@pytest.mark.parametrize(("sample", "dtype"), CASES, ids=str)
def test_same_bits_in_every_mode(sample: Sample, dtype: str) -> None:
    arrays = sample.arrays(dtype)
    assert_modes_agree(sample.function, arrays, f"{sample} {dtype}", order=2 if sample.has_floats else 0)


def neighbours(sample: Sample) -> Any:
    """The op amid a prologue and an epilogue that fuse with it, both used elsewhere as well."""

    def run(*xs: Any) -> list[Any]:
        before = [x * 1.25 + 0.5 if x.requires_grad else x for x in xs]
        result = sample.function(*before)
        results = result if isinstance(result, list) else [result]
        after = [dg.tanh(r) * r if r.requires_grad else r for r in results]
        return [*after, *[dg.sum(a) for a in after if a.requires_grad], before[0]]

    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.has_floats], ids=str)
def test_fused_as_unfused(sample: Sample, dtype: str) -> None:
    """No pass, fusion alone, graph passes alone, all but the one that opens composites: all give the same bits."""
    arrays = sample.arrays(dtype)
    function = differentiated(neighbours(sample))
    expected = run_eager(function, arrays)
    graph, outputs = define(function, arrays)
    for passes in ((), ("fusion",), EXACT[:-1], EXACT[1:], EXACT):
        executable = static.compile(graph, outputs=outputs, passes=passes)
        assert_bits(run_executable(executable, arrays), expected, f"{sample}, passes {passes}")


@pytest.mark.parametrize("length", [1, 2, 31, 33, 4097])
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_with_prologue_and_epilogue(length: int, axis: int) -> None:
    """Lengths about the lanes and chunks of the canonical order, folded axis inside and outside."""
    rng = np.random.default_rng(length)
    x = rng.uniform(0.1, 2, (3, length) if axis else (length, 3)).astype(np.float32)

    def function(x: Any) -> list[Any]:
        y = dg.exp(x) * 0.3
        total = dg.sum(y, axis=axis, keepdims=True)
        p = y / total
        return [p, dg.max(p, axis=axis), dg.var(y, axis=axis), dg.logsumexp(p, axis=axis), dg.prod(p + 0.9, axis=axis),
                dg.argmax(p, axis=axis)]  # fmt: skip

    assert_modes_agree(function, [x], f"length {length}, axis {axis}", order=1)


def test_levels_named_by_their_passes() -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32)
    expected = run_eager(dg.tanh, [x])
    assert_bits(run_static(dg.tanh, [x], "none"), expected, "none")
    assert_bits(run_static(dg.tanh, [x], "exact"), expected, "exact")
