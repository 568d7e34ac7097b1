"""Scalar expressions: the one language in which kernels are written.

An expression is an immutable DAG of scalar instructions over a kernel's operands. A scalar expression fixes every
rounding, so composing expressions (which is what fusion does) cannot change a bit. Each instruction is one row of
`INSTRUCTIONS`: its operands, the dtypes it is defined for, what it costs. Three more tables have one row of it each: what
it means (`kernels.reference.scalars.NUMPY`), its derivative (`kernels.derivative.DERIVATIVES`) and its machine code
(`kernels.llvm.maths.instructions.EMITTERS`).

`linearise` turns expressions into `Code`: a tuple of instructions in which equal subexpressions appear once. Code is
what kernel records hold: it can be hashed, printed and compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from dualgraph.dtypes import DTYPES, NUMPY_DTYPES, STORED, scalar_array
from dualgraph.dtypes import widened as wide_array
from dualgraph.errors import ArgumentError, DTypeError, shown
from dualgraph.kernels import monoids
from dualgraph.spec import dtype_name, is_float

if TYPE_CHECKING:
    from dualgraph.types import DTypeLike, Number


class Instr(NamedTuple):
    """One instruction of linear code: `args` are positions of earlier instructions in the same code."""

    op: str
    args: tuple[int, ...]
    dtype: str
    attr: Any = None  # input: operand number; literal: the value's bits (see `literal_bits`); fold: monoid name


Code = tuple[Instr, ...]

# Leaves and folds are instructions too, but not rows of the table: they have no arithmetic of their own.
INPUT = "input"  # operand number `attr`
LITERAL = "literal"  # a constant; `attr` holds its bits
INDEX = "index"  # int64: linear (row-major) position in the kernel's domain
POSITION = "position"  # int64: linear position along the folded axes
FOLD = "fold"  # reduces its argument along the folded axes with the monoid named by `attr`
LEAVES = (INPUT, LITERAL, INDEX, POSITION)


class Expr:
    """A scalar expression. Build with operators and the functions of this module (`call`, `literal`, …)."""

    __slots__ = ("args", "attr", "dtype", "op")
    __array_ufunc__: None = None  # NumPy's scalars and arrays on the left leave the operators to us
    if TYPE_CHECKING:

        def __hash__(self) -> int: ...
    else:
        __hash__ = object.__hash__

    op: str
    args: tuple[Expr, ...]
    dtype: str
    attr: Any

    def __init__(self, op: str, args: tuple[Expr, ...], dtype: str, attr: Any = None):
        self.op, self.args, self.dtype, self.attr = op, args, dtype, attr

    def __repr__(self) -> str:
        from_args = ", ".join(map(repr, self.args))
        return f"{self.op}({from_args})" if self.args else f"{self.op}:{self.attr}"

    def in_words(self) -> str:
        """What messages show: written out it may be long without bound."""
        return f"a scalar expression of {self.dtype}"

    def __bool__(self) -> NoReturn:
        raise ArgumentError(
            "got the truth value of a scalar expression, which has one value for each element; choose with "
            "select(condition, x, y), join conditions with call('bitwise_and', x, y)"
        )

    def __add__(self, other: Expr | Number) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Expr | Number) -> Expr:
        return call("add", _lift(other, self), self)

    def __sub__(self, other: Expr | Number) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Expr | Number) -> Expr:
        return call("sub", _lift(other, self), self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Expr | Number) -> Expr:
        return call("mul", _lift(other, self), self)

    def __truediv__(self, other: Expr | Number) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Expr | Number) -> Expr:
        return call("div", _lift(other, self), self)

    def __pow__(self, other: Expr | Number) -> Expr:
        return call("pow", self, other)

    def __rpow__(self, other: Expr | Number) -> Expr:
        return call("pow", _lift(other, self), self)

    def __floordiv__(self, other: Expr | Number) -> Expr:
        return call("floor_divide", self, other)

    def __rfloordiv__(self, other: Expr | Number) -> Expr:
        return call("floor_divide", _lift(other, self), self)

    def __mod__(self, other: Expr | Number) -> Expr:
        return call("remainder", self, other)

    def __rmod__(self, other: Expr | Number) -> Expr:
        return call("remainder", _lift(other, self), self)

    def __pos__(self) -> Expr:
        return self

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __eq__(self, other: Expr | Number) -> Expr:  # type: ignore[override]
        return call("eq", self, other)

    def __ne__(self, other: Expr | Number) -> Expr:  # type: ignore[override]
        return call("ne", self, other)

    def __lt__(self, other: Expr | Number) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: Expr | Number) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: Expr | Number) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return call("ge", self, other)


def literal_bits(value: Any, dtype: str) -> int:
    """The bits of a constant as an unsigned integer: hashable, and exact for NaN and the signed zeros."""
    return DTYPES[dtype].encode(value)


def literal_value(bits: int, dtype: str) -> Any:
    """The inverse of `literal_bits`, as a Python scalar: of a NaN the sign and payload may get lost."""
    return DTYPES[dtype].decode(bits)


def literal_array(bits: int, dtype: str) -> np.ndarray[Any, Any]:
    """A constant as an array of shape (): the bits themselves, also those of a NaN."""
    numpy_dtype = NUMPY_DTYPES[dtype]
    return np.frombuffer(bits.to_bytes(numpy_dtype.itemsize, "little"), numpy_dtype).reshape(())


def input(number: int, dtype: str) -> Expr:
    return Expr(INPUT, (), dtype, number)


def literal(value: Number, dtype: DTypeLike) -> Expr:
    """A number as an expression of a dtype: of integers within their range, a float beyond it is infinite."""
    dtype = dtype_name(dtype)
    return Expr(LITERAL, (), dtype, literal_bits(_number(value, dtype), dtype))


def _number(value: Any, dtype: str) -> Any:
    """A number that a dtype can hold."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    numbers: Any = (bool, np.bool_, Real)
    if not isinstance(value, numbers):
        raise DTypeError(f"got {shown(value)} in a scalar expression; it must be a number; pass one")
    record = DTYPES[dtype]
    if record.kind == "integer":
        if not record.lowest <= value <= record.highest or value != int(value):
            raise DTypeError(
                f"got {shown(value)} for a scalar of {dtype}, which holds the integers from {record.lowest} to "
                f"{record.highest}; pass one of these, or choose another dtype"
            )
        return int(value)
    if record.kind == "bool":
        return bool(value)
    try:
        with np.errstate(over="ignore"):
            return float(scalar_array(float(value), dtype))
    except OverflowError:
        raise DTypeError(f"got {shown(value)} for a scalar of {dtype}; no float is near it; use a float") from None


