"""The code of indexing kernels. Copies along the inner axis are vectors; what takes an index per element is scalar."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.indexing.selection import GATHER_BLOCK, SCATTER_BLOCK, Check, Indexing
from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loops.frame import I32, For, Frame, i64
from dualgraph.kernels.llvm.loops.operands import Operand
from dualgraph.kernels.llvm.loops.values import combine, one_nan
from dualgraph.kernels.llvm.loops.variants import BLOCK
from dualgraph.kernels.llvm.maths.instructions import cast


def emit(variant: Indexing, module: Any, name: str) -> None:
    frame = Frame(module, name, variant.width)
    code = _Indexing(frame, variant)
    getattr(code, variant.form)()
    frame.finish()


class _Indexing:
    def __init__(self, frame: Frame, variant: Indexing):
        self.frame, self.builder = frame, frame.builder
        self.a, self.n, self.i, self.b, self.blocks = (frame.arg() for _ in range(5))
        self.indexed = Operand(frame, variant.indexed, 2)
        self.index = Operand(frame, variant.index, 1 if variant.form in ("gather", "scatter") else 2)
        self.other = Operand(frame, variant.other, 2)

    def gather(self) -> None:
        with self.frame.units([self.a, self.i], i64(1)) as (_, (a, i)):
            target = self._target(self.index.at([i]))
            source, result = self.indexed.at([a, target]), self.other.at([a, i])
            with For(self.builder, i64(0), self.b, self.frame.lanes.width) as loop:
                mask = self.frame.mask(self.builder.sub(self.b, loop.index))
                self.other.store(result, loop.index, mask, self.indexed.load(source, loop.index, mask))

    def gather_along(self) -> None:
        with self.frame.units([self.a, self.i], i64(1)) as (_, (a, i)):
            index, result = self.index.at([a, i]), self.other.at([a, i])
            with For(self.builder, i64(0), self.b) as loop:
                target = self._target(self.index.element(index, loop.index))
                source = self.indexed.element(self.indexed.at([a, target]), loop.index)
                self._put(self.other.element(result, loop.index), self._get(source, self.other.dtype))

    def gather_row(self) -> None:
        with self.frame.units([self.a], self.blocks) as (block, (a,)):
            start, stop = self._block(block, self.i, GATHER_BLOCK)
            with For(self.builder, start, stop) as loop:
                target = self._target(self.index.at([a, loop.index]))
                self._put(self.other.at([a, loop.index]), self._get(self.indexed.at([a, target]), self.other.dtype))

    def scatter(self) -> None:
        with self.frame.units([self.a], self.blocks) as (block, (a,)):
            start, stop = self._block(block, self.b, SCATTER_BLOCK)
            self._zero(a, start, stop)
            with For(self.builder, i64(0), self.i) as each:
                target = self._target(self.index.at([each.index]))
                place, addend = self.indexed.at([a, target]), self.other.at([a, each.index])
                with For(self.builder, start, stop, self.frame.lanes.width) as loop:
                    mask = self.frame.mask(self.builder.sub(stop, loop.index))
                    old = self.indexed.load(place, loop.index, mask)
                    new = combine(self.frame.lanes, "sum", old, self.other.load(addend, loop.index, mask))
                    self.indexed.store(place, loop.index, mask, _computed(new))

    def scatter_along(self) -> None:
        with self.frame.units([self.a], self.blocks) as (block, (a,)):
            start, stop = self._block(block, self.b, SCATTER_BLOCK)
            self._zero(a, start, stop)
            with For(self.builder, i64(0), self.i) as each:
                index, addend = self.index.at([a, each.index]), self.other.at([a, each.index])
                with For(self.builder, start, stop) as loop:
                    target = self._target(self.index.element(index, loop.index))
                    place = self.indexed.element(self.indexed.at([a, target]), loop.index)
                    x = self._get(self.other.element(addend, loop.index), self.other.dtype)
                    self._put(place, _computed(combine(x.lanes, "sum", self._get(place, x.dtype), x)))

    def _block(self, block: Any, extent: Any, length: int) -> tuple[Any, Any]:
        start = self.builder.mul(block, i64(length))
        return start, self.frame.minimum(extent, self.builder.add(start, i64(length)))

    def _zero(self, a: Any, start: Any, stop: Any) -> None:
        zero = self.frame.lanes.constant(self.indexed.dtype, 0)
        with For(self.builder, i64(0), self.n) as row:
            base = self.indexed.at([a, row.index])
            with For(self.builder, start, stop, self.frame.lanes.width) as loop:
                mask = self.frame.mask(self.builder.sub(stop, loop.index))
                self.indexed.store(base, loop.index, mask, zero)

    def _target(self, place: Any) -> Any:
        """The index at `place` counted from the front; returns 1 from the kernel where it is out of range."""
        builder = self.builder
        index = cast(Lanes(builder, 1), self._get(place, self.index.dtype), "int64").ir
        target = builder.select(builder.icmp_signed("<", index, i64(0)), builder.add(index, self.n), index)
        _fail_if(builder, builder.icmp_unsigned(">=", target, self.n))
        return target

    def _get(self, place: Any, dtype: str) -> Value:
        one = Lanes(self.builder, 1)
        return one.from_memory(dtype, self.builder.load(place, typ=one.memory_type(dtype)))

    def _put(self, place: Any, x: Value) -> None:
        self.builder.store(x.lanes.to_memory(x), place)


def emit_check(variant: Check, module: Any, name: str) -> None:
    frame = Frame(module, name, variant.width)
    builder, lanes = frame.builder, frame.lanes
    low, high, extent, blocks = (frame.arg() for _ in range(4))
    dims = [frame.arg() for _ in range(variant.rank)]
    operand = Operand(frame, variant.operand, variant.rank)
    low, count = (lanes.wrap("int64", frame.splat(x)) for x in (low, builder.sub(high, low)))
    with frame.units(dims, blocks) as (block, coordinates):
        base = operand.at(coordinates)
        start = builder.mul(block, i64(BLOCK))
        stop = frame.minimum(extent, builder.add(start, i64(BLOCK)))
        with For(builder, start, stop, variant.width) as loop:
            mask = frame.mask(builder.sub(stop, loop.index))
            x = operand.load(base, loop.index, mask)
            wide = cast(lanes, x, "int64")
            outside = ~(wide - low).below_unsigned(count) & lanes.wrap("bool", mask.lanes)
            _fail_if(builder, lanes.any(outside))
    frame.finish()


def _computed(x: Value) -> Value:
    return one_nan(x) if x.is_float else x


def _fail_if(builder: ir.IRBuilder, condition: Any) -> None:
    with builder.if_then(condition, likely=False):
        builder.ret(ir.Constant(I32, 1))
