"""Timing of arms that take turns, so that what disturbs one disturbs the others as well.

In every round each arm is timed once, in an order drawn anew. All arms do the same number of steps from the same state.
What is reported: the median of each arm, and the median of the ratios within a round, with a bootstrap interval.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
RESAMPLES = 2000
SLOWEST = 8.0  # a sample takes at most so many times the wanted seconds, however slow its arm
ORDER_SEED = 20  # of the order of arms and of the bootstrap: the same data give the same interval


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float  # wanted for a sample of the fastest arm
    warmups: int  # samples of each arm before the first round


FULL = Effort(rounds=21, seconds=0.02, warmups=2)
QUICK = Effort(rounds=15, seconds=0.004, warmups=1)


class Timed(NamedTuple):
    """Something to time: `run(n)` does n steps, after `prepare()`, and `finish()` looks at the outcome."""

    run: Callable[[int], None]
    prepare: Callable[[], None] = lambda: None
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Samples:
    """Seconds per step: an array of one entry per round for each arm."""

    seconds: Mapping[str, Array]
    steps: int  # in a sample

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))

    def quartiles(self, name: str) -> tuple[float, float]:
        low, high = np.percentile(self.seconds[name], (25, 75))
        return float(low), float(high)

    def ratio(self, slow: str, fast: str) -> Ratio:
        return paired_ratio(self.seconds[slow], self.seconds[fast])


class Ratio(NamedTuple):
    """How many times as long one arm takes as the other, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """Which arm is faster: "static", "eager" or "same", where the ratio is eager / static."""
        return "static" if self.low > 1 else "eager" if self.high < 1 else "same"

    def __str__(self) -> str:
        if self.word == "same":
            return f"same [{self.low:.2f}, {self.high:.2f}]"
        value, low, high = (
            (self.value, self.low, self.high) if self.low > 1 else (1 / self.value, 1 / self.high, 1 / self.low)
        )
        digits = 2 if value < 10 else 1
        return f"{self.word} {value:.{digits}f}x faster [{low:.{digits}f}, {high:.{digits}f}]"


def paired_ratio(slow: Array, fast: Array) -> Ratio:
    """The median of the ratios of a round, and its percentile bootstrap over rounds.

    >>> str(paired_ratio(np.array([2.0, 2.2, 2.1]), np.array([1.0, 1.0, 1.0])))
    'static 2.10x faster [2.00, 2.20]'
    """
    ratios = slow / fast
    draws = np.random.Generator(np.random.Philox(ORDER_SEED)).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def interleaved(arms: Mapping[str, Timed], effort: Effort, on: Callable[[int], None] = lambda done: None) -> Samples:
    """Time all arms in turns."""
    steps = calibrated(list(arms.values()), effort.seconds)
    for arm in arms.values():
        for _ in range(effort.warmups):
            sample(arm, steps)
    rng = np.random.Generator(np.random.Philox(ORDER_SEED))
    names = list(arms)
    seconds: dict[str, Array] = {name: np.empty(effort.rounds) for name in names}
    for number in range(effort.rounds):
        for which in rng.permutation(len(names)):
            name = names[which]
            seconds[name][number] = sample(arms[name], steps) / steps
        on(number + 1)
    return Samples(seconds, steps)


def sample(arm: Timed, steps: int) -> float:
    """Seconds for `steps` steps; preparing and looking at the outcome are outside."""
    arm.prepare()
    gc.collect()
    start = time.perf_counter()
    arm.run(steps)
    elapsed = time.perf_counter() - start
    arm.finish()
    return elapsed


def calibrated(arms: Sequence[Timed], seconds: float) -> int:
    """Steps per sample: enough for the fastest arm, not too many for the slowest."""
    each = [_seconds_per_step(arm) for arm in arms]
    return max(1, round(min(seconds / min(each), SLOWEST * seconds / max(each))))


def _seconds_per_step(arm: Timed) -> float:
    sample(arm, 1)  # the first step prepares kernels
    steps, elapsed = 1, 0.0
    while elapsed < 0.002:  # the clock and the start of a sample are far below this
        elapsed = sample(arm, steps)
        steps *= 2
    return elapsed / (steps // 2)
