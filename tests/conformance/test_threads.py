"""The number of threads changes no bit: large sizes, where kernels are cut into pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import assert_bits, define, differentiated, run_eager, run_executable
from dualgraph import static
from dualgraph.kernels.cpu import pool


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def _floats(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(len(shape)).uniform(-2, 2, shape).astype(dtype)


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[[], list[Any]]]] = {
    "elementwise": (lambda x: dg.tanh(x) * x + dg.exp(-x), lambda: [_floats(700_001)]),
    "sum-all": (lambda x: dg.sum(dg.exp(x)), lambda: [_floats(1_100_003)]),
    "sum-rows": (lambda x: [dg.sum(x * x, axis=1), dg.max(x, axis=1)], lambda: [_floats(3000, 257)]),
    "sum-columns": (lambda x: [dg.sum(dg.sin(x), axis=0), dg.var(x, axis=0)], lambda: [_floats(3001, 257)]),
    "transposed": (lambda x: dg.exp(x.T) * x.T[::-1], lambda: [_floats(1200, 501)]),
    "softmax": (lambda x: dg.softmax(x, axis=1), lambda: [_floats(800, 1001, dtype="float64")]),
    "cross-entropy": (lambda x, y: dg.cross_entropy(x, y), lambda: [_floats(40_000, 10), np.arange(40_000) % 10]),
    "take": (lambda x, i: dg.take(x, i, axis=0), lambda: [_floats(5000, 64), np.arange(30_000) * 7 % 5000]),
    "take-along": (lambda x, i: dg.take_along_axis(x, i, axis=1),
                   lambda: [_floats(2000, 200), np.arange(400_000).reshape(2000, 200) * 3 % 200]),
    "random": (lambda: [dg.randn((600_000,)), dg.rand((300_001,), dtype="float64")], list),
    "argmax": (lambda x: [dg.argmax(x, axis=0), dg.argmin(x)], lambda: [_floats(2000, 300)]),
    "sort": (lambda x: [dg.argsort(x, descending=True), dg.sort(x)], lambda: [_floats(900, 400)]),
    "sort-short": (lambda x: dg.sort(x, axis=0), lambda: [_floats(10, 40_000, dtype="float64")]),
    "concat": (lambda x: dg.concat([x, x[:, ::-1] * 2.0], axis=1), lambda: [_floats(900, 600)]),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_threads_change_no_bit(name: str) -> None:
    function, make = PROGRAMS[name]
    function, arrays = differentiated(function), make()
    pool.set_num_threads(1)
    expected = run_eager(function, arrays)
    graph, outputs = define(function, arrays)
    compiled = {level: static.compile(graph, outputs=outputs, optimize=level) for level in ("none", "exact")}
    for count in (1, 2, 3):
        pool.set_num_threads(count)
        if count > 1:
            assert_bits(run_eager(function, arrays), expected, f"eager, {count} threads")
        for level, executable in compiled.items():
            assert_bits(run_executable(executable, arrays), expected, f"{level}, {count} threads")


@pytest.mark.parametrize("count", [1, 2])
def test_products_agree_at_every_thread_count(count: int) -> None:
    """BLAS gives the same bits in both modes; between thread counts it may not."""
    pool.set_num_threads(count)
    function = differentiated(lambda x, y: dg.tanh(x @ y) @ y.T)
    arrays = [_floats(257, 130), _floats(130, 65)]
    expected = run_eager(function, arrays)
    graph, outputs = define(function, arrays)
    for level in ("none", "exact"):
        assert_bits(run_executable(static.compile(graph, outputs=outputs, optimize=level), arrays), expected, level)


def test_one_executable_from_many_threads() -> None:
    """Calls of one executable from several Python threads at once do not mix."""
    run = static.compile(lambda x: [dg.sum(dg.exp(x), axis=1), dg.softmax(x, axis=1)], static.spec((300, 400)))
    inputs = [_floats(300, 400) + k for k in range(6)]
    expected = [[y.numpy().copy() for y in run(x)] for x in inputs]
    found: dict[int, Any] = {}

    def work(k: int) -> None:
        for _ in range(5):
            found[k] = [y.numpy() for y in run(inputs[k])]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k in range(6):
        assert_bits(found[k], expected[k], f"thread {k}")
