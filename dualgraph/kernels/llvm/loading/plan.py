"""The plan of a launch (`runtime.tables`): all that native code needs for it, laid out in one array.

`launch` writes the parts in the order in which they lie there: slots, table of outputs with their dims, command table
with its arguments, tables of state; then the header, which says where each part begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.kernels import blas
from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.command import Command
from dualgraph.kernels.llvm.loading import machine
from dualgraph.kernels.llvm.loading.builtin import builtin, worker
from dualgraph.kernels.llvm.products.selection import Gemm, Gemv
from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.state import GRADIENT, LAYOUT, VALUE, State
from dualgraph.spec import Spec

Array = np.ndarray[Any, Any]

# Scalar operations of a launch from which on it releases the GIL: 70 (exp) to 250 (add) microseconds.
GIL_WORK = 1 << 22
_NO_STATE = State(0, (), frozenset())


@dataclass(frozen=True, slots=True)
class Row:
    """A command of a launch and the step it stands for."""

    command: Command
    step: int


class Late(NamedTuple):
    """The cells, and the outputs, that are written when nothing can fail any more."""

    cells: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def aligned(arena: Array) -> Array:
    return arena[-arena.ctypes.data % tables.ARENA_ALIGNMENT :]


def launch(
    rows: Sequence[Row],
    inputs: int,
    outputs: Sequence[Spec] = (),
    arena: Array | None = None,
    constants: Sequence[Array] = (),
    state: State | None = None,
    late: Late = Late(),  # noqa: B008 (immutable)
) -> Callable[..., Any]:
    """A builtin that runs commands."""
    addresses = engine.addresses([row.command.variant for row in rows])
    arena = arena if arena is not None else np.empty(tables.ARENA_ALIGNMENT, np.uint8)
    writer = _Writer(rows, inputs, outputs, len(constants), state or _NO_STATE)
    writer.slots(arena, constants)
    writer.results(outputs)
    parallel = writer.commands(rows, addresses)
    writer.cells(late)
    writer.receivers(late)
    writer.header(rows, arena.size - tables.ARENA_ALIGNMENT)
    plan = writer.plan
    plan.keep = (arena, tuple(constants), writer.state)
    if parallel:
        pool.start(worker)
    return builtin(plan)


class _Writer:
    """A plan, and where its parts begin."""

    def __init__(self, rows: Sequence[Row], inputs: int, outputs: Sequence[Spec], constants: int, state: State):
        self.state, self.inputs, self.outputs = state, inputs, len(outputs)
        self.left = (*state.left, *state.cleared)  # the objects that receive something
        self.pointers = inputs + len(outputs) + 1 + constants
        self.all_slots = self.pointers + len(state.cells) + len(state.left) + len(self.left)
        sizes = (
            tables.PLAN_HEADER,
            self.all_slots,
            tables.OUTPUT_WORDS * len(outputs),
            sum(len(spec.shape) for spec in outputs),
            tables.COMMAND_WORDS * len(rows),
            sum(len(row.command.args) for row in rows),
            tables.CELL_WORDS * len(state.cells),
            tables.LEFT_WORDS * len(self.left),
        )
        starts = accumulate(sizes)
        self.at_slots, self.at_outputs, self.at_dims, self.at_commands = (next(starts) for _ in range(4))
        self.at_args, self.at_cells, self.at_left, end = starts
        self.plan = np.zeros(end, np.int64).view(tables.LaunchPlan)
        self.words = self.plan.view(np.ndarray)
        self.base = self.words.ctypes.data

    def address(self, word: int) -> int:
        return int(self.base + 8 * word)

    def slots(self, arena: Array, constants: Sequence[Array]) -> None:
        """What does not change from launch to launch: the arena and the constants."""
        at_constants = self.at_slots + self.pointers - len(constants)
        self.words[at_constants - 1] = aligned(arena).ctypes.data
        for number, constant in enumerate(constants):
            self.words[at_constants + number] = constant.ctypes.data

    def results(self, outputs: Sequence[Spec]) -> None:
        words, dim = self.words, self.at_dims
        for number, spec in enumerate(outputs):
            row = self.at_outputs + number * tables.OUTPUT_WORDS
            words[row : row + 3] = id(NUMPY_DTYPES[spec.dtype]), len(spec.shape), self.address(dim)
            words[dim : dim + len(spec.shape)] = spec.shape
            dim += len(spec.shape)

    def commands(self, rows: Sequence[Row], addresses: Sequence[int]) -> bool:
        """Is any of them worth to be cut over threads?"""
        words, here, parallel = self.words, self.at_args, False
        for number, (item, address) in enumerate(zip(rows, addresses, strict=True)):
            found = item.command
            pieces = pool.pieces(found.units, found.work)
            parallel = parallel or pieces > 1
            row = self.at_commands + number * tables.COMMAND_WORDS
            words[row : row + 5] = address, self.address(here), found.units, pieces, item.step
            words[here : here + len(found.args)] = found.args
            here += len(found.args)
        return parallel

    def cells(self, late: Late) -> None:
        for number, cell in enumerate(self.state.cells):
            row = self.at_cells + number * tables.CELL_WORDS
            written = tables.WRITTEN_AT_THE_END if number in late.cells else tables.WRITTEN
            use = written if number in self.state.written else tables.READ
            self.words[row : row + 3] = machine.slot(cell, VALUE), cell.storage.nbytes, use

    def receivers(self, late: Late) -> None:
        """The objects in which outputs are left, or which are cleared; and the type of what they hold."""
        words, state = self.words, self.state
        for number, receiver in enumerate(self.left):
            row = self.at_left + number * tables.LEFT_WORDS
            words[row : row + 2] = machine.slot(receiver, GRADIENT), self._returned() + number in late.outputs
        if state.wrapper is not None:
            words[tables.PLAN_WRAPPER], words[tables.PLAN_WHOLE] = id(state.wrapper), id(state.whole)
            words[tables.PLAN_WRAPPER_VALUE] = machine.slot_offset(state.wrapper, VALUE)
            words[tables.PLAN_WRAPPER_LAYOUT] = machine.slot_offset(state.wrapper, LAYOUT)

    def _returned(self) -> int:
        """Outputs that are returned; those left in objects come behind them."""
        return self.outputs - len(self.state.left)

    def header(self, rows: Sequence[Row], arena_bytes: int) -> None:
        words, state = self.words, self.state
        words[tables.PLAN_MACHINE] = machine.machine().ctypes.data
        words[tables.PLAN_ARGUMENTS], words[tables.PLAN_OUTPUTS] = self.inputs - len(state.cells), self.outputs
        words[tables.PLAN_COMMANDS], words[tables.PLAN_SLOTS] = len(rows), self.all_slots
        words[tables.PLAN_ARENA_BYTES], words[tables.PLAN_FLAGS] = arena_bytes, _flags(rows, state)
        words[tables.PLAN_SLOT_TABLE] = self.address(self.at_slots)
        words[tables.PLAN_OUTPUT_TABLE] = self.address(self.at_outputs)
        words[tables.PLAN_COMMAND_TABLE] = self.address(self.at_commands)
        words[tables.PLAN_CELL_TABLE] = self.address(self.at_cells)
        words[tables.PLAN_LEFT_TABLE] = self.address(self.at_left)
        words[tables.PLAN_FIRST], words[tables.PLAN_CELLS] = state.first, len(state.cells)
        words[tables.PLAN_LEFT], words[tables.PLAN_RETURNED] = len(self.left), self._returned()


def _flags(rows: Sequence[Row], state: State) -> int:
    flags = tables.RELEASE_GIL if sum(row.command.work for row in rows) >= GIL_WORK else 0
    flags |= tables.WRITES_CELLS if state.written else 0
    if any(isinstance(row.command.variant, (Gemm, Gemv)) for row in rows) and blas.set_up(machine.use_blas):
        flags |= tables.USES_BLAS
    return flags
