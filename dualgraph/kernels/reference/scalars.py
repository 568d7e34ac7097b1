"""`NUMPY`: the meaning of every scalar instruction, as a function of arrays of equal shape in row-major memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.dtypes import DTYPES, NUMPY_DTYPES, converted, widened
from dualgraph.spec import is_float

Array = np.ndarray[Any, Any]


def _is_float(x: Array) -> bool:
    return bool(x.dtype.kind == "f")


def _maximum(x: Array, y: Array) -> Array:
    """IEEE 754-2019 maximum: NaN propagates (the first one), -0 < +0; `np.maximum` leaves the sign of zero open."""
    if not _is_float(x):
        return np.maximum(x, y)
    return np.where(np.isnan(x) | (x > y) | ((x == y) & np.signbit(y)), x, y)


def _minimum(x: Array, y: Array) -> Array:
    if not _is_float(x):
        return np.minimum(x, y)
    return np.where(np.isnan(x) | (x < y) | ((x == y) & np.signbit(x)), x, y)


def _guarded(divide: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    """Integer division with the result 0 where the divisor is 0."""

    def division(x: Array, y: Array) -> Array:
        if _is_float(x):
            return divide(x, y)
        result = np.where(y == 0, x.dtype.type(0), divide(x, np.where(y == 0, y.dtype.type(1), y)))
        return result.astype(x.dtype, copy=False)  # NumPy divides bools as int8

    return division


def _one(x: Array) -> Any:
    return x.dtype.type(1)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow: the exponent is never positive."""
    e: Array = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, _one(x), e) / (_one(x) + e)
    return result


def _erf(x: Array) -> Array:
    values: Any = np.frompyfunc(math.erf, 1, 1)(x.astype(np.float64))
    return np.asarray(values, x.dtype)


def _pow(x: Array, y: Array) -> Array:
    """An exponent of 2 squares. NumPy takes short cuts (x * x, sqrt) where one exponent serves all elements: not here."""
    powers = np.power(np.stack((x, x)), np.stack((y, y)))[0]
    return np.where(y == 2, x * x, powers)


def _unsigned(x: Array) -> Array:
    return x.view(f"u{x.dtype.itemsize}")


def _bits(x: Array) -> int:
    return int(8 * x.dtype.itemsize)


def _too_far(x: Array, y: Array) -> Array:
    return (y < 0) | (y >= _bits(x))


def _within(x: Array, y: Array) -> Array:
    masked: Array = y & y.dtype.type(_bits(x) - 1)
    return masked


def _left_shift(x: Array, y: Array) -> Array:
    return np.where(_too_far(x, y), x.dtype.type(0), np.left_shift(x, _within(x, y)))


def _right_shift(x: Array, y: Array) -> Array:
    """Fills with the sign; a shift by the width or more leaves the sign alone."""
    return np.right_shift(x, np.where(_too_far(x, y), y.dtype.type(_bits(x) - 1), y))


def _logical_right_shift(x: Array, y: Array) -> Array:
    shifted = np.right_shift(_unsigned(x), _unsigned(_within(x, y))).view(x.dtype)
    return np.where(_too_far(x, y), x.dtype.type(0), shifted)


def _mul_high_u32(x: Array, y: Array) -> Array:
    """The upper 32 bits of the product of two unsigned 32-bit integers, which int32 carries."""
    product = _unsigned(x).astype(np.uint64) * _unsigned(y).astype(np.uint64)
    return np.right_shift(product, np.uint64(32)).astype(np.uint32).view(np.int32)


def cast(x: Array, dtype: str) -> Array:
    """Conversion: float to integer truncates and saturates (NaN gives 0), to bool is `x != 0`, int64 to int32 wraps."""
    if dtype == "bool":
        return np.not_equal(x, 0)
    if not _is_float(x) or is_float(dtype):
        return converted(x, dtype)
    to = NUMPY_DTYPES[dtype]
    low, high = DTYPES[dtype].lowest, DTYPES[dtype].highest
    limit = x.dtype.type(-float(low))
    inside = (x > -limit) & (x < limit)
    saturated = np.where(x >= limit, to.type(high), np.where(x <= -limit, to.type(low), to.type(0)))
    return np.where(inside, np.where(inside, x, x.dtype.type(0)).astype(to), saturated)


NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "minimum": _minimum,
    "maximum": _maximum,
    "div": np.divide,
    "floor_divide": _guarded(np.floor_divide),
    "remainder": _guarded(np.remainder),
    "copysign": np.copysign,
    "neg": np.negative,
    "abs": np.absolute,
    "sign": np.sign,
    "square": lambda x: np.multiply(x, x),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sqrt": np.sqrt,
    "reciprocal": lambda x: np.divide(_one(x), x),
    "rsqrt": lambda x: np.divide(_one(x), np.sqrt(x)),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "pow": _pow,
    "atan2": np.arctan2,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "signbit": np.signbit,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "left_shift": _left_shift,
    "right_shift": _right_shift,
    "logical_right_shift": _logical_right_shift,
    "mul_high_u32": _mul_high_u32,
    "bitwise_not": np.invert,
    "select": np.where,
    "widen": widened,
    "cast": cast,  # the one row that also takes the dtype of its result
}
