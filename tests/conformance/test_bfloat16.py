"""bfloat16: stored so, calculated in float32, rounded once by each operation; the same bits in every mode."""

from __future__ import annotations

import copy
from fractions import Fraction
from pickle import dumps, loads  # noqa: TID251 - what users do with tensors
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.modes import assert_bits, assert_modes_agree, differentiated, leaves, run_eager, run_static
from conformance.samples import ELEMENTWISE, FLOAT_DOMAINS, FLOATING, Sample
from dualgraph import errors, nn, optim, static
from dualgraph.bits import same_bits
from dualgraph.core.mode import bind
from dualgraph.dtypes import COMPUTED, DTYPES, NAMES, NUMPY_DTYPES, converted, widened
from dualgraph.kernels import expr as E
from dualgraph.kernels import provider, reference
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program
from dualgraph.ops.reduce import _fold_op
from dualgraph.ops.registry import OPS
from dualgraph.spec import Spec, is_float

Array = np.ndarray[Any, Any]
BFLOAT16 = NUMPY_DTYPES["bfloat16"]
ALL = np.arange(2**16, dtype=np.uint16).view(BFLOAT16)
ONE_NAN = DTYPES["bfloat16"].one_nan


def bits(x: Array) -> Any:
    return x.view(np.uint16)


def bfloat16(values: Any) -> Array:
    return np.asarray(values).astype(BFLOAT16)


SPECIAL = bfloat16(
    [0.0, -0.0, 1.0, -1.5, 3.0, 1 / 3, 88.5, -103.0, 2.0**-133, -(2.0**-126), 3.3e38, -3.3e38, np.inf, -np.inf, np.nan]
)

# ------------------------------------------------------------------------------------------------------- conversions


def floats32() -> Array:
    """Bits drawn at random, every bfloat16, and the neighbours of every tie between two of them."""
    drawn = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    upper = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    return np.concatenate([drawn, *(upper + np.uint32(low) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF))]).view(
        np.float32
    )


def floats64() -> Array:
    """Also what lies so near to a tie that float32 takes it for one."""
    wide = floats32()[100_000:]
    wide = wide[~np.isnan(wide)].astype(np.float64)
    drawn = np.random.default_rng(1).integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64)
    return np.concatenate([drawn, wide, np.nextafter(wide, np.inf), np.nextafter(wide, -np.inf)])


def integers64() -> Array:
    rng = np.random.default_rng(2)
    sums = (np.int64(1) << rng.integers(0, 62, 100_000)) + (np.int64(1) << rng.integers(0, 62, 100_000))
    near = sums + rng.integers(-1, 2, 100_000)
    ends = np.array([2**63 - 1, -(2**63), 2**62 + 2**54, 2**62 + 2**54 + 1, 2**53 + 1])
    return np.concatenate([near, -near, rng.integers(-(2**63), 2**63 - 1, 100_000), ends])


SOURCES = {
    "float32": floats32,
    "float64": floats64,
    "int64": integers64,
    "int32": lambda: integers64().astype(np.int32),
    "bool": lambda: np.array([False, True]),
}


def cast(x: Array, to: str, load: Any) -> Any:
    """A conversion by one provider."""
    program = Program()
    operand, out = program.input(Spec(x.shape, x.dtype.name)), program.new(Spec(x.shape, to))
    code, results = E.linearise([E.cast(E.input(0, x.dtype.name), to)])
    program.add(Loop(code, results, (x.dtype.name,), (False,)), (out,), (operand,), x.shape)
    program.outputs.append(out.buffer)
    return load(program).launch(x)


def nearest(x: Array) -> Array:
    """The definition: the nearest of the two neighbours, in exact integers and floats; ties to the even one."""
    exact = [v if isinstance(v, int) else float(v) for v in x.tolist()]
    found = np.empty(len(exact), np.uint16)
    steps = np.sort(widened(ALL[np.isfinite(widened(ALL))]).astype(np.float64))
    below = np.searchsorted(steps, np.array([float(v) for v in exact]), side="right") - 1
    for n, (value, at) in enumerate(zip(exact, below, strict=True)):
        if value != value:
            found[n] = ONE_NAN
            continue
        near = [float(steps[i]) for i in range(max(at - 1, 0), min(at + 3, len(steps)))]
        best = min(near, key=lambda s: (abs(Fraction(value) - Fraction(s)), int(bits(bfloat16(s))) & 1))
        found[n] = bits(bfloat16(np.copysign(best, value)))
    return found.view(BFLOAT16)


