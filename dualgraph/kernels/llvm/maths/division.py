"""Floor division and remainder with NumPy's semantics: the remainder has the sign of the divisor.

Integers never trap: a divisor of 0 gives 0 and the smallest integer over -1 wraps. Floats follow NumPy's own
algorithm step by step, on an exact `fmod` computed by long division of the mantissas.
"""

from __future__ import annotations

from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.maths.arithmetic import (
    INF,
    NAN,
    function,
    function_in_float64,
    integer_to_float,
    scale,
)

DIGITS = 11  # quotient bits per step of the long division: a 53-bit remainder shifted by 11 fits in 64 bits


@function
def floor_divide(x: Value, y: Value) -> Value:
    """The largest integer not above x / y."""
    return _float_quotient(x, y) if x.is_float else _integer_parts(x, y)[0]


@function
def remainder(x: Value, y: Value) -> Value:
    """x - y · floor(x / y), with the sign of y."""
    if not x.is_float:
        return _integer_parts(x, y)[1]
    rest = fmod(x, y)
    signed = (rest + y).where((rest < 0) ^ (y < 0), rest)
    result = signed.where(rest.ne(0), rest.like(0).copysign(y))
    return rest.where(y.eq(0), result)


def _integer_parts(x: Value, y: Value) -> tuple[Value, Value]:
    divisor = y.like(1).where(y.eq(0) | y.eq(-1), y)
    truncated = x.lanes.binary("sdiv", x, divisor)
    rest = x - truncated * divisor
    inexact = rest.ne(0) & ((rest ^ divisor) < 0)
    quotient = (truncated - 1).where(inexact, truncated)
    quotient = (-x).where(y.eq(-1), quotient)
    return quotient.like(0).where(y.eq(0), quotient), (rest + divisor).where(inexact, rest)


def _float_quotient(x: Value, y: Value) -> Value:
    rest = fmod(x, y)
    quotient = (x - rest) / y
    quotient = (quotient - 1).where(rest.ne(0) & ((rest < 0) ^ (y < 0)), quotient)
    floor = x.lanes.intrinsic("floor", quotient)
    floor = (floor + 1).where(quotient - floor > 0.5, floor)
    ratio = x / y
    result = floor.where(quotient.ne(0), quotient.like(0).copysign(ratio))
    return ratio.where(y.eq(0), result)


@function_in_float64
def fmod(x: Value, y: Value) -> Value:
    """C's fmod, exact: long division of the mantissas, 11 quotient bits a step (also exact for widened float32)."""
    (k, m), (k_y, m_y) = _mantissa_exponent(x.abs()), _mantissa_exponent(y.abs())
    lanes = x.lanes

    def step(steps_left: Value, rest: Value) -> tuple[Value, Value]:
        shift = steps_left.where(steps_left < DIGITS, DIGITS)
        return steps_left - shift, lanes.binary("urem", rest << shift, m_y)

    def unfinished(steps_left: Value, _: Value) -> Value:
        return steps_left > 0

    _, rest = lanes.loop_while((k - k_y, lanes.binary("urem", m, m_y)), unfinished, step)
    result = scale(_exact_float(rest), k_y)
    result = x.abs().where((k < k_y) | y.abs().eq(INF), result).copysign(x)
    result = result.like(NAN).where(x.abs().eq(INF) | y.eq(0), result)
    return (x + y).where(x.is_nan() | y.is_nan(), result)


def _mantissa_exponent(x: Value) -> tuple[Value, Value]:
    """(k, m) with x = m · 2**k and 2**52 <= m < 2**53, for positive float64."""
    subnormal = x < 2.0**-1022
    bits = (x * 2.0**54).where(subnormal, x).bits()
    k = bits.shift_right_logical(52) - 1075
    return (k - 54).where(subnormal, k), (bits & (2**52 - 1)) | 2**52


def _exact_float(m: Value) -> Value:
    """An integer below 2**53 as a float64, from two halves that fit the usual trick."""
    low = integer_to_float(m & (2**27 - 1), "float64")
    return integer_to_float(m.shift_right_logical(27), "float64") * 2.0**27 + low
