"""The reverse sweep in both modes, where other projects' compiled modes went wrong: views, hooks, higher orders.

After each name stands where the fault was seen. Gradients are compared even where forward results agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import assert_bits, assert_modes_agree, leaves, same_bits
from dualgraph import nn, static
from dualgraph.core.mode import bind
from dualgraph.errors import GradientError
from dualgraph.ops import OPS
from dualgraph.ops.scalar import elementwise_op

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def copies(xs: Any) -> list[Any]:
    return [np.array(x.numpy()) for x in xs]


def test_outputs_that_need_no_gradient() -> None:
    """Paddle PR #45277: all gradients were 0 once a second output needed none."""

    def run(x: Any) -> list[Any]:
        y = dg.tanh(x)
        return [y, dg.argmax(y, axis=1), y > 0, y.detach(), dg.astype(y, "int32"), dg.sum(y * y.detach())]

    results = assert_modes_agree(run, [X])
    assert np.any(results[-1] != 0)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:, ::2], lambda x: dg.flip(x, axis=1), lambda x: x.T[1], lambda x: x[:, None, 1:3],
        lambda x: dg.reshape(x.T, (2, 6)), lambda x: [x[:2], x[1:], x[0:3:2]], lambda x: dg.stack([x[0], x[0], x[2]]),
        lambda x: dg.concat([x[:, 2:], x[:, :2]], axis=1), lambda x: dg.broadcast_to(x[0], (5, 4)),
        lambda x: dg.moveaxis(dg.expand_dims(x, 0), 0, 2), lambda x: dg.split(x, [1, 3], axis=1),
    ],
    ids=range(11),
)  # fmt: skip
def test_backward_of_views(view: Callable[[Any], Any]) -> None:
    """pytorch #182012: a gradient of 0 through a view with a right forward; also overlapping windows."""

    def run(x: Any) -> list[Any]:
        y = dg.exp(x)
        parts = view(y)
        parts = parts if isinstance(parts, list) else [parts]
        return [dg.sin(p) * p for p in parts]

    results = assert_modes_agree(run, [X], order=2)
    assert np.any(results[-1] != 0)


@pytest.mark.parametrize("indices", [[0, 0, 0], [2, 0, 2, 1, 2, 0], [-1, 2, -3, 0], []], ids=str)
def test_duplicate_indices(indices: list[int]) -> None:
    """pytorch #138908, #136662: contributions to one place counted twice, or once too few."""
    index = np.array(indices, np.int64)

    def run(x: Any) -> list[Any]:
        y = x * 3.0
        return [dg.take(y, index, axis=0), dg.take(y, index, axis=1), y[index] + y[index]]

    *_, g = assert_modes_agree(run, [X], order=1)
    x = dg.tensor(X, requires_grad=True)
    (plain,) = dg.grad(dg.sum(x[index]), [x])
    np.testing.assert_array_equal(plain.numpy()[:, 0], np.bincount(index % 3, minlength=3).astype(np.float32))
    assert g.shape == X.shape


def of_a_variable(run: Callable[[Any], Any], levels: Any = ("none", "exact")) -> list[Any]:
    """A function of one parameter, which `backward` may leave its gradient in, in every mode; its eager results."""
    expected = copies(leaves(run(dg.Variable(X, requires_grad=True))))
    for level in levels:
        w = dg.Variable(X, requires_grad=True)
        executable = static.compile(lambda w=w: run(w), optimize=level)
        assert_bits(copies(leaves(executable())), expected, level)
    return expected


def test_a_gradient_that_is_retained_twice() -> None:
    """Is kept once."""

    def run(x: Any) -> Any:
        y = dg.tanh(x)
        for _ in range(3):
            y.retain_grad()
        x.retain_grad()  # a leaf keeps its own
        dg.sum(y * y).backward()
        return [y.grad, x.grad]

    for mode in (run, static.jit(run)):
        kept, _ = mode(dg.tensor(X, requires_grad=True))
        assert same_bits(kept.numpy(), (dg.tanh(dg.tensor(X)) * 2.0).numpy())
    with pytest.raises(GradientError, match="needs no gradient"):
        dg.tensor(X).retain_grad()


def once(w: Any) -> None:
    remove: list[Any] = []
    remove.append(w.register_hook(lambda g: (remove[0](), g * 2.0)[1]))
    w.register_hook(lambda g: g + 10.0)


def growing(w: Any) -> None:
    w.register_hook(lambda g: (w.register_hook(lambda g: g * 2.0), g)[1])


def third(w: Any) -> None:
    double, plus = (lambda g: g * 2.0), (lambda g: g + 1.0)
    _, _, remove = w.register_hook(double), w.register_hook(plus), w.register_hook(double)
    remove()


