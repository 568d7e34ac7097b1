"""Indexing kernels: their variants and which one a step takes. `code` writes them.

All views are (A, N or I, B) with any strides; negative indices count from the end, once. Gathers have one unit for each
(a, i), but along an axis with nothing behind it (B = 1) one for each a and block of I; scatters one for each a and block
of B, each of which adds in the order of i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.llvm.command import Command, Locate, Variant
from dualgraph.kernels.llvm.loops.nest import STRIDED, Axis, Leaf, Signature, access_along, flat_nest
from dualgraph.kernels.llvm.loops.variants import BLOCK, LANES, WIDTH
from dualgraph.kernels.program import Step, View
from dualgraph.spec import ITEMSIZE

SCATTER_BLOCK = 8 * LANES  # columns of one unit of a scatter
GATHER_BLOCK = BLOCK  # elements of one unit of a gather from a row


@dataclass(frozen=True)
class Indexing(Variant):
    """`form`: gather, gather_along, gather_row (B = 1), scatter or scatter_along.

    Arguments: A, N, I, B, blocks of B or of I; slot, offset, strides of the indexed array, of the index, of the other array.
    """

    form: str
    indexed: Signature
    index: Signature
    other: Signature
    width: int


@dataclass(frozen=True)
class Check(Variant):
    """Arguments: low, high, inner extent, blocks, outer dims; slot, offset, outer strides, inner stride."""

    operand: Signature
    rank: int
    width: int


def gather_command(step: Step, locate: Locate) -> Command:
    assert isinstance(step.kernel, (Gather, GatherAlong))
    (x, index), (out,) = step.ins, step.outs
    a, i, b = out.shape
    extents, views = (a, x.shape[1], i, b), (x, index, out)
    if isinstance(step.kernel, Gather):
        return _indexing("gather", extents, views, locate, units=a * i, blocks=1)
    if b == 1:
        blocks = -(-i // GATHER_BLOCK)
        return _indexing("gather_row", extents, views, locate, units=a * blocks, blocks=blocks)
    return _indexing("gather_along", extents, views, locate, units=a * i, blocks=1)


def scatter_command(step: Step, locate: Locate) -> Command:
    assert isinstance(step.kernel, (ScatterAdd, ScatterAddAlong))
    (g, index), (out,) = step.ins, step.outs
    a, n, b = out.shape
    blocks = -(-b // SCATTER_BLOCK)
    form = "scatter" if isinstance(step.kernel, ScatterAdd) else "scatter_along"
    return _indexing(form, (a, n, g.shape[1], b), (out, index, g), locate, units=a * blocks, blocks=blocks)


def _indexing(
    form: str, extents: Sequence[int], views: Sequence[View], locate: Locate, *, units: int, blocks: int
) -> Command:
    operands = [_operand(view, locate) for view in views]
    indexed, index, other = (signature for signature, _ in operands)
    args = [*extents, blocks, *(word for _, words in operands for word in words)]
    work = 4 * math.prod(views[2].shape) + (math.prod(views[0].shape) if form.startswith("scatter") else 0)
    return Command(Indexing(form, indexed, index, other, WIDTH), tuple(args), units, work)


def _operand(view: View, locate: Locate) -> tuple[Signature, list[int]]:
    """The last axis of a 3-axis view is its inner one; the single axis of an index is an outer one."""
    slot, start = locate(view.buffer)
    size = ITEMSIZE[view.dtype]
    strides = [s * size for s in view.strides]
    words = [slot, start + view.offset * size]
    if len(strides) == 1:
        return Signature(view.dtype, "contiguous"), words + strides
    inner = Axis(0 if 0 in view.shape else view.shape[-1], (strides[-1],))
    signature = Signature(view.dtype, access_along(inner, 0, size))
    return signature, [*words, *strides[:-1], *([strides[-1]] if signature.access == STRIDED else [])]


def check_command(step: Step, locate: Locate) -> Command:
    kernel, (view,) = step.kernel, step.ins
    assert isinstance(kernel, CheckIndex)
    (slot, start), size = locate(view.buffer), ITEMSIZE[view.dtype]
    leaf = Leaf(view.dtype, size, slot, start + view.offset * size, tuple(s * size for s in view.strides))
    nest = flat_nest(view.shape, [leaf], 0)
    signature = Signature(view.dtype, access_along(nest.inner, 0, size))
    blocks = -(-nest.inner.extent // BLOCK)
    args = [kernel.low, kernel.high, nest.inner.extent, blocks, *(axis.extent for axis in nest.outer)]
    args += [slot, leaf.start, *(axis.strides[0] for axis in nest.outer)]
    args += [nest.inner.strides[0]] if signature.access == STRIDED else []
    variant = Check(signature, len(nest.outer), WIDTH)
    return Command(variant, tuple(args), nest.outer_size * blocks, 2 * math.prod(view.shape))
