"""What a trace depends on besides its arguments, and whether all of it is still so.

Four kinds of state are found and watched:

- attributes of `Observed` objects (modules, optimisers), reported while the function is traced: behind one number,
  `VERSION`, that moves on with any change of any of them;
- names that the function, and every function of the user's that it leads to, reads by its bytecode: globals, closure
  variables, defaults, attributes of plain objects and classes;
- the contents of lists, dictionaries, sets and small arrays that are reached in this way;
- gradients and hooks of variables, which the graph knows of itself.

Values count as unchanged by type and bits (`exact`), objects by identity.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
import sysconfig
import weakref
from array import array
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Container, Mapping
from contextvars import ContextVar
from enum import Enum
from operator import is_, itemgetter
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
from typing import Any, NamedTuple

import numpy as np

from dualgraph.errors import is_internal, shown
from dualgraph.exact import PLAIN, exact
from dualgraph.ops.observed import MISSING, VERSION, Observed, Table
from dualgraph.ops.tensor import TensorMethods
from dualgraph.static.bytecode import CONTAINERS, MAYBE, READ, is_read, items, reads, use

MOST_ELEMENTS = 4096  # of a container; of a longer one only the length is watched
MOST_BYTES = 1 << 16  # of an array; a larger one is watched by identity
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MAPPINGS = (dict, MappingProxyType)
_CONTENTS: tuple[type, ...] = (
    *CONTAINERS,
    array,
    np.ndarray,
    MappingProxyType,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
_FUNCTIONS = (FunctionType, MethodType, functools.partial)
# What else leads to functions, objects and containers, and to which.
_LEADS_TO: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (MethodType, lambda v: (v.__func__, v.__self__)),
    ((BuiltinMethodType, MethodWrapperType), lambda v: (v.__self__,)),
    ((functools.partial, functools.partialmethod), lambda v: (v.func, *v.args, *([v.keywords] if v.keywords else ()))),
    ((staticmethod, classmethod), lambda v: (v.__func__,)),
    (property, lambda v: (v.fget, v.fset, v.fdel)),
    (functools.cached_property, lambda v: (v.func,)),
    ((UserList, UserDict), lambda v: (v.data,)),
    (ChainMap, lambda v: v.maps),
    (weakref.ref, lambda v: (v(),)),
    ((tuple, frozenset), tuple),
)
_KNOWN = (FunctionType, MethodType, BuiltinMethodType, ContextVar, property, staticmethod, classmethod, weakref.ref)


@functools.lru_cache(maxsize=1024)
def _is_users(file: str | None) -> bool:
    """Whether a file is neither of dualgraph nor of an installed library."""
    return file is None or not (is_internal(file) or file.startswith(_LIBRARIES))


def _class_is_users(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is None or (module is not builtins and _is_users(getattr(module, "__file__", None)))


def is_plain(value: Any) -> bool:
    """Whether a value is a constant that counts by type and bits."""
    if isinstance(value, (tuple, frozenset)):
        return all(is_plain(v) for v in value)
    return isinstance(value, (*PLAIN, float, complex, Enum, np.generic, range, slice))


def unchanged(now: Any, then: Any) -> bool:
    """Whether one value may stand for the other."""
    return now is then or (type(now) is type(then) and is_plain(then) and bool(exact(now) == exact(then)))


class Space:
    """Names in a dictionary: the globals of a module, the attributes of an object."""

    def __init__(self, names: Mapping[str, Any], owner: str):
        self.names, self.owner = names, owner
        self.values: dict[str, Any] = {}

    def seal(self) -> None:
        """All names are known: prepare the quick comparison."""
        present = [name for name, value in self.values.items() if value is not MISSING]
        self._absent = [name for name, value in self.values.items() if value is MISSING]
        self._then = tuple([self.values[name] for name in present])
        # With one name more than there are, the answer is a tuple in any case.
        self._get: Callable[[Any], Any] = itemgetter(*present, *present[:1]) if present else lambda _: ()

    def holds(self) -> bool:
        names = self.names
        try:
            now = self._get(names)
        except KeyError:
            return False
        if not all(map(is_, now, self._then)):
            if not all(map(unchanged, now, self._then)):
                return False
            self._then = now[: len(self._then)]  # equal, though not the same objects
        return not self._absent or not any(name in names for name in self._absent)

    def broken(self) -> str | None:
        for name, then in self.values.items():
            now = self.names.get(name, MISSING)
            if not unchanged(now, then):
                return f"{self.owner}{name}: {worded(then)} → {worded(now, then)}"
        return None


class Slot(NamedTuple):
    """A value that is read in a way of its own: a closure variable, a slot, the defaults of a function."""

    read: Callable[[], Any]
    then: Any
    what: str

    def holds(self) -> bool:
        return unchanged(self.read(), self.then)

    def broken(self) -> str | None:
        now = self.read()
        return None if unchanged(now, self.then) else f"{self.what}: {worded(self.then)} → {worded(now, self.then)}"


class Contents:
    """What a list, dictionary, set or array holds."""

    def __init__(self, container: Any, what: str):
        self.container, self.what = container, what
        self._then = self._now()

    def _now(self) -> Any:
        container = self.container
        if isinstance(container, np.ndarray):
            return container.dtype, container.shape, container.tobytes() if container.nbytes <= MOST_BYTES else None
        if len(container) > MOST_ELEMENTS:
            return len(container)
        return (*container, *container.values()) if isinstance(container, _MAPPINGS) else tuple(container)

    def holds(self) -> bool:
        now, then = self._now(), self._then
        if not isinstance(now, tuple) or isinstance(self.container, np.ndarray):
            return bool(now == then)
        if not isinstance(then, tuple) or len(now) != len(then):
            return False
        return all(map(is_, now, then)) or all(map(unchanged, now, then))

    def broken(self) -> str | None:
        return None if self.holds() else f"{self.what}: its contents changed"


class Guards:
    """The record of one trace."""

    def __init__(self) -> None:
        self._attributes: dict[tuple[int, str], tuple[Any, str, Any] | None] = {}
        self._in_slots: set[tuple[int, str]] = set()
        self._pending: dict[tuple[int, str], Any] = {}  # written to and not read so far
        self._was: dict[Any, Any] = {}  # of names that are written to and were not read so far
        self._before: dict[int, Contents] = {}  # of containers that are changed and were not read so far
        self._spaces: dict[int, Space] = {}
        self._slots: list[Slot] = []
        self._codes: list[tuple[FunctionType, CodeType]] = []  # an editor that reloads replaces them
        self._leaves: list[Any] = []  # tensors: whether they take gradients may be asked
        self._flags: dict[int, bool] = {}  # whether they did when they were met
        self._contents: dict[int, Contents] = {}
        self._seen: dict[int, Any] = {}  # objects that were looked at, kept alive by it
        self._objects: list[tuple[Any, str]] = []  # those whose attributes are watched where functions read them
        self._functions: list[FunctionType] = []
        self._modules: dict[str, None] = {}  # that are imported inside of functions
        self._names: dict[str, set[str]] = {"__call__": {READ}}  # attributes that functions load, and what for
        self._version = VERSION[0]

    # While tracing

    def read(self, owner: Any, name: str, code: CodeType, offset: int) -> None:
        """An attribute of an observed object is about to be read, by the instruction at `offset` of `code`."""
        users = _is_users(code.co_filename)
        if name != "__dict__":
            self._read_attribute(owner, name, users, use(code, offset) if users else READ)
        elif users:
            for held in list(vars(owner)):
                self._read_attribute(owner, held, True, READ)
        else:
            return
        self._spread()

    def _read_attribute(self, owner: Any, name: str, users: bool, use: str) -> None:
        """`users`: by code of the user's; what dualgraph's own code holds is not changed in place."""
        key = (id(owner), name)
        if key in self._attributes and key not in self._pending:
            return
        self.visit(type(owner), type(owner).__name__)
        self._attributes[id(owner), "__class__"] = (owner, "__class__", type(owner))
        value = vars(owner).get(name, MISSING)
        kind = type(owner).__name__
        if key in self._pending:  # read after it was written to: it depends on what it was before
            value = self._pending[key]
        if not self._is_read({use}, value, f"{kind}.{name}", key):
            self._pending.setdefault(key, value)
            return
        self._pending.pop(key, None)
        self._attributes[key] = (owner, name, tuple(value.items()) if isinstance(value, Table) else value)
        if value is MISSING:
            if isinstance(inspect.getattr_static(type(owner), name, None), MemberDescriptorType):
                self._slot_of(owner, name, f"{kind}.")
            self._class_attribute(type(owner), name, True)
        elif isinstance(value, Table):
            for part in value.values():
                self.visit(part, kind)
        elif users or isinstance(value, _FUNCTIONS):
            self.visit(value, f"{kind}.{name}")

    def wrote(self, owner: Any, name: str) -> None:
        """An attribute was set: what is read of it from here on is the trace's own."""
        self._attributes.setdefault((id(owner), name), None)

    def depend_on(self, value: Any, what: str) -> None:
        """The trace depends on a function, an object or a container."""
        self.visit(value, what)
        self._spread()

    def flag_before(self, tensor: Any, otherwise: bool) -> bool:
        """Whether a tensor took gradients when it was met first: a step may set the attribute before it uses the tensor."""
        return self._flags.get(id(tensor), otherwise)

    # Following references

    def _is_read(self, uses: set[str], value: Any, what: str, key: Any) -> bool:
        """Whether a name is read. What is only written to may yet be read elsewhere: remember what it was."""
        if is_read(uses, value):
            return True
        self._was.setdefault(key, value)
        inside = items(value) if isinstance(value, CONTAINERS) and len(value) <= MOST_ELEMENTS else ()
        for container in (value, *inside):
            if isinstance(container, (*CONTAINERS, np.ndarray)) and id(container) not in self._before:
                self._before[id(container)] = Contents(container, what)
        return False

    def visit(self, value: Any, what: str) -> None:
        if id(value) in self._seen or type(value) in (bool, int, float, type(None)):
            return
        self._seen[id(value)] = value
        try:
            self._look_into(value, what)
        except Exception:
            return  # such a one is watched by identity, where a name holds it

    def _look_into(self, value: Any, what: str) -> None:
        if isinstance(value, TensorMethods):
            if value.call is None:
                self._leaves.append(value)
                self._flags[id(value)] = value.requires_grad
            return
        if isinstance(value, Observed):
            self.visit(type(value), what)
            return
        kind = type(value)
        if isinstance(value, FunctionType):
            self._visit_function(value)
        elif isinstance(value, (type, ModuleType)):
            if _class_is_users(value) if isinstance(value, type) else _is_users(_file(value)):
                self._objects.append((value, f"{value.__name__}."))
                self._visit_operators(value)
            return
        elif isinstance(value, ContextVar):
            self._slot(functools.partial(value.get, MISSING), f"context variable {value.name}", value.name)
        elif isinstance(value, _CONTENTS):
            self._visit_contents(value, what)
        else:
            parts = next((parts(value) for leading, parts in _LEADS_TO if isinstance(value, leading)), ())
            for part in parts:
                self.visit(part, what)
        if isinstance(value, _KNOWN):
            return
        self.visit(inspect.getattr_static(value, "__wrapped__", None), what)
        self._visit_operators(kind)
        if not is_plain(value) or _class_is_users(kind):
            self._objects.append((value, f"{kind.__name__}."))

    def _visit_operators(self, kind: Any) -> None:
        """The functions of a user's class that operators, built-in functions and the making of an object call."""
        for base in filter(_class_is_users, getattr(kind, "__mro__", ())):
            for name, method in list(vars(base).items()):
                if name.startswith("__") and isinstance(method, FunctionType):
                    self.visit(method, f"{base.__name__}.{name}")

    def _visit_contents(self, value: Any, what: str) -> None:
        self._contents[id(value)] = self._before.get(id(value)) or Contents(value, what)
        if not isinstance(value, np.ndarray) and len(value) <= MOST_ELEMENTS:
            for part in list(value.values() if isinstance(value, _MAPPINGS) else value):
                self.visit(part, what)

    def _visit_function(self, function: FunctionType) -> None:
        if not _is_users(function.__code__.co_filename):
            self.visit(getattr(function, "__wrapped__", None), function.__name__)
            for choice in getattr(function, "registry", {}).values():  # of functools.singledispatch
                self.visit(choice, function.__name__)
            return
        self._functions.append(function)
        self._codes.append((function, function.__code__))
        if vars(function):
            self._objects.append((function, f"{function.__name__}."))
        found = reads(function.__code__)
        for name in found.modules:
            self._modules[name] = None
            self.visit(sys.modules.get(name), name)
        for name, uses in found.attributes.items():
            self._names.setdefault(name, set()).update(uses)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name in found.free and self._is_read(found.free[name], _contents_of(cell), name, id(cell)):
                self._slot(functools.partial(_contents_of, cell), f"closure variable {name}", name, id(cell))
        space = function.__globals__
        for name, uses in found.globals.items():
            if (name in space or not hasattr(builtins, name)) and self._is_read(
                uses, space.get(name), name, (id(space), name)
            ):
                self._name(space, space, name, "global ")
        for attribute in ("__defaults__", "__kwdefaults__"):
            if getattr(function, attribute):
                read = functools.partial(getattr, function, attribute)
                self._slot(read, f"defaults of {function.__name__}", function.__name__)

    def _slot(self, read: Callable[[], Any], what: str, name: str, key: Any = None) -> None:
        value = self._was[key] if key in self._was else read()
        self._slots.append(Slot(read, value, what))
        self.visit(value, name)

    def _name(self, holder: Any, names: Mapping[str, Any], name: str, owner: str) -> None:
        space = self._spaces.get(id(holder))
        if space is None:
            self._seen.setdefault(id(holder), holder)
            space = self._spaces[id(holder)] = Space(names, owner)
        if name not in space.values:
            key = (id(holder), name)
            value = space.values[name] = self._was[key] if key in self._was else names.get(name, MISSING)
            self.visit(value, name if owner == "global " else f"{owner}{name}")

    def _spread(self) -> None:
        """Attributes of objects, by the names that functions read: each may lead to further functions and objects."""
        done: tuple[int, int] = (-1, -1)
        while done != (len(self._objects), len(self._functions)):
            done = (len(self._objects), len(self._functions))
            for value, owner in list(self._objects):
                self._watch_attributes(value, owner)

    def _watch_attributes(self, value: Any, owner: str) -> None:
        if isinstance(value, ModuleType):
            for name, uses in list(self._names.items()):
                held_now = vars(value).get(name, MISSING)
                present = held_now is not MISSING and self._is_read(uses, held_now, name, (id(value), name))
                if present or (held_now is MISSING and MAYBE in uses):
                    self._name(value, vars(value), name, owner)
            return
        if isinstance(value, type):
            for base in filter(_class_is_users, value.__mro__):  # super() may ask any of them
                for name, uses in list(self._names.items()):
                    if name in vars(base) and self._matters(uses, vars(base)[name], base, name):
                        self._class_attribute(base, name)
            for name in [n for n, uses in self._names.items() if MAYBE in uses]:
                self._class_attribute(value, name, True)
            return
        held = getattr(value, "__dict__", None)
        for name, uses in list(self._names.items()):
            if held is not None and name in held:
                if self._is_read(uses, held[name], f"{owner}{name}", (id(value), name)):
                    self._name(value, held, name, owner)
            elif not self._of_class(type(value), name, uses):
                continue
            elif self._class_attribute(type(value), name, MAYBE in uses) or MAYBE in uses:
                if held is not None:
                    self._name(value, held, name, owner)  # absent, as long as the class's holds
            elif isinstance(inspect.getattr_static(type(value), name, None), MemberDescriptorType):
                self._slot_of(value, name, owner)

    def _matters(self, uses: set[str], value: Any, holder: Any, name: str) -> bool:
        """Whether what a class holds under a name is read, or does something where the name is set."""
        return hasattr(type(value), "__set__") or self._is_read(uses, value, name, (id(holder), name))

    def _of_class(self, kind: type, name: str, uses: set[str]) -> bool:
        for base in kind.__mro__:
            if name in vars(base):
                return self._matters(uses, vars(base)[name], base, name)
        return MAYBE in uses

    def _slot_of(self, value: Any, name: str, owner: str) -> None:
        key = (id(value), name)
        if key not in self._in_slots:
            self._in_slots.add(key)
            self._slot(functools.partial(getattr, value, name, MISSING), f"{owner}{name}", f"{owner}{name}")

    def _class_attribute(self, kind: type, name: str, maybe: bool = False) -> bool:
        """Watch what a user's class holds under a name, and that those before it do not; `maybe`: if none does, that."""
        order = kind.__mro__
        found = next((n for n, base in enumerate(order) if name in vars(base)), len(order))
        holds = found < len(order)
        if holds and isinstance(vars(order[found])[name], (GetSetDescriptorType, MemberDescriptorType)):
            return False
        if holds or maybe:
            for base in filter(_class_is_users, order[: found + 1]):
                self._name(base, vars(base), name, f"{base.__name__}.")
        return holds and _class_is_users(order[found])

    # Afterwards

    def seal(self, variables: Container[int]) -> None:
        """The trace is over; `variables`: the identities of those tensors that the graph watches itself."""
        for name in self._modules:  # those that were imported just now
            self.visit(sys.modules.get(name), name)
        self._spread()
        self._leaves = [x for x in self._leaves if id(x) not in variables]
        self._take_gradients = [self._flags[id(x)] for x in self._leaves]
        self._watched = [a for a in self._attributes.values() if a is not None]
        self._quick: list[Space | Contents] = [*self._spaces.values(), *self._contents.values()]
        for space in self._spaces.values():
            space.seal()
        for kept in (self._seen, self._pending, self._was, self._before, self._objects, self._functions, self._names):
            kept.clear()

    def hold(self) -> bool:
        """Whether everything is as it was: at each call of a compiled function, so in as few steps as it takes."""
        now = VERSION[0]
        if now != self._version:
            if not all(_attribute_holds(*a) for a in self._watched):
                return False
            self._version = now
        if self._leaves and [x.requires_grad for x in self._leaves] != self._take_gradients:
            return False
        for function, code in self._codes:
            if function.__code__ is not code:
                return False
        for slot in self._slots:
            if slot.read() is not slot.then and not slot.holds():
                return False
        for watched in self._quick:  # noqa: SIM110 - a generator would cost more than most of the checks
            if not watched.holds():
                return False
        return True

    def broken(self) -> str | None:
        """What has changed, in words; None if nothing has."""
        for owner, name, then in self._watched:
            if not _attribute_holds(owner, name, then):
                return _changed_attribute(owner, name, then)
        for x, before in zip(self._leaves, self._take_gradients, strict=True):
            if x.requires_grad != before:
                return f"a tensor of {x.spec}: requires_grad {before} → {x.requires_grad}"
        for function, code in self._codes:
            if function.__code__ is not code:
                return f"{function.__name__}: its code changed"
        reasons = (watched.broken() for watched in (*self._slots, *self._quick))
        return next((reason for reason in reasons if reason is not None), None)


