"""Seconds to define, differentiate, optimise and generate large graphs, with an empty cache of machine code.

A chain is calls one after the other; a diamond mesh widens from one value to many and narrows to one again, each call
combining two neighbours of the row before, so that the number of paths through it grows exponentially.

    python benchmarks/compile_time.py [--largest CALLS]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

import options
from processes import Settings, say, table

STAGES = ("define", "differentiate", "optimise", "generate")
SIZES = {"chain": (1000, 2000, 5000, 10000), "diamond": (500, 1000, 2000, 5000)}
ELEMENTS = 64


def chain(x: Any, w: Any, calls: int) -> Any:
    """`calls` elementwise calls, one after the other; the values stay in (-1, 1)."""
    import dualgraph as dg

    cycle = (lambda x: x * w, lambda x: x + w, dg.tanh, lambda x: x * 0.5, dg.sin)
    for number in range(calls):
        x = cycle[number % len(cycle)](x)
    return x


def diamond(x: Any, w: Any, calls: int) -> Any:
    """Rows of 1, 2, … m, … 2, 1 calls, with m² as near to `calls` as can be."""
    import dualgraph as dg

    half = round(calls**0.5)
    combine = (dg.multiply, dg.maximum, dg.subtract)
    row = [x * w]
    for level in range(1, half):
        inner = [combine[level % 3](a, b) for a, b in pairwise(row)]
        row = [row[0] * w, *inner, row[-1] * 0.5]
    for level in range(half - 1):
        row = [combine[level % 3](a, b) for a, b in pairwise(row)]
    return row[0]


def one(shape: str, calls: int) -> dict[str, float]:
    """The stages of one graph, in this process."""
    import dualgraph as dg
    from dualgraph import nn, static

    w = nn.Parameter([0.9] * ELEMENTS)
    build = {"chain": chain, "diamond": diamond}[shape]

    def step(x: Any) -> Any:
        w.grad = None
        loss = dg.sum(build(x, w, calls))
        loss.backward()
        return loss

    compiled = static.compile(step, static.spec((ELEMENTS,)))
    start = time.perf_counter()
    compiled(dg.ones((ELEMENTS,)))
    run = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**compiled.times, "run": run, "kernels": len(compiled.program.steps), "peak_mib": peak}


def fresh(shape: str, calls: int, settings: Settings) -> dict[str, float] | str:
    """The same in a process of its own, with an empty cache; or why not."""
    with tempfile.TemporaryDirectory(prefix="dualgraph-compile-") as directory:
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--one", shape, str(calls)],
                env=settings.environment(directory),
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return f"more than {LIMIT} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    found: dict[str, float] = json.loads(done.stdout)
    return found


LIMIT = 180  # seconds for one graph


def report(settings: Settings, largest: int = 10**9) -> dict[str, str]:
    """One row for each graph."""
    say("compile time")
    rows = []
    for shape, sizes in SIZES.items():
        for calls in sizes:
            if calls > largest:
                continue
            found = fresh(shape, calls, settings)
            name = f"{shape} of {calls:,} calls"
            say(f"  {name}: {found}")
            if isinstance(found, str):
                rows.append([name, *["-"] * (len(STAGES) + 2), found])
            else:
                each = [found[stage] for stage in STAGES]
                seconds = [f"{s:.2f}" for s in (*each, sum(each))]
                rows.append([name, *seconds, f"{found['kernels']:.0f}", f"{found['peak_mib']:.0f}"])
    return {"compile-time": table(["seconds", *STAGES, "in all", "kernels", "peak memory, MiB"], rows)}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--largest", type=int, default=10**9, help="leave out graphs of more calls")
    parser.add_argument("--one", nargs=2, metavar=("SHAPE", "CALLS"), help="one graph in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one[0], int(arguments.one[1]))))
    else:
        print(report(options.settings_of(arguments), arguments.largest)["compile-time"])


if __name__ == "__main__":
    main()
