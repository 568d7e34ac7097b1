"""Bad input: the same exception class, message and user's line in both modes, and all state as it was before."""

from __future__ import annotations

import copy
import inspect
import math
import pickle  # noqa: TID251 - errors cross processes by it
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.modes import assert_bits, define, random_state
from dualgraph import errors, nn, optim, static
from dualgraph.core.mode import bind
from dualgraph.ops import OPS

FLOAT = np.arange(6, dtype=np.float32).reshape(2, 3)
LABELS = np.array([0, 1])


class Case(NamedTuple):
    """A wrong call of operations: `raises` and a word of the message, which names what was got."""

    function: Callable[..., Any]
    raises: type[errors.DualgraphError]
    says: str
    arrays: tuple[Any, ...] = (FLOAT,)


CASES: dict[str, Case] = {
    # shapes
    "add": Case(lambda x: x + np.ones((2, 2), np.float32), errors.ShapeError, "(2, 2)"),
    "add-long": Case(lambda x: dg.tanh(x) + np.ones(4, np.float32), errors.ShapeError, "(4,)"),
    "where": Case(lambda x: dg.where(x > 0, x, np.ones(5, np.float32)), errors.ShapeError, "where"),
    "matmul": Case(lambda x: x @ x, errors.ShapeError, "matmul"),
    "matmul-vector": Case(lambda x: dg.matmul(x, np.ones(2, np.float32)), errors.ShapeError, "matmul"),
    "matmul-scalar": Case(lambda x: dg.matmul(x, 2.0), errors.ShapeError, "scalars"),
    "matmul-batch": Case(lambda x: dg.matmul(np.ones((3, 1, 2), np.float32), dg.ones((2, 2, 3))), errors.ShapeError, "matmul"),
    "linear": Case(lambda x: F.linear(x, np.ones((4, 2), np.float32)), errors.ShapeError, "in_features"),
    "linear-bias": Case(lambda x: dg.linear(x, dg.ones((4, 3)), dg.ones(3)), errors.ShapeError, "bias"),
    "reshape": Case(lambda x: dg.reshape(x, (4, 2)), errors.ShapeError, "6 elements"),
    "reshape-twice": Case(lambda x: x.reshape(-1, -1), errors.ShapeError, "-1"),
    "broadcast_to": Case(lambda x: dg.broadcast_to(x, (2, 4)), errors.ShapeError, "(2, 4)"),
    "broadcast_to-less": Case(lambda x: dg.broadcast_to(x, (3,)), errors.ShapeError, "broadcast_to"),
    "concat": Case(lambda x: dg.concat([x, x.T]), errors.ShapeError, "concat"),
    "concat-nothing": Case(lambda x: dg.concat([]), errors.ArgumentError, "no tensors"),
    "stack": Case(lambda x: dg.stack([x, x.T]), errors.ShapeError, "stack"),
    "split": Case(lambda x: dg.split(x, 2, axis=1), errors.ShapeError, "split"),
    "squeeze": Case(lambda x: dg.squeeze(x, 0), errors.ShapeError, "squeeze"),
    "item-like": Case(lambda x: dg.take_along_axis(x, np.zeros((3, 3), np.int64), axis=1), errors.ShapeError, "(3, 3)"),
    "T": Case(lambda x: x[0].T, errors.ShapeError, ".T"),
    "len": Case(lambda x: len(dg.sum(x)), errors.ShapeError, "scalar"),
    "max-of-nothing": Case(lambda x: dg.max(x[:0], axis=0), errors.ShapeError, "empty"),
    "argmax-of-nothing": Case(lambda x: dg.argmax(x[:0], axis=0), errors.ShapeError, "empty"),
    "mse": Case(lambda x: dg.mse_loss(x, x[0]), errors.ShapeError, "mse_loss"),
    "full": Case(lambda x: x + dg.zeros((2, -3)), errors.ShapeError, "-3"),
    "uneven": Case(lambda x: x + dg.tensor([[1.0], [1.0, 2.0]]), errors.ShapeError, "uneven"),
    # axes and indices
    "sum-axis": Case(lambda x: dg.sum(x, axis=2), errors.AxisError, "axis 2"),
    "sum-twice": Case(lambda x: dg.sum(x, axis=(0, -2)), errors.AxisError, "once"),
    "sum-type": Case(lambda x: dg.sum(x, axis=True), errors.AxisError, "True"),
    "softmax-axis": Case(lambda x: dg.softmax(x, axis=-3), errors.AxisError, "softmax"),
    "permute": Case(lambda x: dg.permute_dims(x, (0, 0)), errors.AxisError, "permute_dims"),
    "permute-short": Case(lambda x: dg.permute_dims(x, (0,)), errors.AxisError, "permute_dims"),
    "too-many": Case(lambda x: x[0, 1, 2], errors.AxisError, "(2, 3)"),
    "index": Case(lambda x: x[2], errors.RangeError, "index 2"),
    "index-float": Case(lambda x: x[1.5], errors.DTypeError, "1.5"),
    "index-mask": Case(lambda x: x[x > 0, 0], errors.ArgumentError, "dg.where"),
    "take-no-axis": Case(lambda x: dg.take(x, LABELS), errors.ShapeError, "axis"),
    "argmax-scalar": Case(lambda x: dg.argmax(dg.sum(x), axis=0), errors.AxisError, "scalar"),
    "sort-scalar": Case(lambda x: dg.sort(x[0, 0]), errors.AxisError, "sort: got axis -1 for a tensor of rank 0"),
    "argsort-scalar": Case(lambda x: dg.argsort(dg.sum(x)), errors.AxisError, "argsort: got axis -1"),
    "sort-axis": Case(lambda x: dg.sort(x, axis=2), errors.AxisError, "sort: got axis 2"),
    "sort-flat": Case(lambda x: dg.sort(x, axis=None), errors.AxisError, "sort: got axis None"),
    "sort-axes": Case(lambda x: dg.argsort(x, axis=(0, 1)), errors.AxisError, "(0, 1)"),
    "sort-way": Case(lambda x: dg.sort(x, descending="down"), errors.ArgumentError, "sort: got descending = 'down'"),
    "sort-stable": Case(lambda x: dg.argsort(x, stable=dg.tensor(True)), errors.ArgumentError, "argsort: got stable"),
    "sort-long": Case(lambda x: dg.sort(dg.broadcast_to(x[0, 0], (2, 2**32))), errors.ShapeError, "(2, 4294967296)"),
    # dtypes
    "mean-int": Case(lambda x: dg.mean(dg.astype(x, "int32")), errors.DTypeError, "int32"),
    "softmax-int": Case(lambda x: dg.softmax(dg.argmax(x, axis=0), axis=0), errors.DTypeError, "int64"),
    "bits-of-floats": Case(lambda x: x & x, errors.DTypeError, "float32"),
    "shift-of-floats": Case(lambda x: x << 2, errors.DTypeError, "float32"),
    "float-label": Case(lambda x, y: F.cross_entropy(x, y), errors.DTypeError, "float32", (FLOAT, LABELS.astype(np.float32))),
    "float-index": Case(lambda x: dg.take(x, x, axis=0), errors.DTypeError, "indices"),
    "float-one-hot": Case(lambda x: dg.one_hot(x, 3), errors.DTypeError, "label"),
    "int-scores": Case(lambda x, y: F.cross_entropy(x, y), errors.DTypeError, "int64", (FLOAT.astype(np.int64), LABELS)),
    "astype": Case(lambda x: dg.astype(x, "float16"), errors.DTypeError, "float16"),
    "too-large": Case(lambda x: dg.astype(x, "int32") + 2**40, errors.DTypeError, str(2**40)),
    "fraction": Case(lambda x: dg.full_like(dg.argmax(x, axis=0), 1.5), errors.DTypeError, "1.5"),
    "fraction-full": Case(lambda x: x + dg.full((3,), 0.5, dtype="int32"), errors.DTypeError, "0.5"),
    "huge": Case(lambda x: dg.full_like(dg.astype(x, "int32"), 2**40), errors.DTypeError, str(2**40)),
    "huge-float": Case(lambda x: dg.full_like(x, 10**400), errors.DTypeError, "bits"),
    "axis-tensor": Case(lambda x: dg.sum(x, axis=dg.tensor(1)), errors.AxisError, "a tensor of int64[]"),
    "axes": Case(lambda x: dg.argmax(x, axis=(0, 1)), errors.AxisError, "(0, 1)"),
    "shape-negative": Case(lambda x: dg.broadcast_to(x, (-2, 3)), errors.ShapeError, "(-2, 3)"),
    "shape-none": Case(lambda x: x.reshape(None), errors.ShapeError, "None"),
    "shape-tensor": Case(lambda x: dg.reshape(x, dg.tensor([3, 2])), errors.ShapeError, "a tensor of int64[2]"),
    "eye": Case(lambda x: x @ dg.eye(-1), errors.ShapeError, "-1"),
    "length": Case(lambda x: dg.zeros(2**63), errors.ShapeError, "2**60"),
    "empty-length": Case(lambda x: dg.zeros((0, 2**70)), errors.ShapeError, "2**60"),
    "views-too-large": Case(
        lambda x: dg.broadcast_to(x[0, 0], (2**30,)) * dg.broadcast_to(x[0, 0], (2**31, 1)), errors.ShapeError, "2**60"
    ),
    "memory": Case(lambda x: x[0, 0] + dg.zeros(2**45), errors.OutOfMemoryError, "131,072 GiB"),
    "concat-none": Case(lambda x: dg.concat(None), errors.DTypeError, "list or a tuple"),
    "broadcast_arrays-nothing": Case(lambda x: dg.broadcast_arrays(), errors.ArgumentError, "no tensors"),
    "split-string": Case(lambda x: dg.split(x, "ab"), errors.ShapeError, "'ab'"),
    "mask-list": Case(lambda x: x[[True, False]], errors.ArgumentError, "no list of positions"),
    "mask-take": Case(lambda x: dg.take(x, x > 0, axis=0), errors.DTypeError, "no list of positions"),
    "mask-scalar": Case(lambda x: x[dg.any(x > 0)], errors.ArgumentError, "no list of positions"),
    "list-of-tensors": Case(lambda x: dg.add(x, [x[0, 0], 1.0, 2.0]), errors.DTypeError, "dg.stack"),
    "number-tensor": Case(lambda x: dg.bernoulli(3, x[0, 0]), errors.ArgumentError, "a tensor of float32[]"),
    "flag": Case(lambda x: dg.sum(x, keepdims=x > 0), errors.ArgumentError, "a tensor of bool[2, 3]"),
    "correction": Case(lambda x: dg.var(x, correction=None), errors.ArgumentError, "None"),
    "correction-nan": Case(lambda x: dg.var(x, correction=math.nan), errors.ArgumentError, "nan"),
    "correction-inf": Case(lambda x: dg.std(x, correction=math.inf), errors.ArgumentError, "inf"),
    "uniform-backwards": Case(lambda x: dg.uniform(3, 1.0, 0.0), errors.ArgumentError, "low = 1.0"),
    "masked": Case(lambda x: x + np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), errors.DTypeError, "masked"),
    "masked-tensor": Case(lambda x: dg.tensor(np.ma.array([1.0], mask=[1])), errors.DTypeError, "masked"),
    "uniform": Case(lambda x: dg.uniform(3, "a", "b"), errors.ArgumentError, "'a'"),
    "arange-bools": Case(lambda x: dg.arange(False, True), errors.ArgumentError, "False"),
    "arange-endless": Case(lambda x: dg.arange(0, 1e30), errors.ShapeError, "2**60"),
    "deep": Case(lambda x: x + _nested(5000), errors.ShapeError, "nested"),
    "grad-outputs": Case(lambda x: dg.grad([x * 1.0, x * 2.0], [x], [x]), errors.ArgumentError, "1 grad_outputs for 2"),
    "hook": Case(lambda x: [x.register_hook(lambda g: 1.0), dg.sum(x * x).backward()], errors.DTypeError, "hook: got 1.0"),
    "assign": Case(lambda x: x.assign(x), errors.GraphError, "plain tensor"),
    "outer": Case(lambda x: dg.outer(x, x), errors.ShapeError, "vectors"),
    "power": Case(lambda x: dg.power(x > 0, x > 1), errors.DTypeError, "bool"),
    "strings": Case(lambda x: x + np.array(["a", "b", "c"]), errors.DTypeError, "supported"),
    "complex": Case(lambda x: x * (1 + 2j), errors.DTypeError, "complex"),
    "none": Case(lambda x: dg.add(x, None), errors.DTypeError, "NoneType"),
    # losses
    "empty-batch": Case(lambda x, y: F.cross_entropy(x, y), errors.ShapeError, "empty batch", (FLOAT[:0], LABELS[:0])),
    "empty-batch-mse": Case(lambda x: F.mse_loss(x, x), errors.ShapeError, "empty batch", (FLOAT[:0],)),
    "rank": Case(lambda x, y: F.cross_entropy(x, y), errors.ShapeError, "(rows, classes)", (FLOAT, LABELS[:1])),
    "reduction": Case(lambda x, y: F.cross_entropy(x, y, reduction="avg"), errors.ArgumentError, "'avg'", (FLOAT, LABELS)),
    "loss-not-scalar": Case(lambda x: (x * 2.0).backward(), errors.GradientError, "(2, 3)"),
    "loss-without-gradient": Case(lambda x: dg.sum(x.detach()).backward(), errors.GradientError, "needs no gradient"),
    "gradient-shape": Case(lambda x: (x * 2.0).backward(dg.ones(3)), errors.ShapeError, "(3,)"),
    "gradient-of-int": Case(lambda x, y: dg.grad(dg.sum(x), [y]), errors.DTypeError, "int64", (FLOAT, LABELS)),
    "unused-input": Case(lambda x, y: dg.grad(dg.sum(x), [y]), errors.GradientError, "do not depend", (FLOAT, FLOAT)),
    "freed": Case(lambda x: [dg.sum(x * x).backward(), _twice(dg.sum(dg.exp(x)))], errors.GradientError, "freed"),
    "no-rule": Case(lambda x: dg.sum(bind(NO_RULE, x)).backward(), errors.GradientError, "no gradient rule"),
    # arguments and state
    "setitem": Case(lambda x: x.__setitem__(0, 1.0), errors.ArgumentError, "cannot be written"),
    "device": Case(lambda x: x.to("cuda"), errors.ArgumentError, "cuda"),
    "bernoulli": Case(lambda x: x * dg.bernoulli((3,), 1.5), errors.ArgumentError, "1.5"),
    "randint": Case(lambda x: dg.randint((3,), 4, 4), errors.ArgumentError, "low"),
    "rand-dtype": Case(lambda x: dg.rand((3,), dtype="int64"), errors.ArgumentError, "int64"),
    "arange": Case(lambda x: dg.arange(0, 4, 0), errors.ArgumentError, "step 0"),
    "hook-without-gradient": Case(lambda x: (x > 0).register_hook(print), errors.GradientError, "register_hook"),
    "gelu": Case(lambda x: dg.gelu(x, approximate="sinh"), errors.ArgumentError, "sinh"),
}  # fmt: skip