@pytest.mark.parametrize("load", [provider.load, reference.load], ids=["native", "reference"])
@pytest.mark.parametrize("to", NAMES)
def test_every_value_in_every_dtype(to: str, load: Any) -> None:
    """Widening is exact; integers are those of the float32 of the same value."""
    got = cast(ALL, to, load)
    wide = (bits(ALL).astype(np.uint32) << np.uint32(16)).view(np.float32)
    assert got.dtype == NUMPY_DTYPES[to]
    if to == "bfloat16":
        assert same_bits(got, ALL)  # a copy keeps the bits of a NaN
    elif is_float(to):
        number = (bits(ALL) & 0x7FFF) <= DTYPES["bfloat16"].infinity
        assert (bits(converted(got, "bfloat16"))[number] == bits(ALL)[number]).all()
        assert_bits([np.signbit(got[number])], [bits(ALL)[number] >= 2**15], to)
        if to == "float32":
            assert same_bits(got, wide)  # a copy, also of a NaN
        else:
            assert set(got[~number].view(np.uint64).tolist()) == {DTYPES[to].one_nan}
    else:
        assert_bits([got], [dg.astype(wide, to).numpy()], to)


@pytest.mark.parametrize("load", [provider.load, reference.load], ids=["native", "reference"])
@pytest.mark.parametrize("name", SOURCES)
def test_from_every_dtype_rounded_once(name: str, load: Any) -> None:
    x = SOURCES[name]()
    assert x.dtype == NUMPY_DTYPES[name]
    got = cast(x, "bfloat16", load)
    assert_bits([got], [converted(x, "bfloat16")], name)
    if name == "float32":  # from which NumPy's own conversion rounds once, too
        number = (x.view(np.uint32) & 0x7FFFFFFF) <= DTYPES["float32"].infinity
        assert (bits(got)[number] == bits(bfloat16(x[number]))).all()
        assert set(bits(got)[~number].tolist()) == {ONE_NAN}


@pytest.mark.parametrize("name", ["float64", "int64", "int32"])
def test_the_nearest_number(name: str) -> None:
    """Against exact arithmetic: what is near to a tie is not rounded twice."""
    x = SOURCES[name]()
    largest = DTYPES["bfloat16"].highest
    x = x[np.abs(x.astype(np.float64)) <= largest][:: len(x) // 2000]
    assert_bits([converted(x, "bfloat16")], [nearest(x)], name)
    if name == "float64":
        tie = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 - 2.0**-9 - 2.0**-40, 2.0**-134 * (1 + 2.0**-40)])
        assert converted(tie, "bfloat16").tolist() == [1 + 2.0**-7, 1.0, 1 - 2.0**-8, 2.0**-133]


# ---------------------------------------------------------------------------------------------------------- operations

# Functions of several operations, each of which rounds.
SEVERAL = ("pow-2", "pow-3", "astype-float", "extreme_vjp")


def in_float32(sample: Sample, arrays: list[Array]) -> list[Any]:
    """The results of float32, those of floats rounded."""
    found = run_eager(sample.function, [widened(a) for a in arrays])
    return [converted(y, "bfloat16") if y.dtype == np.float32 else y for y in found]


def rounded(arrays: list[Any]) -> list[Any]:
    return [converted(y, "bfloat16") if y.dtype == np.float32 else y for y in arrays]


@pytest.mark.parametrize("sample", [s for s in FLOATING if str(s) not in SEVERAL], ids=str)
def test_an_operation_is_that_of_float32_rounded(sample: Sample) -> None:
    """Composites, reductions and products, too, round nothing but their results; in both modes."""
    arrays = sample.arrays("bfloat16")
    expected = in_float32(sample, arrays)
    assert_bits(rounded(run_eager(sample.function, arrays)), expected, "eager")
    for level in ("none", "exact"):
        assert_bits(rounded(run_static(sample.function, arrays, level)), expected, level)


