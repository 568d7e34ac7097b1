"""The signature of a call: specs of tensors, Python constants by type and bits; and how two of them differ, in words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dualgraph.core.arrays import as_array
from dualgraph.core.tensor import Tensor
from dualgraph.exact import exact
from dualgraph.spec import Spec, dtype_name
from dualgraph.static.conditions import worded
from dualgraph.static.tracing import GradSpec


class Constant:
    """A Python value that is part of the graph; `key` tells it from all others."""

    __slots__ = ("key", "value")

    def __init__(self, value: Any):
        self.value, self.key = value, exact(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


class Signature(NamedTuple):
    """What a compiled function is specialised to, of its arguments and the grad mode."""

    structure: Any
    leaves: tuple[Any, ...]
    grad_enabled: bool
    graded: tuple[bool, ...]  # a GradSpec is equal to a Spec, and yet another signature


def signature(leaves: list[Any], structure: Any, grad_enabled: bool) -> Signature:
    described = tuple([describe(x) for x in leaves])
    return Signature(structure, described, grad_enabled, tuple([d.__class__ is GradSpec for d in described]))


def describe(x: Any) -> Any:
    """A tensor's spec, or a Python constant."""
    if isinstance(x, Tensor):
        return GradSpec(*x.spec) if x.tracked else x.spec
    if isinstance(x, np.ndarray):
        return Spec(x.shape, dtype_name(x.dtype))
    if isinstance(x, np.generic) and not isinstance(x, float):  # numpy.float64 is a Python float, and weak as one
        array = as_array(x)
        return Spec(array.shape, array.dtype.name)
    return Constant(x)


def differences(old: Signature, new: Signature, names: list[str]) -> list[str]:
    """What is other in a new signature, in words."""
    if old.structure != new.structure:
        return ["the structure of the arguments"]
    found = []
    for name, x, y in zip(names, old.leaves, new.leaves, strict=True):
        if isinstance(x, Spec) and isinstance(y, Spec):
            if x.shape != y.shape:
                found.append(f"argument {name}: shape {x.shape} → {y.shape}")
            if x.dtype != y.dtype:
                found.append(f"argument {name}: dtype {x.dtype} → {y.dtype}")
        elif x != y:
            found.append(f"argument {name}: {_shown(x)} → {_shown(y, x)}")
    if old.grad_enabled != new.grad_enabled:
        found.append(f"gradients enabled: {old.grad_enabled} → {new.grad_enabled}")
    for name, was_graded, is_graded in zip(names, old.graded, new.graded, strict=True):
        if was_graded != is_graded:
            found.append(f"argument {name}: requires_grad {was_graded} → {is_graded}")
    return found


def _shown(description: Any, other: Any = None) -> str:
    if not isinstance(description, Constant):
        return str(description)
    return worded(description.value, other.value) if isinstance(other, Constant) else worded(description.value)
