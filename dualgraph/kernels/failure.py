"""Which steps may fail, and what to say when a check failed: the same words in both modes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualgraph.errors import RangeError
from dualgraph.kernels.kinds import CheckIndex, External, Gather, GatherAlong, Loop, MatMul, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.program import Program, Step, View, writes


def searches_call_functions(program: Program) -> bool:
    """Whether finding the words of a failed check, by running the steps again, would call functions from outside again."""
    kinds = {type(step.kernel) for step in program.steps}
    return External in kinds and bool(kinds - {External, Loop, MatMul})


def checked_operand(step: Step) -> View:
    """The operand whose values a checking step looks at."""
    return step.ins[0] if isinstance(step.kernel, CheckIndex) else step.ins[1]


def bounds(step: Step) -> tuple[str, int, int]:
    """What is checked, and the half-open range it must lie in."""
    kernel = step.kernel
    if isinstance(kernel, CheckIndex):
        return kernel.what, kernel.low, kernel.high
    if isinstance(kernel, (Gather, GatherAlong)):
        n = step.ins[0].shape[1]
    elif isinstance(kernel, (ScatterAdd, ScatterAddAlong)):
        n = step.outs[0].shape[1]
    else:
        raise TypeError(f"{type(kernel).__name__} has no check")
    return "index", -n, n


def last_that_may_fail(program: Program) -> int:
    """The number of the last step that may fail, -1 if none: not those that check once more what was checked."""
    last, passed = -1, dict[View, tuple[int, int]]()
    for number, step in enumerate(program.steps):
        if isinstance(step.kernel, External):
            last = number
        elif not isinstance(step.kernel, (Loop, MatMul)):
            view, (_, low, high) = checked_operand(step), bounds(step)
            known = passed.get(view)
            if known is None or known[0] < low or known[1] > high:
                last, passed[view] = number, (low, high)
        written = writes(step)
        passed = {view: found for view, found in passed.items() if view.buffer not in written}
    return last


def written_at_the_end(program: Program) -> frozenset[int]:
    """The buffers that no step writes to before the last one that may fail."""
    end = last_that_may_fail(program)
    early = {buffer for step in program.steps[: end + 1] for buffer in writes(step)}
    return frozenset(range(len(program.buffers))) - early


def explain(name: str, step: Step, values: np.ndarray[Any, Any]) -> RangeError:
    """The error of a failed check, naming the first bad value."""
    what, low, high = bounds(step)
    by, _, what = what.rpartition(": ")  # a check may name the function that it was made for
    if math.prod(step.domain) == values.size and not isinstance(step.kernel, CheckIndex):
        values = values.reshape(step.domain)  # the user's indices, which kernels see in another shape
    bad = np.argwhere((values < low) | (values >= high))
    found = f"a bad {what}"
    if len(bad):
        position = tuple(int(i) for i in bad[0])
        found = f"{what} {int(values[position])}" + (f" at position {position}" if position else "")
    return RangeError(
        f"{by or name}: got {found}; every {what} must lie in [{low}, {high}); correct the data or the size"
    )
