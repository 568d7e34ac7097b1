"""Layouts: how the elements of a value lie in its storage.

Where they are all of it in row-major order, which is most often, the layout is the value's `Spec`; else a `Window`. Either
begins with the shape and the dtype.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dualgraph.device import Storage
from dualgraph.kernels.program import View
from dualgraph.spec import Shape, Spec, contiguous_strides

Array = np.ndarray[Any, Any]


class Window(NamedTuple):
    """The elements of a storage that are a value: strides and offset count elements."""

    shape: Shape
    dtype: str
    strides: Shape
    offset: int


Layout: TypeAlias = Spec | Window


def view_of(layout: Layout, buffer: int = 0) -> View:
    """A tensor's layout as a view of a buffer."""
    if isinstance(layout, Window):
        return View(buffer, layout.shape, layout.strides, layout.offset, layout.dtype)
    return View(buffer, layout.shape, contiguous_strides(layout.shape), 0, layout.dtype)


def layout_of(view: View, extent: int | None) -> Layout:
    """The layout of a view: a plain `Spec` where it is the whole storage of `extent` elements in row-major order."""
    if view.offset == 0 and view.contiguous and view.spec.size == extent:
        return Spec(view.shape, view.dtype)
    return Window(view.shape, view.dtype, view.strides, view.offset)


def array_of(storage: Storage, layout: Layout | View) -> Array:
    """The elements of a layout, or of a view of a buffer, as an ndarray that shares the storage if that is row-major."""
    if isinstance(layout, Spec):
        return storage.reshape(layout.shape) if storage.shape != layout.shape else storage
    flat = np.ascontiguousarray(storage).reshape(-1)  # constants may be strided; `reshape` alone keeps a stride
    if 0 in layout.shape:
        return np.empty(layout.shape, flat.dtype)
    strides = tuple(stride * flat.itemsize for stride in layout.strides)
    bits = flat.view(f"u{flat.itemsize}")  # what NumPy has under a name of its own, whatever the dtype
    return np.lib.stride_tricks.as_strided(bits[layout.offset :], layout.shape, strides).view(flat.dtype)
