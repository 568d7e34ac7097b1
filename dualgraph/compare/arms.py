"""An arm: a workload in one mode, with parameters, optimiser state and random numbers of its own.

The random numbers of dualgraph are one stream for the process. An arm takes its own place in it while it runs and puts
the other one back, so that arms can take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import dualgraph as dg
from dualgraph import static
from dualgraph.compare.workloads import Batch, Instance, Workload
from dualgraph.ops.random import DRAW, SEED

if TYPE_CHECKING:
    from dualgraph.types import Level

Array = np.ndarray[Any, Any]


@dataclass
class Arm:
    """`run(*batch)` does one step of `instance`; `number` counts the steps done."""

    name: str
    instance: Instance
    run: Callable[..., Any]
    executable: Any = None
    number: int = 0
    _random: tuple[Array, Array] = field(default_factory=lambda: (SEED.numpy().copy(), DRAW.numpy().copy()))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The process has this arm's random numbers while the context lasts."""
        others = SEED.numpy().copy(), DRAW.numpy().copy()
        _set_random(self._random)
        try:
            yield
        finally:
            self._random = SEED.numpy().copy(), DRAW.numpy().copy()
            _set_random(others)

    def batch(self) -> Batch:
        """The batch of the next step."""
        return self.instance.batches[self.number % len(self.instance.batches)]

    def step(self) -> Any:
        """The next step; what it returns."""
        result = self.run(*self.batch())
        self.number += 1
        return result

    def values(self) -> Iterator[tuple[str, Array]]:
        """What a step leaves behind, by name: gradients, then all variables. Call it in this arm's `turn`."""
        for name, p in self.instance.model.named_parameters():
            yield f"gradient of {name}", np.empty(0) if p.grad is None else p.grad.numpy()
        for name, variable in self.instance.variables():
            yield name, variable.numpy()

    def state(self) -> list[Array]:
        """A copy of all variables, for `reset`."""
        return [np.array(variable.numpy()) for _, variable in self.instance.variables()]

    def reset(self, state: Sequence[Array]) -> None:
        """Back to `state` and to the first batch, without gradients."""
        for (_, variable), value in zip(self.instance.variables(), state, strict=True):
            variable.assign(dg.tensor(value))
        for p in self.instance.model.parameters():
            p.grad = None
        self.number = 0


def _set_random(state: tuple[Array, Array]) -> None:
    for variable, value in zip((SEED, DRAW), state, strict=True):
        variable.assign(dg.tensor(value))


def specs(batch: Batch) -> tuple[static.Spec, ...]:
    """The specs of a batch's tensors."""
    return tuple(static.spec(x.shape, x.dtype) for x in batch)


def eager_arm(workload: Workload) -> Arm:
    """The step as it is."""
    instance = workload.build()
    return Arm("eager", instance, instance.step)


def static_arm(
    workload: Workload, optimize: Level = "exact", passes: Sequence[str] | None = None, name: str = "static"
) -> Arm:
    """The step compiled."""
    instance = workload.build()
    compiled = static.compile(instance.step, *specs(instance.batches[0]), optimize=optimize, passes=passes)
    return Arm(name, instance, compiled, compiled.executable)


def mixed_arm(workload: Workload, eager_steps: int) -> Arm:
    """The first steps eager, the rest compiled, on the same parameters."""
    arm = static_arm(workload, name=f"{eager_steps} eager, then static")
    compiled = arm.run
    arm.run = lambda *batch: (arm.instance.step if arm.number < eager_steps else compiled)(*batch)
    return arm
