"""Elementwise operations: one record each, an expression and nothing more.

Their gradients are derived (`scalar.py`). The mathematical functions are within 2 units in the last place, with the same
bits wherever an element lies in its array.

>>> import dualgraph as dg
>>> x = dg.tensor([0.0, 1.0], requires_grad=True)
>>> y = dg.exp(x) * 2 + [1.0, 10.0]
>>> dg.sum(y).backward()
>>> y.tolist(), x.grad.tolist()
([3.0, 15.436563491821289], [2.0, 5.436563491821289])
>>> dg.add(dg.tensor([1, 2], dtype="int32"), 0.5)
tensor([1.5, 2.5])
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dualgraph.core.broadcast import meet
from dualgraph.core.mode import current
from dualgraph.core.tensor import Tensor
from dualgraph.dtypes import DTYPES
from dualgraph.errors import DTypeError
from dualgraph.kernels import expr as E
from dualgraph.ops.identity import identity
from dualgraph.ops.registry import register
from dualgraph.ops.scalar import Expression, binary, elementwise_op, unary
from dualgraph.spec import dtype_name, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, DTypeLike


def _numbers(name: str, instruction: str, instead: str) -> Expression:
    """An instruction that has no meaning for bools."""

    def expression(*xs: E.Expr) -> E.Expr:
        if xs[0].dtype == "bool":
            raise DTypeError(
                f"{name}: got bool; it is defined for numbers; use {instead}, or cast with astype(x, 'int64')"
            )
        return E.call(instruction, *xs)

    return expression


# Arithmetic
add = binary("add", doc="x + y", example="[1, 2], 0.5 -> [1.5, 2.5]")
subtract = binary(
    "subtract",
    _numbers("subtract", "sub", "logical_xor(x, y)"),
    doc="x - y; not of two bools",
    example="[1.0, 2.0], [0.5, 3.0] -> [0.5, -1.0]",
)
multiply = binary("multiply", lambda x, y: x * y, doc="x * y", example="[1.0, 2.0], 3 -> [3.0, 6.0]")
divide = binary(
    "divide",
    lambda x, y: x / y,
    floats=True,
    doc="x / y; integers are divided as floats",
    example="[3, 5], 2 -> [1.5, 2.5]",
)
floor_divide = binary(
    "floor_divide", doc="floor(x / y); 0 where an integer divisor is 0", example="[7, -7], 2 -> [3, -4]"
)
remainder = binary(
    "remainder",
    doc="x - y * floor(x / y), with the sign of y; 0 where an integer divisor is 0",
    example="[7, -7], 3 -> [1, 2]",
)
_power = binary(
    "pow",
    expression=lambda x, y: _pow(x, y),
    doc="x to the power y; integers by repeated squaring, wrapped",
    example="[2.0, 3.0], 3 -> [8.0, 27.0]",
)
minimum = binary(
    "minimum",
    doc="The smaller of x and y; NaN if either is NaN; -0.0 < +0.0; equals share the gradient",
    example="[1.0, 5.0], 2.0 -> [1.0, 2.0]",
)
maximum = binary(
    "maximum",
    doc="The larger of x and y; NaN if either is NaN; -0.0 < +0.0; equals share the gradient",
    example="[1.0, 5.0], 2.0 -> [2.0, 5.0]",
)
copysign = binary(
    "copysign",
    floats=True,
    doc="The magnitude of x with the sign of y",
    example="[1.0, -2.0], [-0.0, 3.0] -> [-1.0, 2.0]",
)
atan2 = binary(
    "atan2",
    floats=True,
    doc="The angle of the point (y, x), in (-pi, pi]",
    example="[1.0, 0.0], [0.0, -1.0] -> [1.5707963705062866, 3.1415927410125732]",
)


def _hypot(x: E.Expr, y: E.Expr) -> E.Expr:
    """Squared where squares neither overflow nor vanish: in float64, or scaled by a power of 2."""
    a, b = (E.call("abs", E.cast(v, "float64")) for v in (x, y))
    infinite = E.call("bitwise_or", E.call("isinf", a), E.call("isinf", b))
    down, up = E.literal(1, "float64"), E.literal(1, "float64")
    if DTYPES[x.dtype].highest > 2.0**500:
        large = E.call("maximum", a, b)
        for beyond, factor in ((large > 2.0**500, 2.0**-600), (large < 2.0**-500, 2.0**600)):
            down, up = E.select(beyond, factor, down), E.select(beyond, 1 / factor, up)
        a, b = a * down, b * down
    return E.cast(E.select(infinite, math.inf, E.call("sqrt", a * a + b * b) * up), x.dtype)


def _hypot_slopes(h: E.Expr, x: E.Expr, y: E.Expr) -> tuple[E.Expr, ...]:
    """x / h and y / h, and 0 at the origin, where h is moved away from 0."""
    origin = E.call("eq", h, 0.0)
    return tuple(E.select(origin, 0.0, v / E.select(origin, 1.0, h)) for v in (x, y))


hypot = binary(
    "hypot",
    _hypot,
    floats=True,
    slopes=_hypot_slopes,
    doc="sqrt(x*x + y*y) without overflow on the way; infinite where x or y is; the gradient at (0, 0) is 0",
    example="[3.0, 6.0], [4.0, 8.0] -> [5.0, 10.0]",
)
negative = unary(
    "negative",
    _numbers("negative", "neg", "logical_not(x)"),
    floats=False,
    doc="-x; not of bools",
    example="[1, -2] -> [-1, 2]",
)
abs = unary(
    "abs", floats=False, doc="The absolute value; the derivative at 0 is 0", example="[-1.5, 2.0] -> [1.5, 2.0]"
)
sign = unary(
    "sign",
    _numbers("sign", "sign", "x itself"),
    floats=False,
    doc="-1, 0 or 1; NaN for NaN; not of bools",
    example="[-3, 0, 2] -> [-1, 0, 1]",
)
square = unary("square", floats=False, doc="x * x", example="[3.0, -2.0] -> [9.0, 4.0]")
reciprocal = unary("reciprocal", doc="1 / x", example="[2.0, 4.0] -> [0.5, 0.25]")


def _pow(x: E.Expr, y: E.Expr) -> E.Expr:
    if is_float(x.dtype):
        return E.call("pow", x, y)
    if x.dtype == "bool":
        raise DTypeError("pow: got bool and bool; powers are those of numbers; cast with astype(x, 'int64')")
    one, zero, bits = E.literal(1, x.dtype), E.literal(0, x.dtype), DTYPES[x.dtype].digits
    result, square = one, x
    for bit in range(bits):
        odd = E.call("ne", E.call("bitwise_and", y, E.literal(1 << bit, x.dtype)), zero)
        result, square = E.select(odd, result * square, result), square * square
    # 1/x truncated for negative y: only 1 and -1 have an integer inverse
    inverse = E.select(E.call("eq", x, one), one, E.select(E.call("eq", x, -one), result, zero))
    return E.select(E.call("lt", y, zero), inverse, result)


def power(x: ArrayLike, y: ArrayLike, /) -> Tensor:
    """x to the power y, broadcast together; a Python exponent of 2 squares.

    Floats follow C99 (pow(x, 0) = 1, also of NaN). Integers are multiplied by repeated squaring and wrap; of a negative
    exponent only 1 and -1 have an integer result, others give 0.

    >>> import dualgraph as dg
    >>> dg.power(dg.tensor([2.0, 3.0]), 2).tolist(), dg.power(dg.tensor([3]), 39).tolist()
    ([4.0, 9.0], [4052555153018976267])
    """
    if (
        y.__class__ in (int, float)
        and y == 2
        and isinstance(x, Tensor)
        and (is_float(x.layout.dtype) or (y.__class__ is int and x.layout.dtype != "bool"))
    ):
        return square(x)
    return _power(x, y)


pow = power


# Rounding; the gradient is zero


def _rounded(name: str) -> Expression:
    return lambda x: E.call(name, x) if is_float(x.dtype) else x


floor = unary(
    "floor",
    _rounded("floor"),
    floats=False,
    doc="The largest integer not above x; integers stay as they are",
    example="[1.5, -1.5] -> [1.0, -2.0]",
)
ceil = unary(
    "ceil",
    _rounded("ceil"),
    floats=False,
    doc="The smallest integer not below x; integers stay as they are",
    example="[1.5, -1.5] -> [2.0, -1.0]",
)
round = unary(
    "round",
    _rounded("round"),
    floats=False,
    doc="The nearest integer, ties to even; integers stay as they are",
    example="[0.5, 1.5, -1.2] -> [0.0, 2.0, -1.0]",
)
trunc = unary(
    "trunc",
    _rounded("trunc"),
    floats=False,
    doc="The integer part of x; integers stay as they are",
    example="[1.5, -1.5] -> [1.0, -1.0]",
)

# Exponentials, logarithms, powers
sqrt = unary("sqrt", doc="The square root", example="[4.0, 9.0] -> [2.0, 3.0]")
rsqrt = unary("rsqrt", doc="1 / sqrt(x)", example="[4.0, 0.25] -> [0.5, 2.0]")
exp = unary("exp", doc="e to the x", example="[0.0, 1.0] -> [1.0, 2.7182817459106445]")
exp2 = unary("exp2", doc="2 to the x", example="[0.0, 3.0] -> [1.0, 8.0]")
expm1 = unary("expm1", doc="exp(x) - 1, exact near 0", example="[0.0, 1e-10] -> [0.0, 1.000000013351432e-10]")
log = unary("log", doc="The natural logarithm", example="[1.0, 0.0] -> [0.0, -inf]")
log2 = unary("log2", doc="The logarithm to base 2", example="[1.0, 8.0] -> [0.0, 3.0]")
log10 = unary("log10", doc="The logarithm to base 10", example="[1.0, 1000.0] -> [0.0, 3.0]")
log1p = unary("log1p", doc="log(1 + x), exact near 0", example="[0.0, 1e-10] -> [0.0, 1.000000013351432e-10]")

# Trigonometric, hyperbolic, special
sin = unary("sin", doc="The sine of x radians", example="[0.0, 1.0] -> [0.0, 0.8414710164070129]")
cos = unary("cos", doc="The cosine of x radians", example="[0.0, 1.0] -> [1.0, 0.5403022766113281]")
tan = unary("tan", doc="The tangent of x radians", example="[0.0, 1.0] -> [0.0, 1.5574077367782593]")
asin = unary(
    "asin", doc="The angle in [-pi/2, pi/2] whose sine is x", example="[0.0, 1.0] -> [0.0, 1.5707963705062866]"
)
acos = unary("acos", doc="The angle in [0, pi] whose cosine is x", example="[1.0, 0.0] -> [0.0, 1.5707963705062866]")
atan = unary(
    "atan", doc="The angle in (-pi/2, pi/2) whose tangent is x", example="[0.0, 1.0] -> [0.0, 0.7853981852531433]"
)
sinh = unary("sinh", doc="The hyperbolic sine", example="[0.0, 1.0] -> [0.0, 1.175201177597046]")
cosh = unary("cosh", doc="The hyperbolic cosine", example="[0.0, 1.0] -> [1.0, 1.5430806875228882]")
tanh = unary("tanh", doc="The hyperbolic tangent", example="[0.0, 100.0] -> [0.0, 1.0]")
sigmoid = unary("sigmoid", doc="1 / (1 + exp(-x))", example="[0.0, 100.0] -> [0.5, 1.0]")
erf = unary(
    "erf", doc="The error function 2/sqrt(pi) * integral of exp(-t*t) from 0 to x", example="[0.0, 100.0] -> [0.0, 1.0]"
)

# Comparison and logic
equal = binary(
    "equal",
    lambda x, y: E.call("eq", x, y),
    doc="x == y, as bool; NaN equals nothing",
    example="[1, 2], 2 -> [False, True]",
)
not_equal = binary(
    "not_equal",
    lambda x, y: E.call("ne", x, y),
    doc="x != y, as bool; NaN equals nothing",
    example="[1, 2], 2 -> [True, False]",
)
less = binary(
    "less",
    lambda x, y: E.call("lt", x, y),
    doc="x < y, as bool; NaN is unordered",
    example="[1, 2], 2 -> [True, False]",
)
less_equal = binary(
    "less_equal",
    lambda x, y: E.call("le", x, y),
    doc="x <= y, as bool; NaN is unordered",
    example="[1, 2, 3], 2 -> [True, True, False]",
)
greater = binary(
    "greater",
    lambda x, y: E.call("gt", x, y),
    doc="x > y, as bool; NaN is unordered",
    example="[1, 2, 3], 2 -> [False, False, True]",
)
greater_equal = binary(
    "greater_equal",
    lambda x, y: E.call("ge", x, y),
    doc="x >= y, as bool; NaN is unordered",
    example="[1, 2, 3], 2 -> [False, True, True]",
)


def _logical(name: str) -> Expression:
    return lambda *xs: E.call(name, *[E.cast(x, "bool") for x in xs])


logical_and = binary(
    "logical_and",
    _logical("bitwise_and"),
    doc="Both are true (non-zero), as bool",
    example="[0, 1], [2, 2] -> [False, True]",
)
logical_or = binary(
    "logical_or",
    _logical("bitwise_or"),
    doc="At least one is true (non-zero), as bool",
    example="[0, 1], [0, 0] -> [False, True]",
)
logical_xor = binary(
    "logical_xor",
    _logical("bitwise_xor"),
    doc="Exactly one is true (non-zero), as bool",
    example="[0, 1], [2, 2] -> [True, False]",
)
logical_not = unary(
    "logical_not",
    _logical("bitwise_not"),
    floats=False,
    doc="x is false (zero), as bool",
    example="[0, 3] -> [True, False]",
)
isnan = unary("isnan", doc="x is not a number, as bool", example="[0.0, float('nan')] -> [False, True]")
isinf = unary("isinf", doc="x is infinite, as bool", example="[0.0, -float('inf')] -> [False, True]")
isfinite = unary(
    "isfinite",
    doc="x is neither infinite nor NaN, as bool",
    example="[0.0, float('nan'), float('inf')] -> [True, False, False]",
)
signbit = unary(
    "signbit",
    doc="The sign bit of x as bool, also of zeros and NaN",
    example="[0.0, -0.0, -1.0] -> [False, True, True]",
)


# Bits
def _bits(name: str, instruction: str, bools: bool = True) -> Expression:
    kinds = "integers and bools" if bools else "integers"

    def expression(*xs: E.Expr) -> E.Expr:
        if is_float(xs[0].dtype) or (xs[0].dtype == "bool" and not bools):
            raise DTypeError(f"{name}: got {xs[0].dtype}; bits are those of {kinds}; cast with astype(x, 'int32')")
        return E.call(instruction, *xs)

    return expression


bitwise_and = binary(
    "bitwise_and",
    _bits("bitwise_and", "bitwise_and"),
    doc="Bits set in both; integers and bools only",
    example="[12, 5], 6 -> [4, 4]",
)
bitwise_or = binary(
    "bitwise_or",
    _bits("bitwise_or", "bitwise_or"),
    doc="Bits set in either; integers and bools only",
    example="[12, 5], 6 -> [14, 7]",
)
bitwise_xor = binary(
    "bitwise_xor",
    _bits("bitwise_xor", "bitwise_xor"),
    doc="Bits set in exactly one; integers and bools only",
    example="[12, 5], 6 -> [10, 3]",
)
bitwise_invert = unary(
    "bitwise_invert",
    _bits("bitwise_invert", "bitwise_not"),
    floats=False,
    doc="Every bit inverted",
    example="[0, 5] -> [-1, -6]",
)
bitwise_left_shift = binary(
    "bitwise_left_shift",
    _bits("bitwise_left_shift", "left_shift", bools=False),
    doc="x * 2**y, wrapped; integers only",
    example="[1, 5], 2 -> [4, 20]",
)
bitwise_right_shift = binary(
    "bitwise_right_shift",
    _bits("bitwise_right_shift", "right_shift", bools=False),
    doc="floor(x / 2**y); integers only",
    example="[8, -5], 1 -> [4, -3]",
)

_WHERE = register(elementwise_op("where", lambda c, x, y: E.select(c, x, y), 3, conditions=1, copies=True))


def where(condition: ArrayLike, x: ArrayLike, y: ArrayLike, /) -> Tensor:
    """x where the condition is true (non-zero), else y; the three broadcast together.

    x and y meet in one dtype, and each gets the gradient only where it was chosen. Raises `ShapeError`.

    >>> import dualgraph as dg
    >>> dg.where(dg.tensor([True, False]), 1.0, dg.tensor([5.0, 6.0])).tolist()
    [1.0, 6.0]
    """
    front = current()
    condition = condition if isinstance(condition, Tensor) else front.lift(condition)
    x, y = meet("where", (x, y))
    return front.apply(_WHERE, (condition, x, y), {})


def _cast_vjp(g: Any, out: Any, x: Any, *, dtype: str) -> Any:
    return astype(g, x.layout.dtype)


_ASTYPE = register(elementwise_op("astype", lambda x, *, dtype: E.cast(x, dtype), 1, vjp=(_cast_vjp,), copies=True))


def astype(x: ArrayLike, dtype: DTypeLike, /) -> Tensor:
    """x converted to another dtype: floats to integers toward zero (saturating; NaN gives 0), anything to bool as x != 0.

    The gradient is converted back. None keeps the dtype. Raises `DTypeError` for a dtype that does not exist here.

    >>> import dualgraph as dg
    >>> dg.astype(dg.tensor([1.7, -1.7, 1e20]), "int32").tolist()
    [1, -1, 2147483647]
    """
    front = current()
    x = x if isinstance(x, Tensor) else front.lift(x)
    have = x.layout.dtype
    if dtype.__class__ is str and dtype == have:
        return identity(x)
    name = dtype_name(dtype, have)
    return identity(x) if name == have else front.apply(_ASTYPE, (x,), {"dtype": name})


def _bounded(beyond: str) -> Expression:
    def expression(x: E.Expr, bound: E.Expr) -> E.Expr:
        limited = E.select(E.call(beyond, x, bound), bound, x)
        if not is_float(x.dtype):
            return limited
        unordered = E.call("bitwise_or", E.call("isnan", x), E.call("isnan", bound))
        return E.select(unordered, math.nan, limited)

    return expression


_CLIP_MIN = binary("clip_min", _bounded("lt"), doc="low where x < low, else x; NaN where either is NaN")
_CLIP_MAX = binary("clip_max", _bounded("gt"), doc="high where x > high, else x; NaN where either is NaN")


def clip(x: ArrayLike, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
    """x limited to [min, max]; a bound of None does not limit, bounds may be tensors, and max wins over a larger min.

    The gradient goes to x within the bounds and on them, beyond them to the bound. NaN, of x or of a bound, gives NaN and
    has the gradient 0.

    >>> import dualgraph as dg
    >>> dg.clip(dg.tensor([-2.0, 0.5, 9.0]), 0.0, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    x = x if isinstance(x, Tensor) else current().lift(x)
    if min is not None:
        x = _CLIP_MIN(x, min)
    return x if max is None else _CLIP_MAX(x, max)


__all__ = [
    "abs",
    "acos",
    "add",
    "asin",
    "astype",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "pow",
    "power",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]
