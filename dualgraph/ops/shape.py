"""Operations that move or reinterpret data: views where the layout allows, else one copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import (
    checked_shape,
    integer,
    integers,
    is_sequence,
    normalize_axes,
    normalize_axis,
    tensors,
)
from dualgraph.core.broadcast import broadcast_shapes, checked_scalar
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view, leaves
from dualgraph.errors import AxisError, ShapeError, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.ops.elementwise import astype
from dualgraph.ops.identity import identity
from dualgraph.ops.registry import register
from dualgraph.spec import MOST_AXES, Shape, Spec, contiguous_strides, dtype_name, fitting, promote

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Axis, DTypeLike, Integers, ShapeLike, Tensor


def copy_loop(dtype: str, to: str) -> Loop:
    """A kernel that copies, converting the dtype if they differ."""
    code, results = E.linearise([E.cast(E.input(0, dtype), to)])
    return Loop(code, results, (dtype,), (False,))


def in_dtype(program: Program, view: View, dtype: str) -> View:
    """The view itself, or a contiguous copy of it in another dtype."""
    if view.dtype == dtype:
        return view
    out = program.new(Spec(view.shape, dtype))
    program.add(copy_loop(view.dtype, dtype), (out,), (view,), view.shape)
    return out


def zero_loop(dtype: str) -> Loop:
    """A kernel that writes zeros."""
    code, results = E.linearise([E.literal(0, dtype)])
    return Loop(code, results, (), ())


def contiguous(program: Program, view: View) -> View:
    """The view itself if it is contiguous, else a contiguous copy."""
    return view if view.contiguous else contiguous_copy(program, view)


def contiguous_copy(program: Program, view: View) -> View:
    """A contiguous copy, also of a view that is contiguous already."""
    out = program.new(view.spec)
    program.add(copy_loop(view.dtype, view.dtype), (out,), (view,), view.shape)
    return out


def _view_op(name: str, spec: Any, rule: Any, vjp: Any) -> Op:
    """An op whose result is `rule(view, out_spec, **params)`: a view, or None where only a contiguous input allows one."""

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        view = as_view(program, operands[0])
        result = rule(view, specs[0], **params)
        return (result if result is not None else rule(contiguous(program, view), specs[0], **params),)

    return register(Op(name, spec, lower, vjp, view=rule))


# reshape


def _reshape_spec(x: Any, *, shape: Shape) -> Spec:
    return Spec(shape, x.dtype)


def _reshape_view(view: View, out: Spec, *, shape: Shape) -> View | None:
    return view.with_layout(shape, contiguous_strides(shape)) if view.contiguous else None


_RESHAPE = _view_op("reshape", _reshape_spec, _reshape_view, (lambda g, out, x, *, shape: reshape(g, x.layout.shape),))


def reshape(x: ArrayLike, /, shape: ShapeLike) -> Tensor:
    """The same elements in row-major order under another shape; one length may be -1 and is worked out.

    A view where x is contiguous, else a copy. Raises `ShapeError` if the number of elements would change.

    >>> import dualgraph as dg
    >>> dg.reshape(dg.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    x = current().lift(x)
    old = x.layout.shape
    if shape.__class__ is tuple and shape == old:
        return identity(x)
    new = integers("reshape", "shape", shape, ShapeError)
    size = math.prod(old)
    if len(new) > MOST_AXES:
        fitting("reshape", new)
    if -1 in new and new.count(-1) == 1:
        known = -math.prod(new)
        if known > 0 and size % known == 0:
            new = tuple([size // known if n == -1 else n for n in new])
    if math.prod(new) != size or min(new, default=0) < 0:
        raise ShapeError(
            f"reshape: got shape {shown(new)} for a tensor of shape {old} with {size} elements; the number of elements must "
            "stay; at most one length may be -1"
        )
    return identity(x) if new == old else bind(_RESHAPE, x, shape=new)


def expand_dims(x: ArrayLike, /, axis: int = 0) -> Tensor:
    """A new axis of length 1 at position `axis` of the result. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.expand_dims(dg.zeros((2, 3)), 1).shape
    (2, 1, 3)
    """
    x = current().lift(x)
    shape = x.layout.shape
    at = normalize_axis("expand_dims", axis, len(shape) + 1)
    return reshape(x, (*shape[:at], 1, *shape[at:]))


def squeeze(x: ArrayLike, /, axis: Axis = None) -> Tensor:
    """x without the given axes, whose length must be 1. Raises `ShapeError`, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.squeeze(dg.zeros((2, 1, 3)), 1).shape
    (2, 3)
    """
    x = current().lift(x)
    shape = x.layout.shape
    ones = tuple(a for a, n in enumerate(shape) if n == 1)
    axes = ones if axis is None else normalize_axes("squeeze", axis, len(shape))
    if any(shape[a] != 1 for a in axes):
        raise ShapeError(f"squeeze: got axes {axes} of shape {shape}; only axes of length 1 can go; choose those")
    return reshape(x, tuple(n for a, n in enumerate(shape) if a not in axes))


def flatten(x: ArrayLike, /, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """The axes from `start_axis` to `end_axis` (inclusive) joined into one. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.flatten(dg.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = current().lift(x)
    shape = x.layout.shape
    if not shape:
        return reshape(x, (1,))
    first, last = normalize_axis("flatten", start_axis, len(shape)), normalize_axis("flatten", end_axis, len(shape))
    return reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


# permute_dims


def _permute_spec(x: Any, *, axes: tuple[int, ...]) -> Spec:
    return Spec(tuple(x.shape[a] for a in axes), x.dtype)


def _permute_view(view: View, out: Spec, *, axes: tuple[int, ...]) -> View:
    return view.with_layout(out.shape, tuple(view.strides[a] for a in axes))


def _permute_vjp(g: Any, out: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return permute_dims(g, tuple(axes.index(i) for i in range(len(axes))))


_PERMUTE = _view_op("permute_dims", _permute_spec, _permute_view, (_permute_vjp,))


def permute_dims(x: ArrayLike, /, axes: Integers) -> Tensor:
    """The axes in another order: axis i of the result is axis `axes[i]` of x. A view. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.permute_dims(dg.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    x = current().lift(x)
    rank = len(x.layout.shape)
    given = integers("permute_dims", "axes", axes, AxisError)
    order = tuple(normalize_axis("permute_dims", a, rank) for a in given)
    if sorted(order) != list(range(rank)):
        raise AxisError(f"permute_dims: got axes {shown(given)} for rank {rank}; each axis must be named exactly once")
    return identity(x) if order == tuple(range(rank)) else bind(_PERMUTE, x, axes=order)


def swapaxes(x: ArrayLike, /, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged. A view. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.swapaxes(dg.zeros((2, 3, 4)), 0, 2).shape
    (4, 3, 2)
    """
    x = current().lift(x)
    rank = len(x.layout.shape)
    order = list(range(rank))
    i, j = normalize_axis("swapaxes", axis1, rank), normalize_axis("swapaxes", axis2, rank)
    order[i], order[j] = order[j], order[i]
    return permute_dims(x, order)


def matrix_transpose(x: ArrayLike, /) -> Tensor:
    """The last two axes exchanged; also written `x.mT`. A view. Raises `ShapeError` for fewer than two axes.

    >>> import dualgraph as dg
    >>> dg.matrix_transpose(dg.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 3], [2, 4]]
    """
    x = current().lift(x)
    rank = len(x.layout.shape)
    if rank < 2:
        raise ShapeError(
            f"matrix_transpose: got shape {x.layout.shape}; at least 2 axes are needed; add one with expand_dims"
        )
    return bind(_PERMUTE, x, axes=(*range(rank - 2), rank - 1, rank - 2))


def moveaxis(x: ArrayLike, source: int, destination: int, /) -> Tensor:
    """Axis `source` moved to position `destination`, the others in order. A view. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.moveaxis(dg.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = current().lift(x)
    rank = len(x.layout.shape)
    order = list(range(rank))
    order.insert(normalize_axis("moveaxis", destination, rank), order.pop(normalize_axis("moveaxis", source, rank)))
    return permute_dims(x, order)


# broadcast_to


def _broadcast_view(view: View, out: Spec, *, shape: Shape) -> View:
    return view.broadcast_to(shape)


_BROADCAST = _view_op(
    "broadcast_to", lambda x, *, shape: Spec(shape, x.dtype), _broadcast_view, (lambda g, out, x, *, shape: g,)
)


def broadcast_to(x: ArrayLike, /, shape: ShapeLike) -> Tensor:
    """x repeated along new axes and axes of length 1, without copying. Raises `ShapeError`.

    The gradient is summed over what was repeated.

    >>> import dualgraph as dg
    >>> dg.broadcast_to(dg.tensor([1, 2]), (3, 2)).tolist()
    [[1, 2], [1, 2], [1, 2]]
    """
    x = current().lift(x)
    new = checked_shape("broadcast_to", shape)
    old = x.layout.shape
    if broadcast_shapes("broadcast_to", old, new) != new:
        raise ShapeError(f"broadcast_to: got shape {new} for a tensor of shape {old}; every axis must be equal or 1")
    return identity(x) if new == old else bind(_BROADCAST, x, shape=new)


def broadcast_arrays(*arrays: ArrayLike) -> list[Tensor]:
    """All arguments at their common shape, as a list of views. Raises `ShapeError` if there is none.

    >>> import dualgraph as dg
    >>> [x.shape for x in dg.broadcast_arrays(dg.zeros((2, 1)), dg.zeros(3))]
    [(2, 3), (2, 3)]
    """
    parts = [current().lift(x) for x in tensors("broadcast_arrays", arrays)]
    shape = broadcast_shapes("broadcast_arrays", *[x.layout.shape for x in parts])
    return [broadcast_to(x, shape) for x in parts]


# slice and its inverse

Window = tuple[tuple[int, int, int], ...]  # (start, step, length) of each axis


def _slice_spec(x: Any, *, window: Window) -> Spec:
    return Spec(tuple(length for _, _, length in window), x.dtype)


def window_view(view: View, window: Window) -> View:
    """The part of a view that a window covers."""
    offset = view.offset + sum(start * stride for (start, _, _), stride in zip(window, view.strides, strict=True))
    strides = tuple(step * stride for (_, step, _), stride in zip(window, view.strides, strict=True))
    empty = any(length == 0 for _, _, length in window)
    return view.with_layout(tuple(n for _, _, n in window), strides, view.offset if empty else offset)


SLICE: Op = _view_op(
    "slice",
    _slice_spec,
    lambda view, out, *, window: window_view(view, window),
    (lambda g, out, x, *, window: bind(_EMBED, g, shape=x.layout.shape, window=window),),
)


def _embed_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    view = as_view(program, operands[0])
    out = program.new(specs[0])
    program.add(zero_loop(out.dtype), (out,), (), out.shape)
    part = window_view(out, params["window"])
    program.add(copy_loop(view.dtype, out.dtype), (part,), (view,), view.shape)
    return (out,)


_EMBED: Op = register(
    Op(
        "embed",  # zeros of a shape with x in a window: the gradient of slice
        lambda x, *, shape, window: Spec(shape, x.dtype),
        _embed_lower,
        (lambda g, out, x, *, shape, window: bind(SLICE, g, window=window),),
    )
)


def flip(x: ArrayLike, /, axis: Axis = None) -> Tensor:
    """The order of elements reversed along the given axes (all by default). A view. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> dg.flip(dg.arange(3)).tolist()
    [2, 1, 0]
    """
    x = current().lift(x)
    shape = x.layout.shape
    axes = normalize_axes("flip", axis, len(shape))
    window = tuple((n - 1, -1, n) if a in axes and n else (0, 1, n) for a, n in enumerate(shape))
    return bind(SLICE, x, window=window) if axes else identity(x)


# concat


def _concat_spec(*specs: Any, axis: int) -> Spec:
    first = specs[0][0]
    for s in specs[1:]:
        if len(s.shape) != len(first) or any(
            m != n for a, (m, n) in enumerate(zip(s.shape, first, strict=True)) if a != axis
        ):
            raise ShapeError(
                f"concat: got shapes {first} and {s.shape} along axis {axis}; all other axes must be equal; reshape one of them"
            )
    shape = (*first[:axis], sum(s.shape[axis] for s in specs), *first[axis + 1 :])
    return Spec(shape, promote(*[s.dtype for s in specs]))


def _concat_parts(shapes: Sequence[Shape], axis: int) -> list[Window]:
    parts, start = [], 0
    for shape in shapes:
        parts.append(tuple((start if a == axis else 0, 1, n) for a, n in enumerate(shape)))
        start += shape[axis]
    return parts


def _concat_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    views = [as_view(program, x) for x in operands]
    out = program.new(specs[0])
    for view, window in zip(views, _concat_parts([v.shape for v in views], params["axis"]), strict=True):
        program.add(copy_loop(view.dtype, out.dtype), (window_view(out, window),), (view,), view.shape)
    return (out,)


def _concat_vjp(number: int, g: Any, out: Any, *inputs: Any, axis: int) -> Any:
    return bind(SLICE, g, window=_concat_parts([x.layout.shape for x in inputs], axis)[number])


_CONCAT = register(Op("concat", _concat_spec, _concat_lower, _concat_vjp))


def concat(arrays: Sequence[ArrayLike], /, axis: int = 0) -> Tensor:
    """Tensors joined along an axis they have; their dtypes meet in the highest of them.

    Raises `ShapeError` if another axis differs, `AxisError`, and `ArgumentError` for no tensors.

    >>> import dualgraph as dg
    >>> dg.concat([dg.zeros((2, 1)), dg.ones((2, 2))], axis=1).tolist()
    [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    parts = [current().lift(x) for x in tensors("concat", arrays)]
    if not parts[0].layout.shape:
        raise ShapeError("concat: got a tensor of shape (); it has no axis to join along; use stack")
    at = normalize_axis("concat", axis, len(parts[0].layout.shape))
    return bind(_CONCAT, *parts, axis=at)


def stack(arrays: Sequence[ArrayLike], /, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis. Raises `ShapeError`, `AxisError`; `ArgumentError` for no tensors.

    >>> import dualgraph as dg
    >>> dg.stack([dg.zeros(2), dg.ones(2)], axis=1).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    parts = [current().lift(x) for x in tensors("stack", arrays)]
    if len({x.layout.shape for x in parts}) > 1:
        raise ShapeError(f"stack: got shapes {', '.join(str(x.layout.shape) for x in parts)}; they must all be equal")
    at = normalize_axis("stack", axis, len(parts[0].layout.shape) + 1)
    return concat([expand_dims(x, at) for x in parts], axis=at)


def split(x: ArrayLike, sections: Integers, /, axis: int = 0) -> list[Tensor]:
    """x cut along an axis into equal parts (an integer) or parts of the given lengths (a sequence), as a list of views.

    Unlike in NumPy a sequence holds lengths, not positions. Raises `ShapeError` if they do not fit, `AxisError`.

    >>> import dualgraph as dg
    >>> [part.tolist() for part in dg.split(dg.arange(5), [2, 3])]
    [[0, 1], [2, 3, 4]]
    """
    x = current().lift(x)
    at = normalize_axis("split", axis, len(x.layout.shape))
    n = x.layout.shape[at]
    if is_sequence(sections):
        lengths = integers("split", "lengths", sections, ShapeError)
        if sum(lengths) != n or any(length < 0 for length in lengths):
            raise ShapeError(
                f"split: got lengths {shown(lengths)} for an axis of length {n}; they must be 0 or more and add up to it"
            )
    else:
        count = integer("split", "sections", sections, 1, ShapeError)
        if n % count or count > max(n, MOST_PARTS_OF_NOTHING):
            raise ShapeError(f"split: got {shown(count)} sections for an axis of length {n}; it must divide the length")
        lengths = (n // count,) * count
    parts, start = [], 0
    for length in lengths:
        window = tuple((start, 1, length) if a == at else (0, 1, m) for a, m in enumerate(x.layout.shape))
        parts.append(bind(SLICE, x, window=window))
        start += length
    return parts


MOST_PARTS_OF_NOTHING = 2**16  # any number divides 0


# fill


def _fill_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    out = program.new(specs[0])
    exprs, views = leaves(operands)
    code, results = E.linearise(exprs)
    loop = Loop(code, results, tuple(v.dtype for v in views), (False,) * len(views))
    program.add(loop, (out,), [v.broadcast_to(out.shape) for v in views], out.shape)
    return (out,)


FILL = register(Op("full", lambda value, *, shape: Spec(shape, value.dtype), _fill_lower, (None,)))


def zeros_like(x: ArrayLike, /, dtype: DTypeLike | None = None) -> Tensor:
    """Zeros of x's shape, and of its dtype unless another is given.

    >>> import dualgraph as dg
    >>> dg.zeros_like(dg.tensor([1, 2])).tolist()
    [0, 0]
    """
    return full_like(x, 0, dtype)


def ones_like(x: ArrayLike, /, dtype: DTypeLike | None = None) -> Tensor:
    """Ones of x's shape, and of its dtype unless another is given.

    >>> import dualgraph as dg
    >>> dg.ones_like(dg.tensor([1, 2]), dtype="float64").tolist()
    [1.0, 1.0]
    """
    return full_like(x, 1, dtype)


def full_like(x: ArrayLike, value: ArrayLike, /, dtype: DTypeLike | None = None) -> Tensor:
    """A constant of x's shape, and of its dtype unless another is given.

    >>> import dualgraph as dg
    >>> dg.full_like(dg.tensor([1.0, 2.0]), 3).tolist()
    [3.0, 3.0]
    """
    x = current().detach(x)  # its values do not matter
    return filled("full_like", x.layout.shape, value, dtype_name(dtype, x.layout.dtype))


def filled(name: str, shape: Shape, value: Any, dtype: str) -> Tensor:
    """One value everywhere, or what can be broadcast to the shape, in a dtype."""
    if isinstance(value, (np.generic, np.ndarray)) and value.shape == ():
        value = value.item()
    if value.__class__ not in (bool, int, float):
        return broadcast_to(astype(value, dtype), shape)
    return bind(FILL, current().constant(*checked_scalar(name, value, dtype)), shape=shape)


__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concat",
    "expand_dims",
    "flatten",
    "flip",
    "full_like",
    "matrix_transpose",
    "moveaxis",
    "ones_like",
    "permute_dims",
    "reshape",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "zeros_like",
]