def _file(module: ModuleType) -> str | None:
    return getattr(module, "__file__", None) or ("<built-in>" if module.__name__ in sys.builtin_module_names else None)


def _contents_of(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _attribute_holds(owner: Any, name: str, then: Any) -> bool:
    if name == "__class__":
        return type(owner) is then
    now = vars(owner).get(name, MISSING)
    if isinstance(now, Table):
        items = tuple(now.items())
        return len(items) == len(then) and all(a == c and b is d for (a, b), (c, d) in zip(items, then, strict=True))
    return unchanged(now, then)


_PARTS = {
    "_modules": "modules",
    "_parameters": "parameters",
    "_buffers": "buffers",
    "_hooks": "hooks",
    "_pre_hooks": "hooks",
}


def _changed_attribute(owner: Any, name: str, then: Any) -> str:
    kind, now = type(owner).__name__, vars(owner).get(name, MISSING)
    if name == "__class__":
        return f"a {then.__name__} became a {kind}"
    if isinstance(now, Table):
        return f"{kind}: its {_PARTS.get(name, name)} changed"
    return f"{kind}.{name.lstrip('_')}: {worded(then)} → {worded(now, then)}"


def worded(value: Any, other: Any = MISSING) -> str:
    """A value in a few words; `other` is what it took the place of."""
    if value is MISSING:
        return "nothing"
    if not is_plain(value) and type(other) is type(value):
        return f"another {type(value).__name__}"
    return str(shown(value))
