"""Operations from outside: what they hold is seen by the passes, their parameters count by bits, their faults are named."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what users do with functions
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import extend, static
from dualgraph.errors import ArgumentError, DualgraphError, GradientError, GraphError, RangeError
from dualgraph.kernels.replay import Recording, once

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


def twice(a: Any) -> Any:
    return a * 2


TWICE = extend.external("TWICE", twice, lambda s: s, vjp=lambda number, g, out, x: g * 2.0)
SOFTSIGN = extend.elementwise("SOFTSIGN", lambda x: x / (abs(x) + 1.0))
SQUARED = extend.composite("SQUARED", lambda x, k=1.0: x * x * k)
OTHER_NAME = extend.elementwise("other", lambda x: x * 2.0)
TAKEN = extend.elementwise("SOFTSIGN", lambda x: -x)


class Operations:
    HALF = extend.elementwise("HALF", lambda x: x * 0.5)


@pytest.mark.parametrize("op", [TWICE, SOFTSIGN, SQUARED, Operations.HALF], ids=lambda op: op.__qualname__)
def test_operations_are_pickled_and_copied_as_functions_are(op):
    assert pickle.loads(pickle.dumps(op)) is op  # noqa: S301 - our own
    assert copy.copy(op) is op
    assert copy.deepcopy(op) is op
    assert op.__module__ == __name__
    module = pickle.loads(pickle.dumps(static.jit(op)))  # noqa: S301 - our own
    assert module(dg.tensor([2.0])).tolist() == op(dg.tensor([2.0])).tolist()


def test_operations_that_cannot_be_found_by_name_are_not_pickled():
    def made() -> Any:
        return extend.composite("SOFTSIGN", lambda x: x)

    local = made()
    assert local.__qualname__ == f"{made.__qualname__}.<locals>.SOFTSIGN"
    for op in (local, OTHER_NAME, TAKEN):
        with pytest.raises((pickle.PicklingError, AttributeError), match=op.__name__):
            pickle.dumps(op)
        assert copy.deepcopy(op) is op


def test_operations_of_one_name_are_each_their_own():
    first = extend.elementwise("same", lambda x: x + 1.0)
    second = extend.composite("same", lambda x: x * 5.0)
    third = extend.external("same", lambda a: a - 1, lambda s: s)
    for run in (lambda f: f, static.jit):
        found = run(lambda x: (first(x), second(x), third(x), dg.add(x, x)))(dg.tensor([2.0]))
        assert [y.tolist() for y in found] == [[3.0], [10.0], [1.0], [4.0]]


EXPRESSIONS: list[tuple[Any, Any]] = [
    (lambda x: x < 1.0, lambda a: a < 1),
    (lambda x: x <= 1.0, lambda a: a <= 1),
    (lambda x: x > 1.0, lambda a: a > 1),
    (lambda x: x >= 1.0, lambda a: a >= 1),
    (lambda x: x == 1.0, lambda a: a == 1),
    (lambda x: x != 1.0, lambda a: a != 1),
    (lambda x: 2.0**x, lambda a: np.float32(2) ** a),
    (lambda x: np.float32(2.0) + x, lambda a: a + 2),
    (lambda x: np.array(2.0) - x, lambda a: 2 - a),
    (lambda x: abs(+x), np.abs),
    (lambda x: x // 2.0, lambda a: a // 2),
    (lambda x: 5.0 % x, lambda a: np.float32(5) % a),
    (lambda x: extend.select(x == 1.0, -x, x), lambda a: np.where(a == 1, -a, a)),
    (lambda x: extend.literal(1e300, np.float32), lambda a: np.full_like(a, np.inf)),
    (lambda x: extend.literal(2**31 - 1, "int32"), lambda a: np.full(a.shape, 2**31 - 1, np.int32)),
    (lambda x: extend.cast(x, float), lambda a: a.astype(np.float64)),
]


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_scalar_expressions(number):
    expression, reference = EXPRESSIONS[number]
    op, a = extend.elementwise("op", expression), np.array([1.0, -2.0, 4.0, 0.5], np.float32)
    for run in (lambda f: f, static.jit):
        found = run(lambda x: op(x))(dg.tensor(a)).numpy()
        assert found.dtype == reference(a).dtype
        assert found.tobytes() == reference(a).tobytes()


KEPT: list[Any] = []
extend.elementwise("keeper", lambda x, y: (KEPT.append(y), x)[1], arity=2)(dg.ones(2), dg.ones(2))
REFUSED: list[tuple[str, Any]] = [
    ("truth value", lambda x: x if x > 0 else -x),
    ("truth value", lambda x: extend.select(x > 0 and x < 1, x, -x)),
    ("it takes 2", lambda x: extend.call("add", x)),
    ("it takes 1", lambda x: extend.call("abs")),
    ("did you mean 'tan'", lambda x: extend.call("tahn", x)),
    (r"use cast\(x, dtype\)", lambda x: extend.call("cast", x)),
    ("scalar expression", lambda x: extend.call("add", 1.0, 2.0)),
    ("condition", lambda x: extend.select(x, x, 0.0)),
    ("condition", lambda x: extend.call("select", x, x, x)),
    ("condition True", lambda x: extend.select(True, x, x)),
    ("scalar expression", lambda x: extend.select(x > 0, 1.0, 2.0)),
    ("integers from", lambda x: extend.literal(2**31, "int32")),
    ("integers from", lambda x: extend.literal(0.5, "int64")),
    ("integers from", lambda x: extend.literal(float("nan"), "int64")),
    ("number", lambda x: extend.literal("1", "float32")),
    ("number", lambda x: extend.literal(None, "bool")),
    ("number", lambda x: x + dg.tensor(1.0)),
    ("number", lambda x: np.ones(2) + x),
    ("no float", lambda x: x * 10**400),
    ("dtype 'no'", lambda x: extend.literal(1, "no")),
    ("dtype 'no'", lambda x: extend.cast(x, "no")),
    ("cast: got 3", lambda x: extend.cast(3, "float32")),
    ("operands of this call", lambda x: KEPT[0] * x),
]


def errors_of(function: Any, *args: Any) -> set[str]:
    """What is raised in each mode: an error of ours, the line included."""
    words = set()
    for run in (lambda f: f, lambda f: static.jit(f, optimize="none"), static.jit):
        with pytest.raises(DualgraphError) as raised:
            run(function)(*args)
        assert raised.value.where.file == __file__
        words.add(f"{type(raised.value).__name__}: {raised.value}")
    return words


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_wrong_scalar_expressions(number):
    words, expression = REFUSED[number]
    op = extend.elementwise("op", expression)
    (found,) = errors_of(lambda x: op(x), dg.ones(2))
    assert re.search(words, found)


X = dg.tensor([1.0, 2.0])
ARITIES: list[tuple[str, Any]] = [
    ("expression, which takes", lambda x: extend.elementwise("f", lambda x, y: x)),
    ("2 operands; it takes 1", lambda x: extend.elementwise("f", lambda x: x)(x, x)),
    ("at most", lambda x: extend.elementwise("f", lambda *xs: xs[0], arity=10**9)),
    ("function, which takes", lambda x: extend.composite("f", lambda: x)(x)),
    ("parameters k for its function", lambda x: extend.composite("f", lambda x: x)(x, k=1)),
    ("function, which takes", lambda x: extend.external("f", lambda: 1, lambda s: s)(x)),
    ("spec, which takes", lambda x: extend.external("f", lambda a: a, lambda: 1)(x)),
    ("gradient rule, which takes", lambda x: dg.grad(dg.sum(_ruled(lambda g: g)(x)), [x])),
    ("gradient rule, which takes", lambda x: dg.grad(dg.sum(_ruled((lambda x: x,))(x)), [x])),
    ("2 gradient rules for 1 input", lambda x: _ruled((None, None))(x)),
    ("1 gradient rules for 2 inputs", lambda x: _ruled((None,), lambda x, y: x * y)(x, x)),
    ("2 gradient rules for 1 input", lambda x: extend.elementwise("f", lambda x: x, vjp=(None, None))),
    ("2 gradient rules for 1 input", lambda x: extend.external("f", lambda a: a, lambda s: s, vjp=[None] * 2)(x)),
    ("constants", lambda x: extend.composite("f", lambda x, k: x)(x, k=x)),
    ("constants", lambda x: extend.composite("f", lambda x, k: x)(x, k=(1, (x,)))),
]


def _ruled(vjp: Any, function: Any = lambda x: x * 2.0) -> Any:
    return extend.composite("f", function, vjp=vjp)


@pytest.mark.parametrize("number", range(len(ARITIES)))
def test_functions_of_other_arities(number):
    words, call = ARITIES[number]
    (found,) = errors_of(call, dg.tensor([1.0, 2.0], requires_grad=True))
    assert re.search(words, found)


GRADIENTS: dict[str, Any] = {
    "count": lambda g, out, x: (g, g),
    "shape": lambda g, out, x: dg.ones(3),
    "too few axes": lambda g, out, x: dg.sum(g),
    "integers": lambda g, out, x: dg.astype(g, "int32"),
    "bools": lambda g, out, x: g > 0,
    "text": lambda g, out, x: "g",
}


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "in a composite"])
@pytest.mark.parametrize("what", GRADIENTS)
def test_gradients_that_do_not_fit(what, inside):
    op = _ruled((GRADIENTS[what],))
    around = extend.composite("around", lambda x: op(x) + 1.0) if inside else op
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    (found,) = errors_of(lambda x: dg.sum(around(x)).backward(), x)
    assert re.search("(Gradient|Shape)Error: f: its gradient rule gave", found)
    assert x.grad is None


def test_specs_are_brought_into_one_form():
    for shape, dtype in (([2], "float32"), (2, np.float32), ((np.int64(2),), np.dtype("float32"))):
        op = extend.external("e", lambda a: a * 2, lambda s, form=(shape, dtype): static.Spec(*form))
        for run in (lambda f: f, static.jit):
            y = run(lambda x, op=op: op(x) + 1.0)(X)
            assert y.spec == static.Spec((2,), "float32")
            assert y.tolist() == [3.0, 5.0]


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize(
    "place", ["itself", "of constants", "in a composite", "in a rule", "in a composite's gradient"]
)
def test_the_line_of_a_wrong_result_is_that_of_the_call(place, pure):
    wrong = extend.external("wrong", lambda a: None, lambda s: s, pure=pure)
    ruled = extend.composite("ruled", lambda x: x * 2.0, vjp=(lambda g, out, x: wrong(g),))
    around = extend.composite("around", lambda x: ruled(x) * 3.0)
    inside = extend.composite("inside", lambda x: wrong(x) + 1.0)

    def f(x: Any) -> Any:
        if place == "itself":
            return wrong(x * 2.0) + 1.0
        if place == "of constants":
            return x + wrong(X)
        if place == "in a composite":
            return inside(x) * 2.0
        return dg.grad(dg.sum((ruled if place == "in a rule" else around)(x)), [x])

    (found,) = errors_of(f, dg.tensor([1.0, 2.0], requires_grad=True))
    assert "wrong: the function returned None" in found


class Counted:
    """An external operation that gives another result at each call."""

    def __init__(self) -> None:
        self.calls = 0
        self.op = extend.external("counted", self.run, lambda s: s, vjp=lambda number, g, out, x: g)

    def run(self, a: Any) -> Any:
        self.calls += 1
        a[...] = a + self.calls  # writing into what it gets, which it keeps
        return a


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("level", ["none", "exact", "fast"])
def test_a_first_run_calls_functions_once(level, verify):
    counted = Counted()
    around = extend.composite("around", lambda x: counted.op(counted.op(x) * 2.0) - counted.op(x))

    def step(x: Any) -> Any:
        counted.op(x)  # nobody uses it
        return counted.op(x * 1.5) + around(x), dg.sum(x * x)

    eager = [step(X)[0].tolist() for _ in range(2)]
    counted.calls = 0
    fast = static.jit(step, optimize=level, verify=verify)
    for number in range(2):
        assert fast(X)[0].tolist() == eager[number]
        assert counted.calls == 5 * (number + 1)
    counted.calls = 0
    compiled = static.compile(step, static.spec(2), optimize=level, verify=verify)
    seen = compiled.watch(compiled.graph.calls[-1].name)
    assert seen(X)[0][0].tolist() == eager[0]
    assert counted.calls == 5
    assert seen(X)[0][0].tolist() == eager[1]
    assert counted.calls == 10


def test_graphs_that_a_function_runs_are_run_each_time():
    counted = Counted()
    inner = static.jit(lambda x: counted.op(x), verify=True)
    outer = extend.external("outer", lambda a: inner(a).numpy() + inner(a).numpy(), lambda s: s)
    fast = static.jit(lambda x: outer(x), verify=True)
    assert fast(X).tolist() == [5.0, 7.0]
    assert counted.calls == 2


def test_a_function_that_gets_other_bits_in_another_stage():
    call = once("counted", None, ((1,), 0), lambda a: (a * 2,))
    kept = Recording(compared=True).inside(call)
    first = kept(np.array([0.0]))
    assert kept(np.array([0.0])) is not None
    assert first[0].tolist() == [0.0]
    with pytest.raises(GraphError, match="changed the bits that counted gets"):
        kept(np.array([-0.0]))
    kept = Recording(compared=False).inside(call)
    assert [kept(np.array([v]))[0].tolist() for v in (1.0, 2.0)] == [[2.0], [2.0]]
    assert call(np.array([2.0]))[0].tolist() == [4.0]


def test_a_first_run_that_fails_leaves_everything():
    w, fail = dg.Variable([1.0]), [True]

    def function(a: Any) -> Any:
        if fail[0]:
            raise OSError("full")
        return a

    op = extend.external("op", function, lambda s: s)

    def step(x: Any) -> Any:
        w.assign(w + 1.0)
        return op(x) + w

    fast = static.jit(step, optimize="fast", verify=True)
    with pytest.raises(OSError, match="full"):
        fast(X)
    assert w.tolist() == [1.0]
    fail[0] = False
    assert fast(X).tolist() == [3.0, 4.0]
    assert w.tolist() == [2.0]


def plain(x: Any, y: Any) -> Any:
    return dg.exp(x) * dg.sin(x * y) + dg.reshape(x, (3,)) ** 3 * y


inside = extend.composite("inside", plain)
DERIVED = {
    "composite": inside,
    "composite of composites": extend.composite("outer", lambda x, y: inside(x, y) * 1.0),
    "with a rule": extend.composite(
        "ruled",
        plain,
        (
            lambda g, out, x, y: g * (dg.exp(x) * (dg.sin(x * y) + y * dg.cos(x * y)) + 3.0 * x * x * y),
            lambda g, out, x, y: g * (dg.exp(x) * x * dg.cos(x * y) + x**3),
        ),
    ),
    "external": extend.external(
        "outside",
        lambda x, y: np.exp(x) * np.sin(x * y) + x**3 * y,
        lambda x, y: x,
        (
            lambda g, out, x, y: g * (dg.exp(x) * (dg.sin(x * y) + y * dg.cos(x * y)) + 3.0 * x * x * y),
            lambda g, out, x, y: g * (dg.exp(x) * x * dg.cos(x * y) + x**3),
        ),
    ),
    "elementwise": extend.elementwise(
        "scalar", lambda x, y: extend.call("exp", x) * extend.call("sin", x * y) + x * x * x * y, 2
    ),
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("name", DERIVED)
def test_derivatives_of_every_order(name: str, order: int, number: int) -> None:
    """Those of the function that it stands for, and the same bits in both modes."""

    def derivative(op: Any) -> Any:
        def run(x: Any, y: Any) -> Any:
            result = dg.sum(op(x, y) * dg.asarray([1.0, 2.0, 3.0]))
            for _ in range(order):
                (g,) = dg.grad(result, [(x, y)[number]], create_graph=True)
                result = dg.sum(dg.tanh(g))
            return result.detach()

        return run

    x, y = (dg.tensor(np.array(v), requires_grad=True) for v in ([0.5, -1.0, 0.25], [0.75, 0.3, -0.7]))
    found = derivative(DERIVED[name])(x, y)
    assert static.jit(derivative(DERIVED[name]))(x, y).numpy().tobytes() == found.numpy().tobytes()
    np.testing.assert_allclose(found.item(), derivative(plain)(x, y).item(), rtol=1e-9)


OF_CONSTANTS: dict[str, Any] = {
    "array": lambda x: np.hanning(x.shape[0]).astype(np.float32),
    "tensor": lambda x: dg.tensor(np.hanning(x.shape[0]).astype(np.float32)),
    "view": lambda x: dg.tensor([1.0, 2.0, 3.0])[::-1],
    "number": lambda x: 3.0,
    "broadcast": lambda x: dg.broadcast_to(3.0, x.shape),
    "beside": lambda x: (x * 2.0, dg.tensor([1.0, 2.0, 3.0])),
    "itself": lambda x: (x, x[::-1]),
}


@pytest.mark.parametrize("level", ["none", "exact", "fast"])
@pytest.mark.parametrize("name", OF_CONSTANTS)
def test_composites_that_return_constants_of_constants(name: str, level: str) -> None:
    op = extend.composite(f"returns_{name}", OF_CONSTANTS[name])
    captured = dg.tensor([1.0, -2.0, 0.5])

    def function(x: Any) -> Any:
        found = op(captured)
        return [x * y for y in (found if isinstance(found, tuple) else (found,))]

    x = dg.tensor([2.0, 3.0, 4.0])
    expected = [y.numpy().tobytes() for y in function(x)]
    assert [y.numpy().tobytes() for y in static.jit(function, optimize=level, verify=True)(x)] == expected
