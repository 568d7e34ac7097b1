"""The variants of loop kernels: what of a step is fixed in the code. All else is an argument.

`flat`, `rows` and `columns` write the code of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm.command import Variant
from dualgraph.kernels.llvm.loops.nest import Signature

WIDTH = 16  # lanes of a vector; every width gives the same bits
BLOCK = 4096  # elements of the inner axis in one unit of a flat kernel
LANES = 32  # of the canonical order of folds
CHUNK = 4096  # likewise
KEPT_ROWS = 256  # for at most so many positions along the fold columns keep expensive values in scratch
SHORT, ONE_CHUNK, MANY_CHUNKS = "short", "one chunk", "many chunks"


@dataclass(frozen=True)
class Flat(Variant):
    """Arguments: inner extent, blocks, outer dims; of each operand slot, offset, outer strides, inner stride."""

    kernel: Loop
    operands: tuple[Signature, ...]
    rank: int
    width: int

    @property
    def straight(self) -> bool:
        return len(self.kernel.code) >= 24


@dataclass(frozen=True)
class Rows(Variant):
    """Arguments: row length, outer dims; of each operand slot, offset, outer strides, inner stride."""

    kernel: Loop
    operands: tuple[Signature, ...]
    rank: int
    width: int
    length: str  # SHORT: at most `width`; ONE_CHUNK: at most CHUNK; MANY_CHUNKS
    early: bool  # outputs share no memory with inputs


@dataclass(frozen=True)
class Columns(Variant):
    """Arguments: inner extent, blocks, fold extent, lanes in use (a power of 2), outer dims; of each operand slot,
    offset, outer strides, fold stride if it moves, inner stride."""

    kernel: Loop
    operands: tuple[Signature, ...]
    rank: int
    width: int
    chunked: bool
    keep: bool  # the folded axis is at most KEPT_ROWS long
    early: bool  # outputs share no memory with inputs