@pytest.mark.parametrize("sample", ELEMENTWISE, ids=str)
def test_all_values(sample: Sample) -> None:
    """Every one of the 65,536 for one operand; every pair of special ones for two."""
    floats = sum(o.split(":")[0] in FLOAT_DOMAINS for o in sample.operands)
    if not floats:
        return  # of integers and bools
    arrays = [ALL] if floats == 1 else [np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))]
    if sample.op == "where":
        arrays = [np.arange(len(arrays[0])) % 2 == 0, *arrays]
    got = assert_modes_agree(sample.function, arrays, str(sample), order=2 if floats == 2 else 1)[0]
    expected = in_float32(sample, arrays)[0]
    if sample.op in ("where", "identity"):  # which copy
        expected = np.where(np.isnan(expected), got, expected)
    assert_bits([got], [expected], str(sample))


OPERATORS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "sqrt": np.sqrt,
             "abs": np.abs, "negative": np.negative, "floor": np.floor, "maximum": np.maximum}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_against_ml_dtypes(name: str) -> None:
    """Whose operations are those of float32, rounded to nearest."""
    x = np.random.default_rng(3).permutation(ALL[np.isfinite(widened(ALL))])
    operands = [x] if name in ("sqrt", "abs", "negative", "floor") else [x, x[::-1].copy()]
    if name == "maximum":
        operands = [np.where(y == 0, bfloat16(1), y) for y in operands]  # NumPy leaves the sign of zero open
    with np.errstate(all="ignore"):
        expected = OPERATORS[name](*operands)
    got = getattr(dg, name)(*operands).numpy()
    number = ~np.isnan(widened(expected))
    assert (bits(got)[number] == bits(expected)[number]).all()
    assert set(bits(got)[~number].tolist()) <= {ONE_NAN}


def test_fused_operations_round_where_single_ones_do() -> None:
    x, y, z = (bfloat16(np.random.default_rng(n).normal(size=1000)) for n in range(3))

    def function(x: Any, y: Any, z: Any) -> Any:
        return (x * y + z) * x - y / z

    graph = static.jit(function)
    (got,) = [graph(x, y, z).numpy()]
    assert_bits([got], [(x * y + z) * x - y / z], "ml_dtypes, step by step")
    once = widened(x) * widened(y)
    once = (once + widened(z)) * widened(x) - widened(y) / widened(z)
    assert not same_bits(got, converted(once, "bfloat16"))  # one rounding at the end is something else
    assert_modes_agree(function, [x, y, z], "chain", order=2)
    executable = static.compile(function, static.spec((1000,), "bfloat16"), *[static.spec((1000,), "bfloat16")] * 2)
    assert len(executable.program.steps) == 1


def test_python_numbers_are_bfloat16() -> None:
    x = dg.tensor([3.0], dtype="bfloat16")
    for value in (0.1, 1 / 3, 7, True, -2.5):
        assert_bits([(x * value).numpy()], [(x * dg.tensor(value, dtype="bfloat16")).numpy()], str(value))
        assert (x + value).dtype == dg.bfloat16


def test_a_large_integer_meets_bfloat16_rounded() -> None:
    i, x = dg.tensor([257, 2**62 + 2**54 + 1]), dg.tensor([1.0, 1.0], dtype="bfloat16")
    assert (i * x).tolist() == i.astype("bfloat16").tolist() == [256.0, float(2**62 + 2**55)]


SMOOTH = [s for s in FLOATING if s.smooth and str(s) not in ("astype-int32",)]


@pytest.mark.parametrize("sample", SMOOTH, ids=str)
def test_gradients_are_near_those_of_float32(sample: Sample) -> None:
    arrays = sample.arrays("bfloat16")
    got = run_eager(differentiated(sample.function), arrays)
    expected = run_eager(differentiated(sample.function), [widened(a) for a in arrays])
    for x, y in zip(got, expected, strict=True):
        if is_float(x.dtype.name):
            room = 0.04 * max(1e-3, float(np.abs(y).max(initial=0.0)))
            np.testing.assert_allclose(widened(x), y, rtol=0, atol=room)


