"""Reductions: folds along axes in the canonical order."""

from __future__ import annotations

import builtins
import itertools
import math
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from dualgraph.core.arguments import flag, normalize_axes, normalize_axis
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, Vjp, as_view
from dualgraph.dtypes import DTYPES
from dualgraph.errors import AxisError, ShapeError, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.monoids import MONOIDS
from dualgraph.kernels.program import Program, View, row_shape, row_view
from dualgraph.ops import elementwise as ew
from dualgraph.ops.composite import composite
from dualgraph.ops.registry import register
from dualgraph.ops.scalar import Expression
from dualgraph.ops.shape import (
    broadcast_to,
    contiguous,
    expand_dims,
    full_like,
    permute_dims,
    reshape,
)
from dualgraph.spec import DEFAULT_INTEGER, Shape, Spec, contiguous_strides, dtype_name, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Axis, DTypeLike, Tensor

Axes = tuple[int, ...]


def reduced_shape(shape: Shape, axes: Axes, keepdims: bool) -> Shape:
    """The shape after reducing `axes`."""
    return tuple(1 if a in axes else n for a, n in enumerate(shape) if keepdims or a not in axes)


def foldable(program: Program, view: View, axes: Axes) -> tuple[View, Axes]:
    """The view and axes in a form whose folded axes are adjacent and step evenly; copies where they do not."""
    kept = [a for a in range(len(view.shape)) if a not in axes and view.shape[a] != 1]
    folded = [a for a in axes if view.shape[a] != 1]
    adjacent = not folded or not builtins.any(folded[0] < a < folded[-1] for a in kept)
    order = sorted(kept + folded) if adjacent else kept + folded
    view = view.with_layout(tuple(view.shape[a] for a in order), tuple(view.strides[a] for a in order))
    new_axes = tuple(order.index(a) for a in folded)
    even = builtins.all(view.strides[a] == view.strides[b] * view.shape[b] for a, b in itertools.pairwise(new_axes))
    return (view if even else contiguous(program, view)), new_axes


def count_along(x: Any, axes: Axes) -> int:
    """How many elements are folded into one."""
    return math.prod(x.layout.shape[a] for a in axes)


def not_empty(name: str, shape: Shape, axes: Axes) -> None:
    """Refuse to look for the largest or smallest of nothing."""
    if math.prod(shape[a] for a in axes) == 0:
        raise ShapeError(
            f"{name}: got shape {shape}, empty along the reduced axes {axes}; "
            "the largest of nothing is undefined; check the size first"
        )


def _itself(x: E.Expr) -> E.Expr:
    return x


def _fold_op(name: str, monoid: str, vjp: Vjp | None, element: Expression = _itself) -> Op:
    """A fold of `element(x)` along axes."""
    record = MONOIDS[monoid]

    def spec(x: Any, *, axes: Axes, keepdims: bool) -> Spec:
        if record.nothing is None:
            not_empty(name, x.shape, axes)
        found = element(E.widened(E.input(0, x.dtype))).dtype
        dtype = x.dtype if found == DTYPES[x.dtype].compute else found  # what is calculated is stored as x is
        return Spec(reduced_shape(x.shape, axes, keepdims), record.result(dtype))

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        (out,) = specs
        view, axes = foldable(program, as_view(program, operands[0]), params["axes"])
        domain = view.shape
        result = program.new(Spec(row_shape(domain, axes), out.dtype))
        x = E.cast(element(E.widened(E.input(0, view.dtype))), DTYPES[out.dtype].compute)
        code, results = E.linearise([E.cast(E.fold(monoid, x) if axes else E.computed(x), out.dtype)])
        loop = Loop(code, results, (view.dtype,), (False,))
        program.add(loop, (row_view(result, domain, axes),), (view,), domain, axes)
        return (result.with_layout(out.shape, contiguous_strides(out.shape)),)

    return register(Op(name, spec, lower, (vjp,)))


def with_axes(g: Any, x: Any, axes: Axes) -> Any:
    """A gradient or result with its reduced axes back at length 1."""
    return reshape(g, reduced_shape(x.layout.shape, axes, True))


