"""Tensors out of nothing: constants and ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dualgraph.errors import ArgumentError, ShapeError
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.ops.broadcast import checked_scalar
from dualgraph.ops.elementwise import OPS, astype, equal
from dualgraph.ops.op import Op, Operand, bind, current
from dualgraph.ops.shape import FILL, expand_dims
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, Shape, Spec, dtype_name


def checked_shape(name: str, shape: int | Sequence[int]) -> Shape:
    """A shape given as one length or several."""
    lengths = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if any(n < 0 for n in lengths):
        raise ShapeError(f"{name}: got shape {lengths}; lengths must be 0 or more")
    return lengths


def full(shape: int | Sequence[int], value: Any, *, dtype: Any = None) -> Any:
    """A tensor of one value; the dtype follows the value (float32, int64 or bool) unless given."""
    if dtype is None:
        name = "bool" if isinstance(value, bool) else DEFAULT_INTEGER if isinstance(value, int) else DEFAULT_FLOAT
    else:
        name = dtype_name(dtype)
    value, name = checked_scalar("full", value, name)
    return bind(FILL, shape=checked_shape("full", shape), dtype=name, bits=E.literal_bits(value, name))


def zeros(shape: int | Sequence[int], *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """Zeros (float32 unless another dtype is given)."""
    return full(shape, 0, dtype=dtype)


def ones(shape: int | Sequence[int], *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """Ones (float32 unless another dtype is given)."""
    return full(shape, 1, dtype=dtype)


def _range_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    dtype = specs[0].dtype
    scale = "float64" if dtype in ("float32", "float64") else "int64"
    value = E.cast(E.index(), scale) * params["step"] + params["start"]
    code, results = E.linearise([E.cast(value, dtype)])
    out = program.new(specs[0])
    program.add(Loop(code, results, (), ()), (out,), (), out.shape)
    return (out,)


_RANGE = OPS["arange"] = Op("arange", lambda *, start, step, count, dtype: Spec((count,), dtype), _range_lower)


def arange(start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None) -> Any:
    """start, start + step, … below stop (from 0 if only one number is given); element i is start + i * step."""
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ArgumentError("arange: got step 0; it must not be zero")
    count = max(0, math.ceil((last - first) / step))
    whole = all(isinstance(v, int) for v in (first, last, step))
    name = dtype_name(dtype) if dtype is not None else DEFAULT_INTEGER if whole else DEFAULT_FLOAT
    return bind(_RANGE, start=first, step=step, count=count, dtype=name)


def linspace(start: float, stop: float, /, num: int, *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """`num` evenly spaced numbers from start to stop, both included."""
    if num < 0:
        raise ArgumentError(f"linspace: got num {num}; it must be 0 or more")
    step = (stop - start) / (num - 1) if num > 1 else 0.0
    return bind(_RANGE, start=float(start), step=step, count=num, dtype=dtype_name(dtype))


def eye(n: int, m: int | None = None, /, *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """The identity matrix (n, m): ones where row and column agree."""
    return astype(equal(expand_dims(arange(n), 1), arange(n if m is None else m)), dtype)


def asarray(value: Any, /, *, dtype: Any = None) -> Any:
    """A value as a tensor of the current mode, without copying where it is one already."""
    x = current().lift(value)
    return x if dtype is None else astype(x, dtype)
