"""Programs as native code: `load` selects a command for each step and makes one launch of them (`plan`).

Slots are, in this order: inputs, outputs, the arena of scratch buffers, constants. A program whose steps are all native
is one builtin. Steps that are Python functions (`External`, products without BLAS) split it into native segments, which
a Python driver runs in turn; the driver hands results, arena and constants to the segments as further inputs.

With state (`kernels.state`) a launch takes the other inputs only, reads variables where they lie, and changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.errors import KernelError
from dualgraph.kernels import blas, nan
from dualgraph.kernels.failure import written_at_the_end
from dualgraph.kernels.kinds import MatMul
from dualgraph.kernels.llvm.command import Command
from dualgraph.kernels.llvm.loading.machine import slot
from dualgraph.kernels.llvm.loading.plan import GIL_WORK, Late, Row, aligned, launch
from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.llvm.runtime.tables import ARENA_ALIGNMENT
from dualgraph.kernels.llvm.selection import command
from dualgraph.kernels.memory import poison, poison_arena
from dualgraph.kernels.program import Program, Step, View, reads, writes
from dualgraph.kernels.reference.steps import RUN, window
from dualgraph.kernels.state import GRADIENT, State, redirect, with_state
from dualgraph.spec import Spec, contiguous_strides

if TYPE_CHECKING:
    from dualgraph.kernels.memory import Arena

Array = np.ndarray[Any, Any]
Result = Array | tuple[Array, ...] | int | None
Observer = Callable[[int, Mapping[int, Array]], None]


def is_native(step: Step) -> bool:
    """Is the step machine code? Python functions are not, nor products that BLAS does not know."""
    if isinstance(step.kernel, MatMul):
        return blas.gemm(step.kernel.dtype) is not None
    return not step.kernel.outside


def _without_one_nan(step: Step) -> Step:
    assert isinstance(step.kernel, MatMul)
    return replace(step, kernel=replace(step.kernel, one_nan=False))


class Loaded:
    """A program ready to run. `launch(*arrays)` takes one exact ndarray per input, of the dtype and shape declared.

    It returns fresh arrays (one, or a tuple; None for no outputs), or, where a check failed, the int of its step. Only
    the data pointers of the inputs are used; steps may write into them. With state, `launch` takes the inputs that no
    cell stands for, and returns the outputs that are not left in objects.
    """

    def __init__(
        self, program: Program, arena: Arena | None = None, state: State | None = None, poisoned: bool = False
    ):
        self.program, self.poisoned = program, poisoned
        _check(program)
        self._offsets, self._arena_bytes = _scratch(program, arena)
        self._slots = _slots(program)
        unseen = nan.unseen_products(program)
        steps = [_without_one_nan(s) if number in unseen else s for number, s in enumerate(program.steps)]
        self.commands: tuple[Command | None, ...] = tuple(
            command(step, self._locate) if is_native(step) else None for step in steps
        )
        """Per step its variant, arguments, units and work; None for a step that is a Python function."""
        work = sum(found.work for found in self.commands if found is not None)
        self.releases_gil = None in self.commands or work >= GIL_WORK
        """Whether other Python threads may run during a launch."""
        self._stepwise: list[Callable[..., Any]] | None = None
        self.state = state
        self.launch: Callable[..., Any]
        self._native_state = state is not None and not state.apart and None not in self.commands
        if state is None or self._native_state:
            self.launch = self._driver() if None in self.commands else self._whole(state)
        else:
            run = self._driver() if None in self.commands else self._whole(None)
            self.launch = with_state(run, state, len(program.outputs))

    def redirect(self, number: int, receiver: Any) -> Any:
        """See `state.redirect`: natively, the receivers are rows of the launch's plan."""
        assert self.state is not None
        before = redirect(self.state, number, receiver)
        if self._native_state:
            words = self.launch.__self__.view(np.ndarray)  # type: ignore[attr-defined]
            table = (int(words[tables.PLAN_LEFT_TABLE]) - words.ctypes.data) // words.itemsize
            words[table + number * tables.LEFT_WORDS + tables.LEFT_SLOT] = slot(receiver, GRADIENT)
        return before

    def _late(self, state: State | None) -> Late:
        if state is None:
            return Late()
        late = written_at_the_end(self.program)
        cells = enumerate(self.program.inputs[state.first :])
        outputs = enumerate(self.program.outputs)
        return Late(frozenset(n for n, b in cells if b in late), frozenset(n for n, b in outputs if b in late))

    def _locate(self, buffer: int) -> tuple[int, int]:
        slot = self._slots.get(buffer)
        if slot is not None:
            return slot, 0
        return len(self.program.inputs) + len(self.program.outputs), self._offsets[buffer]

    def _whole(self, state: State | None) -> Callable[..., Any]:
        """The program as one builtin."""
        program, arena = self.program, self._arena()
        run = launch(
            _rows(enumerate(self.commands)),
            len(program.inputs),
            [program.buffers[buffer] for buffer in program.outputs],
            arena,
            list(program.constants.values()),
            state,
            self._late(state),
        )
        if not self.poisoned:
            return run

        def poisoned(*arrays: Array) -> Any:
            self._poison(arena)
            return run(*arrays)

        return poisoned

    def _arena(self) -> Array:
        """New scratch memory; it begins at the first multiple of `ARENA_ALIGNMENT`."""
        arena = np.empty(self._arena_bytes + ARENA_ALIGNMENT, np.uint8)
        if self.poisoned:
            self._poison(arena)
        return arena

    def _poison(self, arena: Array) -> None:
        poison_arena(aligned(arena)[: self._arena_bytes], self.program, self._offsets)

    # ---- programs with Python steps ------------------------------------------------------------------------------

    def _driver(self) -> Callable[..., Result]:
        program = self.program
        constants = tuple(program.constants.values())
        # Results, arena and constants are arguments of a segment; their order is that of the slots.
        arguments = len(program.inputs) + len(program.outputs) + 1 + len(constants)
        stages: list[tuple[Callable[..., Any] | None, int]] = []
        for native, group in groupby(enumerate(self.commands), key=lambda item: item[1] is not None):
            numbered = list(group)
            if native:
                stages.append((launch(_rows(numbered), arguments), -1))
            else:
                stages.extend((None, number) for number, _ in numbered)
        scratch = [b for b in self._offsets if any(_touches(program.steps[n], b) for _, n in stages if n >= 0)]

        def run(*arrays: Array) -> Result:
            self._expect(arrays)
            outputs = tuple(_empty(program.buffers[buffer]) for buffer in program.outputs)
            arena = aligned(self._arena())
            memory = dict(program.constants)
            memory.update(zip(program.inputs, arrays, strict=True))
            memory.update(zip(program.outputs, outputs, strict=True))
            for buffer in scratch:
                memory[buffer] = window(arena[self._offsets[buffer] :], _whole(buffer, program.buffers[buffer]))
            for segment, number in stages:
                if segment is not None:
                    failed = segment(*arrays, *outputs, arena, *constants)
                    if failed is not None:
                        return int(failed)
                else:
                    step = program.steps[number]
                    if not _run_python(step, memory):
                        return number
            return _result(outputs)

        return run

    def _expect(self, arrays: Sequence[Array]) -> None:
        if len(arrays) != len(self.program.inputs):
            raise TypeError(
                f"got {len(arrays)} arrays; the program takes {len(self.program.inputs)}; pass one array for each of "
                "its inputs"
            )
        for number, array in enumerate(arrays):
            if type(array) is not np.ndarray:
                raise TypeError(
                    f"got an object that is not a numpy.ndarray as input {number}; a launch takes exact ndarrays only; "
                    "convert it with numpy.asarray"
                )

    # ---- one step at a time --------------------------------------------------------------------------------------

    def stepwise(self, arrays: Sequence[Array], observe: Observer | None = None) -> Result:
        """Like `launch`, one step at a time, each buffer in memory of its own.

        After each step `observe(step, {buffer: array})` sees the buffers it wrote, whole. They are live: copy what is
        to be kept.
        """
        program = self.program
        self._expect(arrays)
        if self._stepwise is None:
            self._stepwise = [self._single(step) for step in program.steps]
        memory = dict(program.constants)
        memory.update(zip(program.inputs, arrays, strict=True))
        for buffer, spec in enumerate(program.buffers):
            if buffer not in memory:
                memory[buffer] = _empty(spec)
                if self.poisoned:
                    poison(memory[buffer])
        every = [memory[buffer] for buffer in range(len(program.buffers))]
        for number, (step, run) in enumerate(zip(program.steps, self._stepwise, strict=True)):
            good = _run_python(step, memory) if self.commands[number] is None else run(*every) is None
            if not good:
                return number
            if observe is not None:
                observe(number, {buffer: memory[buffer] for buffer in sorted(writes(step))})
        return _result(tuple(memory[buffer] for buffer in program.outputs))

    def _single(self, step: Step) -> Callable[..., Any]:
        """One step as a launch that takes every buffer of the program."""
        if not is_native(step):
            return _never
        rows = _rows([(0, command(step, lambda buffer: (buffer, 0)))])
        return launch(rows, len(self.program.buffers))