def test_seen_from_an_expression() -> None:
    x = E.input(0, "bfloat16")
    with pytest.raises(errors.DTypeError, match="add: got bfloat16; kernels calculate in float32; cast to it first"):
        x + x
    with pytest.raises(errors.DTypeError, match="fold of bfloat16"):
        E.fold("sum", x)
    assert E.widened(E.literal(1.5, "bfloat16")).op == E.LITERAL


# ------------------------------------------------------------------------------------------------------------- tensors


def test_tensors_of_it() -> None:
    x = dg.tensor([[1.5, 0.1]], dtype="bfloat16")
    assert x.dtype == dg.bfloat16 == ml_dtypes.bfloat16
    assert x.spec == Spec((1, 2), "bfloat16")
    assert np.asarray(x).dtype == ml_dtypes.bfloat16
    assert repr(x) == "tensor([[1.5     , 0.100098]], dtype=bfloat16)"
    assert repr(dg.ones(2, dtype="bfloat16")) == "tensor([1., 1.], dtype=bfloat16)"
    assert x.tolist() == [[1.5, 0.10009765625]]
    assert isinstance(x[0, 1].item(), float)
    assert float(x[0, 0]) == 1.5
    for name in ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16), dg.bfloat16):
        assert dg.zeros(2, dtype=name).dtype == dg.bfloat16
    assert dg.tensor(x.numpy()).dtype == dg.tensor([ml_dtypes.bfloat16(2)]).dtype == dg.bfloat16
    assert dg.tensor(x, dtype="int32").tolist() == [[1, 0]]
    for other in (loads(dumps(x)), copy.deepcopy(x), dg.tensor(x)):  # noqa: S301
        assert same_bits(other.numpy(), x.numpy())
    with pytest.raises(BufferError, match=r"got bfloat16\[1, 2\]; NumPy, which exports it, knows no bfloat16 there"):
        np.from_dlpack(x)
    assert not np.asarray(x).flags.writeable


def test_data_is_rounded_once() -> None:
    values = [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8]
    for data in (values, np.array(values)):
        assert dg.tensor(data, dtype="bfloat16").tolist() == [1 + 2.0**-7, 1.0]
    assert dg.full((), values[0], dtype="bfloat16").item() == 1 + 2.0**-7
    assert (dg.tensor(1.0, dtype="bfloat16") * values[0]).item() == 1 + 2.0**-7
    assert dg.tensor([1e39, -1e300], dtype="bfloat16").tolist() == [np.inf, -np.inf]
    for wrong in (float("nan"), 3e38):
        with pytest.raises(errors.DTypeError, match="for int64, whose range"):
            dg.tensor(bfloat16([wrong]), dtype="int64")


def test_copies_keep_bits() -> None:
    x = dg.tensor(ALL).reshape(256, 256)
    (got,) = [dg.where(True, x.mT.mT[::-1][::-1], x).numpy()]
    assert same_bits(got.reshape(-1), ALL)
    assert same_bits(dg.take(x, dg.arange(256), axis=0).numpy(), x.numpy())
    assert same_bits(dg.concat([x, x])[256:].numpy(), x.numpy())


def test_random_numbers() -> None:
    dg.manual_seed(3)
    x = dg.rand((100, 100), dtype="bfloat16").numpy().astype(np.float64)
    assert x.min() >= 0
    assert x.max() < 1
    assert set(np.unique(x * 256).tolist()) == set(range(256))  # as many bits as it has
    spread = dg.randn(10_000, dtype="bfloat16").numpy().astype(np.float64)
    assert abs(spread.mean()) < 0.05
    assert abs(spread.std() - 1) < 0.05
    between = dg.uniform(10_000, -1.0, 3.0, dtype="bfloat16").numpy().astype(np.float64)
    assert between.min() >= -1
    assert between.max() < 3
    whole = dg.randint(1000, -256, 257, dtype="bfloat16").numpy().astype(np.float64)
    assert (whole == np.round(whole)).all()
    with pytest.raises(errors.DTypeError, match="for bfloat16, which holds the integers -256 to 256"):
        dg.randint(3, 0, 300, dtype="bfloat16")


