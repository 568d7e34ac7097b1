"""`verify=True` traces a function again at each call: what no guard sees is found, and nothing is found where nothing is."""

from __future__ import annotations

import ast
import cmd
import contextlib
import ctypes
import decimal
import functools
import importlib
import inspect
import itertools
import os
import random
import string
import sys
import tempfile
import threading
import time
import types
import unittest.mock
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import extend, nn, optim, static
from dualgraph.errors import GraphError

Case = tuple[Callable[[Any], Any], Callable[[], object]]
UNGUARDED: dict[str, Callable[[], Case]] = {}


def unguarded(make: Callable[[], Case]) -> Callable[[], Case]:
    UNGUARDED[make.__name__] = make
    return make


class Box:
    """A plain object."""

    def __init__(self, k: float = 2.0):
        self.k = k


class Other(Box):
    pass


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k = 2.0


# What libraries hold, and what they read by themselves


@unguarded
def a_weak_dictionary():
    boxes, held = weakref.WeakValueDictionary(), [Box(), Box(3.0)]
    boxes["box"] = held[0]
    return lambda x: x * boxes["box"].k, lambda: boxes.update(box=held[1])


@unguarded
def a_local_of_threads():
    local = threading.local()
    local.k = 2.0
    return lambda x: x * local.k, lambda: setattr(local, "k", 3.0)


@unguarded
def a_context_of_a_library():
    context = contextlib.nullcontext(2.0)

    def f(x):
        with context as k:
            return x * k

    return f, lambda: setattr(context, "enter_result", 3.0)


@unguarded
def a_memoryview():
    data = bytearray([2])
    view = memoryview(data)
    return lambda x: x * float(view[0]), lambda: view.__setitem__(0, 3)


@unguarded
def a_number_of_ctypes():
    number = ctypes.c_double(2.0)
    return lambda x: x * number.value, lambda: setattr(number, "value", 3.0)


@unguarded
def a_mock():
    mock = unittest.mock.Mock(return_value=2.0)
    return lambda x: x * mock(), lambda: setattr(mock, "return_value", 3.0)


@unguarded
def members_that_a_library_lists():
    box = Box()
    return lambda x: x * dict(inspect.getmembers(box))["k"], lambda: setattr(box, "k", 3.0)


@unguarded
def namespaces_that_are_compared():
    one, two = types.SimpleNamespace(late=2.0), types.SimpleNamespace(late=2.0)
    return lambda x: x * (2.0 if one == two else 3.0), lambda: setattr(one, "late", 3.0)


@unguarded
def methods_that_a_visitor_calls():
    class Visitor(ast.NodeVisitor):
        def visit_Constant(self, node):
            return node.value * FACTOR[0]

    tree = ast.parse("2.0", mode="eval").body
    visitor = Visitor()
    return lambda x: x * visitor.visit(tree), lambda: setattr(Visitor, "visit_Constant", lambda self, node: 5.0)


FACTOR = [1.0]


@unguarded
def methods_that_a_command_loop_calls():
    factor = {"k": 2.0}

    class Commands(cmd.Cmd):
        def do_get(self, _):
            self.found = factor["k"]

    commands = Commands()
    return lambda x: x * (commands.onecmd("get"), commands.found)[1], lambda: factor.update(k=3.0)


@unguarded
def a_template_of_a_library():
    template = string.Template("2.0")
    return lambda x: x * float(template.substitute()), lambda: setattr(template, "template", "3.0")


@unguarded
def the_context_of_decimals():
    context = decimal.Context(prec=5)

    def change():
        context.prec = 3

    return lambda x: x * float(context.divide(decimal.Decimal(2), decimal.Decimal(3))), change


# What an object is


@unguarded
def the_class_of_an_object():
    box = Box()
    return lambda x: x * (2.0 if type(box) is Box else 3.0), lambda: setattr(box, "__class__", Other)


@unguarded
def the_bases_of_a_class():
    class Base:
        pass

    class Late(Base):
        pass

    class Own(Base):
        pass

    own = Own()
    return lambda x: x * (3.0 if isinstance(own, Late) else 2.0), lambda: setattr(Own, "__bases__", (Late,))


@unguarded
def an_attribute_that_is_set_past_a_module():
    model = Model()
    return lambda x: x * model.k, lambda: object.__setattr__(model, "k", 3.0)


@unguarded
def an_attribute_in_the_dictionary_of_a_module():
    model = Model()
    return lambda x: x * model.k, lambda: model.__dict__.__setitem__("k", 3.0)