def index() -> Expr:
    return Expr(INDEX, (), "int64")


def position() -> Expr:
    return Expr(POSITION, (), "int64")


def fold(monoid: str, x: Expr) -> Expr:
    """x folded along the folded axes with one of `monoids.MONOIDS`."""
    monoids.monoid(monoid).identity(x.dtype)  # which it has for what it is defined for
    return Expr(FOLD, (x,), x.dtype, monoid)


def computed(x: Expr) -> Expr:
    """x itself, computed: what a fold of one element is. Only of a NaN the bits may change (`kernels.nan`)."""
    return call("maximum", x, x) if is_float(x.dtype) else x


def cast(x: Expr, dtype: DTypeLike) -> Expr:
    """x converted to another dtype."""
    if not isinstance(x, Expr):
        raise ArgumentError(
            f"cast: got {shown(x)}; it must be a scalar expression; make one with literal(value, dtype)"
        )
    dtype = dtype_name(dtype)
    if x.dtype == dtype:
        return x
    x = widened(x)
    return x if x.dtype == dtype else Expr("cast", (x,), dtype)


def select(condition: Expr, x: Expr | Number, y: Expr | Number) -> Expr:
    """x where the condition (of bool) is true, else y."""
    return call("select", condition, x, y)


def widened(x: Expr) -> Expr:
    """x in the dtype in which kernels calculate with it: a copy, also of a NaN."""
    to = DTYPES[x.dtype].compute
    if to == x.dtype:
        return x
    if x.op == LITERAL:
        return Expr(LITERAL, (), to, int.from_bytes(wide_array(literal_array(x.attr, x.dtype)).tobytes(), "little"))
    return Expr("widen", (x,), to)


def _lift(value: Any, like: Expr) -> Expr:
    return value if isinstance(value, Expr) else literal(value, like.dtype)


def call(op: str, *args: Expr | Number) -> Expr:
    """Apply one instruction; Python numbers become literals of the dtype of the first expression among `args`."""
    row = INSTRUCTIONS.get(op) if isinstance(op, str) else None
    if row is None or op in CONVERSIONS:
        raise ArgumentError(f"got instruction {shown(op)}; there is none of this name; {_instead(op)}")
    if len(args) != row.arity:
        raise ArgumentError(f"{op}: got {len(args)} operands; it takes {row.arity}; pass these")
    numbers = args[1:] if op == "select" else args  # those that meet in one dtype
    like = next((a for a in numbers if isinstance(a, Expr)), None)
    if like is None:
        raise ArgumentError(
            f"{op}: got {', '.join(map(shown, numbers))}; one operand at least must be a scalar expression; make one with "
            "literal(value, dtype)"
        )
    operands = tuple(_lift(a, like) for a in numbers)
    if op == "select" and (not isinstance(args[0], Expr) or args[0].dtype != "bool"):
        raise DTypeError(
            f"select: got the condition {shown(args[0])}; it must be a scalar expression of bool; compare, as in x > 0"
        )
    if len({e.dtype for e in operands}) != 1:
        raise DTypeError(f"{op}: operands have dtypes {[e.dtype for e in operands]}; cast them to one dtype first")
    dtype = operands[0].dtype
    if dtype in STORED and not row.copies:
        raise DTypeError(f"{op}: got {dtype}; kernels calculate in {DTYPES[dtype].compute}; cast to it first")
    if DTYPES[dtype].kind not in KINDS[row.kinds]:
        allowed = " and ".join(KINDS[row.kinds])
        raise DTypeError(f"{op}: got {dtype}; it is defined for {allowed} dtypes; cast with astype first")
    exprs = (args[0], *operands) if op == "select" else operands
    return Expr(op, exprs, "bool" if row.predicate else dtype)  # type: ignore[arg-type]  # checked above


