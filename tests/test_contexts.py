"""Contexts that are left in another order than they were entered: nothing that is over comes back."""

from __future__ import annotations

import gc
import threading

import pytest

import dualgraph as dg
from dualgraph import nn, static


def suspended(context):
    with context:
        yield


CONTEXTS = {
    "no_grad": dg.no_grad,
    "enable_grad": dg.enable_grad,
    "tape": lambda: dg.eager.Tape(),
}


def usable() -> bool:
    w = nn.Parameter([2.0])
    (w * w).sum().backward()
    return w.grad.tolist() == [4.0]


@pytest.mark.parametrize("end", ["close", "collect", "exhaust"])
@pytest.mark.parametrize("name", ["no_grad", "enable_grad"])
def test_a_generator_suspended_in_a_trace(name, end):
    kept = []

    def f(x):
        generator = suspended(CONTEXTS[name]())
        next(generator)
        kept.append(generator)
        return x * 2.0

    fast = static.jit(f)
    assert fast(dg.ones(1)).tolist() == [2.0]
    assert dg.is_grad_enabled()
    assert usable()
    generator = kept.pop()
    if end == "close":
        generator.close()
    elif end == "exhaust":
        assert list(generator) == []
    del generator
    gc.collect()
    assert dg.is_grad_enabled()
    assert usable()


@pytest.mark.parametrize("name", CONTEXTS)
def test_left_in_the_order_of_entering(name):
    first, second = suspended(CONTEXTS[name]()), suspended(dg.no_grad())
    next(first)
    next(second)
    first.close()
    assert not dg.is_grad_enabled()
    second.close()
    assert dg.is_grad_enabled()
    assert usable()


def test_left_inside_of_another():
    generator = suspended(dg.no_grad())
    next(generator)
    with dg.enable_grad():
        generator.close()
        assert dg.is_grad_enabled()
    assert usable()


def test_a_graph_in_a_generator():
    g = static.Graph()
    generator = suspended(g)
    next(generator)
    with dg.no_grad():
        generator.close()
        assert not dg.is_grad_enabled()
        assert (dg.ones(1) + 1.0).tolist() == [2.0]
    assert usable()


def test_a_trace_that_fails():
    generator = suspended(dg.no_grad())

    def f(x):
        next(generator)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        static.jit(f)(dg.ones(1))
    assert usable()
    generator.close()
    assert usable()


def test_closed_in_another_thread():
    generator = suspended(dg.no_grad())
    next(generator)
    seen = []
    thread = threading.Thread(target=lambda: (generator.close(), seen.append(usable())))
    thread.start()
    thread.join()
    assert seen == [True]
    with dg.enable_grad():  # this thread hears of it when it next enters or leaves something
        pass
    assert dg.is_grad_enabled()
    assert usable()


def test_one_object_in_two_threads():
    shared, both = dg.no_grad(), threading.Barrier(2)
    seen = []

    def work():
        with shared:
            both.wait()
        both.wait()
        seen.append(usable())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == [True, True]