def removed_twice(w: Any) -> None:
    double = lambda g: g * 2.0  # noqa: E731
    remove = w.register_hook(double)
    w.register_hook(double)
    remove()
    remove()


HOOKS = {once: [[12.0], [11.0]], growing: [[1.0], [2.0]], third: [[3.0], [3.0]], removed_twice: [[2.0], [2.0]]}


@pytest.mark.parametrize("hooks", HOOKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", [lambda f: f, static.jit], ids=["eager", "jit"])
def test_hooks_that_come_and_go(hooks: Any, mode: Any) -> None:
    """Each registration is one of its own; a sweep calls those that are there when the gradient is complete."""
    w = nn.Parameter([1.0])

    def step(x: Any) -> None:
        w.grad = None
        dg.sum(w * x).backward()

    hooks(w)
    run, seen = mode(step), []
    for _ in range(2):
        run(dg.ones(1))
        seen.append(w.grad.tolist())
    assert seen == HOOKS[hooks]


def test_a_gradient_is_retained_after_all_hooks() -> None:
    def run(x: Any) -> Any:
        y = x * 2.0
        y.retain_grad()
        y.register_hook(lambda g: g * 10.0)
        dg.sum(y).backward()
        return [y.grad]

    for mode in (run, static.jit(run)):
        assert mode(dg.ones(1).requires_grad_())[0].tolist() == [10.0]


def test_hooks_and_retained_gradients() -> None:
    """pytorch #91468: they were lost."""
    seen: list[Any] = []

    def run(x: Any) -> list[Any]:
        y = dg.tanh(x)
        y.retain_grad()
        y.register_hook(lambda g: g * 3.0)
        x.register_hook(lambda g: seen.append(g) or g + 0.5)  # type: ignore[func-returns-value]
        z = dg.sum(y * y * x)
        z.backward()
        return [z, y.grad, x.grad]

    expected = of_a_variable(run)
    assert len(seen) == 3
    plain = dg.tensor(X, requires_grad=True)
    dg.sum(dg.tanh(plain) * dg.tanh(plain) * plain).backward()
    assert not same_bits(plain.grad.numpy(), expected[2])


def test_hooks_of_parameters_run_in_compiled_steps() -> None:
    def trained(compiled: bool) -> list[Any]:
        w = dg.Variable(X, requires_grad=True)
        w.register_hook(lambda g: g * 0.5)

        def step() -> None:
            w.grad = None
            dg.sum(w * w).backward()

        (static.jit(step) if compiled else step)()
        return copies([w.grad])

    assert_bits(trained(True), trained(False), "hooked gradient")
    assert_bits(trained(False), [X], "half of 2w")


def test_second_order() -> None:
    """pytorch #181581: create_graph was dropped silently."""

    def run(x: Any) -> list[Any]:
        (g,) = dg.grad(dg.sum(dg.sin(x) * x * x), [x], create_graph=True)
        penalty = dg.sum(g * g)
        (h,) = dg.grad(penalty, [x], create_graph=True)
        (third,) = dg.grad(dg.sum(h * h), [x])
        return [penalty, h, third]

    results = assert_modes_agree(run, [X], order=0)
    assert all(np.any(r != 0) for r in results)


def test_second_order_through_backward() -> None:
    def run(x: Any) -> list[Any]:
        dg.sum(dg.exp(x)).backward(create_graph=True)
        g = x.grad
        x.grad = None
        dg.sum(g * g).backward()
        return [g, x.grad]

    assert all(np.any(r != 0) for r in of_a_variable(run))


def test_gradients_of_arguments() -> None:
    """`dg.grad` of an argument works in a compiled function; what cannot be done is refused, never dropped."""

    def slope(x: Any) -> Any:
        return dg.grad(dg.sum(dg.sin(x) * x), [x])

    x = dg.tensor(X, requires_grad=True)
    assert_bits(copies(static.jit(slope)(x)), copies(slope(x)), "gradient of an argument")
    with pytest.raises(dg.errors.GraphError, match="history"):
        static.jit(lambda x: dg.sum(x * x).backward())(x * 2.0)
    assert x.grad is None


LYING = elementwise_op("lying_tanh", lambda x: OPS["tanh"].scalar.expression(x), 1, vjp=(lambda g, out, x: g * 42.0,))


def test_a_vjp_that_lies_is_obeyed() -> None:
    """pytorch #193279: the custom backward was ignored, because its forward had been inlined."""

    def run(x: Any) -> list[Any]:
        y = bind(LYING, x)
        return [y, *dg.grad(dg.sum(y), [x])]

    assert_bits(assert_modes_agree(run, [X], order=0)[1:], [np.full_like(X, 42)], "the rule's own answer")
    assert_modes_agree(lambda x: bind(LYING, x) * x, [X], order=2)