NO_RULE = OPS["tanh"].__class__("no_rule", OPS["tanh"].spec, OPS["tanh"].lower, ())


def _nested(depth: int) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


def _twice(loss: Any) -> None:
    loss.backward()
    loss.backward()


def caught(run: Callable[[], Any]) -> errors.DualgraphError:
    with pytest.raises(errors.DualgraphError) as info:
        run()
    return info.value


def message(error: errors.DualgraphError) -> str:
    return str(error.args[0])


@pytest.mark.parametrize("name", CASES)
def test_same_error_in_both_modes(name: str) -> None:
    case = CASES[name]
    before = random_state()
    eager = caught(lambda: case.function(*[dg.tensor(a, requires_grad=a.dtype.kind == "f") for a in case.arrays]))
    lazy = caught(lambda: define(case.function, list(case.arrays)))
    assert type(eager) is case.raises
    assert type(lazy) is case.raises
    assert message(lazy) == message(eager)
    assert case.says in message(eager)
    for error in (eager, lazy):
        where = error.where
        assert where is not None, "no line of the user"
        assert where.file == __file__
        assert str(where) in str(error)
        lines, first = inspect.getsourcelines(case.function)
        assert first <= where.line < first + len(lines)
    assert (eager.where.file, eager.where.line) == (lazy.where.file, lazy.where.line)  # type: ignore[union-attr]
    assert random_state() == before


