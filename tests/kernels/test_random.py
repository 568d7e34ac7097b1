"""Philox as expressions against a plain writing of it, which in turn is checked against NumPy and the known answers."""

import math

import numpy as np
import pytest

from dualgraph.kernels import expr as E
from dualgraph.kernels import random
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program
from dualgraph.kernels.reference import load
from dualgraph.spec import Spec

SIZE = 20_000


def philox4(counter, key, width, rounds=10):
    """Philox4xW in Python integers (SC'11, section 3.2 and table 2)."""
    multipliers, weyl = {
        32: ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)),
        64: ((0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)),
    }[width]
    mask = 2**width - 1
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(rounds):
        p0, p1 = multipliers[0] * x0, multipliers[1] * x2
        x0, x1, x2, x3 = (p1 >> width) ^ x1 ^ k0, p1 & mask, (p0 >> width) ^ x3 ^ k1, p0 & mask
        k0, k1 = (k0 + weyl[0]) & mask, (k1 + weyl[1]) & mask
    return x0, x1, x2, x3


def run(make, *scalars, shape=(SIZE,)):
    """The results of `make(*scalars)` over a domain; scalars are NumPy scalars, broadcast."""
    program = Program()
    made = make(*(E.input(i, s.dtype.name) for i, s in enumerate(scalars)))
    code, results = E.linearise(made)
    views = [program.input(Spec((), s.dtype.name)).broadcast_to(shape) for s in scalars]
    kernel = Loop(code, results, tuple(s.dtype.name for s in scalars), (False,) * len(scalars))
    outs = [program.new(Spec(shape, dtype)) for dtype in kernel.output_dtypes]
    program.outputs += [o.buffer for o in outs]
    program.add(kernel, outs, views, shape)
    result = load(program).launch(*(np.array(s) for s in scalars))
    return result if isinstance(result, tuple) else (result,)


def sample(function, *args, seed=12345, draw=7, shape=(SIZE,)):
    scalars = [np.asarray(a)[()] for a in args if not isinstance(a, str)]
    names = [a for a in args if isinstance(a, str)]
    return run(lambda s, d, *xs: [function(s, d, *xs, *names)], np.int64(seed), np.int64(draw), *scalars, shape=shape)[
        0
    ]


# --------------------------------------------------------------------------------------------------------- the bits


@pytest.mark.parametrize("key", [(0, 0), (1, 2), (2**64 - 1, 0x123456789ABCDEF)])
def test_the_plain_philox_equals_numpy(key):
    for counter in ((0, 0, 0, 0), (5, 6, 7, 8), (2**64 - 1, 1, 2**63, 3)):
        state = np.random.Philox(counter=sum(c << (64 * i) for i, c in enumerate(counter)), key=key[0] | key[1] << 64)
        following = ((sum(c << (64 * i) for i, c in enumerate(counter)) + 1) % 2**256).to_bytes(32, "little")
        words = tuple(np.frombuffer(following, "<u8").tolist())  # NumPy counts before it draws
        assert state.random_raw(4).tolist() == list(philox4(words, key, 64))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, words):
    assert philox4(counter, key, 32) == words
    scalars = np.array([*counter, *key], "uint32").view("int32")
    made = run(lambda a, b, c, d, k, m: random.philox4x32((a, b, c, d), (k, m)), *scalars, shape=(1,))
    assert tuple(int(w.view("uint32")[0]) for w in made) == words


@pytest.mark.parametrize("rounds", [1, 2, 7, 10])
def test_expressions_equal_the_plain_philox(rounds):
    words = np.random.default_rng(rounds).integers(0, 2**32, (20, 6), dtype="uint32")
    for row in words:
        made = run(
            lambda a, b, c, d, k, m: random.philox4x32((a, b, c, d), (k, m), rounds), *row.view("int32"), shape=(1,)
        )
        counter, key = row.tolist()[:4], row.tolist()[4:]
        assert tuple(int(w.view("uint32")[0]) for w in made) == philox4(counter, key, 32, rounds)


def words_of(seed, draw, index):
    halves = [v & 2**32 - 1 for n in (index, draw, seed) for v in (n % 2**64, n % 2**64 >> 32)]
    return philox4(halves[:4], halves[4:], 32)


