"""`linspace` and `arange`: their ends, order and counts, against NumPy and exact arithmetic."""

from __future__ import annotations

import itertools
import math
import pickle  # noqa: TID251 - what users do with models
from fractions import Fraction

import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import assert_modes_agree
from dualgraph import static

LARGEST = np.finfo(np.float64).max
ENDS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    0.3,
    -0.7,
    1 / 3,
    49.0,
    1 + 2**-52,
    1e-310,
    -5e-324,
    1e30,
    1.7e308,
    -1.7e308,
    LARGEST,
)
COUNTS = (1, 2, 3, 4, 7, 50)
ALL = [(start, stop, n) for start, stop in itertools.combinations_with_replacement(ENDS, 2) for n in COUNTS]


def drawn(number):
    """Ends and counts, as in ordinary use."""
    rng = np.random.default_rng(number)
    return [(*rng.uniform(-10, 10, 2).tolist(), int(rng.integers(2, 100))) for _ in range(300)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cases", [ALL, drawn(1)], ids=["ends", "drawn"])
def test_linspace_meets_both_ends_in_order(cases, dtype):
    """The ends bit for bit, sorted, the same backwards, and near the exact numbers."""
    for start, stop, count in cases:
        x = dg.linspace(start, stop, num=count, dtype=dtype).numpy()
        with np.errstate(over="ignore"):
            ends = np.array([start, stop], dtype)
        what = (start, stop, count)
        assert x[0].tobytes() == ends[0].tobytes(), what
        if count == 1:
            continue
        assert x[-1].tobytes() == ends[1].tobytes(), what
        ordered = x if start <= stop else x[::-1]
        assert (ordered[1:] >= ordered[:-1]).all(), what
        np.testing.assert_array_equal(dg.linspace(stop, start, num=count, dtype=dtype).numpy()[::-1], x)
        if dtype == "float64":
            room = 2 * Fraction(math.ulp(max(abs(start), abs(stop)))) + count * Fraction(5e-324)
            for i, got in enumerate(x.tolist()):
                exact = Fraction(start) + (Fraction(stop) - Fraction(start)) * i / (count - 1)
                assert abs(Fraction(got) - exact) <= room, (*what, i)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_linspace_like_numpy(dtype):
    for start, stop, count in [*drawn(2), (0, 10, 5), (-3, 3, 4), (5, -5, 7), (2, 2, 3), (1, 9, 0), (1, 9, 1)]:
        got, expected = (
            dg.linspace(start, stop, num=count, dtype=dtype).numpy(),
            np.linspace(start, stop, count, dtype=dtype),
        )
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        if dtype == "float64":
            np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-14)
        else:
            np.testing.assert_array_equal(got, expected)


def test_linspace_in_both_modes():
    for count in (0, 1, 2, 5, 8):
        assert_modes_agree(lambda n=count: dg.linspace(-0.3, 1e10, num=n, dtype="float64"), [], "linspace")
        assert_modes_agree(lambda n=count: dg.linspace(7, -7, num=n, dtype="int32"), [], "linspace")


@pytest.mark.parametrize("ends", [(0.0, math.inf), (math.nan, 1.0), (-math.inf, math.inf)])
def test_linspace_between_ends_that_are_not_finite(ends):
    with pytest.raises(dg.errors.ArgumentError, match=r"linspace: got .* finite"):
        dg.linspace(*ends, num=3)


def test_arange_counts_and_values_like_numpy():
    rng = np.random.default_rng(3)
    steps = [0.1, 0.2, 0.3, 1 / 3, 0.7, -0.1, 0.25, *rng.uniform(-2, 2, 8).tolist()]
    for start, step, n in itertools.product((0, -2.5), steps, (0, 7, 12.3)):
        stop = start + step * n
        got, expected = (
            dg.arange(start, stop, step, dtype="float64").numpy(),
            np.arange(start, stop, step, dtype="float64"),
        )
        assert got.shape == expected.shape, (start, stop, step)
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_arange_of_integers_is_exact():
    for args in [
        (2**62, 2**62 + 3),
        (0, 2**62 + 1, 2**61),
        (-(2**63), 2**63 - 1, 2**62),
        (5, 0, -2),
        (5, 0),
        (0, -5, -2),
    ]:
        assert dg.arange(*args).tolist() == list(range(*args))


