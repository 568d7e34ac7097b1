"""What a trace could have baked in: for each kind of state a change is noticed, and without one nothing is traced again.

A case gives a function of one tensor and a change. The function is run eagerly and compiled, before and after the change.
"""

from __future__ import annotations

import collections
import contextvars
import copy
import dataclasses
import functools
import gc
import importlib
import operator
import os
import signal
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from enum import Enum, member
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import extend, nn, optim, static
from dualgraph.errors import RecompileWarning
from dualgraph.exact import exact

Case = tuple[Callable[..., Any], Callable[[], Any]]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


class Scaled(nn.Module):
    k = 2.0
    table: ClassVar[dict[str, float]] = {"k": 3.0}

    def __init__(self):
        super().__init__()
        self.scales, self.options, self.kinds = [1.0, 2.0], {"a": 3.0, "deep": [4.0]}, {1.0}
        self.weights = np.array([1.0, 2.0], np.float32)
        self.config = types.SimpleNamespace(scale=2.0)

    def forward(self, x):
        return x * self.k


class Reads(Scaled):
    """Calls a function of itself in its forward."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, x):
        return self.read(self, x)


def module_case(read: Callable[[Any, Any], Any], change: Callable[[Any], Any]) -> Case:
    model = Reads(read)
    return model, lambda: change(model)


MODULE_CASES: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "first set on the instance": (lambda m, x: x * m.k, lambda m: setattr(m, "k", 7.0)),
    "equal but of another type": (lambda m, x: x * (3.0 if type(m.k) is float else 5.0), lambda m: setattr(m, "k", 2)),
    "a zero's sign": (lambda m, x: dg.copysign(x, getattr(m, "z", 0.0)), lambda m: setattr(m, "z", -0.0)),
    "with a default": (lambda m, x: x * getattr(m, "late", 2.0), lambda m: setattr(m, "late", 3.0)),
    "hasattr": (lambda m, x: x * 2.0 if hasattr(m, "late") else x, lambda m: setattr(m, "late", 3.0)),
    "in a list": (lambda m, x: x * m.scales[1], lambda m: m.scales.__setitem__(1, 5.0)),
    "a longer list": (lambda m, x: x * sum(m.scales), lambda m: m.scales.append(5.0)),
    "in a dictionary": (lambda m, x: x * m.options["a"], lambda m: m.options.update(a=5.0)),
    "in a nested list": (lambda m, x: x * m.options["deep"][0], lambda m: m.options["deep"].__setitem__(0, 5.0)),
    "in a set": (lambda m, x: x * (2.0 if 1.0 in m.kinds else 3.0), lambda m: m.kinds.discard(1.0)),
    "in an array": (lambda m, x: x * m.weights[0], lambda m: m.weights.__setitem__(0, 5.0)),
    "an array as an operand": (lambda m, x: x * m.weights, lambda m: m.weights.__setitem__(0, 5.0)),
    "in a namespace": (lambda m, x: x * m.config.scale, lambda m: setattr(m.config, "scale", 5.0)),
    "a dictionary of the class": (lambda m, x: x * m.table["k"], lambda m: m.table.update(k=m.table["k"] + 1.0)),
}


@pytest.mark.parametrize("name", MODULE_CASES)
def test_attributes_of_modules(name):
    check(module_case(*MODULE_CASES[name]))


@case
def a_deleted_attribute():
    model = Scaled()
    model.k = 5.0
    return model, lambda: delattr(model, "k")


@case
def an_attribute_of_the_class():
    class Own(nn.Module):
        k = 2.0

        def forward(self, x):
            return x * self.k

    return Own(), lambda: setattr(Own, "k", 3.0)


@case
def a_method_of_the_class():
    class Own(nn.Module):
        def forward(self, x):
            return self.helped(x)

        def helped(self, x):
            return x * 2.0

    return Own(), lambda: setattr(Own, "helped", lambda self, x: x * 3.0)


@case
def another_forward():
    model = Scaled()
    return model, lambda: setattr(model, "forward", lambda x: x * 9.0)


@case
def a_property():
    class Own(nn.Module):
        inner = 2.0

        @property
        def scale(self):
            return self.inner

        def forward(self, x):
            return x * self.scale

    model = Own()
    return model, lambda: setattr(model, "inner", 4.0)


@case
def an_attribute_of_a_part_that_is_only_read():
    outer = nn.Module()
    outer.inner = Scaled()
    return (lambda x: x * outer.inner.k), lambda: setattr(outer.inner, "k", 5.0)


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.ls = nn.ModuleList([Scaled(), Scaled()])
        self.named = nn.ModuleDict({"a": Scaled()})

    def forward(self, x):
        for layer in self.ls:
            x = layer(x)
        for layer in self.named.values():
            x = layer(x)
        return x


LIST_CHANGES: dict[str, Callable[[Looped], Any]] = {
    "append": lambda m: m.ls.append(Scaled()),
    "extend": lambda m: m.ls.extend([Scaled(), Scaled()]),
    "insert": lambda m: m.ls.insert(0, Scaled()),
    "replace": lambda m: m.ls.__setitem__(0, nn.Tanh()),
    "dict": lambda m: m.named.__setitem__("a", nn.Tanh()),
    "dict more": lambda m: m.named.__setitem__("b", nn.Tanh()),
    "dict fewer": lambda m: m.named.__delitem__("a"),
    "table": lambda m: m.ls._modules.update({"0": nn.Tanh()}),
    "deep": lambda m: setattr(m.ls[1], "k", 11.0),
    "hook": lambda m: m.ls[0].register_forward_hook(lambda module, args, out: out * 3.0),
    "pre-hook": lambda m: m.register_forward_pre_hook(lambda module, args: (args[0] * 3.0,)),
    "other list": lambda m: setattr(m, "ls", nn.ModuleList([Scaled()])),
}


@pytest.mark.parametrize("name", LIST_CHANGES)
def test_parts_that_are_iterated(name):
    model = Looped()
    check((model, lambda: LIST_CHANGES[name](model)))


@case
def parameters_that_are_iterated():
    model = nn.Linear(2, 2)
    return (lambda x: sum((dg.sum(p) for p in model.parameters()), x)), lambda: setattr(
        model, "bias", nn.Parameter(np.full(2, 7.0, np.float32))
    )


@case
def a_hook_that_is_removed():
    model = Scaled()
    handle = model.register_forward_hook(lambda module, args, out: out * 3.0)
    return model, handle.remove


@case
def a_closure_variable():
    scale = 2.0

    def change():
        nonlocal scale
        scale = 5.0

    return (lambda x: x * scale), change


@case
def a_closure_variable_of_a_helper():
    scale = 2.0

    def helper(x):
        return x * scale

    def change():
        nonlocal scale
        scale = 5.0

    return (lambda x: helper(x)), change


@case
def a_model_that_is_replaced():
    model = nn.Linear(2, 2)

    def change():
        nonlocal model
        model = nn.Linear(2, 2)

    return (lambda x: model(x)), change


@case
def an_array_of_a_closure():
    weights = np.array([1.0, 2.0], np.float32)
    return (lambda x: x * weights), lambda: weights.__setitem__(1, 9.0)


@case
def a_helper_that_is_replaced():
    def helper(x):
        return x * 2.0

    def change():
        nonlocal helper
        helper = lambda x: x * 3.0  # noqa: E731

    return (lambda x: helper(x)), change


GLOBAL: Any = 2.0
GLOBALS: Any = {"a": [1.0]}


def reads_globals(x):
    return x * GLOBAL * GLOBALS["a"][0]


@case
def a_global():
    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return reads_globals, change


@case
def the_contents_of_a_global():
    return (lambda x: reads_globals(x)), lambda: GLOBALS["a"].__setitem__(0, GLOBALS["a"][0] + 1.0)


@case
def a_global_read_by_a_method_of_a_part():
    class Own(nn.Module):
        def forward(self, x):
            return next(iter([reads_globals(y) for y in (x,)]))

    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return nn.Sequential(Own()), change


@case
def defaults():
    def f(x, *, scale=2.0):
        return x * scale

    return f, lambda: f.__kwdefaults__.update(scale=3.0)


@case
def other_defaults():
    def f(x, scale=2.0):
        return x * scale

    return f, lambda: setattr(f, "__defaults__", (3.0,))


@case
def a_default_that_is_a_list():
    def f(x, scales=[2.0]):  # noqa: B006
        return x * scales[0]

    return f, lambda: f.__defaults__[0].__setitem__(0, 3.0)


class Trainer:
    shared = 1.0

    def __init__(self):
        self.by, self.seen = 2.0, 0
        self.inner = types.SimpleNamespace(k=[1.0])

    def step(self, x):
        return x * self.by * self.factor() * self.inner.k[0] * self.shared

    def factor(self):
        return 2.0


@case
def an_attribute_of_a_plain_object():
    trainer = Trainer()
    return trainer.step, lambda: setattr(trainer, "by", 3.0)


@case
def a_list_in_a_plain_object():
    trainer = Trainer()
    return trainer.step, lambda: trainer.inner.k.__setitem__(0, 3.0)


@case
def a_method_put_on_a_plain_object():
    trainer = Trainer()
    return trainer.step, lambda: setattr(trainer, "factor", lambda: 5.0)


@case
def a_plain_class():
    class Config:
        scale = 2.0

    return (lambda x: x * Config.scale), lambda: setattr(Config, "scale", 3.0)


@dataclass(slots=True)
class Slotted:
    scale: float


@case
def a_slot():
    config = Slotted(2.0)
    return (lambda x: x * config.scale), lambda: setattr(config, "scale", 3.0)


@case
def a_partial():
    options = {"scale": 2.0}
    return functools.partial(lambda x, options: x * options["scale"], options=options), lambda: options.update(
        scale=3.0
    )


@case
def a_deque():
    scales = collections.deque([1.0, 2.0])
    return (lambda x: x * scales[0]), lambda: scales.rotate(1)


@case
def a_decorated_function():
    scale = 2.0

    @dg.no_grad()
    def f(x):
        return x * scale

    def change():
        nonlocal scale
        scale = 3.0

    return f, change


@case
def inside_another_compiled_function():
    scale = 2.0
    inner = static.jit(lambda x: x * scale)

    def change():
        nonlocal scale
        scale = 3.0

    return (lambda x: inner(x) + 1.0), change


@case
def an_option_of_an_optimiser():
    w = nn.Parameter([1.0, 2.0])

    class Own(optim.SGD):
        decay = 1.0

        def step(self):
            with dg.no_grad():
                for p in self.params:
                    p.assign(p * self.decay)

    opt = Own([w], lr=0.1)

    def step(x):
        opt.step()
        return w * x

    return step, lambda: setattr(opt, "decay", 0.5)


@case
def read_through_the_class():
    class Own(nn.Module):
        k = 2.0

        @classmethod
        def scaled(cls, x):
            return x * cls.k * type(cls()).k

        def forward(self, x):
            return self.scaled(x) * type(self).k

    return Own(), lambda: setattr(Own, "k", 3.0)


@case
def nearer_in_the_order_of_bases():
    class Base(nn.Module):
        k = 2.0

        def forward(self, x):
            return x * self.k

    class Own(Base):
        pass

    return Own(), lambda: setattr(Own, "k", 7.0)


@case
def absent_and_later_in_the_class():
    class Own(nn.Module):
        def forward(self, x):
            return x * getattr(self, "k", 2.0)

    return Own(), lambda: setattr(Own, "k", 7.0)


@case
def absent_from_a_plain_object():
    config = Trainer()
    return (lambda x: x * (config.late if hasattr(config, "late") else 1.0)), lambda: setattr(config, "late", 7.0)


@case
def super_of_a_mixin():
    class Mixin:
        def scaled(self, x):
            return x * 3.0

    class Base(nn.Module):
        def scaled(self, x):
            return x

    class Own(Mixin, Base):
        def scaled(self, x):
            return super().scaled(x)

        def forward(self, x):
            return self.scaled(x)

    return Own(), lambda: setattr(Mixin, "scaled", lambda self, x: x * 5.0)


class Holder:
    """Reached by operators and built-in functions only."""

    def __init__(self):
        self.v = [1.0, 2.0]

    def __len__(self):
        return len(self.v)

    def __iter__(self):
        return iter(self.v)

    def __mul__(self, x):
        return x * self.v[0]

    def __float__(self):
        return self.v[0]

    def __enter__(self):
        return self.v[0]

    def __exit__(self, *exc):
        pass


def entered(holder, x):
    with holder as scale:
        return x * scale


OPERATORS = {
    "len": lambda h, x: x * len(h),
    "iter": lambda h, x: x * sum(h),
    "mul": lambda h, x: h * x,
    "float": lambda h, x: x * float(h),
    "with": entered,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_operators_reach(name):
    holder = Holder()
    check(((lambda x: OPERATORS[name](holder, x)), lambda: holder.v.insert(0, 5.0)))


@case
def the_making_of_an_object():
    class Made:
        def __init__(self):
            self.k = GLOBAL

        def __call__(self, x):
            return x * self.k

    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return (lambda x: Made()(x)), change


@case
def a_forward_of_the_instance_and_its_global():
    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    model = nn.ReLU()
    model.forward = lambda x: x * GLOBAL
    return model, change


@case
def a_call_of_the_users():
    class Own(nn.Module):
        def __call__(self, x):
            return reads_globals(x)

    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return Own(), change


@case
def an_import_inside():
    module = types.ModuleType("of_the_user")
    module.SCALE = 2.0
    sys.modules["of_the_user"] = module

    def f(x):
        from of_the_user import SCALE

        return x * SCALE

    return f, lambda: setattr(module, "SCALE", 5.0)


@case
def an_attribute_of_a_function():
    def f(x):
        return x * f.k

    f.k = 2.0
    return f, lambda: setattr(f, "k", 5.0)


@case
def the_code_of_a_function():
    def helper(x):
        return x * 2.0

    def other(x):
        return x * 7.0

    return (lambda x: helper(x)), lambda: setattr(helper, "__code__", other.__code__)


@case
def slots_of_a_module():
    class Own(nn.Module):
        __slots__ = ("k",)

        def __init__(self):
            super().__init__()
            self.k = 2.0

        def forward(self, x):
            return x * self.k

    model = Own()
    return model, lambda: setattr(model, "k", 5.0)


@case
def the_class_of_a_module():
    class Other(nn.Module):
        def forward(self, x):
            return x * 9.0

    model = Scaled()
    return (lambda x: model(x)), lambda: setattr(model, "__class__", Other)


@case
def a_dictionary_of_attributes():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = 2.0

        def forward(self, x):
            return x * self.__dict__["k"] * vars(self)["k"]

    model = Own()
    return model, lambda: setattr(model, "k", 5.0)


@case
def keywords_of_a_partial():
    f = functools.partial(lambda x, k: x * k, k=2.0)
    return f, lambda: f.keywords.update(k=5.0)


@case
def a_single_dispatch():
    @functools.singledispatch
    def scaled(kind, x):
        return x

    @scaled.register
    def _(kind: int, x):
        return reads_globals(x)

    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return (lambda x: scaled(3, x)), change


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "bound": lambda d: d.get,
    "values": lambda d: functools.partial(lambda v, k: next(iter(v)), d.values()),
    "proxy": lambda d: types.MappingProxyType(d).__getitem__,
    "chain": lambda d: collections.ChainMap(d).__getitem__,
    "context": lambda d: (lambda v: (v.set(d), lambda k: v.get()[k])[1])(contextvars.ContextVar("v")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers(name):
    held = {"k": 2.0}
    get = WRAPPED[name](held)
    check(((lambda x: x * get("k")), lambda: held.update(k=5.0)))


@case
def a_list_subclass():
    class Own(list):
        k = 1.0

        def scaled(self, x):
            return x * self.k * self.extra

    own = Own()
    own.extra = 2.0
    return (lambda x: own.scaled(x)), lambda: setattr(own, "extra", 5.0)


@case
def a_method_of_an_enumeration():
    class Scale(Enum):
        A = 2.0

        def of(self, x):
            return reads_globals(x) * self.value

    def change():
        global GLOBAL
        GLOBAL = GLOBAL + 1.0

    return (lambda x: Scale.A.of(x)), change


def raised_global() -> None:
    global GLOBAL
    GLOBAL = GLOBAL + 1.0


class Single:
    held = None

    def __new__(cls):
        if cls.held is None:
            cls.held = object.__new__(cls)
            cls.held.k = 2.0
        return cls.held


class Registry(type):
    made: ClassVar[dict[Any, Any]] = {}

    def __call__(cls):
        if cls not in Registry.made:
            Registry.made[cls] = super().__call__()
        return Registry.made[cls]


class Registered(metaclass=Registry):
    def __init__(self):
        self.k = 2.0


@functools.lru_cache
def cached_object():
    return types.SimpleNamespace(k=2.0)


@functools.cache
def cached_settings(name):
    return Trainer()


@functools.lru_cache
def cached_function(by):
    scales = [by]
    scaled = lambda x: x * scales[0]  # noqa: E731
    scaled.scales = scales
    return scaled


SINGLE_OBJECTS: dict[str, tuple[Callable[[], Any], str]] = {
    "__new__": (Single, "k"),
    "metaclass": (Registered, "k"),
    "lru_cache": (cached_object, "k"),
    "cache": (lambda: cached_settings("a"), "by"),
}


@pytest.mark.parametrize("name", SINGLE_OBJECTS)
def test_objects_that_calls_hand_out_again(name):
    get, attribute = SINGLE_OBJECTS[name]
    read = {"k": lambda o: o.k, "by": lambda o: o.by}[attribute]
    get()
    check(((lambda x: x * read(get())), lambda: setattr(get(), attribute, getattr(get(), attribute) + 1.0)))


@case
def a_function_out_of_a_cache():
    cached_function.cache_clear()
    cached_function(2.0)
    return (lambda x: cached_function(2.0)(x)), lambda: cached_function(2.0).scales.__setitem__(0, 5.0)


@pytest.mark.parametrize("kept", [None, 8])
def test_a_cache_that_is_cleared(kept):
    @functools.lru_cache(maxsize=kept)
    def scale():
        return GLOBAL * 1.5

    f = lambda x: x * scale()  # noqa: E731
    fast, x = static.jit(f), dg.ones(1)
    assert fast(x).item() == f(x).item()
    raised_global()
    assert fast(x).item() == f(x).item() != GLOBAL * 1.5
    scale.cache_clear()
    assert fast(x).item() == f(x).item() == GLOBAL * 1.5


def test_a_cache_that_grows_is_as_good():
    @functools.cache
    def scale(n):
        return float(n)

    @functools.lru_cache(maxsize=2)
    def bounded(n):
        return [float(n)]

    bounded(1)
    fast, x = static.jit(lambda x: x * scale(1) * bounded(1)[0]), dg.ones(1)
    for n in range(2, 4):
        assert fast(x).item() == 1.0
        scale(n)
        bounded(2)
    assert fast.misses == ["first call"]
    bounded(3)  # takes the place of the one for 1
    assert fast(x).item() == 1.0
    assert len(fast.misses) > 1


def test_an_object_that_is_made_for_a_cache_while_tracing():
    @functools.cache
    def state():
        return types.SimpleNamespace(n=0)

    def f(x):
        state().n = state().n + 1
        return x * state().n

    fast = static.jit(f)
    assert [fast(dg.ones(1)).item() for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]


def test_tensors_that_are_made_for_a_cache_while_tracing():
    """They belong to the trace; so it stays the only one."""

    @functools.lru_cache
    def angles(n):
        return dg.sin(dg.arange(n) * 1.0), dg.cos(dg.arange(n) * 1.0)

    def f(x):
        sine, cosine = angles(x.shape[0])
        return x * sine + cosine

    fast, x = static.jit(f), dg.ones(3)
    first = fast(x).tolist()
    assert [fast(x).tolist() for _ in range(3)] == [first] * 3
    assert fast.misses == ["first call"]


@pytest.mark.parametrize("kind", [types.SimpleNamespace, dict])
def test_objects_that_calls_make_and_change(kind):
    @functools.cache
    def state():
        return kind(n=0)

    def f(x):
        held = state()
        held = held if kind is dict else vars(held)
        held["n"] += 1
        return x * held["n"]

    fast = static.jit(f)
    assert [fast(dg.ones(1)).item() for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]


class Asked:
    """An object with code of its own for attributes that are not there: a guard does not run it."""

    __slots__ = ("absent", "k")
    asked: ClassVar[list[str]] = []

    def __init__(self):
        self.k = 2.0

    def __getattr__(self, name):
        Asked.asked.append(name)
        raise AttributeError(name)


def test_no_code_of_an_object_runs_in_a_guard():
    held, x = Asked(), dg.ones(1)
    fast = static.jit(lambda x: x * held.k * getattr(held, "absent", 1.0))
    fast(x)
    asked = len(Asked.asked)
    fast(x)
    fast(x)
    assert len(Asked.asked) == asked
    held.absent = 3.0
    assert fast(x).item() == 6.0


class Decorated:
    """A descriptor in the place of a function."""

    def __init__(self, function):
        self.function = function

    def __get__(self, owner, kind):
        return functools.partial(self.function, owner)


class Special:
    @Decorated
    def __mul__(self, x):
        return x * GLOBAL

    @functools.singledispatchmethod
    def __add__(self, x):
        return x + GLOBAL

    __len__ = functools.partialmethod(lambda self, n: int(GLOBAL) + n, 1)

    @staticmethod
    def __neg__(*owner):
        return GLOBAL

    @classmethod
    def __class_getitem__(cls, x):
        return x * GLOBAL

    @classmethod
    def keys(cls):
        return ["a", "b"][: int(GLOBAL) % 2 + 1]

    def __getitem__(self, key):
        return 2.0


SPECIAL: dict[str, Callable[[Any, Any], Any]] = {
    "decorated": lambda h, x: h * x,
    "single dispatch": lambda h, x: h + x,
    "partialmethod": lambda h, x: x * len(h),
    "staticmethod": lambda h, x: x * -h,
    "classmethod": lambda h, x: Special[x],
    "dict": lambda h, x: x * sum(dict(h).values()),
    "keywords": lambda h, x: (lambda **named: x * len(named))(**h),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_methods_that_are_no_plain_functions(name):
    special = Special()
    check(((lambda x: SPECIAL[name](special, x)), raised_global))


class Held(Enum):
    FUNCTION = member(functools.partial(lambda x: x * GLOBAL))
    OTHER = ((2.0,), [3.0])


VALUES: dict[str, Case] = {
    "function": (lambda x: Held.FUNCTION.value(x), raised_global),
    "list": (lambda x: x * Held.OTHER.value[1][0], lambda: Held.OTHER.value[1].__setitem__(0, 5.0)),
    "member": (
        (lambda other: lambda x: x * other.value[1][0])(Held.OTHER),
        lambda: Held.OTHER.value[1].insert(0, 7.0),
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_enumerations(name):
    check(VALUES[name])


class ByName:
    shared = 1.0

    def __init__(self):
        self.scale = 2.0

    def __getitem__(self, name):
        return getattr(self, name)

    def get(self, name, otherwise=None):
        return getattr(self, name, otherwise)

    def total(self, names):
        return sum([getattr(self, name) for name in names])


class ByDictionary:
    def __init__(self, **held):
        self.__dict__.update(held)

    def __getitem__(self, name):
        return self.__dict__[name]


@dataclass(slots=True)
class ByNameSlotted:
    scale: float = 2.0

    def __getitem__(self, name):
        return getattr(self, name)


class Described:
    """Gets and sets what it is named after."""

    def __set_name__(self, owner, name):
        self.name = f"_{name}"

    def __get__(self, owner, kind):
        return getattr(owner, self.name)

    def __set__(self, owner, value):
        setattr(owner, self.name, value)


class WithDescribed:
    scale = Described()

    def __init__(self):
        self.scale = 2.0


def got(owner, name):
    return getattr(owner, name)


class Settings:
    scale = 2.0


class Outer:
    def __init__(self, config):
        self.config = config

    @property
    def found(self):
        return self.config

    def direct(self, x, name):
        return x * getattr(self.config, name)

    def by_property(self, x, name):
        return x * getattr(self.found, name)

    def listed(self, x, name):
        return x * sum(getattr(c, name) for c in [self.config])


SETTINGS = types.SimpleNamespace(scale=2.0)
SETTINGS_MODULE = types.ModuleType("settings_of_the_user")
SETTINGS_MODULE.scale = 2.0
NAMES = ["scale"]
COMPUTED: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any]]] = {
    "item": (ByName, lambda c, x: x * c["scale"]),
    "item of a constant list": (ByName, lambda c, x: x * c[NAMES[0]]),
    "get": (ByName, lambda c, x: x * c.get("scale")),
    "comprehension": (ByName, lambda c, x: x * c.total(NAMES)),
    "late": (ByName, lambda c, x: x * c.get("late", 2.0)),
    "class": (ByName, lambda c, x: x * c["shared"]),
    "dictionary": (lambda: ByDictionary(scale=2.0), lambda c, x: x * c["scale"]),
    "slots": (ByNameSlotted, lambda c, x: x * c["scale"]),
    "helper": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: x * got(c, NAMES[0])),
    "global": (lambda: SETTINGS, lambda c, x: x * getattr(SETTINGS, NAMES[0])),
    "module": (lambda: SETTINGS_MODULE, lambda c, x: x * getattr(SETTINGS_MODULE, NAMES[0])),
    "type": (lambda: Settings, lambda c, x: x * getattr(Settings, NAMES[0])),
    "closure": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: x * (lambda: getattr(c, NAMES[0]))()),
    "attribute": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: Outer(c).direct(x, NAMES[0])),
    "property": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: Outer(c).by_property(x, NAMES[0])),
    "listed": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: Outer(c).listed(x, NAMES[0])),
    "getter": (lambda: types.SimpleNamespace(scale=2.0), lambda c, x: x * operator.attrgetter(NAMES[0])(c)),
    "descriptor": (WithDescribed, lambda c, x: x * c.scale),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_attributes_by_computed_names(name):
    make, read = COMPUTED[name]
    held = make()
    attribute = {"late": "late", "class": "shared"}.get(name, "scale")
    check(((lambda x: read(held, x)), lambda: setattr(held, attribute, 5.0)))


def test_a_function_of_a_module_by_a_computed_name_costs_nothing():
    class Activated(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Scaled()

        def forward(self, x):
            return getattr(F, NAME[0])(x) * getattr(self.part, f"{'k'}")

    NAME = ["relu"]
    trainer = Trainer()
    trainer.model = Activated()
    trainer.run = lambda x: trainer.model(trainer.step(x))
    fast, x = static.jit(trainer.run), dg.ones(1)
    for _ in range(3):
        fast(x)
        trainer.seen += 1
    assert fast.misses == ["first call"]
    NAME[0] = "tanh"
    assert fast(x).tolist() == trainer.run(x).tolist()


class Endless(list):
    """Its methods are the user's: a guard does not call them."""

    def __iter__(self):
        while True:
            yield 1.0

    def __len__(self):
        raise RuntimeError

    __eq__ = __bool__ = __len__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class EndlessKeys(dict):
    __iter__ = Endless.__iter__
    __len__ = __eq__ = __bool__ = Endless.__len__
    keys = values = items = Endless.__iter__
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("held", [Endless([2.0]), EndlessKeys({0: 2.0})], ids=["list", "dict"])
def test_no_code_of_a_container_runs_in_a_guard(held):
    check(((lambda x: x * held[0]), lambda: held.__setitem__(0, 5.0)))
    fast, x = static.jit(lambda x, held: x * held[0]), dg.ones(1)
    other = type(held)([3.0] if isinstance(held, list) else {0: 3.0})
    assert [fast(x, each).item() for each in (held, other, held)] == [5.0, 3.0, 5.0]


