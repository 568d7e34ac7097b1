"""Conversions between stored dtypes and those in which kernels calculate: bit for bit those of `dtypes`.

They are made of integers, because LLVM's own may flush subnormals to zero.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgraph.dtypes import COMPUTED, DTYPES, STORED, Table
from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.maths.arithmetic import narrow, widen


def widened(x: Value) -> Value:
    """x, of a stored dtype, in the dtype in which kernels calculate with it."""
    return _WIDENED[x.dtype](x)


def rounded(x: Value, dtype: str) -> Value:
    """x in a stored dtype, rounded once; one NaN."""
    return _ROUNDED[dtype](x)


def _bfloat16_widened(x: Value) -> Value:
    """The upper half of a float32."""
    return (x.lanes.convert("zext", x, "int32") << 16).as_float()


def _bfloat16_rounded(x: Value) -> Value:
    """To the upper half of a float32, to nearest, ties to even."""
    x = _to_odd(x)
    bits = x.bits()
    upper = (bits + 0x7FFF + (bits.shift_right_logical(16) & 1)).shift_right_logical(16)
    return x.lanes.convert("trunc", upper.like(DTYPES["bfloat16"].one_nan).where(x.is_nan(), upper), "bfloat16")


def _to_odd(x: Value) -> Value:
    """In float32, where inexact toward zero with the last bit set: to be rounded to fewer bits, as if it were exact."""
    exact = _IN_FLOAT[x.dtype](x)
    nearest = narrow(exact, "float32")
    if nearest is exact:
        return exact
    back, bits = widen(nearest), nearest.bits()
    bits = (bits - 1).where(back.abs() > exact.abs(), bits)
    return (bits | 1).where(back.ne(exact), bits).as_float()


def _float_of_int64(x: Value) -> Value:
    """In float64; beyond 2**53 the last bits only say that there is something."""
    far = (x >= 2**53) | (x <= -(2**53))
    short = (x & ~0x7FF) | 0x400
    return x.lanes.convert("sitofp", short.where(far & (x & 0x7FF).ne(0), x), "float64")


_IN_FLOAT: Table[Callable[[Value], Value]] = Table(
    "floats to be rounded",
    COMPUTED,
    {
        "bool": lambda x: x.lanes.convert("uitofp", x, "float32"),
        "int32": lambda x: x.lanes.convert("sitofp", x, "float64"),
        "int64": _float_of_int64,
        "float32": lambda x: x,
        "float64": lambda x: x,
    },
)
_WIDENED = Table("widening", STORED, {"bfloat16": _bfloat16_widened})
_ROUNDED = Table("rounding", STORED, {"bfloat16": _bfloat16_rounded})
