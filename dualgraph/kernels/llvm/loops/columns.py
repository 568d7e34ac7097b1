"""Column kernels: a kept axis fills the vectors, the folded axis is walked. A unit is one vector of columns.

The 32 lanes of a fold are 32 vectors in a small buffer that stays in the first cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import Value
from dualgraph.kernels.llvm.loops.folds import Chunks, accumulate
from dualgraph.kernels.llvm.loops.frame import I1, For, Frame, Mask, i64
from dualgraph.kernels.llvm.loops.operands import Operand, store_all
from dualgraph.kernels.llvm.loops.values import Values, combine, identity
from dualgraph.kernels.llvm.loops.variants import CHUNK, KEPT_ROWS, LANES, Columns
from dualgraph.kernels.llvm.loops.walks import Walk, walks


def emit(variant: Columns, module: Any, name: str) -> None:
    frame = Frame(module, name, variant.width)
    extent, blocks, length, lanes = (frame.arg() for _ in range(4))
    dims = [frame.arg() for _ in range(variant.rank)]
    operands = [Operand(frame, signature, variant.rank) for signature in variant.operands]
    with frame.units(dims, blocks) as (block, coordinates):
        bases = [operand.at(coordinates) for operand in operands]
        column = frame.builder.mul(block, i64(variant.width))
        mask = frame.mask(frame.builder.sub(extent, column))
        columns = _Columns(frame, variant, (length, lanes), operands, bases, column, mask)
        for walk in walks(variant.kernel, early=variant.early, keep=variant.keep):
            columns.run(walk)
        columns.store_row_results()
    frame.finish()


class _Columns:
    def __init__(
        self,
        frame: Frame,
        variant: Columns,
        extents: tuple[Any, Any],
        operands: list[Operand],
        bases: list[Any],
        column: Any,
        mask: Mask,
    ):
        self.frame, self.variant, self.kernel = frame, variant, variant.kernel
        self.length, self.lane_count = extents
        self.operands, self.bases, self.column, self.mask, self.lanes = operands, bases, column, mask, frame.lanes
        still = [not signature.moves for signature in variant.operands]
        self.values = Values(frame.lanes, self.kernel, still, lambda leaf: self._load(leaf, bases[leaf]))
        self.scratch: dict[int, Any] = {}

    def run(self, walk: Walk) -> None:
        self.values.prepare(walk)
        buffers = {f: self.frame.scratch(self._type(f), LANES) for f in walk.folds}
        if self.variant.chunked and walk.folds:
            results = self._chunks(walk, buffers)
        else:
            results = self._chunk(walk, buffers, i64(0), self.length)
        for f, value in zip(walk.folds, results, strict=True):
            self.values.folded(f, value)

    def store_row_results(self) -> None:
        is_row, first = self.values.is_row, len(self.kernel.input_dtypes)
        self.values.need_rows(r for r in self.kernel.results if is_row[r])
        row = self.values.row
        rows = [(n, row[r]) for n, r in enumerate(self.kernel.results, first) if is_row[r]]
        store_all([(self.operands[n], self.bases[n], x) for n, x in rows], self.column, self.mask)

    def _chunks(self, walk: Walk, buffers: dict[int, Any]) -> list[Value]:
        builder = self.frame.builder
        chunks = Chunks(self.frame, self.lanes, [(self._monoid(f), self.kernel.code[f].dtype) for f in walk.folds])
        number = builder.sdiv(builder.add(self.length, i64(CHUNK - 1)), i64(CHUNK))
        with For(builder, i64(0), number) as loop:
            start = builder.mul(loop.index, i64(CHUNK))
            stop = self.frame.minimum(self.length, builder.add(start, i64(CHUNK)))
            chunks.push(loop.index, self._chunk(walk, buffers, start, stop))
        return chunks.result()

    def _chunk(self, walk: Walk, buffers: dict[int, Any], start: Any, stop: Any) -> list[Value]:
        builder = self.frame.builder
        if walk.folds:
            with For(builder, i64(0), self.lane_count) as lane:
                for f, buffer in buffers.items():
                    self._put(buffer, f, lane.index, identity(self.lanes, self._monoid(f), self.kernel.code[f].dtype))
        with For(builder, start, stop) as loop:
            k = loop.index
            bases = [operand.along_fold(base, k) for operand, base in zip(self.operands, self.bases, strict=True)]
            known = {i: self._get(self.scratch[i], i, k) for i in walk.from_scratch}
            value = self.values.full(walk, lambda leaf: self._load(leaf, bases[leaf]), known)
            self._keep(walk, k, value)
            first = len(self.kernel.input_dtypes)
            numbers = [(n, self.kernel.results[n]) for n in walk.stores]
            results = [(first + n, value(r)) for n, r in numbers]
            store_all([(self.operands[n], bases[n], x) for n, x in results], self.column, self.mask)
            place = builder.and_(k, i64(LANES - 1))
            for f, buffer in buffers.items():
                x = value(self.kernel.code[f].args[0])
                total = accumulate(self.lanes, self._monoid(f), self._get(buffer, f, place), x)
                self._put(buffer, f, place, total)
        if walk.folds:
            self._tree(buffers)
        return [self._get(buffer, f, i64(0)) for f, buffer in buffers.items()]

    def _tree(self, buffers: dict[int, Any]) -> None:
        """Lane i with lane i + half, over the lanes in use: the others hold the identity, which changes nothing."""
        builder = self.frame.builder
        levels = builder.cttz(self.lane_count, ir.Constant(I1, 0))
        with For(builder, i64(0), levels) as level:
            half = builder.lshr(self.lane_count, builder.add(level.index, i64(1)))
            with For(builder, i64(0), half) as lane:
                other = builder.add(lane.index, half)
                for f, buffer in buffers.items():
                    pair = self._get(buffer, f, lane.index), self._get(buffer, f, other)
                    self._put(buffer, f, lane.index, combine(self.lanes, self._monoid(f), *pair))

    def _keep(self, walk: Walk, k: Any, value: Callable[[int], Value]) -> None:
        for i in walk.to_scratch:
            self.scratch[i] = self.frame.scratch(self._type(i), KEPT_ROWS)
            self._put(self.scratch[i], i, k, value(i))

    def _load(self, leaf: int, base: Any) -> Value:
        return self.operands[leaf].load(base, self.column, self.mask)

    def _put(self, buffer: Any, i: int, number: Any, value: Value) -> None:
        type_ = self._type(i)
        place = self.frame.builder.gep(buffer, [number], source_etype=type_)
        self.frame.builder.store(self.lanes.to_memory(value), place)

    def _get(self, buffer: Any, i: int, number: Any) -> Value:
        place = self.frame.builder.gep(buffer, [number], source_etype=self._type(i))
        loaded = self.frame.builder.load(place, typ=self._type(i))
        return self.lanes.from_memory(self.kernel.code[i].dtype, loaded)

    def _type(self, i: int) -> Any:
        return self.lanes.memory_type(self.kernel.code[i].dtype)

    def _monoid(self, f: int) -> str:
        return str(self.kernel.code[f].attr)
