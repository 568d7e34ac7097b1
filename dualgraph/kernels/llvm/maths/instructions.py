"""The table of scalar instructions in LLVM IR: one row each, for vectors of any width.

`dualgraph.kernels.expr.INSTRUCTIONS` says what an instruction means; a row here says how it is emitted. All operands
of a row have one dtype (but `select`, whose first is bool). Rows are pure and lane-wise and never trap.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgraph.dtypes import DTYPES, STORED
from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.maths import division, exp, log, stored, trig
from dualgraph.kernels.llvm.maths.arithmetic import INF, sign_bit

Emitter = Callable[[Lanes, tuple[Value, ...]], Value]


def _row(emit: Callable[..., Value]) -> Emitter:
    return lambda lanes, args: emit(*args)


def _add(x: Value, y: Value) -> Value:
    return x | y if x.dtype == "bool" else x + y


def _mul(x: Value, y: Value) -> Value:
    return x & y if x.dtype == "bool" else x * y


def _minimum(x: Value, y: Value) -> Value:
    return x.lanes.intrinsic("minimum", x, y) if x.is_float else x.where(x < y, y)


def _maximum(x: Value, y: Value) -> Value:
    return x.lanes.intrinsic("maximum", x, y) if x.is_float else x.where(x > y, y)


def _abs(x: Value) -> Value:
    if x.dtype == "bool":
        return x
    return x.abs() if x.is_float else (-x).where(x < 0, x)


def _sign(x: Value) -> Value:
    """-1, 0 or 1; NaN stays; of both zeros +0, as NumPy has it."""
    result = x.like(1).where(x > 0, x.like(-1).where(x < 0, 0))
    return x.where(x.is_nan(), result) if x.is_float else result


def _sqrt(x: Value) -> Value:
    """NaN by its bits: of `isnan(sqrt(x)) ? NaN : sqrt(x)` LLVM makes `x < 0 ? NaN : sqrt(x)`, and of that sqrt(x)."""
    root = x.sqrt()
    record = DTYPES[x.dtype]
    magnitude = root.bits() & ((1 << (record.bits - 1)) - 1)
    return x.lanes.literal(x.dtype, record.one_nan).where(magnitude > record.infinity, root)


def _intrinsic(name: str) -> Emitter:
    return lambda lanes, args: lanes.intrinsic(name, *args)


def _shift(instruction: str) -> Emitter:
    """A shift by a count outside 0 … bits - 1 moves every bit out."""

    def emit(lanes: Lanes, args: tuple[Value, ...]) -> Value:
        x, count = args
        bits = DTYPES[x.dtype].bits
        inside = count.below_unsigned(bits)
        if instruction == "ashr":
            return lanes.binary(instruction, x, count.where(inside, bits - 1))
        return lanes.binary(instruction, x, count.where(inside, 0)).where(inside, 0)

    return emit


def _mul_high_u32(x: Value, y: Value) -> Value:
    lanes = x.lanes
    product = lanes.convert("zext", x, "int64") * lanes.convert("zext", y, "int64")
    return lanes.convert("trunc", product.shift_right_logical(32), "int32")


EMITTERS: dict[str, Emitter] = {
    # arithmetic
    "add": _row(_add),
    "sub": _row(lambda x, y: x - y),
    "mul": _row(_mul),
    "div": _row(lambda x, y: x / y),
    "neg": _row(lambda x: -x),
    "floor_divide": _row(division.floor_divide),
    "remainder": _row(division.remainder),
    "minimum": _row(_minimum),
    "maximum": _row(_maximum),
    "abs": _row(_abs),
    "sign": _row(_sign),
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("roundeven"),
    "trunc": _intrinsic("trunc"),
    "sqrt": _row(_sqrt),
    "rsqrt": _row(lambda x: 1 / x.sqrt()),
    "square": _row(lambda x: _mul(x, x)),
    "reciprocal": _row(lambda x: 1 / x),
    # exponentials, logarithms, powers
    "exp": _row(exp.exp),
    "exp2": _row(exp.exp2),
    "expm1": _row(exp.expm1),
    "log": _row(log.log),
    "log2": _row(log.log2),
    "log10": _row(log.log10),
    "log1p": _row(log.log1p),
    "pow": _row(log.pow),
    # circular and hyperbolic functions
    "sin": _row(trig.sin),
    "cos": _row(trig.cos),
    "tan": _row(trig.tan),
    "asin": _row(trig.asin),
    "acos": _row(trig.acos),
    "atan": _row(trig.atan),
    "atan2": _row(trig.atan2),
    "sinh": _row(exp.sinh),
    "cosh": _row(exp.cosh),
    "tanh": _row(exp.tanh),
    "sigmoid": _row(exp.sigmoid),
    "erf": _row(exp.erf),
    # comparison
    "eq": _row(lambda x, y: x.eq(y)),
    "ne": _row(lambda x, y: x.ne(y)),
    "lt": _row(lambda x, y: x < y),
    "le": _row(lambda x, y: x <= y),
    "gt": _row(lambda x, y: x > y),
    "ge": _row(lambda x, y: x >= y),
    # bits
    "bitwise_and": _row(lambda x, y: x & y),
    "bitwise_or": _row(lambda x, y: x | y),
    "bitwise_xor": _row(lambda x, y: x ^ y),
    "bitwise_not": _row(lambda x: ~x),
    "left_shift": _shift("shl"),
    "right_shift": _shift("ashr"),
    "logical_right_shift": _shift("lshr"),
    "mul_high_u32": _row(_mul_high_u32),
    # classification and choice
    "isnan": _row(lambda x: x.is_nan()),
    "isinf": _row(lambda x: x.abs().eq(INF)),
    "isfinite": _row(lambda x: x.abs() < INF),
    "signbit": _row(sign_bit),
    "copysign": _intrinsic("copysign"),
    "widen": _row(stored.widened),
    "select": lambda lanes, args: lanes.select(*args),
}


def cast(lanes: Lanes, x: Value, dtype: str) -> Value:
    """Convert between dtypes. Float to integer truncates and saturates, NaN gives 0; integers wrap; x != 0 is true."""
    if x.dtype == dtype:
        return x
    if dtype in STORED:
        return stored.rounded(x, dtype)
    if dtype == "bool":
        return x.ne(0)
    have, want = DTYPES[x.dtype], DTYPES[dtype]
    if have.kind == "float" and want.kind == "integer":
        return lanes.intrinsic("fptosi.sat", x, dtype=dtype)
    return lanes.convert(_CONVERSIONS[have.kind, want.kind][want.bits > have.bits], x, dtype)


# By the kinds: LLVM's conversion to fewer bits and that to more.
_CONVERSIONS = {
    ("bool", "integer"): ("zext", "zext"),
    ("bool", "float"): ("uitofp", "uitofp"),
    ("integer", "integer"): ("trunc", "sext"),
    ("integer", "float"): ("sitofp", "sitofp"),
    ("float", "float"): ("fptrunc", "fpext"),
}
