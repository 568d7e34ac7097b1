"""Exponentials and what is made of them: exp, exp2, expm1, sinh, cosh, tanh, sigmoid, erf.

exp follows Cody and Waite (1980): x = k ln 2 + r with ln 2 in two parts, a minimax polynomial in r, then 2**k in two
factors so that the result is rounded once even where it is subnormal.

The errors given, here and in the other families, are the largest found over every seventh float32 and two million
float64; functions computed in float64 have 0.51 ULP in float32.
"""

from __future__ import annotations

from typing import NamedTuple

from dualgraph.dtypes import COMPUTED_FLOATS, Table
from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.maths.arithmetic import (
    at_least,
    at_most,
    fast_two_sum,
    function,
    function_in_float64,
    nearest_integer,
    polynomial,
    power_of_two,
    scale,
    two_sum,
)

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
# ln 2 in two parts; the first has so few bits that its product with any exponent is exact.
LN2 = Table(
    "coefficients",
    COMPUTED_FLOATS,
    {
        "float32": (float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cf79abcap-20")),
        "float64": (float.fromhex("0x1.62e42fefa3p-1"), float.fromhex("0x1.3de6af278ece6p-42")),
    },
)


class Coefficients(NamedTuple):
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r², |r| <= ln 2 / 2
    exp2: tuple[float, ...]  # (2**r - 1) / r, |r| <= 1/2
    tanh: tuple[float, ...]  # (tanh(x) - x) / x³ in x², x <= 0.625
    erf: tuple[float, ...]  # erf(x) / x - 1 in x², x <= 1
    log_erfc: tuple[float, ...]  # -log(erfc(1 + t)), 0 <= t <= bound - 1
    exp_bounds: tuple[float, float]  # exp is 0 below, infinite above
    exp2_bounds: tuple[float, float]
    expm1_bound: float  # expm1 is -1 below
    tanh_bound: float  # tanh is 1 above
    erf_bound: float  # erf is 1 above


COEFFICIENTS = Table(
    "coefficients",
    COMPUTED_FLOATS,
    {
        "float32": Coefficients(
            exp=(0.49999994, 0.16666517, 0.041668154, 0.008368911, 0.0013827834),
            exp2=(0.6931472, 0.2402265, 0.05550406, 0.009618109, 0.0013336737, 0.00015381776, 1.4642886e-05),
            tanh=(-0.3333333, 0.13333221, -0.05394818, 0.021706894, -0.0081900135, 0.0021526841),
            erf=(0.12837917, -0.3761263, 0.11283618, -0.026855126, 0.0051907334, -0.00080307503, 7.920303e-05),
            log_erfc=(1.8496056, 2.6389627, 0.8431724, 0.041262202, -0.009452629, 0.001480961, -9.005041e-05),
            exp_bounds=(-104.0, 89.0),
            exp2_bounds=(-151.0, 129.0),
            expm1_bound=-20.0,
            tanh_bound=10.0,
            erf_bound=4.0,
        ),
        "float64": Coefficients(
            exp=(
                0.5, 0.16666666666666682, 0.04166666666666639, 0.008333333333317337, 0.0013888888889045043,
                0.00019841269896464465, 2.4801587008856266e-05, 2.7557234207538906e-06, 2.7557534405742876e-07,
                2.5112411790805655e-08, 2.0837741692293136e-09,
            ),
            exp2=(
                0.6931471805599453, 0.24022650695910072, 0.055504108664823484, 0.00961812910762848, 0.0013333558145986943,
                0.00015403530393366126, 1.5252734227094192e-05, 1.3215486813959708e-06, 1.0177902266198684e-07,
                7.054894873569603e-09, 4.478406898099919e-10, 2.5733247040137067e-11,
            ),
            tanh=(
                -0.33333333333333315, 0.13333333333329997, -0.05396825396617867, 0.021869488471606042,
                -0.008863234353829451, 0.003592114374068438, -0.0014557281877463923, 0.000589460758337538,
                -0.00023703543802065257, 9.159824288667826e-05, -3.0225699945950114e-05, 6.058744617583729e-06,
            ),
            erf=(
                0.1283791670955126, -0.3761263890318411, 0.11283791670972047, -0.026866170648277298, 0.005223977655644032,
                -0.0008548328732695555, 0.00012055394227378962, -1.4927092177168592e-05, 1.6484684103065206e-06,
                -1.6597818463201346e-07, 1.6300121188505835e-08, -1.7618249897680974e-09, 1.6360723606600723e-10,
            ),
            log_erfc=(
                1.8496055099332482, 2.6389675142347957, 0.8431072563581757, 0.04156109805458233, -0.010033825542733348,
                0.001977903893396842, -0.00023732928286845356, -2.6253813122672805e-05, 2.709810896065712e-05,
                -9.495034638943335e-06, 1.9003406096177562e-06, 2.6644096388777063e-08, -2.3535393803636912e-07,
                1.378233773324868e-07, -5.564527671578028e-08, 1.7463653618502537e-08, -4.242134817468251e-09,
                7.64971207761463e-10, -9.559960051942416e-11, 7.34196429809626e-12, -2.598105513199435e-13,
            ),
            exp_bounds=(-746.0, 710.0),
            exp2_bounds=(-1076.0, 1025.0),
            expm1_bound=-40.0,
            tanh_bound=20.0,
            erf_bound=6.0,
        ),
    },
)  # fmt: skip

SINH = (
    0.16666666666666666, 0.00833333333333357, 0.00019841269841066293, 2.755731930723979e-06, 2.5052090171106324e-08,
    1.606123455825404e-10, 7.51048479185274e-13, 6.2781906131896875e-15,
)  # fmt: skip


class Exponential(NamedTuple):
    """exp(x) = 2**k · (1 + r + tail), with r + tail rounded only in `tail`, which is small."""

    k: Value
    r: Value
    tail: Value

    def reduced(self) -> Value:
        """exp(x) / 2**k, between 0.7 and 1.42."""
        return 1 + (self.r + self.tail)

    def reduced_parts(self) -> tuple[Value, Value]:
        """`reduced` as an unevaluated sum."""
        high, error = fast_two_sum(self.r.like(1), self.r)
        return high, error + self.tail


def split_exp(x: Value, low: Value | None = None) -> Exponential:
    """The parts of exp(x + low), for x within the bounds of exp."""
    first, second = LN2[x.dtype]
    k_float, k = nearest_integer(x * LOG2_E)
    exact = x - k_float * first
    correction = k_float * second if low is None else k_float * second - low
    r = exact - correction
    lost = (exact - r) - correction
    return Exponential(k, r, r * r * polynomial(r, COEFFICIENTS[x.dtype].exp) + lost)


def _exp_moderate(x: Value) -> Value:
    """exp where neither x nor the result is extreme: 2**k in one factor."""
    parts = split_exp(x)
    return parts.reduced() * power_of_two(parts.k)


@function
def exp(x: Value) -> Value:
    """Cody and Waite's reduction, minimax polynomial of degree 6 (float32) or 12 (float64): 0.89 ULP."""
    low, high = COEFFICIENTS[x.dtype].exp_bounds
    parts = split_exp(at_most(at_least(x, low), high))
    return scale(parts.reduced(), parts.k)


@function
def exp2(x: Value) -> Value:
    """x = k + r is exact; 2**r by a minimax polynomial of degree 7 or 12: 1.21 ULP."""
    c = COEFFICIENTS[x.dtype]
    low, high = c.exp2_bounds
    x = at_most(at_least(x, low), high)
    k_float, k = nearest_integer(x)
    r = x - k_float
    return scale(1 + r * polynomial(r, c.exp2), k)


@function
def expm1(x: Value) -> Value:
    """2**k · ((1 - 2**-k) + r + tail), where the first sum is kept exactly (two_sum): 1.16 ULP."""
    c = COEFFICIENTS[x.dtype]
    parts = split_exp(at_most(at_least(x, c.expm1_bound), c.exp_bounds[1]))
    k = parts.k
    shrunk = power_of_two(-k.where(k < 64, 64))
    high, low = two_sum(1 - shrunk, parts.r)
    result = scale(high + (low + parts.tail), k)
    return x.where(x.eq(0), result)


@function_in_float64
def sinh(x: Value) -> Value:
    """Odd minimax polynomial below 1, (exp(x) - exp(-x)) / 2 with an unrounded exp above: 0.78 ULP."""
    a = at_most(x.abs(), 720.0)
    z = a * a
    small = a + a * z * polynomial(z, SINH)
    return small.where(a < 1, _half_exp_plus(a, -1)).copysign(x)


@function_in_float64
def cosh(x: Value) -> Value:
    """(exp(x) + exp(-x)) / 2 with an unrounded exp: 0.88 ULP."""
    return _half_exp_plus(at_most(x.abs(), 720.0), 1)


def _half_exp_plus(x: Value, sign: int) -> Value:
    """(exp(x) + sign · exp(-x)) / 2 for x >= 0."""
    parts = split_exp(x)
    high, low = parts.reduced_parts()
    k = parts.k
    mirrored = power_of_two(-2 * k.where(k < 64, 64)) / (high + low)
    return scale(high + (low + sign * mirrored), k - 1)


@function
def tanh(x: Value) -> Value:
    """Odd minimax polynomial below 0.625, 1 - 2 / (exp(2x) + 1) above: 1.32 ULP."""
    c = COEFFICIENTS[x.dtype]
    a = at_most(x.abs(), c.tanh_bound)
    z = a * a
    small = a + a * z * polynomial(z, c.tanh)
    large = 1 - 2 / (_exp_moderate(a + a) + 1)
    return small.where(a < 0.625, large).copysign(x)


@function
def sigmoid(x: Value) -> Value:
    """1 / (1 + e) or e / (1 + e) with e = exp(-|x|): no overflow, and gradual underflow on the negative side.

    The rounding errors of e and 1 + e are put back to first order, d(n / d) = (dn - n / d · dd) / d: 1.16 ULP.
    """
    magnitude = at_most(x.abs(), -COEFFICIENTS[x.dtype].exp_bounds[0])
    parts = split_exp(-magnitude)
    e, e_error = (scale(part, parts.k) for part in fast_two_sum(*parts.reduced_parts()))
    negative = x < 0
    denominator, denominator_error = fast_two_sum(e.like(1), e)
    quotient = e.where(negative, 1.0) / denominator
    inverse = (1 - quotient).where(negative, quotient)
    numerator_error = e_error.where(negative, 0.0)
    return quotient + (numerator_error - quotient * (denominator_error + e_error)) * inverse


@function
def erf(x: Value) -> Value:
    """Odd minimax polynomial below 1; above, 1 - exp(-q(x)), q a fit of -log(erfc) weighted by erfc: 1.28 ULP."""
    c = COEFFICIENTS[x.dtype]
    a = at_most(x.abs(), c.erf_bound)
    small = a + a * polynomial(a * a, c.erf)
    large = 1 - _exp_moderate(-polynomial(a - 1, c.log_erfc))
    return small.where(a < 1, large).copysign(x)
