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


def kernels() -> str:
    return os.environ.get("DUALGRAPH_KERNELS", "")


def num_threads() -> int:
    given = os.environ.get("DUALGRAPH_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_dir() -> str:
    return os.environ.get("DUALGRAPH_CACHE_DIR", "")


def cpu() -> str:
    return os.environ.get("DUALGRAPH_CPU", "")
