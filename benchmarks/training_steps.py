"""Training steps of small models: both modes of dualgraph, PyTorch eager and compiled, JAX, in turns.

python benchmarks/training_steps.py [--python PYTHON_WITH_TORCH_AND_JAX] [--rounds N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from typing import Any

import options
import workloads
from processes import Implementation, Settings, Worker, in_turns, median, micro, ratio, say, spread, table, workers

ARMS = (
    Implementation("dualgraph static", "with_dualgraph", ("static",)),
    Implementation("dualgraph eager", "with_dualgraph", ("eager",)),
    Implementation("PyTorch eager", "with_torch", ("eager",), peer=True),
    Implementation("PyTorch eager, fused optimiser", "with_torch", ("eager-fused",), peer=True),
    Implementation("torch.compile", "with_torch", ("compile",), peer=True),
    Implementation("torch.compile, fused optimiser", "with_torch", ("compile-fused",), peer=True),
    Implementation("torch.compile, optimiser too", "with_torch", ("compile-step",), peer=True),
    Implementation("JAX jit", "with_jax", ("jit",), peer=True),
)
EAGER_PEERS = ("PyTorch eager", "PyTorch eager, fused optimiser")
CHECKED_STEPS = 5
TOLERANCE = 1e-4  # of the losses, relative to PyTorch's
PROCESSES = 5  # for times of a fresh process


def measure(name: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """implementation -> its samples (seconds per step) and facts."""
    arms = [arm._replace(arguments=("training_step", name, *arm.arguments)) for arm in ARMS]
    with workers(arms, settings) as running:
        for worker in running:
            _first_steps(worker)
        samples = in_turns(running, ["step"], settings)["step"]
        for worker in running:
            worker.facts.update(worker.ask(do="memory"), samples=samples[worker.name])
        return {worker.name: worker.facts for worker in running}


def _first_steps(worker: Worker) -> None:
    worker.facts["first_s"] = worker.run("step", 1)["seconds"]
    worker.run("step", CHECKED_STEPS - 1)
    worker.facts["loss"] = worker.run("step", 1)["loss"]
    say(f"  {worker.name}: first step {worker.facts['first_s']:.3f} s, loss {worker.facts['loss']:.6f}")


def _best(found: dict[str, dict[str, Any]], names: Any) -> str | None:
    return min((n for n in names if n in found), key=lambda n: median(found[n]["samples"]), default=None)


def step_table(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Times per step, against the best of PyTorch's eager variants and the best compiled one."""
    eager = _best(found, EAGER_PEERS)
    static = _best(found, [a.name for a in ARMS if a.peer and a.name not in EAGER_PEERS])
    expected = found["PyTorch eager"]["loss"] if "PyTorch eager" in found else None
    rows = []
    for arm, facts in found.items():
        s = facts["samples"]
        loss = f"{facts['loss']:.6f}"
        if expected is not None and abs(facts["loss"] - expected) > TOLERANCE * abs(expected):
            loss += " differs!"
        faster = [f"{ratio(found[peer]['samples'], s):.2f}" if peer else "-" for peer in (eager, static)]
        rows.append([arm, micro(median(s)), micro(spread(s)), *faster, loss, f"{facts['peak_mib']:.0f}"])
    head = [
        "",
        "µs per step",
        "quartiles apart",
        "times as fast as PyTorch eager at its best",
        "as the best compiled peer",
        f"loss after {CHECKED_STEPS} steps",
        "peak memory, MiB",
    ]
    note = f"Best eager peer: {eager}; best compiled peer: {static}.\n" if eager and static else ""
    return f"**{name}**: {workloads.WORKLOADS[name]().about}. {note}\n{table(head, rows)}"


IMPORT = """
import sys, time
start = time.perf_counter()
import dualgraph
print(time.perf_counter() - start, any(name in sys.modules for name in ("cupy", "llvmlite", "networkx")))
"""


def first_step_table(found: dict[str, dict[str, dict[str, Any]]], settings: Settings) -> str:
    """Seconds of the first step; of dualgraph's with an empty and with a filled cache of machine code."""
    rows = []
    for name, arms in found.items():
        for arm in ARMS:
            if arm.peer and arm.name in arms:
                rows.append([f"{name}: {arm.name}", f"{arms[arm.name]['first_s']:.3f}", "-"])
            elif arm.name in arms:
                rows.append([f"{name}: {arm.name}", *(f"{s:.3f}" for s in _cold_and_warm(name, arm, settings))])
    with tempfile.TemporaryDirectory() as directory:
        lines = [
            subprocess.run(
                [sys.executable, "-c", IMPORT],
                env=settings.environment(directory),
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for _ in range(PROCESSES)
        ]
    seconds, heavy = statistics.median(float(s) for s, _ in lines), lines[0][1] == "True"
    note = "loads" if heavy else "loads none of"
    return (
        table(["first step, seconds", "empty cache", "filled cache"], rows)
        + f"\n\n`import dualgraph`: {seconds:.3f} s; it {note} cupy, llvmlite, networkx."
    )


def _cold_and_warm(name: str, arm: Implementation, settings: Settings) -> tuple[float, float]:
    """Medians over fresh processes: each cold one finds an empty directory, the warm one what it has left."""
    arm = arm._replace(arguments=("training_step", name, *arm.arguments))
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(PROCESSES):
        with tempfile.TemporaryDirectory(prefix="dualgraph-first-step-") as directory:
            for cache in seconds.values():
                worker = Worker(arm, settings, directory)
                try:
                    worker.ask(do="start")
                    cache.append(worker.run("step", 1)["seconds"])
                finally:
                    worker.stop()
    return statistics.median(seconds["cold"]), statistics.median(seconds["warm"])


def report(settings: Settings) -> dict[str, str]:
    """The tables, by the name of their place in `docs/performance.md`."""
    found = {}
    for name in workloads.WORKLOADS:
        say(f"training step of {name}")
        found[name] = measure(name, settings)
    steps = "\n\n".join(step_table(name, arms) for name, arms in found.items())
    return {"training-steps": steps, "first-step": first_step_table(found, settings)}


if __name__ == "__main__":
    options.show(report, __doc__)
