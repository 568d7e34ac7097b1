"""The dtypes: one record of each, which says everything that the house has to know of it.

Everywhere else a dtype is its name, a plain string, which is quick to compare and to look up. What depends on it is a fact
of its record, or a row of a `Table` that says which dtypes it is about: asked for another, both say so, and nobody takes
one dtype for another because it is not a third.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

import numpy as np

from dualgraph.errors import DTypeError, shown

Kind = Literal["bool", "integer", "float"]
T = TypeVar("T")


class DType(NamedTuple):
    """A dtype. `lowest` and `highest` are the ends of its finite numbers."""

    name: str
    kind: Kind
    form: str  # of its bits, for `struct`
    lowest: Any
    highest: Any
    digits: int  # it holds all integers from -2**digits to 2**digits
    compute: str  # the dtype in which kernels calculate with it: itself, or a wider one
    poison: int  # bits that no computation leaves: a NaN with sign and payload, an integer that is no index
    infinity: int = 0  # bits of it, of floats
    one_nan: int = 0  # bits of the NaN that is computed (`kernels.nan`)

    @property
    def itemsize(self) -> int:
        """Bytes in memory."""
        return struct.calcsize(self.form)

    @property
    def bits(self) -> int:
        """The same in bits."""
        return 8 * self.itemsize

    @property
    def integers(self) -> tuple[int, int]:
        """The ends of the range of integers of which it holds each one."""
        return (-(2**self.digits), 2**self.digits) if self.kind == "float" else (int(self.lowest), int(self.highest))

    def encode(self, value: Any) -> int:
        """The bits of a number, as an unsigned integer."""
        return int.from_bytes(struct.pack(self.form, value), "little")

    def decode(self, bits: int) -> Any:
        """The inverse of `encode`, as a Python scalar: of a NaN the sign and payload may get lost."""
        return struct.unpack(self.form, bits.to_bytes(self.itemsize, "little"))[0]


class Table(dict[str, T], Generic[T]):
    """Something for each dtype of some, by name.

    >>> Table("the letter of a BLAS function", ("float32", "float64"), {"float32": "s", "float64": "d"})["float32"]
    's'
    """

    def __init__(self, what: str, over: Iterable[str], rows: Mapping[str, T]):
        super().__init__(rows)
        self.what, self.over = what, tuple(over)

    def __missing__(self, dtype: object) -> NoReturn:
        raise DTypeError(
            f"{self.what}: got dtype {shown(dtype)}; it is known for {', '.join(self)}; cast to one of these"
        )


def _integer(name: str, form: str, poison: int) -> DType:
    digits = 8 * struct.calcsize(form) - 1
    return DType(name, "integer", form, -(2**digits), 2**digits - 1, digits, name, poison)


def _float(name: str, form: str, digits: int, compute: str, poison: int) -> DType:
    """A binary float of the IEEE formats, of so many significant bits."""
    bits = 8 * struct.calcsize(form)
    highest = math.ldexp(2.0 - 2.0 ** (1 - digits), 2 ** (bits - digits - 1) - 1)
    infinity = (1 << (bits - 1)) - (1 << (digits - 1))
    return DType(
        name, "float", form, -highest, highest, digits, compute, poison, infinity, infinity | 1 << (digits - 2)
    )


# In the order of promotion: kinds from bool to float, in each the narrow before the wide.
_RECORDS = (
    DType("bool", "bool", "<?", False, True, 0, "bool", 0xA5),
    _integer("int32", "<i", 0xA5A5A5A5),
    _integer("int64", "<q", 0xA5A5A5A5A5A5A5A5),
    _float("float32", "<f", 24, "float32", 0xFFF5A5A5),
    _float("float64", "<d", 53, "float64", 0xFFF5A5A5A5A5A5A5),
)
NAMES = tuple(record.name for record in _RECORDS)
FLOATS = tuple(record.name for record in _RECORDS if record.kind == "float")
INTEGERS = tuple(record.name for record in _RECORDS if record.kind == "integer")
COMPUTED = tuple(record.name for record in _RECORDS if record.compute == record.name)  # those of kernels' arithmetic
COMPUTED_FLOATS = tuple(name for name in COMPUTED if name in FLOATS)
DTYPES: Table[DType] = Table("dtypes", NAMES, {record.name: record for record in _RECORDS})
NUMPY_DTYPES: Table[np.dtype[Any]] = Table("NumPy's dtypes", NAMES, {name: np.dtype(name) for name in NAMES})
