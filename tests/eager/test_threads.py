"""Several threads that compute at once: launches, tapes and draws are each its own."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import dualgraph as dg
from conformance.modes import assert_bits


def test_eager_operations_from_many_threads() -> None:
    """New kernels and prepared launches are made by several threads at once."""
    inputs = [np.random.default_rng(2).uniform(-2, 2, (50 + k, 7)).astype(np.float32) for k in range(8)]
    found: dict[int, Any] = {}

    def work(k: int) -> None:
        x = dg.tensor(inputs[k], requires_grad=True)
        y = dg.sum(dg.cosh(x * 0.37) * dg.sin(x) + dg.expm1(x), axis=0)
        found[k] = [y.numpy(), dg.grad(dg.sum(y), [x])[0].numpy()]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    together = dict(found)
    for k in range(8):
        work(k)
        assert_bits(together[k], found[k], f"thread {k}")


def test_random_draws_of_threads_are_all_different():
    drawn = []

    def work():
        drawn.extend(tuple(dg.rand((2,)).tolist()) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(drawn)) == 800
