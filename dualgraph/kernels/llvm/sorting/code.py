"""The code of a sort: elements of short rows are counted, those of long ones moved digit after digit.

Stable sorting has one result, so how it is found is not seen in its bits. Both ways take as long for any values and branch
on none of them. What they compare are *keys*, integers that grow as elements come.

`count`: an element comes after those with smaller keys, and after those before it that have the same key.

`move` (LSD radix sort; Knuth, The Art of Computer Programming 3, 5.2.5): the last digit first; each pass is stable, so the
whole is. What is moved are words: 32 bits of the key, and below them the position of the element. Keys of 64 bits go in
two halves, the low one first. The words lie in the memory of the result and in the spare, by turns.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.dtypes import DTYPES
from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loops.frame import I32, I64, POINTER, For, Frame, i64
from dualgraph.kernels.llvm.loops.nest import CONTIGUOUS, Signature
from dualgraph.kernels.llvm.loops.operands import Operand
from dualgraph.kernels.llvm.maths.instructions import cast
from dualgraph.kernels.llvm.sorting.selection import Order

DIGIT = 8  # bits
VALUES = 1 << DIGIT
DIGITS = 32 // DIGIT
FEW = 64  # elements of a row up to which counting them takes less time
POSITION = (1 << 32) - 1  # the part of a word


def emit(variant: Order, module: Any, name: str) -> None:
    passes = _passes(module, f"{name}.passes")
    frame = Frame(module, name, variant.width)
    code = _Order(frame, variant, passes)
    with For(frame.builder, frame.begin, frame.end) as row:
        code.begin(row.index)
        with frame.builder.if_else(frame.builder.icmp_signed("<=", code.n, i64(FEW))) as (few, many):
            with few:
                code.count()
            with many:
                code.move()
    frame.finish()


class _Order:
    """The code for a row, whose elements lie at `x`; `result` and `spare` have room for 64 bits of each."""

    def __init__(self, frame: Frame, variant: Order, passes: Any):
        self.frame, self.builder, self.variant, self.passes = frame, frame.builder, variant, passes
        self.n = frame.arg()
        dtypes = (variant.dtype, "int64", "int64")
        self.operands = [Operand(frame, Signature(dtype, CONTIGUOUS), 1) for dtype in dtypes]

    def begin(self, row: Any) -> None:
        self.x, self.result, self.spare = (operand.at([row]) for operand in self.operands)

    def key(self, position: Any) -> Value:
        """Of an element, as an integer with a sign. Zeros are alike; NaN is the last, whichever way the others go."""
        one, dtype = Lanes(self.builder, 1), self.variant.dtype
        place = self.operands[0].element(self.x, position)
        x = one.from_memory(dtype, self.builder.load(place, typ=one.memory_type(dtype)))
        key = one.convert("zext", x, "int32") if dtype == "bool" else x.bits()
        highest = DTYPES[key.dtype].highest
        if x.is_float:
            key = key.where((key & highest).ne(0), 0)
            key = (key ^ highest).where(key < 0, key)
        key = ~key if self.variant.descending else key
        return key.like(highest).where(x.is_nan(), key) if x.is_float else key

    def count(self) -> None:
        """The rank of each element among all, `width` at a time."""
        builder, frame = self.builder, self.frame
        with For(builder, i64(0), self.n) as each:
            key = self.key(each.index)
            _store(builder, cast(key.lanes, key, "int64").ir, self.spare, each.index)
        with For(builder, i64(0), self.n) as each:
            key = frame.lanes.wrap("int64", frame.splat(_load(builder, self.spare, each.index)))
            with For(builder, i64(0), self.n, frame.lanes.width, carried=[i64(0)]) as others:
                mask = frame.mask(builder.sub(self.n, others.index))
                other = self.operands[2].load(self.spare, others.index, mask)
                earlier = frame.mask(builder.sub(each.index, others.index)).lanes
                before = (other < key) | (other.eq(key) & frame.lanes.wrap("bool", earlier))
                found = builder.bitcast(builder.and_(before.ir, mask.lanes), ir.IntType(frame.lanes.width))
                others.carry([builder.add(others.values[0], builder.zext(builder.ctpop(found), I64))])
            _store(builder, each.index, self.result, others.values[0])

    def move(self) -> None:
        """The words through all passes, from where they lie to where there is room."""
        builder, words = self.builder, self.result
        for half in range(self.variant.halves):
            with For(builder, i64(0), self.n) as each:
                position = each.index if half == 0 else _position(builder, _load(builder, words, each.index))
                key = self.key(position)
                record = DTYPES[key.dtype]
                unsigned = (key ^ record.lowest).ir
                word = unsigned if record.bits == 64 else builder.zext(unsigned, I64)
                word = builder.lshr(word, i64(32 * half))
                _store(builder, builder.or_(builder.shl(word, i64(32)), position), words, each.index)
            free = builder.select(builder.icmp_unsigned("==", words, self.result), self.spare, self.result)
            words = builder.call(self.passes, [words, free, self.n])
        with For(builder, i64(0), self.n) as each:
            position = _position(builder, _load(builder, words, each.index))
            _store(builder, position, self.result, each.index)


def _passes(module: Any, name: str) -> Any:
    """`ptr passes(ptr words, ptr free, i64 n)`: the words in the order of their upper halves, in one of the two places."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    words, free, n = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    counts = _count(builder, words, n)
    for digit in range(DIGITS):
        words, free = _pass(builder, digit, counts, words, free, n)
    builder.ret(words)
    return function


