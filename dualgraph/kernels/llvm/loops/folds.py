"""The canonical order of folds in code: the tree over 32 lanes, and chunks combined pairwise.

The order is that of `kernels.reference.folds`; see there for its plain form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loops.frame import I32, I64, For, Frame, i64
from dualgraph.kernels.llvm.loops.values import combine
from dualgraph.kernels.llvm.loops.variants import LANES

_STACK = 64  # one entry per bit of a chunk count


def tree(x: Value, monoid: str) -> Value:
    """Lane i with lane i + width/2, down to one lane: a scalar."""
    builder, width, value = x.lanes.builder, x.lanes.width, x
    while width > 2:
        width //= 2
        lanes = Lanes(builder, width)
        low, high = (builder.shuffle_vector(value.ir, value.ir, _lane_numbers(first, width)) for first in (0, width))
        value = combine(lanes, monoid, lanes.wrap(x.dtype, low), lanes.wrap(x.dtype, high))
    one = Lanes(builder, 1)
    first, second = (one.wrap(x.dtype, builder.extract_element(value.ir, ir.Constant(I32, i))) for i in (0, 1))
    return combine(one, monoid, first, second)


def fold_vector(x: Value, monoid: str) -> Value:
    """A row that fits one vector, however wide: element k goes to lane k % 32 in turn, then the tree."""
    builder, lanes = x.lanes.builder, Lanes(x.lanes.builder, LANES)
    if x.lanes.width <= LANES:
        return tree(x, monoid)
    firsts = range(0, x.lanes.width, LANES)
    total, *others = (
        lanes.wrap(x.dtype, builder.shuffle_vector(x.ir, x.ir, _lane_numbers(first, LANES))) for first in firsts
    )
    for part in others:
        total = accumulate(lanes, monoid, total, part)
    return tree(total, monoid)


def accumulate(lanes: Lanes, monoid: str, total: Value, x: Value) -> Value:
    """`total op x`. Maxima and minima take x first: the tests of sign and NaN then are no part of the chain."""
    return combine(lanes, monoid, x, total) if monoid in ("max", "min") else combine(lanes, monoid, total, x)


def _lane_numbers(first: int, count: int) -> Any:
    return ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))


class Chunks:
    """Results of chunks on a stack, merged like the bits of a counter: as soon as two stand for equally many chunks."""

    def __init__(self, frame: Frame, lanes: Lanes, folds: Sequence[tuple[str, str]]):
        self.builder, self.lanes, self.folds = frame.builder, lanes, folds  # (monoid, dtype) each
        self.stacks = [frame.scratch(lanes.memory_type(dtype), _STACK) for _, dtype in folds]
        self.height = frame.scratch(I64, 1)
        self.builder.store(i64(0), self.height)

    def push(self, number: Any, results: Sequence[Value]) -> None:
        """The results of chunk `number`, one per fold."""
        builder = self.builder
        count = builder.add(number, i64(1))
        merges = builder.cttz(count, ir.Constant(ir.IntType(1), 1))
        height, results = self._merge(merges, results)
        for stack, result in zip(self.stacks, results, strict=True):
            builder.store(self.lanes.to_memory(result), self._entry(stack, height, result.dtype))
        builder.store(builder.add(height, i64(1)), self.height)

    def result(self) -> list[Value]:
        builder = self.builder
        top = builder.sub(builder.load(self.height, typ=I64), i64(1))
        builder.store(top, self.height)
        last = [self._load(stack, top, dtype) for stack, (_, dtype) in zip(self.stacks, self.folds, strict=True)]
        return self._merge(top, last)[1]

    def _merge(self, times: Any, right: Sequence[Value]) -> tuple[Any, list[Value]]:
        builder = self.builder
        height = builder.load(self.height, typ=I64)
        with For(builder, i64(0), times, carried=[height, *(value.ir for value in right)]) as loop:
            below = builder.sub(loop.values[0], i64(1))
            merged = [
                combine(self.lanes, monoid, self._load(stack, below, dtype), self.lanes.wrap(dtype, carried)).ir
                for stack, (monoid, dtype), carried in zip(self.stacks, self.folds, loop.values[1:], strict=True)
            ]
            loop.carry([below, *merged])
        height, *values = loop.values
        return height, [self.lanes.wrap(dtype, v) for (_, dtype), v in zip(self.folds, values, strict=True)]

    def _entry(self, stack: Any, number: Any, dtype: str) -> Any:
        return self.builder.gep(stack, [number], source_etype=self.lanes.memory_type(dtype))

    def _load(self, stack: Any, number: Any, dtype: str) -> Value:
        loaded = self.builder.load(self._entry(stack, number, dtype), typ=self.lanes.memory_type(dtype))
        return self.lanes.from_memory(dtype, loaded)
