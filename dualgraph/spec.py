"""What is known of a tensor before it is computed: its shape and dtype.

Everything above speaks of dtypes by name (a plain string); `numpy.dtype` appears only where arrays are made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from dualgraph.errors import DTypeError, ShapeError, shown

Shape = tuple[int, ...]

FLOATS = ("float32", "float64")
INTEGERS = ("int32", "int64")
DTYPES = ("bool", *INTEGERS, *FLOATS)
DEFAULT_FLOAT = "float32"
DEFAULT_INTEGER = "int64"
MOST_AXES = 64  # of a NumPy array
LARGEST_SIZE = 2**60  # elements: their bytes are counted in 64 bits

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in DTYPES}
ITEMSIZE: dict[str, int] = {name: dtype.itemsize for name, dtype in NUMPY_DTYPES.items()}
_NAMES: dict[Any, str] = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


class Spec(NamedTuple):
    """Shape and dtype of a tensor."""

    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEMSIZE[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def dtype_name(dtype: Any, default: str | None = None) -> str:
    """The name of a dtype given as a name, a NumPy dtype or a scalar type; None stands for `default` if there is one.

    >>> dtype_name(np.float64, "float32"), dtype_name(float, "float32"), dtype_name(None, "float32")
    ('float64', 'float64', 'float32')
    """
    if dtype is None and default is not None:
        return default
    name = None
    if isinstance(dtype, (str, type, np.dtype)):
        try:
            name = _NAMES.get(np.dtype(dtype))
        except Exception:  # NumPy parses names: what it raises for one that it cannot parse is of many kinds
            name = None
    if name is None:
        raise DTypeError(
            f"got dtype {shown(dtype)}; supported are {', '.join(DTYPES)}; convert the data to one of these"
        )
    return name


def fitting(name: str, shape: Shape) -> Shape:
    """The shape itself, after the check that an array can have it."""
    if len(shape) <= MOST_AXES and 0 < math.prod(shape) <= LARGEST_SIZE:
        return shape
    if len(shape) > MOST_AXES:
        raise ShapeError(f"{name}: got {len(shape)} axes; a tensor has at most {MOST_AXES}; join some of them")
    if math.prod([n for n in shape if n]) > LARGEST_SIZE:
        raise ShapeError(
            f"{name}: got shape {shown(shape)}; a tensor has at most 2**60 elements, its axes of length 0 not counted; "
            "use smaller lengths"
        )
    return shape


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def promote(*dtypes: str) -> str:
    """The dtype two operands meet in: the higher kind (bool < integer < float), the widest of that kind.

    >>> promote("int64", "float32"), promote("float32", "float64"), promote("bool", "int32")
    ('float32', 'float64', 'int32')
    """
    return max(dtypes, key=DTYPES.index) if len({_kind(d) for d in dtypes}) == 1 else _highest_kind(dtypes)


def _kind(dtype: str) -> int:
    return 0 if dtype == "bool" else 1 if dtype in INTEGERS else 2


def _highest_kind(dtypes: tuple[str, ...]) -> str:
    top = max(map(_kind, dtypes))
    return max((d for d in dtypes if _kind(d) == top), key=DTYPES.index)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)
