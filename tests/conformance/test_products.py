"""Products have the bits of their values: however the operands lie in memory and however they were handed over.

What BLAS computes depends on layouts, and the modes do not share layouts: eager mode works on views as they are, static
mode copies its inputs, folds constants and drops transpositions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.layouts import LAYOUTS
from conformance.modes import assert_bits, define, leaves
from dualgraph import extend, nn, optim, static

Array = np.ndarray[Any, Any]

PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "matrices": (dg.matmul, (5, 10), (10, 7)),
    "transposed": (lambda x, y: x.mT @ y.mT, (10, 5), (7, 10)),
    "matrix-vector": (dg.matmul, (5, 10), (10,)),
    "vector-matrix": (dg.matmul, (10,), (10, 7)),
    "vectors": (dg.matmul, (10,), (10,)),
    "column": (dg.matmul, (5, 10), (10, 1)),
    "row": (dg.matmul, (1, 10), (10, 7)),
    "outer": (dg.matmul, (5, 1), (1, 7)),
    "one": (dg.matmul, (1, 10), (10, 1)),
    "batch": (dg.matmul, (2, 1, 5, 10), (3, 10, 7)),
    "batch-matrix": (dg.matmul, (3, 5, 10), (10, 7)),
    "large": (dg.matmul, (33, 70), (70, 40)),
    "linear": (dg.linear, (5, 10), (7, 10)),
    "linear-one": (dg.linear, (5, 10), (1, 10)),
    "linear-batch": (dg.linear, (2, 5, 10), (7, 10)),
    "integers": (lambda x, y: dg.astype(x, "int64") @ dg.astype(y * 9.0, "int32"), (5, 10), (10, 7)),
    "nothing": (dg.matmul, (5, 0), (0, 7)),
    "no-rows": (dg.matmul, (0, 10), (10, 7)),
}


def operands(name: str, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    _, a, b = PRODUCTS[name]
    return np.asarray(rng.normal(size=a), dtype), np.asarray(rng.normal(size=b), dtype)


def with_gradients(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The product, its gradients and theirs, of operands as they lie."""

    def run(x: Any, y: Any) -> list[Any]:
        out = function(x, y)
        if not out.requires_grad:
            return [out]
        g = dg.reshape(dg.arange(out.size, dtype=out.dtype) * 0.1 - 0.4, out.shape)
        first = dg.grad(out, [x, y], g, create_graph=True)
        second = dg.grad([dg.sum(z * z) for z in first], [x, y], allow_unused=True)
        return [out, *first, *second]

    return run


def laid(layout: str, array: Array) -> Any:
    """An eager tensor that is a leaf and lies as the layout says."""
    base, view = LAYOUTS[layout](array)
    return view(dg.tensor(base)).detach().requires_grad_()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_layouts(name: str, dtype: str) -> None:
    """Every pair of layouts, eagerly and as the arguments of compiled graphs; gradients to the second order."""
    run, (x, y) = with_gradients(PRODUCTS[name][0]), operands(name, dtype)
    expected = [z.numpy() for z in run(laid("contiguous", x), laid("contiguous", y))]
    graph, outputs = define(run, [x, y])
    compiled = [static.compile(graph, outputs=outputs, optimize=level) for level in ("none", "exact")]
    for first, second in itertools.product(LAYOUTS, LAYOUTS):
        given = laid(first, x), laid(second, y)
        for what in (run, *compiled):
            found = [z.numpy() for z in what(*given)]
            assert_bits(found, expected, f"{name}, {first} by {second}, {what}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [n for n in PRODUCTS if n != "integers"])
def test_ways_to_hand_operands_over(name: str, layout: str) -> None:
    """Views made inside, captured views, parameters, constants, results of compiled functions and of composites."""
    function, (x, y) = PRODUCTS[name][0], operands(name, "float32")
    expected = [z.numpy() for z in with_gradients(function)(laid("contiguous", x), laid("contiguous", y))]
    (base_x, view_x), (base_y, view_y) = LAYOUTS[layout](x), LAYOUTS[layout](y)
    captured = laid(layout, y).detach()
    parameter = nn.Parameter(laid(layout, y))
    composite = extend.composite("viewed", lambda t: view_x(t))

    def results(run: Callable[..., Any]) -> None:
        plain = lambda run: dg.tensor(run)  # noqa: E731
        out = run(lambda a, b: function(view_x(a), view_y(b)))(plain(base_x), plain(base_y))
        assert_bits([out.numpy()], expected[:1], f"{layout} inside")
        out = run(lambda a: function(view_x(a), captured))(plain(base_x))
        assert_bits([out.numpy()], expected[:1], f"{layout} captured")
        out = run(lambda a: function(composite(a), view_y(dg.tensor(base_y))))(plain(base_x))
        assert_bits([out.numpy()], expected[:1], f"{layout} composite and constant")
        viewed = run(lambda b: view_y(b) * 1.0)(plain(base_y))
        assert_bits([function(dg.tensor(x), viewed).numpy()], expected[:1], f"{layout} result")

        def step(a: Any) -> list[Any]:
            out = function(view_x(a), parameter)
            g = dg.reshape(dg.arange(out.size, dtype=out.dtype) * 0.1 - 0.4, out.shape)
            return [out, *dg.grad(out, [parameter], g)]

        assert_bits([z.numpy() for z in run(step)(plain(base_x))], [expected[0], expected[2]], f"{layout} parameter")

    results(lambda f: f)
    for level in ("none", "exact"):
        results(lambda f: static.jit(f, optimize=level))  # noqa: B023


def test_training_on_transposed_data() -> None:
    """Twenty steps on views of the data, in both modes: equal weights."""
    data = dg.tensor(np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32))
    target = dg.tensor(np.random.default_rng(1).standard_normal((50, 1)).astype(np.float32))

    def trained(wrap: Callable[..., Any]) -> list[Array]:
        dg.manual_seed(0)
        model = nn.Linear(8, 1)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            opt.zero_grad()
            loss = dg.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            return loss

        run = wrap(step)
        losses = [run(data.T, target) for _ in range(20)]
        return [x.numpy() for x in leaves([*losses, *model.parameters()])]

    expected = trained(lambda step: step)
    for level in ("none", "exact"):
        assert_bits(trained(lambda step: static.jit(step, optimize=level)), expected, level)  # noqa: B023


def test_gradients_of_ordinary_layers_copy_nothing() -> None:
    """What is transposed is told to BLAS: no kernel moves a weight or an activation."""
    x, weight = dg.Variable(np.ones((64, 32), np.float32)), dg.Variable(np.ones((16, 32), np.float32))
    for tensor in (x, weight):
        tensor.requires_grad_()

    def step() -> Any:
        out = dg.linear(x, weight)
        return [out, *dg.grad(out, [x, weight], out)]

    kernels = [type(s.kernel).__name__ for s in static.compile(step).executable.program.steps]
    assert kernels == ["MatMul"] * 3
