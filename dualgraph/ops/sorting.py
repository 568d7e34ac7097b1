"""Order along an axis: where the elements go, and the elements themselves, which are taken from there.

Equal elements stay in the order of their positions, in both directions, and -0 equals +0. NaN comes last, in both
directions: the elements that can be compared come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

from dualgraph.core.arguments import flag, normalize_axis
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.dtypes import DTYPES
from dualgraph.errors import ShapeError
from dualgraph.kernels.kinds import Sort
from dualgraph.kernels.program import Program, View
from dualgraph.ops.indexing import take_along_axis
from dualgraph.ops.registry import register
from dualgraph.ops.shape import copy_loop, in_dtype
from dualgraph.spec import DEFAULT_INTEGER, Spec

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Tensor

LONGEST = 2**32 - 1  # elements of a row: their positions have 32 bits


def _spec(x: Any, *, axis: int, descending: bool) -> Spec:
    return Spec(x.shape, DEFAULT_INTEGER)


def _lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    x, axis = as_view(program, operands[0]), params["axis"]
    x = in_dtype(program, x, DTYPES[x.dtype].compute)
    axes = (*(a for a in range(len(x.shape)) if a != axis), axis)
    back = tuple(axes.index(a) for a in range(len(axes)))
    rows = _permuted(x, axes)
    if not rows.contiguous:
        rows = program.new(rows.spec)
        program.add(copy_loop(x.dtype, x.dtype), (_permuted(rows, back),), (x,), x.shape)  # in what makes x, if it can
    order, spare = (program.new(Spec(rows.shape, DEFAULT_INTEGER)) for _ in range(2))
    n = x.shape[axis]
    shape = (x.spec.size // n if n else 0, n)
    program.add(
        Sort(x.dtype, params["descending"]),
        tuple(view.with_layout(shape, (n, 1)) for view in (order, spare)),
        (rows.with_layout(shape, (n, 1)),),
    )
    return (_permuted(order, back),)


def _permuted(view: View, axes: tuple[int, ...]) -> View:
    return view.with_layout(tuple(view.shape[a] for a in axes), tuple(view.strides[a] for a in axes))


_ARGSORT = register(Op("argsort", _spec, _lower, (None,), literal_scalars=False))


def _order(name: str, x: Any, axis: Any, descending: Any, stable: Any) -> tuple[Tensor, Tensor, int]:
    """x, the order, and the axis from the left."""
    x, descending = current().lift(x), flag(name, "descending", descending)
    flag(name, "stable", stable)  # it always is
    shape = x.layout.shape
    axis = normalize_axis(name, axis, len(shape))
    if shape[axis] > LONGEST:
        raise ShapeError(
            f"{name}: got shape {shape}; along axis {axis} there may be {LONGEST} elements at most; sort parts of it"
        )
    return x, bind(_ARGSORT, x, axis=axis, descending=descending), axis


def argsort(x: ArrayLike, /, *, axis: SupportsIndex = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions (int64) along an axis in the order of the elements, smallest first or, `descending`, largest first.

    Equal elements keep the order of their positions, `descending` too, and where `stable` is False. -0.0 equals 0.0. NaN
    comes last, in both directions. Raises `AxisError`, also for a scalar, which has no axis; `ShapeError` for 2**32
    elements and more along the axis.

    >>> import dualgraph as dg
    >>> dg.argsort(dg.tensor([2.0, float("nan"), 1.0, 2.0]), descending=True).tolist()
    [0, 3, 2, 1]
    """
    return _order("argsort", x, axis, descending, stable)[1]


def sort(x: ArrayLike, /, *, axis: SupportsIndex = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements along an axis in order, each with all its bits: `take_along_axis(x, argsort(x))`; see `argsort`.

    The gradient goes back to where the elements came from.

    >>> import dualgraph as dg
    >>> x = dg.tensor([2.0, 3.0, 1.0], requires_grad=True)
    >>> y = dg.sort(x)
    >>> y.backward(dg.tensor([10.0, 20.0, 30.0]))
    >>> y.tolist(), x.grad.tolist()
    ([1.0, 2.0, 3.0], [20.0, 30.0, 10.0])
    """
    x, order, axis = _order("sort", x, axis, descending, stable)
    return take_along_axis(x, order, axis=axis)


__all__ = [
    "argsort",
    "sort",
]
