"""What is known of a tensor before it is computed: its shape and dtype.

Everything above speaks of dtypes by name (a plain string, see `dtypes`); `numpy.dtype` appears only where arrays are made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from dualgraph.dtypes import DTYPES, NAMES, NUMPY_DTYPES, STORED, Table
from dualgraph.errors import DTypeError, ShapeError, shown

Shape = tuple[int, ...]

DEFAULT_FLOAT = "float32"
DEFAULT_INTEGER = "int64"
MOST_AXES = 64  # of a NumPy array
LARGEST_SIZE = 2**60  # elements: their bytes are counted in 64 bits

ITEMSIZE = Table("sizes", NAMES, {name: record.itemsize for name, record in DTYPES.items()})
_FLOAT = Table("kinds", NAMES, {name: record.kind == "float" for name, record in DTYPES.items()})
is_float = _FLOAT.__getitem__  # the table's own method: it is asked at every op
_PROMOTION = Table("promotion", NAMES, {name: number for number, name in enumerate(NAMES)})
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


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
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype].name
    name = None
    if isinstance(dtype, (str, type, np.dtype)):
        try:
            found = np.dtype(dtype)
            name = _NAMES.get(found)
            if name is None and found.name in STORED and found == NUMPY_DTYPES[found.name]:
                name = found.name
        except Exception:  # NumPy parses names: what it raises for one that it cannot parse is of many kinds
            name = None
    if name is not None:
        return name
    raise DTypeError(f"got dtype {shown(dtype)}; supported are {', '.join(NAMES)}; convert the data to one of these")


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


def promote(*dtypes: str) -> str:
    """The dtype two operands meet in: the higher kind (bool < integer < float), the widest of that kind.

    >>> promote("int64", "float32"), promote("float32", "float64"), promote("bool", "int32")
    ('float32', 'float64', 'int32')
    """
    return max(dtypes, key=_PROMOTION.__getitem__)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)
