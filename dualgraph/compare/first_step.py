"""The cost of the first step, in a process of its own, with a cold and with a warm cache of machine code.

`python -m dualgraph.compare.first_step WORKLOAD MODE` prints it as JSON. `measure` runs that in fresh processes: the
first one finds an empty cache directory, the next one what the first has left.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dualgraph
from dualgraph import static
from dualgraph.compare.arms import specs
from dualgraph.compare.workloads import find
from dualgraph.errors import KernelError

MODES = ("eager", "static")
STAGES = ("define", "differentiate", "optimise", "generate")
FirstStep = dict[str, float]


def first_step(name: str, mode: str) -> FirstStep:
    """Seconds of the first step in this process; the model, its optimiser and the data are there already.

    `start` is what the first kernel of a process costs, whichever it is: it is the same in both modes and no part of
    `total`.
    """
    start = time.perf_counter()
    dualgraph.floor(dualgraph.tensor(0.5))  # no workload uses it
    found: FirstStep = {"start": time.perf_counter() - start}
    instance = find(name).build()
    batch = instance.batches[0]
    start = time.perf_counter()
    step = instance.step
    if mode == "static":
        step = static.compile(instance.step, *specs(batch))
        found |= {stage: step.times[stage] for stage in STAGES}
    compiled = time.perf_counter()
    step(*batch)
    end = time.perf_counter()
    return {**found, "run": end - compiled, "total": end - start}


def measure(name: str, repeats: int) -> dict[str, dict[str, FirstStep]]:
    """cache ("cold", "warm") -> mode -> stage -> seconds; medians of `repeats` processes each."""
    found: dict[str, dict[str, list[FirstStep]]] = {cache: {mode: [] for mode in MODES} for cache in ("cold", "warm")}
    for _ in range(repeats):
        for mode in MODES:
            with tempfile.TemporaryDirectory(prefix="dualgraph-first-step-") as directory:
                for cache in ("cold", "warm"):
                    found[cache][mode].append(_in_process(name, mode, directory))
    return {cache: {mode: _medians(runs) for mode, runs in modes.items()} for cache, modes in found.items()}


def _in_process(name: str, mode: str, cache: str) -> FirstStep:
    # The same dualgraph as this process has, installed or not.
    here = str(Path(dualgraph.__file__).resolve().parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "DUALGRAPH_CACHE_DIR": cache, "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "dualgraph.compare.first_step", name, mode]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise KernelError(
            f"the process that measures the first step of {name} ({mode}) ended with {result.returncode}; it must "
            f"print its times; run it by hand: {' '.join(command[1:])}\n{result.stderr}"
        )
    times: FirstStep = json.loads(result.stdout)
    return times


def _medians(runs: list[FirstStep]) -> FirstStep:
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


def break_even(first_eager: float, first_static: float, eager: float, static: float) -> int | None:
    """The number of steps from which on static has taken no more time than eager in all; None for never.

    >>> break_even(first_eager=0.1, first_static=0.5, eager=0.003, static=0.001)
    201
    """
    extra, gain = first_static - first_eager, eager - static
    if extra <= 0:
        return 1 if gain >= 0 else None
    return None if gain <= 0 else 1 + math.ceil(extra / gain)


def main(arguments: list[str]) -> Any:
    name, mode = arguments
    print(json.dumps(first_step(name, mode)))


if __name__ == "__main__":
    main(sys.argv[1:])
