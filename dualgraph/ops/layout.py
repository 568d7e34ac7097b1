"""Layouts: how the elements of a tensor lie in its storage.

A tensor is a window on a storage, a flat or shaped C-contiguous array. Where it is the whole of it in row-major order, its
layout is its `Spec`; else a `Window`. Either begins with the shape and the dtype.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dualgraph.kernels.program import View
from dualgraph.spec import Shape, Spec, contiguous_strides

Array = np.ndarray[Any, Any]


class Window(NamedTuple):
    """The layout of a tensor that is not the whole of its storage in row-major order; else the layout is a `Spec`."""

    shape: Shape
    dtype: str
    strides: Shape
    offset: int


Layout: TypeAlias = Spec | Window


def view_of(layout: Any, buffer: int = 0) -> View:
    """A tensor's layout as a view of a buffer."""
    if layout.__class__ is Window:
        return View(buffer, layout.shape, layout.strides, layout.offset, layout.dtype)
    return View(buffer, layout[0], contiguous_strides(layout[0]), 0, layout[1])


def layout_of(view: View, extent: int | None) -> Spec | Window:
    """The layout of a view: a plain `Spec` where it is the whole storage of `extent` elements in row-major order."""
    if view.offset == 0 and view.contiguous and view.spec.size == extent:
        return Spec(view.shape, view.dtype)
    return Window(view.shape, view.dtype, view.strides, view.offset)


def array_of(storage: Array, layout: Any) -> Array:
    """The elements of a layout as an ndarray that shares the storage."""
    if layout.__class__ is Window:
        flat = storage.reshape(-1)
        if 0 in layout.shape:
            return np.empty(layout.shape, flat.dtype)
        itemsize = flat.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[layout.offset :], layout.shape, tuple(s * itemsize for s in layout.strides)
        )
    return storage.reshape(layout[0]) if storage.shape != layout[0] else storage