def _never(*arrays: Array) -> None:
    raise AssertionError("a Python step has no native form")


def _run_python(step: Step, memory: dict[int, Array]) -> bool:
    with np.errstate(all="ignore"):
        return RUN[type(step.kernel)](step.kernel, step, memory)


def _result(outputs: tuple[Array, ...]) -> Result:
    return None if not outputs else outputs[0] if len(outputs) == 1 else outputs


def _empty(spec: Spec) -> Array:
    return np.empty(spec.shape, NUMPY_DTYPES[spec.dtype])


def _whole(buffer: int, spec: Spec) -> View:
    return View(buffer, spec.shape, contiguous_strides(spec.shape), 0, spec.dtype)


def _touches(step: Step, buffer: int) -> bool:
    return buffer in reads(step) or buffer in writes(step)


def _check(program: Program) -> None:
    kinds = (*program.inputs, *program.outputs, *program.constants)
    if len(set(kinds)) != len(kinds):
        raise KernelError(
            f"got a program with inputs {program.inputs}, outputs {program.outputs} and constants "
            f"{list(program.constants)}; a buffer is one of these, once; copy it into a buffer of its own"
        )


def _scratch(program: Program, arena: Arena | None) -> tuple[dict[int, int], int]:
    """Byte offset of each scratch buffer in the arena, and its size."""
    outside = {*program.inputs, *program.outputs, *program.constants}
    offsets = dict(arena.offsets) if arena is not None else {}
    size = arena.size if arena is not None else 0
    for buffer, spec in enumerate(program.buffers):
        if buffer not in outside and buffer not in offsets:
            size = -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
            offsets[buffer] = size
            size += spec.nbytes
    return offsets, -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT


def _slots(program: Program) -> dict[int, int]:
    first = [*program.inputs, *program.outputs]
    slots = {buffer: slot for slot, buffer in enumerate(first)}
    slots.update((buffer, len(first) + 1 + number) for number, buffer in enumerate(program.constants))
    return slots


def _rows(numbered: Iterable[tuple[int, Command | None]]) -> list[Row]:
    """The commands that have something to do."""
    return [Row(found, number) for number, found in numbered if found is not None and found.units > 0]


def load(program: Program, arena: Arena | None = None, state: State | None = None, *, poisoned: bool = False) -> Loaded:
    """A program as native code. Without an arena each scratch buffer has memory of its own."""
    return Loaded(program, arena, state, poisoned)


__all__ = ["Loaded", "load"]
