"""Vectors of `width` lanes over llvmlite's builder, so that emitters of functions read as maths.

`Lanes` is one insertion point (a builder) with one width; `Value` is one register of that width. Width 1 uses plain
scalar types. Only plain instructions and generic `llvm.*` intrinsics are emitted, nothing that one kind of processor
alone has, and never a fast-math flag: a lane's bits depend on that lane's inputs alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from dualgraph.dtypes import DTYPES, NAMES, STORED, Table
from dualgraph.kernels.expr import literal_value
from dualgraph.spec import is_float

BYTE = ir.IntType(8)


class Register(NamedTuple):
    """How one value of a dtype is held."""

    type: Any
    suffix: str  # of intrinsics
    memory: Any  # the type of one element in memory
    memory_suffix: str
    bits: str = ""  # the integer dtype as wide as it
    floats: str = ""  # the float dtype as wide as it


def _same(type_: Any, suffix: str, bits: str, floats: str) -> Register:
    return Register(type_, suffix, type_, suffix, bits, floats)


REGISTERS: Table[Register] = Table(
    "registers",
    NAMES,
    {
        "bool": Register(ir.IntType(1), "i1", BYTE, "i8"),
        "int32": _same(ir.IntType(32), "i32", "int32", "float32"),
        "int64": _same(ir.IntType(64), "i64", "int64", "float64"),
        "bfloat16": _same(ir.IntType(16), "i16", "", ""),  # its bits
        "float32": _same(ir.FloatType(), "f32", "int32", "float32"),
        "float64": _same(ir.DoubleType(), "f64", "int64", "float64"),
    },
)

Operand = Any  # a Value, or a Python number that becomes a constant of the other operand's dtype


class _Splat(ir.Constant):  # type: ignore[misc]
    """One scalar constant in every lane; llvmlite itself would print it `width` times."""

    def __init__(self, type_: Any, text: str):
        self.type, self.constant = type_, text

    def _get_reference(self) -> str:
        return f"splat ({self.constant})"


class Value:
    """A register: one value of `dtype` in each lane. Operators follow the dtype; `>>` keeps the sign."""

    __slots__ = ("dtype", "ir", "lanes")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, lanes: Lanes, dtype: str, ir_value: Any):
        self.lanes, self.dtype, self.ir = lanes, dtype, ir_value

    @property
    def is_float(self) -> bool:
        return is_float(self.dtype)

    @property
    def width(self) -> int:
        """Bits of one lane."""
        return int(REGISTERS[self.dtype].type.width) if not self.is_float else DTYPES[self.dtype].bits

    def like(self, value: float) -> Value:
        """The constant `value` in this value's dtype."""
        return self.lanes.constant(self.dtype, value)

    def __add__(self, other: Operand) -> Value:
        return self.lanes.binary("fadd" if self.is_float else "add", self, other)

    def __radd__(self, other: float) -> Value:
        return self.like(other) + self

    def __sub__(self, other: Operand) -> Value:
        return self.lanes.binary("fsub" if self.is_float else "sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __mul__(self, other: Operand) -> Value:
        return self.lanes.binary("fmul" if self.is_float else "mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return self.like(other) * self

    def __truediv__(self, other: Operand) -> Value:
        return self.lanes.binary("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __neg__(self) -> Value:
        return Value(self.lanes, self.dtype, self.lanes.builder.fneg(self.ir)) if self.is_float else 0 - self

    def __and__(self, other: Operand) -> Value:
        return self.lanes.binary("and_", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.lanes.binary("or_", self, other)

    def __xor__(self, other: Operand) -> Value:
        return self.lanes.binary("xor", self, other)

    def __invert__(self) -> Value:
        return self ^ (-1 if self.dtype != "bool" else True)

    def __lshift__(self, count: Operand) -> Value:
        return self.lanes.binary("shl", self, count)

    def __rshift__(self, count: Operand) -> Value:
        return self.lanes.binary("ashr", self, count)

    def shift_right_logical(self, count: Operand) -> Value:
        return self.lanes.binary("lshr", self, count)

    def __lt__(self, other: Operand) -> Value:
        return self.lanes.compare("<", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.lanes.compare("<=", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.lanes.compare(">", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.lanes.compare(">=", self, other)

    def eq(self, other: Operand) -> Value:
        return self.lanes.compare("==", self, other)

    def ne(self, other: Operand) -> Value:
        return self.lanes.compare("!=", self, other)

    def below_unsigned(self, other: Operand) -> Value:
        other = self.lanes.lift(other, self)
        return Value(self.lanes, "bool", self.lanes.builder.icmp_unsigned("<", self.ir, other.ir))

    def is_nan(self) -> Value:
        return Value(self.lanes, "bool", self.lanes.builder.fcmp_unordered("uno", self.ir, self.ir))

    def bits(self) -> Value:
        """The same bits read as an integer."""
        return self.lanes.convert("bitcast", self, REGISTERS[self.dtype].bits)

    def as_float(self) -> Value:
        """The same bits read as a float: the inverse of `bits`."""
        return self.lanes.convert("bitcast", self, REGISTERS[self.dtype].floats)

    def abs(self) -> Value:
        return self.lanes.intrinsic("fabs", self)

    def copysign(self, sign: Operand) -> Value:
        return self.lanes.intrinsic("copysign", self, self.lanes.lift(sign, self))

    def sqrt(self) -> Value:
        return self.lanes.intrinsic("sqrt", self)

    def where(self, condition: Value, other: Operand) -> Value:
        """This value where `condition` holds, else `other`."""
        return self.lanes.select(condition, self, other)


class Lanes:
    """An insertion point of `width` lanes: makes constants, operations, calls and the few shapes of control flow."""

    def __init__(self, builder: ir.IRBuilder, width: int):
        self.builder, self.width = builder, width

    # ------------------------------------------------------------------------------------------------ types, constants

    def type(self, dtype: str) -> Any:
        """The register type of `dtype`."""
        scalar = REGISTERS[dtype].type
        return scalar if self.width == 1 else ir.VectorType(scalar, self.width)

    def wrap(self, dtype: str, ir_value: Any) -> Value:
        return Value(self, dtype, ir_value)

    def constant(self, dtype: str, value: Any) -> Value:
        """`value` in every lane, exact to the bit (rounded once to `dtype`; overflow gives infinity)."""
        return self._everywhere(dtype, _literal(dtype, value))

    def literal(self, dtype: str, bits: int) -> Value:
        """The value of these bits in every lane; they are kept, also those of a NaN."""
        if dtype in STORED:
            return self._everywhere(dtype, str(bits))
        value = literal_value(bits, dtype)
        if value == value:
            return self.constant(dtype, value)
        register = REGISTERS[dtype]
        return self._everywhere(dtype, f"bitcast ({REGISTERS[register.bits].type} {bits} to {register.type})")

    def _everywhere(self, dtype: str, text: str) -> Value:
        scalar = REGISTERS[dtype].type
        if self.width == 1:
            return Value(self, dtype, ir.FormattedConstant(scalar, text))
        return Value(self, dtype, _Splat(self.type(dtype), f"{scalar} {text}"))

    def lift(self, operand: Operand, like: Value) -> Value:
        return operand if isinstance(operand, Value) else self.constant(like.dtype, operand)

    # ------------------------------------------------------------------------------------------------------ operations

    def binary(self, instruction: str, x: Value, y: Operand) -> Value:
        return Value(self, x.dtype, getattr(self.builder, instruction)(x.ir, self.lift(y, x).ir))

    def compare(self, relation: str, x: Value, y: Operand) -> Value:
        """Ordered comparison (`!=` unordered); False < True."""
        y = self.lift(y, x)
        if x.is_float:
            emit = self.builder.fcmp_unordered if relation == "!=" else self.builder.fcmp_ordered
        else:
            emit = self.builder.icmp_unsigned if x.dtype == "bool" else self.builder.icmp_signed
        return Value(self, "bool", emit(relation, x.ir, y.ir))

    def select(self, condition: Value, x: Value, y: Operand) -> Value:
        return Value(self, x.dtype, self.builder.select(condition.ir, x.ir, self.lift(y, x).ir))

    def convert(self, instruction: str, x: Value, dtype: str) -> Value:
        """One of LLVM's conversion instructions: `bitcast`, `fpext`, `fptrunc`, `sitofp`, `sext`, `zext`, `trunc` …"""
        return Value(self, dtype, getattr(self.builder, instruction)(x.ir, self.type(dtype)))

    def intrinsic(self, name: str, *args: Value, dtype: str | None = None) -> Value:
        """The generic intrinsic `llvm.name` on operands of one dtype, with a result of theirs or of `dtype`."""
        overloads = [dtype, args[0].dtype] if dtype else [args[0].dtype]
        dtype = overloads[0]
        full_name = ".".join(["llvm", name, *map(self._suffix, overloads)])
        function = self._declare(full_name, dtype, [a.dtype for a in args])
        return Value(self, dtype, self.builder.call(function, [a.ir for a in args]))

    def _suffix(self, dtype: str) -> str:
        return ("" if self.width == 1 else f"v{self.width}") + REGISTERS[dtype].suffix

    def _declare(self, name: str, dtype: str, arg_dtypes: list[str]) -> ir.Function:
        known = self.builder.module.globals.get(name)
        if known is not None:
            return known
        type_ = ir.FunctionType(self.type(dtype), [self.type(d) for d in arg_dtypes])
        return ir.Function(self.builder.module, type_, name)

    # ------------------------------------------------------------------------------------------------- memory, booleans

    def to_memory(self, x: Value) -> Any:
        """The IR value to store: a bool becomes a byte 0 or 1, everything else is itself."""
        if x.dtype != "bool":
            return x.ir
        return self.builder.zext(x.ir, BYTE if self.width == 1 else ir.VectorType(BYTE, self.width))

    def from_memory(self, dtype: str, loaded: Any) -> Value:
        """The register of a loaded IR value: the inverse of `to_memory` (any byte but 0 is true)."""
        if dtype == "bool":
            loaded = self.builder.icmp_unsigned("!=", loaded, ir.Constant(loaded.type, None))
        return Value(self, dtype, loaded)

    def memory_type(self, dtype: str) -> Any:
        """The type of `dtype` in memory, `width` elements at once."""
        scalar = REGISTERS[dtype].memory
        return scalar if self.width == 1 else ir.VectorType(scalar, self.width)

    # --------------------------------------------------------------------------------------------- functions, branches

    def call(self, name: str, emit: Callable[..., Any], *args: Value) -> Any:
        """Call the private function whose body is `emit(*args)`; written once per (name, dtypes, width) and module.

        `emit` returns a Value or a tuple of Values.
        """
        full_name = ".".join([f"dg.{name}", *(a.dtype for a in args), f"x{self.width}"])
        function = self.builder.module.globals.get(full_name)
        if function is None:
            function = self._define(full_name, emit, [a.dtype for a in args])
        result = self.builder.call(function, [a.ir for a in args])
        dtypes = function.result_dtypes
        if isinstance(dtypes, str):
            return Value(self, dtypes, result)
        return tuple(Value(self, d, self.builder.extract_value(result, i)) for i, d in enumerate(dtypes))

    def _define(self, name: str, emit: Callable[..., Any], arg_dtypes: list[str]) -> ir.Function:
        # The result type is known only once the body is: build it in a function without one, then set the type.
        module, arg_types = self.builder.module, [self.type(d) for d in arg_dtypes]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), arg_types), name)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        body = Lanes(ir.IRBuilder(function.append_basic_block()), self.width)
        results = emit(*(Value(body, d, a) for d, a in zip(arg_dtypes, function.args, strict=True)))
        if isinstance(results, Value):
            function.result_dtypes, result = results.dtype, results.ir
        else:
            function.result_dtypes, result = tuple(r.dtype for r in results), body._pack(results)
        type_ = ir.FunctionType(result.type, arg_types)
        function.ftype, function.type, function.return_value.type = type_, type_.as_pointer(), result.type
        body.builder.ret(result)
        return function

    def _pack(self, values: Sequence[Value]) -> Any:
        struct_ = ir.Constant(ir.LiteralStructType([v.ir.type for v in values]), ir.Undefined)
        for i, v in enumerate(values):
            struct_ = self.builder.insert_value(struct_, v.ir, i)
        return struct_

    def any(self, mask: Value) -> Any:
        """An IR i1: does `mask` hold in any lane?"""
        if self.width == 1:
            return mask.ir
        word = ir.IntType(self.width)
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(mask.ir, word), ir.Constant(word, 0))

    def rarely(self, mask: Value, slow: Callable[[], tuple[Value, ...]], usual: tuple[Value, ...]) -> tuple[Value, ...]:
        """`slow()` in the lanes of `mask`, `usual` in the others; `slow` is skipped while no lane asks for it.

        The branch looks at all lanes, the result of a lane only at its own: neighbours cannot change its bits.
        """
        builder, before = self.builder, self.builder.block
        with builder.if_then(self.any(mask), likely=False):
            rare = tuple(s.where(mask, u) for s, u in zip(slow(), usual, strict=True))
            after = builder.block
        return tuple(self._phi(u, before, r, after) for u, r in zip(usual, rare, strict=True))

    def _phi(self, x: Value, from_x: Any, y: Value, from_y: Any) -> Value:
        phi = self.builder.phi(x.ir.type)
        phi.add_incoming(x.ir, from_x)
        phi.add_incoming(y.ir, from_y)
        return Value(self, x.dtype, phi)

    def loop_while(
        self, state: tuple[Value, ...], unfinished: Callable[..., Value], step: Callable[..., tuple[Value, ...]]
    ) -> tuple[Value, ...]:
        """Step the state until no lane is `unfinished`; finished lanes keep their state."""
        builder, before = self.builder, self.builder.block
        head, body, done = (builder.append_basic_block(n) for n in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        phis = [builder.phi(s.ir.type) for s in state]
        current = tuple(Value(self, s.dtype, p) for s, p in zip(state, phis, strict=True))
        mask = unfinished(*current)
        builder.cbranch(self.any(mask), body, done)
        builder.position_at_end(body)
        stepped = tuple(n.where(mask, c) for n, c in zip(step(*current), current, strict=True))
        for phi, first, later in zip(phis, state, stepped, strict=True):
            phi.add_incoming(first.ir, before)
            phi.add_incoming(later.ir, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return current

    def lane_by_lane(self, scalar: Callable[[Value], tuple[Value, ...]], x: Value, like: tuple[Value, ...]) -> Any:
        """`scalar` (code for width 1) on each lane of `x` in turn; `like` gives the results' dtypes."""
        if self.width == 1:
            return scalar(x)
        builder, index = self.builder, ir.IntType(32)
        one = Lanes(builder, 1)
        before, body = builder.block, builder.append_basic_block("lane")
        done = builder.append_basic_block("lanes_done")
        builder.branch(body)
        builder.position_at_end(body)
        lane = builder.phi(index)
        partial = [builder.phi(v.ir.type) for v in like]
        results = scalar(Value(one, x.dtype, builder.extract_element(x.ir, lane)))
        filled = [builder.insert_element(p, r.ir, lane) for p, r in zip(partial, results, strict=True)]
        following = builder.add(lane, ir.Constant(index, 1))
        initial = [ir.Constant(index, 0), *(v.ir for v in like)]
        for phi, first, later in zip([lane, *partial], initial, [following, *filled], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_unsigned("<", following, ir.Constant(index, self.width)), body, done)
        builder.position_at_end(done)
        return tuple(Value(self, v.dtype, f) for v, f in zip(like, filled, strict=True))


def _literal(dtype: str, value: Any) -> str:
    record = DTYPES[dtype]
    if record.kind == "bool":
        return "true" if value else "false"
    if record.kind == "integer":
        return str(int(value))
    try:
        value = record.decode(record.encode(value))
    except OverflowError:
        value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"
