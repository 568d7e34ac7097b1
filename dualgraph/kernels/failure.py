"""What to say when a kernel's check failed: the same words in both modes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualgraph.errors import RangeError
from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, ScatterAdd, ScatterAddAlong
from dualgraph.kernels.program import Step, View


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
