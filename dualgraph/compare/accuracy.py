"""Training to the end in both modes: the same accuracy, because the same bits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualgraph import no_grad, static
from dualgraph.compare.arms import Arm, specs
from dualgraph.compare.identity import digest_of
from dualgraph.compare.workloads import Workload


@dataclass(frozen=True)
class Training:
    """An arm after its training. `digest`: of gradients, parameters, optimiser state, scores of held-out examples."""

    accuracy: float  # on held-out examples
    loss: float  # of the last step
    steps: int
    seconds: float
    digest: str


def train(arm: Arm, workload: Workload) -> Training:
    """All epochs of the workload; the scores are computed in the arm's own mode."""
    instance = arm.instance
    assert instance.held_out is not None
    images, labels = instance.held_out
    with arm.turn():
        steps = workload.epochs * len(instance.batches)
        start = time.perf_counter()
        for _ in range(steps):
            loss = arm.step()
        seconds = time.perf_counter() - start
        with no_grad():
            forward = instance.forward
            if arm.executable is not None:
                forward = static.compile(forward, *specs((images,)))
            scores = np.asarray(forward(images))
        digest = digest_of([*arm.values(), ("scores", scores)])
    right: Any = scores.argmax(axis=1) == np.asarray(labels)
    return Training(float(right.mean()), float(loss), steps, seconds, digest)
