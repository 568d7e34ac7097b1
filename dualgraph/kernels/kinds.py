"""Kernel records: what a kernel computes, as plain frozen data.

A `Loop` is every kernel made of scalar code: elementwise, reductions with their prologue and epilogue, and row kernels
(softmax, layer norm, cross-entropy: several map and fold stages over one row). It runs over a rectangular domain, some of
whose axes are folded. A value of its code is *full* (one per element of the domain) or *row* (one per row: everything
computed from folds and from operands that do not vary along the folded axes).

The other records stand for work that is not scalar code. Two lowerings exist of each: `reference` (NumPy) and `llvm`.
What the rest of the house has to know of a kind is said by the kind itself: see `Kind`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from dualgraph.kernels.expr import FOLD, INDEX, INPUT, INSTRUCTIONS, LITERAL, POSITION, Code
from dualgraph.kernels.view import View
from dualgraph.spec import Shape, is_float

OTHER = -1  # beside operands: a literal or constant that is another NaN, or a function that may make one


class Check(NamedTuple):
    """A kernel refuses values of an operand that are outside of `low <= value < high`."""

    operand: View
    what: str  # for the message: "label", "index"
    low: int
    high: int


class Applied(Protocol):
    """A `program.Step`, as far as its kernel looks at it."""

    @property
    def outs(self) -> tuple[View, ...]: ...

    @property
    def ins(self) -> tuple[View, ...]: ...

    @property
    def domain(self) -> Shape: ...

    @property
    def fold_axes(self) -> tuple[int, ...]: ...


class Kind:
    """What is known of a kind of kernel. Each kind says all of it; there are no defaults."""

    composes: ClassVar[bool]
    """Scalar code: fusion may make one of several."""
    may_fail: ClassVar[bool]
    """It refuses some values of its operands, or calls what may raise: it keeps its place among the others that do."""
    outside: ClassVar[bool]
    """It is a Python function from outside: not native, and perhaps with effects."""
    copies: ClassVar[frozenset[int] | None]
    """The operands of which results may hold copies, bit by bit, and `OTHER` (see `nan`); None where its code tells."""

    def flops(self, step: Applied) -> int:
        """Floating-point operations of one launch; every instruction of a float counts as one."""
        raise NotImplementedError

    def check(self, step: Applied) -> Check | None:
        """What it refuses."""
        raise NotImplementedError


@dataclass(frozen=True)
class Loop(Kind):
    """Scalar code over a domain. `row_inputs[i]`: operand i does not vary along the folded axes."""

    composes: ClassVar[bool] = True
    may_fail: ClassVar[bool] = False
    outside: ClassVar[bool] = False
    copies: ClassVar[None] = None

    code: Code
    results: tuple[int, ...]  # positions in `code`, one per output
    input_dtypes: tuple[str, ...]
    row_inputs: tuple[bool, ...]

    @property
    def output_dtypes(self) -> tuple[str, ...]:
        return tuple(self.code[r].dtype for r in self.results)

    def is_row(self) -> tuple[bool, ...]:
        """For each instruction: is its value the same along the whole row?"""
        row: list[bool] = []
        for instr in self.code:
            if instr.op == INPUT:
                row.append(self.row_inputs[instr.attr])
            elif instr.op in (INDEX, POSITION):
                row.append(False)
            elif instr.op in (FOLD, LITERAL):
                row.append(True)
            else:
                row.append(all(row[a] for a in instr.args))
        return tuple(row)

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(i for i, instr in enumerate(self.code) if instr.op == FOLD)

    def flops(self, step: Applied) -> int:
        size, rows = math.prod(step.domain), math.prod(n for a, n in enumerate(step.domain) if a not in step.fold_axes)
        total = 0
        for instr, row in zip(self.code, self.is_row(), strict=True):
            if instr.op == FOLD:
                total += size
            elif instr.op in INSTRUCTIONS and is_float(instr.dtype):
                total += rows if row else size
        return total

    def check(self, step: Applied) -> None:
        return None


@dataclass(frozen=True)
class MatMul(Kind):
    """`c[i] = a[i] @ b[i]` for each matrix of a batch, of matrices as they are or transposed.

    Bits of BLAS depend on how its operands lie. So each matrix of an operand is row-major, whole and with nothing between
    its rows (`View.row_major`), and whether it is transposed is said here, not by strides. Batch axes may have any strides.
    """

    composes: ClassVar[bool] = False
    may_fail: ClassVar[bool] = False
    outside: ClassVar[bool] = False
    copies: ClassVar[frozenset[int]] = frozenset()

    dtype: str
    transpose_a: bool = False
    transpose_b: bool = False
    one_nan: bool = (
        True  # make every NaN of the result the one NaN; not where nobody can see it (`nan.unseen_products`)
    )

    def factors(self, ins: Sequence[View]) -> tuple[View, View]:
        """The operands as they are multiplied: (..., m, k) and (..., k, n)."""
        a, b = ins
        return a.transposed if self.transpose_a else a, b.transposed if self.transpose_b else b

    def flops(self, step: Applied) -> int:
        *batch, m, n = step.outs[0].shape
        return 2 * math.prod(batch) * m * n * self.factors(step.ins)[0].shape[-1]

    def check(self, step: Applied) -> None:
        return None


class _Indexed(Kind):
    """Its second operand is an index into axis 1 of the first operand, or of the result."""

    composes: ClassVar[bool] = False
    may_fail: ClassVar[bool] = True
    outside: ClassVar[bool] = False
    scatters: ClassVar[bool]

    def flops(self, step: Applied) -> int:
        adds = self.scatters and is_float(step.outs[0].dtype)
        return math.prod(step.ins[0].shape) if adds else 0

    def check(self, step: Applied) -> Check:
        n = (step.outs if self.scatters else step.ins)[0].shape[1]
        return Check(step.ins[1], "index", -n, n)


@dataclass(frozen=True)
class Gather(_Indexed):
    """`out[a, i, b] = x[a, index[i], b]`; operands (x, index) with domains (A, N, B) and (I,)."""

    scatters: ClassVar[bool] = False
    copies: ClassVar[frozenset[int]] = frozenset({0})

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class ScatterAdd(_Indexed):
    """`out[a, index[i], b] += g[a, i, b]` from zero, in the order of i; operands (g, index), output (A, N, B)."""

    scatters: ClassVar[bool] = True
    copies: ClassVar[frozenset[int]] = frozenset()

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class GatherAlong(_Indexed):
    """`out[a, i, b] = x[a, index[a, i, b], b]` (take_along_axis)."""

    scatters: ClassVar[bool] = False
    copies: ClassVar[frozenset[int]] = frozenset({0})

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class ScatterAddAlong(_Indexed):
    """`out[a, index[a, i, b], b] += g[a, i, b]` from zero, in the order of i."""

    scatters: ClassVar[bool] = True
    copies: ClassVar[frozenset[int]] = frozenset()

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class Sort(Kind):
    """`order[a, i]`: the position in row a of the element that comes i-th; results (order, spare), int64 of x's shape (A, N).

    Equal elements come by position, descending too; -0 equals +0; NaN is the last, either way. N is below 2**32. What is
    left in `spare`, the memory to work in, means nothing. Rows lie as `MatMul` has its matrices.
    """

    composes: ClassVar[bool] = False
    may_fail: ClassVar[bool] = False
    outside: ClassVar[bool] = False
    copies: ClassVar[frozenset[int]] = frozenset()

    dtype: str
    descending: bool

    def flops(self, step: Applied) -> int:
        return 0  # it compares bits

    def check(self, step: Applied) -> None:
        return None


@dataclass(frozen=True)
class CheckIndex(Kind):
    """Fails unless every element of the operand lies in `low <= value < high`; no outputs."""

    composes: ClassVar[bool] = False
    may_fail: ClassVar[bool] = True
    outside: ClassVar[bool] = False
    copies: ClassVar[frozenset[int]] = frozenset()

    dtype: str
    low: int
    high: int
    what: str  # for the message: "label", "index"

    def flops(self, step: Applied) -> int:
        return 0

    def check(self, step: Applied) -> Check:
        return Check(step.ins[0], self.what, self.low, self.high)


@dataclass(frozen=True)
class External(Kind):
    """A Python function over arrays: `function(*arrays, **params) -> tuple of arrays`. What it computes nobody counts."""

    composes: ClassVar[bool] = False
    may_fail: ClassVar[bool] = True
    outside: ClassVar[bool] = True
    copies: ClassVar[frozenset[int]] = frozenset({OTHER})

    name: str
    function: Callable[..., Any]
    params: tuple[tuple[str, Any], ...] = ()
    pure: bool = True  # the results depend on the arrays alone, and nothing else happens

    def flops(self, step: Applied) -> int:
        return 0

    def check(self, step: Applied) -> None:
        return None


Kernel = Loop | MatMul | Gather | ScatterAdd | GatherAlong | ScatterAddAlong | Sort | CheckIndex | External
