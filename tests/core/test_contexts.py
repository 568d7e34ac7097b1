"""Contexts that are left in another order than they were entered: nothing that is over comes back."""

from __future__ import annotations

import asyncio
import gc
import inspect
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


# ------------------------------------------------------------------------------------------------ as decorators


X = dg.tensor([1.0], requires_grad=True)
DECORATORS = {
    "called": (dg.no_grad(), dg.enable_grad()),
    "bare": (dg.no_grad, dg.enable_grad),
}


def recorded() -> tuple[bool, bool]:
    """Whether gradients are recorded, as the context says and as a result shows."""
    return dg.is_grad_enabled(), (X * 2.0).requires_grad


NO, YES = (False, False), (True, True)


@pytest.mark.parametrize("form", DECORATORS)
def test_a_decorated_function(form):
    off, on = DECORATORS[form]

    class Model:
        @off
        def method(self, more=()):
            return recorded(), on(recorded)()

    assert Model().method() == (NO, YES)
    assert recorded() == YES
    assert static.jit(lambda x: (x, off(lambda: (X * x).requires_grad)()))(dg.ones(1))[1] is False


@pytest.mark.parametrize("form", DECORATORS)
def test_each_step_of_a_decorated_generator(form):
    off, _ = DECORATORS[form]
    seen = []

    @off
    def steps(n):
        try:
            for number in range(n):
                try:
                    seen.append(((yield (number, recorded())), recorded()))
                except KeyError as error:
                    seen.append((error.args, recorded()))
            return "end"
        finally:
            seen.append(("finally", recorded()))

    running = steps(3)
    assert next(running) == (0, NO)
    assert recorded() == YES
    assert running.send("sent") == (1, NO)
    assert running.throw(KeyError("thrown")) == (2, NO)
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value == "end"
    assert seen == [("sent", NO), (("thrown",), NO), (None, NO), ("finally", NO)]
    seen.clear()
    running = steps(2)
    next(running)
    running.close()
    assert seen == [("finally", NO)]
    assert [x for _, x in steps(2)] == [NO, NO]
    assert recorded() == YES
    assert inspect.isgeneratorfunction(steps)


def test_an_error_in_a_decorated_generator():
    @dg.no_grad()
    def steps():
        yield 1
        raise KeyError("inside")

    running = steps()
    next(running)
    with pytest.raises(KeyError, match="inside"):
        next(running)
    assert recorded() == YES


@pytest.mark.parametrize("form", DECORATORS)
def test_each_step_of_a_decorated_coroutine(form):
    off, _ = DECORATORS[form]

    @off
    async def training():
        first = recorded()
        await asyncio.sleep(0.002)
        return first, recorded()

    @off
    async def batches():
        for _ in range(3):
            await asyncio.sleep(0)
            try:
                yield recorded()
            except KeyError:
                yield "thrown", recorded()

    async def others():
        for _ in range(8):
            await asyncio.sleep(0.0005)
            assert recorded() == YES

    async def both():
        found, _ = await asyncio.gather(training(), others())
        assert found == (NO, NO)
        assert [(x, recorded()) async for x in batches()] == [(NO, YES)] * 3
        running = batches()
        assert await running.asend(None) == NO
        assert await running.athrow(KeyError("k")) == ("thrown", NO)
        await running.aclose()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(training(), 0.0001)
        assert recorded() == YES

    asyncio.run(both())
    assert inspect.iscoroutinefunction(training)


@pytest.mark.parametrize("what", [3, "f", type("Kind", (), {})])
def test_what_is_no_function_is_not_decorated(what):
    for decorate in (dg.no_grad(), dg.no_grad, dg.enable_grad):
        with pytest.raises(dg.errors.ArgumentError, match="to decorate"):
            decorate(what)
