"""Native sorting against NumPy's: thousands of rows of all dtypes, with ties, zeros of both signs, NaNs, subnormals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualgraph.dtypes import COMPUTED
from dualgraph.errors import KernelError
from dualgraph.kernels.kinds import Sort
from dualgraph.kernels.llvm.selection import command
from dualgraph.kernels.llvm.sorting.code import FEW
from dualgraph.kernels.program import Step
from dualgraph.kernels.reference.steps import RUN
from native import Array, run, view

LENGTHS = (1, 2, 3, 7, 15, 16, 17, 31, 33, FEW - 1, FEW, FEW + 1, 100, 255, 256, 257, 1000)


def special(dtype: str) -> Array:
    """What is easily put in the wrong place, all of it several times in a row that is long enough."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype.startswith("int"):
        info = np.iinfo(dtype)
        return np.array([0, 1, -1, 255, 256, -256, 65536, info.max, info.max - 1, info.min, info.min + 1], dtype)
    f = np.finfo(dtype)
    positive = np.array([0.0, f.smallest_subnormal, f.tiny / 2, f.tiny, 1.0, 1 + f.eps, f.max, np.inf, np.nan], dtype)
    bits = np.uint32 if dtype == "float32" else np.uint64
    payloads = np.full(4, np.nan, dtype).view(bits) + np.array([1, 77, 4095, 2**20], bits)
    found = np.concatenate([positive, payloads.view(dtype)])
    return np.concatenate([found, np.negative(found)])


def rows(rng: np.random.Generator, dtype: str, count: int, n: int) -> Array:
    """Rows of each kind: all values, special ones, few different ones, ones in order already or the other way round."""
    whole = rng.integers(0, 256, (count, n, np.dtype(dtype).itemsize), np.uint8)
    any_bits = whole.view(dtype)[..., 0] if dtype != "bool" else whole[..., 0] > 127
    some = rng.choice(special(dtype), (count, n))
    with np.errstate(all="ignore"):
        near = (rng.integers(-2, 3, (count, n)) / 2).astype(dtype)
        slope = np.sort(rng.normal(size=(count, n)) * 1e3, axis=1).astype(dtype)
    x = np.array([any_bits, some, near, slope, slope[:, ::-1]])[rng.integers(0, 5, count), np.arange(count)]
    mixed = rng.random((count, n)) < rng.choice([0.0, 0.1, 0.5], (count, 1))
    return np.ascontiguousarray(np.where(mixed, rng.choice(special(dtype), (count, n)), x))


def expected_order(x: Array, descending: bool) -> Array:
    """By NumPy, without what `reference` does for the other direction: NaNs apart, then rows back to front."""
    if not descending:
        return np.argsort(x, axis=1, kind="stable")
    n = x.shape[1]
    back = n - 1 - np.argsort(x[:, ::-1], axis=1, kind="stable")[:, ::-1]
    last = np.take_along_axis(x != x, back, 1)
    return np.take_along_axis(back, np.argsort(last, axis=1, kind="stable"), 1)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", COMPUTED)
def test_rows_are_in_numpys_order(dtype: str, descending: bool) -> None:
    rng = np.random.default_rng(23)
    for n in LENGTHS:
        count = max(3, 4000 // n)
        x = rows(rng, dtype, count, n)
        kernel = Sort(dtype, descending)
        order, spare, plain = (np.full((count, n), -7, np.int64) for _ in range(3))
        step = Step(kernel, (view(1, order), view(2, spare)), (view(0, x),))
        assert run(step, [x, order, spare], cuts=(1, count // 2)) == 0
        assert RUN[Sort](kernel, step, {0: x, 1: plain, 2: spare})
        wanted = expected_order(x, descending)
        np.testing.assert_array_equal(order, wanted, f"native, rows of {n}")
        np.testing.assert_array_equal(plain, wanted, f"reference, rows of {n}")


@pytest.mark.parametrize("dtype", COMPUTED)
@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)])
def test_nothing_to_sort(dtype: str, shape: tuple[int, int]) -> None:
    x, order, spare = np.empty(shape, dtype), np.empty(shape, np.int64), np.empty(shape, np.int64)
    step = Step(Sort(dtype, False), (view(1, order), view(2, spare)), (view(0, x),))
    assert run(step, [x, order, spare]) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_long_row(dtype: str) -> None:
    """Digits that all elements share are passed over; the words end in either memory."""
    rng = np.random.default_rng(24)
    for x in (rng.normal(size=300_000), np.arange(70_000) % 200, np.arange(70_000)[::-1], np.zeros(70_000)):
        row = np.asarray(x, dtype).reshape(1, -1)
        order, spare = np.empty(row.shape, np.int64), np.empty(row.shape, np.int64)
        step = Step(Sort(dtype, True), (view(1, order), view(2, spare)), (view(0, row),))
        assert run(step, [row, order, spare]) == 0
        np.testing.assert_array_equal(order, expected_order(row, True))


def test_rows_that_do_not_lie_in_order_are_refused() -> None:
    x, order = np.ones((3, 4), np.float32), np.empty((4, 3), np.int64)
    step = Step(Sort("float32", False), (view(1, order), view(2, order)), (view(0, x.T),))
    with pytest.raises(KernelError, match=r"rows of float32\[4, 3\] with strides \[1, 4\]"):
        command(step, lambda buffer: (buffer, 0))


def test_it_works_on_nothing_but_its_row() -> None:
    """What lies before and behind is not written to."""
    for n in (5, FEW + 5):
        x: Any = np.random.default_rng(25).normal(size=(3, n))
        order, spare = np.full((3, n), 9, np.int64), np.full((3, n), 9, np.int64)
        step = Step(Sort("float64", False), (view(1, order[1:2]), view(2, spare[1:2])), (view(0, x[1:2]),))
        assert run(step, [x[1:2], order[1:2], spare[1:2]]) == 0
        assert (order[[0, 2]] == 9).all()
        assert (spare[[0, 2]] == 9).all()
        np.testing.assert_array_equal(order[1], np.argsort(x[1], kind="stable"))