def _count(builder: Any, words: Any, n: Any) -> Any:
    """How often each digit has each value."""
    counts = builder.alloca(I32, DIGITS * VALUES)
    with For(builder, i64(0), i64(DIGITS * VALUES)) as each:
        builder.store(I32(0), _counter(builder, counts, each.index))
    with For(builder, i64(0), n) as each:
        word = _load(builder, words, each.index)
        for digit in range(DIGITS):
            place = _counter(builder, counts, _value(builder, word, digit), digit)
            builder.store(builder.add(builder.load(place, typ=I32), I32(1)), place)
    return counts


def _pass(builder: Any, digit: int, counts: Any, words: Any, free: Any, n: Any) -> tuple[Any, Any]:
    """Move the words to where those with smaller digits leave off; none moves where all have the same digit."""
    first = _counter(builder, counts, _value(builder, _load(builder, words, i64(0)), digit), digit)
    equal = builder.icmp_unsigned("==", builder.load(first, typ=I32), builder.trunc(n, I32))
    before = builder.block
    with builder.if_then(builder.not_(equal)):
        with For(builder, i64(0), i64(VALUES), carried=[I32(0)]) as value:
            place, (start,) = _counter(builder, counts, value.index, digit), value.values
            count = builder.load(place, typ=I32)
            builder.store(start, place)
            value.carry([builder.add(start, count)])
        with For(builder, i64(0), n) as each:
            word = _load(builder, words, each.index)
            place = _counter(builder, counts, _value(builder, word, digit), digit)
            target = builder.load(place, typ=I32)
            builder.store(builder.add(target, I32(1)), place)
            _store(builder, word, free, builder.zext(target, I64))
        moved = builder.block
    places = []
    for stays, goes in ((words, free), (free, words)):
        place = builder.phi(POINTER)
        place.add_incoming(stays, before)
        place.add_incoming(goes, moved)
        places.append(place)
    return places[0], places[1]


def _counter(builder: Any, counts: Any, value: Any, digit: int = 0) -> Any:
    return builder.gep(counts, [builder.add(value, i64(digit * VALUES))], source_etype=I32)


def _value(builder: Any, word: Any, digit: int) -> Any:
    return builder.and_(builder.lshr(word, i64(32 + digit * DIGIT)), i64(VALUES - 1))


def _position(builder: Any, word: Any) -> Any:
    return builder.and_(word, i64(POSITION))


def _place(builder: Any, words: Any, index: Any) -> Any:
    return builder.gep(words, [index], source_etype=I64)


def _load(builder: Any, words: Any, index: Any) -> Any:
    return builder.load(_place(builder, words, index), typ=I64)


def _store(builder: Any, word: Any, words: Any, index: Any) -> None:
    builder.store(word, _place(builder, words, index))
