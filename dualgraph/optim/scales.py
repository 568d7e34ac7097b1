"""The scalars of an update, computed in float64 by one small op for all parameters of a group."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgraph.core.mode import bind
from dualgraph.ops.composite import composite
from dualgraph.ops.creation import asarray
from dualgraph.ops.elementwise import astype, power, sqrt
from dualgraph.ops.registry import register


def _counted(count: Any, *, absent: tuple[int, ...]) -> Any:
    if not absent:
        return count + 1
    return count + asarray(np.array([number not in absent for number in range(count.shape[0])], np.int64))


def adam_scales(
    lr: Any, count: Any, *, absent: tuple[int, ...], beta1: float, beta2: float, decay: float
) -> tuple[Any, ...]:
    count = _counted(count, absent=absent)
    t = astype(count, "float64")
    rates = lr / (1.0 - power(beta1, t))
    roots = sqrt(1.0 - power(beta2, t))
    return (count, rates, roots, 1.0 - lr * decay) if decay else (count, rates, roots)


COUNTED = register(composite("counted", _counted))
ADAM_SCALES = register(composite("adam_scales", adam_scales))


def counted(count: Any, absent: tuple[int, ...]) -> Any:
    """The updates made of each parameter, after one more of all but those absent."""
    return bind(COUNTED, count, absent=absent)
