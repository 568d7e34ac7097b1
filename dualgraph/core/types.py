"""The words of public signatures, for editors and type checkers: import them under `TYPE_CHECKING`, never at run time.

What is taken is wide (`ArrayLike`, `ShapeLike`, `DTypeLike`), what is given is narrow (`Tensor`, `Shape`, `Scalar`); what
may be anything is an `object`. Those that need no tensor come from `dualgraph.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np

from dualgraph.core.layout import Layout
from dualgraph.core.observed import Table
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Value, Variable
from dualgraph.spec import Spec
from dualgraph.types import (
    Approximate,
    Array,
    Axis,
    DeviceName,
    DTypeLike,
    DTypeName,
    Integers,
    Level,
    Nonlinearity,
    Number,
    Position,
    Reduction,
    Scalar,
    Shape,
    ShapeLike,
)

P = ParamSpec("P")  # what a function takes
Q = ParamSpec("Q")  # what a method takes beside its object
R = TypeVar("R")  # what a function gives
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
Results = TypeVar("Results", bound=Tensor | tuple[Tensor, ...])


class HasArray(Protocol):
    """What NumPy can make an array of."""

    def __array__(self) -> np.ndarray[Any, Any]: ...


# Data: tensors, NumPy's arrays and scalars, numbers, nested sequences of these, and what NumPy takes for an array.
ArrayLike: TypeAlias = Tensor | np.ndarray[Any, Any] | Number | HasArray | Sequence["ArrayLike"]

# x[key]: integers, slices, `...` and None, in a tuple where they are several; or an array of integers.
Key: TypeAlias = Position | tuple[Position, ...] | Tensor | np.ndarray[Any, Any] | list[int]

# Functions of a gradient: what is not None takes its place.
TensorHook: TypeAlias = Callable[[Tensor], Tensor | None]

# A gradient rule, `rule(g, out, *inputs, **params)`; None where there is no gradient.
Rule: TypeAlias = Callable[..., Tensor | None]


# What an op takes by name beside its inputs.
Params: TypeAlias = dict[str, object]

# The gradients of a call's inputs, by number, and the numbers of those inputs that get none.
Pulled: TypeAlias = tuple[Iterable[tuple[int, Tensor]], Sequence[int]]


class Leaf(Protocol):
    """Who holds the gradient of a symbol: a tensor outside of the graph, or what stands for one that is passed."""

    is_variable: bool

    @property
    def tracked(self) -> bool: ...

    @property
    def spec(self) -> Spec: ...

    @property
    def grad(self) -> Tensor | None: ...

    @grad.setter
    def grad(self, g: Tensor | None) -> None: ...


class FoldOptions(TypedDict, total=False):
    """What a reduction takes by name beside its axis."""

    keepdims: bool


class SumOptions(FoldOptions, total=False):
    """Of a sum or a product, too: the dtype in which it is made."""

    dtype: DTypeLike | None


class SpreadOptions(FoldOptions, total=False):
    """Of a variance, too: what is subtracted from the number of elements."""

    correction: float


class OptimizerState(TypedDict):
    """What an optimiser remembers: the slots of each parameter by number, and the options of the groups."""

    state: dict[int, dict[str, Tensor | int]]
    param_groups: list[dict[str, object]]


class Forward(Protocol[P, R_co]):
    """A module as its own `forward` types it: calling it takes and gives the same."""

    _pre_hooks: Table
    _hooks: Table

    @property
    def forward(self) -> Callable[P, R_co]: ...


__all__ = [
    "Approximate",
    "Array",
    "ArrayLike",
    "Axis",
    "DTypeLike",
    "DTypeName",
    "DeviceName",
    "FoldOptions",
    "Forward",
    "HasArray",
    "Integers",
    "Key",
    "Layout",
    "Leaf",
    "Level",
    "Nonlinearity",
    "Number",
    "OptimizerState",
    "Params",
    "Position",
    "Pulled",
    "Reduction",
    "Rule",
    "Scalar",
    "Shape",
    "ShapeLike",
    "SpreadOptions",
    "SumOptions",
    "Tensor",
    "TensorHook",
    "Value",
    "Variable",
]
