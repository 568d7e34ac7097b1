"""The reference provider: a plain NumPy interpreter of programs, slow and obvious: the oracle of the native kernels.

`scalars.NUMPY` is the meaning of every scalar instruction, `folds.fold` of every reduction, `steps.RUN` of every kernel
kind. What a value is depends on its operands alone, never on how long an array is or how it lies in memory: so operands
are copied to row-major memory before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.kernels.memory import poison, poison_arena
from dualgraph.kernels.program import Program, View, writes
from dualgraph.kernels.reference.scalars import NUMPY, Array
from dualgraph.kernels.reference.steps import RUN, Memory, window
from dualgraph.kernels.state import State, redirect, with_state
from dualgraph.spec import Spec, contiguous_strides

if TYPE_CHECKING:
    from dualgraph.kernels.memory import Arena

Result = Array | tuple[Array, ...] | int | None
Observer = Callable[[int, Mapping[int, Array]], None]


class Loaded:
    """A program ready to run. `launch` runs all steps; steps may write into the arrays given, but not into state.

    One output gives a fresh ndarray, several a tuple, none None; a failed check its step's index.
    """

    def __init__(
        self, program: Program, arena: Arena | None = None, state: State | None = None, poisoned: bool = False
    ):
        self.program, self.arena, self.poisoned = program, arena, poisoned
        self.state = state
        self.launch: Callable[..., Result] = self._launch
        if state is not None:
            self.launch = with_state(self._launch, state, len(program.outputs))

    def redirect(self, number: int, receiver: Any) -> Any:
        """See `state.redirect`."""
        assert self.state is not None
        return redirect(self.state, number, receiver)

    def _launch(self, *arrays: Array) -> Result:
        return self.stepwise(arrays)

    def stepwise(self, arrays: Sequence[Array], observe: Observer | None = None) -> Result:
        """Like `launch`; after each step shows the buffers it wrote, whole. They are live: copy what is to be kept."""
        memory = self._memory(arrays)
        with np.errstate(all="ignore"):
            for number, step in enumerate(self.program.steps):
                if not RUN[type(step.kernel)](step.kernel, step, memory):
                    return number
                if observe is not None:
                    observe(number, {buffer: memory[buffer] for buffer in sorted(writes(step))})
        outputs = tuple(memory[buffer] for buffer in self.program.outputs)
        return None if not outputs else outputs[0] if len(outputs) == 1 else outputs

    def _memory(self, arrays: Sequence[Array]) -> Memory:
        program = self.program
        memory = dict(program.constants) | dict(zip(program.inputs, arrays, strict=True))
        scratch = np.empty(self.arena.size, np.uint8) if self.arena is not None else None
        if self.poisoned and self.arena is not None and scratch is not None:
            poison_arena(scratch, program, self.arena.offsets)
        for buffer, spec in enumerate(program.buffers):
            if buffer in memory:
                continue
            if self.arena is not None and scratch is not None and buffer in self.arena.offsets:
                memory[buffer] = window(scratch[self.arena.offsets[buffer] :], _whole(buffer, spec))
            else:
                memory[buffer] = np.empty(spec.shape, NUMPY_DTYPES[spec.dtype])
                if self.poisoned:
                    poison(memory[buffer])
        return memory


def load(program: Program, arena: Arena | None = None, state: State | None = None, *, poisoned: bool = False) -> Loaded:
    """A program as something to launch. With an arena, scratch buffers lie where it says: this tests the plan."""
    return Loaded(program, arena, state, poisoned)


def _whole(buffer: int, spec: Spec) -> View:
    return View(buffer, spec.shape, contiguous_strides(spec.shape), 0, spec.dtype)


__all__ = ["NUMPY", "Loaded", "Observer", "Result", "load"]
