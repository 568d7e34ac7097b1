"""Settings read from the environment, in one place.

| variable | meaning |
| --- | --- |
| `DUALGRAPH_KERNELS` | kernel provider: `llvm` (default where llvmlite is installed) or `reference` (NumPy alone) |
| `DUALGRAPH_NUM_THREADS` | threads of the kernel pool; default: the processors this process may use |
| `DUALGRAPH_CACHE_DIR` | where machine code is kept; default: the user cache directory |
| `DUALGRAPH_CPU` | processor to generate code for, by LLVM's name; default: the host |
"""

from __future__ import annotations

import os

from dualgraph.errors import ArgumentError


def kernels() -> str:
    return os.environ.get("DUALGRAPH_KERNELS", "")


def num_threads() -> int:
    """The number asked for, or else of the processors; a senseless one is reported by `check_num_threads`."""
    given = _given_threads()
    if given > 0:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _given_threads() -> int:
    """0 where nothing is asked for, -1 where it makes no sense."""
    given = os.environ.get("DUALGRAPH_NUM_THREADS", "")
    try:
        return (int(given) if int(given) > 0 else -1) if given else 0
    except ValueError:
        return -1


def check_num_threads() -> None:
    """Called before the first kernel, not when the package is imported."""
    if _given_threads() < 0:
        raise ArgumentError(
            f"got DUALGRAPH_NUM_THREADS={os.environ['DUALGRAPH_NUM_THREADS']!r}; the number of threads is an integer "
            "of at least 1; set one, or unset the variable to use all processors"
        )


def cache_dir() -> str:
    return os.environ.get("DUALGRAPH_CACHE_DIR", "")


def cpu() -> str:
    return os.environ.get("DUALGRAPH_CPU", "")
