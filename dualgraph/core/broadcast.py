"""Shapes and dtypes of operands that meet: the broadcasting rule and the promotion of Python scalars."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualgraph.core.mode import current
from dualgraph.dtypes import DTYPES, scalar_array
from dualgraph.errors import DTypeError, ShapeError, shown
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, Shape, is_float, promote


def broadcast_shapes(name: str, *shapes: Shape) -> Shape:
    """The shape that all of `shapes` broadcast to.

    >>> broadcast_shapes("add", (2, 1), (3,))
    (2, 3)
    """
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        lengths = {shape[axis] for shape in shapes if len(shape) >= -axis}
        long = lengths - {1}
        if len(long) > 1:
            raise ShapeError(
                f"{name}: got shapes {' and '.join(map(str, shapes))}; axes are compared from the right and must be equal "
                "or 1; reshape, transpose or expand one operand"
            )
        result.append(long.pop() if long else 1)
    return tuple(result)


def scalar_dtype(value: Any, like: str) -> str:
    """The dtype a Python scalar takes next to a tensor of dtype `like`: the tensor's, unless the scalar's kind is higher."""
    if isinstance(value, bool):
        return like
    if isinstance(value, int):
        return DEFAULT_INTEGER if like == "bool" else like
    return like if is_float(like) else DEFAULT_FLOAT


def meet(name: str, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands as tensors of the current front end; Python scalars take the dtype of the tensors beside them."""
    front = current()
    tensors = [front.lift(x) if not isinstance(x, (bool, int, float)) else None for x in operands]
    dtypes = [t.layout.dtype for t in tensors if t is not None]
    result = []
    for value, tensor in zip(operands, tensors, strict=True):
        if tensor is not None:
            result.append(tensor)
            continue
        if isinstance(value, float) and not any(map(is_float, dtypes)):
            like = DEFAULT_FLOAT
        elif dtypes:
            like = promote(*dtypes)
        else:
            like = DEFAULT_FLOAT if isinstance(value, float) else "bool" if isinstance(value, bool) else DEFAULT_INTEGER
        result.append(front.constant(*checked_scalar(name, value, scalar_dtype(value, like))))
    return tuple(result)


def checked_scalar(name: str, value: Any, dtype: str) -> tuple[Any, str]:
    """The scalar and its dtype: integers within their range, floats beyond it infinite."""
    record = DTYPES[dtype]
    if record.kind == "integer":
        if value != value or value in (math.inf, -math.inf) or value != int(value):
            raise DTypeError(
                f"{name}: got {shown(value)} for a tensor of {dtype}, which holds integers only; choose a float dtype"
            )
        value = int(value)
        if not record.lowest <= value <= record.highest:
            raise DTypeError(
                f"{name}: got the integer {shown(value)} for {dtype}, whose range is {record.lowest} to "
                f"{record.highest}; use a wider dtype"
            )
    elif record.kind == "float" and not record.lowest <= value <= record.highest:
        try:
            with np.errstate(over="ignore"):
                return float(scalar_array(float(value), dtype)), dtype
        except OverflowError:
            raise DTypeError(
                f"{name}: got an integer of {value.bit_length()} bits for {dtype}; it has no float near it; use a float"
            ) from None
    return value, dtype
