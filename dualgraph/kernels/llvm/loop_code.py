"""Scalar code at its places in a kernel: what is computed once a row, what in which pass over the row.

A fold of depth d needs the folds of smaller depth first: pass p over the row computes the folds of depth p + 1. Full
values are recomputed in each pass, which is cheaper than memory; expensive ones may be kept in scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dualgraph.kernels.expr import FOLD, INDEX, INPUT, INSTRUCTIONS, LITERAL, POSITION, Code, literal_value
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.instructions import EMITTERS, cast
from dualgraph.kernels.llvm.lanes import Lanes, Value

EXPENSIVE = 20  # cost from which a value is rather kept than computed again
COMBINE = {
    "sum": "add",
    "prod": "mul",
    "max": "maximum",
    "min": "minimum",
    "any": "bitwise_or",
    "all": "bitwise_and",
}


class Pass(NamedTuple):
    """One walk over a row: computes `full` (in order), of which some come from or go to scratch."""

    folds: tuple[int, ...]
    stores: tuple[int, ...]  # numbers of the full outputs written
    full: tuple[int, ...]
    from_scratch: tuple[int, ...]
    to_scratch: tuple[int, ...]


def passes(kernel: Loop, *, early: bool, keep: bool) -> tuple[Pass, ...]:
    """The passes of a fold kernel. `early`: outputs share no memory with inputs, so they may be written before the last
    pass; `keep`: there is scratch for expensive values."""
    code, row, depth = kernel.code, kernel.is_row(), depths(kernel.code)
    full_outputs = [n for n, r in enumerate(kernel.results) if not row[r]]
    last = max([depth[f] - 1 for f in kernel.folds] + [depth[kernel.results[n]] for n in full_outputs], default=0)
    plans: list[tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]] = []
    known: set[int] = set()
    kept: set[int] = set()
    for number in range(last + 1):
        folds = tuple(f for f in kernel.folds if depth[f] - 1 == number)
        stores = tuple(n for n in full_outputs if (depth[kernel.results[n]] if early else last) == number)
        full, reused = set[int](), set[int]()
        stack = [code[f].args[0] for f in folds] + [kernel.results[n] for n in stores]
        while stack:
            i = stack.pop()
            if row[i] or i in full:
                continue
            if keep and i in known and _cost(code[i].op) >= EXPENSIVE:
                reused.add(i)
                continue
            full.add(i)
            stack.extend(code[i].args)
        known |= full
        kept |= reused
        plans.append((folds, stores, sorted(full), sorted(reused)))
    saved: set[int] = set()
    result = []
    for folds, stores, now, again in plans:
        new = tuple(i for i in now if i in kept and i not in saved)
        saved.update(new)
        result.append(Pass(folds, stores, tuple(now), tuple(again), new))
    return tuple(result)


def depths(code: Code) -> list[int]:
    """How many folds lie one above the other below each instruction."""
    depth: list[int] = []
    for instr in code:
        depth.append(max((depth[a] for a in instr.args), default=0) + (instr.op == FOLD))
    return depth


def _cost(op: str) -> int:
    return INSTRUCTIONS[op].cost if op in INSTRUCTIONS else 0


def work(code: Code) -> int:
    """Rough number of scalar operations for one element."""
    return 1 + sum(_cost(instr.op) for instr in code)


def counters(code: Code) -> tuple[int, ...]:
    return tuple(i for i, instr in enumerate(code) if instr.op in (INDEX, POSITION))


def emit(lanes: Lanes, code: Code, i: int, args: Sequence[Value]) -> Value:
    """Instruction i, which is not an operand and not a fold."""
    instr = code[i]
    if instr.op == LITERAL:
        return lanes.constant(instr.dtype, literal_value(instr.attr, instr.dtype))
    if instr.op == "cast":
        return cast(lanes, args[0], instr.dtype)
    return EMITTERS[instr.op](lanes, tuple(args))


def combine(lanes: Lanes, monoid: str, x: Value, y: Value) -> Value:
    return EMITTERS[COMBINE[monoid]](lanes, (x, y))


class Values:
    """The values of the code at the current place. `leaf(i)` is the operand number of a leaf, `load` reads it;
    `still(i)`: leaf i is the same along the whole row."""

    def __init__(self, lanes: Lanes, kernel: Loop, still: Sequence[bool], load_row: Callable[[int], Value]):
        self.lanes, self.code, self.is_row = lanes, kernel.code, kernel.is_row()
        self._still, self._load_row = still, load_row
        self._counters = {i: n for n, i in enumerate(counters(kernel.code), len(kernel.input_dtypes) + len(kernel.results))}
        self.row: dict[int, Value] = {}

    def leaf(self, i: int) -> int | None:
        instr = self.code[i]
        return instr.attr if instr.op == INPUT else self._counters.get(i)

    def _stays(self, i: int) -> bool:
        leaf = self.leaf(i)
        return self.is_row[i] or (leaf is not None and self._still[leaf])

    def need_rows(self, numbers: Iterable[int]) -> None:
        """Compute the row values among `numbers`, with all below them, here."""
        wanted, stack = set[int](), [i for i in numbers if self._stays(i)]
        while stack:
            i = stack.pop()
            if i in self.row or i in wanted:
                continue
            wanted.add(i)
            stack.extend(self.code[i].args)
        for i in sorted(wanted):
            leaf = self.leaf(i)
            args = [self.row[a] for a in self.code[i].args]
            self.row[i] = emit(self.lanes, self.code, i, args) if leaf is None else self._load_row(leaf)

    def prepare(self, plan: Pass) -> None:
        """Compute what `plan` needs of the row before its loop."""
        for i in plan.full:
            self.need_rows((i, *self.code[i].args))
        self.need_rows(self.code[f].args[0] for f in plan.folds)

    def full(self, plan: Pass, load: Callable[[int], Value], known: dict[int, Value]) -> Callable[[int], Value]:
        """Compute the full values of `plan` here, beyond those `known`; returns the lookup of any value."""
        def value(i: int) -> Value:
            return known[i] if i in known else self.row[i]

        for i in plan.full:
            if i not in known and i not in self.row:
                leaf = self.leaf(i)
                known[i] = load(leaf) if leaf is not None else emit(
                    self.lanes, self.code, i, [value(a) for a in self.code[i].args]
                )
        return value


def identity(lanes: Lanes, monoid: str, dtype: str) -> Value:
    return lanes.constant(dtype, identity_value(monoid, dtype))


def identity_value(monoid: str, dtype: str) -> Any:
    """e with `e op x == x`, in bits.

    >>> identity_value("sum", "float32"), identity_value("max", "int32")
    (-0.0, -2147483648)
    """
    if dtype == "bool":
        return monoid in ("all", "min", "prod")
    floats = dtype in ("float32", "float64")
    if monoid in ("max", "min"):
        low = float("-inf") if floats else -(2 ** (31 if dtype == "int32" else 63))
        return low if monoid == "max" else float("inf") if floats else -1 - low
    if monoid == "sum":
        return -0.0 if floats else 0
    return 1 if monoid in ("prod", "all") else 0
