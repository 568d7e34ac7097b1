"""Selection by computed indices, and its gradient, a scatter in a fixed order."""

from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from dualgraph.core.arguments import integer, normalize_axis
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.core.tensor import Tensor
from dualgraph.dtypes import DTYPES, INTEGERS, NUMPY_DTYPES
from dualgraph.errors import ArgumentError, AxisError, DTypeError, DualgraphError, RangeError, ShapeError, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, Loop, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.program import Program, View, row_view
from dualgraph.ops.elementwise import astype
from dualgraph.ops.registry import register
from dualgraph.ops.shape import SLICE, contiguous, in_dtype, reshape
from dualgraph.spec import DEFAULT_INTEGER, Shape, Spec, contiguous_strides, dtype_name, fitting

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DTypeLike


def _three(shape: Shape, axis: int) -> Shape:
    """(A, N, B): the axes before, at and after `axis`."""
    return (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def _as(view: View, shape: Shape) -> View:
    return view.with_layout(shape, contiguous_strides(shape))


def integers_only(name: str, what: str, dtype: str) -> None:
    """Indices and labels are integers."""
    if dtype == "bool" and what == "indices":
        raise DTypeError(f"{name}: got {what} of bool; {what} must be int32 or int64; {_MASKS}")
    if dtype not in INTEGERS:
        raise DTypeError(f"{name}: got {what} of {dtype}; {what} must be int32 or int64; cast with astype(…, 'int64')")


_MASKS = (
    "a mask is no list of positions, and how many elements it selects is known only when it is computed: use "
    "dg.where(mask, x, 0), or multiply by the mask"
)


def _positions(indices: Any) -> Tensor:
    """Indices as a tensor; a list without elements holds integers as well as anything else."""
    x = current().lift(indices)
    return astype(x, DEFAULT_INTEGER) if isinstance(indices, (list, tuple)) and 0 in x.layout.shape else x


# take: along one axis, with indices of any shape


def _take_spec(x: Any, index: Any, *, axis: int) -> Spec:
    integers_only("take", "indices", index.dtype)
    return Spec((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype)


def _take_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    x, index = (contiguous(program, as_view(program, v)) for v in operands)
    before, n, after = _three(x.shape, params["axis"])
    count = index.spec.size
    out = program.new(specs[0])
    program.add(
        Gather(x.dtype, index.dtype),
        (_as(out, (before, count, after)),),
        (_as(x, (before, n, after)), _as(index, (count,))),
        index.shape,  # positions in error messages are those of the user's indices
    )
    return (out,)


def _take_vjp(g: Any, out: Any, x: Any, index: Any, *, axis: int) -> Any:
    return bind(_PUT, g, index, axis=axis, shape=x.layout.shape)


_TAKE = register(Op("take", _take_spec, _take_lower, (_take_vjp, None), literal_scalars=False, checks=True))


def _put_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    g, index = (contiguous(program, as_view(program, v)) for v in operands)
    g = in_dtype(program, g, DTYPES[g.dtype].compute)
    before, n, after = _three(specs[0].shape, params["axis"])
    count = index.spec.size
    out = program.new(Spec(specs[0].shape, g.dtype))
    program.add(
        ScatterAdd(g.dtype, index.dtype),
        (_as(out, (before, n, after)),),
        (_as(g, (before, count, after)), _as(index, (count,))),
    )
    return (in_dtype(program, out, specs[0].dtype),)


_PUT = register(
    Op(
        "scatter_add",
        lambda g, index, *, axis, shape: Spec(shape, g.dtype),
        _put_lower,
        (lambda g, out, x, index, *, axis, shape: take(g, index, axis=axis), None),
        literal_scalars=False,
        checks=True,
    )
)


def take(x: ArrayLike, indices: ArrayLike, /, *, axis: SupportsIndex | None = None) -> Tensor:
    """The elements (sub-tensors) of x at integer positions along an axis; negative positions count from the end.

    The axis is replaced by the axes of `indices`. The gradient adds up where a position occurs twice, in the order of
    the indices. Without an axis x must be a vector. Raises `RangeError` for a position outside the axis, `DTypeError` for
    indices that are not int32 or int64, `AxisError`.

    >>> import dualgraph as dg
    >>> x = dg.tensor([10.0, 20.0, 30.0], requires_grad=True)
    >>> y = dg.take(x, dg.tensor([2, 0, -1]))
    >>> dg.sum(y).backward()
    >>> y.tolist(), x.grad.tolist()
    ([30.0, 10.0, 30.0], [1.0, 0.0, 2.0])
    """
    x, indices = current().lift(x), _positions(indices)
    rank = len(x.layout.shape)
    if axis is None and rank != 1:
        raise ShapeError(f"take: got a tensor of shape {x.layout.shape} and no axis; name the axis")
    return bind(_TAKE, x, indices, axis=normalize_axis("take", 0 if axis is None else axis, rank))


# take_along_axis


def _along_spec(x: Any, index: Any, *, axis: int) -> Spec:
    integers_only("take_along_axis", "indices", index.dtype)
    if len(x.shape) != len(index.shape) or any(
        m != n for a, (m, n) in enumerate(zip(x.shape, index.shape, strict=True)) if a != axis
    ):
        raise ShapeError(
            f"take_along_axis: got shapes {x.shape} and {index.shape}; all axes but axis {axis} must be equal; reshape the "
            "indices"
        )
    return Spec(index.shape, x.dtype)


def _along_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    x, index = (contiguous(program, as_view(program, v)) for v in operands)
    axis = params["axis"]
    out = program.new(specs[0])
    small = _three(index.shape, axis)
    program.add(
        GatherAlong(x.dtype, index.dtype),
        (_as(out, small),),
        (_as(x, _three(x.shape, axis)), _as(index, small)),
        index.shape,
    )
    return (out,)


def _along_vjp(g: Any, out: Any, x: Any, index: Any, *, axis: int) -> Any:
    return bind(_PUT_ALONG, g, index, axis=axis, shape=x.layout.shape)


_ALONG = register(
    Op(
        "take_along_axis",
        _along_spec,
        _along_lower,
        (_along_vjp, None),
        literal_scalars=False,
        checks=True,
    )
)


def _put_along_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    g, index = (contiguous(program, as_view(program, v)) for v in operands)
    g = in_dtype(program, g, DTYPES[g.dtype].compute)
    axis = params["axis"]
    out = program.new(Spec(specs[0].shape, g.dtype))
    small = _three(index.shape, axis)
    program.add(
        ScatterAddAlong(g.dtype, index.dtype),
        (_as(out, _three(specs[0].shape, axis)),),
        (_as(g, small), _as(index, small)),
    )
    return (in_dtype(program, out, specs[0].dtype),)


_PUT_ALONG = register(
    Op(
        "scatter_add_along_axis",
        lambda g, index, *, axis, shape: Spec(shape, g.dtype),
        _put_along_lower,
        (lambda g, out, x, index, *, axis, shape: take_along_axis(g, index, axis=axis), None),
        literal_scalars=False,
        checks=True,
    )
)


def take_along_axis(x: ArrayLike, indices: ArrayLike, /, *, axis: int = -1) -> Tensor:
    """`out[..., i, ...] = x[..., indices[..., i, ...], ...]` along an axis; the other axes must agree.

    Raises `ShapeError`, `RangeError`, `DTypeError`, `AxisError`; see `take`.

    >>> import dualgraph as dg
    >>> x = dg.tensor([[1, 2], [3, 4]])
    >>> dg.take_along_axis(x, dg.tensor([[1], [0]]), axis=1).tolist()
    [[2], [3]]
    """
    x, indices = current().lift(x), _positions(indices)
    return bind(_ALONG, x, indices, axis=normalize_axis("take_along_axis", axis, len(x.layout.shape)))


# x[key]

_PLAIN = {int, slice, type(None), type(Ellipsis)}  # what needs no look at a dtype


def getitem(x: Any, key: Any) -> Any:
    """`x[key]` with integers, slices, `...` and None (views), or one tensor or list of integers (see `take`)."""
    x = current().lift(x)
    keys = key if isinstance(key, tuple) else (key,)
    if not _PLAIN.issuperset([k.__class__ for k in keys]):
        keys = tuple([_positions(k) if isinstance(k, list) else k for k in keys])
        if any(_is_mask(k) for k in keys):
            raise ArgumentError(f"indexing: got {shown(key)}; {_MASKS}")
        if len(keys) == 1 and _is_index_array(keys[0]):
            if not x.layout.shape:
                raise AxisError(
                    f"indexing: got {shown(key)} for shape (); a scalar has no axis to index; use it as it is"
                )
            return take(x, keys[0], axis=0)
        if any(_is_index_array(k) for k in keys):
            raise ArgumentError(
                f"indexing: got {shown(key)}; a tensor or list can be the only index (x[indices]); use dg.take along an "
                "axis, dg.take_along_axis, or dg.where for a mask"
            )
    shape = x.layout.shape
    dots = [n for n, k in enumerate(keys) if k is Ellipsis]
    named = len(keys) - len(dots) - sum([k is None for k in keys])
    if len(dots) > 1 or named > len(shape):
        raise AxisError(
            f"indexing: got {len(keys)} indices {shown(key)} for shape {shape}; name each axis at most once"
        )
    if not dots:
        keys = (*keys, Ellipsis)
    at = dots[0] if dots else len(keys) - 1
    full: tuple[Any, ...] = (*keys[:at], *[slice(None)] * (len(shape) - named), *keys[at + 1 :])
    window: list[tuple[int, int, int]] = []
    result: list[int] = []
    for k in full:
        if k is None:
            result.append(1)
            continue
        n = shape[len(window)]
        if isinstance(k, slice):
            start, stop, step = _bounds(k, n)
            length = len(range(start, stop, step))
            window.append((start, step, length))
            result.append(length)
        else:
            window.append((_checked_index(k, n, len(window)), 1, 1))
    if any(w != (0, 1, n) for w, n in zip(window, shape, strict=True)):
        x = bind(SLICE, x, window=tuple(window))
    return reshape(x, tuple(result))


def _is_index_array(key: Any) -> bool:
    return isinstance(key, Tensor) or (isinstance(key, np.ndarray) and key.ndim > 0)


def _bounds(key: slice, n: int) -> tuple[int, int, int]:
    try:
        return key.indices(n)
    except DualgraphError:  # a symbol as a bound: says so itself
        raise
    except (TypeError, ValueError) as error:
        raise DTypeError(
            f"indexing: got {shown(key)}; the bounds of a slice are integers, its step not zero ({error})"
        ) from None


def _is_mask(key: Any) -> bool:
    if isinstance(key, (bool, np.bool_)):
        return True
    return isinstance(key, (Tensor, np.ndarray)) and key.dtype == NUMPY_DTYPES["bool"]


def _checked_index(key: Any, n: int, axis: int) -> int:
    try:
        i = index(key)
    except TypeError:
        raise DTypeError(
            f"indexing: got {shown(key)} of type {type(key).__name__}; use integers, slices, ... or None"
        ) from None
    if not -n <= i < n:
        raise RangeError(f"indexing: got index {shown(i)} for axis {axis} of length {n}; it must lie in [{-n}, {n})")
    return i % n


# labels


def _in_range_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    view = as_view(program, operands[0])
    program.add(CheckIndex(view.dtype, params["low"], params["high"], params["what"]), (), (view,))
    return (view,)


IN_RANGE = register(
    Op(
        "in_range",
        lambda x, *, low, high, what: Spec(x.shape, x.dtype),
        _in_range_lower,
        (None,),
        literal_scalars=False,
        checks=True,
    )
)


def in_range(labels: Any, high: int, what: str = "label", name: str = "") -> Tensor:
    """The labels themselves, after the check that each lies in [0, high). `name`: the function that errors speak of."""
    labels = current().lift(labels)
    integers_only(name or what, what, labels.layout.dtype)
    return bind(IN_RANGE, labels, low=0, high=high, what=f"{name}: {what}" if name else what)


def _one_hot_lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    label = as_view(program, operands[0])
    (out_spec,) = specs
    domain = out_spec.shape
    last = len(domain) - 1
    out = program.new(out_spec)
    column = label.with_layout((*label.shape, 1), (*label.strides, 0))
    hit = E.call("eq", E.cast(E.input(0, label.dtype), "int64"), E.position())
    code, results = E.linearise([E.cast(hit, out_spec.dtype)])
    loop = Loop(code, results, (label.dtype,), (True,))
    program.add(loop, (out,), (row_view(column, domain, (last,)),), domain, (last,))
    return (out,)


_ONE_HOT = register(
    Op(
        "one_hot",
        lambda x, *, classes, dtype: Spec((*x.shape, classes), dtype),
        _one_hot_lower,
        (None,),
        literal_scalars=False,
    )
)


def one_hot(labels: ArrayLike, classes: int, *, dtype: DTypeLike = "int64") -> Tensor:
    """`out[..., c] = (labels[...] == c)` for c in 0 … classes-1, as ones and zeros of `dtype`.

    `labels`: int32 or int64, each in [0, classes), else `RangeError`. The result has one axis more, of length `classes`.

    >>> import dualgraph as dg
    >>> dg.one_hot(dg.tensor([2, 0]), 3).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    count, name = integer("one_hot", "classes", classes, 1), dtype_name(dtype, DEFAULT_INTEGER)
    labels = _positions(labels)
    fitting("one_hot", (*labels.layout.shape, count))
    return hot(in_range(labels, count, name="one_hot"), count, name)


def hot(labels: Any, classes: int, dtype: str) -> Tensor:
    """`one_hot` of labels whose range was checked before."""
    return bind(_ONE_HOT, labels, classes=classes, dtype=dtype)


__all__ = [
    "one_hot",
    "take",
    "take_along_axis",
]
