"""Activation functions and normalised exponentials, each one op with its own gradient rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dualgraph.core.arguments import choice, normalize_axes
from dualgraph.core.broadcast import meet
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op
from dualgraph.errors import DTypeError
from dualgraph.kernels import expr as E
from dualgraph.ops import elementwise as ew
from dualgraph.ops.composite import composite
from dualgraph.ops.reduce import Axes, max, not_empty, sum
from dualgraph.ops.registry import register
from dualgraph.ops.scalar import elementwise_op, unary
from dualgraph.spec import is_float

if TYPE_CHECKING:
    from dualgraph.core.types import Approximate, ArrayLike, Integers, Tensor


def _relu(x: E.Expr) -> E.Expr:
    zero = E.literal(0, x.dtype)
    return E.select(E.call("le", x, zero), zero, x)  # NaN passes, and the derivative at 0 is 0


relu = unary(
    "relu", _relu, floats=False, doc="max(x, 0); the derivative at 0 is 0", example="[-1.0, 2.0] -> [0.0, 2.0]"
)
silu = unary("silu", lambda x: x * E.call("sigmoid", x), doc="x * sigmoid(x)", example="[0.0, 100.0] -> [0.0, 100.0]")


def _softplus(x: E.Expr) -> E.Expr:
    """max(x, 0) + log1p(exp(-abs(x))), either side of 0 as one smooth piece."""
    positive = E.call("gt", x, 0.0)
    return E.select(positive, x, 0.0) + E.call("log1p", E.call("exp", E.select(positive, -x, x)))


def _log_sigmoid(x: E.Expr) -> E.Expr:
    negative = E.call("lt", x, 0.0)
    return E.select(negative, x, 0.0) - E.call("log1p", E.call("exp", E.select(negative, x, -x)))


softplus = unary("softplus", _softplus, doc="log(1 + exp(x))", example="[0.0, 100.0] -> [0.6931471824645996, 100.0]")
log_sigmoid = unary(
    "log_sigmoid", _log_sigmoid, doc="log(sigmoid(x))", example="[0.0, -100.0] -> [-0.6931471824645996, -100.0]"
)
softsign = unary(
    "softsign", lambda x: x / (E.call("abs", x) + 1.0), doc="x / (1 + abs(x))", example="[1.0, -3.0] -> [0.5, -0.75]"
)
_gelu = unary(
    "gelu", lambda x: x * 0.5 * (E.call("erf", x * math.sqrt(0.5)) + 1.0), doc="x * Phi(x), Phi the normal distribution"
)
_gelu_tanh = unary(
    "gelu_tanh",
    lambda x: x * 0.5 * (E.call("tanh", (x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0),
    doc="gelu with Phi approximated through tanh",
)


def gelu(x: ArrayLike, approximate: Approximate = "none") -> Tensor:
    """x * Phi(x), Phi the standard normal distribution function (Hendrycks & Gimpel 2016); or its tanh approximation.

    `approximate`: "none", with erf, or "tanh". Elementwise; integers become float32.

    >>> import dualgraph as dg
    >>> dg.gelu(dg.tensor([0.0, 1.0])).tolist()
    [0.0, 0.8413447141647339]
    """
    return _gelu_tanh(x) if choice("gelu", "approximate", approximate, ("none", "tanh")) == "tanh" else _gelu(x)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x; the derivative at 0 is negative_slope.

    >>> import dualgraph as dg
    >>> dg.leaky_relu(dg.tensor([-2.0, 3.0]), 0.5).tolist()
    [-1.0, 3.0]
    """
    return ew.where(ew.greater(x, 0), x, ew.multiply(x, negative_slope))


def _elu(x: E.Expr, alpha: E.Expr) -> E.Expr:
    positive = E.call("gt", x, 0.0)
    return E.select(positive, x, E.call("expm1", E.select(positive, 0.0, x)) * alpha)


def _elu_gradient(g: Any, out: Any, x: Any, alpha: Any) -> Any:
    """As PyTorch has it: at 0 the first derivative is that of the exponential, the second 0; NaN at NaN."""
    slope = ew.multiply(ew.exp(ew.where(ew.greater_equal(x, 0), 0.0, x)), alpha)
    return ew.where(ew.greater(x, 0), g, ew.multiply(g, slope))


def _elu_gradient_of_alpha(g: Any, out: Any, x: Any, alpha: Any) -> Any:
    return ew.multiply(g, ew.expm1(ew.where(ew.greater(x, 0), 0.0, x)))


_ELU = register(elementwise_op("elu", _elu, 2, floats=True, vjp=(_elu_gradient, _elu_gradient_of_alpha)))


def elu(x: ArrayLike, alpha: ArrayLike = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1) (Clevert, Unterthiner, Hochreiter 2015); the derivative at 0 is alpha.

    >>> import dualgraph as dg
    >>> dg.elu(dg.tensor([0.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    return current().apply(_ELU, meet("elu", (x, alpha)), {})


def _rule(name: str) -> Any:
    def spec(x: Any, *, axes: Axes) -> None:
        if not is_float(x.dtype):
            raise DTypeError(f"{name}: got {x.dtype}; it is defined for floats; cast with astype(x, 'float32') first")
        not_empty(name, x.shape, axes)

    return spec


def _softmax(x: Any, *, axes: Axes) -> Any:
    e = ew.exp(ew.subtract(x, max(x, axis=axes, keepdims=True)))
    return ew.divide(e, sum(e, axis=axes, keepdims=True))


def _softmax_gradient(g: Any, out: Any, *, axes: Axes) -> Any:
    return ew.multiply(out, ew.subtract(g, sum(ew.multiply(g, out), axis=axes, keepdims=True)))


_SOFTMAX = register(composite("softmax", _softmax, spec=_rule("softmax"), gradients=(_softmax_gradient,)))


def _log_softmax(x: Any, *, axes: Axes) -> Any:
    shifted = ew.subtract(x, max(x, axis=axes, keepdims=True))
    return ew.subtract(shifted, ew.log(sum(ew.exp(shifted), axis=axes, keepdims=True)))


def _log_softmax_gradient(g: Any, out: Any, *, axes: Axes) -> Any:
    return ew.subtract(g, ew.multiply(ew.exp(out), sum(g, axis=axes, keepdims=True)))


_LOG_SOFTMAX = register(
    composite("log_softmax", _log_softmax, spec=_rule("log_softmax"), gradients=(_log_softmax_gradient,))
)


def _along(op: Op, x: Any, axis: Integers) -> Tensor:
    x = current().lift(x)
    return bind(op, x, axes=normalize_axes(op.name, axis, len(x.layout.shape)))


def softmax(x: ArrayLike, axis: Integers = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis or several, computed from x - max(x), so large elements do not overflow.

    Floats only (`DTypeError`). Raises `AxisError`, and `ShapeError` where the axis is empty.

    >>> import dualgraph as dg
    >>> dg.softmax(dg.tensor([[1000.0, 1000.0], [0.0, -1000.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    return _along(_SOFTMAX, x, axis)


def log_softmax(x: ArrayLike, axis: Integers = -1) -> Tensor:
    """x - log(sum(exp(x))) along an axis or several, computed from x - max(x); see `softmax`.

    >>> import dualgraph as dg
    >>> dg.log_softmax(dg.tensor([1000.0, 0.0])).tolist()
    [0.0, -1000.0]
    """
    return _along(_LOG_SOFTMAX, x, axis)


__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "relu",
    "silu",
    "softmax",
    "softplus",
    "softsign",
]
