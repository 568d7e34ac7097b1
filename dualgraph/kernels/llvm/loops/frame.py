"""What every loop kernel shares: the function with its arguments, counted loops, the walk over units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import BYTE, Lanes

POINTER = ir.PointerType()
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
ABI = ir.FunctionType(I32, [POINTER, POINTER, I64, I64])


def i64(value: int) -> Any:
    return ir.Constant(I64, value)


class For:
    """`for i in range(start, stop, step)` with carried values: `with For(…) as loop: …; loop.carry(…)`.

    `loop.values` are the carried values inside the body, and after the loop its results.
    """

    def __init__(self, builder: ir.IRBuilder, start: Any, stop: Any, step: int = 1, carried: Sequence[Any] = ()):
        self.builder, self.step = builder, step
        before = builder.block
        head, self.body, self.done = (builder.append_basic_block(n) for n in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        self.head = head
        self.index = builder.phi(I64)
        self.index.add_incoming(start, before)
        self.values = [builder.phi(value.type) for value in carried]
        for phi, value in zip(self.values, carried, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", self.index, stop), self.body, self.done)

    def __enter__(self) -> For:
        self.builder.position_at_end(self.body)
        self._next: Sequence[Any] = ()
        return self

    def carry(self, values: Sequence[Any]) -> None:
        self._next = values

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            return
        builder = self.builder
        following = builder.add(self.index, i64(self.step), flags=("nsw",))
        self.index.add_incoming(following, builder.block)
        for phi, value in zip(self.values, self._next, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(self.head)
        builder.position_at_end(self.done)


class Mask(NamedTuple):
    """The lanes in use, and whether those are all (a branch on it is foreseen by the processor)."""

    lanes: Any
    full: Any


class Frame:
    """The function being written: reads `args` in order, makes lanes, and walks over the units."""

    def __init__(self, module: ir.Module, name: str, width: int):
        function = ir.Function(module, ABI, name)
        function.attributes.add("nounwind")
        slots, args, self.begin, self.end = function.args
        for pointer in (slots, args):  # nothing a kernel writes is read through these two
            pointer.add_attribute("noalias")
        self._slots, self._args, self._read = slots, args, 0
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.lanes = Lanes(self.builder, width)
        self.iota = ir.Constant(ir.VectorType(I32, width), list(range(width)))

    def arg(self) -> Any:
        self._read += 1
        return self.builder.load(self.builder.gep(self._args, [i64(self._read - 1)], source_etype=I64), typ=I64)

    def pointer(self, slot: Any, offset: Any) -> Any:
        place = self.builder.gep(self._slots, [slot], source_etype=POINTER)
        return self.builder.gep(self.builder.load(place, typ=POINTER), [offset], source_etype=BYTE)

    def scratch(self, type_: Any, count: int) -> Any:
        """Uninitialised stack memory that lives as long as the call."""
        with self.builder.goto_entry_block():
            memory = self.builder.alloca(type_, count)
        memory.align = 64
        return memory

    def minimum(self, x: Any, y: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)

    def mask(self, count: Any) -> Mask:
        """The first `count` lanes (all, if there are fewer)."""
        width = i64(self.lanes.width)
        low = self.builder.trunc(self.minimum(count, width), I32)
        lanes = self.builder.icmp_signed("<", self.iota, self.splat(low))
        return Mask(lanes, self.builder.icmp_signed(">=", count, width))

    def splat(self, scalar: Any) -> Any:
        builder, vector = self.builder, ir.VectorType(scalar.type, self.lanes.width)
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.lanes.width), None))

    def units(self, dims: Sequence[Any], blocks: Any) -> Units:
        return Units(self, dims, blocks)

    def finish(self) -> None:
        self.builder.ret(ir.Constant(I32, 0))


class Units:
    """The loop over units [begin, end): for each, the coordinates on the outer axes and the number of the block."""

    def __init__(self, frame: Frame, dims: Sequence[Any], blocks: Any):
        builder, self.frame = frame.builder, frame
        rest, start, self.limits = frame.begin, [], [blocks, *reversed(dims)]
        for limit in self.limits[:-1]:  # innermost first
            start.append(builder.srem(rest, limit))
            rest = builder.sdiv(rest, limit)
        start.append(rest)
        self.loop = For(builder, frame.begin, frame.end, carried=start)

    def __enter__(self) -> tuple[Any, list[Any]]:
        self.loop.__enter__()
        block, *coordinates = self.loop.values
        return block, coordinates[::-1]

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            builder, following, carry = self.frame.builder, [], i64(1)
            for value, limit in zip(self.loop.values, self.limits, strict=True):
                value = builder.add(value, carry)
                over = builder.icmp_signed("==", value, limit)
                following.append(builder.select(over, i64(0), value))
                carry = builder.zext(over, I64)
            self.loop.carry(following)
        self.loop.__exit__(*exception)
