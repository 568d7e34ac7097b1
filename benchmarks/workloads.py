"""The training steps that are measured: shapes, seeded parameters, one fixed batch, optimiser settings. NumPy alone.

A step is forward, mean loss, backward, update, all in float32. An implementation may choose how it stores parameters
and may use any mathematically equal formula; it may keep nothing but parameters and optimiser state from step to step,
and drop no gradient and no update.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """`parameters` by name; a linear layer's weight is (inputs, outputs)."""

    name: str
    about: str
    parameters: dict[str, Array]
    x: Array
    target: Array
    learning_rate: float


def affine() -> Workload:
    """Two scalars, eight points: the cost of a step is the cost of its operations' overhead."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(8).astype(np.float32)
    target = (2.5 * x - 1.0 + 0.1 * rng.standard_normal(8)).astype(np.float32)
    parameters = {"w": np.array(0.3, np.float32), "b": np.array(0.1, np.float32)}
    about = "y = w x + b, two scalars, 8 points, mean squared error, SGD"
    return Workload("affine", about, parameters, x, target, learning_rate=0.05)


def mlp() -> Workload:
    """A small classifier with the optimiser that everybody uses."""
    rng = np.random.default_rng(2)
    sizes = (64, 128, 128, 10)
    parameters: dict[str, Array] = {}
    for layer, (n, m) in enumerate(pairwise(sizes)):
        bound = n**-0.5
        parameters[f"w{layer}"] = rng.uniform(-bound, bound, (n, m)).astype(np.float32)
        parameters[f"b{layer}"] = rng.uniform(-bound, bound, m).astype(np.float32)
    x = rng.standard_normal((64, 64)).astype(np.float32)
    target = rng.integers(0, 10, 64)
    about = "64-128-128-10, tanh, cross-entropy, Adam, batch 64"
    return Workload("mlp", about, parameters, x, target, learning_rate=1e-3)


WORKLOADS = {"affine": affine, "mlp": mlp}
