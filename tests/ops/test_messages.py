"""Errors of senseless arguments: the right class, the function called and the user's own positions, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.errors import ArgumentError, DTypeError, RangeError, ShapeError

X = dg.tensor([[1.0, 2.0], [3.0, 4.0]])
EMPTY = dg.zeros((2, 0))


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "message"),
    [
        (
            lambda x, i: dg.take_along_axis(x, i, axis=0),
            (X, dg.tensor([[0, 5], [1, 1]])),
            RangeError,
            "take_along_axis: got index 5 at position (0, 1);",
        ),
        (
            lambda x, i: dg.take(x, i, axis=1),
            (X, dg.tensor([[0, 1], [1, -7]])),
            RangeError,
            "take: got index -7 at position (1, 1);",
        ),
        (lambda x, i: dg.take(x, i, axis=0), (X, dg.tensor(9)), RangeError, "take: got index 9; every"),
        (lambda i: dg.one_hot(i, 3), (dg.tensor([1, 4]),), RangeError, "one_hot: got label 4 at position (1,);"),
        (lambda i: dg.one_hot(i, 3), (dg.tensor([1.0]),), DTypeError, "one_hot: got label of float32;"),
        (dg.cross_entropy, (X, dg.tensor([1, 4])), RangeError, "cross_entropy: got label 4 at position (1,);"),
        (dg.std, (dg.tensor([1, 2]),), DTypeError, "std: got int64;"),
        (lambda x: dg.logsumexp(x, axis=1), (EMPTY,), ShapeError, "logsumexp: got shape (2, 0), empty"),
        (
            lambda x: dg.randint(0, 10, (3,)),  # type: ignore[arg-type]
            (X,),
            ArgumentError,
            "write randint(shape, low, high)",
        ),
    ],
)
def test_messages(function: Callable[..., Any], arguments: tuple[Any, ...], kind: type, message: str) -> None:
    for mode in (function, static.jit(function)):
        with pytest.raises(kind) as caught:
            mode(*arguments)
        assert message in str(caught.value)


@pytest.mark.parametrize("seed", ["a", 1.5, None])
def test_seeds_are_integers(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="it must be an integer"):
        dg.manual_seed(seed)


@pytest.mark.parametrize(("value", "dtype"), [(2**40, "int32"), (1e30, "int64"), (float("nan"), "int32")])
def test_data_must_fit_an_integer_dtype(value: Any, dtype: str) -> None:
    with pytest.raises(DTypeError, match=r"tensor: got .* for int\d\d, whose range is -"):
        dg.tensor([value, 1], dtype=dtype)


@pytest.mark.filterwarnings("error")
def test_data_beyond_float32_is_infinite() -> None:
    assert dg.tensor([1e300], dtype="float32").tolist() == dg.tensor([1e300]).tolist() == [float("inf")]
    assert dg.tensor([1e300, 0.1], dtype="float64").tolist() == [1e300, 0.1]
    assert dg.tensor([1.7, -(2.0**63)], dtype="int64").tolist() == [1, -(2**63)]
