"""Circular functions: sin, cos, tan and their inverses.

Arguments are reduced by multiples of pi/2: by Cody and Waite's subtraction of pi/2 in parts while |x| is moderate, and
by Payne and Hanek's (1983) multiplication with the bits of 2/pi that matter beyond. The second is skipped while no lane
needs it; which one a lane takes depends on that lane alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dualgraph.dtypes import COMPUTED_FLOATS, Table
from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.maths.arithmetic import (
    INF,
    NAN,
    Double,
    at_most,
    fast_two_sum,
    function,
    function_in_float64,
    narrow,
    nearest_integer,
    polynomial,
    sign_bit,
    two_product,
    two_sum,
    widen,
)

TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
PI = (float.fromhex("0x1.921fb54442d18p+1"), float.fromhex("0x1.1a62633145c07p-53"))
HALF_PI = (PI[0] / 2, PI[1] / 2)
QUARTER_PI = (PI[0] / 4, PI[1] / 4)
# pi/2 in parts of 33 bits (the last full): products with quadrant numbers below 2**20 are exact.
HALF_PI_PARTS = tuple(
    map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2ep-69", "0x1.b839a252049c1p-104"))
)
# 2/pi after the binary point, 1280 bits behind 64 zeros.
TWO_OVER_PI_BITS = (
    "0000000000000000"
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73e"
    "e88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b7"
    "4f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d"
)
HUGE = 100000.0

# (sin(r) - r) / r³ and (cos(r) - 1 + r²/2) / r⁴ in r², |r| <= pi/4 and a little.
SIN = Table(
    "coefficients",
    COMPUTED_FLOATS,
    {
        "float32": (-0.16666667, 0.0083333785, -0.00019852484, 2.8247202e-06),
        "float64": (
            -0.16666666666666666, 0.008333333333333042, -0.00019841269840961855, 2.7557319073930287e-06,
            -2.5052071008478616e-08, 1.6054337033245874e-10, -7.391487812842427e-13,
        ),
    },
)  # fmt: skip
COS = Table(
    "coefficients",
    COMPUTED_FLOATS,
    {
        "float32": (0.041666668, -0.0013888977, 2.482041e-05, -2.8704312e-07),
        "float64": (
            0.041666666666666664, -0.0013888888888888393, 2.4801587301188678e-05, -2.755731906532155e-07,
            2.087672329558035e-09, -1.146703148012607e-11, 4.6012711099334194e-14,
        ),
    },
)  # fmt: skip
# (asin(x) - x) / x³ in x², x <= 1/2.
ASIN = (
    0.16666666666666763, 0.07499999999970118, 0.04464285717527113, 0.030381942675879393, 0.022372215891208736,
    0.017351595735802746, 0.01398101596382829, 0.011397312466502782, 0.01078921969284752, 0.003672545103144192,
    0.021789819100184436, -0.021115605732182664, 0.03270149720753145,
)  # fmt: skip
# (atan(q) - q) / q³ in q², q <= tan(pi/8).
ATAN = (
    -0.333333333333332, 0.19999999999953721, -0.14285714280205083, 0.11111110783703926, -0.09090897760489847,
    0.07692060197763834, -0.06663103162303062, 0.05847878106951207, -0.05039233945247506, 0.038062272679517443,
    -0.017904192946362422,
)  # fmt: skip
TAN_EIGHTH_PI = 0.41421356237309503

Angle = tuple[Value, Value, Value]  # quadrant (int64), r high, r low: the angle is quadrant · pi/2 + r


# -------------------------------------------------------------------------------------------------- argument reduction


def _reduce(x: Value) -> Angle:
    """x modulo pi/2 for any float64; r is within 2**-100 of the truth where |x| is moderate, 2**-70 r beyond."""
    moderate = x.where(x.abs() <= HUGE, 0.0)
    k_float, k = nearest_integer(moderate * TWO_OVER_PI)
    first, second, third, fourth = (k_float * part for part in HALF_PI_PARTS)
    high, error = two_sum(moderate - first, -second)
    high, error_2 = two_sum(high, -third)
    r = fast_two_sum(high, error + (error_2 - fourth))
    return _beyond_huge(x, (k, *r))


def _beyond_huge(x: Value, usual: Angle) -> Angle:
    lanes = x.lanes
    nothing = (lanes.constant("int64", 0), x.like(0), x.like(0))

    def slow() -> Any:
        return lanes.lane_by_lane(lambda lane: lane.lanes.call("payne_hanek", _payne_hanek, lane), x, nothing)

    return lanes.rarely(x.abs() > HUGE, slow, usual)  # type: ignore[return-value]


def _payne_hanek(x: Value) -> Angle:
    """Reduction of one huge float64, in integers: mantissa times the 192 bits of 2/pi that follow those of weight 4.

    Higher bits contribute whole turns, lower ones less than 2**-137; a double never comes nearer to a multiple of pi/2
    than about 2**-61 (Muller, "Elementary Functions", table 11.1), so the remainder has 75 good bits.
    """
    bits = x.bits() & (2**63 - 1)
    exponent = bits.shift_right_logical(52)
    mantissa = (bits & (2**52 - 1)) | 2**52
    start = exponent - (1077 - 64)  # the bit of 2/pi that contributes twos, in a table that begins with 64 zeros
    top, middle, bottom = (_bits_of_two_over_pi(start + 64 * i) for i in range(3))
    low, carry = _wide_product(mantissa, bottom)
    middle_low, middle_high = _wide_product(mantissa, middle)
    middle_sum = middle_low + carry
    top_sum = (
        mantissa * top + middle_high + x.lanes.select(middle_sum.below_unsigned(carry), carry.like(1), carry.like(0))
    )
    return _angle_of_turns(x, top_sum, middle_sum, low)


def _bits_of_two_over_pi(start: Value) -> Value:
    """64 bits of 2/pi from bit `start` of the table on; beyond the table's end, its last words."""
    lanes, word = start.lanes, start.shift_right_logical(6)
    word = word.where(word.below_unsigned(19), 19)
    first, second = (_table_word(w) for w in (word, word + 1))
    return lanes.intrinsic("fshl", first, second, start & 63)


