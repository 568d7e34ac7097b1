"""Values and derivatives at kinks, poles and ends of the range: PyTorch's, by the table in `kinks.py`, in both modes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import dualgraph as dg
from conformance import kinks
from conformance.modes import assert_modes_agree, gradients
from dualgraph.kernels import expr as E
from dualgraph.nn import functional as F
from dualgraph.ops import OPS
from dualgraph.spec import is_float

FLOATS = ("float32", "float64")


def derivatives(function, x):
    """Value, first and second derivative of an elementwise function of one tensor, as arrays."""
    found = [function(x)]
    for order in (1, 2):
        last = found[-1]
        if not last.requires_grad:
            found.append(dg.zeros(x.shape, dtype=x.dtype))
            continue
        (g,) = dg.grad([last], [x], [dg.ones_like(last)], create_graph=order == 1, allow_unused=True)
        found.append(dg.zeros(x.shape, dtype=x.dtype) if g is None else g)
    return [y.detach().numpy() for y in found]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", kinks.KINKS)
def test_kinks(name, dtype):
    function, points = kinks.function(name), np.array(kinks.POINTS.split(), dtype)
    # a number of six digits; results near 0 may lose those below the spacing of numbers near 1
    room = {"rtol": 1e-5, "atol": max(4 * np.finfo(dtype).eps, 1e-12)}
    for order, got in zip(kinks.ORDERS, derivatives(function, dg.tensor(points, requires_grad=True)), strict=True):
        expected = kinks.expected(name, order).astype(dtype)
        np.testing.assert_allclose(got, expected, **room, err_msg=f"{name}, {order}, at {kinks.POINTS}")
    assert_modes_agree(function, [points], name, order=2)


def code_of(scalar):
    """The instructions of an elementwise op over floats."""
    leaves = [E.input(i, "bool" if i < scalar.conditions else "float64") for i in range(scalar.arity)]
    try:
        return E.linearise([scalar.expression(*leaves, **({"dtype": "float32"} if scalar.name == "astype" else {}))])[0]
    except dg.errors.DTypeError:
        return ()  # bits


# The only one whose kink is its own: x / (abs(x) + 1) has the derivative 1 at 0, whatever that of abs.
KINKED = {"minimum", "maximum", "abs", "softsign"}


def test_no_composed_expression_hides_a_kink():
    """Instructions with a kink stand alone: in composed code the halves of a tie add up by luck at best.

    Code with slopes of its own is not differentiated.
    """
    kinked = {"minimum", "maximum", "abs"}
    found = {
        name
        for name, op in OPS.items()
        if op.scalar is not None and op.scalar.slopes is None and kinked & {i.op for i in code_of(op.scalar)}
    }
    assert found == KINKED


# ------------------------------------------------------------------------------------------------- two operands

# Ends of the range where x * x + y * y over- or underflows in float32; in float64 the squares of these.
FAR = np.array([0.0, -0.0, 1.0, -2.0, 3.0, 1e30, -1e30, 1e-30, -1e-30], np.float32)


@pytest.mark.parametrize("dtype", FLOATS)
def test_atan2_at_ends_of_the_range(dtype):
    """x / (x**2 + y**2) and -y / (x**2 + y**2), computed in extended precision; PyTorch: 0 at the origin, as here."""
    far = FAR.astype(dtype) if dtype == "float32" else np.copysign(FAR.astype(dtype) ** 2, FAR)
    y, x = np.repeat(far, len(far)), np.tile(far, len(far))
    operands = [dg.tensor(a, requires_grad=True) for a in (y, x)]
    found = dg.grad([dg.atan2(*operands)], operands, [dg.ones(x.shape, dtype=dtype)])
    wide, long = y.astype(np.longdouble), x.astype(np.longdouble)
    square = wide * wide + long * long
    square[square == 0] = 1
    for got, expected in zip(found, (long / square, -wide / square), strict=True):
        np.testing.assert_allclose(got.numpy(), expected.astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=0)
    assert_modes_agree(dg.atan2, [y, x], "atan2", order=2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_atan2_at_infinity_is_flat(dtype):
    y, x = (np.array(a, dtype) for a in ([1, 0, 3, math.inf, -math.inf], [math.inf, math.inf, -math.inf, 2, 0]))
    operands = [dg.tensor(a, requires_grad=True) for a in (y, x)]
    for g in dg.grad([dg.atan2(*operands)], operands, [dg.ones(5, dtype=dtype)]):
        assert np.array_equal(g.numpy(), np.zeros(5))


@pytest.mark.parametrize("dtype", FLOATS)
def test_clip_to_tensors(dtype):
    """PyTorch's: bounds belong to x, what is beyond goes to the bound, max wins over min, NaN has no gradient."""
    nan = math.nan
    rows = [  # x, min, max, result, and the gradients of x, min and max
        (0.5, 0.0, 1.0, 0.5, 1, 0, 0),
        (0.0, 0.0, 1.0, 0.0, 1, 0, 0),
        (1.0, 0.0, 1.0, 1.0, 1, 0, 0),
        (-2.0, 0.0, 1.0, 0.0, 0, 1, 0),
        (5.0, 0.0, 1.0, 1.0, 0, 0, 1),
        (0.5, 2.0, 1.0, 1.0, 0, 0, 1),
        (9.0, 2.0, 1.0, 1.0, 0, 0, 1),
        (-9.0, 2.0, 1.0, 1.0, 0, 0, 1),
        (-math.inf, 0.0, 1.0, 0.0, 0, 1, 0),
        (math.inf, 0.0, math.inf, math.inf, 1, 0, 0),
        (nan, 0.0, 1.0, nan, 0, 0, 0),
        (0.5, nan, 1.0, nan, 0, 0, 0),
        (0.5, 0.0, nan, nan, 0, 0, 0),
    ]
    *arrays, result, for_x, for_low, for_high = (np.array(column, dtype) for column in zip(*rows, strict=True))
    operands = [dg.tensor(a, requires_grad=True) for a in arrays]
    clipped = dg.clip(*operands)
    np.testing.assert_array_equal(clipped.detach().numpy(), result)
    found = dg.grad([clipped], operands, [dg.ones(len(rows), dtype=dtype)])
    for got, expected in zip(found, (for_x, for_low, for_high), strict=True):
        np.testing.assert_array_equal(got.numpy(), expected)
    assert_modes_agree(dg.clip, arrays, "clip")