@pytest.mark.parametrize(("seed", "draw"), [(0, 0), (12345, 7), (-1, 2**40 + 3), (2**63 - 1, -(2**63))])
def test_counter_and_key_layout(seed, draw):
    made = run(lambda s, d: random.block(s, d), np.int64(seed), np.int64(draw), shape=(2, 5))
    expected = [words_of(seed, draw, i) for i in range(10)]
    assert list(zip(*(w.view("uint32").ravel().tolist() for w in made), strict=True)) == expected


def test_uniform_takes_the_top_bits():
    words = [words_of(12345, 7, i) for i in range(9)]
    assert sample(random.uniform, "float32", shape=(9,)).tolist() == [(w[0] >> 8) * 2.0**-24 for w in words]
    expected = [((w[0] << 21) | (w[1] >> 11)) * 2.0**-53 for w in words]
    assert sample(random.uniform, "float64", shape=(9,)).tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_is_box_muller(dtype):
    for i, x in enumerate(sample(random.normal, dtype, shape=(50,)).tolist()):
        w = words_of(12345, 7, i)
        single = dtype == "float32"
        u = (w[0] + 1) * 2.0**-32 if single else ((w[0] << 21 | w[1] >> 11) + 1) * 2.0**-53
        v = (w[2] >> 8) * 2.0**-24 if single else (w[2] << 21 | w[3] >> 11) * 2.0**-53
        expected = math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
        assert math.isclose(x, expected, rel_tol=1e-5 if single else 1e-12, abs_tol=1e-5 if single else 1e-12)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 10), (-5, 5), (0, 2**32), (-7, 2**40), (-(2**63), 2**63 - 1), (3, 2**62)]
)
def test_integers_multiply_and_shift(low, high):
    made = sample(random.integers, np.int64(low), np.int64(high), shape=(200,)).tolist()
    words = [words_of(12345, 7, i) for i in range(200)]
    assert made == [low + ((w[0] | w[1] << 32) * (high - low) >> 64) for w in words]


# --------------------------------------------------------------------------------------------------- the statistics


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2).sum() / expected


def test_uniform_is_uniform():
    for dtype in ("float32", "float64"):
        x = sample(random.uniform, dtype)
        assert 0 <= x.min() <= x.max() < 1
        assert abs(x.mean() - 0.5) < 0.01
        assert abs(x.var() - 1 / 12) < 0.003
        assert chi_square(np.histogram(x, 64, (0, 1))[0]) < 130  # 63 degrees of freedom: probability below 1e-6


def test_normal_is_normal():
    for dtype in ("float32", "float64"):
        x = sample(random.normal, dtype).astype("float64")
        assert np.isfinite(x).all()
        assert abs(x.mean()) < 0.03
        assert abs(x.var() - 1) < 0.05
        assert abs((x**3).mean()) < 0.1
        assert abs((x**4).mean() - 3) < 0.25
        quantiles = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
        assert chi_square(np.histogram(quantiles, 64, (0, 1))[0]) < 130


def test_integers_are_even():
    x = sample(random.integers, np.int64(-3), np.int64(7))
    assert chi_square(np.bincount(x + 3, minlength=10)) < 45
    assert len(np.bincount(x + 3)) == 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bernoulli(dtype):
    p = np.dtype(dtype).type
    assert abs(sample(random.bernoulli, p(0.3)).mean() - 0.3) < 0.02
    assert not sample(random.bernoulli, p(0)).any()
    assert sample(random.bernoulli, p(1)).all()


def test_draws_seeds_and_neighbours_are_unrelated():
    base = sample(random.uniform, "float64")
    assert abs(np.corrcoef(base[:-1], base[1:])[0, 1]) < 0.03
    for other in ({"draw": 8}, {"seed": 12346}, {"draw": 7 + 2**32}, {"seed": 12345 + 2**32}):
        x = sample(random.uniform, "float64", **other)
        assert abs(np.corrcoef(base, x)[0, 1]) < 0.03
        assert not np.intersect1d(base, x).size


def test_the_shape_does_not_matter_only_the_position():
    flat = sample(random.normal, "float32", shape=(60,))
    assert sample(random.normal, "float32", shape=(3, 4, 5)).tobytes() == flat.tobytes()
    assert sample(random.normal, "float32", shape=(10,)).tobytes() == flat[:10].tobytes()
