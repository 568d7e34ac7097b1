"""Data from outside as arrays of a supported dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgraph.core.broadcast import checked_scalar
from dualgraph.core.tensor import Tensor
from dualgraph.device import CPU
from dualgraph.dtypes import DTYPES, INTEGERS, NAMES, converted, widened
from dualgraph.errors import DTypeError, DualgraphError, OutOfMemoryError, ShapeError, shown
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, MOST_AXES, dtype_name

Array = np.ndarray[Any, Any]


def as_array(data: Any, dtype: Any = None, copy_tensors: bool = False) -> Array:
    """Data as a fresh C-contiguous array of a supported dtype; Python floats become float32.

    Tensors in lists are refused unless their values are to be copied, which loses their gradients.
    """
    if isinstance(data, (list, tuple)) and _holds_tensors(data, 0):
        if not copy_tensors:
            raise DTypeError(
                f"tensor: got {shown(data)}, which holds tensors; they would lose their gradients; join them with dg.stack "
                "or dg.concat, or copy their values with dg.tensor"
            )
        data = _plain(data)
    if dtype is not None:
        name = dtype_name(dtype)
        return _converted(_array(data), name)
    if data.__class__ is int:
        checked_scalar("tensor", data, DEFAULT_INTEGER)
    array = _array(data)
    if array.dtype == np.float64 and not isinstance(data, (np.ndarray, np.generic)):
        return _converted(array, DEFAULT_FLOAT)
    return array


def copied(array: Array) -> Array:
    """A row-major copy of an array."""
    try:
        return _zeros_and_ones(CPU.copy(array))
    except MemoryError:
        raise _no_memory_for(array) from None


def _zeros_and_ones(array: Array) -> Array:
    """The array, with bools that are true as the byte 1: views of bytes may hold others."""
    if array.dtype == np.bool_:
        np.not_equal(array.view(np.uint8), 0, out=array)
    return array


def _no_memory_for(data: Any) -> DualgraphError:
    return OutOfMemoryError(f"tensor: got {shown(data)}, for a copy of which there is no memory; take it in parts")


def _array(data: Any) -> Array:
    """Data as an array of the dtype that NumPy finds, if that is supported."""
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise DTypeError(
            f"tensor: got {shown(data)} with masked elements; a tensor has no mask; fill them with data.filled(value)"
        )
    try:
        array = np.array(data, order="C")
    except ValueError as error:
        raise ShapeError(f"tensor: got nested data of uneven lengths ({error}); rows must be equally long") from None
    except MemoryError:
        raise _no_memory_for(data) from None
    except (TypeError, OverflowError, RecursionError) as error:
        raise DTypeError(
            f"tensor: got {shown(data)}, which NumPy cannot make an array of ({error}); convert it"
        ) from None
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        raise DTypeError(
            f"tensor: got data of {array.dtype} ({type(data).__name__}); supported are {', '.join(NAMES)}; "
            "convert it with numpy's astype first"
        )
    return _zeros_and_ones(array)


def _converted(array: Array, name: str) -> Array:
    """The array in another dtype: integers within their range, floats beyond it infinite."""
    if array.dtype.name == name:
        return array
    array = widened(array)
    if name in INTEGERS and array.size and array.dtype.kind in "if":
        record, whole = DTYPES[name], array if array.dtype.kind == "i" else np.trunc(array)
        # -float(min) is max + 1, which floats hold exactly; max itself they may not
        below = whole <= record.highest if array.dtype.kind == "i" else whole < -float(record.lowest)
        bad = ~((whole >= record.lowest) & below)  # also NaN
        if bad.any():
            raise DTypeError(
                f"tensor: got {array[bad][0]} for {name}, whose range is {record.lowest} to {record.highest}; use a wider "
                "dtype"
            )
    return converted(array, name)


def _holds_tensors(data: Any, level: int) -> bool:
    if level == MOST_AXES:
        raise ShapeError(f"tensor: got data nested more than {MOST_AXES} deep; that is the most axes; flatten it")
    return any(isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _holds_tensors(x, level + 1)) for x in data)


def _plain(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_plain(x) for x in data]
    return data.tolist() if isinstance(data, Tensor) else data
