"""Peak memory of a steady step.

Counted is what a step needs besides parameters and optimiser state: gradients, saved values, temporaries, the arena of
the static graph. NumPy reports its allocations to tracemalloc, which also sees the Python objects of the tape; the
arena was allocated when the graph was loaded, and is added.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from dualgraph.compare.arms import Arm
from dualgraph.kernels import provider


def peak_of_step(arm: Arm) -> int:
    """Bytes at the highest point of a step, parameters and optimiser state apart. The arm does three steps."""
    with arm.turn(), _traced():
        arm.step()
        arm.step()  # by now everything that a step replaces has been allocated under observation
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        held = sum(p.grad.numpy().nbytes for p in arm.instance.model.parameters() if p.grad is not None)
        tracemalloc.reset_peak()
        arm.step()
        peak = tracemalloc.get_traced_memory()[1]
    return int(peak - before + held + _arena(arm))


def _arena(arm: Arm) -> int:
    """The static arena; the reference kernels allocate it in each run, where it is seen."""
    return int(arm.executable.compilation.arena.size) if arm.executable is not None and provider.name() == "llvm" else 0


@contextmanager
def _traced() -> Iterator[None]:
    started_here = not tracemalloc.is_tracing()
    if started_here:
        tracemalloc.start()
    try:
        yield
    finally:
        if started_here:
            tracemalloc.stop()
