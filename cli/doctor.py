"""`dualgraph doctor`: what this installation has, what it lacks, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

import dualgraph
from dualgraph import config
from dualgraph.compare.environment import cpu_model, is_busy, load_average, processors, version
from dualgraph.errors import DualgraphError
from dualgraph.kernels import blas, provider
from dualgraph.kernels.cpu import pool

from .console import amount, message, table

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
    yield Finding("dualgraph", dualgraph.__version__)
    yield Finding("python", platform.python_version())
    for name in ("numpy", "networkx"):
        yield Finding(name, version(name) or "not found")
    yield Finding("platform", platform.platform())
    invalid = list(_invalid_settings())
    yield from invalid
    if not invalid:
        yield from _kernels()
    yield _blas()
    yield Finding("processor", cpu_model())
    yield from _threads()
    yield from _cache()
    yield _gpu()


def _invalid_settings() -> Iterator[Finding]:
    """Environment variables with which no kernel runs. Asked anew: what a process once found, it keeps."""
    checks: list[tuple[str, str, Callable[[], object]]] = [
        ("DUALGRAPH_NUM_THREADS", os.environ.get("DUALGRAPH_NUM_THREADS", ""), config.check_num_threads)
    ]
    if config.kernels():
        checks.append(("DUALGRAPH_KERNELS", config.kernels(), provider.name.__wrapped__))
    if config.cpu() and importlib.util.find_spec("llvmlite") is not None:
        from dualgraph.kernels.llvm import engine

        checks.append(("DUALGRAPH_CPU", config.cpu(), engine.target.__wrapped__))
    for variable, value, check in checks:
        try:
            check()
        except DualgraphError as error:
            yield Finding(variable, value, message(error))


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
    if not pool.is_possible():
        threads, problem = (
            1,
            "this platform has no POSIX threads: kernels run on the calling thread, with the same bits",
        )
    yield Finding("threads", f"{threads} of {usable} processors", problem)
    load = load_average()
    if load is not None:
        busy = is_busy(load, usable)
        yield Finding("load average", str(load), "measured times will vary; close other programs" if busy else "")


def _cache() -> Iterator[Finding]:
    if importlib.util.find_spec("llvmlite") is None:
        return
    from dualgraph.kernels.llvm import cache

    info = cache.cache_info()
    yield Finding("cache", info.directory)
    size = f"{info.files} files, {amount(info.nbytes)} of at most {amount(info.limit)}"
    problem = cache.probe()
    yield Finding("cache holds", f"{size}, {'not usable' if problem else 'writable'}", problem)


def _gpu() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return Finding("GPU", "none: cupy is not installed (pip install 'dualgraph[cuda12]' or 'dualgraph[cuda13]')")
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return Finding("GPU", f"none: {error}", "cupy finds no device; check the driver with nvidia-smi")
    return Finding("GPU", f"{count} found by cupy {cupy.__version__}")
