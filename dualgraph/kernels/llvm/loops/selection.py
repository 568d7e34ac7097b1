"""From a Loop step to a command: picks the form of the kernel (flat, rows, columns) and lays out its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dualgraph.kernels.expr import FOLD, INPUT, LITERAL, Instr, literal_bits
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.command import Command, Locate
from dualgraph.kernels.llvm.loops.nest import (
    COUNTER,
    STRIDED,
    Leaf,
    Nest,
    Signature,
    access_along,
    flat_nest,
    fold_nest,
    leaves,
)
from dualgraph.kernels.llvm.loops.variants import (
    BLOCK,
    CHUNK,
    KEPT_ROWS,
    LANES,
    MANY_CHUNKS,
    ONE_CHUNK,
    SHORT,
    WIDTH,
    Columns,
    Flat,
    Rows,
)
from dualgraph.kernels.llvm.loops.walks import work
from dualgraph.kernels.monoids import MONOIDS
from dualgraph.kernels.program import Step, replace, row_shape
from dualgraph.spec import ITEMSIZE, is_float

# Columns of large domains: four vectors side by side use the whole of what memory delivers. Only for cheap code.
WIDE, WIDE_DOMAIN, WIDE_WORK = 64, 1 << 15, 24

# Rows that fit one vector of so many lanes need no loop. Above LANES there are limits on lanes × work and on bytes.
SHORT_WIDTHS = (16, LANES, 64, 128)
SHORT_WORK, SHORT_BYTES = 4096, 512

_NOTHING = Command(Flat(Loop((), (), (), ()), (), 0, WIDTH), (0, 0), 0, 0)  # an empty domain


def loop_command(step: Step, locate: Locate, *, width: int = WIDTH, orientation: str | None = None) -> Command:
    """`orientation`: "rows" or "columns" instead of the cheaper one."""
    kernel, step, elementwise = _simplified(step)
    if 0 in step.domain:
        return _NOTHING
    operands = leaves(step, kernel, locate)
    if elementwise:
        return _flat(kernel, step, operands, width)
    is_row = kernel.is_row()
    full = [*(not r for r in kernel.row_inputs), *(not is_row[r] for r in kernel.results)]
    full += [True] * (len(operands) - len(full))
    nest = fold_nest(step.domain, step.fold_axes, operands, full, orientation)
    assert nest.fold is not None
    early = not _overlap(operands, len(step.ins), step)
    form = _rows if nest.rows else _columns
    return form(kernel, nest, operands, early, width)


def _flat(kernel: Loop, step: Step, operands: list[Leaf], width: int) -> Command:
    nest = flat_nest(step.domain, operands, min(len(step.ins), len(operands) - 1) if operands else 0)
    blocks = -(-nest.inner.extent // BLOCK)
    variant = Flat(kernel, _signatures(nest, operands), len(nest.outer), width)
    args = [nest.inner.extent, blocks, *(axis.extent for axis in nest.outer)]
    args += _operand_args(nest, operands, variant.operands)
    return Command(variant, tuple(args), nest.outer_size * blocks, work(kernel.code) * math.prod(step.domain))


def _rows(kernel: Loop, nest: Nest, operands: list[Leaf], early: bool, width: int) -> Command:
    extent = nest.inner.extent
    short = _short_width(kernel, extent)
    length = SHORT if short else ONE_CHUNK if extent <= CHUNK else MANY_CHUNKS
    variant = Rows(kernel, _signatures(nest, operands), len(nest.outer), short or width, length, early)
    args = [extent, *(axis.extent for axis in nest.outer), *_operand_args(nest, operands, variant.operands)]
    return Command(variant, tuple(args), nest.outer_size, work(kernel.code) * nest.outer_size * extent)


def _short_width(kernel: Loop, extent: int) -> int:
    """The width of a vector that holds a whole row, or 0. It may be several registers, while the code stays small."""
    size = max((ITEMSIZE[instr.dtype] for instr in kernel.code), default=1)
    for width in SHORT_WIDTHS:
        if extent <= width:
            small = width <= LANES or (width * work(kernel.code) <= SHORT_WORK and width * size <= SHORT_BYTES)
            return width if small else 0
    return 0


def _columns(kernel: Loop, nest: Nest, operands: list[Leaf], early: bool, width: int) -> Command:
    assert nest.fold is not None
    extent, length = nest.inner.extent, nest.fold.extent
    if width == WIDTH and extent >= WIDE and extent * length >= WIDE_DOMAIN and work(kernel.code) <= WIDE_WORK:
        width = WIDE
    blocks, lanes = -(-extent // width), min(LANES, 1 << (length - 1).bit_length())
    signatures = _signatures(nest, operands)
    variant = Columns(kernel, signatures, len(nest.outer), width, length > CHUNK, length <= KEPT_ROWS, early)
    args = [extent, blocks, length, lanes, *(axis.extent for axis in nest.outer)]
    args += _operand_args(nest, operands, signatures)
    return Command(
        variant, tuple(args), nest.outer_size * blocks, work(kernel.code) * nest.outer_size * extent * length
    )


def _signatures(nest: Nest, operands: Sequence[Leaf]) -> tuple[Signature, ...]:
    fold = nest.fold if nest.fold is not None and not nest.rows else None
    return tuple(
        Signature(
            leaf.dtype,
            access_along(nest.inner, i, leaf.itemsize),
            moves=fold is not None and fold.strides[i] != 0,
            counter=leaf.slot == COUNTER,
        )
        for i, leaf in enumerate(operands)
    )


def _operand_args(nest: Nest, operands: Sequence[Leaf], signatures: Sequence[Signature]) -> list[int]:
    """What `operands.Operand` reads."""
    args: list[int] = []
    for i, (leaf, signature) in enumerate(zip(operands, signatures, strict=True)):
        args += [leaf.slot, leaf.start, *(axis.strides[i] for axis in nest.outer)]
        if signature.moves and nest.fold is not None:
            args.append(nest.fold.strides[i])
        if signature.access == STRIDED:
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


def _simplified(step: Step) -> tuple[Loop, Step, bool]:
    """An equal kernel and step; with the answer whether it is elementwise: nothing to fold, or at most one position."""
    kernel = step.kernel
    assert isinstance(kernel, Loop)
    extent, is_row = math.prod(step.domain[axis] for axis in step.fold_axes), kernel.is_row()
    if extent == 0 and step.fold_axes:
        return _of_nothing(kernel, step)
    if extent > 1 and (kernel.folds or any(is_row[r] for r in kernel.results)):
        return kernel, step, False
    if not kernel.folds and not any(kernel.row_inputs):
        return kernel, step, True
    numbers: list[int] = []  # new number of each instruction; a fold of one element is that element, as `expr.computed`
    code: list[Instr] = []
    for instr in kernel.code:
        if instr.op == FOLD and not is_float(instr.dtype):
            numbers.append(numbers[instr.args[0]])
            continue
        if instr.op == FOLD:
            instr = Instr("maximum", instr.args * 2, instr.dtype)
        code.append(instr._replace(args=tuple(numbers[a] for a in instr.args)))
        numbers.append(len(code) - 1)
    results = tuple(numbers[r] for r in kernel.results)
    return Loop(tuple(code), results, kernel.input_dtypes, (False,) * len(kernel.input_dtypes)), step, True


def _of_nothing(kernel: Loop, step: Step) -> tuple[Loop, Step, bool]:
    """Folds over no elements are constants; only row results have elements at all."""
    is_row = kernel.is_row()
    rows = [n for n, r in enumerate(kernel.results) if is_row[r]]
    code, numbers, inputs = list[Instr](), dict[int, int](), list[int]()
    for i, instr in enumerate(kernel.code):
        if not is_row[i]:
            continue
        if instr.op == FOLD:
            value = MONOIDS[instr.attr].of_nothing(instr.dtype)
            instr = Instr(LITERAL, (), instr.dtype, literal_bits(value, instr.dtype))
        elif instr.op == INPUT:
            inputs.append(instr.attr)
            instr = instr._replace(attr=len(inputs) - 1)
        numbers[i] = len(code)
        code.append(instr._replace(args=tuple(numbers[a] for a in instr.args)))
    dtypes = tuple(kernel.input_dtypes[n] for n in inputs)
    simple = Loop(tuple(code), tuple(numbers[kernel.results[n]] for n in rows), dtypes, (False,) * len(dtypes))
    domain = row_shape(step.domain, step.fold_axes)
    ins, outs = (step.ins[n] for n in inputs), (step.outs[n] for n in rows)
    return simple, replace(step, kernel=simple, domain=domain, ins=tuple(ins), outs=tuple(outs), fold_axes=()), True