def spread(g: Any, x: Any, axes: Axes) -> Any:
    return broadcast_to(with_axes(g, x, axes), x.layout.shape)


def _sum_vjp(g: Any, out: Any, x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return spread(g, x, axes)


def _prod_gradient(g: Any, x: Any, *, axes: Axes) -> Any:
    zero = ew.equal(x, 0.0)
    zeros = sum(ew.astype(zero, x.layout.dtype), axis=axes, keepdims=True)
    others = prod(ew.where(zero, 1.0, x), axis=axes, keepdims=True)
    odd = ew.astype(ew.logical_not(ew.isfinite(x)), x.layout.dtype)
    with_zero = ew.where(ew.greater(ew.subtract(sum(odd, axis=axes, keepdims=True), odd), 0.0), math.nan, 0.0)
    divisor = ew.where(zero, 1.0, ew.where(ew.isinf(x), ew.sign(x), x))  # an infinity beside another leaves one
    without = ew.where(ew.equal(zeros, 0.0), ew.divide(others, divisor), with_zero)
    alone = ew.logical_and(ew.isinf(x), ew.equal(ew.add(sum(odd, axis=axes, keepdims=True), zeros), 1.0))
    without = ew.where(alone, prod(ew.where(alone, 1.0, x), axis=axes, keepdims=True), without)
    return ew.multiply(g, ew.where(ew.logical_and(zero, ew.equal(zeros, 1.0)), others, without))


def _extreme_gradient(g: Any, out: Any, x: Any, *, axes: Axes) -> Any:
    hit = ew.logical_or(ew.equal(x, out), ew.logical_and(ew.isnan(x), ew.isnan(out)))
    weight = ew.astype(hit, x.layout.dtype)
    return ew.multiply(ew.divide(g, sum(weight, axis=axes, keepdims=True)), weight)


_EXTREME_GRADIENT = register(composite("extreme_vjp", _extreme_gradient))


def _prod_gradient_vjp(number: int, u: Any, out: Any, g: Any, x: Any, *, axes: Axes) -> Any:
    """The gradient of `_prod_gradient`, which is g times the product of all other elements of the row.

    With respect to x_j it is g * sum over i != j of u_i times the product of all elements but i and j: exact where
    elements are zero, at the price of n**3 products for rows of n.
    """
    if number == 0:
        return sum(ew.multiply(u, bind(_PROD_GRADIENT, full_like(g, 1), x, axes=axes)), axis=axes, keepdims=True)
    shape = x.layout.shape
    order = (*(a for a in range(len(shape)) if a not in axes), *axes)
    n = count_along(x, axes)
    rows, us = (reshape(permute_dims(v, order), (-1 if n else 0, n)) for v in (x, u))
    same = ew.equal(expand_dims(_positions(n), 1), _positions(n))
    either = ew.logical_or(expand_dims(same, 0), expand_dims(same, 1))
    others = prod(ew.where(either, 1.0, expand_dims(expand_dims(rows, 1), 1)), axis=3)
    row_gradient = sum(ew.multiply(ew.where(same, 0.0, others), expand_dims(us, 1)), axis=2)
    restored = reshape(row_gradient, tuple(shape[a] for a in order))
    return ew.multiply(g, permute_dims(restored, tuple(order.index(a) for a in range(len(shape)))))


def _positions(n: int) -> Any:
    return current().lift(np.arange(n))


_PROD_GRADIENT = register(composite("prod_vjp", _prod_gradient, _prod_gradient_vjp))


def _prod_vjp(g: Any, out: Any, x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return bind(_PROD_GRADIENT, with_axes(g, x, axes), x, axes=axes)


def _extreme_vjp(g: Any, out: Any, x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return bind(_EXTREME_GRADIENT, with_axes(g, x, axes), with_axes(out, x, axes), x, axes=axes)


_SUM = _fold_op("sum", "sum", _sum_vjp)
_PROD = _fold_op("prod", "prod", _prod_vjp)
_MAX = _fold_op("max", "max", _extreme_vjp)
_MIN = _fold_op("min", "min", _extreme_vjp)
_ANY = _fold_op("any", "any", None)
_ALL = _fold_op("all", "all", None)
_COUNT_NONZERO = _fold_op("count_nonzero", "sum", None, lambda x: E.cast(x, "bool"))


def reduced(op: Op, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    x = current().lift(x)
    axes = normalize_axes(op.name, axis, len(x.layout.shape))
    return bind(op, x, axes=axes, keepdims=flag(op.name, "keepdims", keepdims))


def _accumulated(op: Op, x: Any, axis: Axis, dtype: DTypeLike | None, keepdims: bool) -> Tensor:
    """A sum or product in the dtype asked for; int32 wraps, since that is what is left of the int64 computed."""
    if dtype is None:
        return reduced(op, x, axis, keepdims)
    name = dtype_name(dtype)
    return ew.astype(reduced(op, ew.astype(x, name), axis, keepdims), name)


def sum(x: ArrayLike, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """The sum along axes (all by default), in one documented order of additions.

    `axis`: an int or several; they disappear, or stay with length 1 with `keepdims`. `dtype`: cast first, and the result
    has it. Without it bool and int32 are summed as int64. The sum of nothing is 0. The order (32 lanes, then a tree, over
    chunks of 4,096) depends on the shape and the axes alone, so the bits do, too. Raises `AxisError`.

    >>> import dualgraph as dg
    >>> x = dg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> dg.sum(x, axis=0).tolist(), dg.sum(x, axis=1, keepdims=True).tolist(), dg.sum(x).item()
    ([4.0, 6.0], [[3.0], [7.0]], 10.0)
    """
    return _accumulated(_SUM, x, axis, dtype, keepdims)


def prod(x: ArrayLike, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Tensor:
    """The product along axes (all by default); axes, dtypes and order as for `sum`. The product of nothing is 1.

    The gradient is right where elements are zero or infinite: it is the product of the others.

    >>> import dualgraph as dg
    >>> x = dg.tensor([2.0, 0.0, 5.0], requires_grad=True)
    >>> dg.prod(x).backward()
    >>> x.grad.tolist()
    [0.0, 10.0, 0.0]
    """
    return _accumulated(_PROD, x, axis, dtype, keepdims)


def max(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element along axes (all by default); NaN if there is one, and -0.0 < +0.0. Axes as for `sum`.

    Ties share the gradient evenly. Raises `ShapeError` where the reduced axes are empty, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.max(dg.tensor([[1, 5], [7, 2]]), axis=1).tolist()
    [5, 7]
    """
    return reduced(_MAX, x, axis, keepdims)


def min(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element along axes (all by default); NaN if there is one, and -0.0 < +0.0. Axes as for `sum`.

    Ties share the gradient evenly. Raises `ShapeError` where the reduced axes are empty, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.min(dg.tensor([[1, 5], [7, 2]]), axis=1).tolist()
    [1, 2]
    """
    return reduced(_MIN, x, axis, keepdims)


def any(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some element along axes (all by default) is true, that is non-zero; of nothing False. Axes as for `sum`.

    >>> import dualgraph as dg
    >>> dg.any(dg.tensor([[0, 0], [0, 3]]), axis=1).tolist()
    [False, True]
    """
    return reduced(_ANY, x, axis, keepdims)


def all(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element along axes (all by default) is true, that is non-zero; of nothing True. Axes as for `sum`.

    >>> import dualgraph as dg
    >>> dg.all(dg.tensor([[1, 0], [2, 3]]), axis=1).tolist()
    [False, True]
    """
    return reduced(_ALL, x, axis, keepdims)


def count_nonzero(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements along axes (all by default) are not zero, as int64; NaN is not zero, -0.0 is. Axes as for `sum`.

    >>> import dualgraph as dg
    >>> dg.count_nonzero(dg.tensor([[1.0, 0.0], [0.5, 2.0]]), axis=1).tolist()
    [1, 2]
    """
    return reduced(_COUNT_NONZERO, x, axis, keepdims)


# Positions of extremes


def _arg_op(name: str, monoid: str) -> Op:
    def spec(x: Any, *, axis: int, keepdims: bool) -> Spec:
        if x.shape[axis] == 0:
            raise ShapeError(f"{name}: got shape {x.shape}, empty along axis {axis}; there is no element to find")
        return Spec(reduced_shape(x.shape, (axis,), keepdims), DEFAULT_INTEGER)

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        view, axes = foldable(program, as_view(program, operands[0]), (params["axis"],))
        x = E.widened(E.input(0, view.dtype))
        if axes:
            best = E.fold(monoid, x)
            hit = E.call("eq", x, best)
            if is_float(x.dtype):
                both = E.call("bitwise_and", E.call("isnan", x), E.call("isnan", best))
                hit = E.call("bitwise_or", hit, both)
            found = E.fold("min", E.select(hit, E.position(), E.literal(2**63 - 1, "int64")))
        else:  # an axis of length 1
            found = E.literal(0, "int64")
        code, results = E.linearise([found])
        takes = 1 if axes else 0
        out = program.new(Spec(row_shape(view.shape, axes), DEFAULT_INTEGER))
        loop = Loop(code, results, (view.dtype,) * takes, (False,) * takes)
        program.add(loop, (row_view(out, view.shape, axes),), (view,) * takes, view.shape, axes)
        return (out.with_layout(specs[0].shape, contiguous_strides(specs[0].shape)),)

    return register(Op(name, spec, lower, (None,)))


_ARGMAX = _arg_op("argmax", "max")
_ARGMIN = _arg_op("argmin", "min")


def _arg(op: Op, x: Any, axis: SupportsIndex | None, keepdims: bool) -> Tensor:
    x, keepdims = current().lift(x), flag(op.name, "keepdims", keepdims)
    if axis is None:
        rank = len(x.layout.shape)
        found = bind(op, reshape(x, (-1,)) if x.spec.size else reshape(x, (0,)), axis=0, keepdims=False)
        return reshape(found, (1,) * rank) if keepdims else found
    if not x.layout.shape:
        raise AxisError(f"{op.name}: got axis {shown(axis)} for a scalar; leave the axis out")
    return bind(op, x, axis=normalize_axis(op.name, axis, len(x.layout.shape)), keepdims=keepdims)


def argmax(x: ArrayLike, /, *, axis: SupportsIndex | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the largest element along an axis, or in the flat tensor; the first among equals.

    A NaN counts as the largest. Raises `ShapeError` where there is no element, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.argmax(dg.tensor([[1, 5, 5], [7, 2, 0]]), axis=1).tolist()
    [1, 0]
    """
    return _arg(_ARGMAX, x, axis, keepdims)


def argmin(x: ArrayLike, /, *, axis: SupportsIndex | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the smallest element along an axis, or in the flat tensor; the first among equals.

    A NaN counts as the smallest. Raises `ShapeError` where there is no element, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.argmin(dg.tensor([[1, 5, 5], [7, 2, 0]]), axis=1).tolist()
    [0, 2]
    """
    return _arg(_ARGMIN, x, axis, keepdims)


# Broadcasting undone


def sum_to(x: Any, spec: Spec) -> Any:
    """x summed over the axes along which `spec` was broadcast, in the dtype of `spec`: the gradient of broadcasting."""
    have, want = x.layout.shape, spec.shape
    if have != want:
        pairs = zip(have[len(have) - len(want) :], want, strict=True) if len(have) >= len(want) else ((0, 2),)
        if [n for m, n in pairs if n not in (1, m)]:
            raise ShapeError(
                f"got a gradient of shape {have} for an operand of shape {want}; it must have this shape, or one that it "
                "broadcasts to; mend the gradient rule"
            )
        new = len(have) - len(want)
        ones = tuple(new + a for a, n in enumerate(want) if n == 1 and have[new + a] != 1)
        x = bind(_SUM, x, axes=(*range(new), *ones), keepdims=bool(ones)) if new or ones else x
        if ones:
            x = reshape(x, want)
    return x if x.layout.dtype == spec.dtype else ew.astype(x, spec.dtype)


__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "max",
    "min",
    "prod",
    "sum",
]
