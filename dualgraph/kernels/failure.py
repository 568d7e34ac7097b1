"""Which steps may fail, and what to say when a check failed: the same words in both modes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualgraph.errors import RangeError
from dualgraph.kernels.kinds import Check, CheckIndex
from dualgraph.kernels.program import Program, Step, View, writes


def searches_call_functions(program: Program) -> bool:
    """Whether finding the words of a failed check, by running the steps again, would call functions from outside again."""
    kernels = [step.kernel for step in program.steps]
    return any(k.outside for k in kernels) and any(k.may_fail and not k.outside for k in kernels)


def check_of(step: Step) -> Check:
    """What a step refuses that failed."""
    found = step.kernel.check(step)
    if found is None:
        raise TypeError(f"{type(step.kernel).__name__} has no check")
    return found


def last_that_may_fail(program: Program) -> int:
    """The number of the last step that may fail, -1 if none: not those that check once more what was checked."""
    last, passed = -1, dict[View, tuple[int, int]]()
    for number, step in enumerate(program.steps):
        check = step.kernel.check(step)
        if check is not None:
            known = passed.get(check.operand)
            if known is None or known[0] < check.low or known[1] > check.high:
                last, passed[check.operand] = number, (check.low, check.high)
        elif step.kernel.may_fail:
            last = number
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
    _, what, low, high = check_of(step)
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
