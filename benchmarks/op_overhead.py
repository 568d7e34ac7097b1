"""The overhead of one eager operation on 8 elements: dualgraph, NumPy, PyTorch.

python benchmarks/op_overhead.py [--python PYTHON_WITH_TORCH]
"""

from __future__ import annotations

import cases
import options
from processes import Implementation, Settings, in_turns, median, say, table, times_as_fast, workers

ARMS = (
    Implementation("dualgraph", "with_dualgraph", ("ops",)),
    Implementation("NumPy", "with_numpy", ("ops",)),
    Implementation("PyTorch", "with_torch", ("ops",), peer=True),
)


def report(settings: Settings) -> dict[str, str]:
    """Nanoseconds per call."""
    say("overhead of an operation")
    names = [op + suffix for suffix in ("", cases.RECORDED) for op in cases.OPS]
    with workers(ARMS, settings) as running:
        samples = in_turns(running, names, settings)
    rows = []
    for case, arms in samples.items():
        times = [f"{median(arms[a.name]) * 1e9:.0f}" if a.name in arms else "-" for a in ARMS]
        ratios = [times_as_fast(arms, a.name) for a in ARMS[1:]]
        rows.append([case, *times, *ratios])
    head = ["ns per call", *(a.name for a in ARMS), "NumPy / dualgraph", "PyTorch / dualgraph"]
    return {"op-overhead": table(head, rows)}


if __name__ == "__main__":
    options.show(report, __doc__)