def _table_word(index: Value) -> Value:
    builder, module = index.lanes.builder, index.lanes.builder.module
    words = [int(TWO_OVER_PI_BITS[i : i + 16], 16) for i in range(0, len(TWO_OVER_PI_BITS), 16)]
    table = module.globals.get("dg.two_over_pi")
    if table is None:
        type_ = ir.ArrayType(ir.IntType(64), len(words))
        table = ir.GlobalVariable(module, type_, "dg.two_over_pi")
        table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(type_, words)
    address = builder.gep(table, [ir.Constant(ir.IntType(64), 0), index.ir], inbounds=True)
    return index.lanes.wrap("int64", builder.load(address))


def _wide_product(x: Value, y: Value) -> tuple[Value, Value]:
    """The low and high words of the unsigned product."""
    builder, wide, word = x.lanes.builder, ir.IntType(128), ir.IntType(64)
    product = builder.mul(builder.zext(x.ir, wide), builder.zext(y.ir, wide))
    high = builder.lshr(product, ir.Constant(wide, 64))
    return tuple(x.lanes.wrap("int64", builder.trunc(p, word)) for p in (product, high))  # type: ignore[return-value]


def _angle_of_turns(x: Value, top: Value, middle: Value, bottom: Value) -> Angle:
    """Quadrant and remainder of a 192-bit fraction of 4 · (pi/2)."""
    lanes = x.lanes
    quadrant = top.shift_right_logical(62) + (top.shift_right_logical(61) & 1)
    top = lanes.intrinsic("fshl", top, middle, top.like(2))  # now a signed fraction of one quadrant
    middle = lanes.intrinsic("fshl", middle, bottom, top.like(2))
    pieces = [
        top >> 16,
        ((top & 0xFFFF) << 32) | middle.shift_right_logical(32),
        ((middle & 0xFFFFFFFF) << 16) | bottom.shift_right_logical(46) & 0xFFFF,
    ]
    values = [lanes.convert("sitofp", p, "float64") * 2.0 ** (-48 * (i + 1)) for i, p in enumerate(pieces)]
    high, low = two_sum(values[0], values[1])
    high, low = fast_two_sum(high, low + values[2])
    r = Double(high, low).times(x.like(HALF_PI[0]), x.like(HALF_PI[1]))
    negative = x < 0
    return (-quadrant).where(negative, quadrant), (-r.high).where(negative, r.high), (-r.low).where(negative, r.low)


# ------------------------------------------------------------------------------------------------------- sin, cos, tan


def _sin_parts(r: Value, low: Value | None = None) -> Double:
    z = r * r
    cubic = z * r * polynomial(z, SIN[r.dtype])
    return Double(r, cubic if low is None else cubic + (low - 0.5 * z * low))


