"""Numbers of calls are operands of kernels: a new value, or a new length, makes no new machine code.

Machine code is never unloaded. So a schedule of values, or rows of many lengths, must not make a kernel for each. Every
parameter of every public operation that takes a number is given new ones, with the gradient where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.calls import OPERATIONS, Function, Made, passed_as
from dualgraph import static
from dualgraph.core.tensor import Tensor
from dualgraph.kernels.llvm import engine

# Four first: what depends on the kind of a number (its sign, whether it is an integer) is made by then.
VALUES = [0.3, 0.45, 0.6, 0.75, *[0.301 + 0.0371 * n for n in range(6)]]
LENGTHS = [150, 151, 154, 157, *range(158, 164)]  # of one class: folds of few, of some and of many have their own code


def total(found: Any) -> Any:
    """The sum of what a call gave, as far as it is floats."""
    results = found if isinstance(found, (list, tuple)) else [found]
    return sum((dg.sum(y * y) for y in results if isinstance(y, Tensor) and y.requires_grad), dg.tensor(0.0))


def made_by(run: Callable[[Any], Any], values: list[Any], first: int = 4) -> int:
    """How many kernels the later values make."""

    def call(value: Any) -> None:
        found = total(run(value))
        if found.requires_grad:
            found.backward()

    for value in values[:first]:
        call(value)
    before = len(engine._addresses)
    for value in values[first:]:
        call(value)
    return len(engine._addresses) - before


def called(function: Function, name: str, value: Any) -> Any:
    args, named = function.call(name, value)
    leaf = dg.tensor(np.arange(1, 7, dtype=np.float32).reshape(2, 3), requires_grad=True)

    def make(array: Any) -> Any:
        return dg.tensor(array, requires_grad=array.dtype.kind == "f")

    if any(isinstance(v, Made) for v in (*args, *named.values())):
        return None
    return function.function(
        *[passed_as(v, make, leaf) for v in args], **{k: passed_as(v, make, leaf) for k, v in named.items()}
    )


def numbers() -> list[tuple[str, str]]:
    """Every parameter of every operation that takes a number which is no integer."""
    found = []
    for name, function in OPERATIONS.items():
        if name.startswith("extend."):  # the parameters of operations of the user's own are constants of their code
            continue
        for p in function.parameters:
            if p.name != "self":
                try:
                    if called(function, p.name, 0.3) is not None:
                        found.append((name, p.name))
                except (dg.errors.DualgraphError, TypeError):
                    continue
    return found


NUMBERS = numbers()


def test_the_family_is_found() -> None:
    for known in (("dg.full", "value"), ("dg.full_like", "value"), ("dg.arange", "step"), ("F.dropout", "p"),
                  ("dg.var", "correction"), ("dg.clip", "min"), ("F.elu", "alpha"), ("dg.multiply", "y")):  # fmt: skip
        assert known in NUMBERS


@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
def test_a_new_number_makes_no_code(name: str, parameter: str) -> None:
    assert made_by(lambda v: called(OPERATIONS[name], parameter, v), VALUES) == 0


ROWS: dict[str, Callable[[Any, Any], Any]] = {
    **{
        name: lambda x, y, name=name: getattr(dg, name)(x) for name in ("sum", "mean", "var", "std", "max", "logsumexp")
    },
    "softmax": lambda x, y: dg.softmax(x, 0),
    "cross_entropy": lambda x, y: F.cross_entropy(x, y),
    "nll_loss": lambda x, y: F.nll_loss(x, y),
    "mse_loss": lambda x, y: F.mse_loss(x, dg.zeros_like(x)),
    "full": lambda x, y: x * dg.full(x.shape, 2.5),
    "arange": lambda x, y: dg.arange(len(x)) * dg.sum(x),
    "dropout": lambda x, y: F.dropout(x, 0.3),
    "linear": lambda x, y: F.linear(x, dg.ones((4, 3))),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_new_length_makes_no_code(name: str) -> None:
    def run(n: int) -> Any:
        x = dg.tensor(np.linspace(-1, 1, 3 * n, dtype=np.float32).reshape(n, 3), requires_grad=True)
        return ROWS[name](x, dg.zeros(n, dtype="int64"))

    assert made_by(run, LENGTHS) == 0


def test_the_second_gradient_of_a_new_length_makes_no_code() -> None:
    for function in (dg.mean, dg.var, lambda x: F.mse_loss(x, dg.zeros_like(x))):

        def run(n: int, function: Any = function) -> Any:
            x = dg.tensor(np.linspace(-1, 1, n, dtype=np.float32), requires_grad=True)
            (g,) = dg.grad(function(x), [x], create_graph=True)
            return g

        assert made_by(run, LENGTHS) == 0


def test_a_count_sees_what_is_made() -> None:
    """The check above fails where code is made: each exponent that is a constant of a fresh trace has its own."""
    assert made_by(lambda v: static.jit(lambda x: x * v)(dg.ones(3)), [0.71, 0.72, 0.73], first=2) == 1
