"""The code of a sort: digit after digit, the last one first (LSD radix sort). Each pass is stable, so the whole is.

Stable sorting has one result, so how it is found is not seen in the bits. This way takes as long for any values, branches
on none of them and compares no floats, only bits.

An element has a *key*, an unsigned integer that grows as elements come. What is moved are words: 32 bits of the key, and
below them the position of the element. Keys of 64 bits go in two halves, the low one first. The words lie in the memory
of the result and in the spare, by turns.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.lanes import BITS, Value
from dualgraph.kernels.llvm.loops.frame import I32, I64, POINTER, For, Frame, i64
from dualgraph.kernels.llvm.loops.nest import CONTIGUOUS, Signature
from dualgraph.kernels.llvm.loops.operands import Operand
from dualgraph.kernels.llvm.sorting.selection import Order
from dualgraph.kernels.nan import INFINITY

DIGIT = 8  # bits
VALUES = 1 << DIGIT
DIGITS = 32 // DIGIT
FEW = 48  # words up to which insertion takes less time than counting digits
POSITION = (1 << 32) - 1  # the part of a word


def emit(variant: Order, module: Any, name: str) -> None:
    sort = _sort(module, f"{name}.sort")
    frame = Frame(module, name, 1)
    builder, lanes, n = frame.builder, frame.lanes, frame.arg()
    x, order, spare = (Operand(frame, Signature(dtype, CONTIGUOUS), 1) for dtype in (variant.dtype, "int64", "int64"))
    with For(builder, frame.begin, frame.end) as row:
        elements, result, other = (operand.at([row.index]) for operand in (x, order, spare))
        words = result
        for half in range(variant.halves):
            with For(builder, i64(0), n) as each:
                position = each.index if half == 0 else _position(builder, _load(builder, words, each.index))
                loaded = builder.load(x.element(elements, position), typ=lanes.memory_type(variant.dtype))
                key = _key(lanes.from_memory(variant.dtype, loaded), variant.descending)
                key = builder.lshr(key, i64(32 * half))
                _store(builder, builder.or_(builder.shl(key, i64(32)), position), words, each.index)
            free = builder.select(builder.icmp_unsigned("==", words, result), other, result)
            words = builder.call(sort, [words, free, n])
        with For(builder, i64(0), n) as each:
            position = _position(builder, _load(builder, words, each.index))
            _store(builder, position, result, each.index)
    frame.finish()


def _key(x: Value, descending: bool) -> Any:
    """In 64 bits. Zeros are alike; NaN is the last, whichever way the others go."""
    dtype = x.dtype
    signed = x.lanes.convert("zext", x, "int32") if dtype == "bool" else x.bits()
    lowest = -1 << (BITS[signed.dtype] - 1)
    highest = ~lowest
    magnitude = signed & highest
    if x.is_float:
        signed = signed.where(magnitude.ne(0), 0)
        signed = signed ^ ((signed >> (BITS[signed.dtype] - 1)) & highest)
    signed = ~signed if descending else signed
    if x.is_float:
        signed = signed.like(highest).where(magnitude > INFINITY[dtype], signed)
    unsigned = signed ^ lowest
    return x.lanes.convert("zext", unsigned, "int64").ir if BITS[unsigned.dtype] == 32 else unsigned.ir


def _sort(module: Any, name: str) -> Any:
    """`ptr sort(ptr words, ptr free, i64 n)`: words in the order of their upper halves, in one of the two places."""
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, I64]), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    words, free, n = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with builder.if_then(builder.icmp_signed("<=", n, i64(FEW))):
        _insert(builder, words, n)
        builder.ret(words)
    counts = _count(builder, words, n)
    for digit in range(DIGITS):
        words, free = _pass(builder, digit, counts, words, free, n)
    builder.ret(words)
    return function


def _insert(builder: Any, words: Any, n: Any) -> None:
    """Each word moves towards the front while the one before it is larger."""
    with For(builder, i64(1), n) as each:
        word = _load(builder, words, each.index)
        before, head, compare, move, done = builder.block, *map(builder.append_basic_block, ("head", "compare", "move", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        place = builder.phi(I64)
        place.add_incoming(each.index, before)
        builder.cbranch(builder.icmp_signed(">", place, i64(0)), compare, done)
        builder.position_at_end(compare)
        next_place = builder.sub(place, i64(1))
        earlier = _load(builder, words, next_place)
        larger = builder.icmp_unsigned(">", _digits(builder, earlier), _digits(builder, word))
        builder.cbranch(larger, move, done)
        builder.position_at_end(move)
        _store(builder, earlier, words, place)
        place.add_incoming(next_place, move)
        builder.branch(head)
        builder.position_at_end(done)
        _store(builder, word, words, place)


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


def _digits(builder: Any, word: Any) -> Any:
    return builder.lshr(word, i64(32))


def _position(builder: Any, word: Any) -> Any:
    return builder.and_(word, i64(POSITION))


def _place(builder: Any, words: Any, index: Any) -> Any:
    return builder.gep(words, [index], source_etype=I64)


def _load(builder: Any, words: Any, index: Any) -> Any:
    return builder.load(_place(builder, words, index), typ=I64)


def _store(builder: Any, word: Any, words: Any, index: Any) -> None:
    builder.store(word, _place(builder, words, index))
