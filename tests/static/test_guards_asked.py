"""What a traced function asks objects for without naming it: their class, their text, whether they are equal; and what
it seems to ask for and does not.

A case gives a function of one tensor and changes. The function is run eagerly and compiled, before and after each change:
it is traced once for each, and for nothing else.
"""

from __future__ import annotations

import abc
import bisect
import collections
import contextlib
import copy
import dataclasses
import functools
import heapq
import importlib
import io
import itertools
import operator
import sys
import time
import types
from collections.abc import Callable
from dataclasses import asdict as to_dict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim, static
from dualgraph.errors import RecompileWarning

CASES: dict[str, Callable[[], tuple[Any, ...]]] = {}


def case(make: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
    CASES[make.__name__] = make
    return make


def follows(function: Callable[[Any], Any], *changes: Callable[[], Any], verify: bool = False) -> None:
    x = dg.tensor([0.5, -2.0])
    fast = static.jit(function, verify=verify)
    for number, change in enumerate((lambda: None, *changes)):
        change()
        for _ in range(2):
            assert fast(x).tolist() == function(x).tolist(), number
        assert len(fast.misses) == number + 1, fast.misses


def factor(state: dict[str, float], value: float) -> Callable[[], None]:
    return lambda: state.__setitem__("k", value)


# Objects that are made of the class of an object that is there

BY = {"k": 2.0}


class Point:
    def __init__(self, v):
        self.v = v * BY["k"]

    @classmethod
    def of(cls, v):
        return cls(v)

    def fresh(self):
        return Point(3.0)

    @staticmethod
    def static(v):
        return TABLE_OF_CLASSES["p"](v)


@dataclass(frozen=True)
class Option:
    lr: float
    eff: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "eff", self.lr * BY["k"])


