"""The value of every op: against NumPy, against the reference provider, in special values, integers and bools."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance import samples
from conformance.modes import (
    NATIVE,
    assert_bits,
    assert_modes_agree,
    define,
    differentiated,
    random_state,
    run_eager,
    weight,
)
from conformance.samples import ELEMENTWISE, SAMPLES, Sample
from dualgraph import static
from dualgraph.core.op import Op
from dualgraph.dtypes import widened
from dualgraph.kernels import memory, provider, reference
from dualgraph.ops import OPS

FLOATS = ("float32", "float64")
BY_DTYPE = [(s, d) for s in SAMPLES for d in FLOATS if d == "float32" or s.has_floats]


def special_values(dtype: str) -> np.ndarray[Any, Any]:
    """Zeros, infinities, NaN, subnormals, ends of the range, ties of rounding, ends of exp."""
    f = np.finfo(dtype)
    ends = [f.max, f.tiny, f.smallest_subnormal, f.smallest_subnormal * 5, f.eps, np.inf]
    plain = [0.0, 0.5, 1.0, 1 + f.eps, 1.5, 2.5, 3.0, np.pi, 88.5, 103.0, 1e4]
    positive = np.array([*plain, *ends], dtype)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype)])


def distance(got: Any, expected: Any) -> Any:
    """In units in the last place of `got`'s dtype; 0 for equal infinities and NaNs, infinite for a wrong kind of value."""
    with np.errstate(all="ignore"):
        rounded = np.asarray(expected).astype(got.dtype)
        away = np.abs(np.asarray(got, np.longdouble) - expected) / np.spacing(np.abs(rounded))
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, 0.0, np.where(np.isfinite(away), away, np.inf))


def assert_close(got: Any, expected: Any, sample: Sample) -> None:
    """As near as the sample promises; anything but floats exactly."""
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
    elif sample.near:
        room = sample.near * max(1e-30, float(np.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=0, atol=room)
    else:
        away = distance(got, expected)
        allowed = max(sample.ulp, 0.5 if expected.dtype != got.dtype else 0.0)
        assert away.max(initial=0.0) <= allowed, f"{away.max()} ULP at {np.unravel_index(away.argmax(), away.shape)}"


def expected_of(sample: Sample, arrays: list[Any], dtype: str) -> list[Any]:
    found = sample.expected(arrays, dtype)
    return found if isinstance(found, list) else [found]


def test_every_op_has_samples() -> None:
    assert samples.missing(OPS) == []


# What a graph starts and ends with is made by recorders, not applied; a compiled graph is an op for each graph.
APPLIED_BY_NOBODY = {"constant", "placeholder", "variable", "gradient", "update", "result", "compiled"}


def test_every_op_is_registered() -> None:
    """An op that a module of the package holds, and that no conformance test would see."""
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "dualgraph"]
    found = {x for module in modules for x in vars(module).values() if isinstance(x, Op)}
    assert {op.name for op in found if OPS.get(op.name) is not op} <= APPLIED_BY_NOBODY


def test_a_missing_sample_is_named() -> None:
    assert "brand_new" in samples.missing([*OPS, "brand_new"])


@pytest.mark.parametrize(("sample", "dtype"), [c for c in BY_DTYPE if c[0].reference], ids=str)
def test_value_against_numpy(sample: Sample, dtype: str) -> None:
    arrays = sample.arrays(dtype)
    for got, expected in zip(run_eager(sample.function, arrays), expected_of(sample, arrays, dtype), strict=True):
        assert_close(got, expected, sample)


