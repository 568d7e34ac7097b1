"""Kernels of 4,096 and of a million elements, on one thread and on all: dualgraph, NumPy, PyTorch.

Each is called as a user would, so the overhead of a call is included; `gelu` and `layer norm` are one call in dualgraph
(the latter compiled from its formula) and PyTorch, a chain of calls in NumPy.

    python benchmarks/kernels.py [--python PYTHON_WITH_TORCH]
"""

from __future__ import annotations

from dataclasses import replace

import cases
import options
from processes import Implementation, Settings, in_turns, median, micro, say, table, times_as_fast, workers

ARMS = (
    Implementation("dualgraph", "with_dualgraph", ("kernels",)),
    Implementation("NumPy", "with_numpy", ("kernels",)),
    Implementation("PyTorch", "with_torch", ("kernels",), peer=True),
)


def report(settings: Settings) -> dict[str, str]:
    """Microseconds per call; a table for each number of threads."""
    names = [f"{kernel}, {size}" for size in cases.SIZES for kernel in cases.KERNELS]
    names += [f"matmul, {n}x{n}" for n in cases.PRODUCTS]
    tables = []
    for threads in dict.fromkeys((1, settings.threads)):
        say(f"kernels, {threads} threads")
        with workers(ARMS, replace(settings, threads=threads)) as running:
            samples = in_turns(running, names, replace(settings, seconds=settings.seconds / 4))
        rows = []
        for case, arms in samples.items():
            times = [micro(median(arms[a.name])) if a.name in arms else "-" for a in ARMS]
            ratios = [times_as_fast(arms, a.name) for a in ARMS[1:]]
            rows.append([case, *times, *ratios])
        word = "1 thread" if threads == 1 else f"{threads} threads"
        head = [f"µs per call, {word}", *(a.name for a in ARMS), "NumPy / dualgraph", "PyTorch / dualgraph"]
        tables.append(table(head, rows))
    return {"kernels": "\n\n".join(tables)}


if __name__ == "__main__":
    options.show(report, __doc__)
