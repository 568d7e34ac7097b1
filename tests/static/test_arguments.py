"""Gradients that `backward` leaves in the tensors that are passed: the same step in both modes, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim, static
from dualgraph.errors import DTypeError, DualgraphError, FeedError, GraphError


def loss_of(x: Any, y: Any) -> Any:
    loss = dg.sum(dg.tanh(x) * y)
    loss.backward()
    return loss


def accumulated(x: Any) -> Any:
    dg.sum(x * x).backward()
    (x.grad * 2.0).sum()
    dg.sum(dg.sin(x)).backward()
    return x.grad * 1.0


def cleared(x: Any) -> Any:
    x.grad = None
    dg.sum(x * x).backward()
    return dg.sum(x)


def dropped(x: Any) -> Any:
    dg.sum(x * x).backward()
    x.grad = None
    return dg.sum(x)


def replaced(x: Any) -> Any:
    dg.sum(x * x).backward()
    x.grad = x.grad * 0.5
    return None


def clipped(x: Any) -> Any:
    dg.sum(x * x * x).backward()
    norm = dg.sqrt(dg.sum(x.grad * x.grad))
    x.grad = x.grad / dg.maximum(norm, 1.0)
    return norm


def looks(x: Any) -> Any:
    return x * (1.0 if x.grad is None else 2.0)


def second(x: Any) -> Any:
    (g,) = dg.grad(dg.sum(x**3), [x], create_graph=True)
    dg.sum(g * g).backward()
    return g.detach()


def nested(batch: Any) -> Any:
    loss = dg.sum(batch["a"] * batch["b"][0])
    loss.backward()
    return loss


def a(requires_grad: bool = True) -> Any:
    return dg.tensor([0.5, -1.5, 2.0], requires_grad=requires_grad)


STEPS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "one": (loss_of, lambda: (a(), a(False))),
    "other": (loss_of, lambda: (a(False), a())),
    "two": (loss_of, lambda: (a(), a())),
    "array beside": (loss_of, lambda: (a(), np.ones(3, np.float32))),
    "accumulated": (accumulated, lambda: (a(),)),
    "cleared": (cleared, lambda: (a(),)),
    "dropped": (dropped, lambda: (a(),)),
    "replaced": (replaced, lambda: (a(),)),
    "clipped": (clipped, lambda: (a(),)),
    "looks": (looks, lambda: (a(),)),
    "second": (second, lambda: (a(),)),
    "nested": (nested, lambda: ({"a": a(), "b": [a()]},)),
    "parameter": (loss_of, lambda: (nn.Parameter([0.5, -1.5, 2.0]), a())),
    "a transposed view of nothing recorded": (cleared, lambda: (dg.ones((2, 3)).T.requires_grad_(),)),
}


def bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(v) for v in value]
    if isinstance(value, dg.Tensor):
        return value.spec, value.numpy().tobytes(), bits(value.grad) if value.call is None else None
    return value.tobytes() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("name", STEPS)
def test_three_steps_leave_the_same_gradients(name, level):
    step, make = STEPS[name]
    eager, compiled, mixed = make(), make(), make()
    fast = static.jit(step, optimize=level)
    for number in range(3):
        want = bits(step(*eager))
        assert bits(fast(*compiled)) == want
        assert bits((fast if number % 2 else step)(*mixed)) == want
        assert bits(eager) == bits(compiled) == bits(mixed)
    fresh = make()
    again = make()
    step(*fresh)
    fast(*again)
    assert bits(fresh) == bits(again)


def test_compile_learns_it_from_the_spec():
    x, y = a(), a()
    fast = static.compile(loss_of, static.spec((3,), requires_grad=True), static.spec((3,)))
    for _ in range(3):
        loss_of(x, dg.ones(3))
        fast(y, dg.ones(3))
        assert bits(x) == bits(y)
    assert fast.misses == ["first call", "argument x: .grad None → a gradient"]
    refused: list[tuple[Any, type[DualgraphError], str]] = [
        (a(False), FeedError, "needs no gradient"),
        ([0.5, 1.0, 2.0], FeedError, "list"),
        (np.ones(3, np.float32), FeedError, "ndarray"),
        (a() * 2.0, GraphError, "still has its history"),
    ]
    for value, kind, words in refused:
        with pytest.raises(kind, match=words) as raised:
            fast(value, dg.ones(3))
        assert raised.value.where.file == __file__


def test_a_graph_that_is_spelled_out():
    g = static.Graph()
    with g:
        x = static.placeholder("x", (3,), requires_grad=True)
        loss = dg.sum(x * x)
        loss.backward()
    exe = static.compile(g, outputs=[loss])
    given = a()
    exe(x=given)
    assert given.grad.tolist() == (given * 2.0).tolist()


def test_the_same_tensor_twice():
    def step(x, y):
        dg.sum(x * y * y).backward()
        return x.grad * 1.0

    x, y = a(), a()
    fast = static.jit(step)
    assert bits(step(x, x)) == bits(fast(y, y))
    assert bits(x) == bits(y)
    x, y, v, w = a(), a(), a(), a()
    step(x, y)
    fast(v, w)
    assert bits((x, y)) == bits((v, w))


def test_an_argument_that_the_function_also_reaches_in_another_way():
    def make(mode):
        w = nn.Parameter([1.0, 2.0, 3.0])
        opt = optim.SGD([w], lr=0.1)

        def step(p, x):
            opt.zero_grad()
            loss = dg.sum(p * x) + dg.sum(w * w)
            loss.backward()
            opt.step()
            return loss + dg.sum(p)

        run = mode(step)
        results = [bits(run(w, a(False))) for _ in range(2)]
        other = a()
        results.append(bits(run(other, a(False))))
        results.append(bits(run(w, a(False))))
        return results, bits(w), bits(other)

    assert make(lambda f: f) == make(static.jit)


def test_hooks_of_arguments():
    def step(x):
        dg.sum(x * x).backward()

    x, y = a(), a()
    fast = static.jit(step)
    fast(y)
    step(x)
    removers = [t.register_hook(lambda g: g * 10.0) for t in (x, y)]
    fast(y)
    step(x)
    assert bits(x) == bits(y)
    for remove in removers:
        remove()
    fast(y)
    step(x)
    assert bits(x) == bits(y)


def test_a_refused_step_leaves_gradients():
    def step(x, i):
        dg.sum(dg.take(x, i)).backward()

    x = a()
    fast = static.jit(step)
    fast(x, dg.tensor([0, 1]))
    before = bits(x)
    with pytest.raises(dg.errors.RangeError):
        fast(x, dg.tensor([0, 7]))
    assert bits(x) == before


def test_only_floats_take_gradients():
    for dtype in ("int64", "int32", "bool"):
        with pytest.raises(DTypeError, match="gradients exist for floats only") as info:
            static.spec((2,), dtype, requires_grad=True)
        assert info.value.where.file == __file__
    assert static.spec((2,), "float64", requires_grad=True) == static.spec((2,), "float64")