# A composed function loses digits where its parts cancel or underflow.
COMPOSED = ("silu", "softplus", "log_sigmoid", "gelu", "gelu_tanh")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sample", [s for s in ELEMENTWISE if s.has_floats], ids=str)
def test_special_values(sample: Sample, dtype: str) -> None:
    """Every pair of special values: NumPy's result, the signs of zeros included, and the same bits in every mode."""
    values = special_values(dtype)
    floats = sum(1 for o in sample.operands if o.split(":")[0] in samples.FLOAT_DOMAINS)
    arrays = [values] if floats == 1 else [np.repeat(values, len(values)), np.tile(values, len(values))]
    if sample.op == "where":
        arrays = [np.arange(len(arrays[0])) % 2 == 0, *arrays]
    got = assert_modes_agree(sample.function, arrays, f"{sample} {dtype}", order=2)[0]
    expected = np.asarray(sample.expected(arrays, dtype))
    if sample.op in COMPOSED:
        return
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    away = distance(got, expected)
    worst = int(away.argmax())
    allowed = max(sample.ulp, 0.5 if expected.dtype != got.dtype else 0.0)
    assert away[worst] <= allowed, (
        f"{away[worst]} ULP for {[a[worst] for a in arrays]}: {got[worst]}, not {expected[worst]}"
    )
    signs = (np.signbit(got) != np.signbit(expected)) & ~np.isnan(got)
    assert not signs.any(), f"sign of {got[signs]} for {[a[signs] for a in arrays]}"


# ------------------------------------------------------------------------------------------------- integers and bools

INTEGER_OPS: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "minimum": np.minimum, "maximum": np.maximum,
    "negative": np.negative, "abs": np.abs, "sign": np.sign, "square": np.square, "equal": np.equal, "less": np.less,
    "greater_equal": np.greater_equal, "bitwise_and": np.bitwise_and, "bitwise_xor": np.bitwise_xor,
    "bitwise_invert": np.invert, "where": np.where, "logical_and": np.logical_and,
    "floor_divide": lambda x, y: np.where(y == 0, 0, x // np.where(y == 0, 1, y)),
    "remainder": lambda x, y: np.where(y == 0, 0, x % np.where(y == 0, 1, y)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("op", INTEGER_OPS)
def test_integers(op: str, dtype: str) -> None:
    """Also at the ends of the range, where arithmetic wraps."""
    info = np.iinfo(dtype)
    values = np.array([0, 1, -1, 7, -7, 3, info.max, info.min, info.max - 1], dtype)
    arrays = [values] if OPS[op].scalar.arity == 1 else [np.repeat(values, len(values)), np.tile(values, len(values))]
    if op == "where":
        arrays = [arrays[0] > 0, *arrays]
    (got,) = assert_modes_agree(getattr(dg, op), arrays, op, order=0)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, INTEGER_OPS[op](*arrays))


REDUCTIONS: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all,
                              "argmax": np.argmax, "argmin": np.argmin, "count_nonzero": np.count_nonzero}  # fmt: skip


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64"])
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions_of_integers(op: str, dtype: str) -> None:
    array = np.random.default_rng(1).integers(0, 3, (5, 70)).astype(dtype)
    for axis in (0, 1):
        (got,) = assert_modes_agree(lambda x, axis=axis: getattr(dg, op)(x, axis=axis), [array], op, order=0)
        np.testing.assert_array_equal(got, REDUCTIONS[op](array, axis=axis))