def _cos_parts(r: Value, low: Value | None = None) -> Double:
    z = r * r
    half = 0.5 * z
    quartic = z * z * polynomial(z, COS[r.dtype])
    if low is not None:
        quartic = quartic - r * low
    high = 1 - half
    return Double(high, ((1 - high) - half) + quartic)


def _wave(quadrant: Value, r: Value, low: Value | None) -> Value:
    """sin(quadrant · pi/2 + r)."""
    result = _cos_parts(r, low).rounded().where((quadrant & 1).ne(0), _sin_parts(r, low).rounded())
    return (result.bits() ^ ((quadrant >> 1) << (quadrant.width - 1))).as_float()


def _circular(x: Value, quarter_turns: int) -> Value:
    """sin(x + quarter_turns · pi/2). float32 is reduced in float64, its polynomials are evaluated in float32."""
    quadrant, r, low = _REDUCED[x.dtype](x)
    result = _wave(quadrant + quarter_turns, r, low)
    return result.where(x.abs() < INF, x.like(NAN).where(x.abs().eq(INF), x))


def _reduce_float32(x: Value) -> tuple[Value, Value, None]:
    """x modulo pi/2 in float64 arithmetic, rounded once."""
    lanes, moderate = x.lanes, x.where(x.abs() <= HUGE, 0.0)
    k_float, k = nearest_integer(moderate * TWO_OVER_PI)
    k_wide = widen(k_float)
    r = (widen(moderate) - k_wide * HALF_PI_PARTS[0]) - k_wide * (HALF_PI[0] - HALF_PI_PARTS[0] + HALF_PI[1])

    def slow() -> tuple[Value, Value]:
        quadrant, high, _ = _beyond_huge(widen(x), (lanes.constant("int64", 0), widen(x), widen(x)))
        return lanes.convert("trunc", quadrant, "int32"), narrow(high, x.dtype)

    quadrant, r = lanes.rarely(x.abs() > HUGE, slow, (k, narrow(r, x.dtype)))
    return quadrant, r, None


_REDUCED: Table[Callable[[Value], tuple[Value, Value, Value | None]]] = Table(
    "x modulo pi/2", COMPUTED_FLOATS, {"float32": _reduce_float32, "float64": _reduce}
)


@function
def sin(x: Value) -> Value:
    """Reduction modulo pi/2, minimax polynomials of degree 9 (float32) or 15 (float64): 1.50 and 0.78 ULP."""
    return x.where(x.eq(0), _circular(x, 0))


@function
def cos(x: Value) -> Value:
    """sin a quarter turn further: 1.49 and 0.77 ULP."""
    return _circular(x, 1)


@function_in_float64
def tan(x: Value) -> Value:
    """sin / cos, both unrounded sums; the quotient is corrected by its remainder: 0.97 ULP."""
    quadrant, r, low = _reduce(x)
    sine, cosine = Double(*fast_two_sum(*_sin_parts(r, low))), Double(*fast_two_sum(*_cos_parts(r, low)))
    odd = (quadrant & 1).ne(0)
    numerator, numerator_low = ((-c).where(odd, s) for s, c in zip(sine, cosine, strict=True))
    denominator, denominator_low = (s.where(odd, c) for s, c in zip(sine, cosine, strict=True))
    result = _quotient(numerator, numerator_low, denominator, denominator_low).rounded()
    result = result.where(x.abs() < INF, x.like(NAN).where(x.abs().eq(INF), x))
    return x.where(x.eq(0), result)


def _quotient(x: Value, x_low: Value, y: Value, y_low: Value) -> Double:
    q = x / y
    p, error = two_product(q, y)
    rest = ((x - p) - error) + (x_low - q * y_low)
    return Double(q, rest / y)


# ------------------------------------------------------------------------------------------------------------ inverses


def _first_octant(a: Value, b: Value) -> Double:
    """atan(a / b) for 0 <= a <= b, b neither extreme nor 0. Beyond tan(pi/8): pi/4 + atan((a - b) / (a + b))."""
    turned = a > b * TAN_EIGHTH_PI
    difference, sum_ = two_sum(a, -b), two_sum(a, b)
    numerator, numerator_low = (d.where(turned, plain) for d, plain in zip(difference, (a, a.like(0)), strict=True))
    denominator, denominator_low = (s.where(turned, plain) for s, plain in zip(sum_, (b, b.like(0)), strict=True))
    q, q_low = _quotient(numerator, numerator_low, denominator, denominator_low)
    q_low = q_low.where(q.abs() > 2.0**-60, 0.0)  # below, q is the result, and its remainder may have underflowed
    z = q * q
    tail = q * z * polynomial(z, ATAN) + q_low
    base, base_low = (q.like(part).where(turned, 0.0) for part in QUARTER_PI)
    high, error = fast_two_sum(base, q)
    return Double(high, error + (tail + base_low))


