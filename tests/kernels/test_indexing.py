"""Native indexing kernels against the reference: gathers, scatters, checks, in every layout and with bad indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.program import Step
from dualgraph.kernels.reference.steps import RUN
from native import Array, assert_same, layouts, run, sample, view

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
