"""Kernel records: what a kernel computes, as plain frozen data.

A `Loop` is every kernel made of scalar code: elementwise, reductions with their prologue and epilogue, and row kernels
(softmax, layer norm, cross-entropy: several map and fold stages over one row). It runs over a rectangular domain, some of
whose axes are folded. A value of its code is *full* (one per element of the domain) or *row* (one per row: everything
computed from folds and from operands that do not vary along the folded axes).

The other records stand for work that is not scalar code. Two lowerings exist of each: `reference` (NumPy) and `llvm`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from dualgraph.kernels.expr import FOLD, INDEX, INPUT, LITERAL, POSITION, Code


class Transposable(Protocol):
    """A `View`, or a part of one that is enough here."""

    @property
    def transposed(self) -> Self: ...


Factor = TypeVar("Factor", bound=Transposable)


@dataclass(frozen=True)
class Loop:
    """Scalar code over a domain. `row_inputs[i]`: operand i does not vary along the folded axes."""

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


@dataclass(frozen=True)
class MatMul:
    """`c[i] = a[i] @ b[i]` for each matrix of a batch, of matrices as they are or transposed.

    Bits of BLAS depend on how its operands lie. So each matrix of an operand is row-major, whole and with nothing between
    its rows (`View.row_major`), and whether it is transposed is said here, not by strides. Batch axes may have any strides.
    """

    dtype: str
    transpose_a: bool = False
    transpose_b: bool = False
    one_nan: bool = (
        True  # make every NaN of the result the one NaN; not where nobody can see it (`nan.unseen_products`)
    )

    def factors(self, ins: Sequence[Factor]) -> tuple[Factor, Factor]:
        """The operands as they are multiplied: (..., m, k) and (..., k, n)."""
        a, b = ins
        return a.transposed if self.transpose_a else a, b.transposed if self.transpose_b else b


@dataclass(frozen=True)
class Gather:
    """`out[a, i, b] = x[a, index[i], b]`; operands (x, index) with domains (A, N, B) and (I,)."""

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class ScatterAdd:
    """`out[a, index[i], b] += g[a, i, b]` from zero, in the order of i; operands (g, index), output (A, N, B)."""

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class GatherAlong:
    """`out[a, i, b] = x[a, index[a, i, b], b]` (take_along_axis)."""

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class ScatterAddAlong:
    """`out[a, index[a, i, b], b] += g[a, i, b]` from zero, in the order of i."""

    dtype: str
    index_dtype: str


@dataclass(frozen=True)
class CheckIndex:
    """Fails unless every element of the operand lies in `low <= value < high`; no outputs."""

    dtype: str
    low: int
    high: int
    what: str  # for the message: "label", "index"


@dataclass(frozen=True)
class External:
    """A Python function over arrays: `function(*arrays, **params) -> tuple of arrays`."""

    name: str
    function: Callable[..., Any]
    params: tuple[tuple[str, Any], ...] = ()


Kernel = Loop | MatMul | Gather | ScatterAdd | GatherAlong | ScatterAddAlong | CheckIndex | External
