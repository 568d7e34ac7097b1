"""The ways in which an operand can lie in memory, each as views of a larger tensor.

`LAYOUTS[name](array)` gives `(base, view)`: `view(tensor of base)` has the values of `array`. What lies between the
elements is poison: NaN, or an integer that no index may have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dualgraph as dg
from dualgraph.dtypes import DTYPES

Array = np.ndarray[Any, Any]
Laid = tuple[Array, Callable[[Any], Any]]
POISON = {"float": np.nan, "integer": 10**6, "bool": True}


def _poisoned(shape: tuple[int, ...], array: Array) -> Array:
    return np.full(shape, POISON[DTYPES[array.dtype.name].kind], array.dtype)


def contiguous(array: Array) -> Laid:
    return array, lambda x: x


def transposed(array: Array) -> Laid:
    """Axes in the reverse order."""
    order = tuple(reversed(range(array.ndim)))
    return np.ascontiguousarray(array.transpose(order)), lambda x: dg.permute_dims(x, order)


def stepped(array: Array) -> Laid:
    """Every second element along each axis, the first left out."""
    base = _poisoned(tuple(2 * n + 1 for n in array.shape), array)
    window = tuple(slice(1, None, 2) for _ in array.shape)
    base[window] = array
    return base, lambda x: x[window]


def reversed_(array: Array) -> Laid:
    """Negative strides along each axis."""
    return np.ascontiguousarray(np.flip(array)), lambda x: dg.flip(x)


def reversed_rows(array: Array) -> Laid:
    """A negative stride along the first axis, with a step; the others as they are."""
    base = _poisoned((3 * array.shape[0] + 1, *array.shape[1:]), array)
    base[-2::-3] = array
    return base, lambda x: x[-2::-3]


def inner(array: Array) -> Laid:
    """A part of a larger tensor: rows are contiguous, but not next to each other."""
    base = _poisoned(tuple(n + 3 for n in array.shape), array)
    window = tuple(slice(2, 2 + n) for n in array.shape)
    base[window] = array
    return base, lambda x: x[window]


def leading(array: Array) -> Laid:
    """The first rows of a longer tensor: contiguous, but not all of its memory."""
    base = np.concatenate([array, _poisoned((2, *array.shape[1:]), array)])
    return base, lambda x: x[: len(array)]


LAYOUTS: dict[str, Callable[[Array], Laid]] = {
    "contiguous": contiguous, "transposed": transposed, "stepped": stepped, "reversed": reversed_,
    "reversed_rows": reversed_rows, "inner": inner, "leading": leading,
}  # fmt: skip
