"""First values of parameters. Each function assigns to a variable and returns it.

The numbers come from the project's own generator, so `dualgraph.manual_seed` fixes them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dualgraph.core.arguments import real
from dualgraph.core.value import Variable
from dualgraph.errors import ArgumentError, GraphError, ShapeError, here, shown
from dualgraph.ops import random
from dualgraph.ops.creation import asarray
from dualgraph.spec import is_float

if TYPE_CHECKING:
    from dualgraph.core.types import Nonlinearity

V = TypeVar("V", bound=Variable)

# Gains that keep the variance through a layer followed by the function (He et al. 2015).
GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}


def calculate_gain(nonlinearity: Nonlinearity, a: float = 0.0) -> float:
    """The factor by which weights before a nonlinearity grow; `a` is the slope of leaky_relu.

    >>> calculate_gain("linear"), round(calculate_gain("leaky_relu", 5**0.5), 6)
    (1.0, 0.57735)
    """
    slope = real("calculate_gain", "a", a, finite=True)
    if not isinstance(nonlinearity, str) or nonlinearity not in (*GAINS, "leaky_relu"):
        raise ArgumentError(
            f"calculate_gain: got {shown(nonlinearity)}; known are {', '.join(GAINS)}, leaky_relu; use the gain of the "
            "nearest"
        ).at(here())
    return math.sqrt(2.0 / (1.0 + slope * slope)) if nonlinearity == "leaky_relu" else GAINS[nonlinearity]


def fans(variable: Variable) -> tuple[int, int]:
    """(inputs, outputs) of a weight of shape (out, in, …)."""
    shape = _variable(variable).shape
    if len(shape) < 2:
        raise ShapeError(f"init: got shape {shape}; inputs and outputs are counted on 2 axes or more; use uniform_").at(
            here()
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _variable(variable: V) -> V:
    """What has a value to set: asked before any number is drawn."""
    if not isinstance(variable, Variable) or not is_float(variable.layout.dtype):
        raise GraphError(
            f"init: got {shown(variable)}; only variables of floats have a value to set; make it an nn.Parameter"
        ).at(here())
    return variable


def _size(name: str, what: str, value: float) -> float:
    """A finite number of at least 0."""
    found = real(name, what, value, finite=True)
    if found < 0.0:
        raise ArgumentError(f"{name}: got {what} = {shown(value)}; it must be a number of at least 0; pass one").at(
            here()
        )
    return found


def uniform_(variable: V, a: float = 0.0, b: float = 1.0) -> V:
    """Uniform on [a, b)."""
    shape, dtype = _variable(variable).shape, variable.dtype
    low, high = real("uniform_", "a", a, finite=True), real("uniform_", "b", b, finite=True)
    if low > high:
        raise ArgumentError(
            f"uniform_: got a = {shown(a)} and b = {shown(b)}; a must not be above b; exchange them"
        ).at(here(2))
    variable.assign(random.uniform(shape, low, high, dtype=dtype))
    return variable


def normal_(variable: V, mean: float = 0.0, std: float = 1.0) -> V:
    """Normal with the given mean and standard deviation."""
    shape, dtype = _variable(variable).shape, variable.dtype
    centre, scale = real("normal_", "mean", mean, finite=True), _size("normal_", "std", std)
    variable.assign(random.randn(shape, dtype=dtype) * scale + centre)
    return variable


def constant_(variable: V, value: float) -> V:
    """One value everywhere."""
    shape, dtype = _variable(variable).shape, variable.dtype
    variable.assign(asarray(np.full(shape, real("constant_", "value", value), dtype)))
    return variable


def zeros_(variable: V) -> V:
    """Zeros."""
    return constant_(variable, 0.0)


def ones_(variable: V) -> V:
    """Ones."""
    return constant_(variable, 1.0)


def xavier_uniform_(variable: V, gain: float = 1.0) -> V:
    """Uniform on ±gain * sqrt(6 / (in + out)) (Glorot & Bengio 2010)."""
    bound = _size("xavier_uniform_", "gain", gain) * math.sqrt(6.0 / max(sum(fans(variable)), 1))
    return uniform_(variable, -bound, bound)


def kaiming_uniform_(variable: V, a: float = 0.0, nonlinearity: Nonlinearity = "leaky_relu") -> V:
    """Uniform on ±gain * sqrt(3 / in) (He et al. 2015); `a` is the slope of leaky_relu.

    With a = sqrt(5) this is ±1 / sqrt(in), the default of linear layers.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(fans(variable)[0], 1))
    return uniform_(variable, -bound, bound)