# ------------------------------------------------------------------------------------------------------------ training


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(6, 16, dtype="bfloat16"), nn.LayerNorm(16, dtype="bfloat16")
        self.out = nn.Linear(16, 3, dtype="bfloat16")

    def forward(self, x: Any) -> Any:
        return self.out(self.norm(dg.gelu(self.hidden(x))))


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_to_equal_bits(name: str) -> None:
    x = bfloat16(np.random.default_rng(7).normal(size=(32, 6)))
    labels = np.argmax(x[:, :3].astype(np.float32), 1)

    def trained(compiled: bool) -> tuple[list[float], list[Any]]:
        dg.manual_seed(1)
        model = Net()
        optimizer = OPTIMIZERS[name](model.parameters())

        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            loss = dg.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss

        run = static.jit(step) if compiled else step
        losses = [run(dg.tensor(x), dg.tensor(labels)).item() for _ in range(30)]
        return losses, [p.numpy().copy() for p in model.parameters()]

    (eager, weights), (compiled, same) = trained(False), trained(True)
    assert eager == compiled
    assert_bits(same, weights, name)
    assert eager[-1] < eager[0] / 2
    assert {w.dtype for w in weights} == {BFLOAT16}


def test_leaves_of_it_have_gradients() -> None:
    x = dg.tensor([1.0, 2.0], dtype="bfloat16", requires_grad=True)
    dg.sum(x * x.astype("float32")).backward()
    assert x.grad is not None
    assert x.grad.dtype == dg.bfloat16
    assert x.grad.tolist() == [2.0, 4.0]
    assert [y.dtype for y in leaves([x.grad])] == [dg.bfloat16]
    assert set(COMPUTED) & {"bfloat16"} == set()


def test_the_gradient_of_a_mean_divides_by_the_whole_count() -> None:
    """1,001 is no bfloat16: the quotient is rounded, the count is not."""

    def slope(x: Any) -> Any:
        return dg.grad(dg.mean(x) * 3.0, [x])[0]

    x = dg.ones(1001, dtype="bfloat16").requires_grad_()
    for run in (slope, static.jit(slope)):
        assert same_bits(run(x).numpy(), np.full(1001, np.float32(3) / np.float32(1001)).astype(BFLOAT16))


def test_a_fold_of_what_is_calculated_keeps_the_dtype() -> None:
    """As sums do: an expression before a fold calculates in float32, and the result is stored as the operand is."""
    op = _fold_op("sum_of_squares", "sum", None, lambda x: x * x)
    x = dg.tensor(np.linspace(-3, 3, 7), dtype="bfloat16")

    def run(x: Any) -> Any:
        return bind(op, x, axes=(0,), keepdims=False)

    expected = np.float32(np.sum(x.numpy().astype(np.float32) ** 2)).astype(BFLOAT16)
    try:
        for mode in (run, static.jit(run)):
            assert same_bits(mode(x).numpy(), np.asarray(expected))
    finally:
        del OPS["sum_of_squares"]


def test_dropout_scales_by_what_was_asked() -> None:
    """1 / (1 - p) is not rounded before the product is: the mean stays what it was."""
    x = dg.full(10_000, 3.0, dtype="bfloat16")
    for p in (0.1, 0.3, 0.7):
        kept = np.float32(3.0) * np.float32(1.0 / (1.0 - p))
        for run in (lambda x, p=p: F.dropout(x, p), static.jit(lambda x, p=p: F.dropout(x, p))):
            assert set(run(x).tolist()) == {0.0, float(kept.astype(BFLOAT16))}


@pytest.mark.parametrize("value", [2**63, 2**63 + 2**55 + 1, 2**64 - 1, 2**53 + 1, -(2**63)])
def test_large_integers_beside_it(value: int) -> None:
    """Rounded once, to the nearest."""
    ends = [int(float(converted(np.float32(value) * s, "bfloat16"))) for s in (0.9921875, 1.0, 1.0078125)]
    found = int((dg.ones(1, dtype="bfloat16") * value).item())
    assert abs(found - value) == min(abs(end - value) for end in ends)