@pytest.mark.parametrize("name", CASES)
def test_errors_pickle(name: str) -> None:
    """With their words and the user's line, of which another process has no code."""
    error = caught(
        lambda: CASES[name].function(*[dg.tensor(a, requires_grad=a.dtype.kind == "f") for a in CASES[name].arrays])
    )
    for found in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):  # noqa: S301 - our own
        assert type(found) is type(error)
        assert (str(found), found.args) == (str(error), error.args)
        assert found.where.file == error.where.file == __file__  # type: ignore[union-attr]
        assert (found.where.line, str(found.where)) == (error.where.line, str(error.where))  # type: ignore[union-attr]
        assert str(pickle.loads(pickle.dumps(found))) == str(error)  # noqa: S301 - our own


def test_an_empty_list_holds_labels() -> None:
    for labels, shape in (([], (0, 3)), ([[], []], (2, 0, 3)), ((), (0, 3))):
        for run in (lambda x, labels=labels: dg.one_hot(labels, 3), lambda x, labels=labels: F.one_hot(labels, 3)):
            _, (lazy,) = define(run, [FLOAT])
            assert run(None).shape == lazy.shape == shape
            assert run(None).spec == lazy.spec


def test_an_empty_list_holds_positions() -> None:
    for run in (lambda x: x[[]], lambda x: dg.take(x, [], axis=0), lambda x: dg.take_along_axis(x, [[], []], axis=1)):
        eager = run(dg.tensor(FLOAT))
        _, (lazy,) = define(run, [FLOAT])
        assert eager.size == lazy.size == 0
        assert eager.shape == lazy.shape
    assert dg.tensor(FLOAT)[[[0, 1], [1, 0]]].shape == (2, 2, 3)


