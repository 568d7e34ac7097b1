"""What every loop kernel shares: the function with its arguments, counted loops, the walk over units, memory access.

Operands are read and written in masked vectors, so one body serves the full vectors and the tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import BYTE, Lanes, Value
from dualgraph.kernels.llvm.loop_layout import BROADCAST, CONTIGUOUS, Signature
from dualgraph.spec import ITEMSIZE

POINTER = ir.PointerType()
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
ABI = ir.FunctionType(I32, [POINTER, POINTER, I64, I64])
_SUFFIX = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "i8"}


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

    def mask(self, count: Any) -> Any:
        """The first `count` lanes (all, if there are fewer)."""
        low = self.builder.trunc(self.minimum(count, i64(self.lanes.width)), I32)
        return self.builder.icmp_signed("<", self.iota, self.splat(low))

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


class Operand:
    """An operand inside the function. `at` a unit's coordinates it gives a base; loads and stores count from a base."""

    def __init__(self, frame: Frame, signature: Signature, rank: int):
        self.frame, self.signature, self.dtype = frame, signature, signature.dtype
        slot, start = frame.arg(), frame.arg()
        self._origin = start if signature.counter else frame.pointer(slot, start)
        self._outer = [frame.arg() for _ in range(rank)]
        self._fold = frame.arg() if signature.moves else None
        self._inner = self._inner_stride()

    def _inner_stride(self) -> Any:
        layout = self.signature.layout
        if layout == BROADCAST:
            return None
        if layout == CONTIGUOUS:
            return i64(1 if self.signature.counter else ITEMSIZE[self.dtype])
        return self.frame.arg()

    def _advance(self, base: Any, offset: Any) -> Any:
        builder = self.frame.builder
        return builder.add(base, offset) if self.signature.counter else builder.gep(base, [offset], source_etype=BYTE)

    def at(self, coordinates: Sequence[Any]) -> Any:
        base = self._origin
        for coordinate, stride in zip(coordinates, self._outer, strict=True):
            base = self._advance(base, self.frame.builder.mul(coordinate, stride))
        return base

    def along_fold(self, base: Any, k: Any) -> Any:
        return base if self._fold is None else self._advance(base, self.frame.builder.mul(k, self._fold))

    def element(self, base: Any, i: Any) -> Any:
        """The address of element i of the vector axis."""
        return base if self._inner is None else self._advance(base, self.frame.builder.mul(i, self._inner))

    def load(self, base: Any, i: Any, mask: Any) -> Value:
        """The elements i, i + 1, … of the vector axis in the lanes of `mask`; anything in the others."""
        lanes, layout = self.frame.lanes, self.signature.layout
        if layout == BROADCAST:
            return self.load_one(base)
        if self.signature.counter:
            return self._count(base, i)
        type_ = lanes.memory_type(self.dtype)
        zero = ir.Constant(type_, None)
        if layout == CONTIGUOUS:
            place = self.element(base, i)
            loaded = self._call("masked.load", type_, "p0", [place, self._align(), mask, zero])
        else:
            pointers = self._pointers(base, i)
            loaded = self._call("masked.gather", type_, f"v{lanes.width}p0", [pointers, self._align(), mask, zero])
        return lanes.from_memory(self.dtype, loaded)

    def load_one(self, base: Any) -> Value:
        """The element at `base` in every lane."""
        frame = self.frame
        if self.signature.counter:
            return frame.lanes.wrap(self.dtype, frame.splat(base))
        one = Lanes(frame.builder, 1)
        loaded = frame.builder.load(base, typ=one.memory_type(self.dtype))
        return frame.lanes.from_memory(self.dtype, frame.splat(loaded))

    def store(self, base: Any, i: Any, mask: Any, value: Value) -> None:
        lanes = self.frame.lanes
        stored, void = lanes.to_memory(value), ir.VoidType()
        if self.signature.layout == CONTIGUOUS:
            place = self.element(base, i)
            self._call("masked.store", void, "p0", [stored, place, self._align(), mask], of=stored.type)
        else:
            pointers = self._pointers(base, i)
            self._call(
                "masked.scatter", void, f"v{lanes.width}p0", [stored, pointers, self._align(), mask], of=stored.type
            )

    def store_one(self, base: Any, value: Value) -> None:
        """Lane 0 at `base`."""
        builder, one = self.frame.builder, Lanes(self.frame.builder, 1)
        scalar = builder.extract_element(value.ir, ir.Constant(I32, 0))
        builder.store(one.to_memory(one.wrap(self.dtype, scalar)), base)

    def _align(self) -> Any:
        return ir.Constant(I32, ITEMSIZE[self.dtype])

    def _offsets(self, i: Any) -> Any:
        builder, frame = self.frame.builder, self.frame
        lanes = builder.sext(frame.iota, ir.VectorType(I64, frame.lanes.width))
        return builder.mul(builder.add(lanes, frame.splat(i)), frame.splat(self._inner))

    def _pointers(self, base: Any, i: Any) -> Any:
        vector = ir.VectorType(POINTER, self.frame.lanes.width)
        pointers = self.frame.builder.gep(base, [self._offsets(i)], source_etype=BYTE)
        pointers.type = vector  # llvmlite gives a scalar type
        return pointers

    def _count(self, base: Any, i: Any) -> Value:
        return self.frame.lanes.wrap("int64", self.frame.builder.add(self.frame.splat(base), self._offsets(i)))

    def _call(self, name: str, result: Any, pointers: str, args: list[Any], of: Any = None) -> Any:
        vector = f"v{self.frame.lanes.width}{_SUFFIX[self.dtype]}"
        full_name, module = f"llvm.{name}.{vector}.{pointers}", self.frame.builder.module
        function = module.globals.get(full_name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), full_name)
        return self.frame.builder.call(function, args)