@unguarded
def a_dictionary_of_attributes_that_is_replaced():
    box = Box()
    return lambda x: x * box.k, lambda: setattr(box, "__dict__", {"k": 3.0})


@unguarded
def the_class_of_a_module_that_is_only_asked_for_it():
    model = Model()
    other = type("OtherModel", (Model,), {})
    return lambda x: x * (2.0 if type(model) is Model else 3.0), lambda: setattr(model, "__class__", other)


@unguarded
def a_buffer_that_is_no_longer_saved():
    model = Model()
    model.register_buffer("b", dg.ones(1))
    return (
        lambda x: x * (2.0 + len(model.state_dict())),
        lambda: model.register_buffer("b", model.b, persistent=False),
    )


class Lacking:
    @property
    def doubled(self):
        return self.inner * 2


class Delegating:
    def __init__(self):
        self.held = Lacking()

    def __getattr__(self, name):
        return self.held.doubled if name == "asked" else object.__getattribute__(self, name)


@unguarded
def an_attribute_that_a_property_lacks():
    held = Lacking()
    return lambda x: x * (held.doubled if hasattr(held, "doubled") else 1.0), lambda: setattr(held, "inner", 3.0)


@unguarded
def an_attribute_that_a_catch_all_lacks():
    held = Delegating()
    return lambda x: x * getattr(held, "asked", 1.0), lambda: setattr(held.held, "inner", 3.0)


@unguarded
def an_attribute_whose_lack_a_context_swallows():
    class Swallowing(Box):
        def __enter__(self):
            return self

        def __exit__(self, kind, value, trace):
            return kind is not None

    box, context = Box(), Swallowing()

    def get():
        return box.late

    def f(x):
        with context:
            return x * get()
        return x * 1.0

    return f, lambda: setattr(box, "late", 3.0)


@unguarded
def an_attribute_that_a_function_lacks():
    def held():
        pass

    def get():
        return held.late

    def f(x):
        try:
            return x * get()
        except AttributeError:
            return x * 2.0

    return f, lambda: setattr(held, "late", 3.0)


@unguarded
def a_global_that_hides_a_function_of_python():
    names: dict[str, Any] = {"__builtins__": __builtins__}
    f = types.FunctionType((lambda x: x * len([1, 2])).__code__, names)
    return f, lambda: names.update(len=lambda _: 3.0)


@unguarded
def a_name_with_underscores_of_a_module():
    model = Model()
    model.__k__ = 2.0
    return lambda x: x * model.__k__, lambda: setattr(model, "__k__", 3.0)


@runtime_checkable
class HasLate(Protocol):
    def late(self) -> float: ...


@unguarded
def what_a_protocol_asks_for():
    box = Box()
    return lambda x: x * (3.0 if isinstance(box, HasLate) else 2.0), lambda: setattr(box, "late", lambda: 1.0)


# Names that only a library or the interpreter knows

BY_A_COMPUTED_NAME = 2.0


@unguarded
def a_global_by_a_computed_name():
    globals()["BY_A_COMPUTED_NAME"] = 2.0
    name = "_".join(["BY", "A", "COMPUTED", "NAME"])
    return lambda x: x * globals()[name], lambda: globals().update({name: 3.0})


@unguarded
def a_module_by_a_computed_name():
    module = types.ModuleType("made_by_a_test")
    sys.modules[module.__name__] = module
    module.k = 2.0
    name = "_".join(["made", "by", "a", "test"])
    return lambda x: x * importlib.import_module(name).k, lambda: setattr(module, "k", 3.0)


@unguarded
def code_in_a_string():
    globals()["BY_A_COMPUTED_NAME"] = 2.0
    code = "BY_A_" + "COMPUTED_NAME"
    return lambda x: x * eval(code), lambda: globals().update(BY_A_COMPUTED_NAME=3.0)  # noqa: S307 - that is the case


@unguarded
def what_a_module_finds_by_itself():
    module, found = types.ModuleType("made_by_a_test"), {"k": 2.0}
    module.__getattr__ = lambda name: found[name]  # type: ignore[method-assign]
    return lambda x: x * module.k, lambda: found.update(k=3.0)


@unguarded
def the_text_of_an_exception():
    error = ValueError("2.0")

    def refuse():
        raise error

    def f(x):
        try:
            refuse()
        except ValueError as caught:
            return x * float(str(caught))

    return f, lambda: setattr(error, "args", ("3.0",))


