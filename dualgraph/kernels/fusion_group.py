"""Groups of Loop steps on one domain: what they read and write, whether they can be one loop, and that one loop.

Within one Loop step all loads of an element come before its stores; where folds make several passes over a row, results
that may overlap operands are stored in the last. So a group may write a buffer only through the one view through which
it also reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dualgraph.kernels import expr as E
from dualgraph.kernels.fusion_layout import collapses, extents
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Step, View
from dualgraph.spec import Shape

NEVER = 1 << 62
Stored = Callable[[int, "Use"], bool]  # (buffer, use) -> must the buffer be in memory after the group?


class Member(NamedTuple):
    """A step as part of a group: its views are said on the group's domain."""

    number: int  # of the step in the program
    kernel: Loop
    ins: tuple[View, ...]
    outs: tuple[View, ...]
    folds: bool
    lifted: bool  # computes one value per row (or less) of the group's domain


@dataclass(slots=True)
class Use:
    """What a group does with one buffer. `first_read`, `first_write`: step numbers."""

    read: set[View] = field(default_factory=set)
    written: set[View] = field(default_factory=set)
    touches: int = 0
    first_read: int = NEVER
    first_write: int = NEVER

    @property
    def loaded(self) -> bool:
        """Is a value from before the group read?"""
        return self.first_read <= self.first_write and self.first_read != NEVER

    def __or__(self, other: Use) -> Use:
        return Use(
            self.read | other.read,
            self.written | other.written,
            self.touches + other.touches,
            min(self.first_read, other.first_read),
            min(self.first_write, other.first_write),
        )


@dataclass(slots=True)
class Group:
    """Steps that become one. `place`: its moment in a total order in which every dependence points forward."""

    place: float
    first: int  # the lowest number among its steps
    last: int  # the highest
    members: list[Member]
    domain: Shape = ()
    fold_axes: tuple[int, ...] = ()
    uses: dict[int, Use] = field(default_factory=dict)
    cost: int = 0
    folds: int = 0
    indexed: bool = False  # uses INDEX or POSITION
    operands: int = 0
    before: set[int] = field(default_factory=set)  # groups it depends on
    after: set[int] = field(default_factory=set)  # groups that depend on it
    barrier: str = ""  # why the step can never be merged

    @property
    def size(self) -> int:
        return math.prod(self.domain)


def uses_of(members: Iterable[Member]) -> dict[int, Use]:
    uses: dict[int, Use] = {}
    for member in members:
        for buffer in {view.buffer for view in (*member.ins, *member.outs)}:
            uses.setdefault(buffer, Use()).touches += 1
        for view in member.ins:
            use = uses[view.buffer]
            use.read.add(view)
            use.first_read = min(use.first_read, member.number)
        for view in member.outs:
            use = uses[view.buffer]
            use.written.add(view)
            use.first_write = min(use.first_write, member.number)
    return uses


def operands_of(buffer: int, use: Use, stored: Stored) -> int:
    """How many operands and results the buffer costs the fused step."""
    return (len(use.read) if use.loaded else 0) + (1 if use.written and stored(buffer, use) else 0)


def relaid(group: Group, domain: Shape, relay: Callable[[View], View | None], lifted: bool = False) -> Group | None:
    """The group said on another domain; None where strides cannot say it."""
    members: list[Member] = []
    for member in group.members:
        ins = [relay(view) for view in member.ins]
        outs = [relay(view) for view in member.outs]
        good_ins, good_outs = [v for v in ins if v is not None], [v for v in outs if v is not None]
        if len(good_ins) < len(ins) or len(good_outs) < len(outs):
            return None
        members.append(member._replace(ins=tuple(good_ins), outs=tuple(good_outs), lifted=lifted or member.lifted))
    return Group(
        group.place,
        group.first,
        group.last,
        members,
        domain,
        (),
        uses_of(members),
        group.cost,
        group.folds,
        group.indexed,
        group.operands,
    )


def clash(a: Group, b: Group) -> str | None:
    """Why both groups cannot share one loop: a buffer that one of them writes is seen through two views."""
    small, large = (a.uses, b.uses) if len(a.uses) < len(b.uses) else (b.uses, a.uses)
    for buffer, use in small.items():
        other = large.get(buffer)
        if other is not None and (use.written or other.written):
            views = use.read | use.written | other.read | other.written
            if len(views) > 1:
                return f"buffer {buffer} is written and read through different views"
    return None