def _promises_all_memory() -> bool:
    """Whether this system hands out memory that it does not have."""
    setting = Path("/proc/sys/vm/overcommit_memory")
    return setting.exists() and setting.read_text().strip() == "1"


may_be_refused = pytest.mark.skipif(
    _promises_all_memory(), reason="this system grants memory that it lacks, then kills"
)


@may_be_refused
def test_a_result_for_which_there_is_no_memory() -> None:
    with pytest.raises(MemoryError, match="no memory") as info:
        dg.zeros(2**41)  # may be asked for, and cannot be had
    assert isinstance(info.value, errors.OutOfMemoryError)


@may_be_refused
@pytest.mark.parametrize("length", [2**40, 2**41])
def test_a_step_for_which_there_is_no_memory(length: int) -> None:
    """Neither for its result nor for what it needs in between; nothing has changed."""
    counter = dg.Variable(np.zeros((), np.float32))

    def result(x: Any) -> Any:
        counter.assign(counter + 1.0)
        return dg.broadcast_to(x, (length,)) * 2.0

    def between(x: Any) -> Any:
        counter.assign(counter + 1.0)
        return dg.concat([dg.broadcast_to(x, (length,))] * 2)[:3]

    for function in (result, between):
        with pytest.raises(errors.OutOfMemoryError, match="no memory") as info:
            static.jit(function)(np.ones(1, np.float32))
        assert info.value.where is not None
        assert info.value.where.file == __file__
        assert counter.item() == 0.0


