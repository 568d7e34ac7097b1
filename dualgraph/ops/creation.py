"""Tensors out of nothing: constants and ranges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import checked_shape, integer, number, real
from dualgraph.core.arrays import as_array
from dualgraph.core.broadcast import checked_scalar
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, leaves
from dualgraph.core.tensor import Tensor
from dualgraph.dtypes import INTEGERS
from dualgraph.errors import ArgumentError, ShapeError, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.ops.elementwise import astype, equal
from dualgraph.ops.registry import register
from dualgraph.ops.shape import expand_dims, filled
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, Spec, dtype_name, fitting, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DTypeLike, ShapeLike


def full(shape: ShapeLike, value: ArrayLike, *, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor of one value; the dtype follows the value unless given: that of a tensor or array, else as in `asarray`.

    `shape` is an int or a sequence of ints; a tensor as value is broadcast to it. Raises `ShapeError` for lengths below 0 or
    too large, `DTypeError` for an unknown dtype.

    >>> import dualgraph as dg
    >>> dg.full((2, 2), 7).tolist()
    [[7, 7], [7, 7]]
    """
    lengths = checked_shape("full", shape)
    if dtype is not None:
        name = dtype_name(dtype)
    elif value.__class__ in _PYTHON:
        name = _PYTHON[value.__class__]
    else:
        value = current().lift(value)
        name = value.layout.dtype
    return filled("full", lengths, value, name)


_PYTHON = {bool: "bool", int: DEFAULT_INTEGER, float: DEFAULT_FLOAT}


