"""Operands in code: where they lie, and how a vector of their elements is read and written.

Vectors are masked, so that one body serves full vectors and the tail. Most processors have no masked instructions for
all dtypes, or slow ones: a branch, which is foreseen, chooses plain instructions for full vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import BYTE, REGISTERS, Lanes, Value
from dualgraph.kernels.llvm.loops.frame import I32, I64, POINTER, Frame, Mask, i64
from dualgraph.kernels.llvm.loops.nest import BROADCAST, CONTIGUOUS, STRIDED, Signature
from dualgraph.spec import ITEMSIZE


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
        access = self.signature.access
        if access == BROADCAST:
            return None
        if access == CONTIGUOUS:
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

    def load(self, base: Any, i: Any, mask: Mask) -> Value:
        """The elements i, i + 1, … of the vector axis in the lanes of `mask`; anything in the others."""
        lanes, access = self.frame.lanes, self.signature.access
        if access == BROADCAST:
            return self.load_one(base)
        if self.signature.counter:
            return self._count(base, i)
        type_ = lanes.memory_type(self.dtype)
        rest = [self._align(), mask.lanes, ir.Constant(type_, None)]
        if access == STRIDED:
            loaded = self._call("masked.gather", type_, [self._pointers(base, i), *rest])
        else:
            loaded = self._load_contiguous(type_, self.element(base, i), mask, rest)
        return lanes.from_memory(self.dtype, loaded)

    def _load_contiguous(self, type_: Any, place: Any, mask: Mask, rest: list[Any]) -> Any:
        builder = self.frame.builder
        with builder.if_else(mask.full, likely=True) as (whole, part):
            with whole:
                x, x_block = builder.load(place, typ=type_), builder.block
                x.align = ITEMSIZE[self.dtype]
            with part:
                y, y_block = self._call("masked.load", type_, [place, *rest]), builder.block
        loaded = builder.phi(type_)
        loaded.add_incoming(x, x_block)
        loaded.add_incoming(y, y_block)
        return loaded

    def load_one(self, base: Any) -> Value:
        """The element at `base` in every lane."""
        frame = self.frame
        if self.signature.counter:
            return frame.lanes.wrap(self.dtype, frame.splat(base))
        one = Lanes(frame.builder, 1)
        loaded = frame.builder.load(base, typ=one.memory_type(self.dtype))
        return frame.lanes.from_memory(self.dtype, frame.splat(loaded))

    def store(self, base: Any, i: Any, mask: Mask, value: Value) -> None:
        store_all([(self, base, value)], i, mask)

    def store_whole(self, base: Any, i: Any, stored: Any) -> None:
        self.frame.builder.store(stored, self.element(base, i), align=ITEMSIZE[self.dtype])

    def store_part(self, base: Any, i: Any, mask: Mask, stored: Any) -> None:
        strided = self.signature.access == STRIDED
        place = self._pointers(base, i) if strided else self.element(base, i)
        name = "masked.scatter" if strided else "masked.store"
        self._call(name, ir.VoidType(), [stored, place, self._align(), mask.lanes])

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

    def _call(self, name: str, result: Any, args: list[Any]) -> Any:
        width, module = self.frame.lanes.width, self.frame.builder.module
        pointers = f"v{width}p0" if name in ("masked.gather", "masked.scatter") else "p0"
        full_name = f"llvm.{name}.v{width}{REGISTERS[self.dtype].memory_suffix}.{pointers}"
        function = module.globals.get(full_name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in args]), full_name)
        return self.frame.builder.call(function, args)


def store_all(stores: Sequence[tuple[Operand, Any, Value]], i: Any, mask: Mask) -> None:
    """Store each value at elements i, i + 1, … from its base, in the lanes of `mask`."""
    prepared = [(operand, base, value.lanes.to_memory(value)) for operand, base, value in stores]
    for operand, base, stored in prepared:
        if operand.signature.access == STRIDED:
            operand.store_part(base, i, mask, stored)
    contiguous = [row for row in prepared if row[0].signature.access == CONTIGUOUS]
    if not contiguous:
        return
    with contiguous[0][0].frame.builder.if_else(mask.full, likely=True) as (whole, part):
        with whole:
            for operand, base, stored in contiguous:
                operand.store_whole(base, i, stored)
        with part:
            for operand, base, stored in contiguous:
                operand.store_part(base, i, mask, stored)
