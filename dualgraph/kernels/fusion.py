"""Fusion: Loop steps that meet on one domain become one Loop step.

A scalar expression fixes every rounding and a fold has one documented order, so merging steps never changes a bit; what
can go wrong is only *when* memory is read and written. Four questions decide every merge of two groups of steps:

    `_place`              is there a moment for it, after all it needs and before all that needs it?
    `_meet`               can both be said on one domain?
    `clash`, `row_clash`  would the one loop read or write what the two did not?
    `_loss`               does it keep the limits, and pay?

Two ordered passes ask them: producers with their consumers, then siblings. Every group has a place, a number that grows
along each dependence (at first: the length of the longest path to it). So "no path through a third step" is mostly a
comparison of numbers, and the whole is near-linear. What is refused is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from dualgraph.kernels.expr import INDEX, INSTRUCTIONS, POSITION
from dualgraph.kernels.fusion_group import (
    Group,
    Member,
    Use,
    clash,
    compose,
    operands_of,
    relaid,
    row_clash,
    uses_of,
)
from dualgraph.kernels.fusion_layout import extents, lift, repeated_axes, reshape, tidy
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, Step, View, reads, replace, writes
from dualgraph.spec import Shape


class Limits(NamedTuple):
    """Where merging stops. Costs are those of `expr.INSTRUCTIONS`, lengths count elements."""

    instructions: int = 256  # cost of one kernel: keeps compile time linear in the program
    operands: int = 24  # operands and results of one kernel
    folds: int = 8
    row: int = 1 << 17  # longest row that later passes find in cache
    column: int = 1 << 13  # the same where the folded axis is not the innermost
    broadcast: int = 4  # cost that may be computed again for each element it is broadcast to
    distance: int = 1  # steps other than loops during which a result may wait because it was computed early
    sibling: int = 1 << 16  # largest domain on which steps that share no operand are merged
    search: int = 64  # groups looked at to make room for a merge
    reasons: int = 4  # refusals recorded per step


class Decision(NamedTuple):
    """One answer of fusion. Steps are numbers in the program before fusion; origins are those of the steps."""

    kind: str  # "fused" | "refused"
    producer: int
    consumer: int
    reason: str
    producer_origins: tuple[int, ...] = ()
    consumer_origins: tuple[int, ...] = ()

    def __str__(self) -> str:
        verb = "fused" if self.kind == "fused" else "not fused"
        return f"{verb}: step {self.producer} into step {self.consumer}: {self.reason}"


def fuse(program: Program, limits: Limits = Limits()) -> tuple[Program, list[Decision]]:  # noqa: B008 (immutable)
    """The same program with Loop steps merged, and every decision. Values keep their bits; buffers their numbers."""
    merged, decisions = merge(program, dependences(program), limits)
    return replace(program, steps=[step for step, _ in merged]), decisions


class Merged(NamedTuple):
    """A step after fusion, and the numbers of the steps that it does the work of."""

    step: Step
    numbers: tuple[int, ...]


def merge(
    program: Program,
    needs: Dependences,
    limits: Limits = Limits(),  # noqa: B008 (immutable)
) -> tuple[list[Merged], list[Decision]]:
    """The steps after fusion, in an order in which they can run, and every decision."""
    fuser = _Fuser(program, needs, limits)
    fuser.merge_chains()
    fuser.merge_siblings()
    return fuser.result(), fuser.decisions


STALE = 16  # names of groups that a set may hold before those that became one are counted once


class Dependences(NamedTuple):
    """For each step: the steps that must run before it, and those of them whose results it reads."""

    before: list[set[int]]
    producers: list[dict[int, list[int]]]  # step -> the buffers that it wrote


def dependences(program: Program) -> Dependences:
    """Read after write, write after read, write after write, buffer by buffer.

    Steps that may fail keep their order among themselves and with writes to program inputs: of several that would fail the
    same one fails first, and leaves the same state behind.
    """
    inputs = set(program.inputs)
    result = Dependences([], [])
    writer: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    fallible, updates = list[int](), list[int]()  # the latest that may fail, and the updates since
    for number, step in enumerate(program.steps):
        read, written = reads(step), writes(step)
        producers: dict[int, list[int]] = {}
        for buffer in sorted(read):
            if buffer in writer:
                producers.setdefault(writer[buffer], []).append(buffer)
        before = set(producers)
        for buffer in written:
            before.update(readers.pop(buffer, ()))
            if buffer in writer:
                before.add(writer[buffer])
            writer[buffer] = number
        for buffer in read - written:
            readers.setdefault(buffer, []).append(number)
        if step.kernel.may_fail:
            before.update(fallible, updates)
            fallible, updates = [number], []
        elif not inputs.isdisjoint(written):
            before.update(fallible)
            updates.append(number)
        result.before.append(before)
        result.producers.append(producers)
    return result


class _Fuser:
    def __init__(self, program: Program, needs: Dependences, limits: Limits):
        self.program, self.limits = program, limits
        self.decisions: list[Decision] = []
        self.facts: dict[int, tuple[int, int, set[str]]] = {}  # by identity of the kernel: steps share kernels
        self.touches = [0] * len(program.buffers)
        apart = (not step.kernel.composes for step in program.steps)
        self.clock = list(accumulate(apart, initial=0))  # time, in steps that are no loops
        self.kept = {*program.inputs, *program.outputs, *program.constants}
        for step in program.steps:
            for buffer in {view.buffer for view in (*step.ins, *step.outs)}:
                self.touches[buffer] += 1
        before, self.producers = needs
        self.groups = [self._single(number) for number in range(len(program.steps))]
        self.parent = list(range(len(program.steps)))
        for number, earlier in enumerate(before):
            group = self.groups[number]
            group.before = earlier
            group.place = 1 + max((self.groups[e].place for e in earlier), default=0)
            for e in earlier:
                self.groups[e].after.add(number)

    def _single(self, number: int) -> Group:
        step = self.program.steps[number]
        if not isinstance(step.kernel, Loop):
            return Group(0, number, number, [], barrier=f"a {type(step.kernel).__name__} is not a loop")
        facts = self.facts.get(id(step.kernel))
        if facts is None:
            facts = self.facts[id(step.kernel)] = _facts(step.kernel)
        cost, folds, ops = facts
        if POSITION in ops and not step.fold_axes:
            return Group(0, number, number, [], barrier="a position along no axes means nothing in another loop")
        ins, outs = tuple(map(tidy, step.ins)), tuple(map(tidy, step.outs))
        members = [Member(number, step.kernel, ins, outs, folds > 0, False)]
        uses = uses_of(members)
        if any(use.written and len(use.read | use.written) > 1 for use in uses.values()):
            return Group(
                0, number, number, [], barrier=f"step {number} overwrites a buffer that it reads through another view"
            )
        operands = sum(operands_of(b, use, self.stored) for b, use in uses.items())
        return Group(0, number, number, members, step.domain, step.fold_axes, uses, cost, folds, INDEX in ops, operands)

    def stored(self, buffer: int, use: Use) -> bool:
        """Must the buffer be in memory after a group that uses it so? (What nobody reads stays: no value dies here.)"""
        return buffer in self.kept or use.touches < self.touches[buffer] or not use.read

    def find(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    # The two passes.

    def merge_chains(self) -> None:
        """Each step, in program order, into the groups whose results it reads: the latest first."""
        for number, producers in enumerate(self.producers):
            latest: dict[int, int] = {}
            for step in producers:
                group = self.find(step)
                latest[group] = max(step, latest.get(group, -1))
            refusals = 0
            for group in sorted(latest, key=lambda g: (self.groups[g].place, g), reverse=True):
                if self.find(group) == self.find(number):
                    continue
                reason = self._merge(group, number)
                if reason is None:
                    self._record("fused", latest[group], number, "reads its result")
                elif refusals < self.limits.reasons:
                    refusals += 1
                    self._record("refused", latest[group], number, reason)

    def merge_siblings(self) -> None:
        """Groups over one domain of which none reads the other: those that share operands, and equal small ones.

        Unlike steps that share little stay apart: a launch and a load cost less than the code of one more kernel.
        """
        newest: dict[tuple[Shape, Any], int] = {}  # (domain, buffer that is read or kernels) -> group
        for head in self._in_order():
            group = self.groups[head]
            if group.barrier:
                continue
            loaded = _loaded(group)
            keys: list[Any] = sorted(loaded)
            if group.size <= self.limits.sibling:
                keys.append(tuple(member.kernel for member in sorted(group.members)))
            domain, first = group.domain, group.first
            tried = {head}
            for key in keys:
                other = self.find(newest.get((domain, key), head))
                if other in tried or other == self.find(head):
                    continue
                tried.add(other)
                theirs = _loaded(self.groups[other])
                if isinstance(key, int) and 2 * len(loaded & theirs) < min(len(loaded), len(theirs)):
                    continue
                earlier = self.groups[other].first
                reason = self._merge(other, head, siblings=True)
                what = f"both read buffer {key}" if isinstance(key, int) else "equal steps"
                if reason is None:
                    self._record("fused", earlier, first, what)
                elif len(tried) <= self.limits.reasons + 1:
                    self._record("refused", earlier, first, f"{what}, but {reason}")
            for key in keys:
                newest[domain, key] = head

    def _in_order(self) -> list[int]:
        """The groups in an order in which they can run, close to that of the program.

        What is ready runs in the order of first steps; what others wait for, as early as they do.
        """
        heads = sorted({self.find(number) for number in range(len(self.groups))}, key=lambda g: self.groups[g].place)
        before = {g: {self.find(e) for e in self.groups[g].before} - {g} for g in heads}
        after: dict[int, list[int]] = {g: [] for g in heads}
        urgent = {g: self.groups[g].first for g in heads}
        for g in reversed(heads):
            for e in before[g]:
                after[e].append(g)
                urgent[e] = min(urgent[e], urgent[g])
        missing = {g: len(before[g]) for g in heads}
        ready = [(urgent[g], self.groups[g].first, g) for g in heads if not missing[g]]
        heapify(ready)
        order: list[int] = []
        while ready:
            g = heappop(ready)[2]
            order.append(g)
            for later in after[g]:
                missing[later] -= 1
                if not missing[later]:
                    heappush(ready, (urgent[later], self.groups[later].first, later))
        return order

    def _record(self, kind: str, producer: int, consumer: int, reason: str) -> None:
        steps = self.program.steps
        origins = steps[producer].origins, steps[consumer].origins
        self.decisions.append(Decision(kind, producer, consumer, reason, *origins))

    # One merge.

    def _merge(self, first: int, second: int, siblings: bool = False) -> str | None:
        """Merge two groups, or say why not."""
        first, second = self.find(first), self.find(second)
        if (self.groups[second].place, second) < (self.groups[first].place, first):
            first, second = second, first
        a, b = self.groups[first], self.groups[second]
        for group in (a, b):
            if group.barrier:
                return group.barrier
        before = list(map(self.find, b.before))
        place = self._place(a, b, before, {first, second})
        if place is None:
            return "another step must run between them"
        early, late = (a, b) if a.first < b.first else (b, a)
        apart = self.clock[late.first] - self.clock[early.last]
        if siblings and apart > self.limits.distance and self._stores_scratch(late):
            return f"{apart} steps that are no loops lie between them"
        ready = max(self.groups[g].last for g in (first, *before) if g != second)
        waiting = self.clock[b.first] - self.clock[ready]
        reason: str | None = _domains(a, b)
        for x, y in self._meet(a, b):
            operands = self._operands(x, y)
            reason = clash(x, y) or self._loss(x, y, operands, waiting) or self._row_clash(x, y)
            if reason is None:
                self._commit(first, second, x, y, operands, place)
                return None
        return reason

    def _place(self, a: Group, b: Group, before: Sequence[int], both: set[int]) -> float | None:
        """A place for the two as one: late where possible, so that what comes later can still join."""
        needed = max((self.groups[g].place for g in before if g not in both), default=-1.0)
        if len(a.after) <= 8 * self.limits.operands:
            needing = [self.groups[g].place for g in map(self.find, a.after) if g not in both]
            wanted = min(needing, default=b.place + 1)
        else:
            wanted = a.place  # too many to look at: stay where it is
        if wanted > b.place:
            return b.place
        if needed < a.place:
            return a.place
        middle = (needed + wanted) / 2
        return middle if needed < middle < wanted else self._make_room(a, b, both, needed)

    def _make_room(self, a: Group, b: Group, both: set[int], needed: float) -> float | None:
        """Move what depends on `a` and lies before `needed` behind it, unless `b` depends on it: a path then exists."""
        if len(a.after) + len(b.after) > 8 * self.limits.operands:
            return None
        moved: set[int] = set()
        limit = needed + 1
        stack = [self.find(g) for g in a.after]
        blocking = {self.find(g) for g in b.before} - both
        while stack:
            g = stack.pop()
            if g in both or g in moved:
                continue
            if self.groups[g].place > needed:
                limit = min(limit, self.groups[g].place)
                continue
            if g in blocking or len(moved) == self.limits.search:
                return None
            moved.add(g)
            stack.extend(map(self.find, self.groups[g].after))
        limit = min([limit, *(self.groups[self.find(g)].place for g in b.after)])
        order = sorted(moved, key=lambda g: self.groups[g].place)
        places = [needed + (limit - needed) * (n + 1) / (len(order) + 2) for n in range(len(order) + 1)]
        if not all(x < y for x, y in pairwise([needed, *places, limit])):
            return None  # no numbers are left between
        for g, place in zip(order, places[1:], strict=True):
            self.groups[g].place = place
        return places[0]

    def _meet(self, a: Group, b: Group) -> Iterator[tuple[Group, Group]]:
        """Both groups on one domain, in each way that there is."""
        if 0 in (a.size, b.size):
            return
        if a.fold_axes and b.fold_axes:
            if (a.domain, a.fold_axes) == (b.domain, b.fold_axes):
                yield a, b
            elif extents(a.domain, a.fold_axes) == extents(b.domain, b.fold_axes):
                yield from self._reshaped(a, b)
            return
        if a.domain == b.domain:
            yield a, b
            return
        if a.size == b.size:
            yield from self._reshaped(a, b)
        if a.fold_axes and not b.indexed and b.size * extents(a.domain, a.fold_axes)[1] == a.size:
            rows = relaid(b, a.domain, partial(lift, domain=a.domain, axes=a.fold_axes), lifted=True)
            if rows:
                yield a, rows
        elif b.fold_axes and not a.indexed and a.size * extents(b.domain, b.fold_axes)[1] == b.size:
            rows = relaid(a, b.domain, partial(lift, domain=b.domain, axes=b.fold_axes), lifted=True)
            if rows:
                yield rows, b
        if not a.fold_axes and not a.indexed and a.cost <= self.limits.broadcast and a.size < b.size:
            yield from self._broadcast(a, b)

    def _reshaped(self, a: Group, b: Group) -> Iterator[tuple[Group, Group]]:
        if a.fold_axes or not b.fold_axes:
            on_a = relaid(b, a.domain, partial(reshape, shape=a.domain))
            if on_a:
                yield a, on_a
        if b.fold_axes or not a.fold_axes:
            on_b = relaid(a, b.domain, partial(reshape, shape=b.domain))
            if on_b:
                yield on_b, b

    def _broadcast(self, a: Group, b: Group) -> Iterator[tuple[Group, Group]]:
        """A cheap producer computed anew for each element that reads it, if nobody needs it in memory."""
        views: list[View] = []
        for buffer, use in a.uses.items():
            if use.written:
                reader = b.uses.get(buffer)
                if reader is None or self.stored(buffer, use | reader):
                    return
                views.extend(reader.read)
        if len(views) != 1:
            return
        axes = repeated_axes(views[0])
        lifted = bool(b.fold_axes) and set(b.fold_axes) <= set(axes)
        repeated = relaid(a, b.domain, partial(lift, domain=b.domain, axes=axes), lifted)
        if repeated:
            yield repeated, b

    def _loss(self, a: Group, b: Group, operands: int, waiting: int) -> str | None:
        """`operands` of the two as one; `waiting`: for how long the results of b would be ready before they were asked for."""
        limits = self.limits
        if a.cost + b.cost > limits.instructions:
            return f"limit of {limits.instructions} instructions"
        if a.folds + b.folds > limits.folds:
            return f"limit of {limits.folds} folds"
        if operands > limits.operands:
            return f"limit of {limits.operands} operands"
        if waiting > limits.distance:
            common = a.uses.keys() & b.uses.keys()
            freed = sum(not self.stored(buffer, a.uses[buffer] | b.uses[buffer]) for buffer in common)
            if freed < self._stores_scratch(b):
                return f"its result would lie in memory while {waiting} steps run that are no loops"
        return None

    def _operands(self, a: Group, b: Group) -> int:
        """Operands and results of the two as one."""
        small, large = (a, b) if len(a.uses) < len(b.uses) else (b, a)
        total = a.operands + b.operands
        for buffer, use in small.uses.items():
            other = large.uses.get(buffer)
            if other is not None:
                total += operands_of(buffer, use | other, self.stored)
                total -= operands_of(buffer, use, self.stored) + operands_of(buffer, other, self.stored)
        return total

    def _stores_scratch(self, group: Group) -> int:
        return sum(b not in self.kept and self.stored(b, use) for b, use in group.uses.items() if use.written)

    def _row_clash(self, a: Group, b: Group) -> str | None:
        fold_axes = a.fold_axes or b.fold_axes
        if not fold_axes:
            return None
        uses = dict(a.uses)
        for buffer, use in b.uses.items():
            uses[buffer] = uses[buffer] | use if buffer in uses else use
        members = [*a.members, *b.members]
        return row_clash(members, uses, a.domain, fold_axes, self.stored, self.limits.row, self.limits.column)

    def _commit(self, first: int, second: int, a: Group, b: Group, operands: int, place: float) -> None:
        """Make one group of the two; `a` and `b` are groups `first` and `second` on their common domain."""
        for relaid_group, number in ((a, first), (b, second)):
            relaid_group.before, relaid_group.after = self.groups[number].before, self.groups[number].after
        small, large = (a, b) if len(a.members) < len(b.members) else (b, a)
        gone, stays = (first, second) if small is a else (second, first)
        for buffer, use in small.uses.items():
            large.uses[buffer] = large.uses[buffer] | use if buffer in large.uses else use
        large.members.extend(small.members)
        large.fold_axes = a.fold_axes or b.fold_axes
        large.cost, large.folds, large.operands = a.cost + b.cost, a.folds + b.folds, operands
        large.indexed, large.place, large.first = a.indexed or b.indexed, place, min(a.first, b.first)
        large.last = max(a.last, b.last)
        self.parent[gone] = stays
        self.groups[stays] = large
        for name in ("before", "after"):
            x, y = getattr(small, name), getattr(large, name)
            y, x = (x, y) if len(x) > len(y) else (y, x)
            y.update(x)
            setattr(large, name, {group for group in map(self.find, y) if group != stays} if len(y) > STALE else y)

    # The result.

    def result(self) -> list[Merged]:
        steps = self.program.steps
        done = []
        for head in self._in_order():
            group = self.groups[head]
            if len(group.members) <= 1:
                done.append(Merged(steps[head], (head,)))
                continue
            numbers = tuple(m.number for m in sorted(group.members))
            origins = tuple(dict.fromkeys(serial for n in numbers for serial in steps[n].origins))
            serial = min(steps[n].serial for n in numbers)
            done.append(Merged(compose(group, self.stored, origins, serial), numbers))
        return done


def _facts(kernel: Loop) -> tuple[int, int, set[str]]:
    """Cost in instructions, number of folds, and the instructions."""
    cost = sum(INSTRUCTIONS[i.op].cost if i.op in INSTRUCTIONS else 1 for i in kernel.code if i.args)
    return cost, len(kernel.folds), {i.op for i in kernel.code}


def _loaded(group: Group) -> set[int]:
    return {buffer for buffer, use in group.uses.items() if use.loaded}


def _domains(a: Group, b: Group) -> str:
    if a.domain == b.domain:
        return f"both fold {list(a.domain)}, along axes {list(a.fold_axes)} and {list(b.fold_axes)}"
    return f"different domains {list(a.domain)} and {list(b.domain)}"
