"""Dtypes of results: the one asked for, the default where None is asked for, the promotion table; numbers of NumPy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.calls import NEED_VALUES, OPERATIONS, Function, run
from conformance.modes import assert_bits, leaves
from dualgraph import errors, static
from dualgraph.dtypes import NAMES, NUMPY_DTYPES
from dualgraph.spec import is_float

WITH_DTYPE = [name for name, f in OPERATIONS.items() if any(p.name == "dtype" for p in f.parameters)]
INTEGERS = ("bool", "int32", "int64")


def result(function: Function, static_mode: bool = False, **changed: Any) -> Any:
    """The tensor that a sample call gives, one argument changed."""
    found: list[Any] = []

    def kept(*args: Any, **named: Any) -> None:
        found.append(function.function(*args, **named))

    dg.manual_seed(0)
    ((name, value),) = changed.items() if changed else ((None, None),)
    outcome = run(kept, *function.call(name, value), static_mode)
    if outcome.error is not None:
        raise outcome.error
    return found[0]


@pytest.mark.parametrize("name", WITH_DTYPE)
def test_the_dtype_asked_for(name: str) -> None:
    """Each dtype that is accepted is that of the result; None is the function's own default, in both modes."""
    function = OPERATIONS[name]
    accepted = []
    for dtype in NAMES:
        try:
            found = result(function, dtype=dtype).dtype
        except errors.DualgraphError:  # such as random floats of an integer dtype
            continue
        assert found == NUMPY_DTYPES[dtype]
        accepted.append(dtype)
    assert {"float32", "float64"} <= set(accepted)
    (parameter,) = (p for p in function.parameters if p.name == "dtype")
    for static_mode in (False, True)[: 1 if name in NEED_VALUES else 2]:
        none = result(function, static_mode, dtype=None).dtype
        if parameter.default is not parameter.empty:
            assert none == result(function, static_mode, dtype=parameter.default).dtype
            assert parameter.default is None or none == NUMPY_DTYPES[parameter.default]
        else:
            assert none == np.float32  # that of the sample


def test_none_is_the_default_outside_of_operations() -> None:
    assert static.spec((2,), None).dtype == "float32"
    assert dg.nn.Linear(2, 2, dtype=None).weight.dtype == np.float32
    with static.Graph():
        assert static.placeholder("x", (2,), None).dtype == np.float32


def met(a: str, b: str) -> str:
    """The promotion table of the array API standard, completed: a float meets an integer in its own dtype."""
    if "bfloat16" in (a, b):  # which NumPy does not know: the narrowest float
        other = b if a == "bfloat16" else a
        return "bfloat16" if other in INTEGERS else other
    if (a in INTEGERS) == (b in INTEGERS):
        return str(np.result_type(NUMPY_DTYPES[a], NUMPY_DTYPES[b]).name)
    return b if a in INTEGERS else a


MEET = "add multiply floor_divide remainder minimum maximum matmul vecdot where".split()
FLOATS = "divide copysign atan2".split()
COMPARED = "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor".split()


@pytest.mark.parametrize("a", NAMES)
@pytest.mark.parametrize("b", NAMES)
def test_promotion(a: str, b: str) -> None:
    with static.Graph():  # the rule is that of both modes, and nothing need be compiled
        check_promotion(a, b, static.placeholder("x", (2, 2), a), static.placeholder("y", (2, 2), b))


def check_promotion(a: str, b: str, x: Any, y: Any) -> None:
    wanted = NUMPY_DTYPES[met(a, b)]
    for name in MEET:
        function = (lambda x, y: dg.where(True, x, y)) if name == "where" else getattr(dg, name)
        assert function(x, y).dtype == wanted, name
    for name in FLOATS:
        assert getattr(dg, name)(x, y).dtype == (wanted if is_float(wanted.name) else np.float32), name
    for name in COMPARED:
        assert getattr(dg, name)(x, y).dtype == np.bool_, name
    assert dg.concat([x, y]).dtype == wanted
    assert dg.stack([x, y]).dtype == wanted
    if (a, b) == ("bool", "bool"):
        with pytest.raises(errors.DTypeError, match="powers are those of numbers"):
            dg.power(x, y)
    else:
        assert dg.power(x, y).dtype == wanted


@pytest.mark.parametrize("dtype", NAMES)
def test_python_numbers_beside_a_tensor(dtype: str) -> None:
    """They take its dtype unless their kind is higher."""
    x = dg.ones(2, dtype=dtype)
    whole = np.dtype("int64") if dtype == "bool" else NUMPY_DTYPES[dtype]
    real = NUMPY_DTYPES[dtype] if dtype not in INTEGERS else np.dtype("float32")
    for n in (2, 3):
        assert (x + n).dtype == (x * n).dtype == (x**n).dtype == (n + x).dtype == whole
        assert (x + float(n)).dtype == (x ** float(n)).dtype == real
    assert dg.logical_and(x, True).dtype == np.bool_
    assert (x * True).dtype == NUMPY_DTYPES[dtype]


