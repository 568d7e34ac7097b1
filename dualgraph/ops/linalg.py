"""Matrix products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import normalize_axis
from dualgraph.core.broadcast import broadcast_shapes
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.dtypes import DTYPES
from dualgraph.errors import ShapeError
from dualgraph.kernels.kinds import External, MatMul
from dualgraph.kernels.program import Program, View
from dualgraph.ops.composite import composite
from dualgraph.ops.elementwise import multiply
from dualgraph.ops.reduce import sum
from dualgraph.ops.registry import register
from dualgraph.ops.shape import copy_loop, expand_dims, reshape, squeeze
from dualgraph.spec import Shape, Spec, is_float, promote

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Tensor


class _Product:
    """The rules of one product: op(a) @ op(b), where op transposes or does not."""

    def __init__(self, transpose_a: bool, transpose_b: bool):
        self.transposed = transpose_a, transpose_b

    def spec(self, a: Any, b: Any) -> Spec:
        x, y = (_factor(s.shape, transposed) for s, transposed in zip((a, b), self.transposed, strict=True))
        if x[-1] != y[-2]:
            raise ShapeError(
                f"matmul: got shapes {x} and {y}; the last axis of the first ({x[-1]}) must equal the second-to-last of the "
                f"second ({y[-2]}); transpose one of them"
            )
        return Spec((*broadcast_shapes("matmul", x[:-2], y[:-2]), x[-2], y[-1]), promote(a.dtype, b.dtype))

    def lower(
        self, program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        (spec,) = specs
        batch = spec.shape[:-2]
        dtype = DTYPES[spec.dtype].compute
        kernel = MatMul(dtype, *self.transposed)
        views = []
        for operand in operands:
            view = _row_major(program, as_view(program, operand), dtype)
            views.append(view.broadcast_to((*batch, *view.shape[-2:])))
        out = program.new(Spec(spec.shape, dtype))
        if is_float(dtype):
            program.add(kernel, (out,), views)
        else:
            program.add(External("matmul", _external_matmul), (out,), kernel.factors(views))
        return (_row_major(program, out, spec.dtype),)

    def vjp(self, number: int, g: Any, out: Any, a: Any, b: Any) -> Any:
        """Products of the operands as they lie: what is transposed is told to the product, so nothing is copied."""
        transpose_a, transpose_b = self.transposed
        if number == 0:
            return _product(b, g, transpose_b, True) if transpose_a else _product(g, b, False, not transpose_b)
        return _product(g, a, True, transpose_a) if transpose_b else _product(a, g, not transpose_a, False)


def _factor(shape: Shape, transposed: bool) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def _external_matmul(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any]]:
    return (np.matmul(a, b),)


def _row_major(program: Program, view: View, dtype: str) -> View:
    if view.dtype == dtype and (view.row_major or not is_float(dtype)):
        return view
    out = program.new(Spec(view.shape, dtype))
    program.add(copy_loop(view.dtype, dtype), (out,), (view,), view.shape)
    return out


def _product_op(transpose_a: bool, transpose_b: bool) -> Op:
    rules = _Product(transpose_a, transpose_b)
    return Op("matmul", rules.spec, rules.lower, rules.vjp, literal_scalars=False)


# One op for each choice of what is transposed: a bit of the op, not of the memory layout, which the modes do not share.
_PRODUCTS = {(ta, tb): _product_op(ta, tb) for ta in (False, True) for tb in (False, True)}
_MATMUL = register(_PRODUCTS[False, False])  # the others are its gradients


def _product(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return bind(_PRODUCTS[transpose_a, transpose_b], a, b)


def matmul(a: ArrayLike, b: ArrayLike, /) -> Tensor:
    """The matrix product over the last two axes, `out[..., i, j] = sum_k a[..., i, k] * b[..., k, j]`; others broadcast.

    A vector is a row on the left and a column on the right, and its axis disappears from the result. Floats go through
    BLAS, one thread for each block of the result and each matrix in row-major order (others are copied first), so the bits
    depend neither on the number of threads nor on the memory layout. Also written `a @ b`. Raises `ShapeError` where the
    summed axes differ.

    >>> import dualgraph as dg
    >>> a = dg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> (a @ a).tolist(), (a @ dg.tensor([1.0, 0.0])).tolist()
    ([[7.0, 10.0], [15.0, 22.0]], [1.0, 3.0])
    """
    front = current()
    a, b = front.lift(a), front.lift(b)
    rank_a, rank_b = len(a.layout.shape), len(b.layout.shape)
    if not rank_a or not rank_b:
        raise ShapeError(
            f"matmul: got shapes {a.layout.shape} and {b.layout.shape}; each needs an axis; multiply scalars with *"
        )
    if rank_a > 1 and rank_b > 1:
        return front.apply(_MATMUL, (a, b), {})
    if a.layout.shape[-1] != b.layout.shape[0 if rank_b == 1 else -2]:
        raise ShapeError(
            f"matmul: got shapes {a.layout.shape} and {b.layout.shape}; the axes summed over must be equal; transpose one of them"
        )
    out = _product(expand_dims(a, 0) if rank_a == 1 else a, expand_dims(b, 1) if rank_b == 1 else b)
    if rank_b == 1:
        out = squeeze(out, -1)
    return squeeze(out, -1 if rank_b == 1 else -2) if rank_a == 1 else out


def vecdot(a: ArrayLike, b: ArrayLike, /, *, axis: int = -1) -> Tensor:
    """The sum of products along an axis, after broadcasting: sum(a * b), in the dtype in which they meet.

    Raises `ShapeError`, `AxisError`.

    >>> import dualgraph as dg
    >>> dg.vecdot(dg.tensor([1.0, 2.0]), dg.tensor([3.0, 4.0])).item()
    11.0
    """
    products = multiply(a, b)
    rank = len(products.layout.shape)
    return sum(products, axis=normalize_axis("vecdot", axis, rank), dtype=products.layout.dtype)


def outer(a: ArrayLike, b: ArrayLike, /) -> Tensor:
    """All products of the elements of two vectors: `out[i, j] = a[i] * b[j]`. Raises `ShapeError` for other shapes.

    >>> import dualgraph as dg
    >>> dg.outer(dg.tensor([1, 2]), dg.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    a, b = current().lift(a), current().lift(b)
    if len(a.layout.shape) != 1 or len(b.layout.shape) != 1:
        raise ShapeError(f"outer: got shapes {a.layout.shape} and {b.layout.shape}; both must be vectors; flatten them")
    return multiply(expand_dims(a, 1), expand_dims(b, 0))


# linear: x @ weight.T + bias


def _linear_spec(x: Any, weight: Any, *bias: Any) -> None:
    if len(weight.shape) != 2:
        raise ShapeError(f"linear: got a weight of shape {weight.shape}; it must be (out_features, in_features)")
    if not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: got an input of shape {x.shape} and a weight of shape {weight.shape} (out_features, in_features); the "
            f"input's last axis must be in_features = {weight.shape[1]}; reshape the input or change the layer"
        )
    if bias and bias[0].shape != (weight.shape[0],):
        raise ShapeError(
            f"linear: got a bias of shape {bias[0].shape}; it must be (out_features,) = ({weight.shape[0]},)"
        )