@may_be_refused
@pytest.mark.parametrize(
    "use", [dg.log_softmax, lambda x: dg.var(x, axis=0), lambda x: x.mT @ x, dg.Variable, static.jit(lambda x: x + 1.0)]
)
def test_memory_for_what_is_computed_between(use: Any) -> None:
    """A view of few bytes, of which copies would need more than any machine has."""
    x = dg.broadcast_to(dg.ones((1,)), (2**21, 2**20))
    with pytest.raises(errors.OutOfMemoryError, match="no memory"):
        use(x)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_bad_seed_leaves_the_random_numbers(seed: int) -> None:
    before = random_state()
    eager = caught(lambda: dg.manual_seed(seed))
    lazy = caught(lambda: define(lambda x: dg.manual_seed(seed), [FLOAT]))
    assert message(eager) == message(lazy)
    assert random_state() == before


# ------------------------------------------------------------------------------------------------- found while running


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


class Trainer:
    """A model, an optimiser with momentum and a step that draws random numbers: all the state there is."""

    def __init__(self) -> None:
        dg.manual_seed(3)
        self.model = Net()
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.1)

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x + dg.randn(x.shape) * 0.01), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> list[Any]:
        found = [p.numpy().copy() for p in self.model.parameters()]
        found += [v.numpy().copy() for _, v in self.optimizer.named_variables()]
        return [*found, np.array(random_state())]


BAD_LABEL = np.array([0, 4])