def _instead(op: Any) -> str:
    """What may have been meant by the name of no instruction."""
    near = difflib.get_close_matches(op, INSTRUCTIONS, 1) if isinstance(op, str) else []
    if near and near[0] in CONVERSIONS:
        return "use cast(x, dtype)"
    known = ", ".join(n for n in INSTRUCTIONS if n not in CONVERSIONS)
    return f"did you mean {near[0]!r}?" if near else f"known are {known}"


def linearise(results: Sequence[Expr]) -> tuple[Code, tuple[int, ...]]:
    """Expressions as linear code with equal subexpressions merged; returns the code and the results' positions."""
    code: list[Instr] = []
    numbers: dict[Instr, int] = {}
    done: dict[int, int] = {}
    keep_alive: list[Expr] = []
    for root in results:
        stack = [root]
        while stack:
            node = stack[-1]
            if id(node) in done:
                stack.pop()
                continue
            waiting = [a for a in node.args if id(a) not in done]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            instr = Instr(node.op, tuple(done[id(a)] for a in node.args), node.dtype, node.attr)
            number = numbers.get(instr)
            if number is None:
                number = numbers[instr] = len(code)
                code.append(instr)
            done[id(node)] = number
            keep_alive.append(node)
            stack.pop()
    return tuple(code), tuple(done[id(r)] for r in results)


def inline(code: Code, inputs: Sequence[Expr]) -> list[Expr]:
    """The expressions of `code`, one for each instruction, with operand `i` replaced by `inputs[i]`."""
    values: list[Expr] = []
    for instr in code:
        if instr.op == INPUT:
            values.append(inputs[instr.attr])
        else:
            values.append(Expr(instr.op, tuple(values[a] for a in instr.args), instr.dtype, instr.attr))
    return values


class Instruction(NamedTuple):
    """A row of the table. What it computes is a row of `kernels.reference.NUMPY`.

    An instruction *computes*, and then every NaN among its results is the one NaN (`kernels.nan`), or it *copies* one of
    some operands, bit for bit. Most take all NaNs for one; those that tell them apart name the operands that they observe.
    """

    arity: int
    kinds: str = "any"  # one of `KINDS`
    predicate: bool = False  # the result is bool
    cost: int = 1  # rough number of machine instructions, for fusion's limits and the cost report
    copies: tuple[int, ...] = ()  # operands of which the result is a copy; none: it is computed
    observes: tuple[int, ...] = ()  # operands of which the bits of a NaN matter


# What an instruction is defined for.
KINDS = {
    "any": ("bool", "integer", "float"),
    "numbers": ("integer", "float"),
    "float": ("float",),
    "bits": ("bool", "integer"),
    "integer": ("integer",),
}


def _rows(names: str, **facts: Any) -> dict[str, Instruction]:
    return {name: Instruction(**facts) for name in names.split()}


INSTRUCTIONS: dict[str, Instruction] = {
    **_rows("add mul minimum maximum", arity=2),
    "sub": Instruction(arity=2, kinds="numbers"),
    **_rows("div", arity=2, kinds="float", cost=4),
    **_rows("floor_divide remainder", arity=2, cost=12),
    **_rows("copysign", arity=2, kinds="float", observes=(1,)),
    **_rows("abs square", arity=1),
    **_rows("neg sign", arity=1, kinds="numbers"),
    **_rows("floor ceil round trunc", arity=1, kinds="float"),
    **_rows("sqrt reciprocal", arity=1, kinds="float", cost=4),
    **_rows("rsqrt", arity=1, kinds="float", cost=8),
    **_rows("exp exp2 expm1 log log2 log10 log1p tanh sigmoid erf", arity=1, kinds="float", cost=25),
    **_rows("sin cos tan asin acos atan sinh cosh", arity=1, kinds="float", cost=40),
    **_rows("pow atan2", arity=2, kinds="float", cost=80),
    **_rows("eq ne lt le gt ge", arity=2, predicate=True),
    **_rows("isnan isinf isfinite", arity=1, kinds="float", predicate=True),
    **_rows("signbit", arity=1, kinds="float", predicate=True, observes=(0,)),
    **_rows("bitwise_and bitwise_or bitwise_xor", arity=2, kinds="bits"),
    **_rows("left_shift right_shift logical_right_shift mul_high_u32", arity=2, kinds="integer"),
    **_rows("bitwise_not", arity=1, kinds="bits"),
    **_rows("select", arity=3, copies=(1, 2)),
    "cast": Instruction(arity=1),
    "widen": Instruction(arity=1, copies=(0,)),  # of a stored dtype
}
CONVERSIONS = ("cast", "widen")  # which need to know what to
