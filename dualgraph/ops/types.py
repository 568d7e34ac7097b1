"""The words of public signatures, for editors and type checkers: import them under `TYPE_CHECKING`, never at run time.

What is taken is wide (`ArrayLike`, `ShapeLike`, `DTypeLike`), what is given is narrow (`Tensor`, `Shape`, `Scalar`). A
choice among a few words is a `Literal`, so that an editor offers them. What may be anything is an `object`; `Any` is
NumPy's word for a dtype that is known only when the program runs, and stands nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, Literal, ParamSpec, Protocol, SupportsIndex, TypeAlias, TypeVar

import numpy as np

from dualgraph.ops.tensor import Tensor
from dualgraph.spec import Shape

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"
Scalar: TypeAlias = bool | int | float  # what `item()` gives

# Data: numbers, NumPy's arrays and scalars, tensors, and nested sequences of numbers.
Number: TypeAlias = "bool | int | float | np.bool_ | np.integer[Any] | np.floating[Any]"
ArrayLike: TypeAlias = "Tensor | np.ndarray[Any, Any] | Number | Sequence[ArrayLike]"

DTypeName: TypeAlias = Literal["bool", "int32", "int64", "float32", "float64"]
DTypeLike: TypeAlias = "DTypeName | str | np.dtype[Any] | type[bool | int | float | np.generic]"

# Shapes and axes: one integer or several; of `Axis`, None stands for all.
Integers: TypeAlias = "SupportsIndex | Sequence[SupportsIndex] | np.ndarray[Any, np.dtype[np.integer[Any]]]"
ShapeLike: TypeAlias = Integers
Axis: TypeAlias = "Integers | None"

# x[key]: integers, slices, `...` and None, in a tuple where they are several, or integers in an array.
_Key: TypeAlias = "SupportsIndex | slice | EllipsisType | None"
Key: TypeAlias = "_Key | tuple[_Key, ...] | Tensor | np.ndarray[Any, Any] | list[int]"

Device: TypeAlias = Literal["cpu"]
Level: TypeAlias = Literal["none", "exact", "fast"]
Reduction: TypeAlias = Literal["none", "mean", "sum"]
Approximate: TypeAlias = Literal["none", "tanh"]
Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"]

# Functions of a gradient: what is not None takes its place.
TensorHook: TypeAlias = "Callable[[Tensor], Tensor | None]"


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
