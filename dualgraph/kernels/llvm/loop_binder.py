"""From a Loop step to a command: picks the form of the kernel (flat, rows, columns) and lays out its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dualgraph.kernels.expr import FOLD, INPUT, LITERAL, POSITION, Instr, literal_bits
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.command import Command, Locate
from dualgraph.kernels.llvm.loop_code import identity_value, work
from dualgraph.kernels.llvm.loop_columns import KEPT_ROWS, Columns
from dualgraph.kernels.llvm.loop_flat import BLOCK, Flat
from dualgraph.kernels.llvm.loop_folds import CHUNK, LANES
from dualgraph.kernels.llvm.loop_frame import Signature
from dualgraph.kernels.llvm.loop_layout import (
    COUNTER,
    STRIDED,
    Leaf,
    Nest,
    flat_nest,
    fold_nest,
    layout_class,
    leaves,
)
from dualgraph.kernels.llvm.loop_rows import MANY_CHUNKS, ONE_CHUNK, SHORT, Rows
from dualgraph.kernels.program import Step, replace, row_shape

WIDTH = 16  # lanes of a vector; every width gives the same bits


def loop_command(step: Step, locate: Locate, *, width: int = WIDTH, orientation: str | None = None) -> Command:
    """`orientation`: "rows" or "columns" instead of the cheaper one."""
    kernel, step = _simplified(step)
    operands = leaves(step, kernel, locate)
    if not step.fold_axes:
        return _flat(kernel, step, operands, width)
    is_row = kernel.is_row()
    full = [*(not r for r in kernel.row_inputs), *(not is_row[r] for r in kernel.results)]
    full += [True] * (len(operands) - len(full))
    nest = fold_nest(step.domain, step.fold_axes, operands, full, orientation)
    assert nest.fold is not None
    early = not _overlap(operands, len(step.ins), step)
    bind = _rows if nest.rows else _columns
    return bind(kernel, nest, operands, early, width)


def _flat(kernel: Loop, step: Step, operands: list[Leaf], width: int) -> Command:
    nest = flat_nest(step.domain, operands, min(len(step.ins), len(operands) - 1) if operands else 0)
    blocks = -(-nest.inner.extent // BLOCK)
    variant = Flat(kernel, _signatures(nest, operands), len(nest.outer), width)
    args = [nest.inner.extent, blocks, *(axis.extent for axis in nest.outer)]
    args += _operand_args(nest, operands, variant.operands)
    return Command(variant, tuple(args), nest.outer_size * blocks, work(kernel.code) * math.prod(step.domain))


def _rows(kernel: Loop, nest: Nest, operands: list[Leaf], early: bool, width: int) -> Command:
    extent = nest.inner.extent
    short = next((w for w in (16, LANES) if extent <= w), 0)
    length = SHORT if short else ONE_CHUNK if extent <= CHUNK else MANY_CHUNKS
    variant = Rows(kernel, _signatures(nest, operands), len(nest.outer), short or width, length, early)
    args = [extent, *(axis.extent for axis in nest.outer), *_operand_args(nest, operands, variant.operands)]
    return Command(variant, tuple(args), nest.outer_size, work(kernel.code) * nest.outer_size * extent)


def _columns(kernel: Loop, nest: Nest, operands: list[Leaf], early: bool, width: int) -> Command:
    assert nest.fold is not None
    extent, length = nest.inner.extent, nest.fold.extent
    blocks, lanes = -(-extent // width), min(LANES, 1 << (length - 1).bit_length())
    signatures = _signatures(nest, operands)
    variant = Columns(kernel, signatures, len(nest.outer), width, length > CHUNK, length <= KEPT_ROWS, early)
    args = [extent, blocks, length, lanes, *(axis.extent for axis in nest.outer)]
    args += _operand_args(nest, operands, signatures)
    return Command(variant, tuple(args), nest.outer_size * blocks, work(kernel.code) * nest.outer_size * extent * length)


def _signatures(nest: Nest, operands: Sequence[Leaf]) -> tuple[Signature, ...]:
    fold = nest.fold if nest.fold is not None and not nest.rows else None
    return tuple(
        Signature(
            leaf.dtype,
            layout_class(nest.inner, i, leaf.itemsize),
            moves=fold is not None and fold.strides[i] != 0,
            counter=leaf.slot == COUNTER,
        )
        for i, leaf in enumerate(operands)
    )


def _operand_args(nest: Nest, operands: Sequence[Leaf], signatures: Sequence[Signature]) -> list[int]:
    """What `loop_frame.Operand` reads."""
    args: list[int] = []
    for i, (leaf, signature) in enumerate(zip(operands, signatures, strict=True)):
        args += [leaf.slot, leaf.start, *(axis.strides[i] for axis in nest.outer)]
        if signature.moves and nest.fold is not None:
            args.append(nest.fold.strides[i])
        if signature.layout == STRIDED:
            args.append(nest.inner.strides[i])
    return args


def _overlap(operands: Sequence[Leaf], inputs: int, step: Step) -> bool:
    """May an output share memory with an input?"""
    spans = [_span(leaf, step) for leaf in operands[: inputs + len(step.outs)]]
    return any(
        spans[i][0] < spans[o][1] and spans[o][0] < spans[i][1]
        for o in range(inputs, len(spans))
        for i in range(inputs)
        if operands[i].slot == operands[o].slot
    )


def _span(leaf: Leaf, step: Step) -> tuple[int, int]:
    reach = [stride * (extent - 1) for stride, extent in zip(leaf.strides, step.domain, strict=True)]
    return leaf.start + sum(min(r, 0) for r in reach), leaf.start + sum(max(r, 0) for r in reach) + leaf.itemsize


# ------------------------------------------------------------------------------------------------ folds without a loop


def _simplified(step: Step) -> tuple[Loop, Step]:
    """An equal kernel without folds where the folded axes hold at most one position, or where nothing is folded."""
    kernel = step.kernel
    assert isinstance(kernel, Loop)
    extent = math.prod(step.domain[axis] for axis in step.fold_axes)
    is_row = kernel.is_row()
    if extent > 1 and (kernel.folds or any(is_row[r] for r in kernel.results)) and step.fold_axes:
        return kernel, step
    if extent > 0 or not step.fold_axes:
        rest = () if POSITION in {i.op for i in kernel.code} and extent > 1 else ()
        return _without_folds(kernel, kernel.results, False), step._replace_fold(rest) if False else replace(
            step, fold_axes=step.fold_axes if _needs_position(kernel, extent) else ()
        )
    rows = [n for n, r in enumerate(kernel.results) if is_row[r]]
    simple = _without_folds(kernel, tuple(kernel.results[n] for n in rows), True)
    return simple, replace(
        step, domain=row_shape(step.domain, step.fold_axes), outs=tuple(step.outs[n] for n in rows), fold_axes=()
    )
