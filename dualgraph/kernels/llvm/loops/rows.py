"""Row kernels: the folded axis fills the vectors. A unit is one row.

The 32 lanes of a fold are one or two vectors that take turns. A row that fits one vector needs no loop: its full values
stay in registers from walk to walk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loops.folds import Chunks, accumulate, fold_vector, tree
from dualgraph.kernels.llvm.loops.frame import For, Frame, Mask, i64
from dualgraph.kernels.llvm.loops.nest import BROADCAST
from dualgraph.kernels.llvm.loops.operands import Operand, store_all
from dualgraph.kernels.llvm.loops.values import Values, combine, identity
from dualgraph.kernels.llvm.loops.variants import CHUNK, LANES, ONE_CHUNK, SHORT, Rows
from dualgraph.kernels.llvm.loops.walks import Walk, walks


def emit(variant: Rows, module: Any, name: str) -> None:
    frame = Frame(module, name, variant.width)
    extent, dims = frame.arg(), [frame.arg() for _ in range(variant.rank)]
    operands = [Operand(frame, signature, variant.rank) for signature in variant.operands]
    keep = variant.length == ONE_CHUNK
    with frame.units(dims, i64(1)) as (_, coordinates):
        bases = [operand.at(coordinates) for operand in operands]
        row = _Row(frame, variant, extent, operands, bases)
        for walk in walks(variant.kernel, early=variant.early, keep=keep):
            row.run(walk)
        row.store_row_results()
    frame.finish()


class _Row:
    def __init__(self, frame: Frame, variant: Rows, extent: Any, operands: list[Operand], bases: list[Any]):
        self.frame, self.variant, self.kernel, self.extent = frame, variant, variant.kernel, extent
        self.operands, self.bases, self.lanes = operands, bases, frame.lanes
        still = [signature.access == BROADCAST for signature in variant.operands]
        self.values = Values(frame.lanes, self.kernel, still, lambda leaf: operands[leaf].load_one(bases[leaf]))
        self.scratch: dict[int, Any] = {}
        self.registers: dict[int, Value] = {}  # of a short row

    def run(self, walk: Walk) -> None:
        self.values.prepare(walk)
        if self.variant.length == SHORT:
            results = self._short(walk)
        elif self.variant.length == ONE_CHUNK:
            results = self._chunk(walk, i64(0), self.extent)
        else:
            results = self._chunks(walk)
        for f, scalar in zip(walk.folds, results, strict=True):
            self.values.folded(f, self.lanes.wrap(scalar.dtype, self.frame.splat(scalar.ir)))

    def store_row_results(self) -> None:
        outputs = len(self.kernel.input_dtypes)
        is_row = self.values.is_row
        self.values.need_rows(r for r in self.kernel.results if is_row[r])
        for n, result in enumerate(self.kernel.results, outputs):
            if is_row[result]:
                self.operands[n].store_one(self.bases[n], self.values.row[result])

    def _short(self, walk: Walk) -> list[Value]:
        mask = self.frame.mask(self.extent)
        value = self.values.full(walk, self._loader(i64(0), mask), self.registers)
        self._store(walk, i64(0), mask, value)
        return [fold_vector(self._masked(f, mask, value), self._monoid(f)) for f in walk.folds]

    def _chunks(self, walk: Walk) -> list[Value]:
        builder = self.frame.builder
        chunks = Chunks(self.frame, Lanes(builder, 1), [(self._monoid(f), self._dtype(f)) for f in walk.folds])
        number = builder.sdiv(builder.add(self.extent, i64(CHUNK - 1)), i64(CHUNK))
        with For(builder, i64(0), number) as loop:
            start = builder.mul(loop.index, i64(CHUNK))
            stop = self.frame.minimum(self.extent, builder.add(start, i64(CHUNK)))
            chunks.push(loop.index, self._chunk(walk, start, stop))
        return chunks.result()

    def _chunk(self, walk: Walk, start: Any, stop: Any) -> list[Value]:
        builder, lanes = self.frame.builder, self.lanes
        turns = LANES // self.variant.width
        starts = [identity(lanes, self._monoid(f), self._dtype(f)).ir for f in walk.folds]
        with For(builder, start, stop, self.variant.width, [s for s in starts for _ in range(turns)]) as loop:
            mask = self.frame.mask(builder.sub(stop, loop.index))
            known = {i: self._reload(i, loop.index) for i in walk.from_scratch}
            value = self.values.full(walk, self._loader(loop.index, mask), known)
            for i in walk.to_scratch:
                self._keep(i, loop.index, value(i))
            self._store(walk, loop.index, mask, value)
            turned = []
            for n, f in enumerate(walk.folds):
                first, *others = loop.values[n * turns : (n + 1) * turns]
                total = lanes.wrap(self._dtype(f), first)
                x = accumulate(lanes, self._monoid(f), total, self._masked(f, mask, value))
                turned += [*others, x.ir]
            loop.carry(turned)
        # After an odd number of vectors the two have not come back to their places.
        width = self.variant.width
        count = builder.sdiv(builder.add(builder.sub(stop, start), i64(width - 1)), i64(width))
        odd = builder.trunc(count, ir.IntType(1))
        results = []
        for n, f in enumerate(walk.folds):
            parts = [lanes.wrap(self._dtype(f), v) for v in loop.values[n * turns : (n + 1) * turns]]
            if turns == 2:
                x, y = (lanes.wrap(self._dtype(f), builder.select(odd, a.ir, b.ir)) for a, b in (parts[::-1], parts))
                parts = [combine(lanes, self._monoid(f), x, y)]
            results.append(tree(parts[0], self._monoid(f)))
        return results

    def _loader(self, i: Any, mask: Mask) -> Callable[[int], Value]:
        return lambda leaf: self.operands[leaf].load(self.bases[leaf], i, mask)

    def _store(self, walk: Walk, i: Any, mask: Mask, value: Callable[[int], Value]) -> None:
        first = len(self.kernel.input_dtypes)
        numbers = [(n, self.kernel.results[n]) for n in walk.stores]
        results = [(first + n, value(r)) for n, r in numbers]
        store_all([(self.operands[n], self.bases[n], x) for n, x in results], i, mask)

    def _masked(self, f: int, mask: Mask, value: Callable[[int], Value]) -> Value:
        """The argument of fold f, the identity in lanes beyond the row."""
        x = value(self.kernel.code[f].args[0])
        return x.where(self.lanes.wrap("bool", mask.lanes), identity(self.lanes, self._monoid(f), x.dtype))

    def _keep(self, i: int, at: Any, value: Value) -> None:
        type_ = self.lanes.memory_type(value.dtype)
        self.scratch[i] = self.frame.scratch(type_, CHUNK // self.variant.width)
        place = self.frame.builder.gep(self.scratch[i], [self._vector(at)], source_etype=type_)
        self.frame.builder.store(self.lanes.to_memory(value), place)

    def _reload(self, i: int, at: Any) -> Value:
        dtype = self.kernel.code[i].dtype
        type_ = self.lanes.memory_type(dtype)
        place = self.frame.builder.gep(self.scratch[i], [self._vector(at)], source_etype=type_)
        return self.lanes.from_memory(dtype, self.frame.builder.load(place, typ=type_))

    def _vector(self, at: Any) -> Any:
        return self.frame.builder.sdiv(at, i64(self.variant.width), flags=("exact",))

    def _monoid(self, f: int) -> str:
        return str(self.kernel.code[f].attr)

    def _dtype(self, f: int) -> str:
        return self.kernel.code[f].dtype
