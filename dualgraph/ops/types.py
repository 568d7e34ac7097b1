"""The words of public signatures, for editors and type checkers: import them under `TYPE_CHECKING`, never at run time.

What is taken is wide (`ArrayLike`, `ShapeLike`, `DTypeLike`), what is given is narrow (`Tensor`, `Shape`, `Scalar`). A
choice among a few words is a `Literal`, so that an editor offers them. What may be anything is an `object`; `Any` is
NumPy's word for a dtype that is known only when the program runs, and stands nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, Literal, ParamSpec, Protocol, SupportsIndex, TypeAlias, TypedDict, TypeVar

import numpy as np

from dualgraph.ops.tensor import Tensor
from dualgraph.spec import Shape

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[Any]]
Scalar: TypeAlias = bool | int | float  # what `item()` gives


class HasArray(Protocol):
    """What NumPy can make an array of."""

    def __array__(self) -> np.ndarray[Any, Any]: ...


# Data: numbers, NumPy's arrays and scalars, tensors, and nested sequences of numbers.
Number: TypeAlias = bool | int | float | np.bool_ | np.integer[Any] | np.floating[Any]
ArrayLike: TypeAlias = Tensor | np.ndarray[Any, Any] | Number | HasArray | Sequence["ArrayLike"]

DTypeName: TypeAlias = Literal["bool", "int32", "int64", "float32", "float64"]
DTypeLike: TypeAlias = DTypeName | str | np.dtype[Any] | type[bool | int | float | np.generic]

# Shapes and axes: one integer or several; of `Axis`, None stands for all.
Integers: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | np.ndarray[Any, np.dtype[np.integer[Any]]]
ShapeLike: TypeAlias = Integers
Axis: TypeAlias = Integers | None

# x[key]: integers, slices, `...` and None, in a tuple where they are several, or integers in an array.
Position: TypeAlias = SupportsIndex | slice | EllipsisType | None
Key: TypeAlias = Position | tuple[Position, ...] | Tensor | np.ndarray[Any, Any] | list[int]

Device: TypeAlias = Literal["cpu"]
Level: TypeAlias = Literal["none", "exact", "fast"]
Reduction: TypeAlias = Literal["none", "mean", "sum"]
Approximate: TypeAlias = Literal["none", "tanh"]
Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"]

# Functions of a gradient: what is not None takes its place.
TensorHook: TypeAlias = Callable[[Tensor], Tensor | None]


class FoldOptions(TypedDict, total=False):
    """What a reduction takes by name beside its axis."""

    keepdims: bool


class SumOptions(FoldOptions, total=False):
    """Of a sum or a product, too: the dtype in which it is made."""

    dtype: DTypeLike | None


class SpreadOptions(FoldOptions, total=False):
    """Of a variance, too: what is subtracted from the number of elements."""

    correction: float


class Forward(Protocol[P, R_co]):
    """A module as its own `forward` types it: calling it takes and gives the same."""

    @property
    def forward(self) -> Callable[P, R_co]: ...


__all__ = [
    "Approximate",
    "Array",
    "ArrayLike",
    "Axis",
    "DTypeLike",
    "DTypeName",
    "Device",
    "Forward",
    "Integers",
    "Key",
    "Level",
    "Nonlinearity",
    "Number",
    "Reduction",
    "Scalar",
    "Shape",
    "ShapeLike",
    "Tensor",
    "TensorHook",
]
