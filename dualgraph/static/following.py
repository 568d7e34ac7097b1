"""What a traced function leads to: from its code and what it holds to objects, classes, containers and further functions.

Names that a function reads are found in its bytecode. What they hold is watched, and looked into; attributes of the
objects that are met are watched under the names that functions load, whichever of the functions loads them.
"""

from __future__ import annotations

import bisect
import builtins
import collections
import copy
import dataclasses
import functools
import gc
import heapq
import inspect
import itertools
import operator
import pickle  # noqa: TID251 - to know its functions where a traced one calls them
import sys
import sysconfig
import types
import weakref
from array import array
from collections import ChainMap, Counter, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

import numpy as np

from dualgraph.core.observed import MISSING, Observed
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Value
from dualgraph.errors import is_internal
from dualgraph.exact import attributes, elements, plainly
from dualgraph.static.bytecode import (
    ANY,
    CHANGED,
    CLASSES,
    COMPARES,
    CONTAINERS,
    COPIES,
    FREE,
    GLOBAL,
    HASHES,
    MAYBE,
    MUTATORS,
    OF_ARRAYS,
    OWN,
    READ,
    SHOWS,
    STORED,
    UNDER,
    WHOLE,
    Uses,
    depth_of,
    is_read,
    items,
    reads,
)
from dualgraph.static.conditions import MOST_ELEMENTS, Cached, Contents, Members, Slot, Space, is_plain

_MADE_IN_PYTHON = 1 << 9  # among the flags of a class
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_CONTENTS: tuple[type, ...] = (
    *CONTAINERS,
    array,
    np.ndarray,
    np.void,
)
# What shows the contents of a dictionary.
VIEWS: tuple[type, ...] = (MappingProxyType, type({}.keys()), type({}.values()), type({}.items()))
_CACHED = type(functools.lru_cache(lambda: None))
_GENERATED = type(contextmanager(iter)(())).__mro__[1]  # context managers that are made of a generator function
# What Python calls by itself, besides methods with two underscores.
_CALLED = ("keys", "_missing_")
# What it calls only where a function makes or copies an object, or asks for all of its attributes.
_MAKING = frozenset("__init__ __new__ __post_init__ __init_subclass__ __set_name__ __class_getitem__".split())
_COPYING = frozenset(
    "__getstate__ __setstate__ __reduce__ __reduce_ex__ __copy__ __deepcopy__ __getnewargs__ __getnewargs_ex__".split()
)
_SELDOM = {**dict.fromkeys(_COPYING, COPIES), "__dir__": WHOLE, "__del__": None, "__sizeof__": None}
# What decorators of classes write, which reads every field; what a user wrote is followed anyway.
_SHOWING = frozenset("__repr__ __str__ __format__".split())
_COMPARING = frozenset("__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__".split())
_NOT_PLAIN = (COMPARES, HASHES, SHOWS)  # asks what compares attributes that seem to be an array's
_COPIED = frozenset((COPIES, CLASSES, WHOLE))
# What asks objects for something that it does not name, under whatever name a function knows it.
_ASKING: dict[int, tuple[Any, frozenset[str]]] = {
    id(function): (function, frozenset(asks) if isinstance(asks, tuple) else asks)
    for asks, functions in (
        ((SHOWS,), (str, repr, format, ascii, print)),
        ((COMPARES,), (sorted, min, max, heapq, bisect, operator, itertools.groupby)),
        ((HASHES,), (hash, set, frozenset, dict, collections.OrderedDict, defaultdict, Counter)),
        ((CLASSES,), (type,)),
        ((WHOLE,), (vars, dir, dataclasses.asdict, dataclasses.astuple, dataclasses.fields)),
        ((WHOLE, CLASSES), (dataclasses, dataclasses.replace)),
        (_COPIED, (copy, copy.copy, copy.deepcopy, getattr(copy, "replace", copy), pickle, pickle.dump, pickle.dumps)),
    )
    for function in functions
}
for _library in (heapq, bisect, operator):
    _ASKING |= {id(f): (f, frozenset((COMPARES,))) for n, f in vars(_library).items() if n[:1] != "_" and callable(f)}
