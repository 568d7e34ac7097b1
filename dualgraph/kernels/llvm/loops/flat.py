"""Elementwise kernels: a unit is one block of the inner axis at one place of the outer axes."""

from __future__ import annotations

from typing import Any

from dualgraph.kernels.llvm.loops.frame import For, Frame, i64
from dualgraph.kernels.llvm.loops.nest import BROADCAST
from dualgraph.kernels.llvm.loops.operands import Operand, store_all
from dualgraph.kernels.llvm.loops.values import Values
from dualgraph.kernels.llvm.loops.variants import BLOCK, Flat
from dualgraph.kernels.llvm.loops.walks import Walk


def emit(variant: Flat, module: Any, name: str) -> None:
    kernel, frame = variant.kernel, Frame(module, name, variant.width)
    extent, blocks, dims = frame.arg(), frame.arg(), [frame.arg() for _ in range(variant.rank)]
    operands = [Operand(frame, signature, variant.rank) for signature in variant.operands]
    still = [signature.access == BROADCAST for signature in variant.operands]
    walk = Walk((), tuple(range(len(kernel.results))), tuple(range(len(kernel.code))), (), ())
    with frame.units(dims, blocks) as (block, coordinates):
        bases = [operand.at(coordinates) for operand in operands]
        values = Values(frame.lanes, kernel, still, lambda leaf: operands[leaf].load_one(bases[leaf]))
        values.prepare(walk)
        start = frame.builder.mul(block, i64(BLOCK))
        stop = frame.minimum(extent, frame.builder.add(start, i64(BLOCK)))
        with For(frame.builder, start, stop, variant.width) as loop:
            i = loop.index
            mask = frame.mask(frame.builder.sub(stop, i))
            value = values.full(walk, lambda leaf: operands[leaf].load(bases[leaf], i, mask), {})
            first = len(kernel.input_dtypes)
            stores = [(operands[n], bases[n], value(r)) for n, r in enumerate(kernel.results, first)]
            store_all(stores, i, mask)
    frame.finish()
