"""Products of matrices: a command that calls BLAS on the blocks of each matrix of a batch.

What BLAS is told depends on the shape and the kernel record alone, never on strides. Its NaNs become the one NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualgraph.errors import KernelError
from dualgraph.kernels import blas
from dualgraph.kernels.kinds import MatMul
from dualgraph.kernels.llvm.command import Command, Locate
from dualgraph.kernels.llvm.lanes import Lanes
from dualgraph.kernels.llvm.loop_code import one_nan
from dualgraph.kernels.llvm.loop_frame import For
from dualgraph.kernels.program import Step, View
from dualgraph.spec import ITEMSIZE

if TYPE_CHECKING:
    from llvmlite import ir

# Words of `args`; offsets and batch strides in bytes.
FUNCTION, TRANS_A, TRANS_B, M, N, K, LEADING_A, LEADING_B = range(8)
SLOT_A, OFFSET_A, SLOT_B, OFFSET_B, SLOT_C, OFFSET_C = range(8, 14)
ROWS, COLUMNS, BLOCKS, BLOCKS_ACROSS = range(14, 18)  # of a block; blocks of a matrix; blocks side by side
STEP_A, STEP_B = range(18, 20)  # bytes from a row of `a` to the next, from a column of `b` to the next
RANK, DIMS = range(20, 22)  # batch axes; then for each its length and the strides of `a` and `b`, from the last axis on

WIDTHS = (64, 8, 1)  # elements of a result that are looked at together: many, then those left
WORK, WORK_VECTOR = 6, 2  # multiply-adds that take as long as one scalar operation of a loop


class _Emitter:
    """What the two kernels share: reading arguments, and finding the matrices that a unit works on."""

    def __init__(self, module: ir.Module, name: str, dtype: str, wide: bool):
        from llvmlite import ir

        self.ir = ir
        self.i8, self.i32, self.i64, self.ptr = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
        self.integer = self.i64 if wide else self.i32
        self.scalar = ir.FloatType() if dtype == "float32" else ir.DoubleType()
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


@dataclass(frozen=True)
class Gemm:
    """One BLAS call per unit: a block of a matrix of the batch. Writes all of the block and reads none of it."""

    dtype: str
    wide: bool
    one_nan: bool

    def emit(self, module: ir.Module, name: str) -> None:
        e = _Emitter(module, name, self.dtype, self.wide)
        b, i32, integer, scalar, ptr = e.b, e.i32, e.integer, e.scalar, e.ptr
        kind = e.ir.FunctionType(
            e.ir.VoidType(),
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
                e.word(FUNCTION, e.ir.PointerType(kind)),
                [
                    i32(blas.ROW_MAJOR),
                    *(b.trunc(e.word(w), i32) for w in (TRANS_A, TRANS_B)),
                    *map(e.given, numbers),
                    *(scalar(1.0), here_a, e.given(e.word(LEADING_A)), here_b, e.given(e.word(LEADING_B))),
                    *(scalar(0.0), here_c, e.given(n)),
                ],
            )
            if not self.one_nan:
                return
            whole = b.icmp_signed("==", numbers[1], n)  # rows that lie behind one another are one
            lines = b.select(whole, e.i64(1), numbers[0])
            length = b.select(whole, b.mul(numbers[0], n), numbers[1])
            with For(b, e.i64(0), lines) as line:
                e.one_nan(e.at(here_c, b.mul(b.mul(line.index, n), e.size)), length)

        e.units(block_of)


@dataclass(frozen=True)
class Gemv:
    """Matrix times vector, where `m` or `n` is 1: `a` stands for the matrix and `b` for the vector, either way round.

    `TRANS_A` is that of the call, `LEADING_B` the step between entries of the vector, `M` the length of the result. The
    result is cleared first: some versions of BLAS multiply what is there by zero, which keeps a NaN.
    """

    dtype: str
    wide: bool
    one_nan: bool

    def emit(self, module: ir.Module, name: str) -> None:
        e = _Emitter(module, name, self.dtype, self.wide)
        b, i32, integer, scalar, ptr = e.b, e.i32, e.integer, e.scalar, e.ptr
        kind = e.ir.FunctionType(
            e.ir.VoidType(), [i32, i32, integer, integer, scalar, ptr, integer, ptr, integer, scalar, ptr, integer]
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
            b.call(clear, [here_c, e.i8(0), b.mul(length, e.size), e.ir.IntType(1)(0)])
            trans = b.trunc(e.word(TRANS_A), i32)
            plain = b.icmp_signed("==", trans, i32(blas.NO_TRANS))
            b.call(
                e.word(FUNCTION, e.ir.PointerType(kind)),
                [
                    *(i32(blas.ROW_MAJOR), trans),
                    *(e.given(b.select(plain, x, y)) for x, y in ((length, k), (k, length))),
                    *(scalar(1.0), e.at(first_a, b.add(at_a, b.mul(row, e.word(STEP_A))))),
                    *(e.given(e.word(LEADING_A)), e.at(first_b, at_b), e.given(e.word(LEADING_B))),
                    *(scalar(0.0), here_c, integer(1)),
                ],
            )
            if self.one_nan:
                e.one_nan(here_c, length)

        e.units(block_of)


@dataclass(frozen=True)
class Zero:
    """`k == 0`: the empty sum, +0.0 everywhere. Args: slot, byte offset; a unit is one byte."""

    def emit(self, module: ir.Module, name: str) -> None:
        from llvmlite import ir

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


def command(step: Step, locate: Locate) -> Command:
    """Bind a `MatMul` step: factors (..., m, k) and (..., k, n), output (..., m, n) contiguous, equal batch shapes."""
    assert isinstance(step.kernel, MatMul)
    (a, b), (c,) = step.ins, step.outs
    dtype, size = step.kernel.dtype, ITEMSIZE[step.kernel.dtype]
    left, right = step.kernel.factors(step.ins)
    *batch, m, k = left.shape
    n = right.shape[-1]
    if list(right.shape[:-1]) != [*batch, k] or list(c.shape) != [*batch, m, n] or not c.contiguous:
        raise KernelError(
            f"got a product of {left.spec} and {right.spec} into {c.spec}; it takes (..., m, k) and (..., k, n) with equal "
            "batch axes and a contiguous (..., m, n); broadcast the batch axes and copy the result"
        )
    for operand in (a, b):
        if not operand.row_major:
            raise KernelError(
                f"got an operand of a product, {operand.spec} with strides {list(operand.strides)}; its matrices must be "
                "row-major, whatever is transposed; copy the operand first"
            )
    slot_c, offset_c = _place(c, locate)
    matrices = math.prod(batch)
    if k == 0 or not matrices * m * n:
        units = matrices * m * n * size
        return Command(Zero(), (slot_c, offset_c), units, units // 32)
    gemm = blas.gemm(dtype)
    if gemm is None:
        raise KernelError(f"got a product of {dtype} for BLAS; it knows float32 and float64; run it by numpy.matmul")
    if not gemm.wide and max(m, n, k) >= 2**31:
        raise KernelError(
            f"got a product of {a.spec} and {b.spec}; this BLAS ({gemm.symbol}) counts with 32 bits; use a NumPy whose "
            "BLAS has 64-bit integers, or smaller matrices"
        )
    if m == 1 or n == 1:
        return _vector_command(step, locate, gemm, (slot_c, offset_c))
    rows, columns = blas.blocks(m, k, n) if _cuts() else (m, n)
    down, across = -(-m // rows), -(-n // columns)
    transpose_a, transpose_b = step.kernel.transpose_a, step.kernel.transpose_b
    args = (
        gemm.address,
        *(blas.TRANS if transposed else blas.NO_TRANS for transposed in (transpose_a, transpose_b)),
        *(m, n, k, a.shape[-1], b.shape[-1]),
        *(*_place(a, locate), *_place(b, locate), slot_c, offset_c),
        *(rows, columns, down * across, across),
        size if transpose_a else k * size,
        k * size if transpose_b else size,
        *_batch(a, b),
    )
    return Command(
        Gemm(dtype, gemm.wide, step.kernel.one_nan), args, matrices * down * across, matrices * m * n * k // WORK
    )


def _vector_command(step: Step, locate: Locate, gemm: blas.Gemm, out: tuple[int, int]) -> Command:
    assert isinstance(step.kernel, MatMul)
    dtype, size = step.kernel.dtype, ITEMSIZE[step.kernel.dtype]
    (a, b), (left, right) = step.ins, step.kernel.factors(step.ins)
    k, n = right.shape[-2:]
    if n == 1:
        matrix, vector, transposed, length = a, b, step.kernel.transpose_a, left.shape[-2]
    else:  # a row times a matrix: the transposed matrix times the row
        matrix, vector, transposed, length = b, a, not step.kernel.transpose_b, n
    leading = matrix.shape[-1]
    block = blas.vector_block(length, k) if _cuts() else length
    count = -(-length // block)
    args = (
        gemm.vector_address,
        *(blas.TRANS if transposed else blas.NO_TRANS, 0, length, 1, k, leading, 1),
        *(*_place(matrix, locate), *_place(vector, locate), *out),
        *(block, 1, count, 1),
        *(size if transposed else leading * size, 0),
        *_batch(matrix, vector),
    )
    matrices = math.prod(a.shape[:-2])
    return Command(
        Gemv(dtype, gemm.wide, step.kernel.one_nan), args, matrices * count, matrices * length * k // WORK_VECTOR
    )


def _place(view: View, locate: Locate) -> tuple[int, int]:
    slot, offset = locate(view.buffer)
    return slot, offset + view.offset * ITEMSIZE[view.dtype]


def _batch(a: View, b: View) -> tuple[int, ...]:
    """The words from `RANK` on."""
    size = ITEMSIZE[a.dtype]
    words = [len(a.shape) - 2]
    for axis in reversed(range(len(a.shape) - 2)):
        words += a.shape[axis], a.strides[axis] * size, b.strides[axis] * size
    return tuple(words)


def _cuts() -> bool:
    """Cutting makes bits independent of threads only where BLAS can be held to one thread."""
    found = blas.info()
    return found is not None and found.thread_functions is not None
