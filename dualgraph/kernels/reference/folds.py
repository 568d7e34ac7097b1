"""The canonical order of every reduction, and `FOLDS`, the meaning of every monoid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.kernels.reference.scalars import NUMPY, Array
from dualgraph.spec import NUMPY_DTYPES

CHUNK = 4096
LANES = 32

FOLDS: dict[str, Callable[[Array, Array], Array]] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": NUMPY["maximum"],
    "min": NUMPY["minimum"],
    "any": np.logical_or,
    "all": np.logical_and,
}


def identity(monoid: str, dtype: str) -> Any:
    """The value e with `e op x == x`, in bits: for sums of floats that is -0.0.

    >>> identity("sum", "float32"), identity("max", "int32"), identity("all", "bool")
    (np.float32(-0.0), np.int32(-2147483648), np.True_)
    """
    kind, make = NUMPY_DTYPES[dtype].kind, NUMPY_DTYPES[dtype].type
    if monoid in ("max", "min"):
        if kind == "f":
            return make(-math.inf if monoid == "max" else math.inf)
        if kind == "i":
            return make(np.iinfo(make).min if monoid == "max" else np.iinfo(make).max)
        return make(monoid == "min")
    if monoid == "sum":
        return make(-0.0 if kind == "f" else 0)
    return make(monoid in ("prod", "all"))


def fold(monoid: str, x: Array) -> Array:
    """Reduce the first axis of x in the canonical order: 32 lanes, a tree over them, chunks of 4096 pairwise."""
    start = identity(monoid, x.dtype.name)
    if len(x) == 0:
        return np.full(x.shape[1:], x.dtype.type(0) if monoid == "sum" else start)
    combine = FOLDS[monoid]
    stack: list[Array] = []
    for number, chunk in enumerate(_fold_chunks(combine, x, start), 1):
        stack.append(chunk)
        merged = number
        while merged % 2 == 0:  # binary counter: as many merges as `number` has trailing zero bits
            right = stack.pop()
            stack.append(combine(stack.pop(), right))
            merged //= 2
    total = stack.pop()
    while stack:
        total = combine(stack.pop(), total)
    return total


def _fold_chunks(combine: Callable[[Array, Array], Array], x: Array, start: Any) -> Array:
    """The result of each chunk, all at once; the identity fills up the last chunk, or a single one's last round."""
    rest = x.shape[1:]
    count = -(-len(x) // CHUNK)
    rounds = CHUNK // LANES if count > 1 else -(-len(x) // LANES)
    padded = np.full((count * rounds * LANES, *rest), start)
    padded[: len(x)] = x
    rows = padded.reshape(count, rounds, LANES, *rest)
    lanes = np.full((count, LANES, *rest), start)
    for k in range(rounds):
        lanes = combine(lanes, rows[:, k])
    half = LANES // 2
    while half:
        lanes = combine(lanes[:, :half], lanes[:, half:])
        half //= 2
    return lanes.reshape(count, *rest)
