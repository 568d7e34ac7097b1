"""Normalisation of rows by their own mean and variance: each one op, which runs as row kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgraph.core.arguments import checked_shape, parameter
from dualgraph.core.mode import bind, current
from dualgraph.errors import DTypeError, ShapeError
from dualgraph.ops import elementwise as ew
from dualgraph.ops.composite import composite
from dualgraph.ops.creation import ones
from dualgraph.ops.reduce import sum
from dualgraph.ops.registry import register
from dualgraph.ops.statistics import known
from dualgraph.spec import Shape, Spec, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, ShapeLike, Tensor


def _axes(x: Any, shape: Shape) -> tuple[int, ...]:
    rank = len(x.layout.shape)
    return tuple(range(rank - len(shape), rank))


def _mean(x: Any, shape: Shape) -> Any:
    total = sum(x, axis=_axes(x, shape), keepdims=True)
    return ew.divide(total, known(Spec(shape, "bool").size, x))


def _standardised(x: Any, shape: Shape, eps: float) -> tuple[Any, Any]:
    """Each row with mean 0 and variance 1, and 1 / its deviation."""
    centred = ew.subtract(x, _mean(x, shape))
    scale = ew.rsqrt(ew.add(_mean(ew.square(centred), shape), known(eps, x)))
    return ew.multiply(centred, scale), scale


def _layer_norm(x: Any, weight: Any = None, bias: Any = None, *, shape: Shape, eps: float) -> Any:
    out, _ = _standardised(x, shape, eps)
    if weight is not None:
        out = ew.multiply(out, weight)
    return out if bias is None else ew.add(out, bias)


def _of_input(g: Any, x: Any, weight: Any = None, *, shape: Shape, eps: float) -> Any:
    """The part of g along no row's mean and along no row itself (Ba, Kiros, Hinton 2016)."""
    z, scale = _standardised(x, shape, eps)
    g = g if weight is None else ew.multiply(g, weight)
    along = ew.multiply(z, _mean(ew.multiply(g, z), shape))
    return ew.multiply(scale, ew.subtract(ew.subtract(g, _mean(g, shape)), along))


def _of_weight(g: Any, x: Any, *, shape: Shape, eps: float) -> Any:
    return _over_rows(ew.multiply(g, _standardised(x, shape, eps)[0]), shape)


def _of_bias(g: Any, *, shape: Shape, eps: float) -> Any:
    return _over_rows(g, shape)


def _over_rows(g: Any, shape: Shape) -> Any:
    return sum(g, axis=tuple(range(len(g.layout.shape) - len(shape))))


def _spec(x: Any, *affine: Any, shape: Shape, eps: float) -> None:
    if not all(is_float(s.dtype) for s in (x, *affine)):
        raise DTypeError(
            f"layer_norm: got {' and '.join(s.dtype for s in (x, *affine))}; it is defined for floats; cast with "
            "astype(x, 'float32') first"
        )
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"layer_norm: got an input of shape {x.shape} and normalized_shape {shape}; these are the lengths of the input's "
            "last axes, one at least; reshape the input or change the layer"
        )
    for what, s in zip(("weight", "bias"), affine, strict=False):
        if s.shape != shape:
            raise ShapeError(
                f"layer_norm: got a {what} of shape {s.shape}; it must be normalized_shape = {shape}; reshape it"
            )


_LAYER_NORM = register(composite("layer_norm", _layer_norm, spec=_spec, gradients=(_of_input, _of_weight, _of_bias)))


def layer_norm(
    x: ArrayLike,
    normalized_shape: ShapeLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose lengths are `normalized_shape`.

    Mean and (biased) variance are those of each row of x, in two passes (Ba, Kiros, Hinton 2016). `weight` and `bias`
    have the shape `normalized_shape`; None stands for 1 and for 0. Floats only (`DTypeError`). Raises `ShapeError`.

    >>> import dualgraph as dg
    >>> dg.layer_norm(dg.tensor([[1.0, 3.0], [5.0, 5.0]]), 2, eps=0.0, bias=dg.tensor([0.0, 1.0]))[0].tolist()
    [-1.0, 2.0]
    """
    front, shape = current(), checked_shape("layer_norm", normalized_shape)
    if weight is None and bias is not None:
        weight = ones(shape, dtype=front.lift(bias).layout.dtype)
    affine = [front.lift(v) for v in (weight, bias) if v is not None]
    return bind(_LAYER_NORM, front.lift(x), *affine, shape=shape, eps=parameter("layer_norm", "eps", eps))


__all__ = ["layer_norm"]