def test_clip_of_integers_and_without_bounds():
    n = dg.tensor([1, 5, 9])
    assert dg.clip(n, 2, 6).tolist() == [2, 5, 6]
    assert (dg.clip(n, 2, 6).dtype, dg.clip(n, 0.5, 6.5).dtype) == ("int64", "float32")
    assert dg.clip(n, 0.5, 6.5).tolist() == [1.0, 5.0, 6.5]
    assert np.isnan(dg.clip(n, math.nan).numpy()).all()
    assert dg.clip([1, 2]).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", FLOATS)
def test_exponents_of_zero_differentiate_twice(dtype):
    """x**n for n = 0, 1, 2, 3 as one tensor of exponents, also where 1 / x**2 overflows."""
    x = dg.tensor(np.array([[0.0], [-0.0], [1e-25], [-1e-25], [3.0]], dtype), requires_grad=True)
    powers = dg.power(x, dg.arange(4, dtype=dtype))
    (first,) = gradients_of_ones(powers, x, create_graph=True)
    (second,) = gradients_of_ones(first, x)
    tiny = np.array([[0.0], [-0.0], [1e-25], [-1e-25], [3.0]], dtype)
    np.testing.assert_allclose(first.detach().numpy(), 1 + 2 * tiny + 3 * tiny**2, rtol=1e-6)
    np.testing.assert_allclose(second.numpy(), 2 + 6 * tiny, rtol=1e-6)


def gradients_of_ones(y, x, create_graph=False):
    return dg.grad([y], [x], [dg.ones(y.shape, dtype=y.dtype)], create_graph=create_graph)


def test_elu_of_a_tensor_of_slopes():
    x, alpha = np.array([-1.0, 0.0, 2.0]), np.array([2.0, 3.0, 4.0])
    operands = [dg.tensor(a, requires_grad=True) for a in (x, alpha)]
    for_x, for_alpha = gradients([dg.elu(*operands)], operands)
    weight = gradients([operands[0] * 1.0], [operands[0]])[0].numpy()
    np.testing.assert_allclose(for_x.numpy(), weight * [2 * math.exp(-1), 3, 1])
    np.testing.assert_allclose(for_alpha.numpy(), weight * [math.expm1(-1), 0, 0])
    assert_modes_agree(dg.elu, [x, alpha], "elu", order=2)


# ------------------------------------------------------------------------------------------------- rows

INF, NAN = math.inf, math.nan