@case
def an_import_by_a_constant_name():
    module = types.ModuleType("of_the_user_2")
    module.SCALE = 2.0
    sys.modules["of_the_user_2"] = module
    return (lambda x: x * importlib.import_module("of_the_user_2").SCALE), lambda: setattr(module, "SCALE", 5.0)


@case
def a_table_of_modules_that_is_replaced():
    model = nn.Sequential(nn.Identity(), nn.Tanh())
    model._modules = collections.OrderedDict(model._modules)
    return model, lambda: model._modules.__setitem__("1", nn.Sigmoid())


@case
def an_option_that_is_changed_in_place():
    w = nn.Parameter([1.0, 2.0])
    opt = optim.SGD([w], lr=0.1, weight_decay=0.1)

    def step(x):
        opt.zero_grad()
        dg.sum(w * x).backward()
        opt.step()
        return w * 1.0

    return step, lambda: opt.param_groups[0].options.__setitem__("weight_decay", 0.5)


FLAGS: dict[str, Callable[[Any], Any]] = {
    "params": lambda opt: opt.params,
    "item": lambda opt: opt.param_groups[0]["params"],
    "attribute": lambda opt: opt.param_groups[0].params,
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_the_parameters_of_an_optimiser(name):
    model = nn.Linear(2, 1)
    opt = optim.SGD(model.parameters(), lr=0.1)
    check((
        lambda x: x * float(sum(p.requires_grad for p in FLAGS[name](opt))),
        lambda: setattr(model.weight, "requires_grad", False),
    ))  # fmt: skip


@case
def a_class_that_a_call_made():
    made = make_dataclass("made", ["x"], namespace={"k": 2.0})
    return (lambda x: x * made.k), lambda: setattr(made, "k", 5.0)


@case
def a_record_of_numpy():
    record = np.zeros(1, [("k", "f4")])[0]
    return (lambda x: x * float(record["k"])), lambda: record.__setitem__("k", 5.0)


@case
def a_mask():
    masked = np.ma.array([1.0, 2.0], mask=[False, False])
    return (lambda x: x * float(masked.sum())), lambda: masked.__setitem__(0, np.ma.masked)


def test_two_compiled_functions_of_one_name():
    class Two:
        double = static.jit(lambda self, x: x * 2.0)
        triple = static.jit(lambda self, x: x * 3.0)

    two, x = Two(), dg.ones(1)
    assert [(two.double(x).item(), two.triple(x).item()) for _ in range(3)] == [(2.0, 3.0)] * 3
    assert two.double.misses == two.triple.misses == ["first call"]


def test_attributes_of_arguments_whose_names_are_no_identifiers():
    class Options:
        def __init__(self, held):
            self.__dict__.update(held)

        def __eq__(self, other):
            return True

        __hash__ = None  # type: ignore[assignment]

    fast, x = static.jit(lambda x, c: x * vars(c)["lr-max"]), dg.ones(1)
    assert [fast(x, Options({"a": 1, "lr-max": lr})).item() for lr in (2.0, 3.0, 2.0)] == [2.0, 3.0, 2.0]


class SlottedList(list):
    __slots__ = ("__scale", "by")

    def __init__(self, items, scale=2.0):
        super().__init__(items)
        self.__scale = scale

    def scaled(self, x):
        return x * self.__scale * getattr(self, "by", 1.0)


def test_slots_of_containers_that_are_arguments():
    fast, x = static.jit(lambda x, held: held.scaled(x) + held[0]), dg.ones(1)
    more = SlottedList([x])
    more.by = 7.0
    cases = ((SlottedList([x]), 3.0), (SlottedList([x], 5.0), 6.0), (more, 15.0), (SlottedList([x]), 3.0))
    assert [(fast(x, held).item(), want) for held, want in cases] == [(want, want) for _, want in cases]
    assert len(fast.misses) == 3


def check(case: Case, verify: bool = False) -> None:
    """The compiled function follows the eager one through the change, and is traced again for nothing else."""
    function, change = case
    x = dg.tensor([0.5, -2.0])
    state = state_of(function)
    fast = static.jit(function, verify=verify)
    for round_ in ("before", "after"):
        traced = len(fast.misses)
        for _ in range(2):
            start = [v.detach() for v in state]
            want = function(x)
            for v, value in zip(state, start, strict=True):
                v.assign(value)
            got = fast(x)
            assert got.numpy().tobytes() == want.numpy().tobytes(), round_
        assert len(fast.misses) == traced + 1, (round_, fast.misses)
        if round_ == "before":
            change()


def state_of(function: Any) -> list[Any]:
    cells = [c.cell_contents for c in getattr(function, "__closure__", None) or ()]
    return [v for v in cells if isinstance(v, dg.Variable)]


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_changes_are_noticed(name, verify):
    """`verify=True`, which traces at each call, finds nothing that no guard has found."""
    check(CASES[name](), verify)


def test_words_of_the_reasons():
    model = Looped()
    fast = static.jit(model)
    x = np.ones(2, np.float32)
    fast(x)
    model.ls[0].k = 7.0
    fast(x)
    model.ls.append(Scaled())
    fast(x)
    model.named.eval()
    fast(x)
    assert fast.misses == ["first call", "Scaled.k: nothing → 7.0", "ModuleList: its modules changed"]
    scaled = static.jit(reads_globals)
    scaled(x)
    global GLOBAL
    old, GLOBAL = GLOBAL, 100.0
    scaled(x)
    assert scaled.misses[-1] == f"global GLOBAL: {old} → 100.0"


def test_what_is_only_written_is_not_watched():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls, self.seen, self.last, self.by = 0, [], None, {}

        def forward(self, x):
            self.calls += 1
            self.seen.append(1)
            self.by["shape"] = x.shape
            self.last = x.shape
            counts[0] += 1
            return x * 2.0

    counts = [0]
    model = Counting()
    fast = static.jit(model)
    x = dg.ones(2)
    for _ in range(3):
        fast(x)
        model(x)
    assert fast.misses == ["first call"]


class Metric:
    def __init__(self):
        self.scale, self.n = 2.0, 0

    def update(self, x):
        return x * self.scale

    def add(self, x):
        self.n += 1
        return x * self.n


def counted_then_read(module, x):
    module.n += 1
    return x * module.n


def appended_then_read(module, x):
    module.seen.append(1)
    return x * len(module.seen)


def stored_then_read(module, x):
    module.by["k"] = 5.0
    return x * module.by["k"] * len(module.by)


def of_an_object(module, x):
    return module.metric.update(x)


def counted_by_an_object(module, x):
    return module.metric.add(x)


def counted_in_a_part(module, x):
    module.seen.append(1)
    return module.part(x)


def doubled_and_read(module, x):
    module.n += module.n + 1
    return x * module.n


def listed(module, x):
    module.seen += [1]
    return x * len(module.seen)


class Part(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        return x * len(self.seen)


@pytest.mark.parametrize(
    "read",
    [
        counted_then_read, appended_then_read, stored_then_read, of_an_object, counted_by_an_object, counted_in_a_part,
        doubled_and_read, listed,
    ],
)  # fmt: skip
def test_what_looks_only_written_and_is_read_elsewhere(read):
    """Each call gives what the eager one gives at its place in the sequence."""

    def make():
        module = Reads(read)
        module.n, module.seen, module.by, module.metric = 0, [], {}, Metric()
        module.part = Part(module.seen)
        return module

    eager, compiled, mixed = make(), make(), make()
    fast = static.jit(compiled)
    other = static.jit(mixed)
    x = dg.ones(2)
    for number in range(5):
        want = eager(x).tolist()
        assert fast(x).tolist() == want
        assert (other if number % 2 else mixed)(x).tolist() == want
    eager.metric.scale = compiled.metric.scale = mixed.metric.scale = 7.0
    want = eager(x).tolist()
    assert fast(x).tolist() == other(x).tolist() == want


def assigned(module, x):
    module.n = module.n + 1
    return x * 2.0


def added_up(module, x):
    module.n += x.shape[0] * 2
    module.t += len(x) / 2
    return x * 2.0


def logged(module, x):
    module.logs["loss"].append(1.0)
    module.counts["k"] += 1
    module.tally.update(["k"])
    return x * 2.0


def flows_elsewhere(module, x):
    module.other.n = module.n + 1
    return x * module.other.n


def flows_through_a_method(module, x):
    module.n = module.n + 1
    return x * twice(module)


def twice(module):
    return module.n * 2


@pytest.mark.parametrize("read", [assigned, added_up, logged])
def test_counters_and_logs_cost_no_trace(read):
    model = Reads(read)
    model.n, model.t, model.logs, model.counts = 0, 0.0, {"loss": []}, {"k": 0}
    model.tally = collections.Counter()
    fast, x = static.jit(model), dg.ones(2)
    for _ in range(4):
        fast(x)
        model(x)
    assert fast.misses == ["first call"]


@pytest.mark.parametrize("read", [flows_elsewhere, flows_through_a_method])
def test_what_flows_on_is_read(read):
    def make():
        model = Reads(read)
        model.n, model.other = 0, nn.Module()
        model.other.n = 0
        return model

    eager, compiled = make(), make()
    fast, x = static.jit(compiled), dg.ones(1)
    for number in range(4):
        eager.n = compiled.n = number * 3
        assert fast(x).tolist() == eager(x).tolist()


class Head:
    def __init__(self, k):
        self.k = k

    def add(self, x):
        return x + self.k


def test_methods_of_items_that_are_named_like_those_of_containers():
    heads, named = [Head(1.0)], {"a": Head(2.0)}
    f = lambda x: heads[0].add(x) * named["a"].add(x)  # noqa: E731
    fast, x = static.jit(f), dg.ones(1)
    for change in (lambda: setattr(heads[0], "k", 9.0), lambda: named.update(a=Head(50.0)), lambda: None):
        assert fast(x).tolist() == f(x).tolist()
        change()


SHARED = types.SimpleNamespace(step=0)
COUNT = 0


class ReadsShared(nn.Module):
    def forward(self, x):
        return x * SHARED.step + COUNT


def test_what_is_counted_here_and_read_by_a_part():
    part = ReadsShared()

    def step(x):
        global COUNT
        SHARED.step += 1
        COUNT += 1
        return part(x)

    fast, x = static.jit(step), dg.ones(1)
    start = SHARED.step
    got = [(fast if n % 2 else step)(x).item() for n in range(6)]
    assert got == [2.0 * (start + n + 1) for n in range(6)]


def test_arguments_that_count_by_content_and_change():
    @dataclass
    class Config:
        lr: float

    config, x = Config(2.0), dg.ones(1)
    fast = static.jit(lambda x, c: x * c.lr)
    assert fast(x, config).item() == 2.0
    config.lr = 5.0
    assert [fast(x, config).item(), fast(x, Config(2.0)).item(), fast(x, Config(5.0)).item()] == [5.0, 2.0, 5.0]


class Attributes(dict):
    __getattr__ = dict.__getitem__


class Raising:
    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("held", [Attributes(scale=2.0), Raising(), [[[]] * 3] * 3], ids=["dict", "raising", "lists"])
def test_objects_that_refuse_to_be_looked_at(held):
    fast = static.jit(lambda x: x * (held["scale"] if isinstance(held, dict) else 2.0 if held is not None else 0.0))
    assert [fast(dg.ones(1)).item() for _ in range(2)] == [2.0, 2.0]
    assert fast.misses == ["first call"]


def test_setters_are_followed():
    v = dg.Variable([0.0])

    class Setting:
        @property
        def k(self):
            return v

        @k.setter
        def k(self, x):
            v.assign(x * GLOBALS["a"][0])

    s = Setting()

    def f(x):
        s.k = x
        return v * 1.0

    fast, x = static.jit(f), dg.ones(1)
    for _ in range(2):
        assert fast(x).tolist() == [GLOBALS["a"][0]]
        GLOBALS["a"][0] += 1.0


def test_methods_that_call_those_they_override():
    class Base:
        @static.jit
        def run(self, x):
            return x * 2.0

    class Own(Base):
        @static.jit
        def run(self, x):
            return super().run(x) + 1.0

    own, x = Own(), dg.ones(1)
    assert [own.run(x).item() for _ in range(5)] == [3.0] * 5
    assert own.run.misses == ["first call"]


@pytest.mark.filterwarnings("ignore::dualgraph.errors.RecompileWarning")  # 39 shapes, some of them traced twice
def test_first_calls_from_many_threads():
    fast, wrong = static.jit(lambda a: dg.sum(a * 2.0)), []

    def work():
        for n in range(1, 40):
            if fast(dg.ones(n)).item() != 2.0 * n:
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_runs_the_function():
    fast, x, stop = static.jit(lambda x: dg.sum(dg.exp(x * 2.0))), dg.ones(400_000), []
    want = fast(x).item()

    def work():
        while not stop:
            fast(x)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                signal.alarm(30)
                os._exit(0 if fast(x).item() == want else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.append(1)
        thread.join()


def test_globals_and_closures_that_look_only_written():
    count, seen = 0, []

    def bump():
        nonlocal count
        count += 1
        seen.append(1)

    def f(x):
        bump()
        return x * count * len(seen)

    fast = static.jit(f)
    x = dg.ones(1)
    assert [fast(x).item() if n % 2 else f(x).item() for n in range(4)] == [1.0, 4.0, 9.0, 16.0]


def test_a_method_of_an_object_with_slots():
    class Slots:
        __slots__ = ("by",)

        def __init__(self, by):
            self.by = by

        @static.jit
        def run(self, x):
            return x * self.by

    x = dg.ones(1)
    two, three = Slots(2.0), Slots(3.0)
    assert (two.run(x).item(), three.run(x).item(), two.run(x).item()) == (2.0, 3.0, 2.0)
    two.by = 5.0
    assert two.run(x).item() == 5.0
    assert two.run.misses == ["first call", "Slots.by: 2.0 → 5.0"]


def test_what_is_read_and_changed_by_the_function_itself():
    """Right at each call, at the price of a trace; said in words, and bounded."""

    class Decaying(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = 1.0

        def forward(self, x):
            self.scale = self.scale * 0.5
            return x * self.scale

    model, twin = Decaying(), Decaying()
    fast = static.jit(model)
    x = dg.ones(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(40):
            assert fast(x).tolist() == twin(x).tolist()
    assert [w.category for w in caught] == [RecompileWarning]
    assert "traced and compiled 16 times, 15 of them because of Decaying.scale" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert len(fast.executables) <= 16


def test_many_shapes_are_bounded():
    fast = static.jit(lambda x: x + 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(300):
            assert fast(np.ones(n, np.float32)).shape == (n,)
    assert [w.category for w in caught] == [RecompileWarning] * 3
    assert "argument x" in str(caught[-1].message)
    assert len(fast.executables) <= 256
    assert len(fast._seen) <= 256


def test_a_copy_is_guarded_for_itself():
    model = Looped()
    fast = static.jit(lambda x: model(x))
    twin = copy.deepcopy(model)
    slow = static.jit(lambda x: twin(x))
    x = dg.ones(2)
    assert fast(x).tolist() == slow(x).tolist()
    twin.ls[0].k = 5.0
    assert slow(x).tolist() == twin(x).tolist() != fast(x).tolist()
    assert fast.misses == ["first call"]


def test_a_compiled_method_goes_with_its_object():
    class Model(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k

        @static.jit
        def run(self, x):
            return x * self.k

    x = dg.ones(2)
    model = Model(2.0)
    model.run(x)
    for twin in (copy.copy(model), copy.deepcopy(model)):
        twin.k = 5.0
        assert twin.run(x).tolist() == [5.0, 5.0]
        assert model.run(x).tolist() == [2.0, 2.0]
    assert model.run.misses == ["first call"]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_compiled_attribute_is_copied_with_its_object():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = 2.0
            self.fast, self.given = static.jit(self.forward), static.compile(self.forward, static.spec((2,)))

        def forward(self, x):
            return x * self.k

    x = dg.ones(2)
    model = Model()
    model.fast(x)
    twin = copy.deepcopy(model)
    twin.k = 5.0
    assert twin.fast(x).tolist() == twin.given(x).tolist() == [5.0, 5.0]
    assert model.fast(x).tolist() == model.given(x).tolist() == [2.0, 2.0]


def test_training_steps_are_not_traced_again():
    """An ordinary loop, with what usually happens between steps."""

    class Trainer:
        def __init__(self):
            self.model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
            self.opt = optim.Adam(self.model.parameters())
            self.history, self.steps, self.best = [], 0, None
            self.fast = static.jit(self.step)

        def step(self, x, y):
            self.opt.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.opt.step()
            return loss

    trainer = Trainer()
    x, y = dg.ones((5, 4)), dg.tensor([0, 1, 0, 1, 1])
    for _ in range(5):
        loss = trainer.fast(x, y)
        trainer.history.append(loss.item())
        trainer.steps += 1
        trainer.best = min(trainer.history)
        trainer.opt.lr = 0.01 / trainer.steps
        trainer.model.eval()
        trainer.model(x)
        trainer.model.train()
        copy.deepcopy(trainer.model)
    assert trainer.fast.misses == ["first call"]


class Kind(Enum):
    A = 1
    B = 2


@dataclass(frozen=True)
class C:
    value: Any


CONSTANTS = [
    1, 1.0, True, 0.0, -0.0, False, float("nan"), "1", b"1", None, (1,), (1.0,), (True,), frozenset({1}),
    frozenset({1.0}), frozenset({True}), C(1), C(1.0), C(True), C(-0.0), C(0.0), C((1,)), C((1.0,)), Kind.A, Kind.B,
    slice(1), slice(1.0), 1 + 0j, complex(1, -0.0), range(2), np.float64(1.0),
]  # fmt: skip


def test_constants_that_compare_equal_are_told_apart():
    shown = []

    def f(x, c):
        shown.append(c)
        return x * 1.0

    fast = static.jit(f)
    x = dg.ones(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecompileWarning)
        for c in CONSTANTS:
            fast(x, c)
            fast(x, copy.deepcopy(c))
    assert [exact(c) for c in shown] == [exact(c) for c in CONSTANTS]
    assert len({exact(c) for c in CONSTANTS}) == len(CONSTANTS)


@pytest.mark.parametrize("number", range(len(CONSTANTS)))
def test_a_compiled_function_takes_its_own_constant_only(number):
    own = CONSTANTS[number]
    fast = static.compile(lambda x, c: x * 2.0, static.spec((1,)), own)
    x = dg.ones(1)
    fast(x, own)
    fast(x, copy.deepcopy(own))
    for other in CONSTANTS[:number] + CONSTANTS[number + 1 :]:
        with pytest.raises(dg.errors.FeedError, match="constant"):
            fast(x, other)


Point = collections.namedtuple("Point", "x y")


class Fancy(list):
    pass


class Batch(dict):
    def __init__(self, **items):
        super().__init__(items)


class Pair(tuple):
    __slots__ = ()


def structures() -> list[Any]:
    x = dg.ones(2)
    fancy = Fancy([x, x])
    fancy.note = 3.0
    return [
        [x], (x,), Point(x, x), fancy, Batch(x=x), Pair((x, x)), collections.OrderedDict(x=x),
        collections.defaultdict(list, x=x), {1: x}, {True: x}, {"a": [Point(x, (x,))]},
    ]  # fmt: skip


def test_containers_arrive_as_what_they_are():
    seen = []

    def f(value):
        seen.append(value)
        return value

    fast = static.jit(f)
    for value in structures():
        got = fast(value)
        assert type(got) is type(seen[-1]) is type(value)
        assert getattr(seen[-1], "__dict__", {}) == getattr(value, "__dict__", {})
        assert getattr(seen[-1], "default_factory", None) == getattr(value, "default_factory", None)
    assert len(fast.misses) == len(structures())


def test_a_compiled_function_inside_a_trace_checks_its_arguments():
    inner = static.compile(lambda x, k: x * k, static.spec((3,)), 2.0)
    good = static.jit(lambda x: inner(x, 2.0))
    assert good(dg.ones(3)).tolist() == [2.0] * 3
    wrong: list[tuple[Callable[..., Any], Any, str]] = [
        (lambda x: inner(x, 2.0), dg.ones(4), "got shape"),
        (lambda x: inner(x, 2.0), dg.ones(3, dtype="float64"), "got float64"),
        (lambda x: inner(x, 2), dg.ones(3), "constant"),
        (lambda x: inner(x), dg.ones(3), "structure"),
        (lambda x: inner((x,), 2.0), dg.ones(3), "structure"),
    ]
    for function, x, words in wrong:
        with pytest.raises(dg.errors.FeedError, match=words) as inside:
            static.jit(function)(x)
        with pytest.raises(dg.errors.FeedError) as outside:
            function(x)
        assert inside.value.args == outside.value.args


class Visitor:
    """Finds its methods and attributes by names that it computes."""

    k, scale = 2.0, 1.0

    def __init__(self) -> None:
        self.kind, self.k_1 = "a", 2.0

    def visit_a(self, x: Any) -> Any:
        return x * VISITED[0]

    def go(self, x: Any) -> Any:
        return getattr(self, f"visit_{self.kind}")(x)

    @functools.wraps(go)
    def wrapped(self, x: Any) -> Any:
        return x * getattr(self, "k" + "_1")

    @staticmethod
    def look(o: Any, name: str) -> Any:
        return getattr(o, name)

    @classmethod
    def of_class(cls, x: Any, name: str) -> Any:
        return x * getattr(cls, name)


VISITED = [2.0]


class Jitted(Visitor):
    @static.jit
    def go(self, x: Any) -> Any:
        return x * getattr(self, f"k_{1}")


class Delegates:
    """Answers for what it does not hold."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Same:
    """A data descriptor that keeps its value under its own name."""

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return owner.__dict__[self.name] * VISITED[0]

    def __set__(self, owner: Any, value: Any) -> None:
        owner.__dict__[self.name] = value


def visitor_case(
    read: Callable[[Any, Any], Any], change: Callable[[Any], Any], kind: type = Visitor
) -> Callable[[], Case]:
    def make() -> Case:
        VISITED[:] = [2.0]
        own = type(kind.__name__, (kind,), {})
        o = own()
        return (lambda x: read(o, x)), lambda: change(o)

    return make


BY_NAME: dict[str, Callable[[], Case]] = {
    "what a method found by name reads": visitor_case(Visitor.go, lambda o: VISITED.__setitem__(0, 5.0)),
    "a method found by name": visitor_case(
        lambda o, x: o.go(x), lambda o: setattr(type(o), "visit_a", lambda self, x: x * 7.0)
    ),
    "in a decorated method": visitor_case(lambda o, x: o.wrapped(x), lambda o: setattr(o, "k_1", 5.0)),
    "in a compiled method": visitor_case(
        lambda o, x: type(o).go.function(o, x), lambda o: setattr(o, "k_1", 5.0), Jitted
    ),
    "by a static method": visitor_case(
        lambda o, x: x * o.look(o, "".join(["k", "_1"])), lambda o: setattr(o, "k_1", 5.0)
    ),
    "by a class method": visitor_case(
        lambda o, x: o.of_class(x, "sca" + "le"), lambda o: setattr(type(o), "scale", 5.0)
    ),
    "of the class, though the instance has one": visitor_case(
        lambda o, x: x * type(o).k if setattr(o, "k", 1.0) is None else x, lambda o: setattr(type(o), "k", 5.0)
    ),
    "what a delegate holds": visitor_case(
        lambda o, x: x * o.__dict__.setdefault("d", Delegates(o)).k_1, lambda o: setattr(o, "k_1", 5.0)
    ),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_attributes_by_names_that_are_computed(name):
    check(BY_NAME[name]())


@case
def shadowing_what_a_delegate_answers():
    inner = types.SimpleNamespace(k=2.0)
    outer = Delegates(inner)
    return (lambda x: x * outer.k), lambda: setattr(outer, "k", 5.0)


@case
def a_descriptor_of_the_name_of_what_it_keeps():
    class Owner:
        k = Same()

    VISITED[:] = [2.0]
    owner = Owner()
    owner.k = 3.0
    return (lambda x: x * owner.k), lambda: VISITED.__setitem__(0, 5.0)


@case
def of_a_base_though_the_instance_has_one():
    class Base:
        k = 2.0

        def scale(self, x):
            return x

    class Own(Base):
        def scale(self, x):
            return x * super().k

    own = Own()
    own.k = 1.0
    return own.scale, lambda: setattr(Base, "k", 5.0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: nn.Sequential(*m.layers[:2])(x),
        lambda m, x: functools.reduce(lambda h, layer: layer(h), m.layers[:-1], x),
        lambda m, x: nn.ModuleList([nn.Tanh(), nn.ReLU()])[1](x),
    ],
)
def test_modules_that_are_made_while_tracing_are_nobodys_state(forward):
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Tanh(), nn.ReLU(), nn.Tanh()])
    run = static.jit(lambda x: forward(model, x))
    for _ in range(3):
        assert run(dg.ones(2)).tolist() == forward(model, dg.ones(2)).tolist()
    assert run.misses == ["first call"]


def test_guards_run_no_code_of_an_object_with_slots_and_a_catch_all():
    class Slotted:
        __slots__ = ("k",)

        def __getattr__(self, name):
            raise TypeError(f"asked for {name}")

    o = Slotted()
    o.k = 2.0
    run = static.jit(lambda x: x * o.k)
    assert run(dg.ones(1)).tolist() == [2.0]
    o.k = 3.0
    assert run(dg.ones(1)).tolist() == [3.0]


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config, self.inner = {"k": 2.0}, types.SimpleNamespace(k=2.0)

    def forward(self, x):
        return x * self.config["k"] * self.inner.k


class Asks(Configured):
    def __getattribute__(self, name):
        return super().__getattribute__(name)


@case
def what_a_copy_holds():
    model = Configured()
    return (lambda x: copy.deepcopy([model])[0](x)), lambda: model.config.update(k=3.0)


@case
def what_an_object_in_a_copy_holds():
    model = Configured()
    return (lambda x: copy.deepcopy(model)(x)), lambda: setattr(model.inner, "k", 3.0)


@case
def a_module_that_looks_up_its_attributes():
    model = Asks()
    return model, lambda: model.config.update(k=3.0)


@runtime_checkable
class HasConfig(Protocol):
    config: Any


@case
def what_a_library_reads_first():
    model = Configured()
    return (lambda x: x * model.config["k"] if isinstance(model, HasConfig) else x), lambda: model.config.update(k=3.0)


@case
def a_long_chain_of_references():
    first = last = {}
    for _ in range(1500):
        last["next"] = last = {}
    last["k"] = 2.0

    def run(x):
        found = first
        while "k" not in found:
            found = found["next"]
        return x * found["k"]

    return run, lambda: last.update(k=3.0)


def test_proxies_are_not_asked_for_their_class():
    class Unbound:
        @property
        def __class__(self):
            raise RuntimeError("outside of its context")

    holder = types.SimpleNamespace(request=Unbound(), k=2.0)
    run = static.jit(lambda x, name="k": x * getattr(holder, name))
    assert run(dg.ones(1)).tolist() == [2.0]
    holder.k = 3.0
    assert run(dg.ones(1)).tolist() == [3.0]


def test_classes_that_are_searched():
    rules = {Visitor: lambda x: x * 2.0}
    o = Jitted()

    def lower(x):
        for kind in type(o).__mro__:
            try:
                return rules[kind](x)
            except KeyError:
                continue
        return x

    assert static.jit(lower)(dg.ones(1)).tolist() == [2.0]


@pytest.mark.parametrize("where", ["global", "closure"])
def test_totals_that_are_only_added_to(where):
    own = types.SimpleNamespace(total=0.0)
    globals()["TOTALS"] = own

    def in_closure(x):
        own.total = own.total + 1.0
        return x * 2.0

    def in_global(x):
        TOTALS.total = TOTALS.total + 1.0  # noqa: F821
        return x * 2.0

    run = static.jit(in_closure if where == "closure" else in_global)
    for _ in range(3):
        run(dg.ones(1))
        own.total += 1.0
    assert run.misses == ["first call"]


FACTOR = [2.0]


class Passed(NamedTuple):
    x: Any

    def scaled(self):
        return self.x * FACTOR[0]

    @property
    def doubled(self):
        return self.x * FACTOR[0]


class Items(list):
    def scaled(self):
        return self[0] * FACTOR[0]


class Table(dict):
    def scaled(self):
        return self["x"] * FACTOR[0]


def by_key(d):
    return next(iter(d))(d)


def scaled_by(d):
    return next(iter(d.values())) * FACTOR[0]


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (Passed, lambda b: b.scaled()),
        (Passed, lambda b: b.doubled),
        (lambda x: Items([x]), lambda b: b.scaled()),
        (lambda x: Table(x=x), lambda b: b.scaled()),
        (lambda x: {"inner": [Passed(x)]}, lambda b: b["inner"][0].scaled()),
        (lambda x: {scaled_by: x}, by_key),
    ],
)
def test_methods_of_containers_that_are_passed(make, use):
    FACTOR[0] = 2.0
    x = dg.tensor([1.0, 2.0])
    run = static.jit(lambda b: use(b))
    for factor in (2.0, 3.0):
        FACTOR[0] = factor
        for _ in range(2):
            assert run(make(x)).tolist() == use(make(x)).tolist()
    assert len(run.misses) == 2


SLOPE = [1.0]
annealed = {
    "external": extend.external("annealed", lambda a: a * a, lambda a: a, (lambda g, out, a: g * SLOPE[0] * a,)),
    "composite": extend.composite("annealed", lambda a: a * a, (lambda g, out, a: g * SLOPE[0] * a,)),
    "elementwise": extend.elementwise("annealed", lambda a: a * a, vjp=(lambda g, out, a: g * SLOPE[0] * a,)),
    "one function": extend.composite("annealed", lambda a: a * a, lambda number, g, out, a: g * SLOPE[0] * a),
}


@pytest.mark.parametrize("form", annealed)
def test_what_gradient_rules_read(form):
    SLOPE[0] = 1.0
    w = nn.Parameter([1.0, 2.0])

    def step(x):
        return dg.grad(dg.sum(annealed[form](w) * x), [w])[0]

    check((step, lambda: SLOPE.__setitem__(0, 3.0)))


@dataclass
class History:
    """The methods that a dataclass has by itself read every field."""

    epoch: int = 0
    losses: list = dataclasses.field(default_factory=list)
    rate: float = 2.0


class LoggedTrainer:
    def __init__(self) -> None:
        self.state, self.best, self.seen = History(), copy.deepcopy([0.0]), []
        self.run = static.jit(self.compute)

    def compute(self, x):
        return x * self.state.rate

    def __getstate__(self) -> Any:
        return {"seen": self.seen}


def test_methods_that_a_step_does_not_call_are_not_followed():
    trainer = LoggedTrainer()
    for n in range(4):
        assert trainer.run(dg.ones(1)).tolist() == [2.0]
        trainer.state.epoch += 1
        trainer.state.losses.append(0.5)
        trainer.seen.append(n)
    assert trainer.run.misses == ["first call"]
    trainer.state.rate = 3.0
    assert trainer.run(dg.ones(1)).tolist() == [3.0]


@case
def what_is_compared():
    left, right = History(), History()
    return (lambda x: x * 2.0 if left == right else x), lambda: left.losses.append(1.0)


@case
def what_is_shown():
    shown = History()
    return (lambda x: x * float(len(f"{shown}"))), lambda: shown.losses.append(1.0)


@case
def maps_of_a_chain():
    chain = collections.ChainMap({"k": 2.0})
    return (lambda x: x * chain["k"]), lambda: chain.maps.insert(0, {"k": 5.0})
