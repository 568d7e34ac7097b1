"""Logarithms and powers: log, log2, log10, log1p, pow.

x = 2**k · (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and log(1 + f) = 2 atanh(s) with s = f / (2 + f) (the classic
series of Remez-fitted odd powers; Muller, "Elementary Functions", ch. 11). Where a plain logarithm is not enough
(log2, log10 and pow in float64) the same sum is done in double-double arithmetic (Dekker 1971).
"""

from __future__ import annotations

from collections.abc import Callable

from dualgraph.dtypes import COMPUTED_FLOATS, Table
from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.maths.arithmetic import (
    FORMATS,
    INF,
    NAN,
    Double,
    at_least,
    at_most,
    fast_two_sum,
    function,
    function_in_float64,
    integer_to_float,
    is_integer,
    narrow,
    polynomial,
    scale,
    sign_bit,
    two_product,
    two_sum,
    widen,
)
from dualgraph.kernels.llvm.maths.exp import LN2, split_exp

# 2 atanh(s) / s - 2, divided by s², in s².
LOG = Table(
    "coefficients",
    COMPUTED_FLOATS,
    {
        "float32": (0.6666666, 0.40000972, 0.28498793, 0.24278814),
        "float64": (
            0.6666666666666666, 0.40000000000004926, 0.28571428569410284, 0.2222222260714426, 0.18181778338550098,
            0.15386989668243758, 0.1325212850702797, 0.13234961489782293,
        ),
    },
)  # fmt: skip
# (atanh(s) / s - 1 - s²/3) / s⁴, in s².
LOG_TAIL = (
    0.2, 0.14285714285713444, 0.11111111111358409, 0.09090909052975767, 0.07692311096849504, 0.06666479679082675,
    0.05888644392807826, 0.05139265089886921, 0.06016263188189234,
)  # fmt: skip
THIRD = (float.fromhex("0x1.5555555555555p-2"), float.fromhex("0x1.5555555555555p-56"))
LOG2_E = (float.fromhex("0x1.71547652b82fep+0"), float.fromhex("0x1.777d0ffda0d24p-56"))
LOG10_E = (float.fromhex("0x1.bcb7b1526e50ep-2"), float.fromhex("0x1.95355baaafad3p-57"))
SQRT_HALF_BITS = Table(
    "the bits of the root of 1/2", COMPUTED_FLOATS, {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}
)


def _split(x: Value) -> tuple[Value, Value]:
    """(k, f), both floats, with x = 2**k · (1 + f), for x positive and finite."""
    form = FORMATS[x.dtype]
    subnormal, lift = x < form.smallest_normal, form.mantissa + 1
    bits = (x * 2.0**lift).where(subnormal, x).bits()
    k = (bits - SQRT_HALF_BITS[x.dtype]) >> form.mantissa
    f = (bits - (k << form.mantissa)).as_float() - 1
    return integer_to_float((k - lift).where(subnormal, k), x.dtype), f


def _log_sum(k: Value, f: Value, low: Value | None = None) -> Value:
    """k ln 2 + log(1 + f) + low, small terms first."""
    first, second = LN2[f.dtype]
    half_square = 0.5 * f * f
    s = f / (f + 2)
    z = s * s
    small = s * (half_square + z * polynomial(z, LOG[f.dtype])) + k * second
    if low is not None:
        small = small + low
    return k * first - ((half_square - small) - f)


def _at_the_ends(x: Value, result: Value) -> Value:
    """The values of a logarithm at 0, below, at infinity and NaN."""
    ends = x.like(-INF).where(x.eq(0), x.like(NAN).where(x < 0, x))
    return result.where((x > 0) & (x < INF), ends)


@function
def log(x: Value) -> Value:
    """Minimax polynomial in s² of degree 3 (float32) or 7 (float64): 0.84 ULP."""
    return _at_the_ends(x, _log_sum(*_split(x)))


@function
def log1p(x: Value) -> Value:
    """log(u) for u = 1 + x rounded, plus the rounding error over u: 0.84 ULP."""
    u = x + 1
    bounded = at_most(x, FORMATS[x.dtype].rounder ** 2)  # keeps infinity out of the error term
    _, error = two_sum(bounded.like(1), bounded)
    result = _at_the_ends(u, _log_sum(*_split(u), low=error / u))
    return x.where(x.eq(0), result)


