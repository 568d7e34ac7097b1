"""Of several checks that fail the first in the program is raised, in every mode, and a failed static step changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import errors, extend, static

TABLE = np.arange(20, dtype=np.float32).reshape(4, 5)


def refuse(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if x.max() > 8:
        raise ArithmeticError(f"refused {x.max()}")
    return x


refusing = extend.external("refusing", refuse, lambda x: x)

CHECKS = {  # of an index, of a label, of a function; looking at an input or at a computed value; used or not
    "input": lambda t, i: dg.sum(dg.take(t, i, axis=0)),
    "computed": lambda t, i: dg.sum(dg.take(t, i + 1, axis=0)),
    "unused": lambda t, i: dg.take(t, i, axis=1) is None or 0.0,
    "along": lambda t, i: dg.sum(dg.take_along_axis(t[:, :1], dg.reshape(i, (3, 1)), axis=0)),
    "label": lambda t, i: dg.cross_entropy(t[:3], i),
    "computed label": lambda t, i: dg.cross_entropy(t[:3], i * 1),
    "gradient": lambda t, i: dg.sum(dg.grad(dg.take(W, i, axis=0), [W], t[:3] * 1.0)[0]),
    "external": lambda t, i: dg.sum(dg.astype(refusing(i), "float32")),
}
W = dg.Variable(TABLE, requires_grad=True)
BAD, GOOD = np.array([0, 9, 1]), np.array([0, 1, 2])


def outcome(run: Any, *indices: Any) -> tuple[str, str]:
    try:
        run(*map(dg.tensor, indices))
    except (errors.RangeError, ArithmeticError) as error:
        return type(error).__name__, str(error)
    return "fine", ""


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CHECKS, 2)), ids=str)
def test_the_first_check_fails_first_and_nothing_changes(first: str, second: str) -> None:
    w, late = dg.Variable(np.ones(3, np.float32)), dg.Variable(np.zeros((), np.float32))

    def step(i: Any, j: Any) -> Any:
        early = w * 2.0  # an update that needs nothing that is checked
        t = W * 1.0
        x = CHECKS[first](t, i)
        late.assign(late + 1.0)
        y = CHECKS[second](t, j)
        w.assign(early + 1.0)
        return x + y + dg.sum(w)

    for pair in ((BAD, BAD), (BAD, GOOD), (GOOD, BAD)):
        expected = outcome(step, *pair)
        assert expected[0] != "fine"
        for level in ("none", "exact"):
            w.assign(np.ones(3, np.float32))
            late.assign(np.zeros((), np.float32))
            run = static.compile(step, *[static.spec((3,), "int64")] * 2, optimize=level)
            assert outcome(run, *pair) == expected
            assert (w.tolist(), late.item()) == ([1.0] * 3, 0.0)
            assert outcome(run, GOOD, GOOD)[0] == "fine"
            assert (w.tolist(), late.item()) == ([3.0] * 3, 1.0)
        w.assign(np.ones(3, np.float32))


@pytest.mark.parametrize("options", [{}, {"verify": True}, {"optimize": "fast"}, {"optimize": "none"}])
def test_a_failed_check_calls_functions_no_second_time(options: Any) -> None:
    calls = []
    log = extend.external("log", lambda a: (calls.append(1), a * 1)[1], lambda s: s)
    run = static.jit(lambda x, i: dg.take(log(x), i + 1), **options)
    for number, i in enumerate([[0, 7], [0, 1], [0, 8]], 1):
        try:
            run(dg.ones(3), dg.tensor(i))
        except errors.RangeError:
            assert i != [0, 1]
        else:
            assert i == [0, 1]
        assert len(calls) == number


@pytest.mark.parametrize("level", ["none", "exact", "fast"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((0, 4), 0), ((4, 0), 1), ((2, 3, 0), -1), ((0, 4), 1), ((0,), 0), ((2, 0, 3), 0)]
)
def test_folds_of_nothing_meet_their_operands(shape: tuple[int, ...], axis: int, level: str) -> None:
    steps = [
        lambda x: x * dg.sum(x, axis=axis, keepdims=True),
        lambda x: dg.sum(x * x, axis=axis, keepdims=True) + x,
        lambda x: (x - dg.prod(x, axis=axis, keepdims=True), dg.sum(x)),
        lambda x: dg.grad(dg.sum(x * dg.sum(x, axis=axis, keepdims=True)), [x])[0],
    ]
    x = dg.zeros(shape).requires_grad_()
    for step in steps:
        eager, compiled = step(x), static.jit(step, optimize=level)(x)
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (eager, compiled)), strict=True):
            assert a.spec == b.spec
            assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
