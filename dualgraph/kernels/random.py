"""Random numbers as scalar expressions: element i of draw d under seed s is a pure function of (s, d, i).

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11): ten
rounds of a bijection on a 128-bit counter under a 64-bit key. It has no state to share: every element computes its own
block of four 32-bit words, so random numbers are ordinary `Loop` code that fuses, runs in any order and gives the same
bits on every device. `seed` and `draw` are int64 scalar expressions; the element's number is `expr.index()`.

    counter = (low(index), high(index), low(draw), high(draw))        key = (low(seed), high(seed))

int32 carries the unsigned words: sums and products wrap, `mul_high_u32` gives the upper half of a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dualgraph.dtypes import COMPUTED_FLOATS, DTYPES, Table
from dualgraph.kernels import expr as E
from dualgraph.kernels.expr import Expr

Words = tuple[Expr, Expr, Expr, Expr]

# The constants of the paper's table 2 (multipliers) and section 4.3 (Weyl sequence: golden ratio, sqrt(3) - 1).
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF


def philox4x32(counter: Words, key: tuple[Expr, Expr], rounds: int = 10) -> Words:
    """The block of four words of a counter under a key, all int32 expressions."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    m0, m1 = map(_word, MULTIPLIERS)
    for number in range(rounds):
        if number:
            k0, k1 = k0 + _word(WEYL[0]), k1 + _word(WEYL[1])
        high0, low0 = E.call("mul_high_u32", x0, m0), x0 * m0
        high1, low1 = E.call("mul_high_u32", x2, m1), x2 * m1
        x0, x1, x2, x3 = _xor(_xor(high1, x1), k0), low1, _xor(_xor(high0, x3), k1), low0
    return x0, x1, x2, x3


def block(seed: Expr, draw: Expr) -> Words:
    """The four words that belong to this element of the domain in the given draw."""
    index = E.index()
    return philox4x32((_low(index), _high(index), _low(draw), _high(draw)), (_low(seed), _high(seed)))


def uniform(seed: Expr, draw: Expr, dtype: str) -> Expr:
    """Uniform on [0, 1): as many random bits as the dtype has significant ones, times 2^-bits; every value is exact."""
    w0, w1, _, _ = block(seed, draw)
    return _unit(w0, w1, dtype)


def normal(seed: Expr, draw: Expr, dtype: str) -> Expr:
    """Standard normal, by the cosine branch of Box and Muller.

    sqrt(-2 log u) cos(2 pi v) with u in (0, 1] of 32 bits (float32: |x| < 6.67) or 53 bits (float64: |x| < 8.58), and v
    uniform on [0, 1), both from words of one block ("A Note on the Generation of Random Normal Deviates", 1958).
    """
    w0, w1, w2, w3 = block(seed, draw)
    dtype = DTYPES[dtype].compute
    random, bits = _ONE_OR_TWO_WORDS[dtype]
    u = E.cast(random(w0, w1) + 1, dtype) * 2.0**-bits
    radius = E.call("sqrt", E.call("log", u) * -2.0)
    return radius * E.call("cos", _unit(w2, w3, dtype) * (2.0 * math.pi))


def bernoulli(seed: Expr, draw: Expr, p: Expr) -> Expr:
    """True with probability p (a float expression): `uniform < p`, so never for p = 0 and always for p = 1."""
    return E.call("lt", uniform(seed, draw, p.dtype), p)


def integers(seed: Expr, draw: Expr, low: Expr, high: Expr) -> Expr:
    """An int64 with low <= value < high: the upper half of a 64-bit random word times (high - low).

    The multiplication method of Lemire ("Fast Random Integer Generation in an Interval", 2019) without its rejection
    step, which would make the number of words vary: each probability is off by less than 2^-64. Where high <= low the
    value is meaningless; the caller checks.
    """
    w0, w1, _, _ = block(seed, draw)
    return low + _mul_high_u64(_unsigned(w0), _unsigned(w1), high - low)


def _word(value: int) -> Expr:
    """An unsigned 32-bit constant as the int32 with the same bits."""
    return E.literal(value - 2**32 if value >= 2**31 else value, "int32")


def _xor(x: Expr, y: Expr) -> Expr:
    return E.call("bitwise_xor", x, y)


def _low(x: Expr) -> Expr:
    return E.cast(x, "int32")


def _high(x: Expr) -> Expr:
    return E.cast(_shift(x, 32), "int32")


def _shift(x: Expr, places: int) -> Expr:
    return E.call("logical_right_shift", x, places)


def _lower32(x: Expr) -> Expr:
    return E.call("bitwise_and", x, WORD)


def _unsigned(word: Expr) -> Expr:
    """An int32 that carries an unsigned word, as the int64 of the same unsigned value."""
    return _lower32(E.cast(word, "int64"))


def _bits53(w0: Expr, w1: Expr) -> Expr:
    """53 random bits as an int64: all of w0 above the upper 21 of w1."""
    return E.call("bitwise_or", E.call("left_shift", _unsigned(w0), 21), _shift(_unsigned(w1), 11))


# Random bits as an integer, of which `normal` takes the logarithm.
_ONE_OR_TWO_WORDS: Table[tuple[Callable[[Expr, Expr], Expr], int]] = Table(
    "normal numbers", COMPUTED_FLOATS, {"float32": (lambda w0, w1: _unsigned(w0), 32), "float64": (_bits53, 53)}
)


def _unit(w0: Expr, w1: Expr, dtype: str) -> Expr:
    digits = DTYPES[dtype].digits
    word = _shift(w0, 32 - digits) if digits < 32 else _bits53(w0, w1)
    return E.cast(word, DTYPES[dtype].compute) * 2.0**-digits


def _mul_high_u64(x_low: Expr, x_high: Expr, y: Expr) -> Expr:
    """The upper 64 bits of a 128-bit product, by the school method on 32-bit halves."""
    y_low, y_high = _lower32(y), _shift(y, 32)
    low_high, high_low = x_low * y_high, x_high * y_low
    middle = _shift(x_low * y_low, 32) + _lower32(low_high) + _lower32(high_low)
    return x_high * y_high + _shift(low_high, 32) + _shift(high_low, 32) + _shift(middle, 32)
