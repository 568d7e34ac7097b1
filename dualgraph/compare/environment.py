"""The machine and the libraries that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import dualgraph as dg
from dualgraph.kernels import blas, provider


def version(package: str) -> str:
    """The installed version of a package; empty where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def cpu_model() -> str:
    """The processor in the words of its maker, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """Processes waiting for a processor, over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def is_busy(load: float, usable: int) -> bool:
    """Whether other programs disturb a measurement."""
    return load > usable / 2 + 1


def governor() -> str:
    """The policy of the clock frequency, where the system tells."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text("utf-8").strip()
    except OSError:
        return ""


def target() -> str:
    """The processor that code is generated for; empty for the reference kernels."""
    if provider.name() != "llvm":
        return ""
    from dualgraph.kernels.llvm import engine

    return str(engine.target()[0])


def environment() -> dict[str, Any]:
    """Everything that must be known to read a figure."""
    library = blas.info()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "dualgraph": dg.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "networkx": version("networkx"),
        "llvmlite": version("llvmlite"),
        "provider": provider.name(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "target": target(),
        "processors": processors(),
        "threads": dg.get_num_threads(),
        "blas": f"{library.name} {library.version} {library.architecture}" if library else "none found: numpy.matmul",
        "governor": governor(),
        "load_average": load_average(),
    }
