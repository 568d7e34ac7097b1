"""First values of parameters. Each function assigns to a variable and returns it.

The numbers come from the project's own generator, so `dualgraph.manual_seed` fixes them.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from dualgraph.eager.tensor import Variable
from dualgraph.errors import ArgumentError, GraphError, ShapeError, here
from dualgraph.ops import random
from dualgraph.ops.creation import asarray

V = TypeVar("V", bound=Variable)

# Gains that keep the variance through a layer followed by the function (He et al. 2015).
GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0)}


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """The factor by which weights before a nonlinearity grow; `a` is the slope of leaky_relu.

    >>> calculate_gain("linear"), round(calculate_gain("leaky_relu", 5**0.5), 6)
    (1.0, 0.57735)
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + a * a))
    if nonlinearity not in GAINS:
        raise ArgumentError(
            f"calculate_gain: got {nonlinearity!r}; known are {', '.join(GAINS)}, leaky_relu; use the gain of the "
            "nearest"
        ).at(here())
    return GAINS[nonlinearity]


def fans(variable: Variable) -> tuple[int, int]:
    """(inputs, outputs) of a weight of shape (out, in, …)."""
    shape = variable.shape
    if len(shape) < 2:
        raise ShapeError(f"init: got shape {shape}; inputs and outputs are counted on 2 axes or more; use uniform_").at(
            here()
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _assigned(variable: V, value: Any) -> V:
    if not isinstance(variable, Variable):
        raise GraphError(
            f"init: got {type(variable).__name__}; only variables have a value to set; make it an nn.Parameter"
        ).at(here())
    variable.assign(value)
    return variable


def uniform_(variable: V, a: float = 0.0, b: float = 1.0) -> V:
    """Uniform on [a, b)."""
    return _assigned(variable, random.uniform(variable.shape, a, b, dtype=variable.dtype))


def normal_(variable: V, mean: float = 0.0, std: float = 1.0) -> V:
    """Normal with the given mean and standard deviation."""
    return _assigned(variable, random.randn(variable.shape, dtype=variable.dtype) * float(std) + float(mean))


def constant_(variable: V, value: float) -> V:
    """One value everywhere."""
    return _assigned(variable, asarray(np.full(variable.shape, value, variable.dtype)))


def zeros_(variable: V) -> V:
    """Zeros."""
    return constant_(variable, 0.0)


def ones_(variable: V) -> V:
    """Ones."""
    return constant_(variable, 1.0)


def xavier_uniform_(variable: V, gain: float = 1.0) -> V:
    """Uniform on ±gain * sqrt(6 / (in + out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / max(sum(fans(variable)), 1))
    return uniform_(variable, -bound, bound)


def kaiming_uniform_(variable: V, a: float = 0.0, nonlinearity: str = "leaky_relu") -> V:
    """Uniform on ±gain * sqrt(3 / in) (He et al. 2015); `a` is the slope of leaky_relu.

    With a = sqrt(5) this is ±1 / sqrt(in), the default of linear layers.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(fans(variable)[0], 1))
    return uniform_(variable, -bound, bound)