@unguarded
def a_computed_name_of_what_is_only_counted():
    box, name = Box(), "".join(["calls"])
    box.calls = 2.0

    def f(x):
        k = getattr(box, name.lower())
        box.calls += 0.0
        return x * k

    return f, lambda: setattr(box, "calls", 3.0)


@unguarded
def a_template_that_is_written_elsewhere():
    box = types.SimpleNamespace(k=2.0)
    template = "".join(["{0", ".k}"])
    return lambda x: x * float(template.format(box)), lambda: setattr(box, "k", 3.0)


@unguarded
def what_a_match_statement_looks_at():
    box = Box()

    def f(x):
        match box:
            case Box(k=2.0):
                return x * 2.0
        return x * 3.0

    return f, lambda: setattr(box, "k", 3.0)


# What is used up or lies deep


@unguarded
def an_iterator():
    items = iter([2.0, 3.0, 4.0])
    return lambda x: x * next(items), lambda: None


@unguarded
def elements_of_a_large_array():
    array = np.full(100_000, 2.0, np.float32)
    return lambda x: x * array[7], lambda: array.__setitem__(7, 3.0)


@unguarded
def a_large_array_as_an_operand():
    array = np.full(100_000, 2.0, np.float32)
    return lambda x: x[:1] * array, lambda: array.__setitem__(7, 3.0)


@unguarded
def what_an_array_of_objects_holds():
    array = np.array([Box()], object)
    return lambda x: x * array[0].k, lambda: setattr(array[0], "k", 3.0)


@unguarded
def an_element_of_a_long_list():
    numbers = [2.0] * 5000
    return lambda x: x * numbers[-1], lambda: numbers.__setitem__(-1, 3.0)


# The world outside


@unguarded
def the_environment():
    os.environ["DUALGRAPH_TEST_FACTOR"] = "2.0"
    return (
        lambda x: x * float(os.environ["DUALGRAPH_TEST_FACTOR"]),
        lambda: os.environ.update(DUALGRAPH_TEST_FACTOR="3.0"),
    )


@unguarded
def the_clock():
    return lambda x: x * float(time.perf_counter_ns() % 2**20), lambda: time.sleep(1e-5)


@unguarded
def another_random_generator():
    return lambda x: x * random.random(), lambda: None


@unguarded
def a_file():
    path = Path(tempfile.mkdtemp()) / "factor.txt"
    path.write_text("2.0")
    return lambda x: x * float(path.read_text()), lambda: path.write_text("3.0")


@pytest.mark.parametrize("name", UNGUARDED)
def test_what_no_guard_sees_is_found(name):
    """It goes unnoticed, as the page says; `verify=True` finds it, and the step has not run."""
    function, change = UNGUARDED[name]()
    x = dg.ones(2)
    fast = static.jit(function)
    first = fast(x).tolist()
    change()
    assert fast(x).tolist() == first
    assert fast.misses == ["first call"]

    function, change = UNGUARDED[name]()
    count = dg.Variable(0.0)

    def counted(x):
        count.assign(count + 1.0)
        return function(x)

    sure = static.jit(counted, verify=True)
    sure(x)
    change()
    words = r"verify: counted, traced again: (multiply takes|has) .* the compiled graph.*; nothing that is guarded"
    with pytest.raises(GraphError, match=words) as caught:
        sure(x)
    assert caught.value.where.file == __file__
    assert count.item() == 1.0


W, V = dg.Variable([1.0, 2.0]), dg.Variable([1.0, 2.0])
P = nn.Parameter([1.0, 2.0])
ONE, TWO = dg.tensor([1.0]), dg.tensor([1.0])


def leaves_gradient(again: bool) -> None:
    P.grad = None
    (P * P).sum().backward()
    if again:
        P.grad = None


def either(x: Any, again: bool, use: Callable[[Any, Any, bool], Any]) -> Any:
    return use(dg.sin(x), dg.cos(x), again)


