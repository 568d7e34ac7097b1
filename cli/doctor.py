"""`dualgraph doctor`: what this installation has, what it lacks, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from dualgraph import config
from dualgraph.compare.environment import environment, is_busy, load_average, processors
from dualgraph.kernels import blas, provider

from .console import amount, table

FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "neon", "sve")


class Finding(NamedTuple):
    """A fact about the installation; `problem` says what to do where it is not as it should be."""

    what: str
    value: str
    problem: str = ""


@click.command("doctor")
def command() -> None:
    """Show versions, kernels, BLAS, processor, threads, cache and GPU, and a remedy for each problem."""
    found = list(findings())
    table("dualgraph doctor", ("what", "found"), [(x.what, x.value) for x in found], left=2)
    problems = [f"{x.what}: {x.problem}" for x in found if x.problem]
    click.echo("\n".join(["", *(f"Problem: {p}" for p in problems)] if problems else ["", "No problems found."]))


def findings() -> Iterator[Finding]:
    about = environment()
    for name in ("dualgraph", "python", "numpy", "networkx"):
        yield Finding(name, about[name] or "not found")
    yield Finding("platform", about["platform"])
    yield from _kernels()
    yield _blas()
    yield Finding("processor", about["cpu"])
    yield from _threads()
    yield from _cache()
    yield _gpu()


def _kernels() -> Iterator[Finding]:
    why = provider.why_not_llvm()
    reason = f"DUALGRAPH_KERNELS={config.kernels()}" if config.kernels() else why or "the default"
    remedy = f"{why}; native kernels are many times as fast: pip install llvmlite" if why else ""
    yield Finding("kernels", f"{provider.name()} ({reason})", remedy)
    if why:
        return
    from dualgraph.kernels.llvm import engine

    about = engine.describe()
    yield Finding("llvmlite, LLVM", f"{about['llvmlite']}, {about['llvm']}")
    cpu, features = engine.target()
    used = [f for f in FEATURES if f"+{f}" in features.split(",")]
    yield Finding("code generated for", f"{cpu} ({', '.join(used) or 'no vector features named'})")


def _blas() -> Finding:
    library = blas.info()
    if library is None:
        return Finding(
            "BLAS",
            "none found; products go through numpy.matmul",
            "NumPy has loaded no BLAS with known names; small products are slower: use a NumPy wheel from PyPI",
        )
    symbols = ", ".join(gemm.symbol for gemm in library.gemms.values())
    name = f"{library.name} {library.version} {library.architecture}"
    return Finding("BLAS", f"{name} ({symbols}; one thread for each product, {library.threads} for others)")


def _threads() -> Iterator[Finding]:
    usable, threads = processors(), config.num_threads()
    problem = ""
    if threads > usable:
        problem = f"{threads} threads on {usable} processors wait for each other; set DUALGRAPH_NUM_THREADS={usable}"
    yield Finding("threads", f"{threads} of {usable} processors", problem)
    load = load_average()
    if load is not None:
        busy = is_busy(load, usable)
        yield Finding("load average", str(load), "measured times will vary; close other programs" if busy else "")


def _cache() -> Iterator[Finding]:
    if provider.why_not_llvm():
        return
    from dualgraph.kernels.llvm import cache

    info = cache.cache_info()
    yield Finding("cache", info.directory)
    size = f"{info.files} files, {amount(info.nbytes)} of at most {amount(info.limit)}"
    place = Path(info.directory)
    while not place.exists() and place != place.parent:
        place = place.parent
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    problem = (
        f"{place} is not a directory that can be written; kernels are compiled anew in each process: set "
        "DUALGRAPH_CACHE_DIR to one that can"
    )
    yield Finding("cache holds", f"{size}, {'writable' if writable else 'not writable'}", "" if writable else problem)


def _gpu() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return Finding("GPU", "none: cupy is not installed (pip install 'dualgraph[cuda12]' or 'dualgraph[cuda13]')")
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return Finding("GPU", f"none: {error}", "cupy finds no device; check the driver with nvidia-smi")
    return Finding("GPU", f"{count} found by cupy {cupy.__version__}")