def test_arange_over_more_than_the_range_of_floats():
    with pytest.raises(dg.errors.ArgumentError, match=r"arange: .* finite"):
        dg.arange(-1.7e308, 1.7e308, 1e308)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_powers_of_integers_wrap(dtype):
    base = np.array([0, 1, -1, 2, 3, -3, 7, 2**30 - 1], dtype)
    exponent = np.array([0, 1, 2, 5, 31, 32, 63, 64, 65, 127, 128, 1000, 2**31 - 1], dtype)
    with np.errstate(over="ignore"):
        want = np.power(base[:, None], exponent)
    assert_modes_agree(lambda x, y: [dg.power(x, y)], [base[:, None], exponent], order=0)
    assert dg.power(dg.tensor(base[:, None]), dg.tensor(exponent)).numpy().tolist() == want.tolist()


@pytest.mark.parametrize(("low", "high", "dtype"), [(1000.0, 1001.0, "float32"), (1.0, 1 + 2**-22, "float32"),
                                                   (-3e38, 3e38, "float32"), (-1e308, 1e308, "float64"),
                                                   (0.0, 5e-324, "float64")])  # fmt: skip
def test_uniform_stays_below_its_end(low, high, dtype):
    dg.manual_seed(0)
    x = dg.uniform(100_000, low, high, dtype=dtype).numpy()
    assert np.isfinite(x).all()
    assert (x >= np.dtype(dtype).type(low)).all()
    assert (x < np.dtype(dtype).type(high)).all()


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(2**40, 2**40 + 5, "int32"), (-(2**31) - 3, 0, "int32"), (0, 2**31 + 1, "int32"), (2**24, 2**24 + 2, "float32"),
     (0, 3, "bool")],
)  # fmt: skip
def test_random_integers_fit_their_dtype(low, high, dtype):
    with pytest.raises(dg.errors.DTypeError, match="randint"):
        dg.randint(4, low, high, dtype=dtype)


def test_random_integers_reach_the_ends_of_their_dtype():
    x = dg.randint(1000, 2**31 - 2, 2**31, dtype="int32").numpy()
    assert sorted(set(x.tolist())) == [2**31 - 2, 2**31 - 1]


def test_the_gradient_of_a_product_with_a_zero_and_others():
    for row in ([np.inf, 0.0, 3.0], [np.nan, 0.0, 3.0], [np.inf, -np.inf, 0.0], [0.0, 0.0, np.inf], [0.0, 2.0, 3.0]):
        x = dg.tensor(np.array(row), requires_grad=True)
        whole = dg.grad(dg.prod(x), [x])[0].numpy()
        single = dg.grad(x[0] * x[1] * x[2], [x])[0].numpy()
        np.testing.assert_array_equal(whole, single)


def test_integer_ends_of_linspace():
    assert dg.linspace(0, 9, 4, dtype="int32").tolist() == [0, 3, 6, 9]
    with pytest.raises(dg.errors.DTypeError):
        dg.linspace(0, 2**40, 3, dtype="int32")
    with pytest.raises(dg.errors.ArgumentError, match="use arange"):
        dg.linspace(2**53 + 1, 2**53 + 3, 2, dtype="int64")


def test_every_public_function_is_found_by_its_name():
    for name in dg.__all__:
        value = getattr(dg, name)
        if callable(value) and not isinstance(value, type):
            assert pickle.loads(pickle.dumps(value)) is value, name  # noqa: S301


def test_the_gradient_of_a_product_is_the_product_of_the_others():
    """Also of zeros and infinities, in every combination."""
    values = [2.0, -3.0, 0.0, -0.0, np.inf, -np.inf, np.nan]
    rows = np.array(list(itertools.product(values, repeat=3)))

    def step(x):
        return dg.grad(dg.sum(dg.prod(x, axis=1)), [x])[0]

    x = dg.tensor(rows, requires_grad=True)
    found = step(x).numpy()
    assert static.jit(step)(x).numpy().tobytes() == found.tobytes()
    with np.errstate(invalid="ignore"):
        others = np.stack([np.delete(rows, i, axis=1).prod(axis=1) for i in range(3)], axis=1)
    here = ~np.isnan(rows)  # at a NaN the rule is another's: PyTorch's is NaN
    np.testing.assert_array_equal(found[here], others[here])
