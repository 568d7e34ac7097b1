"""Layers with parameters or with a behaviour of their own in training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import checked_shape, flag, integer, probability, real
from dualgraph.dtypes import FLOATS, NUMPY_DTYPES
from dualgraph.errors import DTypeError, OutOfMemoryError, here
from dualgraph.nn import functional as F
from dualgraph.nn import init
from dualgraph.nn.module import Module
from dualgraph.nn.parameter import Parameter
from dualgraph.ops.shape import flatten
from dualgraph.spec import DEFAULT_FLOAT, Shape, dtype_name, fitting, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DTypeLike, ShapeLike, Tensor


class Linear(Module):
    """x @ weight.T + bias, with weight (out_features, in_features) and bias (out_features,).

    Both start uniform on ±1 / sqrt(in_features). The last axis of x has length in_features; others are kept.

    >>> import dualgraph as dg
    >>> layer = Linear(3, 2)
    >>> layer(dg.ones((5, 4, 3))).shape
    (5, 4, 2)
    """

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: DTypeLike = DEFAULT_FLOAT):
        super().__init__()
        self.in_features = in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = out_features = integer("Linear", "out_features", out_features, 1)
        bias, kind = flag("Linear", "bias", bias), float_dtype("Linear", dtype)
        self.weight = Parameter(_zeros("Linear", (out_features, in_features), kind))
        if bias:
            self.bias = Parameter(_zeros("Linear", (out_features,), kind))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: ArrayLike) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Dropout(Module):
    """In training, sets elements to 0 with probability p and multiplies the others by 1 / (1 - p); else the identity.

    >>> import dualgraph as dg
    >>> Dropout(0.5).eval()(dg.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    p: float

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability("Dropout", p)

    def forward(self, x: ArrayLike) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LayerNorm(Module):
    """Each row over the last axes brought to mean 0 and variance 1, then `* weight + bias`; see `functional.layer_norm`.

    `weight` (ones) and `bias` (zeros) have the shape `normalized_shape`; without `elementwise_affine` there are none.

    >>> import dualgraph as dg
    >>> LayerNorm(2, eps=0.0)(dg.tensor([[1.0, 3.0]])).tolist()
    [[-1.0, 1.0]]
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: ShapeLike,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = DEFAULT_FLOAT,
    ):
        super().__init__()
        self.normalized_shape = shape = checked_shape("LayerNorm", normalized_shape)
        self.eps = real("LayerNorm", "eps", eps, finite=True)
        self.elementwise_affine = affine = flag("LayerNorm", "elementwise_affine", elementwise_affine)
        bias, kind = flag("LayerNorm", "bias", bias), float_dtype("LayerNorm", dtype)
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(_zeros("LayerNorm", shape, kind)) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Ones and zeros again."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: ArrayLike) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class Flatten(Module):
    """The axes from start_axis to end_axis as one; by default all but the first."""

    start_axis: int
    end_axis: int

    def __init__(self, start_axis: int = 1, end_axis: int = -1):
        super().__init__()
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: ArrayLike) -> Tensor:
        return flatten(x, self.start_axis, self.end_axis)

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"


def _zeros(name: str, shape: Shape, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """What a parameter holds before its first values are drawn."""
    try:
        return np.zeros(fitting(name, shape), dtype)
    except MemoryError:
        raise OutOfMemoryError(
            f"{name}: got a parameter of {dtype}{list(shape)}, for which there is no memory; use smaller layers"
        ) from None


def float_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype that parameters can have."""
    found = dtype_name(dtype, DEFAULT_FLOAT)
    if not is_float(found):
        raise DTypeError(f"{name}: got dtype {found}; parameters are {', '.join(FLOATS)}; choose one of them").at(
            here()
        )
    return NUMPY_DTYPES[found]