DIFFERENCES: dict[str, tuple[Callable[[Any, bool], Any], str]] = {
    "a constant": (lambda x, again: x + (3.0 if again else 2.0), "add takes 3.0, in the compiled graph 2.0"),
    "a zero's sign": (lambda x, again: x * (-0.0 if again else 0.0), "multiply takes -0.0, in the compiled graph 0.0"),
    "an array": (
        lambda x, again: x + np.array([1.0, 3.0 if again else 2.0], np.float32),
        r"add takes array\(\[1., 3.\].*\), in the compiled graph array\(\[1., 2.\]",
    ),
    "a large array": (
        lambda x, again: dg.sum(x) + np.full(50, 3.0 if again else 2.0),
        r"add takes an array of float64\[50\], not the one of the compiled graph",
    ),
    "an op": (
        lambda x, again: dg.sin(x) if again else dg.cos(x),
        "has a call of sin, in the compiled graph a call of cos",
    ),
    "a further op": (
        lambda x, again: (dg.sin(x), x)[1] if again else x,
        "has a call of sin, in the compiled graph no further call",
    ),
    "one op less": (
        lambda x, again: x if again else (dg.sin(x), x)[1],
        "has no further call, in the compiled graph a call of sin",
    ),
    "an option": (lambda x, again: dg.sum(x, keepdims=again), "sum has keepdims = True, in the compiled graph False"),
    "an operand": (
        lambda x, again: either(x, again, lambda s, c, again: s * s if again else s * c),
        r"operand 1 of multiply is the result of sin \(line \d+\), in the compiled graph the result of cos \(line \d+\)",
    ),
    "a variable": (
        lambda x, again: x * (V if again else W),
        r"reads the variable float32\[2\], not the one of the compiled graph",
    ),
    "another value": (
        lambda x, again: either(x, again, lambda s, c, again: W.assign(s if again else c)),
        "gives another value than the compiled graph to the variable",
    ),
    "no update": (
        lambda x, again: (W + x, None if again else W.assign(x))[0],
        "gives another value than the compiled graph to the variable",
    ),
    "a gradient": (
        lambda x, again: leaves_gradient(again),
        "leaves another .grad than the compiled graph in the variable",
    ),
    "a flag": (
        lambda x, again: (W * x, W.requires_grad_(again))[0],
        "leaves another requires_grad or other hooks than the compiled graph in the variable",
    ),
    "a hook": (
        lambda x, again: (P * x, P.register_hook(lambda g: g * 2.0) if again else None)[0],
        "leaves another requires_grad or other hooks than the compiled graph in the variable",
    ),
    "a flag of an argument": (
        lambda x, again: (x * 2.0, x.requires_grad_(again))[0],
        "leaves another requires_grad or other hooks than the compiled graph in the argument 'x'",
    ),
    "a result": (
        lambda x, again: either(x, again, lambda s, c, again: s if again else c),
        r"returns the result of sin \(line \d+\), in the compiled graph the result of cos",
    ),
    "a constant result": (
        lambda x, again: (x * 1.0, 3 if again else 3.0),
        "returns 3, in the compiled graph 3.0",
    ),
    "a structure": (
        lambda x, again: [x, x] if again else (x, x),
        r"returns \[\*, \*\], in the compiled graph \(\*, \*\)",
    ),
    "a tensor from outside": (
        lambda x, again: (x * 2.0, ONE if again else TWO),
        r"returns a tensor of float32\[1\], not the one of the compiled graph",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_words_of_a_difference(name):
    function, words = DIFFERENCES[name]
    for v in (W, V, P):
        v.requires_grad_(v is P)
        v.assign([1.0, 2.0])
        v.grad = None
    turns = itertools.count()
    sure = static.jit(lambda x: function(x, next(turns) > 0), verify=True)
    x = dg.ones(2)
    sure(x)
    P.grad = None
    before = [(v.tolist(), v.requires_grad, v.grad, list(v.hooks or ())) for v in (W, V, P)]
    with pytest.raises(GraphError, match=words) as caught:
        sure(x)
    assert caught.value.where.file == __file__
    assert [(v.tolist(), v.requires_grad, v.grad, list(v.hooks or ())) for v in (W, V, P)] == before


def trainer() -> tuple[Any, list[Any], Callable[..., Any], Any]:
    dg.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    opt = optim.Adam(model.parameters(), lr=1e-2)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y) * float(os.environ.get("DUALGRAPH_TEST_FACTOR", "1.0"))
        loss.backward()
        opt.step()
        return loss

    state = [*model.parameters(), *model.buffers()]
    return model, state, step, opt


X = np.random.default_rng(0).standard_normal((6, 5, 4)).astype(np.float32)
Y = np.random.default_rng(0).integers(0, 3, (6, 5))


def test_a_training_step_is_as_ever(monkeypatch):
    """Dropout, Adam, a schedule, evaluation in between: no alarm, the bits of eager mode; and a step that is refused has not
    happened."""
    monkeypatch.delenv("DUALGRAPH_TEST_FACTOR", raising=False)
    found = {}
    for kind in ("eager", "verified", "compiled"):
        model, state, step, opt = trainer()
        if kind == "verified":
            step = static.jit(step, verify=True)
        elif kind == "compiled":
            step = static.compile(step, static.spec((5, 4)), static.spec((5,), "int64"), verify=True)
        losses = []
        for number, (x, y) in enumerate(zip(X, Y, strict=True)):
            if kind != "eager" and number:
                monkeypatch.setenv("DUALGRAPH_TEST_FACTOR", "2.0")
                with pytest.raises(GraphError, match=r"multiply takes 2.0, in the compiled graph 1.0"):
                    step(x, y)
                monkeypatch.delenv("DUALGRAPH_TEST_FACTOR")
            losses.append(step(x, y).item())
            opt.lr = 0.01 / (number + 2)
            model.eval()
            model(x)
            model.train()
        found[kind] = [
            losses,
            [v.tolist() for v in state],
            [p.grad.tolist() for p in model.parameters()],
            dg.rand(2).tolist(),
        ]
    assert found["verified"] == found["compiled"] == found["eager"]


class Turning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turn, self.calls = 0, 0

    def forward(self, x):
        self.calls += 1
        self.turn = 1 - self.turn
        return x * (2.0 if self.turn else 3.0)


def test_what_a_function_reads_and_changes():
    """Each call is a trace, which is what the check would do: nothing happens twice."""
    sure, eager = Turning(), Turning()
    fast, x = static.jit(sure, verify=True), dg.ones(1)
    for _ in range(6):
        assert fast(x).item() == eager(x).item()
        assert (sure.turn, sure.calls) == (eager.turn, eager.calls)


def test_python_runs_once_for_each_call():
    calls: list[int] = []

    def f(x):
        calls.append(1)
        return x * 2.0

    fast, given = static.jit(f, verify=True), static.compile(f, static.spec((2,)), verify=True)
    calls.clear()
    for number in range(1, 4):
        fast(dg.ones(2))
        assert len(calls) == number
    for number in range(4, 7):
        given(dg.ones(2))
        assert len(calls) == number


def test_a_function_that_fails_when_it_is_traced_again():
    held: list[float] = [2.0]
    values = iter([held, held, []])

    fast, x = static.jit(lambda x: x * next(values)[0], verify=True), dg.ones(1)
    assert fast(x).item() == fast(x).item() == 2.0
    with pytest.raises(IndexError):
        fast(x)


@dataclass
class Result:
    values: list[float]
    by: Callable[[float], float]


def adding(x, by):
    def add(y):
        return y + by

    return {
        "x": x,
        "add": add,
        "all": functools.partial(max, 2.0),
        "result": Result([by], add),
        "bound": Box(by).__init__,
    }


def doubled_twice(x):
    double = extend.composite("double", lambda x: x * 2.0)
    square = extend.elementwise("square", lambda e: e * e)
    negate = extend.external("negate", lambda a: -a, lambda s: s)
    return negate(square(double(x)))


def with_hook(x):
    y = P * x
    y.register_hook(lambda g: g * 2.0)
    P.register_hook(lambda g, by=2.0: g * by)
    P.grad = None
    dg.sum(y * y).backward()
    return P.grad


def gradients_of_arguments(x):
    y = x.detach().requires_grad_()
    return dg.grad(dg.sum(y * y * y), [y], create_graph=True)[0]


@pytest.mark.parametrize("function", [lambda x: adding(x, 2.0), doubled_twice, gradients_of_arguments])
def test_what_a_trace_makes_anew_is_no_difference(function):
    fast, x = static.jit(function, verify=True), dg.ones(2)
    for _ in range(3):
        fast(x)
    assert fast.misses == ["first call"]


def test_hooks_that_a_step_leaves():
    P.hooks[:] = []
    fast, x = static.jit(with_hook, verify=True), dg.ones(2)
    try:
        for _ in range(3):
            fast(x)
            P.hooks[:] = []
    finally:
        P.hooks[:] = []
    assert fast.misses == ["first call"]


def test_an_object_that_is_returned_and_changed():
    values = iter([2.0, 2.0, 3.0])
    fast, x = static.jit(lambda x: adding(x, next(values)), verify=True), dg.ones(1)
    fast(x)
    fast(x)
    with pytest.raises(GraphError, match=r"returns <.*add>, not the one of the compiled graph"):
        fast(x)
