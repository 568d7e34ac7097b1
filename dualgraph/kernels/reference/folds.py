"""The canonical order of every reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.kernels.monoids import MONOIDS
from dualgraph.kernels.reference.scalars import NUMPY, Array

CHUNK = 4096
LANES = 32


def fold(monoid: str, x: Array) -> Array:
    """Reduce the first axis of x in the canonical order: 32 lanes, a tree over them, chunks of 4096 pairwise."""
    record, make = MONOIDS[monoid], x.dtype.type
    start = make(record.identity(x.dtype.name))
    if len(x) == 0:
        return np.full(x.shape[1:], make(record.of_nothing(x.dtype.name)))
    combine = NUMPY[record.instruction]
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
