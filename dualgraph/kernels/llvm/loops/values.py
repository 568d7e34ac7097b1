"""Scalar code as vector code at its two places in a kernel: once a row, and for each vector of elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dualgraph.dtypes import DTYPES, STORED
from dualgraph.kernels import nan
from dualgraph.kernels.expr import INPUT, LITERAL, Code
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.lanes import Lanes, Value
from dualgraph.kernels.llvm.loops.walks import Walk, counters
from dualgraph.kernels.llvm.maths.instructions import EMITTERS, cast
from dualgraph.kernels.monoids import MONOIDS


def one_nan(x: Value) -> Value:
    """x with every NaN made the one NaN; a conversion to a stored dtype has done it."""
    if x.dtype in STORED:
        return x
    return x.lanes.literal(x.dtype, DTYPES[x.dtype].one_nan).where(x.is_nan(), x)


def emit(lanes: Lanes, code: Code, i: int, args: Sequence[Value]) -> Value:
    """Instruction i, which is not an operand and not a fold."""
    instr = code[i]
    if instr.op == LITERAL:
        return lanes.literal(instr.dtype, instr.attr)
    if instr.op == "cast":
        return cast(lanes, args[0], instr.dtype)
    return EMITTERS[instr.op](lanes, tuple(args))


def combine(lanes: Lanes, monoid: str, x: Value, y: Value) -> Value:
    return EMITTERS[MONOIDS[monoid].instruction](lanes, (x, y))


class Values:
    """The values of the code at the current place. `leaf(i)` is the operand number of a leaf, `load` reads it;
    `still(i)`: leaf i is the same along the whole row."""

    def __init__(self, lanes: Lanes, kernel: Loop, still: Sequence[bool], load_row: Callable[[int], Value]):
        self.lanes, self.code, self.is_row = lanes, kernel.code, kernel.is_row()
        self._still, self._load_row = still, load_row
        self._normalised = nan.to_normalise(kernel.code, kernel.results)
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
            self.row[i] = self._emit(i, args) if leaf is None else self._load_row(leaf)

    def prepare(self, walk: Walk) -> None:
        """Compute what `walk` needs of the row before its loop."""
        for i in walk.full:
            self.need_rows((i, *self.code[i].args))
        self.need_rows(self.code[f].args[0] for f in walk.folds)

    def full(self, walk: Walk, load: Callable[[int], Value], known: dict[int, Value]) -> Callable[[int], Value]:
        """Compute the full values of `walk` here, beyond those `known`; returns the lookup of any value."""

        def value(i: int) -> Value:
            return known[i] if i in known else self.row[i]

        for i in walk.full:
            if i not in known and i not in self.row:
                leaf = self.leaf(i)
                known[i] = load(leaf) if leaf is not None else self._emit(i, [value(a) for a in self.code[i].args])
        return value

    def folded(self, i: int, x: Value) -> None:
        """The value of fold i is known."""
        self.row[i] = self._one_nan(i, x)

    def _emit(self, i: int, args: Sequence[Value]) -> Value:
        return self._one_nan(i, emit(self.lanes, self.code, i, args))

    def _one_nan(self, i: int, x: Value) -> Value:
        return one_nan(x) if i in self._normalised else x


def identity(lanes: Lanes, monoid: str, dtype: str) -> Value:
    return lanes.constant(dtype, MONOIDS[monoid].identity(dtype))
