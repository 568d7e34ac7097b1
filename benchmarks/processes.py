"""Implementations in processes of their own, timed in turns, so that what disturbs one disturbs the others as well."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PAUSE = 0.02  # seconds before a sample: the last one's threads stop spinning


class Implementation(NamedTuple):
    """A name for tables, the module and its arguments, and whether the peers' interpreter runs it."""

    name: str
    module: str
    arguments: tuple[str, ...]
    peer: bool = False


class Failed(Exception):
    """A worker answered with an error, or ended."""


@dataclass
class Settings:
    """How to measure; every script has these as options."""

    python: str = sys.executable  # interpreter with torch and jax
    rounds: int = 15
    seconds: float = 0.2  # of a sample
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def environment(self, cache: str) -> dict[str, str]:
        """Caches of compiled code start empty, and all libraries use the same number of threads."""
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DUALGRAPH_NUM_THREADS")
        return {
            **os.environ,
            **dict.fromkeys(variables, str(self.threads)),
            "PYTHONPATH": path,
            "DUALGRAPH_CACHE_DIR": os.path.join(cache, "dualgraph"),
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor"),
        }


class Worker:
    """One implementation in a process."""

    def __init__(self, implementation: Implementation, settings: Settings, cache: str):
        self.name = implementation.name
        python = settings.python if implementation.peer else sys.executable
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), implementation.module, *implementation.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=settings.environment(cache),
        )
        self.steps: dict[str, int] = {}
        self.facts: dict[str, Any] = {}

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name}: the process has ended") from None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name}: the process ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Failed(f"{self.name}: {found['error']}")
        return found

    def run(self, case: str, steps: int) -> dict[str, Any]:
        return self.ask(do="run", case=case, steps=steps)

    def calibrate(self, case: str, seconds: float) -> None:
        """Steps for a sample of the wanted length."""
        steps, took = 1, self.run(case, 1)["seconds"]
        took = self.run(case, 1)["seconds"]
        while took < seconds / 2:
            steps = max(steps + 1, min(steps * 20, round(steps * seconds / max(took, 1e-9))))
            took = self.run(case, steps)["seconds"]
        self.steps[case] = max(1, round(steps * seconds / took))

    def sample(self, case: str) -> float:
        """Seconds per step, from the start of the case, after a few steps that are not timed."""
        time.sleep(PAUSE)
        self.ask(do="reset", case=case)
        steps = self.steps[case]
        self.run(case, max(1, steps // 10))
        seconds: float = self.run(case, steps)["seconds"] / steps
        return seconds

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def workers(implementations: Sequence[Implementation], settings: Settings) -> Iterator[list[Worker]]:
    """All workers, started one after the other; those that cannot start are named on stderr and left out."""
    with tempfile.TemporaryDirectory(prefix="dualgraph-benchmark-") as directory:
        running: list[Worker] = []
        try:
            for number, implementation in enumerate(implementations):
                worker = Worker(implementation, settings, os.path.join(directory, str(number)))
                running.append(worker)
                say(f"  starting {worker.name}")
                try:
                    worker.facts = worker.ask(do="start")
                except Failed as failure:
                    say(f"  left out: {failure}")
                    running.remove(worker)
                    worker.stop()
            yield running
        finally:
            for worker in running:
                worker.stop()


def in_turns(running: Sequence[Worker], cases: Sequence[str], settings: Settings) -> dict[str, dict[str, list[float]]]:
    """case -> implementation -> seconds per step of each round; A B C, A B C, …"""
    samples: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        able = [w for w in running if case in w.facts["cases"] and _calibrated(w, case, settings.seconds)]
        samples[case] = {w.name: [] for w in able}
        for _ in range(settings.rounds):
            for worker in able:
                samples[case][worker.name].append(worker.sample(case))
        say(f"  {case}: " + ", ".join(f"{name} {micro(median(s))}" for name, s in samples[case].items()))
    return samples


def _calibrated(worker: Worker, case: str, seconds: float) -> bool:
    try:
        worker.calibrate(case, seconds)
    except Failed as failure:
        say(f"  {case} left out: {failure}")
        return False
    return True


median: Callable[[Sequence[float]], float] = statistics.median


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0.0, 0.0, 0.0)
    return high - low


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as long: the median of the ratios of a round."""
    return median([s / f for s, f in zip(slow, fast, strict=True)])


def times_as_fast(arms: dict[str, list[float]], peer: str) -> str:
    """How many times as fast as a peer dualgraph is, where both were measured."""
    return f"{ratio(arms[peer], arms['dualgraph']):.2f}" if {peer, "dualgraph"} <= arms.keys() else "-"


def micro(seconds: float) -> str:
    """Microseconds, in three digits."""
    us = seconds * 1e6
    return f"{us:.0f}" if us >= 100 else f"{us:.1f}" if us >= 10 else f"{us:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
