"""Memory plan: all scratch buffers of a program in one arena, at offsets where no two that live together overlap.

A buffer lives from the step that first touches it to the step that last touches it. A result of a Loop step without
folds may take the place of an operand that dies there, if both are walked alike: each element is read before it is
written. Such buffers are one item of the plan. `check` is the plan's independent judge.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from dualgraph.dtypes import DTYPES, NUMPY_DTYPES
from dualgraph.kernels.fusion_layout import tidy
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, Step, reads, writes
from dualgraph.spec import ITEMSIZE

ALIGNMENT = 64  # bytes: a cache line, and the widest vector; smaller buffers are aligned to SMALL
SMALL = 8
THOROUGH = 1000  # items up to which the slower, tighter plan is tried too


class Arena(NamedTuple):
    """Where scratch buffers lie. All in bytes; `peak` is the end of the highest buffer, `size` what to allocate."""

    size: int
    offsets: dict[int, int]  # buffer -> offset
    peak: int
    lower_bound: int  # the most bytes alive at one step: no plan for this order of steps needs less


class Item(NamedTuple):
    """Buffers that follow one another in one place: alive from step `first` to step `last`."""

    first: int
    last: int
    size: int
    buffers: tuple[int, ...]


def live_ranges(program: Program) -> dict[int, tuple[int, int]]:
    """For each scratch buffer that is used: the first and the last step that touches it."""
    elsewhere = {*program.inputs, *program.outputs, *program.constants}
    ranges: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        for buffer in reads(step) | writes(step):
            if buffer not in elsewhere:
                ranges[buffer] = ranges.get(buffer, (number, number))[0], number
    return ranges


def may_take_over(program: Program, step: Step, out: int, operand: int) -> bool:
    """May result buffer `out` lie where operand buffer `operand` lay, if one begins and the other ends with `step`?"""
    if not isinstance(step.kernel, Loop) or step.fold_axes or operand in writes(step) or out in reads(step):
        return False
    if program.buffers[out].nbytes != program.buffers[operand].nbytes:
        return False
    walks = {
        (tidy(view).strides, view.offset, ITEMSIZE[view.dtype])
        for view in (*step.ins, *step.outs)
        if view.buffer in (out, operand)
    }
    return len(walks) == 1


def items(program: Program) -> list[Item]:
    """What is to be placed: scratch buffers, those that follow one another in place as one."""
    ranges = live_ranges(program)
    follows: dict[int, int] = {}  # operand -> result in its place
    for number, step in enumerate(program.steps):
        for out in sorted(b for b in writes(step) if b in ranges and ranges[b][0] == number):
            for operand in sorted(b for b in reads(step) if b in ranges and ranges[b][1] == number):
                if operand not in follows and may_take_over(program, step, out, operand):
                    follows[operand] = out
                    break
    followers = set(follows.values())
    result: list[Item] = []
    for buffer in sorted(ranges):
        if buffer in followers:
            continue
        chain = [buffer]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        result.append(Item(ranges[buffer][0], ranges[chain[-1]][1], program.buffers[buffer].nbytes, tuple(chain)))
    return result


def plan(program: Program) -> Arena:
    """Offsets of all scratch buffers."""
    todo = items(program)
    small = [item for item in todo if item.size < ALIGNMENT]
    large = [item for item in todo if item.size >= ALIGNMENT]
    offsets: dict[int, int] = {}
    start = peak = 0
    for group, unit in ((large, ALIGNMENT), (small, SMALL)):
        start = -(-peak // unit) * unit
        for item, place in zip(group, _place(group, unit), strict=True):
            offsets.update(dict.fromkeys(item.buffers, start + place))
            peak = max(peak, start + place + item.size)
    return Arena(-(-peak // ALIGNMENT) * ALIGNMENT, offsets, peak, most_alive(todo))


def poison(array: np.ndarray[Any, Any]) -> None:
    """Fill with what no computation leaves, so that reading it before it is written shows in the results."""
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    array.view(unsigned)[...] = DTYPES[array.dtype.name].poison


def poison_arena(arena: np.ndarray[Any, Any], program: Program, offsets: dict[int, int]) -> None:
    """The same for a whole arena (of bytes): in each place what does not fit the dtype of its first buffer."""
    arena[...] = DTYPES["bool"].poison
    ranges = live_ranges(program)
    for buffer in sorted(offsets, key=lambda b: ranges.get(b, (-1, -1))[0], reverse=True):
        spec = program.buffers[buffer]
        place = arena[offsets[buffer] : offsets[buffer] + spec.nbytes]
        poison(place.view(NUMPY_DTYPES[spec.dtype]))


def most_alive(todo: list[Item], unit: int = 1) -> int:
    """The most bytes alive at one step, with sizes rounded up to `unit`."""
    change: defaultdict[int, int] = defaultdict(int)
    for item in todo:
        size = -(-item.size // unit) * unit
        change[item.first] += size
        change[item.last + 1] -= size
    most = now = 0
    for step in sorted(change):
        now += change[step]
        most = max(most, now)
    return most


def _place(group: list[Item], unit: int) -> list[int]:
    """An offset for each item, a multiple of `unit`: the tighter of two plans."""
    quick = _in_order_of_time(group, unit)
    if len(group) > THOROUGH or _extent(group, quick, unit) == most_alive(group, unit):
        return quick
    return min(quick, _in_order_of_size(group, unit), key=lambda places: _extent(group, places, unit))


def _extent(group: list[Item], places: list[int], unit: int) -> int:
    return max((p + -(-i.size // unit) * unit for i, p in zip(group, places, strict=True)), default=0)


def _in_order_of_time(group: list[Item], unit: int) -> list[int]:
    """As an allocator would: each item, when it is born, into the smallest free block that holds it. O(n log n)."""
    places = [0] * len(group)
    free = _FreeBlocks()
    alive: list[tuple[int, int, int]] = []  # (last step, offset, size)
    for number in sorted(range(len(group)), key=lambda n: (group[n].first, -group[n].size)):
        item = group[number]
        size = -(-item.size // unit) * unit
        while alive and alive[0][0] < item.first:
            _, place, length = heappop(alive)
            free.give(place, length)
        places[number] = free.take(size)
        heappush(alive, (item.last, places[number], size))
    return places


class _FreeBlocks:
    """The free blocks of memory without end; neighbours are merged."""

    def __init__(self) -> None:
        self.end = 0  # beyond lies nothing but free memory
        self.by_size: list[tuple[int, int]] = []
        self.size_at: dict[int, int] = {}  # start -> size
        self.start_of: dict[int, int] = {}  # end -> start

    def take(self, size: int) -> int:
        if size == 0:
            return 0
        best = bisect_left(self.by_size, (size, 0))
        if best < len(self.by_size):
            length, start = self.by_size[best]
            self._remove(start)
            if length > size:
                self._insert(start + size, length - size)
            return start
        start = self.start_of.get(self.end, self.end)  # extend the last block, if it is free
        if start < self.end:
            self._remove(start)
        self.end = start + size
        return start

    def give(self, start: int, size: int) -> None:
        if size == 0:
            return
        if start in self.start_of:
            before = self.start_of[start]
            size += self._remove(before)
            start = before
        if start + size in self.size_at:
            size += self._remove(start + size)
        self._insert(start, size)

    def _insert(self, start: int, size: int) -> None:
        insort(self.by_size, (size, start))
        self.size_at[start] = size
        self.start_of[start + size] = start

    def _remove(self, start: int) -> int:
        size = self.size_at.pop(start)
        del self.start_of[start + size]
        del self.by_size[bisect_left(self.by_size, (size, start))]
        return size


def _in_order_of_size(group: list[Item], unit: int) -> list[int]:
    """The largest items first, each into the tightest gap between those it lives together with. O(n²)."""
    places = [0] * len(group)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted
    for number in sorted(range(len(group)), key=lambda n: (-group[n].size, group[n].first)):
        item = group[number]
        size = -(-item.size // unit) * unit
        end, best, tightest = 0, -1, 0
        for offset, top, first, last in placed:
            if first > item.last or last < item.first:
                continue
            if offset - end >= size and (best < 0 or offset - end < tightest):
                best, tightest = end, offset - end
            end = max(end, top)
        places[number] = place = end if best < 0 else best
        insort(placed, (place, place + size, item.first, item.last))
    return places


def check(program: Program, arena: Arena) -> list[str]:
    """What is wrong with a plan: missing or misplaced buffers, and buffers that overlap while both are alive."""
    ranges = live_ranges(program)
    faults: list[str] = []
    for buffer in ranges:
        size = program.buffers[buffer].nbytes
        offset = arena.offsets.get(buffer)
        if offset is None:
            faults.append(f"buffer {buffer} has no place")
        elif offset < 0 or offset + size > arena.size:
            faults.append(f"buffer {buffer} at {offset} with {size} bytes leaves the arena of {arena.size} bytes")
        elif offset % (ALIGNMENT if size >= ALIGNMENT else SMALL):
            faults.append(f"buffer {buffer} at {offset} with {size} bytes is not aligned")
    return faults or list(_overlaps(program, arena, ranges))


def _overlaps(program: Program, arena: Arena, ranges: dict[int, tuple[int, int]]) -> Iterator[str]:
    """Sweep over the steps with the buffers alive, sorted by offset: only neighbours can overlap first."""
    alive: list[tuple[int, int]] = []  # (offset, buffer)
    deaths: list[tuple[int, int, int]] = []
    for buffer in sorted(ranges, key=lambda b: ranges[b]):
        first, last = ranges[buffer]
        size, offset = program.buffers[buffer].nbytes, arena.offsets[buffer]
        if size == 0:
            continue
        while deaths and deaths[0][0] < first:
            _, o, dead = heappop(deaths)
            if (o, dead) in alive[bisect_left(alive, (o, dead)) :][:1]:
                del alive[bisect_left(alive, (o, dead))]
        at = bisect_left(alive, (offset, -1))
        for neighbour in (at - 1, at):
            while 0 <= neighbour < len(alive):
                start, other = alive[neighbour]
                if start >= offset + size or start + program.buffers[other].nbytes <= offset:
                    break
                handed_over = ranges[other][1] == first and start == offset
                if handed_over and may_take_over(program, program.steps[first], buffer, other):
                    del alive[neighbour]
                    continue
                yield f"buffers {other} and {buffer} overlap while both are alive, in step {first}"
                break
        insort(alive, (offset, buffer))
        heappush(deaths, (last, offset, buffer))