class Maker(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.v = args[0] * BY["k"]
        return made


class Made(metaclass=Maker):
    def __init__(self, v):
        self.v = v

    def fresh(self):
        return Made(3.0)


class Layer(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k * BY["k"]

    @property
    def v(self):
        return self.k

    def fresh(self):
        return Layer(3.0)

    def forward(self, x):
        return x * self.k


class Chosen(tuple):
    def __new__(cls, v):
        return super().__new__(cls, (v * BY["k"],))

    @property
    def v(self):
        return self[0]


TABLE_OF_CLASSES = {"p": Point}


class Line(collections.UserList):
    def __init__(self, held=()):
        super().__init__([v * BY["k"] for v in held])

    @property
    def v(self):
        return sum(self)


MADE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "type": (Point(1.0), lambda p: type(p)(3.0)),
    "type by another name": (Point(1.0), lambda p: [kind := type, kind(p)(3.0)][1]),
    "type, two steps": (Point(1.0), lambda p: [kind := type(p), kind(3.0)][1]),
    "its class": (Point(1.0), lambda p: p.__class__(3.0)),
    "its class by name": (Point(1.0), lambda p: getattr(p, "__class__")(3.0)),  # noqa: B009
    "its class by a getter": (Point(1.0), lambda p: operator.attrgetter("__class__")(p)(3.0)),
    "a class method": (Point(1.0), lambda p: p.of(3.0)),
    "named in a method": (Point(1.0), lambda p: p.fresh()),
    "in a table": (Point(1.0), lambda p: p.static(3.0)),
    "mapped": (Point(1.0), lambda p: next(iter(map(type(p), [3.0])))),
    "replaced": (Option(1.0), lambda p: types.SimpleNamespace(v=dataclasses.replace(p, lr=3.0).eff)),
    "a metaclass": (Made(1.0), lambda p: type(p)(3.0)),
    "a metaclass, named": (Made(1.0), lambda p: p.fresh()),
    "a module": (Layer(1.0), lambda m: type(m)(3.0)),
    "a module, named": (Layer(1.0), lambda m: m.fresh()),
    "made by new": (Chosen(1.0), lambda p: type(p)(3.0)),
    "copied": (Point(1.0), lambda p: (copy.copy(p), p.of(2.0))[1]),
    "made by a library": (Line([1.0]), lambda p: p + p),
    "sliced by a library": (Line([1.0]), lambda p: p[:1]),
}


@pytest.mark.parametrize("name", MADE)
def test_objects_that_are_made_of_a_class_that_nobody_names(name):
    held, make = MADE[name]
    BY["k"] = 2.0
    follows(lambda x: x * make(held).v, factor(BY, 5.0), factor(BY, 7.0))


@case
def an_initialiser_that_is_replaced():
    class Own:
        def __init__(self, v):
            self.v = v

        def up(self):
            return Own(self.v)

    own = Own(2.0)
    return (lambda x: x * own.up().v), lambda: setattr(Own, "__init__", lambda self, v: setattr(self, "v", v * 10))


# What a class holds

NAMESPACES: dict[str, Callable[[Any], Any]] = {
    "vars of the type": lambda c: vars(type(c)),
    "the dictionary of the class": lambda c: c.__class__.__dict__,
    "vars of the class": lambda c: c.own(),
    "dir of the type": lambda c: {name: getattr(type(c), name) for name in dir(type(c))},
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_what_a_class_holds(name):
    class Config:
        lr = 1.0

        def own(self):
            return vars(__class__)

    class InModule(nn.Module):
        lr = 1.0

        def own(self):
            return vars(__class__)

    read = NAMESPACES[name]
    for kind in (Config, InModule):
        held = kind()
        follows(
            lambda x, held=held: x * sum(v for v in read(held).values() if isinstance(v, float)),
            lambda kind=kind: setattr(kind, "lr", 3.0),
            lambda kind=kind: setattr(kind, "mom", 5.0),
        )


# Text of objects, equality, order and hashes: what a user wrote

EQUAL, LESS, HASH, TEXT, TRUTH = ({"k": 0.1} for _ in range(5))


class Value:
    def __init__(self, v):
        self.v = v

    def __eq__(self, other):
        return abs(self.v - other.v) < EQUAL["k"]

    def __lt__(self, other):
        return self.v * LESS["k"] < other.v * LESS["k"]

    def __hash__(self):
        return hash(HASH["k"])

    def __str__(self):
        return f"{TEXT['k']}"

    __repr__ = __str__

    def __bool__(self):
        return not round(TRUTH["k"])


def same(a, b):
    return a == b


def printed(value):
    text = io.StringIO()
    print(value, file=text)
    return text.getvalue()


def pushed(*values):
    heap: list[Any] = []
    for value in values:
        heapq.heappush(heap, value)
    return heap[0].v


to_text = str
SPECIAL: dict[str, tuple[dict[str, float], Callable[[Any, Any], Any]]] = {
    "equal": (EQUAL, lambda a, b: a == b),
    "equal in a function that is met later": (EQUAL, same),
    "made there and equal": (EQUAL, lambda a, b: same(Value(1.0), Value(1.5))),
    "in a list": (EQUAL, lambda a, b: a in [b]),
    "counted": (EQUAL, lambda a, b: [a].count(b)),
    "a key": (HASH, lambda a, b: {a: 2.0}.get(b, 3.0)),
    "a subscript": (HASH, lambda a, b: len({a: 2.0, b: 3.0})),
    "in a set": (HASH, lambda a, b: len({a, b})),
    "less": (LESS, lambda a, b: a < b),
    "sorted": (LESS, lambda a, b: sorted([a, b])[0].v),
    "a heap": (LESS, pushed),
    "bisected": (LESS, lambda a, b: bisect.bisect_left([a], b)),
    "smallest": (LESS, lambda a, b: min(a, b).v),
    "as a truth": (TRUTH, lambda a, b: 2.0 if a else 3.0),
    "str": (TEXT, lambda a, b: str(a)),
    "str by another name": (TEXT, lambda a, b: to_text(a)),
    "mapped": (TEXT, lambda a, b: ",".join(map(repr, [a, b]))),
    "format": (TEXT, lambda a, b: "{}".format(a)),  # noqa: UP032
    "per cent": (TEXT, lambda a, b: "%s" % a),  # noqa: UP031
    "per cent, in a list": (TEXT, lambda a, b: "%s" % [a]),
    "in a list that is shown": (TEXT, lambda a, b: repr([a])),
    "printed": (TEXT, lambda a, b: printed(a)),
    "an f-string": (TEXT, lambda a, b: f"{a}"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_methods_that_a_user_wrote(name):
    a, b = Value(1.0), Value(1.5)
    state, ask = SPECIAL[name]
    state["k"] = 0.1
    follows(lambda x: x * measure(ask(a, b)), factor(state, 1.25), factor(state, -1.625))


def measure(found):
    return float(len(found) if hasattr(found, "upper") else found)


# … and what decorators of classes wrote, which reads every field


@dataclass
class Shown:
    name: str = "a"

    def text(self):
        return "".join(vars(self).values())


@dataclass(unsafe_hash=True)
class Key:
    name: str = "a"


@dataclass(order=True)
class Ordered:
    name: str = "a"


def generated(kind: Any, ask: Callable[[Any], Any]) -> Callable[[], tuple[Any, ...]]:
    def make():
        held = kind()
        return (lambda x: x * measure(ask(held))), lambda: setattr(held, "name", "bc")

    return make


TABLE = {Key("a"): 1.0, Key("bc"): 22.0}
TEMPLATE = "{}"


@functools.lru_cache
def looked_up(key):
    return TABLE[key]


@functools.total_ordering
class Ranked:
    name = "a"

    def __lt__(self, other):
        return len(self.name) < other


def first_by(values, key):
    return values[0] if callable(key) else key


class Typed:
    def __init__(self, dtype):
        self.dtype = dtype


GENERATED = {
    "format": (Shown, lambda o: "{}".format(o)),  # noqa: UP032
    "format of a template": (Shown, lambda o: TEMPLATE.format(o)),
    "per cent": (Shown, lambda o: "%s" % o),  # noqa: UP031
    "per cent of many": (Shown, lambda o: "%s %s" % (o, 1)),  # noqa: UP031
    "format_map": (Shown, lambda o: "{o}".format_map({"o": o})),
    "printed": (Shown, printed),
    "str by another name": (Shown, lambda o: to_text(o)),
    "mapped": (Shown, lambda o: ",".join(map(str, [o]))),
    "equal": (Shown, lambda o: o == Shown("a")),
    "equal, met later": (Shown, lambda o: same(o, Shown("a"))),
    "in a list": (Shown, lambda o: o in [Shown("a")]),
    "grouped": (Shown, lambda o: len([*itertools.groupby([o, Shown("a")])])),
    "by an operator": (Shown, lambda o: operator.eq(o, Shown("a"))),
    "a subscript": (Key, lambda o: TABLE[o]),
    "got": (Key, lambda o: TABLE.get(o)),
    "in a set": (Key, lambda o: len({o, Key("a")})),
    "in a comprehension": (Key, lambda o: len({k: k.name for k in [o, Key("a")]})),
    "in a frozenset": (Key, lambda o: len(frozenset([o, Key("a")]))),
    "a cached function": (Key, lambda o: looked_up(o)),
    "sorted": (Ordered, lambda o: sorted([o, Ordered("b")])[0] is o),
    "a heap": (Ordered, lambda o: heapq.nsmallest(1, [o, Ordered("b")])[0] is o),
    "bisected": (Ordered, lambda o: bisect.bisect([Ordered("b")], o)),
    "total ordering": (Ranked, lambda o: o >= 2),
    "equal, and a length that nobody asks for": (Shown, lambda o: first_by([o], len) == Shown("a")),
    "told apart by a class that is passed": (Shown, lambda o: first_by([o], type) == Shown("a")),
    "equal types that are objects": (Shown, lambda o: Typed(o).dtype == Typed(Shown("a")).dtype),
    "its text by name": (Shown, lambda o: o.__str__()),
    "equal by name": (Shown, lambda o: o.__eq__(Shown("a"))),
    "asdict by another name": (Shown, lambda o: "".join(to_dict(o).values())),
    "copied": (Shown, lambda o: copy.copy(o).text()),
    "a field of a format": (Shown, lambda o: "{0.name}".format(o)),  # noqa: UP030, UP032
    "a field of a field of a format": (Shown, lambda o: "{o[0].name!r:>4}".format(o=[o])),  # noqa: UP032
}


@pytest.mark.parametrize("name", GENERATED)
def test_special_methods_that_a_decorator_wrote(name):
    follows(*generated(*GENERATED[name])())


@case
def a_function_of_a_library_that_an_object_holds():
    held, tools = Shown(), types.SimpleNamespace(as_dict=dataclasses.asdict)
    return (lambda x: x * float(len("".join(tools.as_dict(held).values())))), lambda: setattr(held, "name", "bc")


@case
def a_library_that_is_imported_inside():
    held = Option(1.0)

    def function(x):
        from dataclasses import replace as changed

        return x * changed(held, lr=3.0).eff

    BY["k"] = 2.0
    return function, factor(BY, 5.0)


@case
def a_key_of_sorted():
    state = {"k": 1.0}
    key = functools.cmp_to_key(lambda a, b: (a - b) * state["k"])
    return (lambda x: x * sorted([2.0, 3.0], key=key)[0]), factor(state, -1.0)


# Results of cached functions, told apart by what they are the results of

SIZES: dict[str, Any] = {}


@pytest.mark.parametrize("bound", [None, 2])
def test_a_cache_holds_a_result_for_each_key(bound):
    """Another key with the same number as its result does not stand for the one that went."""
    SIZES.update(a=2, b=3, c=2, d=5)
    size = functools.lru_cache(bound)(lambda name: SIZES[name])
    size("a")
    SIZES.update(a=4)

    def change():
        size.cache_clear()
        size("c")

    follows(lambda x: x * size("a"), change)


def test_a_result_that_is_computed_again_is_as_good():
    table = functools.lru_cache(2)(lambda n, scale=1.5: n * scale)
    fast = static.jit(lambda x: x * table(2))
    for n in range(6):
        assert fast(dg.ones(1)).tolist() == [3.0]
        table(n + 3), table(n + 4), table(2)
    assert fast.misses == ["first call"]


# Values that are equal and yet not the same object


class Word(str):
    pass


class Number(float):
    __slots__ = ("unit",)


class Pair(NamedTuple):
    a: float
    b: float


class Named(Pair):
    pass


def word(kind: Any, *args: Any) -> Any:
    made = kind(*args)
    made.unit = 2.0
    return made


@pytest.mark.parametrize("make", [lambda: word(Word, "a"), lambda: word(Number, 1.5), lambda: word(Named, 1.0, 2.0)])
@pytest.mark.parametrize("place", ["object", "module", "list", "tuple"])
def test_equal_values_with_attributes_of_their_own(make, place):
    held: Any = nn.Module() if place == "module" else types.SimpleNamespace()
    held.value, many = make(), [make()]
    pair = types.SimpleNamespace(both=(make(), 1.0))

    def function(x):
        value = many[0] if place == "list" else pair.both[0] if place == "tuple" else held.value
        return x * value.unit

    def swap():
        held.value, many[0], pair.both = make(), make(), (make(), 1.0)

    def change():
        for value in (held.value, many[0], pair.both[0]):
            value.unit = 7.0

    follows(function, swap, change)


def test_equal_plain_values_are_as_good():
    held = types.SimpleNamespace(size=Pair(1.0, 2.0), name="a" * 3)
    fast = static.jit(lambda x: x * held.size.a * len(held.name))
    for _ in range(4):
        fast(dg.ones(1))
        held.size, held.name = Pair(1.0, 2.0), "".join(["a"] * 3)
    assert fast.misses == ["first call"]


# Computed names, of an object that is not the first argument any more


class Walking:
    def walk(self, path):
        for part in path.split("."):
            self = getattr(self, part)
        return self

    def pick(self, name):
        return getattr(self, name)

    def inner(self, name):
        def step():
            nonlocal self
            self = getattr(self, name)

        step()
        return getattr(self, name + "0")


@case
def a_first_argument_that_is_stored_to():
    walking, path = Walking(), ["op", "t.l", "r0"]
    walking.opt = types.SimpleNamespace(lr0=1.0)
    return (lambda x: x * walking.walk("".join(path))), lambda: setattr(walking.opt, "lr0", 4.0)


@case
def a_first_argument_that_is_stored_to_inside():
    walking, name = Walking(), ["l", "r"]
    walking.lr = types.SimpleNamespace(lr0=1.0)
    return (lambda x: x * walking.inner("".join(name))), lambda: setattr(walking.lr, "lr0", 4.0)


@case
def a_method_that_is_called_of_its_class():
    walking, other, name = Walking(), types.SimpleNamespace(q1=2.0), ["q"]
    walking.q1 = 1.0

    def function(x):
        return x * walking.pick(name[0] + "1") * Walking.pick(other, name[0] + "1")

    return function, lambda: setattr(other, "q1", 5.0)


@case
def a_method_that_is_called_of_its_class_first():
    walking, other, name = Walking(), types.SimpleNamespace(q1=2.0), ["q"]
    walking.q1 = 1.0

    def function(x):
        return x * Walking.pick(other, name[0] + "1") * walking.pick(name[0] + "1")

    return function, lambda: setattr(other, "q1", 5.0)


# Computed names, of an object that an expression chooses

NAMES, PICK = ["lr"], {"second": False}


class Chooser:
    def __init__(self):
        self.first, self.second, self.over = types.SimpleNamespace(lr=2.0), types.SimpleNamespace(lr=3.0), None
        self.pair, self.training = (self.first, "lr"), True

    def chosen(self, name):
        return getattr(self.first if self.training else self.second, name)

    def first_that_is(self, name):
        return getattr(self.over or self.first, name)

    def first_of_all(self, name):
        return getattr((self.over and self.second) or self.first, name, 1.0)

    def own_or(self, name):
        return getattr(self.first if self.first else self, name)

    def parts(self, name):
        return getattr(self, name if self.training else name + "_")


def chosen_of_globals(chooser, name):
    return getattr(chooser.second if PICK["second"] else chooser.first, name)


CHOSEN: dict[str, Callable[[Chooser, str], Any]] = {
    "by a condition": lambda c, n: c.chosen(n),
    "by a condition on a global": chosen_of_globals,
    "by or": lambda c, n: c.first_that_is(n),
    "by and and or, with a default": lambda c, n: c.first_of_all(n),
    "itself or another": lambda c, n: c.own_or(n),
    "by a condition in place": lambda c, n: getattr(c.first if c.training else c.second, n),
    "if it is there": lambda c, n: float(hasattr(c.first if c.training else c.second, n)) * c.chosen(n),
    "starred": lambda c, n: getattr(*c.pair),
    "starred in part": lambda c, n: getattr(c.first, *(n,)),
    "partial": lambda c, n: sum(map(functools.partial(getattr, c.first), [n])),
    "mapped": lambda c, n: sum(map(getattr, [c.first], [n])),
    "by a method": lambda c, n: c.first.__getattribute__(n),
    "by the method of object": lambda c, n: object.__getattribute__(c.first, n),
    "of an item": lambda c, n: getattr(c.pair[0], n),
    "of a call": lambda c, n: getattr(Chooser.first_part(c), n),
    "bound on the way": lambda c, n: getattr((held := c.first), n) if c.training else held,
    "by another name": lambda c, n: [get := getattr, get(c.first, n)][1],
    "by a getter of two": lambda c, n: operator.attrgetter("__class__", n)(c.first)[1],
    "its part by a chosen name": lambda c, n: c.parts("first").lr,
}
Chooser.first_part = lambda self: self.first


@pytest.mark.parametrize("name", CHOSEN)
def test_computed_names_of_what_an_expression_chooses(name):
    chooser, pick = Chooser(), CHOSEN[name]
    follows(lambda x: x * pick(chooser, NAMES[0]), lambda: setattr(chooser.first, "lr", 5.0))


get, getter = getattr, operator.attrgetter
HELD_GETTERS: dict[str, Callable[[Any], tuple[Callable[[Any], Any], ...]]] = {
    "a partial": lambda o: (functools.partial(getattr, o), lambda f: f(NAMES[0])),
    "a partial of a name": lambda o: (functools.partial(getattr, o, "".join(["l", "r"])), lambda f: f()),
    "a table": lambda o: ({"get": getattr, "o": o}, lambda t: t["get"](t["o"], NAMES[0])),
    "a global": lambda o: ([o], lambda t: get(t[0], NAMES[0])),
    "a global of a library": lambda o: ([o], lambda t: getter(NAMES[0])(t[0])),
}


@pytest.mark.parametrize("name", HELD_GETTERS)
def test_computed_names_by_functions_that_are_held(name):
    held = types.SimpleNamespace(lr=2.0)
    holder, ask = HELD_GETTERS[name](held)
    follows(lambda x: x * ask(holder), lambda: setattr(held, "lr", 5.0))


@case
def a_class_whose_sibling_is_there():
    class Settings:
        @classmethod
        def get(cls, name):
            return getattr(cls, name)

    class One(Settings):
        lr = 1.0

    class Other(Settings):
        lr = 2.0

    other = Other()
    return (lambda x: x * One.get(NAMES[0]) * other.get(NAMES[0])), lambda: setattr(One, "lr", 5.0)


@case
def a_type_that_is_an_object():
    held, other = types.SimpleNamespace(dtype=Shown("a")), types.SimpleNamespace(dtype=Shown("a"))
    return (lambda x: x * 2.0 if held.dtype == other.dtype else x), lambda: setattr(held.dtype, "name", "bc")


@case
def keywords_of_a_partial_that_had_none():
    scaled = functools.partial(lambda x, by=1.0: x * by)
    return (lambda x: scaled(x)), lambda: scaled.keywords.update(by=3.0)


# Attributes that are not there, where another function than the one that asks for them catches what that raises


class Lacking:
    @classmethod
    def of_class(cls):
        return cls.inner

    def plain(self):
        return self.inner


@contextlib.contextmanager
def going_on():
    with contextlib.suppress(Exception):
        yield


def safe(function):
    @functools.wraps(function)
    def guarded(*args):
        try:
            return function(*args)
        except Exception:
            return 1.0

    return guarded


def in_a_context(context, function):
    found = 1.0
    with context:
        found = function()
    return found


def tried(function, *errors):
    try:
        return function()
    except errors:
        return 1.0


def tried_by_name(function):
    try:
        return function()
    except (KeyError, AttributeError):
        return 1.0


def tried_at_all(function):
    try:
        return function()
    except:  # noqa: E722
        return 1.0


ABSENT: dict[str, Callable[[Lacking], Any]] = {
    "tried": lambda o: tried(o.plain, AttributeError),
    "tried by name": lambda o: tried_by_name(o.plain),
    "tried at all": lambda o: tried_at_all(o.plain),
    "a class method": lambda o: tried(o.of_class, Exception),
    "a decorator": lambda o: safe(lambda: o.plain())(),
    "suppressed": lambda o: in_a_context(contextlib.suppress(Exception), o.plain),
    "a context of a generator": lambda o: in_a_context(going_on(), o.plain),
}


@pytest.mark.parametrize("name", ABSENT)
def test_attributes_that_are_not_there_in_another_function(name):
    held, ask = Lacking(), ABSENT[name]
    follows(lambda x: x * ask(held), lambda: setattr(held, "inner", 3.0))


@case
def a_module_of_python_that_lacks_a_name():
    module = types.ModuleType("settings")

    def inner():
        return module.scale

    return (lambda x: x * tried(inner, AttributeError)), lambda: setattr(module, "scale", 3.0)


# Modules that are imported inside


def fake(name: str, **held: Any) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(held)
    return module


@pytest.fixture
def modules():
    yield
    for name in [name for name in sys.modules if name.startswith("asked_")]:
        del sys.modules[name]


def imported_by_name(x):
    return x * importlib.import_module("asked_settings").k


def imported(x):
    import asked_settings

    return x * asked_settings.k


def imported_from(x):
    from asked_settings import k

    return x * k


def imported_or_not(x):
    try:
        import asked_settings
    except ImportError:
        return x
    return x * asked_settings.k


def imported_part(x):
    import asked_settings.part

    return x * asked_settings.k


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("function", [imported, imported_from, imported_by_name, imported_or_not, imported_part])
def test_modules_that_take_the_place_of_others(function):
    def replace(k):
        part = fake("asked_settings.part")
        fake("asked_settings", k=k, part=part, __path__=[])

    if function is not imported_or_not:
        replace(2.0)
    follows(function, lambda: replace(3.0), lambda: setattr(sys.modules["asked_settings"], "k", 5.0))


def test_a_module_that_the_first_call_imports(tmp_path, monkeypatch, modules):
    (tmp_path / "asked_new.py").write_text("k = 2.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    def function(x):
        from math import sqrt

        import asked_new

        return x * asked_new.k * sqrt(4.0)

    follows(function)
    follows(function, lambda: setattr(sys.modules["asked_new"], "k", 5.0))


@case
def defaults_of_a_keyword_that_come_later():
    def inner(x, *, k):
        return x * k

    def function(x):
        try:
            return inner(x)
        except TypeError:
            return x * 100.0

    return (
        function,
        lambda: setattr(inner, "__kwdefaults__", {"k": 2.0}),
        lambda: inner.__kwdefaults__.update(k=3.0),
    )


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_changes_are_noticed(name, verify):
    follows(*CASES[name](), verify=verify)


# What is no reason to trace again


class Recorded:
    """What trainers keep besides what they compute."""

    def __init__(self):
        self.stats, self.times, self.log = {"n": 0, "seen": [0.0]}, collections.defaultdict(float), {}
        self.shapes, self.key, self.parts, self.lists = {}, "n", collections.Counter(), {"seen": []}


def count_shape(r, x):
    r.stats["n"] += x.shape[0]


def count_call(r, x):
    r.stats["n"] += len(x) * 2 + 1


def count_by_key(r, x):
    r.stats[r.key] += x.shape[0]


def count_by_computed_key(r, x):
    r.stats[r.key.lower()] -= max(len(x), 3)


def time_spent(r, x):
    start = time.perf_counter()
    r.times["forward"] += time.perf_counter() - start


def time_in_a_context(r, x):
    with timed(r, "forward"):
        pass


@contextlib.contextmanager
def timed(r, name):
    start = time.time()
    yield
    r.times[name] += time.time() - start


def log_by_default(r, x):
    r.log.setdefault("a", []).append(x.shape[0])
    r.log.setdefault(r.key, [])


def log_by_computed_key(r, x):
    r.lists[f"{'seen'}"].append(len(x))
    r.shapes[f"x{x.ndim}"] = x.shape


def count_in_place(r, x):
    r.parts[type(x).__name__] += x.shape[0]


def count_from_nothing(r, x):
    r.parts[r.key] = r.parts.get(r.key, 0) + x.shape[0]
    r.parts["k"] = r.parts.get("k", 0) + 1


def set_again(r, x):
    r.stats["n"] = r.stats["n"] + len(x)


STATS = {"n": 0}


def count_in_a_global(r, x):
    STATS["n"] += x.shape[0]


COUNTERS = [
    count_shape,
    count_call,
    count_by_key,
    count_by_computed_key,
    time_spent,
    time_in_a_context,
    log_by_default,
    log_by_computed_key,
    count_in_place,
    count_in_a_global,
    count_from_nothing,
    set_again,
]


# … and one level deeper, or by another name


class Deep:
    def __init__(self):
        self.logs = {"train": {"loss": [], "n": 0}, "val": {}}
        self.rows, self.seen, self.inner = (
            [{}],
            [],
            types.SimpleNamespace(n=0, d={"a": 0}, times=[], slow={"a": {"n": 0}}),
        )
        self.push, self.table, self.most = (
            self.seen.append,
            {"a": {"b": {"c": 0}}},
            {"loss": types.SimpleNamespace(n=0)},
        )
        self.array, self.slotted, self.field = np.zeros(2), Slotted(), Field()


class Slotted:
    __slots__ = ("history", "hits", "last")

    def __init__(self):
        self.hits, self.history = 0, []

    def up(self, value):
        self.hits += 1
        self.history.append(value)
        self.last = value


@dataclass(slots=True)
class Field:
    hits: int = 0
    total: float = 0.0


def deep_store(d, x):
    d.logs["train"]["loss"] = x
    d.logs["val"][f"{'loss'}"] = x
    d.rows[-1]["loss"] = x
    d.inner.slow["a"]["x"] = x


def deep_append(d, x):
    d.logs["train"]["loss"].append(x)
    d.inner.times.append(1)


def deep_count(d, x):
    d.logs["train"]["n"] += 1
    d.table["a"]["b"]["c"] += 1
    d.table["a"]["b"]["c"] = d.table["a"]["b"]["c"] + 1
    d.table["a"]["b"]["e"] = d.table["a"]["b"].get("e", 0) + 1
    d.inner.slow["a"]["n"] += len(x)


def deep_attribute(d, x):
    d.inner.n = d.inner.n + 1
    d.inner.n += 1
    d.most["loss"].n = d.most["loss"].n + 1
    d.most["loss"].n += 1


def deep_item(d, x):
    d.inner.d["a"] = d.inner.d["a"] + 1
    d.inner.d["b"] = d.inner.d.get("b", 0) + 1
    y = len(x)
    d.inner.d["a"] = d.inner.d["a"] + y


def by_a_local_name(d, x):
    inner = d.inner.d
    logs = d.logs
    logs["train"]["loss"].append(x)
    logs["train"]["n"] += 1
    inner["a"] = 1
    losses = d.logs["train"]["loss"]
    losses.append(x)


def by_a_bound_method(d, x):
    d.push(x)
    push = d.rows.append
    push({})


def in_an_array(d, x):
    d.array[0] += 1
    d.array[1] = 2


def in_slots(d, x):
    d.slotted.up(x)
    d.field.hits += 1
    d.field.total = d.field.total + 0.5


COUNTERS += [
    deep_store,
    deep_append,
    deep_count,
    deep_attribute,
    deep_item,
    by_a_local_name,
    by_a_bound_method,
    in_an_array,
    in_slots,
]
PUSHED: list[Any] = []
PUSH = PUSHED.append


def test_a_bound_method_of_a_list_costs_no_trace():
    callbacks = [PUSHED.append]

    def function(x):
        PUSH(1.0)
        for callback in callbacks:
            callback(x)
        return x * 2.0

    follows(function)


@pytest.mark.parametrize("change", [lambda d: d["a"].append(3.0), lambda d: d["a"].__setitem__(0, 7.0)])
@pytest.mark.parametrize(
    "read",
    [
        lambda d, push: sum(d["a"]),
        lambda d, push: [push(0.0), sum(d["a"])][1],
        lambda d, push: [d["a"].append(0.0), sum(d.get("a"))][1],
        lambda d, push: by_name_and_read(d),
        lambda d, push: by_name_and_returned(d)["a"][0] + len(d["a"]),
        lambda d, push: by_name_and_called(d),
    ],
)
def test_what_is_changed_deep_inside_and_read_is_read(read, change):
    eager, compiled = {"a": [1.0, 2.0]}, {"a": [1.0, 2.0]}
    pushes = {id(d): d["a"].append for d in (eager, compiled)}
    fast, x = static.jit(lambda x: x * read(compiled, pushes[id(compiled)])), dg.ones(2)
    for _ in range(3):
        for _ in range(2):
            expected = x * read(eager, pushes[id(eager)])
            assert fast(x).tolist() == expected.tolist()
        for held in (eager, compiled):
            change(held)


def by_name_and_read(d):
    h = d
    h["a"].append(1.0)
    return sum(h["a"])


def by_name_and_returned(d):
    h = d
    h["a"].append(1.0)
    return h


def by_name_and_called(d):
    h = d["a"]
    h.append(1.0)
    return first_by([h], len)[0] + len(h)


NESTED: dict[str, Any] = {}


def deep_and_read(x):
    NESTED["a"]["n"] += 1
    return x * NESTED["a"]["n"]


def deep_and_read_by_name(x):
    inner = NESTED["a"]
    inner["n"] += 1
    return x * inner["n"]


def deep_and_in_another_place(x):
    NESTED["b"]["n"] = NESTED["a"]["n"] + 1
    return x * NESTED["b"]["n"]


def deep_attribute_and_read(x):
    NESTED["o"].n = NESTED["o"].n + 1
    return x * NESTED["o"].n


def deep_attribute_of_another(x):
    NESTED["p"].m = NESTED["o"].n + 1
    return x * NESTED["p"].m


def of_an_object_that_appends(x):
    NESTED["log"]["a"].append(1.0)
    return x * NESTED["o"].n


def array_and_read(x):
    NESTED["array"][0] += 1
    return x * float(NESTED["array"][0])


class Appending:
    def append(self, value):
        NESTED["o"].n += value


@pytest.mark.parametrize(
    "read",
    [
        deep_and_read,
        deep_and_read_by_name,
        deep_and_in_another_place,
        deep_attribute_and_read,
        deep_attribute_of_another,
        of_an_object_that_appends,
        array_and_read,
    ],
)
def test_what_is_counted_deep_inside_and_used_is_read(read):
    fast, x, found = static.jit(read), dg.ones(2), []
    for run in (read, fast):
        NESTED.update(a={"n": 1}, b={"n": 5}, o=types.SimpleNamespace(n=1), p=types.SimpleNamespace(m=1))
        NESTED.update(log={"a": Appending()}, array=np.ones(2))
        found.append([])
        for number in range(5):
            found[-1].append(run(x).tolist())
            NESTED["a"]["n"] += number
            NESTED["o"].n += number
            NESTED["array"][0] += number
    assert found[0] == found[1]


@pytest.mark.parametrize("count", COUNTERS)
@pytest.mark.parametrize("kind", ["object", "module"])
def test_items_that_are_only_counted_cost_no_trace(count, kind):
    recorded = Recorded()
    vars(recorded).update(vars(Deep()))
    if kind == "module":
        held = nn.Module()
        for name, value in vars(recorded).items():
            setattr(held, name, value)
        recorded = held

    def function(x):
        count(recorded, x)
        return x * 2.0

    fast, x = static.jit(function), dg.ones(2)
    for _ in range(4):
        fast(x)
        function(x)
    assert fast.misses == ["first call"]


class Clock:
    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, kind, value, trace):
        self.took = time.perf_counter() - self.start


def left_by_a_context(o, x):
    with Clock():
        pass


def caught_otherwise(o, x):
    try:
        {}["a"]
    except (KeyError, ValueError):
        pass
    except TypeError as error:
        raise ValueError("") from error


def cleaned_up(o, x):
    try:
        pass
    finally:
        o.times = 1


def asked_of_plain_attributes(o, x):
    return hasattr(o, "width") and getattr(o, "height", None)


@pytest.mark.parametrize("step", [left_by_a_context, caught_otherwise, cleaned_up, asked_of_plain_attributes])
def test_attributes_that_a_step_makes_cost_no_trace_where_nobody_misses_them(step):
    class Holding:
        width = 2

    held = Holding()

    def function(x):
        step(held, x)
        held.last = x * 2.0
        return held.last + 1.0

    follows(function)


def added_and_used(s, x):
    s["n"] += x.shape[0]
    return x * s["n"]


def used_at_once(s, x):
    s["n"] += (n := s["n"] + 1)
    return x * n


def added_from_another_item(s, x):
    s["total"] += s["n"] * 2
    return x * s["total"]


def set_to_another_item(s, x):
    s["total"] = s["n"] + 1
    return x * 2.0 ** s["total"]


def set_by_default_of_another_item(s, x):
    s["total"] = s.get("n", 0) + 1
    return x * s["total"]


def set_in_another_place(s, x):
    other = {"n": 0}
    other["n"] = s["n"] + 1
    return x * other["n"]


def set_to_a_sum_with_another(s, x):
    s["n"] = s["n"] + s["total"]
    return x * (1 if "n" in s else 2)


def used_of_a_default(s, x):
    return x * s.setdefault("n", 1)


def appended_and_used(s, x):
    s.setdefault("log", []).append(x.shape[0])
    return x * len(s["log"])


def used_as_a_key(s, x):
    names = {"a": 1.0}
    names[s["key"] * 2] = 2.0
    return x * len(names)


@pytest.mark.parametrize(
    "read",
    [
        set_to_another_item,
        set_by_default_of_another_item,
        set_in_another_place,
        set_to_a_sum_with_another,
        added_and_used,
        used_at_once,
        added_from_another_item,
        used_of_a_default,
        appended_and_used,
        used_as_a_key,
    ],
)
def test_items_that_are_counted_and_used_are_read(read):
    eager, compiled = ({"n": 1, "total": 0, "key": "b", "log": []} for _ in range(2))
    fast, x = static.jit(lambda x: read(compiled, x)), dg.ones(2)
    for number in range(4):
        assert fast(x).tolist() == read(eager, x).tolist()
        for state in (eager, compiled):
            state["n"] += number
            state["key"] = "ab"[number % 2]


@dataclass
class Progress:
    """What a decorator wrote for it reads every field."""

    epoch: int = 0
    loss: float = 0.0
    history: list[float] = dataclasses.field(default_factory=list)
    rate: float = 2.0


class Base(abc.ABC):
    @abc.abstractmethod
    def step(self, x): ...

    def describe(self):
        return type(self).__name__


class Trainer(Base):
    def __init__(self):
        self.model, self.progress, self.best = nn.Linear(2, 2), Progress(), float("inf")
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.times, self.table, self.seen = {"step": 0.0}, {"k": 2.0}, []
        self.run, self.width, self.most = static.jit(self.step), 2, 64

    def step(self, x):
        start = time.perf_counter()
        if x.ndim != 2 or self.width != x.shape[-1] or len(x) > self.most or self.table["k"] < 0:
            raise ValueError(
                f"{self.describe()}: got {x.shape}, which is not {self.width!r} wide" + " in {}".format(self.table)  # noqa: UP032
            )
        self.optimizer.zero_grad()
        loss = dg.mean(self.model(x) * self.table["k"]) * self.progress.rate
        loss.backward()
        self.optimizer.step()
        self.seen.append(x.shape)
        self.times["step"] += time.perf_counter() - start
        return loss

    def __getstate__(self):
        return {"seen": self.seen}


def test_a_special_method_that_shows_a_counter_is_named():
    """It is followed as if it were called: what a user wrote may do more than show."""

    class Counting:
        n, k = 0, 2.0

        def __repr__(self):
            return f"after {self.n}"

    counting = Counting()
    fast = static.jit(lambda x: x * counting.k)

    def run():
        for _ in range(18):
            assert fast(dg.ones(1)).tolist() == [2.0]
            counting.n += 1

    with pytest.warns(RecompileWarning, match=r"15 of them because of Counting\.n"):
        run()


def test_an_ordinary_trainer_is_traced_once():
    trainer = Trainer()
    for epoch in range(4):
        loss = trainer.run(dg.ones((3, 2)))
        trainer.progress.epoch += 1
        trainer.progress.loss = loss.item()
        trainer.progress.history.append(loss.item())
        trainer.best = min(trainer.best, loss.item())
        trainer.optimizer.lr = 0.1 / (epoch + 1)
        trainer.model.eval()
        trainer.model(np.ones((1, 2), np.float32))
        trainer.model.train()
    assert trainer.run.misses == ["first call"]
