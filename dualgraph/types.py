"""The words of public signatures that need no tensor; with those that do they are in `dualgraph.core.types`.

For editors and type checkers: import them under `TYPE_CHECKING`, never at run time. A choice among a few words is a
`Literal`, so that an editor offers them. `Any` is NumPy's word for a dtype that is known only when the program runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np

from dualgraph.spec import Shape

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[Any]]
Number: TypeAlias = bool | int | float | np.bool_ | np.integer[Any] | np.floating[Any]
Scalar: TypeAlias = bool | int | float  # what `item()` gives

DTypeName: TypeAlias = Literal["bool", "int32", "int64", "bfloat16", "float32", "float64"]
DTypeLike: TypeAlias = DTypeName | str | np.dtype[Any] | type[bool | int | float | np.generic]

# Shapes and axes: one integer or several; of `Axis`, None stands for all.
Integers: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | np.ndarray[Any, np.dtype[np.integer[Any]]]
ShapeLike: TypeAlias = Integers
Axis: TypeAlias = Integers | None
Position: TypeAlias = SupportsIndex | slice | EllipsisType | None  # in x[…]

DeviceName: TypeAlias = Literal["cpu"]
Level: TypeAlias = Literal["none", "exact", "fast"]
Reduction: TypeAlias = Literal["none", "mean", "sum"]
Approximate: TypeAlias = Literal["none", "tanh"]
Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"]

__all__ = [
    "Approximate",
    "Array",
    "Axis",
    "DTypeLike",
    "DTypeName",
    "DeviceName",
    "Integers",
    "Level",
    "Nonlinearity",
    "Number",
    "Position",
    "Reduction",
    "Scalar",
    "Shape",
    "ShapeLike",
]