def zeros(shape: ShapeLike, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """Zeros (float32 unless another dtype is given); see `full`.

    >>> import dualgraph as dg
    >>> dg.zeros(3).tolist()
    [0.0, 0.0, 0.0]
    """
    return filled("zeros", checked_shape("zeros", shape), 0, dtype_name(dtype, DEFAULT_FLOAT))


def ones(shape: ShapeLike, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """Ones (float32 unless another dtype is given); see `full`.

    >>> import dualgraph as dg
    >>> dg.ones(2, dtype="int32").tolist()
    [1, 1]
    """
    return filled("ones", checked_shape("ones", shape), 1, dtype_name(dtype, DEFAULT_FLOAT))


def _range_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    (start, step), views = leaves(operands)
    code, results = E.linearise([E.cast(E.cast(E.index(), step.dtype) * step + start, specs[0].dtype)])
    out = program.new(specs[0])
    loop = Loop(code, results, tuple(v.dtype for v in views), (False,) * len(views))
    program.add(loop, (out,), [v.broadcast_to(out.shape) for v in views], out.shape)
    return (out,)


RANGE = register(Op("arange", lambda start, step, *, count, dtype: Spec((count,), dtype), _range_lower, (None, None)))


def arange(start: float, /, stop: float | None = None, step: float = 1, *, dtype: DTypeLike | None = None) -> Tensor:
    """start, start + step, … below stop (from 0 if only one number is given); element i is start + i * step.

    int64 if all numbers are ints, else float32, unless `dtype` is given. Raises `ArgumentError` for a step of 0, and for a
    range of integers whose start or step is none; `ShapeError` for too many elements.

    >>> import dualgraph as dg
    >>> dg.arange(3).tolist(), dg.arange(1, 2, 0.25).tolist()
    ([0, 1, 2], [1.0, 1.25, 1.5, 1.75])
    """
    first, last = (0, start) if stop is None else (start, stop)
    first, last, step = (
        number("arange", what, v, finite=True) for what, v in (("start", first), ("stop", last), ("step", step))
    )
    if step == 0:
        raise ArgumentError("arange: got step 0; it must not be zero; pass a positive or negative step")
    whole = all(isinstance(v, int) for v in (first, last, step))
    name = dtype_name(dtype, DEFAULT_INTEGER if whole else DEFAULT_FLOAT)
    (count,) = fitting("arange", (_steps(first, last, step, whole),))
    first, step = _fit_range(first, step, count, name)
    constant, scale = current().constant, "float64" if is_float(name) else "int64"
    return bind(RANGE, constant(first, scale), constant(step, scale), count=count, dtype=name)


def _steps(first: Any, last: Any, step: Any, whole: bool) -> int:
    try:
        return int(max(0, -((first - last) // step) if whole else math.ceil((last - first) / step)))
    except OverflowError:
        raise ArgumentError(
            f"arange: got {shown(first)}, {shown(last)} and step {shown(step)}; the number of steps must be "
            "finite; use smaller ones"
        ) from None


def _fit_range(first: Any, step: Any, count: int, dtype: str) -> tuple[Any, Any]:
    """The numbers of a range in the kind of its dtype: a range of integers starts and steps with integers that it holds."""
    if is_float(dtype):
        real("arange", "start", first)
        real("arange", "step", step)
        return first, step
    if first != int(first) or step != int(step):
        raise ArgumentError(
            f"arange: got start {first} and step {step} for {dtype}; both must be integers; choose a float dtype, and cast"
        )
    first, step = int(first), int(step)
    for value in (first, step, first + step * max(count - 1, 0)):
        checked_scalar("arange", value, DEFAULT_INTEGER if dtype == "bool" else dtype)
    return first, step


def _linspace_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    """In float64: either half from its end, so that both ends are met exactly and the order is kept."""
    (spec,), last = specs, params["count"] - 1
    start, stop, step, middle = (E.input(n, "float64") for n in range(4))  # one kernel for all ends
    i, end = E.index(), E.input(4, "int64")
    value = E.select(
        E.call("le", i + i, end), E.cast(i, "float64") * step + start, stop - E.cast(end - i, "float64") * step
    )
    for at, known in ((i + i, middle), (i, stop)):
        value = E.select(E.call("eq", at, end), known, value)
    value = E.select(E.call("eq", i, 0), start, value)
    code, results = E.linearise([E.cast(E.call("floor", value) if spec.dtype in INTEGERS else value, spec.dtype)])
    out = program.new(spec)
    ends: Any = (*operands, program.constant(np.array(last)))
    views = [x.broadcast_to(spec.shape) for x in ends]
    program.add(Loop(code, results, ("float64",) * 4 + ("int64",), (False,) * 5), (out,), views, spec.shape)
    return (out,)


LINSPACE = register(
    Op(
        "linspace",
        lambda start, stop, step, middle, *, count, dtype: Spec((count,), dtype),
        _linspace_lower,
        (None,) * 4,
        literal_scalars=False,
    )
)


def linspace(start: float, stop: float, /, num: int, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """`num` evenly spaced numbers from start to stop, both included exactly (float32 unless another dtype is given).

    The numbers never run backwards, and those from stop to start are the same in reverse. Computed in float64; integer
    dtypes round down. Raises `ArgumentError` for a negative `num` and for ends that are not finite.

    >>> import dualgraph as dg
    >>> dg.linspace(0, 1, num=5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    (num,) = fitting("linspace", (integer("linspace", "num", num, 0),))
    start, stop = (real("linspace", what, v, finite=True) for what, v in (("start", start), ("stop", stop)))
    name = dtype_name(dtype, DEFAULT_FLOAT)
    if not is_float(name):
        for end in (start, stop):
            checked_scalar("linspace", math.floor(end), "int64" if name == "bool" else name)
            if abs(end) > 2**53:
                raise ArgumentError(
                    f"linspace: got the end {shown(end)} for {name}; it is computed in float64, exact up to 2**53; "
                    "use arange"
                )
    parts = max(1, num - 1)
    within = math.isfinite(stop - start) and math.isfinite(start + stop)  # else the parts are, each by itself
    step = 0.0 if parts == 1 else (stop - start) / parts if within else stop / parts - start / parts
    middle = (start + stop) / 2 if within else start / 2 + stop / 2
    constant = current().constant
    return bind(LINSPACE, *[constant(x, "float64") for x in (start, stop, step, middle)], count=num, dtype=name)


def eye(n: int, m: int | None = None, /, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """The matrix (n, m) with ones where row and column agree, else zeros; square unless m is given.

    >>> import dualgraph as dg
    >>> dg.eye(2, 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    rows = integer("eye", "n", n, 0, ShapeError)
    columns = rows if m is None else integer("eye", "m", m, 0, ShapeError)
    fitting("eye", (rows, columns))
    name = dtype_name(dtype, DEFAULT_FLOAT)
    return astype(equal(expand_dims(arange(rows), 1), arange(columns)), name)


def asarray(value: ArrayLike, /, *, dtype: DTypeLike | None = None) -> Tensor:
    """A value (number, nested lists, array, tensor) as a tensor of the current mode; a tensor is returned as it is.

    Python floats become float32, ints int64; arrays keep their dtype. `dtype`: cast to it. Raises `DTypeError`, `ShapeError`.

    >>> import dualgraph as dg
    >>> dg.asarray([1, 2], dtype="float32").tolist()
    [1.0, 2.0]
    """
    if dtype is not None and not isinstance(value, Tensor):
        return current().lift(as_array(value, dtype))
    x = current().lift(value)
    if dtype is None or dtype_name(dtype, x.layout.dtype) == x.layout.dtype:
        return value if isinstance(value, Tensor) else x
    return astype(x, dtype)


__all__ = [
    "arange",
    "asarray",
    "eye",
    "full",
    "linspace",
    "ones",
    "zeros",
]
