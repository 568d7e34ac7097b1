"""The dtypes: one record of each, which says everything that the house has to know of it.

Everywhere else a dtype is its name, a plain string, which is quick to compare and to look up. What depends on it is a fact
of its record, or a row of a `Table` that says which dtypes it is about: asked for another, both say so, and nobody takes
one dtype for another because it is not a third.

Kernels calculate in the `COMPUTED` dtypes. A `STORED` one is for memory: what is read of it is widened (`widened`), which
is exact, and each result of an operation is rounded to it once (`converted`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from dualgraph.errors import DTypeError, shown

Kind = Literal["bool", "integer", "float"]
Array = np.ndarray[Any, Any]
T = TypeVar("T")


class DType(NamedTuple):
    """A dtype. `lowest` and `highest` are the ends of its finite numbers."""

    name: str
    kind: Kind
    form: str  # of its bits, for `struct`
    itemsize: int  # bytes in memory
    lowest: Any
    highest: Any
    digits: int  # it holds all integers from -2**digits to 2**digits
    compute: str  # the dtype in which kernels calculate with it: itself, or a wider one
    poison: int  # bits that no computation leaves: a NaN with sign and payload, an integer that is no index
    infinity: int = 0  # bits of it, of floats
    one_nan: int = 0  # bits of the NaN that is computed (`kernels.nan`)

    @property
    def bits(self) -> int:
        """In memory."""
        return 8 * self.itemsize

    @property
    def integers(self) -> tuple[int, int]:
        """The ends of the range of integers of which it holds each one."""
        return (-(2**self.digits), 2**self.digits) if self.kind == "float" else (int(self.lowest), int(self.highest))

    def encode(self, value: Any) -> int:
        """The bits of a number, as an unsigned integer."""
        if self.name in STORED:
            return int(converted(np.asarray(value), self.name).view(f"u{self.itemsize}"))
        return int.from_bytes(struct.pack(self.form, value), "little")

    def decode(self, bits: int) -> Any:
        """The inverse of `encode`, as a Python scalar: of a NaN the sign and payload may get lost."""
        if self.name in STORED:
            return float(widened(np.array(bits, f"u{self.itemsize}").view(NUMPY_DTYPES[self.name])))
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
    size = struct.calcsize(form)
    digits = 8 * size - 1
    return DType(name, "integer", form, size, -(2**digits), 2**digits - 1, digits, name, poison)


def _float(name: str, form: str, digits: int, compute: str, poison: int) -> DType:
    """A binary float of the IEEE formats, of so many significant bits."""
    size = struct.calcsize(form)
    bits = 8 * size
    highest = math.ldexp(2.0 - 2.0 ** (1 - digits), 2 ** (bits - digits - 1) - 1)
    infinity = (1 << (bits - 1)) - (1 << (digits - 1))
    return DType(
        name, "float", form, size, -highest, highest, digits, compute, poison, infinity, infinity | 1 << (digits - 2)
    )


# In the order of promotion: kinds from bool to float, in each the narrow before the wide.
_RECORDS = (
    DType("bool", "bool", "<?", 1, False, True, 0, "bool", 0xA5),
    _integer("int32", "<i", 0xA5A5A5A5),
    _integer("int64", "<q", 0xA5A5A5A5A5A5A5A5),
    _float("bfloat16", "<H", 8, "float32", 0xFFF5),
    _float("float32", "<f", 24, "float32", 0xFFF5A5A5),
    _float("float64", "<d", 53, "float64", 0xFFF5A5A5A5A5A5A5),
)
NAMES = tuple(record.name for record in _RECORDS)
FLOATS = tuple(record.name for record in _RECORDS if record.kind == "float")
INTEGERS = tuple(record.name for record in _RECORDS if record.kind == "integer")
COMPUTED = tuple(record.name for record in _RECORDS if record.compute == record.name)  # those of kernels' arithmetic
STORED = tuple(name for name in NAMES if name not in COMPUTED)
COMPUTED_FLOATS = tuple(name for name in COMPUTED if name in FLOATS)
DTYPES: Table[DType] = Table("dtypes", NAMES, {record.name: record for record in _RECORDS})


class _InMemory(Table[np.dtype[Any]]):
    """NumPy's dtypes, those of `ml_dtypes` when one of them is asked for."""

    def __missing__(self, dtype: object) -> Any:
        if dtype not in STORED:
            return super().__missing__(dtype)
        import ml_dtypes

        found = self[str(dtype)] = np.dtype(getattr(ml_dtypes, str(dtype)))
        return found


NUMPY_DTYPES = _InMemory("NumPy's dtypes", NAMES, {name: np.dtype(name) for name in COMPUTED})

# ------------------------------------------------------------------------------------------------------ stored dtypes


def _bfloat16_widened(x: Array) -> Array:
    """The upper half of a float32."""
    return np.asarray(x.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _bfloat16_rounded(x: Array) -> npt.NDArray[np.uint16]:
    """A float32 to its upper half: to nearest, ties to even, in integers, which keep subnormals; one NaN."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.asarray(np.where(np.isnan(x), np.uint32(DTYPES["bfloat16"].one_nan), rounded)).astype(np.uint16)


_WIDENED = Table("widening", STORED, {"bfloat16": _bfloat16_widened})
_ROUNDED = Table("rounding", STORED, {"bfloat16": _bfloat16_rounded})


def widened(x: Array) -> Array:
    """An array in the dtype in which kernels calculate with it."""
    return _WIDENED[x.dtype.name](x) if x.dtype.name in STORED else x


def converted(x: Array, dtype: str) -> Array:
    """An array in another dtype, rounded once; for integers the values must be within their range."""
    if x.dtype.name == dtype:
        return x
    x = widened(x)
    if dtype in COMPUTED:
        with np.errstate(over="ignore"):  # what a float cannot hold is infinite
            return x.astype(NUMPY_DTYPES[dtype], order="C")
    with np.errstate(all="ignore"):
        return np.asarray(_ROUNDED[dtype](_to_odd(x)).view(NUMPY_DTYPES[dtype]))


def scalar_array(value: Any, dtype: str) -> Array:
    """A Python number as an array of shape ()."""
    if dtype in COMPUTED:
        return np.array(value, NUMPY_DTYPES[dtype])
    return converted(np.asarray(value), dtype)


def _to_odd(x: Array) -> Array:
    """In float32, where inexact toward zero with the last bit set: to be rounded to fewer bits, as if it were exact.

    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.)
    """
    if x.dtype == np.float32:
        return x
    if x.dtype.kind in "iu":  # beyond 2**53, too, the last bits only say that there is something
        wide = x.astype(np.uint64 if x.dtype.kind == "u" else np.int64)
        low, some = wide.dtype.type(0x7FF), wide.dtype.type(0x400)
        far = (wide >= 2**53) | (wide <= (0 if x.dtype.kind == "u" else -(2**53)))
        x = np.where(far & ((wide & low) != 0), (wide & ~low) | some, wide)
    exact = np.asarray(x, np.float64)
    nearest = exact.astype(np.float32)
    back = nearest.astype(np.float64)
    beyond = (np.abs(back) > np.abs(exact)).astype(np.uint32)
    bits = (np.asarray(nearest).view(np.uint32) - beyond) | (back != exact).astype(np.uint32)
    return np.asarray(bits).view(np.float32)