@pytest.mark.parametrize("integer", ["int32", "int64"])
@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if any(o.split(":")[0] in samples.INTEGER_DOMAINS for o in s.operands)], ids=str
)
def test_every_integer_dtype_in_every_mode(sample: Sample, integer: str) -> None:
    arrays = sample.arrays("float32", integer)
    results = assert_modes_agree(sample.function, arrays, f"{sample} {integer}")
    for got, expected in zip(results, expected_of(sample, arrays, "float32"), strict=False):
        assert_close(got, expected, sample)


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", *FLOATS])
@pytest.mark.parametrize("options", [{}, {"axis": 0}, {"axis": (0, 2), "keepdims": True}, {"axis": ()}], ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 70), (0, 4, 2), (2, 0, 3), (1, 1, 1)])
def test_count_nonzero(dtype: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Also of nothing; NaN and subnormals count, -0.0 does not; a factor without a gradient."""
    array = np.random.default_rng(2).integers(0, 3, shape).astype(dtype)
    if dtype in FLOATS and array.size > 8:
        array.flat[:4] = np.nan, -0.0, np.finfo(dtype).smallest_subnormal, np.inf
    got, *_ = assert_modes_agree(
        lambda x: [dg.count_nonzero(x, **options), dg.count_nonzero(x, **options) * x], [array], "count_nonzero"
    )
    axis = options.get("axis")
    expected = np.not_equal(array, 0).sum(axis=axis, keepdims=options.get("keepdims", False))
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)


# A distance in float32 is computed in float64 and rounded once; in float64 it is within 1.5 ULP.
@pytest.mark.parametrize(("dtype", "ulp"), [("float32", 0.5), ("float64", 1.5)])
def test_hypot_over_the_whole_range(dtype: str, ulp: float) -> None:
    rng, f = np.random.default_rng(3), np.finfo(dtype)
    n, ends = 100_000, (int(f.minexp) - int(f.nmant), int(f.maxexp) - 1)
    exponents = rng.integers(*ends, n)
    others = np.clip(exponents + rng.integers(-30, 31, n), *ends)
    with np.errstate(all="ignore"):
        x, y = (np.ldexp(rng.uniform(1, 2, n), e).astype(dtype) for e in (exponents, others))
        exact = np.hypot(x.astype(np.longdouble), y.astype(np.longdouble))
        away = distance(dg.hypot(x, y).numpy(), exact)
    assert away.max() <= ulp


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient_of_hypot(dtype: str) -> None:
    """x / h and y / h, also where squares overflow or vanish; at the origin 0, and so is the second."""
    f = np.finfo(dtype)
    x = np.array([0.0, 3.0, f.max / 2, f.tiny * 3, 0.0], dtype)
    y = np.array([0.0, -4.0, f.max / 2, f.tiny * 4, 2.0], dtype)
    _, gx, gy, hx, hy = assert_modes_agree(lambda x, y: [dg.hypot(x, y)], [x, y], "hypot", order=2)[:5]
    seed = weight(x.shape, dtype)
    np.testing.assert_allclose(gx / seed, [0.0, 0.6, np.sqrt(0.5), 0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(gy / seed, [0.0, -0.8, np.sqrt(0.5), 0.8, 1.0], rtol=1e-6)
    assert hx[0] == hy[0] == 0.0
    assert np.isfinite([hx[1], hy[1], hx[4], hy[4]]).all()


# ------------------------------------------------------------------------------------------------- the two providers

# Where the two providers compute another way; all else (arithmetic, folds, indexing, random integers) has the same bits.
APPROXIMATE = 1e-5


def _programs(sample: Sample, arrays: Sequence[Any]) -> list[static.Executable]:
    graph, outputs = define(differentiated(sample.function, 1 if sample.has_floats else 0), arrays)
    return [static.compile(graph, outputs=outputs, optimize=level) for level in ("none", "exact")]


@pytest.mark.skipif(not NATIVE, reason="compares the native provider with the reference")
@pytest.mark.parametrize(("sample", "dtype"), [*BY_DTYPE, *((s, "bfloat16") for s in samples.FLOATING)], ids=str)
def test_against_the_reference_provider(sample: Sample, dtype: str) -> None:
    """Value and gradient; and the reference itself gives the same bits before and after the passes."""
    arrays = sample.arrays(dtype)
    dg.manual_seed(5)
    found = []
    for executable in _programs(sample, arrays):
        fed = [
            *arrays,
            *[np.array(v, np.int64) for v in random_state()][: len(executable.program.inputs) - len(arrays)],
        ]
        plain = reference.load(executable.program, memory.plan(executable.program)).launch(*[a.copy() for a in fed])
        native = provider.load(executable.program, executable.compilation.arena).launch(*[a.copy() for a in fed])
        found.append(
            [a.reshape(-1) for a in (plain if isinstance(plain, tuple) else (plain,))]
        )  # storages: of any shape
        for a, b in zip(found[-1], native if isinstance(native, tuple) else (native,), strict=True):
            assert a.dtype == b.dtype
            b = b.reshape(-1)
            if a.dtype == dg.bfloat16:
                np.testing.assert_allclose(widened(a), widened(b), rtol=2**-7, atol=2**-7)
            elif a.dtype.kind == "f":
                np.testing.assert_allclose(a, b, rtol=APPROXIMATE, atol=APPROXIMATE)
            else:
                np.testing.assert_array_equal(a, b)
    assert_bits(found[1], found[0], "reference provider, exact against none")
