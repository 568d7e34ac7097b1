"""Reductions that are composed of folds: mean, variance and deviation, the logarithm of a sum of exponentials."""

from __future__ import annotations

import builtins
import math
from typing import TYPE_CHECKING, Any

from dualgraph.core.arguments import flag, normalize_axes, parameter
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op
from dualgraph.errors import DTypeError
from dualgraph.ops import elementwise as ew
from dualgraph.ops.composite import composite
from dualgraph.ops.reduce import Axes, count_along, max, not_empty, reduced, reduced_shape, spread, sum, with_axes
from dualgraph.ops.registry import register
from dualgraph.ops.shape import reshape
from dualgraph.spec import DEFAULT_FLOAT, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Axis, Tensor


def known(value: float, like: Any) -> Any:
    """A number that follows from a shape or an option, in the dtype of a tensor."""
    return current().number(float(value), like.layout.dtype)


def _float_spec(name: str) -> Any:
    def spec(x: Any, **params: Any) -> None:
        if not is_float(x.dtype):
            raise DTypeError(
                f"{name}: got {x.dtype}; it is defined for floats; cast with astype(x, '{DEFAULT_FLOAT}') first"
            )

    return spec


def _mean(x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return ew.divide(sum(x, axis=axes, keepdims=keepdims), known(count_along(x, axes), x))


def _mean_gradient(g: Any, *, count: int) -> Any:
    return ew.divide(g, known(count, g))


_MEAN_GRADIENT = register(composite("mean_vjp", _mean_gradient))  # one op: half types cannot hold every count


def _mean_vjp(g: Any, out: Any, x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return spread(bind(_MEAN_GRADIENT, g, count=count_along(x, axes)), x, axes)


def _centred(x: Any, axes: Axes) -> Any:
    return ew.subtract(x, ew.divide(sum(x, axis=axes, keepdims=True), known(count_along(x, axes), x)))


def _freedom(x: Any, axes: Axes, correction: float) -> float:
    """n - correction, and 0 for less: the variance of so few is infinite, or NaN where they are equal."""
    return builtins.max(count_along(x, axes) - correction, 0.0)


def _var(x: Any, *, axes: Axes, correction: float, keepdims: bool) -> Any:
    squares = sum(ew.square(_centred(x, axes)), axis=axes, keepdims=keepdims)
    return ew.divide(squares, known(_freedom(x, axes, correction), x))


def _var_scale(x: Any, axes: Axes, correction: float) -> Any:
    freedom = _freedom(x, axes, correction)
    return known(2.0 / freedom if freedom else math.inf, x)


def _var_gradient(g: Any, x: Any, *, axes: Axes, correction: float) -> Any:
    return ew.multiply(ew.multiply(g, _var_scale(x, axes, correction)), _centred(x, axes))


_VAR_GRADIENT = register(composite("var_vjp", _var_gradient))


def _var_vjp(g: Any, out: Any, x: Any, *, axes: Axes, correction: float, keepdims: bool) -> Any:
    return bind(_VAR_GRADIENT, with_axes(g, x, axes), x, axes=axes, correction=correction)


def _std(x: Any, *, axes: Axes, correction: float, keepdims: bool) -> Any:
    return ew.sqrt(_var(x, axes=axes, correction=correction, keepdims=keepdims))


def _std_vjp(g: Any, out: Any, x: Any, *, axes: Axes, correction: float, keepdims: bool) -> Any:
    """0 where the deviation is 0: dividing by infinity, not discarding an infinity, keeps the next derivative finite."""
    double = ew.where(ew.equal(out, 0.0), math.inf, ew.multiply(out, 2.0))
    return _var_vjp(ew.divide(g, double), out, x, axes=axes, correction=correction, keepdims=keepdims)


def _logsumexp(x: Any, *, axes: Axes, keepdims: bool) -> Any:
    top = max(x, axis=axes, keepdims=True)
    shift = ew.where(ew.isfinite(top), top, 0.0)  # an infinite maximum must not give inf - inf
    total = sum(ew.exp(ew.subtract(x, shift)), axis=axes, keepdims=True)
    result = ew.add(ew.log(total), shift)
    return result if keepdims else reshape(result, reduced_shape(x.layout.shape, axes, False))


def _logsumexp_vjp(g: Any, out: Any, x: Any, *, axes: Axes, keepdims: bool) -> Any:
    return ew.multiply(with_axes(g, x, axes), ew.exp(ew.subtract(x, with_axes(out, x, axes))))


def _logsumexp_spec(x: Any, *, axes: Axes, keepdims: bool) -> None:
    _float_spec("logsumexp")(x)
    not_empty("logsumexp", x.shape, axes)


_MEAN = register(composite("mean", _mean, (_mean_vjp,), _float_spec("mean")))
_VAR = register(composite("var", _var, (_var_vjp,), _float_spec("var")))
_STD = register(composite("std", _std, (_std_vjp,), _float_spec("std")))
_LOGSUMEXP = register(composite("logsumexp", _logsumexp, (_logsumexp_vjp,), _logsumexp_spec))


def mean(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean along axes (all by default): sum(x) / n. Of nothing it is NaN. Axes as for `sum`.

    Floats only: raises `DTypeError` for integers, and `AxisError`.

    >>> import dualgraph as dg
    >>> dg.mean(dg.tensor([[1.0, 2.0], [3.0, 6.0]]), axis=0).tolist()
    [2.0, 4.0]
    """
    return reduced(_MEAN, x, axis, keepdims)


def var(x: ArrayLike, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance along axes (all by default): sum((x - mean(x))**2) / (n - correction), in two passes.

    `correction=1` gives the unbiased estimate of a sample. A divisor below 0 counts as 0: the variance of no more elements
    than the correction is infinite, or NaN where they are equal. Floats only (`DTypeError`). Axes as for `sum`.

    >>> import dualgraph as dg
    >>> x = dg.tensor([1.0, 2.0, 6.0])
    >>> dg.var(x, correction=1).item()
    7.0
    """
    return _spread_of(_VAR, x, axis, correction, keepdims)


def _spread_of(op: Op, x: Any, axis: Axis, correction: float, keepdims: bool) -> Tensor:
    x = current().lift(x)
    axes, taken = normalize_axes(op.name, axis, len(x.layout.shape)), parameter(op.name, "correction", correction)
    return bind(op, x, axes=axes, correction=taken, keepdims=flag(op.name, "keepdims", keepdims))


def std(x: ArrayLike, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation along axes: sqrt(var(x)); see `var`. Where it is 0 its gradient is 0.

    >>> import dualgraph as dg
    >>> dg.std(dg.tensor([1.0, 5.0])).item()
    2.0
    """
    return _spread_of(_STD, x, axis, correction, keepdims)


def logsumexp(x: ArrayLike, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along axes (all by default), without overflow: the largest element is taken out first.

    Floats only (`DTypeError`). Where all elements are -inf the result is -inf. Axes as for `sum`.

    >>> import dualgraph as dg
    >>> dg.logsumexp(dg.tensor([1000.0, 1000.0])).item() - 1000.0  # log 2, rounded to the spacing of floats near 1000
    0.69317626953125
    """
    return reduced(_LOGSUMEXP, x, axis, keepdims)


__all__ = ["logsumexp", "mean", "std", "var"]
