"""NumPy's functions, operators and protocols on tensors of both modes: they work, or say in words why not."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import assert_modes_agree
from dualgraph import static
from dualgraph.errors import SymbolError

A = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]], np.float32)
N = np.array([[1, 2, 3], [4, 5, 6]])

BINARY = {
    name: getattr(operator, name)
    for name in "add sub mul truediv floordiv mod pow lt le gt ge eq ne and_ or_ xor lshift rshift".split()
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("left", [N, np.int64(3), np.array(3)], ids=["array", "scalar", "shape ()"])
def test_operators_with_an_array_on_the_left(name: str, left: Any) -> None:
    """They give tensors in both modes, as with the tensor on the left."""
    assert_modes_agree(lambda x: [BINARY[name](left, x)], [N], name, order=0)
    got = BINARY[name](left, dg.tensor(N)).numpy()
    np.testing.assert_array_equal(got, BINARY[name](left, N).astype(got.dtype))  # integers are divided as float32


def test_products_and_floats_with_an_array_on_the_left() -> None:
    for left in (A, np.float32(2.0), np.float64(2.0)):
        for name in ("add", "sub", "mul", "truediv", "pow", "lt"):
            assert_modes_agree(lambda x, left=left, name=name: [BINARY[name](left, x)], [A], name)
    assert_modes_agree(lambda x: [A.T @ x], [A], "matmul")


REDUCTIONS = [
    getattr(np, name) for name in "sum prod mean var std max min any all amax amin".split() if hasattr(np, name)
]


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"axis": 0, "keepdims": True}], ids=str)
def test_reductions(function: Any, options: dict[str, Any]) -> None:
    """The methods of tensors, with a gradient."""
    assert_modes_agree(lambda x: [function(x, **options)], [A], function.__name__)
    got = function(dg.tensor(A), **options)
    assert isinstance(got, dg.Tensor)
    np.testing.assert_allclose(got.numpy(), function(A, **options), rtol=1e-6)


def test_options_of_reductions() -> None:
    x = dg.tensor(A)
    np.testing.assert_allclose(np.std(x, ddof=1).numpy(), np.std(A, ddof=1), rtol=1e-6)
    assert np.sum(x, dtype="float64").dtype == np.float64


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": np.sin, "isnan": np.isnan, "maximum": lambda x: np.maximum(x, 1.0), "in place": lambda x: A.copy().__iadd__(x),
    "reduce": np.add.reduce, "out": lambda x: np.add(A, x, out=A.copy()), "concatenate": lambda x: np.concatenate([x, x]),
    "format": lambda x: f"{dg.sum(x):.3f}", "format of more": lambda x: format(x, "10"), "dlpack": np.from_dlpack,
    "contains": lambda x: 2.0 in x, "asarray": np.asarray, "divmod": lambda x: np.divmod(x, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_symbol_has_no_values_for_numpy(name: str) -> None:
    def traced(x: Any) -> Any:
        return FUNCTIONS[name](x)

    with pytest.raises(SymbolError, match="its value is known only when the compiled graph runs") as info:
        static.jit(traced)(A)
    assert info.value.where is not None
    assert info.value.where.file == __file__


def test_plain_formats_of_symbols_are_their_names() -> None:
    static.jit(lambda x: (f"{x}", x)[1])(A)


def test_contains() -> None:
    x = dg.tensor(A)
    assert 2.0 in x
    assert 6.5 in x
    assert np.float32(6.5) in x
    assert dg.tensor(2.0) in x
    assert 7 not in x
    assert None not in x
    assert 0.0 in dg.tensor(0.0)
    assert 0.0 not in dg.zeros((0, 3))


def test_dlpack_gives_a_copy() -> None:
    for x in (dg.tensor(A), dg.tensor(A).T, dg.Variable(A), dg.tensor(2.0), dg.tensor(N)[:, 1:]):
        array = np.from_dlpack(x)
        assert np.array_equal(array, x.numpy())
        assert not np.shares_memory(array, x.numpy())
    with pytest.raises(BufferError):
        np.from_dlpack(dg.tensor(A), copy=False)


def test_masks_that_hide_nothing() -> None:
    array = np.ma.array(A, mask=False)
    assert np.array_equal(dg.tensor(array).numpy(), A)
    assert np.array_equal(static.jit(lambda x: x * 1.0)(array).numpy(), A)


@pytest.mark.parametrize("shape", [(4,), (2, 2), ()])
def test_bools_are_zeros_and_ones(shape: tuple[int, ...]) -> None:
    """Also those of a view of other bytes, wherever they come in."""
    odd = np.array([2, 0, 255, 1], np.uint8)[: int(np.prod(shape))].reshape(shape).view(bool)
    want = odd.view(np.uint8) != 0
    made = {
        "tensor": dg.tensor(odd), "asarray": dg.asarray(odd), "variable": dg.Variable(odd), "list": dg.tensor([odd]),

        "result": static.jit(lambda x: x)(odd), "constant": static.jit(lambda x: dg.reshape(dg.asarray(odd), (-1,)))(A),
    }  # fmt: skip
    for name, x in made.items():
        assert x.numpy().view(np.uint8).tobytes() == want.view(np.uint8).tobytes(), name


@pytest.mark.parametrize("compare", [np.array_equal, np.array_equiv])
def test_numpy_finds_no_symbols_unequal(compare):
    """It takes every error for "not equal"."""
    with pytest.raises(SymbolError, match="where"):
        static.jit(lambda a: a * 2.0 if compare(a, a) else a * 3.0)(dg.ones(2))


@pytest.mark.parametrize("function", [np.sort, np.argsort, np.median, np.sin, np.asarray], ids=lambda f: f.__name__)
def test_the_line_of_a_function_of_numpy_is_the_users(function: Any) -> None:
    with pytest.raises(SymbolError) as caught:
        static.jit(lambda x: function(x))(dg.ones(3))
    assert caught.value.where.file == __file__