@pytest.mark.parametrize("dtype", NAMES)
def test_sums_and_products(dtype: str) -> None:
    x = dg.ones(3, dtype=dtype)
    default = np.dtype("int64") if dtype in INTEGERS else NUMPY_DTYPES[dtype]
    assert dg.sum(x).dtype == dg.prod(x).dtype == default
    for asked in NAMES:
        assert dg.sum(x, dtype=asked).dtype == dg.prod(x, axis=0, dtype=asked).dtype == NUMPY_DTYPES[asked]


def test_sums_and_products_in_int32_wrap() -> None:
    x = dg.tensor([[2**31 - 1, 1, 5], [2**20, 2**11, 3]], dtype="int32")
    for function, reference in ((dg.sum, np.sum), (dg.prod, np.prod)):
        for compiled in (False, True):
            call = functools.partial(function, axis=1, dtype="int32")
            got = static.jit(call)(x) if compiled else call(x)  # fmt: skip
            assert_bits([got.numpy()], [reference(x.numpy(), axis=1, dtype=np.int32)], "wrapped")


WHOLE = [
    lambda n: np.int64(n), lambda n: np.int32(n), lambda n: np.int8(n), lambda n: np.array(n), lambda n: np.array(n, np.int16),
]  # fmt: skip


def _as_numpy(value: Any, make: Any) -> Any:
    if value.__class__ is int:
        return make(value)
    if value.__class__ is tuple and value and all(n.__class__ is int for n in value):
        return tuple(make(n) for n in value)
    return value


@pytest.mark.parametrize("name", OPERATIONS)
def test_integers_of_numpy(name: str) -> None:
    """Where a Python integer is an axis, a length, a count or a seed, one of NumPy is the same."""
    function = OPERATIONS[name]
    args, named = function.call()
    for p in function.parameters:
        if p.name == "axis" and p.default is not p.empty:
            named.setdefault("axis", 0 if p.default is None else p.default)
    if "value" in named or not any(_as_numpy(v, np.int64) is not v for v in (*args, *named.values())):
        return
    kept: list[Any] = []

    def call(*args: Any, **named: Any) -> None:
        dg.manual_seed(5)
        kept.append(function.function(*args, **named))

    for make in (lambda n: n, *WHOLE):
        outcome = run(
            call, [_as_numpy(v, make) for v in args], {k: _as_numpy(v, make) for k, v in named.items()}, False
        )
        assert outcome.error is None, outcome.error
    expected, *others = [[x.numpy() for x in leaves(found)] for found in kept]
    for got in others:
        assert_bits(got, expected, name)
    dg.set_num_threads(THREADS)


THREADS = dg.get_num_threads()


def test_the_dtype_of_a_value() -> None:
    """`full` and `asarray` keep the dtype that a value has; Python numbers have a default."""
    for value, dtype in (
        (True, "bool"), (3, "int64"), (3.0, "float32"), (np.bool_(True), "bool"), (np.int32(3), "int32"), (np.int64(3), "int64"),
        (np.float32(3), "float32"), (np.float64(3), "float64"), (np.array(3), "int64"),
    ):  # fmt: skip
        assert dg.full(2, value).dtype == dg.asarray(value).dtype == NUMPY_DTYPES[dtype], value
        assert dg.full(2, dg.asarray(value)).dtype == NUMPY_DTYPES[dtype], value
        assert dg.full_like(dg.ones(2, dtype="int32"), value).tolist() == [int(value)] * 2
    assert dg.arange(np.int64(3)).dtype == dg.arange(0, np.int32(3), np.int64(1)).dtype == np.int64
    assert dg.arange(np.float32(3)).dtype == np.float32
    assert dg.full((2, 2), dg.tensor([1, 2])).tolist() == [[1, 2], [1, 2]]
    assert static.jit(lambda x: dg.full((2, 2), x))(np.array([1, 2])).tolist() == [[1, 2], [1, 2]]
    with pytest.raises(errors.DTypeError, match="range"):
        dg.full(2, np.int64(2**40), dtype="int32")


def test_whole_ranges() -> None:
    assert dg.linspace(0, 3, 3, dtype="int32").tolist() == np.linspace(0, 3, 3, dtype=np.int32).tolist()
    assert dg.arange(0.0, 4.0, 2.0, dtype="int64").tolist() == [0, 2]
    with pytest.raises(errors.ArgumentError, match="must be integers"):
        dg.arange(0, 5, 0.5, dtype="int64")
    with pytest.raises(errors.DTypeError, match="range"):
        dg.arange(2**31 - 1, 2**31 + 2, dtype="int32")
