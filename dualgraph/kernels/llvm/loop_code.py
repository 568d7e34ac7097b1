"""Scalar code as vector code at its two places in a kernel: once a row, and for each vector of elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from dualgraph.kernels.expr import INPUT, LITERAL, Code, literal_value
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.instructions import EMITTERS, cast
from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loop_schedule import Pass, counters, identity_value

COMBINE = {
    "sum": "add",
    "prod": "mul",
    "max": "maximum",
    "min": "minimum",
    "any": "bitwise_or",
    "all": "bitwise_and",
}


SEES_SIGN = ("signbit", "copysign")  # the instructions that tell one NaN from another


def one_nan(lanes: Lanes, code: Code, i: int, x: Value) -> Value:
    """The value of instruction i with every NaN that was computed made one and the same; copies keep the bits they find.

    Which NaN an operation gives depends on the order of its operands, which LLVM may swap, and on what it folds: bits
    that fusion must not be able to change. So it is done where bits are seen: in what is stored, and before `SEES_SIGN`.
    """
    if not x.is_float or code[i].op in (INPUT, LITERAL):
        return x
    return lanes.constant(x.dtype, math.nan).where(x.is_nan(), x)


def emit(lanes: Lanes, code: Code, i: int, args: Sequence[Value]) -> Value:
    """Instruction i, which is not an operand and not a fold."""
    instr = code[i]
    if instr.op in SEES_SIGN:
        args = [one_nan(lanes, code, a, x) for a, x in zip(instr.args, args, strict=True)]
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
        self._counters = {
            i: n for n, i in enumerate(counters(kernel.code), len(kernel.input_dtypes) + len(kernel.results))
        }
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
                known[i] = (
                    load(leaf)
                    if leaf is not None
                    else emit(self.lanes, self.code, i, [value(a) for a in self.code[i].args])
                )
        return value

    def result(self, i: int, x: Value) -> Value:
        """What is stored for instruction i."""
        return one_nan(self.lanes, self.code, i, x)


def identity(lanes: Lanes, monoid: str, dtype: str) -> Value:
    return lanes.constant(dtype, identity_value(monoid, dtype))
