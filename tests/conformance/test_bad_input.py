"""Bad input: the same exception class, message and user's line in both modes, and all state as it was before."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from conformance.modes import assert_bits, define, random_state

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import errors, nn, optim, static
from dualgraph.ops import OPS
from dualgraph.ops.op import bind

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
    "argmax-scalar": Case(lambda x: dg.argmax(dg.sum(x), axis=0), errors.ArgumentError, "scalar"),
    # dtypes
    "mean-int": Case(lambda x: dg.mean(dg.astype(x, "int32")), errors.DTypeError, "int32"),
    "softmax-int": Case(lambda x: dg.softmax(dg.argmax(x, axis=0), axis=0), errors.DTypeError, "int64"),
    "bits-of-floats": Case(lambda x: x & x, errors.DTypeError, "float32"),
    "shift-of-floats": Case(lambda x: x << 2, errors.DTypeError, "float32"),
    "float-label": Case(lambda x, y: F.cross_entropy(x, y), errors.DTypeError, "float32", (FLOAT, LABELS.astype(np.float32))),
    "float-index": Case(lambda x: dg.take(x, x, axis=0), errors.DTypeError, "indices"),
    "float-one-hot": Case(lambda x: dg.one_hot(x, 3), errors.DTypeError, "labels"),
    "int-scores": Case(lambda x, y: F.cross_entropy(x, y), errors.DTypeError, "int64", (FLOAT.astype(np.int64), LABELS)),
    "astype": Case(lambda x: dg.astype(x, "float16"), errors.DTypeError, "float16"),
    "too-large": Case(lambda x: dg.astype(x, "int32") + 2**40, errors.DTypeError, str(2**40)),
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
        lines, first = inspect.getsourcelines(case.function if name != "freed" else _twice)
        assert first <= where.line < first + len(lines)
    assert (eager.where.file, eager.where.line) == (lazy.where.file, lazy.where.line)  # type: ignore[union-attr]
    assert random_state() == before
