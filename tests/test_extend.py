"""Operations from outside: what they hold is seen by the passes, their parameters count by bits, their faults are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import extend, static
from dualgraph.errors import ArgumentError, DualgraphError, GradientError, GraphError, RangeError

HOT = extend.composite("hot", lambda i: dg.one_hot(i, 3))
PICKED = extend.composite("picked", lambda x, i: dg.take(x, i, axis=0) * 2.0)
NESTED = extend.composite("nested", lambda i: HOT(i) + 1)


@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("op", [HOT, NESTED], ids=["hot", "nested"])
def test_a_check_inside_of_a_composite_that_nobody_uses(op, level):
    w = dg.Variable([1.0])

    def f(x: Any, i: Any) -> Any:
        op(i)
        w.assign(w + 1.0)
        return x

    fast = static.jit(f, optimize=level)
    with pytest.raises(RangeError, match="label 99"):
        fast(dg.ones(2), dg.tensor([0, 99]))
    assert w.tolist() == [1.0]
    fast(dg.ones(2), dg.tensor([0, 2]))
    assert w.tolist() == [2.0]


def test_a_composite_of_constants_that_fails():
    table, index = dg.tensor(np.arange(1000.0)), dg.tensor(np.r_[np.arange(999), 5000])
    z = dg.zeros(1000, dtype="float64")
    words = set()
    for run in (lambda f: f, lambda f: static.jit(f, optimize="none"), static.jit):
        with pytest.raises(RangeError) as raised:
            run(lambda x: x + PICKED(table, index))(z)
        words.add(raised.value.args)
    assert len(words) == 1


def test_external_functions_inside_of_composites_run_as_often_as_they_are_written():
    calls: list[int] = []

    def negative(a: Any) -> Any:
        calls.append(1)
        return np.negative(a)

    e = extend.external("e", negative, lambda s: s)
    k = extend.composite("k", lambda x: e(x) + 1.0)
    constant = dg.ones(1)
    for function, times in ((lambda x: k(x) + k(x), 2), (lambda x: (k(x), x)[1], 1), (lambda x: x + k(constant), 1)):
        for run in (function, static.jit(function, optimize="none"), static.jit(function)):
            run(dg.ones(1))
            calls.clear()
            run(dg.ones(1))
            assert len(calls) == times


@dataclass(frozen=True)
class P:
    value: Any


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: (v,), P], ids=["plain", "tuple", "dataclass"])
@pytest.mark.parametrize("values", [(0.0, -0.0), (2, 2.0), (1, True), (np.float32(0.0), np.float32(-0.0))], ids=str)
def test_parameters_that_compare_equal(values, wrap):
    def value(k: Any) -> Any:
        return k.value if isinstance(k, P) else k[0] if isinstance(k, tuple) else k

    f = extend.composite("f", lambda x, k: x * value(k))
    g = extend.external("g", lambda a, k: a * np.float32(value(k)), lambda s, k: s)
    x = dg.tensor([1.0, -2.0])
    for v in (*values, *values):
        k = wrap(v)
        assert f(x, k=k).numpy().tobytes() == (x * v).numpy().tobytes()
        assert g(x, k=k).numpy().tobytes() == (x.numpy() * np.float32(v)).tobytes()


def test_composites_that_return_constants():
    for made in (lambda x: dg.asarray(np.ones(2, np.float32)), lambda x: (x, dg.zeros(2)), lambda x: 3.0):
        op = extend.composite("constant", made)
        x = dg.tensor([2.0])
        eager, compiled = op(x), static.jit(lambda x, op=op: op(x))(x)
        pairs = zip(*(v if isinstance(v, tuple) else (v,) for v in (eager, compiled)), strict=True)
        assert all(a.tolist() == b.tolist() for a, b in pairs)


WRONG: list[tuple[str, Any]] = [
    ("the name", lambda: extend.composite(3, lambda x: x)),
    ("function", lambda: extend.composite("f", 3)),
    ("vjp", lambda: extend.composite("f", lambda x: x, vjp=3)),
    ("vjp", lambda: extend.elementwise("f", lambda x: x, vjp=("a",))),
    ("arity", lambda: extend.elementwise("f", lambda x: x, arity=0)),
    ("expression", lambda: extend.elementwise("f", None)),
    ("spec", lambda: extend.external("f", lambda x: x, None)),
    ("hashable", lambda: extend.composite("f", lambda x, k: x)(dg.ones(1), k=[1])),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_definitions(number):
    words, call = WRONG[number]
    with pytest.raises(ArgumentError, match=words) as raised:
        call()
    assert raised.value.where.file == __file__


RETURNED = [None, 3.0, [1.0], (), (np.ones(2, np.float32),) * 2, np.ones(3, np.float32), np.ones(2), "text"]


@pytest.mark.parametrize("number", range(len(RETURNED)))
def test_what_external_functions_return(number):
    e = extend.external("e", lambda a: RETURNED[number], lambda s: s)
    words = set()
    for run in (lambda f: f, static.jit):
        with pytest.raises(ArgumentError, match="e: the function returned") as raised:
            run(lambda x: e(x))(dg.ones(2))
        words.add(raised.value.args)
    assert len(words) == 1


@pytest.mark.parametrize("returned", [None, "text", object()])
def test_what_composites_return(returned):
    op = extend.composite("made", lambda x: returned)
    words = set()
    for run in (lambda f: f, static.jit):
        with pytest.raises(GraphError, match="made: got") as raised:
            run(lambda x: op(x))(dg.ones(2))
        words.add(raised.value.args)
    assert len(words) == 1


def test_gradient_rules_that_return_no_tensor():
    op = extend.composite("op", lambda x: x * 2.0, vjp=(lambda g, out, x: 3.0,))
    for run in (lambda f: f, static.jit):
        x = dg.tensor([1.0], requires_grad=True)
        with pytest.raises(GradientError, match=r"its gradient rule gave 3\.0") as raised:
            run(lambda x: dg.sum(op(x)).backward())(x)
        assert isinstance(raised.value, DualgraphError)
        assert x.grad is None
