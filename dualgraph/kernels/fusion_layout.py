"""Re-expressing views and Loop steps on another domain without copying: what fusion needs to bring two steps together.

Strides of axes of length 1 mean nothing; here they are always 0, so that views can be compared with `==`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from dualgraph.kernels.program import View, row_shape
from dualgraph.spec import Shape


def tidy(view: View) -> View:
    """The view with stride 0 along axes of length 1."""
    if 1 not in view.shape:
        return view
    return view.with_layout(
        view.shape, tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))
    )


def reshape(view: View, shape: Shape) -> View | None:
    """The same elements in the same row-major order over another shape; None where strides cannot say it."""
    strides = _restride(view.shape, view.strides, shape)
    return None if strides is None else view.with_layout(shape, strides)


@lru_cache(maxsize=4096)
def _restride(old: Shape, strides: Shape, new: Shape) -> Shape | None:
    """
    >>> _restride((64, 10), (10, 1), (640,)), _restride((640,), (1,), (64, 10)), _restride((64, 10), (1, 64), (640,))
    ((1,), (10, 1), None)
    """
    if old == new:
        return strides
    size = math.prod(old)
    if size != math.prod(new) or size == 0:
        return None
    runs: list[tuple[int, int]] = []  # maximal runs of axes that one stride walks: (length, stride)
    for n, stride in zip(old, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == stride * n:
            runs[-1] = (runs[-1][0] * n, stride)
        else:
            runs.append((n, stride))
    out = [0] * len(new)
    axis = len(new) - 1
    for length, stride in reversed(runs):
        while length > 1:
            while axis >= 0 and new[axis] == 1:
                axis -= 1
            if axis < 0 or length % new[axis]:
                return None
            out[axis] = stride
            stride, length, axis = stride * new[axis], length // new[axis], axis - 1
    return tuple(out)


def lift(view: View, domain: Shape, axes: Sequence[int]) -> View | None:
    """The view, one element per position of the domain without `axes`, repeated (stride 0) along `axes`."""
    kept = reshape(view, row_shape(domain, tuple(axes)))
    return None if kept is None else kept.with_layout(domain, kept.strides)


def repeated_axes(view: View) -> tuple[int, ...]:
    """The axes along which the view shows the same element again and again."""
    return tuple(axis for axis, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)) if s == 0 and n != 1)


def collapses(view: View, axes: tuple[int, ...]) -> bool:
    """Does one stride walk the elements along these (adjacent) axes in row-major order?"""
    walk = [(view.shape[axis], view.strides[axis]) for axis in sorted(axes) if view.shape[axis] != 1]
    return all(outer == n * inner for (_, outer), (n, inner) in pairwise(walk))


@lru_cache(maxsize=4096)
def extents(domain: Shape, fold_axes: tuple[int, ...]) -> tuple[int, int, int]:
    """(A, R, B): the number of elements before, along and after the folded axes.

    >>> extents((2, 3, 5, 7), (1, 2)), extents((2, 3), ())
    ((2, 15, 7), (6, 1, 1))
    """
    if not fold_axes:
        return math.prod(domain), 1, 1
    first, last = min(fold_axes), max(fold_axes)
    return math.prod(domain[:first]), math.prod(domain[first : last + 1]), math.prod(domain[last + 1 :])
