"""The code of products: calls of BLAS, and the search for NaNs in what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dualgraph.kernels import blas
from dualgraph.kernels.llvm.lanes import REGISTERS, Lanes
from dualgraph.kernels.llvm.loops.frame import For
from dualgraph.kernels.llvm.loops.values import one_nan
from dualgraph.kernels.llvm.products.selection import (
    BLOCKS,
    BLOCKS_ACROSS,
    COLUMNS,
    DIMS,
    FUNCTION,
    LEADING_A,
    LEADING_B,
    OFFSET_A,
    OFFSET_B,
    OFFSET_C,
    RANK,
    ROWS,
    SLOT_A,
    SLOT_B,
    SLOT_C,
    STEP_A,
    STEP_B,
    TRANS_A,
    TRANS_B,
    Gemm,
    Gemv,
    K,
    M,
    N,
    Zero,
)
from dualgraph.spec import ITEMSIZE

WIDTHS = (64, 8, 1)  # elements of a result that are looked at together: many, then those left


class _Emitter:
    """What the two kernels share: reading arguments, and finding the matrices that a unit works on."""

    def __init__(self, module: ir.Module, name: str, dtype: str, wide: bool):
        self.i8, self.i32, self.i64, self.ptr = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
        self.integer = self.i64 if wide else self.i32
        self.scalar = REGISTERS[dtype].memory
        self.dtype, self.size = dtype, self.i64(ITEMSIZE[dtype])
        types = [self.ptr, self.ptr, self.i64, self.i64]
        self.function = ir.Function(module, ir.FunctionType(self.i32, types), name)
        self.function.attributes.add("nounwind")
        self.slots, self.args, self.begin, self.end = self.function.args
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    def word(self, number: Any, kind: Any = None) -> Any:
        number = self.i64(number) if isinstance(number, int) else number
        return self.b.load(self.b.gep(self.args, [number], source_etype=self.i64), typ=kind or self.i64)

    def operand(self, slot: int, offset: int) -> Any:
        base = self.b.load(self.b.gep(self.slots, [self.word(slot)], source_etype=self.i64), typ=self.ptr)
        return self.at(base, self.word(offset))

    def at(self, base: Any, offset: Any) -> Any:
        return self.b.gep(base, [offset], source_etype=self.i8)

    def smaller(self, x: Any, y: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def given(self, value: Any) -> Any:
        """A number as BLAS takes it."""
        return value if self.integer is self.i64 else self.b.trunc(value, self.integer)

    def one_nan(self, first: Any, count: Any) -> None:
        """Every NaN among `count` elements from `first` on becomes the one NaN."""
        done = self.i64(0)
        for width in WIDTHS:
            whole = self.b.and_(count, self.i64(-width))
            with For(self.b, done, whole, width) as loop:
                self._one_nan(Lanes(self.b, width), self.at(first, self.b.mul(loop.index, self.size)))
            done = whole

    def _one_nan(self, lanes: Lanes, place: Any) -> None:
        """Nothing is written where there is no NaN."""
        b, align = self.b, ITEMSIZE[self.dtype]
        x = lanes.wrap(self.dtype, b.load(place, typ=lanes.type(self.dtype), align=align))
        with b.if_then(lanes.any(x.is_nan()), likely=False):
            b.store(one_nan(x).ir, place, align=align)

    def units(self, body: Callable[[Any, Any, Any, Any], None]) -> None:
        """`for unit in range(begin, end): body(matrix, block, offset in a, offset in b)`, then return 0."""
        b, i64 = self.b, self.i64
        blocks = self.word(BLOCKS)
        entry = b.block
        head, unit_block, axes, axis_block, work, after = (
            b.append_basic_block(label) for label in ("head", "unit", "axes", "axis", "work", "after")
        )
        b.branch(head)
        b.position_at_end(head)
        unit = b.phi(i64)
        unit.add_incoming(self.begin, entry)
        b.cbranch(b.icmp_signed("<", unit, self.end), unit_block, after)
        b.position_at_end(unit_block)
        matrix, block = b.sdiv(unit, blocks), b.srem(unit, blocks)
        b.branch(axes)
        b.position_at_end(axes)  # an odometer over the batch axes
        axis, rest, at_a, at_b = (b.phi(i64) for _ in range(4))
        for value, start in ((axis, i64(0)), (rest, matrix), (at_a, i64(0)), (at_b, i64(0))):
            value.add_incoming(start, unit_block)
        b.cbranch(b.icmp_signed("<", axis, self.word(RANK)), axis_block, work)
        b.position_at_end(axis_block)
        row = b.add(b.mul(axis, i64(3)), i64(DIMS))
        length, stride_a, stride_b = (self.word(b.add(row, i64(i))) for i in range(3))
        index = b.srem(rest, length)
        for value, following in (
            (axis, b.add(axis, i64(1))),
            (rest, b.sdiv(rest, length)),
            (at_a, b.add(at_a, b.mul(index, stride_a))),
            (at_b, b.add(at_b, b.mul(index, stride_b))),
        ):
            value.add_incoming(following, axis_block)
        b.branch(axes)
        b.position_at_end(work)
        body(matrix, block, at_a, at_b)
        unit.add_incoming(b.add(unit, i64(1)), b.block)
        b.branch(head)
        b.position_at_end(after)
        b.ret(self.i32(0))


def emit_gemm(variant: Gemm, module: ir.Module, name: str) -> None:
    e = _Emitter(module, name, variant.dtype, variant.wide)
    b, i32, integer, scalar, ptr = e.b, e.i32, e.integer, e.scalar, e.ptr
    kind = ir.FunctionType(
        ir.VoidType(),
        [i32, i32, i32, integer, integer, integer, scalar, ptr, integer, ptr, integer, scalar, ptr, integer],
    )
    first_a, first_b, first_c = (
        e.operand(*where) for where in ((SLOT_A, OFFSET_A), (SLOT_B, OFFSET_B), (SLOT_C, OFFSET_C))
    )

    def block_of(matrix: Any, block: Any, at_a: Any, at_b: Any) -> None:
        m, n, k, rows, columns = (e.word(w) for w in (M, N, K, ROWS, COLUMNS))
        across = e.word(BLOCKS_ACROSS)
        row, column = b.mul(b.sdiv(block, across), rows), b.mul(b.srem(block, across), columns)
        here_a = e.at(first_a, b.add(at_a, b.mul(row, e.word(STEP_A))))
        here_b = e.at(first_b, b.add(at_b, b.mul(column, e.word(STEP_B))))
        element = b.add(b.mul(b.add(b.mul(matrix, m), row), n), column)
        here_c = e.at(first_c, b.mul(element, e.size))
        numbers = (e.smaller(rows, b.sub(m, row)), e.smaller(columns, b.sub(n, column)), k)
        b.call(
            e.word(FUNCTION, ir.PointerType(kind)),
            [
                i32(blas.ROW_MAJOR),
                *(b.trunc(e.word(w), i32) for w in (TRANS_A, TRANS_B)),
                *map(e.given, numbers),
                *(scalar(1.0), here_a, e.given(e.word(LEADING_A)), here_b, e.given(e.word(LEADING_B))),
                *(scalar(0.0), here_c, e.given(n)),
            ],
        )
        if not variant.one_nan:
            return
        whole = b.icmp_signed("==", numbers[1], n)  # rows that lie behind one another are one
        lines = b.select(whole, e.i64(1), numbers[0])
        length = b.select(whole, b.mul(numbers[0], n), numbers[1])
        with For(b, e.i64(0), lines) as line:
            e.one_nan(e.at(here_c, b.mul(b.mul(line.index, n), e.size)), length)

    e.units(block_of)


def emit_gemv(variant: Gemv, module: ir.Module, name: str) -> None:
    e = _Emitter(module, name, variant.dtype, variant.wide)
    b, i32, integer, scalar, ptr = e.b, e.i32, e.integer, e.scalar, e.ptr
    kind = ir.FunctionType(
        ir.VoidType(), [i32, i32, integer, integer, scalar, ptr, integer, ptr, integer, scalar, ptr, integer]
    )
    first_a, first_b, first_c = (
        e.operand(*where) for where in ((SLOT_A, OFFSET_A), (SLOT_B, OFFSET_B), (SLOT_C, OFFSET_C))
    )
    clear = module.declare_intrinsic("llvm.memset", [ptr, e.i64])

    def block_of(matrix: Any, block: Any, at_a: Any, at_b: Any) -> None:
        m, k, rows = (e.word(w) for w in (M, K, ROWS))
        row = b.mul(block, rows)
        length = e.smaller(rows, b.sub(m, row))
        here_c = e.at(first_c, b.mul(b.add(b.mul(matrix, m), row), e.size))
        b.call(clear, [here_c, e.i8(0), b.mul(length, e.size), ir.IntType(1)(0)])
        trans = b.trunc(e.word(TRANS_A), i32)
        plain = b.icmp_signed("==", trans, i32(blas.NO_TRANS))
        b.call(
            e.word(FUNCTION, ir.PointerType(kind)),
            [
                *(i32(blas.ROW_MAJOR), trans),
                *(e.given(b.select(plain, x, y)) for x, y in ((length, k), (k, length))),
                *(scalar(1.0), e.at(first_a, b.add(at_a, b.mul(row, e.word(STEP_A))))),
                *(e.given(e.word(LEADING_A)), e.at(first_b, at_b), e.given(e.word(LEADING_B))),
                *(scalar(0.0), here_c, integer(1)),
            ],
        )
        if variant.one_nan:
            e.one_nan(here_c, length)

    e.units(block_of)


def emit_zero(variant: Zero, module: ir.Module, name: str) -> None:
    i8, i32, i64, ptr = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
    function = ir.Function(module, ir.FunctionType(i32, [ptr, ptr, i64, i64]), name)
    slots, args, begin, end = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    slot, offset = (b.load(b.gep(args, [i64(i)], source_etype=i64), typ=i64) for i in range(2))
    base = b.load(b.gep(slots, [slot], source_etype=i64), typ=ptr)
    start = b.gep(base, [b.add(offset, begin)], source_etype=i8)
    fill = module.declare_intrinsic("llvm.memset", [ptr, i64])
    b.call(fill, [start, i8(0), b.sub(end, begin), ir.IntType(1)(0)])
    b.ret(i32(0))