def test_a_label_out_of_range() -> None:
    """Same class, message and line in both modes; the compiled step leaves every bit of state as it was."""
    trainer = Trainer()
    compiled = static.compile(trainer.step, static.spec((2, 3)), static.spec((2,), "int64"))
    compiled(FLOAT, LABELS)
    compiled(FLOAT, LABELS)
    before = trainer.state()
    lazy = caught(lambda: compiled(FLOAT, BAD_LABEL))
    assert_bits(trainer.state(), before, "state after a failed step")
    model = [p.numpy().copy() for p in trainer.model.parameters()]
    slots = [v.numpy().copy() for _, v in trainer.optimizer.named_variables()]
    eager = caught(lambda: trainer.step(dg.tensor(FLOAT), dg.tensor(BAD_LABEL)))
    assert type(eager) is type(lazy) is errors.RangeError
    assert message(eager) == message(lazy)
    assert "label 4 at position (1,)" in message(eager)
    assert eager.where is not None
    assert str(eager.where) == str(lazy.where)
    assert eager.where.file == __file__
    assert (
        "F.cross_entropy"
        in inspect.getsource(Trainer).splitlines()[eager.where.line - inspect.getsourcelines(Trainer)[1]]
    )
    assert_bits([p.numpy() for p in trainer.model.parameters()], model, "parameters after a failed eager step")
    assert_bits(
        [v.numpy() for _, v in trainer.optimizer.named_variables()], slots, "optimiser after a failed eager step"
    )
    first, second = compiled(FLOAT, LABELS).item(), trainer.step(dg.tensor(FLOAT), dg.tensor(LABELS)).item()
    assert math.isfinite(first)
    assert math.isfinite(second)


@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("computed", [False, True])
def test_an_index_out_of_range(level: str, computed: bool) -> None:
    """Also where the index is computed inside, after a variable was assigned to."""
    counter, weights = dg.Variable(np.zeros((), np.float32)), dg.Variable(FLOAT)

    def run(x: Any, i: Any) -> Any:
        counter.assign(counter + 1.0)
        tripled = x * 3.0  # of the domain of the update below, which must not move up to it
        taken = dg.take(tripled, dg.abs(i) * -2 if computed else i, axis=1)
        weights.assign(weights + x)
        return taken, tripled

    wrong = np.array([1, 2, -4])
    executable = static.compile(run, static.spec((2, 3)), static.spec((3,), "int64"), optimize=level)
    lazy = caught(lambda: executable(FLOAT, wrong))
    assert counter.item() == 0.0
    assert_bits([weights.numpy()], [FLOAT], "a variable after a failed run")
    eager = caught(lambda: run(dg.tensor(FLOAT), dg.tensor(wrong)))
    assert type(eager) is type(lazy) is errors.RangeError
    assert message(eager) == message(lazy)
    assert str(eager.where) == str(lazy.where)


def test_an_unused_result_still_checks_its_labels() -> None:
    def run(x: Any, y: Any) -> Any:
        F.nll_loss(x, y)
        return x * 2.0

    eager = caught(lambda: run(dg.tensor(FLOAT), dg.tensor(BAD_LABEL)))
    for level in ("none", "exact"):
        executable = static.compile(run, static.spec((2, 3)), static.spec((2,), "int64"), optimize=level)
        assert message(caught(lambda e=executable: e(FLOAT, BAD_LABEL))) == message(eager)  # type: ignore[misc]


def test_a_step_that_returns_no_loss_still_checks_its_labels() -> None:
    trainer = Trainer()
    compiled = static.compile(lambda x, y: [trainer.step(x, y), x][1], static.spec((2, 3)), static.spec((2,), "int64"))
    before = trainer.state()
    assert "label 4" in message(caught(lambda: compiled(FLOAT, BAD_LABEL)))
    assert_bits(trainer.state(), before, "state after a failed step")


def test_known_tensors_with_a_bad_index() -> None:
    """What could be computed while compiling is refused when it runs, like everything else."""
    table, index = dg.tensor(FLOAT), dg.tensor(BAD_LABEL)

    def run(x: Any) -> Any:
        return x + dg.take(table, index, axis=1)[:, :1]

    eager = caught(lambda: run(dg.tensor(FLOAT)))
    executable = static.compile(run, static.spec((2, 3)))
    lazy = caught(lambda: executable(FLOAT))
    assert message(eager) == message(lazy)
    assert str(eager.where) == str(lazy.where)


def test_an_unused_take_still_checks_its_index() -> None:
    def run(x: Any, y: Any) -> Any:
        dg.take(x, y, axis=1)
        return x * 2.0

    eager = caught(lambda: run(dg.tensor(FLOAT), dg.tensor(BAD_LABEL)))
    for level in ("none", "exact"):
        executable = static.compile(run, static.spec((2, 3)), static.spec((2,), "int64"), optimize=level)
        assert message(caught(lambda e=executable: e(FLOAT, BAD_LABEL))) == message(eager)  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------- symbols and feeds

