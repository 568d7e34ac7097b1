"""Are two arms equal, bit for bit? They step side by side; after each step everything they hold is compared.

Outputs, the gradient of every parameter, parameters, buffers, optimiser state and random numbers; by their bytes, so
signed zeros and the payload of a NaN count. The comparison stops at the first difference and says where it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualgraph import tree
from dualgraph.bits import differing, same_bits
from dualgraph.compare.arms import Arm, eager_arm, mixed_arm, static_arm
from dualgraph.compare.workloads import Workload
from dualgraph.core.tensor import Tensor

Array = np.ndarray[Any, Any]
STEPS = 20
LEVELS = ("none", "exact")  # those that promise equal bits


@dataclass(frozen=True)
class Difference:
    """The first place where two arms differ."""

    step: int
    what: str
    elements: int  # that differ
    size: int
    index: tuple[int, ...]  # of the first of them
    values: tuple[str, str]
    arms: tuple[str, str]

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"step {self.step}, {self.what}: {self.elements} of {self.size} elements differ; "
            f"{self.what}{place} is {self.values[0]} in {self.arms[0]} and {self.values[1]} in {self.arms[1]}"
        )


@dataclass(frozen=True)
class Identity:
    """The outcome for a pair of arms. `digest`: SHA-256 of all that was compared, as the first arm had it."""

    arms: tuple[str, str]
    steps: int
    compared: int  # arrays
    digest: str
    difference: Difference | None

    @property
    def equal(self) -> bool:
        return self.difference is None


def compare_arms(reference: Arm, other: Arm, steps: int = STEPS) -> Identity:
    """Step both arms side by side until they differ."""
    digest = hashlib.sha256()
    compared = 0
    for number in range(1, steps + 1):
        expected = list(_stepped(reference))
        for (name, x), (_, y) in zip(expected, _stepped(other), strict=True):
            _add(digest, name, x)
            compared += 1
            if not same_bits(x, y):
                arms = reference.name, other.name
                found = _difference(number, name, x, y, arms)
                return Identity(arms, number, compared, digest.hexdigest(), found)
    return Identity((reference.name, other.name), steps, compared, digest.hexdigest(), None)


def digest_of(values: Iterable[tuple[str, Array]]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, x in values:
        _add(digest, name, x)
    return digest.hexdigest()


def _add(digest: Any, name: str, x: Array) -> None:
    digest.update(f"{name} {x.dtype} {x.shape}\n".encode())
    digest.update(x.tobytes())


def _stepped(arm: Arm) -> Iterator[tuple[str, Array]]:
    with arm.turn():
        outputs = arm.step()
        found = [x for x in tree.flatten(outputs)[0] if isinstance(x, Tensor)]
        values = [(f"output {n}" if len(found) > 1 else "output", np.asarray(x)) for n, x in enumerate(found)]
        values += arm.values()
    return iter(values)


def _difference(step: int, name: str, x: Array, y: Array, arms: tuple[str, str]) -> Difference:
    if x.shape != y.shape or x.dtype != y.dtype:
        return Difference(step, name, x.size, x.size, (), (f"{x.dtype} {x.shape}", f"{y.dtype} {y.shape}"), arms)
    places = differing(x, y)
    index = tuple(int(i) for i in np.unravel_index(places[0], x.shape)) if x.shape else ()
    return Difference(step, name, len(places), x.size, index, (repr(x[index].item()), repr(y[index].item())), arms)


def pairs(workload: Workload, mixing: bool) -> Iterator[tuple[str, Callable[[], Arm]]]:
    """What each is compared with eager mode: a label and a way to make the arm."""
    for level in LEVELS:
        yield f"static {level}", lambda level=level: static_arm(workload, level, name=f"static ({level})")  # type: ignore[misc]
    if mixing:
        yield "eager, then static", lambda: mixed_arm(workload, STEPS // 2)


def check_workload(
    workload: Workload, steps: int = STEPS, mixing: bool = True, on: Callable[[str], None] = lambda label: None
) -> dict[str, Identity]:
    """The identity of a workload at every level, and of a training that changes its mode half-way."""
    found = {}
    for label, make in pairs(workload, mixing):
        on(label)
        found[label] = compare_arms(eager_arm(workload), make(), steps)
    return found
