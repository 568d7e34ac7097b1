"""Activation functions as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgraph.nn import functional as F
from dualgraph.nn.module import Module

if TYPE_CHECKING:
    from dualgraph.core.types import Approximate, ArrayLike, Tensor


class Identity(Module):
    """The input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class ReLU(Module):
    """max(x, 0).

    >>> import dualgraph as dg
    >>> ReLU()(dg.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def forward(self, x: ArrayLike) -> Tensor:
        return F.relu(x)


class Tanh(Module):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    def forward(self, x: ArrayLike) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: ArrayLike) -> Tensor:
        return F.sigmoid(x)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: ArrayLike) -> Tensor:
        return F.silu(x)


class GELU(Module):
    """x * Phi(x), Phi the normal distribution function; `approximate="tanh"` takes the shorter formula."""

    def __init__(self, approximate: Approximate = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: ArrayLike) -> Tensor:
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(x))."""

    def forward(self, x: ArrayLike) -> Tensor:
        return F.softplus(x)


class LeakyReLU(Module):
    """x where positive, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: ArrayLike) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where positive, else alpha * (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = alpha

    def forward(self, x: ArrayLike) -> Tensor:
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along an axis.

    >>> import dualgraph as dg
    >>> Softmax()(dg.tensor([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = axis

    def forward(self, x: ArrayLike) -> Tensor:
        return F.softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """x - log(sum(exp(x))) along an axis."""

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = axis

    def forward(self, x: ArrayLike) -> Tensor:
        return F.log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
