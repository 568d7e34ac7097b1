"""What a worker process times, and the sizes that all implementations share. NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


def _nothing() -> None:
    pass


class Case(NamedTuple):
    """`run(n)` does n steps and returns when their results exist; `reset()` goes back to the start."""

    run: Callable[[int], Any]
    reset: Callable[[], Any] = _nothing
    loss: Callable[[], float] | None = None


def calls(function: Callable[..., Any], *args: Any) -> Case:
    """A function called n times. The loop itself costs the same in every implementation."""

    def run1(n: int) -> None:
        (x,) = args
        for _ in repeat(None, n):
            function(x)

    def run2(n: int) -> None:
        x, y = args
        for _ in repeat(None, n):
            function(x, y)

    return Case(run1 if len(args) == 1 else run2)


# The cases of `op_overhead`: results of a handful of elements, so that only the overhead is left.
OPS = ("add", "multiply by a number", "tanh", "matmul 8x8", "sum", "reshape")
RECORDED = " (recorded)"  # the same with an input that requires a gradient

# The cases of `kernels`: small (in cache, one thread) and large.
SIZES = {"4,096": (64, 64), "1M": (1024, 1024)}
KERNELS = ("add", "exp", "tanh", "gelu", "sum", "sum of columns", "softmax of rows", "layer norm", "gather rows")
PRODUCTS = (64, 128, 256, 512, 1024)


def small() -> tuple[Array, Array, Array]:
    """A vector of 8, another, an 8x8 matrix."""
    rng = np.random.default_rng(3)
    return tuple(rng.standard_normal(s).astype(np.float32) for s in ((8,), (8,), (8, 8)))  # type: ignore[return-value]


def matrices(shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Two matrices, and an index of rows in random order."""
    rng = np.random.default_rng(4)
    x, y = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    return x, y, rng.integers(0, shape[0], shape[0])