def _linear(x: Any, weight: Any, *bias: Any) -> Any:
    out = _product(_rows(x), weight, transpose_b=True)
    if bias:
        out = out + bias[0]
    return reshape(out, (*x.layout.shape[:-1], weight.layout.shape[0]))


def _linear_vjp(number: int, g: Any, out: Any, x: Any, weight: Any, *bias: Any) -> Any:
    if number == 0:
        return reshape(_product(_rows(g), weight), x.layout.shape)
    if number == 1:
        return _product(_rows(g), _rows(x), transpose_a=True)
    return sum(_rows(g), axis=0)


def _rows(x: Any) -> Any:
    shape = x.layout.shape
    return x if len(shape) == 2 else reshape(x, (math.prod(shape[:-1]), shape[-1]))


_LINEAR = register(composite("linear", _linear, _linear_vjp, _linear_spec))


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Tensor:
    """`x @ weight.T + bias` with x (..., in_features), weight (out_features, in_features), bias (out_features,), as one op.

    Raises `ShapeError` where these do not fit.

    >>> import dualgraph as dg
    >>> dg.linear(dg.ones((5, 2)), dg.tensor([[1.0, 2.0]]), dg.tensor([0.5]))[0].tolist()
    [3.5]
    """
    front = current()
    operands = (x, weight) if bias is None else (x, weight, bias)
    return front.apply(_LINEAR, tuple(front.lift(t) for t in operands), {})


__all__ = [
    "linear",
    "matmul",
    "outer",
    "vecdot",
]