# What gets attributes that it is given the names of.
_GETTING = {id(f): f for f in (getattr, hasattr, operator.attrgetter, operator.methodcaller, object.__getattribute__)}
_OF_TENSORS = frozenset(dir(Value))  # known to the graph
FUNCTIONS = (FunctionType, MethodType, functools.partial)
# What else leads to functions, objects and containers, and to which.
_LEADS_TO: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (MethodType, lambda v: (v.__func__, v.__self__)),
    ((BuiltinMethodType, MethodWrapperType), lambda v: (v.__self__,)),
    (functools.singledispatchmethod, lambda v: (v.dispatcher,)),
    ((functools.partial, functools.partialmethod), lambda v: (v.func, *v.args, v.keywords)),
    ((staticmethod, classmethod), lambda v: (v.__func__,)),
    (property, lambda v: (v.fget, v.fset, v.fdel)),
    (functools.cached_property, lambda v: (v.func,)),
    (_GENERATED, lambda v: (v.func, *v.args, v.kwds)),
    ((UserList, UserDict), lambda v: (v.data,)),
    (ChainMap, lambda v: (v.maps,)),
    (weakref.ref, lambda v: (v(),)),
    (type(functools.cmp_to_key(lambda a, b: 0)), gc.get_referents),
    (VIEWS, gc.get_referents),
    (Enum, lambda v: (v._value_,)),
    ((tuple, frozenset), elements),
)
# Classes of the library whose operators make objects of the class that an object has.
_MAKE_MORE = (UserList, UserDict, UserString, collections.abc.Set)
_METHOD_OF = ("__wrapped__", "function")  # what decorators keep
_GETTERS = (operator.attrgetter, operator.methodcaller)  # which say what they get where they are pickled
_KNOWN = (MethodType, BuiltinMethodType, ContextVar, property, staticmethod, classmethod, weakref.ref)


@functools.lru_cache(maxsize=1024)
def is_users(file: str | None) -> bool:
    """Whether a file is neither of dualgraph nor of an installed library."""
    installed = file is not None and ("site-packages" in file or "dist-packages" in file)
    return file is None or not (installed or is_internal(file) or file.startswith(_LIBRARIES))