SYMBOLS: dict[str, Callable[[Any], Any]] = {
    "bool": lambda x: 1 if dg.sum(x) > 0 else 2,
    "int": lambda x: int(dg.sum(x)),
    "float": lambda x: float(dg.sum(x)),
    "index": lambda x: [1, 2, 3][dg.argmax(x)],
    "slice": lambda x: x[: dg.argmax(x)],
    "range": lambda x: list(range(dg.argmax(x))),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "item": lambda x: dg.sum(x).item(),
    "tolist": lambda x: x.tolist(),
    "tensor": lambda x: dg.tensor(x),
    "if-any": lambda x: "yes" if dg.any(x > 0) else "no",
    "in": lambda x: 2.0 in [x[0, 0]],
    "max": lambda x: max(x[0, 0], x[0, 1]),
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_symbol_is_not_a_value(name: str) -> None:
    error = caught(lambda: define(SYMBOLS[name], [FLOAT]))
    assert type(error) is errors.SymbolError
    assert "of a symbol" in message(error) or "symbol" in message(error)
    assert error.where is not None
    assert error.where.file == __file__


def test_a_symbol_iterates_over_its_rows() -> None:
    (result,) = define(lambda x: sum(row * 2.0 for row in x), [FLOAT])[1]
    assert result.shape == (3,)
    assert len(define(lambda x: list(x), [FLOAT])[1]) == len(FLOAT)


def test_symbols_after_their_graph_was_compiled() -> None:
    graph, (y,) = define(lambda x: x * 2.0, [FLOAT])
    static.compile(graph, outputs=[y])
    for wrong in (lambda: y + 1.0, lambda: dg.sum(y), lambda: dg.tensor(FLOAT) + y):
        error = caught(wrong)
        assert type(error) is errors.GraphError
        assert "compiled" in message(error)
        assert error.where is not None
        assert error.where.file == __file__
    with pytest.raises(errors.GraphError, match="compiled"), graph:
        pass


def test_a_tensor_of_another_graph() -> None:
    _, (foreign,) = define(lambda x: x * 2.0, [FLOAT])
    error = caught(lambda: define(lambda x: x + foreign, [FLOAT]))
    assert type(error) is errors.GraphError
    assert "another graph" in message(error)
    history = dg.tensor(FLOAT, requires_grad=True) * 2.0
    error = caught(lambda: define(lambda x: x + history, [FLOAT]))
    assert type(error) is errors.GraphError
    assert "detach()" in message(error)
    assert error.where is not None


def test_writing_to_a_constant() -> None:
    constant, variable = dg.tensor(FLOAT), dg.Variable(FLOAT)

    def assign(x: Any) -> Any:
        dg.core.mode.current().assign(constant, x)

    eager, lazy = caught(lambda: assign(dg.tensor(FLOAT))), caught(lambda: define(assign, [FLOAT]))
    assert type(eager) is type(lazy) is errors.GraphError
    assert message(eager) == message(lazy)
    method = caught(lambda: constant.assign(FLOAT)), caught(lambda: define(lambda x: constant.assign(x), [FLOAT]))
    assert {(type(e), message(e)) for e in method} == {(errors.GraphError, message(eager))}
    for wrong, kind in ((lambda x: variable.assign(x[0]), errors.ShapeError),
                        (lambda x: variable.assign(dg.astype(x, "float64")), errors.DTypeError)):  # fmt: skip
        eager, lazy = caught(lambda w=wrong: w(dg.tensor(FLOAT))), caught(lambda w=wrong: define(w, [FLOAT]))  # type: ignore[misc]
        assert type(eager) is type(lazy) is kind
        assert message(eager) == message(lazy)
        assert str(eager.where) == str(lazy.where)
    assert_bits([variable.numpy(), constant.numpy()], [FLOAT, FLOAT], "after refused writes")


class Feed(NamedTuple):
    says: str
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = {}  # noqa: RUF012 - never written to


FEEDS: dict[str, Feed] = {
    "missing": Feed("no feed for 'y'", (FLOAT,)),
    "missing-all": Feed("'x', 'y'"),
    "extra": Feed("extra", (FLOAT, LABELS, FLOAT)),
    "unknown": Feed("'z'", (FLOAT, LABELS), {"z": FLOAT}),
    "twice": Feed("twice", (FLOAT, LABELS), {"x": FLOAT}),
    "shape": Feed("(3, 2)", (FLOAT.T, LABELS)),
    "rank": Feed("(6,)", (FLOAT.reshape(-1), LABELS)),
    "dtype": Feed("float64", (FLOAT.astype(np.float64), LABELS)),
    "label-dtype": Feed("float32", (FLOAT, LABELS.astype(np.float32))),
    "integer-width": Feed("int32", (FLOAT, LABELS.astype(np.int32))),
    "list-of-floats": Feed("float32", (FLOAT, [0.0, 1.0])),
    "uneven": Feed("uneven", ([[1.0], [1.0, 2.0]], LABELS)),
    "string": Feed("supported", ("abc", LABELS)),
    "none": Feed("supported", (None, LABELS)),
    "tensor-dtype": Feed("float32", (FLOAT, dg.tensor(FLOAT))),
    "tensor-shape": Feed("(6,)", (dg.tensor(FLOAT.ravel()), LABELS)),
}


@pytest.fixture(scope="module")
def fed() -> tuple[static.Executable, Any]:
    counter = dg.Variable(np.zeros((), np.float32))
    graph = static.Graph()
    with graph:
        x, y = static.placeholder("x", (2, 3)), static.placeholder("y", (2,), "int64")
        counter.assign(counter + 1.0)
        outputs = [dg.take(x, y, axis=0) * 2.0]
    return static.compile(graph, outputs=outputs), counter


@pytest.mark.parametrize("name", FEEDS)
def test_feeds(name: str, fed: tuple[static.Executable, Any]) -> None:
    executable, counter = fed
    before = counter.item()
    error = caught(lambda: executable(*FEEDS[name].args, **FEEDS[name].named))
    assert type(error) is errors.FeedError
    assert FEEDS[name].says in message(error)
    assert error.where is not None
    assert error.where.file == __file__
    assert counter.item() == before
    executable(FLOAT, y=LABELS)
    assert counter.item() == before + 1


def test_arguments_of_a_compiled_function() -> None:
    compiled = static.compile(lambda x, factor: x * factor, static.spec((2, 3)), 2.0)
    assert_bits([compiled(FLOAT, 2.0).numpy()], [FLOAT * 2], "well fed")
    for wrong in (lambda: compiled(FLOAT, 3.0), lambda: compiled([FLOAT], 2.0), lambda: compiled(FLOAT)):
        assert type(caught(wrong)) is errors.FeedError


def test_a_failure_while_tracing_leaves_the_front_end() -> None:
    """The error passes through; afterwards operations are eager again and variables hold values, not symbols."""
    trainer = Trainer()
    before = trainer.state()

    def wrong(x: Any) -> Any:
        loss = dg.sum(trainer.model(x))
        loss.backward()
        trainer.optimizer.step()
        dg.randn((3,))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        static.compile(wrong, static.spec((2, 3)))
    assert_bits(trainer.state(), before, "state after a failed trace")
    assert isinstance(dg.tensor(FLOAT) + 1.0, dg.Tensor)
    assert dg.is_grad_enabled()


def test_fed_arrays_of_any_layout() -> None:
    """A fed array is read as NumPy reads it, or refused: never its raw bytes."""
    double = static.compile(lambda x: x * 2.0, static.spec((3, 2)))
    base = np.arange(24, dtype=np.float32).reshape(6, 4)
    read_only = base[:3, :2].copy()
    read_only.setflags(write=False)
    unaligned = np.frombuffer(b"-" + read_only.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 2)
    for fed in (
        FLOAT.T,
        base[::2, ::2],
        base[3::-1, ::2][:3],
        np.broadcast_to(base[0, :2], (3, 2)),
        read_only,
        unaligned,
    ):
        assert_bits([double(fed).numpy()], [fed * np.float32(2)], "fed array")
    window = dg.tensor(base)[1:4, :2]
    assert_bits([double(window).numpy()], [base[1:4, :2] * 2], "fed window")
    error = caught(lambda: double(read_only.astype(">f4")))
    assert type(error) is errors.FeedError
    assert ">f4" in message(error)


def test_a_variable_fed_to_its_own_update() -> None:
    w = dg.Variable(FLOAT)
    update = static.compile(lambda x: [w.assign(w + x), w][1], static.spec((2, 3)))
    assert_bits([update(w).numpy(), w.numpy()], [FLOAT * 2, FLOAT * 2], "fed with itself")