def is_row_operand(member: Member, number: int, fold_axes: tuple[int, ...]) -> bool:
    """Does the operand hold one value per row? A folding step says so itself; of others the strides tell."""
    if member.lifted:
        return True
    if member.folds:
        return member.kernel.row_inputs[number]
    view = member.ins[number]
    return any(view.shape[a] != 1 for a in fold_axes) and all(view.strides[a] == 0 for a in fold_axes)


class Level(NamedTuple):
    """Of a value: one per row? computed from a fold?"""

    row: bool
    late: bool


def row_clash(
    members: Iterable[Member],
    uses: dict[int, Use],
    domain: Shape,
    fold_axes: tuple[int, ...],
    stored: Stored,
    longest_row: int,
    longest_column: int,
) -> str | None:
    """Why a loop with folds cannot, or should not, hold these members."""
    a, r, b = extents(domain, fold_axes)
    longest = longest_row if b == 1 else longest_column
    for buffer, use in uses.items():
        if not all(collapses(view, fold_axes) for view in use.read | use.written):
            return f"the folded axes of buffer {buffer} are not walked by one stride"
    known: dict[int, Level] = {}
    for member in sorted(members):
        levels = _levels(member, known, fold_axes)
        if member.folds:
            folded = [instr.args[0] for instr in member.kernel.code if instr.op == E.FOLD]
            if any(levels[i].row and not member.kernel.is_row()[i] for i in folded):
                return f"step {member.number} folds what is the same along the row"
        if r > longest and Level(row=False, late=True) in levels:
            return f"rows of {r} elements are too long to be held in cache"
        for view, result in zip(member.outs, member.kernel.results, strict=True):
            if view.buffer in known:
                return f"buffer {view.buffer} is written twice"
            known[view.buffer] = level = levels[result]
            if r == 1 or not stored(view.buffer, uses[view.buffer]):
                continue
            if level.row and any(view.strides[axis] for axis in fold_axes):
                return f"step {member.number} writes one value per row all over the row"
            if not level.row and r > longest_row and a * b < 8:
                return f"{a * b} rows of {r} elements would be written one after the other"
    return None


def _levels(member: Member, known: dict[int, Level], fold_axes: tuple[int, ...]) -> list[Level]:
    levels: list[Level] = []
    for instr in member.kernel.code:
        if instr.op == E.INPUT:
            level = known.get(member.ins[instr.attr].buffer)
            levels.append(level or Level(is_row_operand(member, instr.attr, fold_axes), False))
        elif instr.op in (E.INDEX, E.POSITION):
            levels.append(Level(False, False))
        elif instr.op == E.FOLD:
            levels.append(Level(True, True))
        else:
            row, late = True, False
            for i in instr.args:
                row, late = row and levels[i].row, late or levels[i].late
            levels.append(Level(row, late))
    return levels


def compose(group: Group, stored: Stored, origins: tuple[int, ...], serial: int) -> Step:
    """The group as one Loop step.

    Operands are numbered as the code meets them and results as they are first written: equal groups give equal code.
    """
    values: dict[int, E.Expr] = {}
    outs: dict[int, View] = {}
    operands: dict[tuple[View, bool], E.Expr] = {}
    for member in sorted(group.members):
        inputs: list[E.Expr] = []
        for number, view in enumerate(member.ins):
            if view.buffer in values:
                inputs.append(values[view.buffer])
                continue
            key = view, is_row_operand(member, number, group.fold_axes)
            if key not in operands:
                operands[key] = E.input(len(operands), view.dtype)
            inputs.append(operands[key])
        exprs = E.inline(member.kernel.code, inputs)
        for view, result in zip(member.outs, member.kernel.results, strict=True):
            values[view.buffer] = exprs[result]
            outs[view.buffer] = view
    kept = [view for buffer, view in outs.items() if stored(buffer, group.uses[buffer])]
    code, results = E.linearise([values[view.buffer] for view in kept])
    order = [instr.attr for instr in code if instr.op == E.INPUT]
    renumbered = {old: new for new, old in enumerate(order)}
    code = tuple(i._replace(attr=renumbered[i.attr]) if i.op == E.INPUT else i for i in code)
    keys = list(operands)
    ins = tuple(keys[old][0] for old in order)
    kernel = Loop(code, results, tuple(v.dtype for v in ins), tuple(keys[old][1] for old in order))
    return Step(kernel, tuple(kept), ins, group.domain, group.fold_axes, origins, serial)
