"""From a step to a nest of loops in plain integers: which axis is vectorised, which are merged, which strides remain.

Every loop kernel is one nest: outer axes, the folded axis (if any), and the inner axis that fills vectors. A *row*
kernel vectorises the folded axis itself, a *column* kernel a kept axis. Since the order of a fold depends on positions
alone, the choice is free and made by cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dualgraph.errors import KernelError
from dualgraph.kernels.expr import INDEX, POSITION
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.command import Locate
from dualgraph.kernels.program import Step, View
from dualgraph.spec import ITEMSIZE, Shape, contiguous_strides

CONTIGUOUS, BROADCAST, STRIDED = "contiguous", "broadcast", "strided"
COUNTER = -1  # the slot of a leaf that counts instead of reading memory

_GATHER_COST = 12  # of a vector of strided elements, in contiguous vectors
_TREE_COST = {"rows": 8, "columns": 40}  # of starting and finishing a fold, in vectors
_VECTOR = 16


class Leaf(NamedTuple):
    """An operand over the domain in bytes. Counters (INDEX, POSITION) are leaves of which the address is the value."""

    dtype: str
    itemsize: int
    slot: int
    start: int
    strides: Shape


class Signature(NamedTuple):
    """What of an operand is fixed in the code: dtype, how it moves along the vector axis, whether it has a fold stride."""

    dtype: str
    access: str  # CONTIGUOUS, BROADCAST or STRIDED
    moves: bool = False
    counter: bool = False


class Axis(NamedTuple):
    """A merged axis: its extent and one stride per leaf."""

    extent: int
    strides: tuple[int, ...]


class Nest(NamedTuple):
    """Outer axes, the folded axis and the vector axis; in a row kernel the last two are the same."""

    outer: tuple[Axis, ...]
    fold: Axis | None
    inner: Axis
    rows: bool

    @property
    def outer_size(self) -> int:
        return math.prod(axis.extent for axis in self.outer)


def leaves(step: Step, kernel: Loop, locate: Locate) -> list[Leaf]:
    """Inputs, outputs, then the counters in the order of their instructions."""
    found = [_memory(view, locate) for view in (*step.ins, *step.outs)]
    for instr in kernel.code:
        if instr.op == INDEX:
            found.append(Leaf("int64", 1, COUNTER, 0, contiguous_strides(step.domain)))
        elif instr.op == POSITION:
            found.append(Leaf("int64", 1, COUNTER, 0, _position_strides(step.domain, step.fold_axes)))
    return found


def _memory(view: View, locate: Locate) -> Leaf:
    slot, start = locate(view.buffer)
    size = ITEMSIZE[view.dtype]
    return Leaf(view.dtype, size, slot, start + view.offset * size, tuple(s * size for s in view.strides))


def _position_strides(domain: Shape, fold_axes: tuple[int, ...]) -> Shape:
    along = contiguous_strides(tuple(domain[axis] for axis in fold_axes))
    strides = [0] * len(domain)
    for axis, stride in zip(fold_axes, along, strict=True):
        strides[axis] = stride
    return tuple(strides)


def flat_nest(domain: Shape, operands: Sequence[Leaf], reference: int) -> Nest:
    """All axes merged as far as every operand allows; innermost where leaf `reference` is most nearly contiguous."""
    axes = _merged(_sorted(_axes(domain, operands, range(len(domain))), reference))
    *outer, inner = axes or [Axis(1, (0,) * len(operands))]
    return Nest(tuple(outer), None, inner, rows=False)


def fold_nest(
    domain: Shape, fold_axes: Shape, operands: Sequence[Leaf], full: Sequence[bool], orientation: str | None = None
) -> Nest:
    """Rows or columns, whichever is estimated cheaper (or as told). `full[i]`: leaf i varies along the folded axes."""
    folded = _merged(_axes(domain, operands, sorted(fold_axes)))
    if len(folded) != 1:
        raise KernelError(
            f"got folded axes {fold_axes} of domain {domain} that do not collapse to one stride for every operand; the "
            "op must copy such an operand first; this is a fault of dualgraph: report it"
        )
    fold = folded[0]
    kept = [axis for axis in range(len(domain)) if axis not in fold_axes]
    reference = next((i for i, leaf in enumerate(operands) if full[i] and leaf.slot != COUNTER), 0)
    axes = _merged(_sorted(_axes(domain, operands, kept), reference))
    candidates = [(_row_cost(fold, axes, operands, full), -1)] if orientation != "columns" else []
    if orientation != "rows":
        candidates += [(_column_cost(fold, axis, axes, operands, full), i) for i, axis in enumerate(axes)]
    chosen = min(candidates)[1] if candidates else None
    if chosen == -1:
        return Nest(tuple(axes), fold, fold, rows=True)
    if chosen is None:  # columns were asked for, and no axis is kept
        return Nest((), fold, Axis(1, (0,) * len(operands)), rows=False)
    return Nest((*axes[:chosen], *axes[chosen + 1 :]), fold, axes[chosen], rows=False)


def access_along(axis: Axis, leaf: int, itemsize: int) -> str:
    """How a leaf moves along the vector axis. An axis of length 1 counts as contiguous: fewer variants."""
    stride = axis.strides[leaf]
    return CONTIGUOUS if stride == itemsize or axis.extent <= 1 else BROADCAST if stride == 0 else STRIDED


def _axes(domain: Shape, operands: Sequence[Leaf], numbers: Sequence[int]) -> list[Axis]:
    return [Axis(domain[n], tuple(leaf.strides[n] for leaf in operands)) for n in numbers]


def _sorted(axes: list[Axis], reference: int) -> list[Axis]:
    return sorted((a for a in axes if a.extent != 1), key=lambda a: -abs(a.strides[reference]))


def _merged(axes: list[Axis]) -> list[Axis]:
    merged: list[Axis] = []
    for axis in axes:
        if axis.extent == 1 and len(axes) > 1:
            continue
        last = merged[-1] if merged else None
        if last and all(s == t * axis.extent for s, t in zip(last.strides, axis.strides, strict=True)):
            merged[-1] = Axis(last.extent * axis.extent, axis.strides)
        else:
            merged.append(axis)
    return merged or axes[:1]


def _vector_cost(axis: Axis, operands: Sequence[Leaf], full: Sequence[bool]) -> float:
    cost = 1.0
    for i, leaf in enumerate(operands):
        if full[i] and leaf.slot != COUNTER:
            cost += {CONTIGUOUS: 1.0, BROADCAST: 0.2, STRIDED: _GATHER_COST}[access_along(axis, i, leaf.itemsize)]
    return cost


def _row_cost(fold: Axis, axes: list[Axis], operands: Sequence[Leaf], full: Sequence[bool]) -> float:
    vectors = -(-fold.extent // _VECTOR) * _vector_cost(fold, operands, full) + _TREE_COST["rows"]
    return math.prod(axis.extent for axis in axes) * vectors


def _column_cost(fold: Axis, inner: Axis, axes: list[Axis], operands: Sequence[Leaf], full: Sequence[bool]) -> float:
    blocks = math.prod(axis.extent for axis in axes) // max(inner.extent, 1) * -(-inner.extent // _VECTOR)
    return blocks * (fold.extent * _vector_cost(inner, operands, full) + _TREE_COST["columns"])
