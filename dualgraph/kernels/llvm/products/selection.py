"""Products of matrices: a command that calls BLAS on the blocks of each matrix of a batch. `code` writes it.

What BLAS is told depends on the shape and the kernel record alone, never on strides. Its NaNs become the one NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dualgraph.errors import KernelError
from dualgraph.kernels import blas
from dualgraph.kernels.kinds import MatMul
from dualgraph.kernels.llvm.command import Command, Locate, Variant
from dualgraph.kernels.program import Step, View
from dualgraph.spec import ITEMSIZE

# Words of `args`; offsets and batch strides in bytes.
FUNCTION, TRANS_A, TRANS_B, M, N, K, LEADING_A, LEADING_B = range(8)
SLOT_A, OFFSET_A, SLOT_B, OFFSET_B, SLOT_C, OFFSET_C = range(8, 14)
ROWS, COLUMNS, BLOCKS, BLOCKS_ACROSS = range(14, 18)  # of a block; blocks of a matrix; blocks side by side
STEP_A, STEP_B = range(18, 20)  # bytes from a row of `a` to the next, from a column of `b` to the next
RANK, DIMS = range(20, 22)  # batch axes; then for each its length and the strides of `a` and `b`, from the last axis on

WORK, WORK_VECTOR = 6, 2  # multiply-adds that take as long as one scalar operation of a loop


@dataclass(frozen=True)
class Gemm(Variant):
    """One BLAS call per unit: a block of a matrix of the batch. Writes all of the block and reads none of it."""

    dtype: str
    wide: bool
    one_nan: bool


@dataclass(frozen=True)
class Gemv(Variant):
    """Matrix times vector, where `m` or `n` is 1: `a` stands for the matrix and `b` for the vector, either way round.

    `TRANS_A` is that of the call, `LEADING_B` the step between entries of the vector, `M` the length of the result. The
    result is cleared first: some versions of BLAS multiply what is there by zero, which keeps a NaN.
    """

    dtype: str
    wide: bool
    one_nan: bool


@dataclass(frozen=True)
class Zero(Variant):
    """`k == 0`: the empty sum, +0.0 everywhere. Args: slot, byte offset; a unit is one byte."""


def product_command(step: Step, locate: Locate) -> Command:
    """The command of a `MatMul` step: factors (..., m, k) and (..., k, n), output (..., m, n) contiguous, equal batch shapes."""
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
