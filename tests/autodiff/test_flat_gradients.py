"""Functions that are constant between their jumps: their gradient is zeros, as in PyTorch, and not missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import nn, optim, static
from dualgraph.errors import GradientError
from dualgraph.ops import OPS

X = np.array([1.5, -2.0, 0.25], np.float32)


def flat() -> list[str]:
    """Ops of one float whose result is a float without a slope."""
    found = []
    for name, op in OPS.items():
        if op.scalar is not None and op.scalar.arity == 1 and hasattr(dg, name) and not op.scalar.conditions:
            x = dg.tensor(X, requires_grad=True)
            try:
                y = getattr(dg, name)(x)
            except (dg.errors.DualgraphError, TypeError):  # takes more, or no floats
                continue
            if y.requires_grad and op.scalar._derive(0, "float32", {}) is None:
                found.append(name)
    return found


FLAT = flat()


def test_the_family_is_found() -> None:
    assert {"floor", "ceil", "round", "trunc", "sign"} <= set(FLAT)


def both(function: Any, *arrays: Any) -> tuple[Any, Any]:
    """What a function gives in either mode, for tensors that take gradients."""
    return tuple(
        [y.tolist() for y in run(*[dg.tensor(a, requires_grad=True) for a in arrays])]
        for run in (function, static.jit(function))
    )  # type: ignore[return-value]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", FLAT)
def test_grad_gives_zeros(name: str, create_graph: bool) -> None:
    f = getattr(dg, name)
    zeros = [0.0, 0.0, 0.0]
    functions = {
        "leaf": lambda x: dg.grad(dg.sum(f(x)), [x], create_graph=create_graph),
        "far leaf": lambda x: dg.grad(dg.sum(f(dg.exp(x) * 2.0)), [x], create_graph=create_graph),
        "computed": lambda x: (lambda y: dg.grad(dg.sum(f(y)), [y], create_graph=create_graph))(x * 2.0),
    }
    for function in functions.values():
        assert both(function, X) == ([zeros], [zeros])
    mixed = both(lambda x, y: dg.grad(dg.sum(f(x) * y + x * 3.0), [x, y], create_graph=create_graph), X, X)
    assert mixed == ([[3.0] * 3, getattr(dg, name)(dg.tensor(X)).tolist()],) * 2


@pytest.mark.parametrize("name", FLAT)
def test_backward_leaves_zeros_in_both_modes(name: str) -> None:
    for mode in (lambda f: f, static.jit):
        w, v = nn.Parameter(X), nn.Parameter(X)
        optimizer = optim.SGD([w, v], lr=0.5, weight_decay=0.5)

        def step(w: Any = w, v: Any = v, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = dg.sum(getattr(dg, name)(w * 2.0) + v)
            loss.backward()
            optimizer.step()
            return w.grad, v.grad

        grads = mode(step)()
        assert [g.tolist() for g in grads] == [[0.0] * 3, [1.0] * 3]
        assert w.tolist() == (X * 0.75).tolist()


def test_zeros_are_added_to_what_is_there_and_hooks_see_them() -> None:
    x = dg.tensor(X, requires_grad=True)
    seen: list[Any] = []
    x.register_hook(seen.append)
    dg.sum(x * 2.0).backward()
    dg.sum(dg.floor(x)).backward()
    assert [g.tolist() for g in seen] == [[2.0] * 3, [0.0] * 3]
    assert x.grad.tolist() == [2.0] * 3


def test_what_does_not_lead_to_an_output_is_still_refused() -> None:
    x, y = (dg.tensor(X, requires_grad=True) for _ in range(2))
    with pytest.raises(GradientError, match="do not depend"):
        dg.grad(dg.sum(dg.floor(x)), [y])
    with pytest.raises(GradientError, match="do not depend"):
        dg.grad(dg.sum(dg.floor(x).detach() + y), [x])
    shared = dg.exp(x)
    dg.sum(shared).backward()
    with pytest.raises(GradientError, match="freed"):
        dg.sum(dg.floor(shared)).backward()


SHAPES = [(), (0,), (1,), (2,), (0, 3), (3, 0), (0, 0), (2, 3), (2, 0, 3), (0, 2, 3), (2, 2, 0)]


@pytest.mark.parametrize("shape", [s for s in SHAPES if s])
@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_of_nothing(shape: Any, rows: int, bias: bool) -> None:
    """Also of vectors without elements: the product of nothing is zero."""
    arrays = [np.ones(shape, np.float32), np.ones((rows, shape[-1]), np.float32), np.full(rows, 2.0, np.float32)]
    arrays = arrays[: 3 if bias else 2]

    def run(*xs: Any) -> Any:
        y = F.linear(*xs)
        return [y, *dg.grad(dg.sum(y), list(xs))]

    eager, lazy = both(run, *arrays)
    assert eager == lazy
    want = arrays[0] @ arrays[1].T + (arrays[2] if bias else 0)
    assert eager[0] == want.tolist()
    assert [np.shape(g) for g in eager[1:]] == [np.shape(a.tolist()) for a in arrays]