def _log_double(x: Value) -> Double:
    """log(x) with a relative error near 2**-65, for float64 x positive and finite."""
    k, f = _split(x)
    s = _ratio_double(f)
    square, square_error = two_product(s.high, s.high)
    square_low = square_error + 2 * s.high * s.low
    tail = square * polynomial(square, LOG_TAIL)
    third, third_error = fast_two_sum(tail.like(THIRD[0]), tail)
    cubic = Double(third, third_error + THIRD[1]).times(square, square_low)
    series, series_error = fast_two_sum(f.like(1), cubic.high)
    atanh = Double(s.high + s.high, s.low + s.low).times(series, series_error + cubic.low)
    first, second = LN2["float64"]
    total, error = two_sum(k * first, atanh.high)
    return Double(*fast_two_sum(total, error + (atanh.low + k * second)))


def _ratio_double(f: Value) -> Double:
    """f / (2 + f)."""
    d = f + 2
    d_error = f - (d - 2)
    s = f / d
    p, p_error = two_product(s, d)
    return Double(s, (((f - p) - p_error) - s * d_error) / d)


@function_in_float64
def log2(x: Value) -> Value:
    """The double-double logarithm times log2(e): 0.501 ULP, exact at powers of two."""
    return _at_the_ends(x, _log_double(x).times(x.like(LOG2_E[0]), x.like(LOG2_E[1])).rounded())


@function_in_float64
def log10(x: Value) -> Value:
    """The double-double logarithm times log10(e): 0.501 ULP, exact at powers of ten."""
    return _at_the_ends(x, _log_double(x).times(x.like(LOG10_E[0]), x.like(LOG10_E[1])).rounded())


@function
def pow(x: Value, y: Value) -> Value:
    """exp(y log|x|), the logarithm in double-double: 0.78 ULP; C99's table of special cases.

    float32 goes through float64, where a plain logarithm leaves 2**-44 of error: one rounding, 0.51 ULP.
    """
    a, exponent = widen(x.abs()), widen(y)
    # Beyond 2**65 every power but that of 1 is 0 or infinite; this keeps 0 · infinity and overflow out of the products.
    exponent = at_most(at_least(exponent, -(2.0**65)), 2.0**65)
    magnitude = narrow(_exp_of_sum(*_POWER_LOGARITHM[x.dtype](a, exponent)), x.dtype)
    return _power_special_cases(x, y, magnitude)


# exponent * log(a) as a sum of two, both in float64, for a result in the dtype.
_POWER_LOGARITHM: Table[Callable[[Value, Value], tuple[Value, Value]]] = Table(
    "powers",
    COMPUTED_FLOATS,
    {
        "float32": lambda a, exponent: (_log_sum(*_split(a)) * exponent, a.like(0)),
        "float64": lambda a, exponent: _log_double(a).times(exponent, a.like(0)),
    },
)


def _exp_of_sum(high: Value, low: Value) -> Value:
    bounded = at_most(at_least(high, -750.0), 720.0)
    parts = split_exp(bounded, low.where(bounded.eq(high), 0.0))
    reduced, rest = parts.reduced_parts()
    return scale(reduced + rest, parts.k)


def _power_special_cases(x: Value, y: Value, magnitude: Value) -> Value:
    """|x|**y to x**y: C99, Annex F.10.4.4."""
    a = x.abs()
    at_zero = a.eq(0)
    pole = x.like(INF).where(at_zero ^ (y > 0), 0.0)
    result = pole.where(at_zero | a.eq(INF), magnitude)
    result = result.like(NAN).where((x < 0) & (a < INF) & ~is_integer(y), result)
    odd = is_integer(y) & ~is_integer(y * 0.5)
    result = (-result).where(odd & sign_bit(x), result)
    result = (x + y).where(x.is_nan() | y.is_nan(), result)
    return result.like(1).where(x.eq(1) | y.eq(0), result)