def class_is_users(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    if module is builtins:
        return bool(kind.__flags__ & _MADE_IN_PYTHON)  # by a code without a name of its own
    if module is types:
        return not hasattr(types, kind.__name__)  # made by a call: dataclasses.make_dataclass, types.new_class
    return module is None or kind.__module__ == "__main__" or is_users(getattr(module, "__file__", None))


class Following:
    """What one trace depends on, as far as it can be found from functions, classes and objects."""

    def __init__(self) -> None:
        self._in_slots: set[tuple[int, str]] = set()
        self._was: dict[Any, Any] = {}  # of names that are written to and were not read so far
        self._before: dict[int, Contents] = {}  # of containers that are changed and were not read so far
        self._spaces: dict[int, Space] = {}
        self._slots: list[Slot] = []
        self._codes: list[tuple[FunctionType, CodeType]] = []  # an editor that reloads replaces them
        self._leaves: list[Any] = []  # tensors: whether they take gradients may be asked
        self._flags: dict[int, bool] = {}  # whether they did when they were met
        self._contents: dict[int, Contents] = {}
        self._seen: dict[int, Any] = {}  # objects that were looked at, kept alive by it
        self._to_visit: deque[tuple[Any, str]] = deque()  # the first of them is being looked at
        self._objects: list[tuple[Any, str]] = []  # those whose attributes are watched where functions read them
        self._new_objects: list[tuple[Any, str]] = []  # that were met just now
        self._modules: dict[str, None] = {}  # that are imported inside of functions
        self._names: Uses = {"__call__": {READ}}  # attributes that functions load, and what for
        self._new_names: Uses = {}
        self._catches = False  # what raises where an attribute is not there may be caught, by whatever function
        self._asked: set[str] = set()  # what functions ask objects for without a name
        self._kinds: dict[int, Any] = {}  # classes of objects that were looked at
        self._classes: dict[int, Any] = {}  # those that may be called, for a function knows them
        self._holders: dict[int, Any] = {}  # of watched names, kept alive by it
        self._computing: set[Any] = set()  # whose attributes are got by computed names: of the objects with a method, …
        self._unbound: set[CodeType] = set()  # methods that functions get from a class: called with whatever object
        self._class_names: dict[type, tuple[int, set[str]]] = {}
        self._strings: Uses = {}  # in functions
        self._having: dict[Any, list[tuple[Any, str]]] = {}  # objects, by their methods and by names that hold them
        self._again: list[tuple[Any, str]] = []  # objects whose attributes are found to be got by computed names
        self._by_name: dict[int, tuple[Any, str]] = {}  # those that were looked at for it
        self._codes_of: dict[type, frozenset[CodeType]] = {}  # the methods of a class
        self._caches: list[Cached] = []

    def _is_read(self, uses: set[str], value: Any, what: str, key: Any) -> bool:
        """Whether a name is read. What is only written to may yet be read elsewhere: remember what it was."""
        if is_read(uses, value):
            return True
        self._was.setdefault(key, value)
        for container in _containers(value, max(1, depth_of(uses) or 0)):
            if id(container) not in self._before:
                self._before[id(container)] = Contents(container, what)
        return False

    def visit(self, value: Any, what: str) -> None:
        if id(value) in self._seen or type(value) in (bool, int, float, type(None)):
            return
        self._seen[id(value)] = value
        self._to_visit.append((value, what))
        if len(self._to_visit) > 1:
            return  # who is visiting goes on with it: a chain of references may be long
        while self._to_visit:
            with suppress(Exception):  # such a one is watched by identity, where a name holds it
                self._look_into(*self._to_visit[0])
            self._to_visit.popleft()

    def _look_into(self, value: Any, what: str) -> None:
        if id(value) in _ASKING:
            self._ask(_ASKING[id(value)][1])
        if id(value) in _GETTING and what != value.__name__:  # by its own name one sees what it is called with
            self._computing_of({ANY})
        if issubclass(type(value), Tensor):
            if value.call is None:
                self._leaves.append(value)
                self._flags[id(value)] = value.requires_grad
            if value.is_variable:
                self._new_objects.append((value, f"{type(value).__name__}."))
            return
        if issubclass(type(value), Observed):  # which reports what is read of it
            self.visit_kind(type(value), True)
            for code in self._methods(type(value)):
                self._having.setdefault(code, [])
            return
        kind = type(value)
        if issubclass(type(value), FunctionType):
            self._visit_function(value)
        elif issubclass(type(value), (type, ModuleType)):
            if class_is_users(value) if issubclass(type(value), type) else is_users(_file(value)):
                self._new_objects.append((value, f"{value.__name__}."))
                self._classes[id(value)] = value
                self._visit_operators(value)
                self.visit(type(value), what)  # of the user's, where it is a metaclass
            return
        elif issubclass(type(value), ContextVar):
            self._slot(functools.partial(value.get, MISSING), f"context variable {value.name}", value.name)
        elif issubclass(type(value), _GETTERS):
            self._load({name: {READ, MAYBE} for name in _gotten(value)})
            self._ask({CLASSES} if "__class__" in _gotten(value) else set())
            return
        elif _is_mutator(value) and not self._is_read({CHANGED}, value.__self__, what, id(value)):
            return  # losses.append
        elif issubclass(type(value), _CONTENTS):
            self._visit_contents(value, what)
        elif issubclass(type(value), _CACHED):
            self._caches.append(cached := Cached(value))
            self._ask({HASHES})
            for part in cached.results():
                self.visit(part, what)
        else:
            parts = next((parts(value) for leading, parts in _LEADS_TO if issubclass(type(value), leading)), ())
            for part in parts:
                self.visit(part, what)
        if issubclass(type(value), functools.partial) and id(value.func) in _GETTING:
            self._load({name: {READ, MAYBE} for name in value.args if isinstance(name, str)})
        if issubclass(type(value), classmethod):
            self._ask({CLASSES})  # its first argument is one, of whatever it is called of
        if issubclass(type(value), _KNOWN):
            return
        for inner in ("__wrapped__", "__origin__"):
            self.visit(inspect.getattr_static(value, inner, None), what)
        self.visit_kind(kind)
        if not is_plain(value) or class_is_users(kind):
            self._new_objects.append((value, f"{kind.__name__}."))

    def visit_kind(self, kind: type, has_attributes: bool = False) -> None:
        """The class of an object that is there; `has_attributes` of its own that functions read through the object."""
        if id(kind) in self._kinds or not any(class_is_users(base) for base in kind.__mro__):
            return
        self._kinds[id(kind)] = kind
        if has_attributes and class_is_users(kind):
            self._new_objects.append((kind, f"{kind.__name__}."))
        self._visit_operators(kind)
        if CLASSES in self._asked or any(base in _MAKE_MORE for base in kind.__mro__):
            self.visit(kind, kind.__name__)

    def _ask(self, asks: Collection[str]) -> None:
        """Functions ask objects for something without a name: it may be any object of those that are met."""
        if self._asked.issuperset(asks):
            return
        new = set(asks) - self._asked
        self._asked |= new
        if WHOLE in new:
            self._new_objects, self._objects = [*self._objects, *self._new_objects], []
        for kind in list({**self._kinds, **self._classes}.values()):
            self._visit_operators(kind)
        for kind in list(self._kinds.values()) if CLASSES in new else ():
            self.visit(kind, kind.__name__)

    def _catch(self) -> None:
        """It matters which of the attributes that functions read are not there."""
        if not self._catches:
            self._catches = True
            self._new_objects, self._objects = [*self._objects, *self._new_objects], []

    def _visit_operators(self, kind: Any) -> None:
        """What operators and built-in functions call of a user's class."""
        for base in filter(class_is_users, getattr(kind, "__mro__", ())):
            for name, method in list(vars(base).items()):
                called = name.startswith("__") or name in _CALLED
                called &= callable(method) or hasattr(type(method), "__get__")
                called = called and not isinstance(method, (GetSetDescriptorType, MemberDescriptorType, type))
                if called and self._is_called(kind, base, name):
                    self._name(base, vars(base), name, f"{base.__name__}.")

    def _is_called(self, kind: Any, base: Any, name: str) -> bool:
        """Whether functions ask for what calls a special method."""
        if name in _MAKING:
            return id(kind) in self._classes
        if name in _SELDOM:
            return _SELDOM[name] in self._asked
        if name in _SHOWING and _is_generated(vars(base)[name]):
            return SHOWS in self._asked
        if name in _COMPARING and _is_generated(vars(base)[name]):
            hashed = HASHES in self._asked and _is_generated(vars(base).get("__hash__"))
            return COMPARES in self._asked or hashed
        return True

    def _visit_contents(self, value: Any, what: str, kind: type[Contents] = Contents) -> None:
        contents = self._contents[id(value)] = self._before.get(id(value)) or kind(value, what)
        for part in contents.parts():
            self.visit(part, what)

    def _visit_function(self, function: FunctionType) -> None:
        if not is_users(function.__code__.co_filename):
            self.visit(getattr(function, "__wrapped__", None), function.__name__)
            for held in map(_contents_of, function.__closure__ or ()):  # what a decorator calls, or enters
                if isinstance(held, (*FUNCTIONS, AbstractContextManager)):
                    self.visit(held, function.__name__)
            for held in ("registry", "rules"):  # of functools.singledispatch, of an operation of the user's
                self.visit(getattr(function, held, None), function.__name__)
            return
        self._codes.append((function, function.__code__))
        found = reads(function.__code__)
        for name in found.modules:
            absolute = _absolute(name, function.__globals__)
            self._modules[absolute] = None
            self._name(sys.modules, sys.modules, absolute, "sys.modules: ")
        self._load(found.attributes)
        self._strings.update(found.strings)
        self._compute(function, found.computed)
        for name, member in found.members:
            self._unbind(self._held(function, name), member)
        self._ask(found.asks)
        if found.catches:
            self._catch()
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name in found.free and self._is_read(found.free[name], _contents_of(cell), name, id(cell)):
                self._slot(functools.partial(_contents_of, cell), f"closure variable {name}", name, id(cell))
        space = function.__globals__
        for name, uses in found.globals.items():
            if name not in space and name != "type":  # what is asked of a class one sees at the call
                self._ask(_ASKING.get(id(getattr(builtins, name, None)), (None, ()))[1])
            if (name in space or not hasattr(builtins, name)) and self._is_read(
                uses, space.get(name), name, (id(space), name)
            ):
                self._name(space, space, name, "global ")
        for attribute in ("__defaults__", "__kwdefaults__"):
            only_named = attribute == "__kwdefaults__" and function.__code__.co_kwonlyargcount
            if only_named or getattr(function, attribute):
                read = functools.partial(getattr, function, attribute)
                self._slot(read, f"defaults of {function.__name__}", function.__name__)

    def _held(self, function: FunctionType, name: str) -> Any:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        return _contents_of(cells[name]) if name in cells else function.__globals__.get(name)

    def _unbind(self, kind: Any, name: str) -> None:
        """A function gets a method from a class: its first argument may be any object."""
        member = inspect.getattr_static(kind, name, None) if issubclass(type(kind), type) else None
        if isinstance(member, FunctionType) and member.__code__ not in self._unbound:
            self._unbound.add(member.__code__)
            if member.__code__ in self._computing:
                self._computing_of({ANY})

    def _compute(self, function: FunctionType, computed: frozenset[str]) -> None:
        """A function gets attributes by names that it computes, of some objects."""
        of: set[Any] = set()
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for whose in computed:
            if (
                whose == OWN
                and function.__code__ not in self._unbound
                and function.__qualname__.rpartition(".")[0].rpartition(".")[2] not in ("", "<locals>")
            ):
                of.add(function.__code__)  # of a class
            elif whose.startswith(FREE):
                self._by_names_of(_contents_of(cells[whose.removeprefix(FREE)]))
            elif whose.startswith(GLOBAL):
                found, last = _resolved(whose.removeprefix(GLOBAL), function.__globals__)
                self._by_names_of(found)
                of |= {UNDER + last} if last else set()
            else:
                of.add(ANY if whose == OWN else whose)
        self._computing_of(of)

    def _computing_of(self, of: set[Any]) -> None:
        for whose in of - self._computing:
            self._again += self._objects if whose == ANY else self._having.get(whose, ())
        self._computing |= of

    def _held_under(self, name: str, value: Any) -> None:
        """An attribute: its own attributes may be got by computed names."""
        if name in OF_ARRAYS and not (is_plain(value) or issubclass(type(value), (np.dtype, MemberDescriptorType))):
            self._ask(_NOT_PLAIN)
        part = (value, f"{type(value).__name__}.")
        self._having.setdefault(UNDER + name, []).append(part)
        if UNDER + name in self._computing:
            self._again.append(part)

    def _by_names_of(self, value: Any) -> None:
        self._again.append((value, f"{plainly(value, '__name__', type(value).__name__)}."))

    def _slot(self, read: Callable[[], Any], what: str, name: str, key: Any = None) -> None:
        value = self._was[key] if key in self._was else read()
        self._slots.append(Slot(read, value, what))
        self.visit(value, name)

    def _name(self, holder: Any, names: Mapping[str, Any], name: str, owner: str) -> None:
        space = self._spaces.get(id(holder))
        if space is None:
            self._holders[id(holder)] = holder
            space = self._spaces[id(holder)] = Space(names, owner)
        if name not in space.values:
            key = (id(holder), name)
            value = space.values[name] = self._was[key] if key in self._was else names.get(name, MISSING)
            if value is not MISSING:
                self.visit(value, name if owner == "global " else f"{owner}{name}")
                self._held_under(name, value)

    def _load(self, names: Uses) -> None:
        """Functions load attributes of these names."""
        for name, uses in names.items():
            if name in OF_ARRAYS and STORED in uses:
                self._ask(_NOT_PLAIN)
            known = self._names.setdefault(name, set())
            if not uses <= known:
                known |= uses
                self._new_names[name] = known

    def _spread(self) -> None:
        """Attributes of objects, by the names that functions read: each may lead to further functions and objects."""
        while self._new_objects or self._new_names or self._again:
            objects, self._new_objects = self._new_objects, []
            names, self._new_names = self._new_names, {}
            again, self._again = self._again, []
            for value, owner in self._objects:
                self._watch_attributes(value, owner, names)
            self._objects += objects
            for value, owner in objects:
                self._watch_attributes(value, owner, dict(self._names))
                if WHOLE in self._asked:
                    self._watch_whole(value, owner)
                methods = self._methods(type(value))
                if issubclass(type(value), type):
                    methods |= self._methods(value)
                for code in methods:
                    self._having.setdefault(code, []).append((value, owner))
                if ANY in self._computing or not self._computing.isdisjoint(methods):
                    again.append((value, owner))
            for value, owner in again:
                self._watch_computed(value, owner)

    def _methods(self, kind: type) -> frozenset[CodeType]:
        """The code of what the user's classes of an object define."""
        if kind not in self._codes_of:
            members = [m for base in kind.__mro__ if class_is_users(base) for m in list(vars(base).values())]
            methods = [m for m in members if not isinstance(m, staticmethod)]
            functions = [f for m in methods for f in (m, *(inspect.getattr_static(m, n, None) for n in _METHOD_OF))]
            functions += [plainly(m, n) for m in methods for n in ("__func__", "fget", "func")]
            self._codes_of[kind] = frozenset(f.__code__ for f in functions if isinstance(f, FunctionType))
        return self._codes_of[kind]

    def _watch_computed(self, value: Any, owner: str) -> None:
        """What may be meant by a computed name; a name that functions only write to is not."""
        if hasattr(type(value), "__get__") and not issubclass(type(value), (*FUNCTIONS, type)):
            self._again += () if ANY in self._computing else self._objects  # a property: who knows of what
            self._computing.add(ANY)
        if issubclass(type(value), (Tensor, Observed, *FUNCTIONS)):
            return
        if issubclass(type(value), ModuleType):
            held = dict(vars(value)) if is_users(_file(value)) else {}
            names = {n for n, m in held.items() if n[:2] != "__" and not isinstance(m, ModuleType)}
        else:
            names = self._names_by_value(value, owner)
        used = {name: {READ} if name in self._strings else self._names.get(name, set()) for name in names}
        found = {name: {READ} if uses <= {STORED} else uses for name, uses in used.items()}
        self._watch_attributes(value, owner, found)

    def _names_by_value(self, value: Any, owner: str) -> set[str]:
        """The attributes of an object or a class."""
        kind = value if issubclass(type(value), type) else type(value)
        held = None if kind is value else plainly(value, "__dict__")
        if held is not None and id(value) not in self._by_name:
            self._slot(held.__len__, f"how many attributes a {owner.rstrip('.')} has", owner)
        self._by_name[id(value)] = (value, owner)
        names = set() if kind is value else set(attributes(value))
        for base in filter(class_is_users, kind.__mro__):
            names.update(n for n in list(vars(base)) if n[:2] != "__")
        return names

    def _watch_whole(self, value: Any, owner: str) -> None:
        """All attributes of an object."""
        held = None if issubclass(type(value), (ModuleType, *FUNCTIONS)) else plainly(value, "__dict__")
        kind = Contents
        if isinstance(held, MappingProxyType):
            held, kind = gc.get_referents(held)[0], Members
        if held is not None and id(held) not in self._seen:
            self._seen[id(held)] = held
            self._visit_contents(held, owner.rstrip("."), kind)
        for base in () if issubclass(type(value), type) else type(value).__mro__:
            for name, member in list(vars(base).items()):
                if isinstance(member, MemberDescriptorType) and class_is_users(base):
                    self._slot_of(value, name, owner)

    def _watch_attributes(self, value: Any, owner: str, names: Uses) -> None:
        if self._catches and not issubclass(type(value), FUNCTIONS):
            names = {name: uses | {MAYBE} if uses != {STORED} else uses for name, uses in names.items()}
        if issubclass(type(value), ModuleType):
            for name, uses in names.items():
                held_now = vars(value).get(name, MISSING)
                present = held_now is not MISSING and self._is_read(uses, held_now, name, (id(value), name))
                if present or (held_now is MISSING and MAYBE in uses):
                    self._name(value, vars(value), name, owner)
            return
        kind = value if issubclass(type(value), type) else type(value)
        held = plainly(value, "__dict__")
        there = self._names_of(kind)
        if "__getattr__" in there and class_is_users(kind):  # it is asked for what is not there
            names = {name: uses | {MAYBE} for name, uses in names.items()}
        names = {n: u for n, u in names.items() if n in there or (held is not None and n in held) or MAYBE in u}
        if issubclass(type(value), type):
            for name, uses in names.items():
                if self._of_class(value, name, uses):
                    self._class_attribute(value, name, MAYBE in uses)
            return
        if issubclass(type(value), Tensor):  # a variable: dualgraph's own attributes are known to the graph
            own = class_is_users(type(value))
            names = {n: uses for n, uses in names.items() if n == "name" or (own and n not in _OF_TENSORS)}
        for name, uses in names.items():
            if held is not None and name in held:
                if self._is_read(uses, held[name], f"{owner}{name}", (id(value), name)):
                    self._name(value, held, name, owner)
                    self._class_attribute(type(value), name)  # a descriptor comes first; super() asks there
            elif isinstance(member := inspect.getattr_static(type(value), name, None), MemberDescriptorType):
                if self._is_read(uses, _in_slot(member, value), f"{owner}{name}", (id(value), name)):
                    self._slot_of(value, name, owner)
            elif not self._of_class(type(value), name, uses):
                continue
            else:
                maybe = MAYBE in uses
                users = self._class_attribute(type(value), name, maybe) or maybe or class_is_users(type(value))
                if users and held is not None:
                    self._name(value, held, name, owner)  # absent, as long as the class's holds

    def _names_of(self, kind: type) -> set[str]:
        """What a class and its bases hold; a function that is traced may add to it."""
        size = sum([len(vars(base)) for base in kind.__mro__])
        known = self._class_names.get(kind)
        if known is None or known[0] != size:
            known = self._class_names[kind] = (size, {name for base in kind.__mro__ for name in vars(base)})
        return known[1]

    def _matters(self, uses: set[str], value: Any, holder: Any, name: str) -> bool:
        """Whether what a class holds under a name is read, or does something where the name is set."""
        descriptor = hasattr(type(value), "__set__") and not isinstance(
            value, (MemberDescriptorType, GetSetDescriptorType)
        )
        return descriptor or self._is_read(uses, value, name, (id(holder), name))

    def _of_class(self, kind: type, name: str, uses: set[str]) -> bool:
        for base in kind.__mro__:
            if name in vars(base):
                return self._matters(uses, vars(base)[name], base, name)
        return MAYBE in uses

    def _slot_of(self, value: Any, name: str, owner: str) -> None:
        key = (id(value), name)
        if key not in self._in_slots:
            self._in_slots.add(key)
            member = inspect.getattr_static(type(value), name)
            self._slot(functools.partial(_in_slot, member, value), f"{owner}{name}", f"{owner}{name}", key)
            self._held_under(name, _in_slot(member, value))

    def _class_attribute(self, kind: type, name: str, maybe: bool = False) -> bool:
        """Watch what the user's classes hold under a name, each of them, for `super()`; `maybe`: also if none does.

        Returns whether it is a class of the user's that holds it.
        """
        holder = next((base for base in kind.__mro__ if name in vars(base)), None)
        if holder is None and not maybe:
            return False
        if holder is not None and isinstance(vars(holder)[name], (GetSetDescriptorType, MemberDescriptorType)):
            return False
        for base in filter(class_is_users, kind.__mro__):
            self._name(base, vars(base), name, f"{base.__name__}.")
        return holder is not None and class_is_users(holder)


def _containers(value: Any, depth: int) -> list[Any]:
    """A container, and those in it to a depth."""
    inside = items(value)[:MOST_ELEMENTS] if depth and issubclass(type(value), CONTAINERS) else ()
    own = [value] if issubclass(type(value), (*CONTAINERS, np.ndarray)) else []
    return [*own, *(found for item in inside for found in _containers(item, depth - 1))]


def _is_mutator(value: Any) -> bool:
    return issubclass(type(value), BuiltinMethodType) and value.__name__ in MUTATORS


def _is_generated(method: Any) -> bool:
    """Whether a decorator of the class wrote a method: one of `dataclasses` or of `attrs`."""
    function = plainly(method, "__wrapped__", method)
    code = plainly(function, "__code__")
    if not isinstance(code, CodeType):
        return False
    return code.co_qualname.startswith("__create_fn__.") or code.co_filename.startswith("<attrs generated ")


def _resolved(path: str, names: dict[str, Any]) -> tuple[Any, str]:
    """What a dotted name means by the globals of a function, and the last part of it where that is no module's."""
    first, *rest = path.split(".")
    found = names.get(first, MISSING)
    for name in rest:
        if not isinstance(found, ModuleType):
            return MISSING, rest[-1]
        found = vars(found).get(name, MISSING)
    return found, ""


def _gotten(getter: Any) -> list[str]:
    """The attributes that an `operator.attrgetter` or `methodcaller` reads."""
    function, arguments = getter.__reduce__()[:2]
    found = [*arguments, *getattr(function, "args", ())]  # a partial, where the method is called with keywords
    return [part for name in found if isinstance(name, str) for part in name.split(".")]


def _absolute(name: str, names: dict[str, Any]) -> str:
    """The full name of a module that is imported by a function with these globals."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    package = names.get("__package__") or names.get("__name__", "").rpartition(".")[0]
    parts = [*package.split(".")[: 1 - level or None], name[level:]]
    return ".".join(part for part in parts if part)


def _file(module: ModuleType) -> str | None:
    return getattr(module, "__file__", None) or ("<built-in>" if module.__name__ in sys.builtin_module_names else None)


def _contents_of(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _in_slot(member: MemberDescriptorType, owner: Any) -> Any:
    try:
        return member.__get__(owner)
    except (AttributeError, TypeError):  # not set, or of another class
        return MISSING
