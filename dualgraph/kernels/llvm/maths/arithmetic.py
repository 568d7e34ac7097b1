"""What the transcendental functions share: how a function is emitted, float formats, exact arithmetic.

The functions themselves stand in `exp`, `log`, `trig` and `division`. They hold to four rules: no FMA and no fast-math,
so that every rounding is the one written; no libm call; each lane depends on itself alone; every coefficient is our own
minimax fit (Remez exchange in 50 digits, the lowest coefficients rounded first and the rest refitted). Errors are at
most 2 ULP over the whole domain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dualgraph.dtypes import COMPUTED_FLOATS, Table
from dualgraph.kernels.llvm.lanes import REGISTERS, Value

NAN, INF = float("nan"), float("inf")


class Format(NamedTuple):
    """The numbers of a binary float format that the algorithms need."""

    mantissa: int  # stored bits
    bias: int
    rounder: float  # 1.5 * 2**mantissa: adding it leaves a float's integer part in the low bits
    rounder_bits: int
    smallest_normal: float
    splitter: float  # 2**ceil(precision / 2) + 1, for Veltkamp's splitting


FORMATS = Table(
    "the format of a float",
    COMPUTED_FLOATS,
    {
        "float32": Format(23, 127, 1.5 * 2**23, 0x4B400000, 2.0**-126, 2.0**12 + 1),
        "float64": Format(52, 1023, 1.5 * 2**52, 0x4338000000000000, 2.0**-1022, 2.0**27 + 1),
    },
)


def function(emit: Callable[..., Value]) -> Callable[..., Value]:
    """The emitter as a private function of the module, written once per dtypes and width and called from each use."""

    @functools.wraps(emit)
    def call(*args: Value) -> Value:
        result: Value = args[0].lanes.call(emit.__name__, emit, *args)
        return result

    return call


def function_in_float64(emit: Callable[..., Value]) -> Callable[..., Value]:
    """As `function`, for rare functions: float32 operands are widened and the result is rounded once (0.51 ULP)."""
    in_float64 = function(emit)

    @functools.wraps(emit)
    def call(*args: Value) -> Value:
        dtype = args[0].dtype
        return narrow(in_float64(*(widen(a) for a in args)), dtype)

    return call


def widen(x: Value) -> Value:
    """x in float64."""
    return x if x.dtype == "float64" else x.lanes.convert("fpext", x, "float64")


def narrow(x: Value, dtype: str) -> Value:
    """The inverse of `widen`, rounded."""
    return x if x.dtype == dtype else x.lanes.convert("fptrunc", x, dtype)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + c1 x + c2 x² + …, by Horner's rule."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


# ------------------------------------------------------------------------------------------------- exact arithmetic


def two_sum(x: Value, y: Value) -> tuple[Value, Value]:
    """x + y as a rounded sum and its exact error (Knuth 1969)."""
    s = x + y
    t = s - x
    return s, (x - (s - t)) + (y - t)


def fast_two_sum(x: Value, y: Value) -> tuple[Value, Value]:
    """`two_sum` for |x| >= |y| or x = 0 (Dekker 1971)."""
    s = x + y
    return s, y - (s - x)


def _halves(x: Value) -> tuple[Value, Value]:
    """x as a sum of two numbers of half its precision (Veltkamp 1968); |x| must stay far from overflow."""
    t = x * FORMATS[x.dtype].splitter
    high = t - (t - x)
    return high, x - high


def two_product(x: Value, y: Value) -> tuple[Value, Value]:
    """x · y as a rounded product and its exact error (Dekker 1971), without FMA."""
    p = x * y
    (xh, xl), (yh, yl) = _halves(x), _halves(y)
    return p, ((xh * yh - p) + xh * yl + xl * yh) + xl * yl


class Double(NamedTuple):
    """An unevaluated sum `high + low` with |low| <= ulp(high) / 2: about twice the precision."""

    high: Value
    low: Value

    def times(self, high: Value, low: Value) -> Double:
        p, e = two_product(self.high, high)
        return Double(*fast_two_sum(p, e + (self.high * low + self.low * high)))

    def rounded(self) -> Value:
        return self.high + self.low


# -------------------------------------------------------------------------------------------- exponents and integers


def nearest_integer(x: Value) -> tuple[Value, Value]:
    """x rounded half to even, as a float and as an integer, for |x| < 2**(mantissa - 1).

    The usual trick instead of an intrinsic: two additions, the integer comes for free, and no CPU needs libm for it.
    """
    form = FORMATS[x.dtype]
    shifted = x + form.rounder
    return shifted - form.rounder, shifted.bits() - form.rounder_bits


def integer_to_float(k: Value, dtype: str) -> Value:
    """The inverse trick, for |k| < 2**(mantissa - 1); k has the width of `dtype`."""
    form = FORMATS[dtype]
    return (k + form.rounder_bits).as_float() - form.rounder


def is_integer(x: Value) -> Value:
    """Has x no fractional part (infinities have none)."""
    magnitude, all_integers = x.abs(), 2.0 ** FORMATS[x.dtype].mantissa
    return ((magnitude + all_integers) - all_integers).eq(magnitude) | (magnitude >= all_integers)


def power_of_two(k: Value) -> Value:
    """2**k as a float of k's width, for exponents of normal numbers."""
    form = FORMATS[REGISTERS[k.dtype].floats]
    return ((k + form.bias) << form.mantissa).as_float()


def scale(x: Value, k: Value) -> Value:
    """x · 2**k rounded once, for results from subnormal to infinite (x near 1)."""
    half = k >> 1
    return x * power_of_two(half) * power_of_two(k - half)


def at_most(x: Value, bound: float) -> Value:
    """min(x, bound), NaN stays."""
    return x.like(bound).where(x > bound, x)


def at_least(x: Value, bound: float) -> Value:
    """max(x, bound), NaN stays."""
    return x.like(bound).where(x < bound, x)


def sign_bit(x: Value) -> Value:
    return x.bits() < 0