# rows, correction, and PyTorch's variance, deviation, and gradients of both
SPREADS = [
    ([3.0, 3.0, 3.0], 0, 0.0, 0.0, [0, 0, 0], [0, 0, 0]),
    ([3.0, 3.0, 3.0], 1, 0.0, 0.0, [0, 0, 0], [0, 0, 0]),
    ([0.0, -0.0], 1, 0.0, 0.0, [0, 0], [0, 0]),
    ([5.0], 0, 0.0, 0.0, [0], [0]),
    ([5.0], 1, NAN, NAN, [NAN], [NAN]),
    ([1.0, 3.0], 2, INF, INF, [-INF, INF], [NAN, NAN]),
    ([2.0, 2.0], 2, NAN, NAN, [NAN, NAN], [NAN, NAN]),
    ([1.0, 3.0], 1, 2.0, math.sqrt(2), [-2, 2], [-math.sqrt(0.5), math.sqrt(0.5)]),
    ([1.0, 3.0], 0.5, 4 / 3, math.sqrt(4 / 3), [-4 / 3, 4 / 3], [-math.sqrt(1 / 3), math.sqrt(1 / 3)]),
    ([1.0, INF], 0, NAN, NAN, [-INF, NAN], [NAN, NAN]),
    # more correction than elements: PyTorch's values; its gradients divide by the negative number, ours by 0 as well
    ([1.0, 3.0], 7, INF, INF, [-INF, INF], [NAN, NAN]),
    ([2.0, 2.0], 7, NAN, NAN, [NAN, NAN], [NAN, NAN]),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("number", range(len(SPREADS)))
def test_variance_and_deviation_of_few(number, dtype):
    row, correction, variance, deviation, for_var, for_std = SPREADS[number]
    for function, value, gradient in ((dg.var, variance, for_var), (dg.std, deviation, for_std)):
        x = dg.tensor(np.array(row, dtype), requires_grad=True)
        y = function(x, correction=correction)
        y.backward()
        np.testing.assert_allclose(y.item(), value, rtol=1e-6)
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-6)
        with_axes = lambda x, f=function: f(x, axis=1, correction=correction, keepdims=True)  # noqa: E731
        assert_modes_agree(with_axes, [np.array([row, row], dtype)], function.__name__, order=2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_deviation_of_a_constant_row_differentiates_twice(dtype):
    """PyTorch: 0. And a penalty on the gradient beside ordinary rows stays finite."""
    x = dg.tensor(np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]], dtype), requires_grad=True)
    (first,) = dg.grad(dg.sum(dg.std(x, axis=1)), [x], create_graph=True)
    (second,) = dg.grad(dg.sum(first * first * first), [x])
    assert first.detach().numpy()[0].tolist() == second.numpy()[0].tolist() == [0, 0, 0]
    assert np.isfinite(second.numpy()).all()


def test_variance_of_nothing():
    for correction in (0, 1):
        for function in (dg.var, dg.std):
            assert math.isnan(function(dg.zeros(0), correction=correction).item())
            assert function(dg.zeros((0, 3)), axis=1, correction=correction).shape == (0,)


def test_dropping_everything_gives_zero():
    x = dg.tensor([1.0, -1.0, math.inf, math.nan], requires_grad=True)
    dropped = F.dropout(x, 1.0)
    dropped.backward(dg.ones(4))
    assert dropped.detach().numpy().tobytes() == x.grad.numpy().tobytes() == np.zeros(4, np.float32).tobytes()


# ------------------------------------------------------------------------------------------------- bools

NUMPY_REFUSES = {"negative": np.negative, "sign": np.sign, "subtract": np.subtract}
WITHOUT_BOOLS = {**NUMPY_REFUSES, "bitwise_left_shift": None, "bitwise_right_shift": None}  # NumPy's are of int8


@pytest.mark.parametrize("name", WITHOUT_BOOLS)
def test_arithmetic_without_meaning_for_bools(name):
    """As NumPy and the array API standard have it; the same words in both modes."""
    arity = OPS[name].scalar.arity
    arrays = [np.array([True, False])] * arity
    if name in NUMPY_REFUSES:
        with pytest.raises(TypeError):
            NUMPY_REFUSES[name](*arrays)
    messages = set()
    for operands in (arrays, [dg.tensor(a) for a in arrays], [dg.tensor(arrays[0]), *[True] * (arity - 1)]):
        with pytest.raises(dg.errors.DTypeError, match=f"{name}: got bool") as raised:
            getattr(dg, name)(*operands)
        messages.add(str(raised.value).splitlines()[0])
    with pytest.raises(dg.errors.DTypeError) as raised:
        dg.static.compile(getattr(dg, name), *[dg.static.spec((2,), "bool")] * arity)
    messages.add(str(raised.value).splitlines()[0])
    assert len(messages) == 1
    assert "cast with astype" in messages.pop()


def test_operators_without_meaning_for_bools():
    x = dg.tensor([True])
    for wrong in (lambda: -x, lambda: x - x, lambda: x - True, lambda: True - x, lambda: x << x, lambda: x >> True):
        with pytest.raises(dg.errors.DTypeError, match="got bool"):
            wrong()
    assert ((1 - x).tolist(), (x - 1).tolist(), (-(x * 1)).tolist()) == ([0], [0], [-1])
    assert ((~x).tolist(), (x ^ x).tolist(), (x + x).tolist(), (+x).tolist()) == ([False], [False], [True], [True])


def test_a_bool_to_an_integer_power_is_an_integer():
    for n in (0, 1, 2, 3):
        y = dg.tensor([True, False]) ** n
        assert (y.dtype, y.tolist()) == ("int64", [1, 0**n])


def test_instructions_know_what_they_are_defined_for():
    for op, row in E.INSTRUCTIONS.items():
        for dtype in ("bool", "int64", "float32"):
            kind = "bool" if dtype == "bool" else "float" if is_float(dtype) else "integer"
            operands = [E.input(i, dtype) for i in range(row.arity)]
            if op in ("select", *E.CONVERSIONS):
                continue
            if kind in E.KINDS[row.kinds]:
                E.call(op, *operands)
            else:
                with pytest.raises(dg.errors.DTypeError, match=f"{op}: got {dtype}"):
                    E.call(op, *operands)