def _offset(base: Value, base_low: Value, sign: Value, angle: Double) -> Value:
    """base + sign · angle for a base of 0 or at least pi/2; `sign` is 1 or -1."""
    high, error = fast_two_sum(base, sign * angle.high)
    return high + (error + (base_low + sign * angle.low))


@function_in_float64
def atan(x: Value) -> Value:
    """Reduced to |q| <= tan(pi/8) by reciprocal and eighth turn, minimax polynomial of degree 23: 0.67 ULP."""
    a = at_most(x.abs(), 2.0**100)
    steep = a > 1
    angle = _first_octant(a.like(1).where(steep, a), a.where(steep, 1.0))
    base, base_low = (a.like(part).where(steep, 0.0) for part in HALF_PI)
    return _offset(base, base_low, a.like(-1).where(steep, 1.0), angle).copysign(x)


@function_in_float64
def atan2(y: Value, x: Value) -> Value:
    """atan of the smaller over the larger side, then the octant: 0.72 ULP; C99's table of special cases."""
    steep, backward = y.abs() > x.abs(), sign_bit(x)
    a, b = _tame(x.abs().where(steep, y.abs()), y.abs().where(steep, x.abs()))
    base, base_low = (
        x.like(half).where(steep, x.like(whole).where(backward, 0.0)) for half, whole in zip(HALF_PI, PI, strict=True)
    )
    result = _offset(base, base_low, x.like(-1).where(steep ^ backward, 1.0), _first_octant(a, b)).copysign(y)
    return (x + y).where(x.is_nan() | y.is_nan(), result)


def _tame(a: Value, b: Value) -> tuple[Value, Value]:
    """The ratio a / b (0 <= a <= b) with b away from 0, infinity, and where products over- or underflow."""
    factor = b.like(2.0**-200).where(b > 2.0**900, b.like(2.0**200).where(b < 2.0**-900, 1.0))
    limit, zero = b.eq(INF), b.eq(0)
    tamed = (a * factor).where(~limit, a.like(1).where(a.eq(INF), 0.0))
    return tamed, (b * factor).where(~(limit | zero), 1.0)


def _asin_tail(s: Value, z: Value) -> Value:
    return s * z * polynomial(z, ASIN)


def _half_complement(a: Value) -> tuple[Value, Value]:
    """asin(sqrt((1 - a) / 2)), half the arc cosine of a >= 1/2, as a leading term and the rest."""
    z = (1 - a) * 0.5
    s = z.sqrt()
    square, error = two_product(s, s)
    s_low = (((z - square) - error) / (s + s)).where(s > 0, 0.0)
    return s, s_low + _asin_tail(s, z)


@function_in_float64
def asin(x: Value) -> Value:
    """Minimax polynomial of degree 27 up to 1/2, pi/2 - 2 asin(sqrt((1 - x) / 2)) above: 0.63 ULP."""
    a = x.abs()
    small = a + _asin_tail(a, a * a)
    s, rest = _half_complement(a)
    high, error = fast_two_sum(a.like(HALF_PI[0]), -2 * s)
    large = high + (error + (HALF_PI[1] - 2 * rest))
    return _inside_unit(x, small.where(a <= 0.5, large).copysign(x))


@function_in_float64
def acos(x: Value) -> Value:
    """pi/2 - asin(x) up to 1/2, 2 asin(sqrt((1 - x) / 2)) above, pi minus that below: 0.60 ULP."""
    a = x.abs()
    high, error = fast_two_sum(a.like(HALF_PI[0]), -x)
    small = high + (error + (HALF_PI[1] - _asin_tail(x, x * x)))
    s, rest = _half_complement(a)
    high, error = fast_two_sum(a.like(PI[0]), -2 * s)
    below = high + (error + (PI[1] - 2 * rest))
    large = below.where(x < 0, 2 * (s + rest))
    return _inside_unit(x, small.where(a <= 0.5, large))


def _inside_unit(x: Value, result: Value) -> Value:
    return result.where(x.abs() <= 1, x.where(x.is_nan(), x.like(NAN)))
