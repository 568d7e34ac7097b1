"""What a trace depends on besides its arguments, and whether all of it is still so.

These kinds of state are found (`following`) and watched (`conditions`):

- attributes of `Observed` objects (modules, optimisers), reported while the function is traced: behind one number,
  `VERSION`, that moves on with any change of any of them;
- names that the function, and every function of the user's that it leads to, reads by its bytecode: globals, closure
  variables, defaults, attributes of plain objects and classes;
- the contents of lists, dictionaries, sets and small arrays that are reached in this way;
- the code of functions, context variables, and whether tensors that are met take gradients; what else there is of
  variables, their gradients and hooks, the graph knows of itself.

Values count as unchanged by type and bits (`exact`), objects by identity.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Container
from operator import is_
from types import (
    CodeType,
    FunctionType,
    MemberDescriptorType,
)
from typing import Any, NamedTuple

import numpy as np

from dualgraph.core.observed import MISSING, VERSION, Table
from dualgraph.core.tensor import Tensor
from dualgraph.exact import attributes
from dualgraph.static.bytecode import (
    ANY,
    CONTAINERS,
    READ,
    items,
    use,
)
from dualgraph.static.conditions import Cached, Contents, Space, is_plain, unchanged, worded
from dualgraph.static.following import FUNCTIONS, Following, is_users


class _Parts(NamedTuple):
    """What a `Table` held."""

    names: tuple[str, ...]
    values: tuple[Any, ...]


def held_by(owner: Any) -> dict[str, Any]:
    """What an observed object holds, without telling anybody."""
    return object.__getattribute__(owner, "__dict__")  # type: ignore[no-any-return]


class Guards(Following):
    """The record of one trace."""

    def __init__(self) -> None:
        super().__init__()
        self._attributes: dict[tuple[int, str], tuple[Any, str, Any] | None] = {}
        self._pending: dict[tuple[int, str], Any] = {}  # written to and not read so far
        self._unvisited: dict[tuple[int, str], Any] = {}  # that no code of the user's has read so far
        self._version = VERSION[0]
        self.own_change: str | None = None  # what the traced function read and changed by itself

    # While tracing

    def read(self, owner: Any, name: str, code: CodeType, offset: int) -> None:
        """An attribute of an observed object is about to be read, by the instruction at `offset` of `code`."""
        users = is_users(code.co_filename)
        if name != "__dict__":
            self._read_attribute(owner, name, users, use(code, offset) if users else READ)
        elif users:
            self.read_whole(owner)
            return
        else:
            return
        self._spread()

    def _read_attribute(self, owner: Any, name: str, users: bool, use: str) -> None:
        """`users`: by code of the user's; what dualgraph's own code holds is not changed in place."""
        key = (id(owner), name)
        if key in self._attributes and key not in self._pending:
            if users and key in self._unvisited:  # dualgraph or a library read it first
                self.visit(self._unvisited.pop(key), f"{type(owner).__name__}.{name}")
            return
        self.visit_kind(type(owner), True)
        self._attributes[id(owner), "__class__"] = (owner, "__class__", type(owner))
        value = held_by(owner).get(name, MISSING)
        kind = type(owner).__name__
        if key in self._pending:  # read after it was written to: it depends on what it was before
            value = self._pending[key]
        if not self._is_read({use}, value, f"{kind}.{name}", key):
            self._pending.setdefault(key, value)
            return
        self._pending.pop(key, None)
        self._held_under(name, value)
        self._attributes[key] = (
            owner,
            name,
            _Parts(tuple(value), tuple(value.values())) if isinstance(value, Table) else value,
        )
        if value is MISSING:
            if isinstance(inspect.getattr_static(type(owner), name, None), MemberDescriptorType):
                self._slot_of(owner, name, f"{kind}.")
            self._class_attribute(type(owner), name, True)
        elif isinstance(value, Table):
            for part in value.values():
                self.visit(part, kind)
        elif users or isinstance(value, FUNCTIONS):
            self.visit(value, f"{kind}.{name}")
        else:
            self._unvisited[key] = value
            for part in value if isinstance(value, tuple) else ():  # parameters of an optimiser
                self.visit(part if isinstance(part, Tensor) else None, kind)

    def read_whole(self, owner: Any) -> None:
        """All attributes of an observed object are about to be read, and which of them there are."""
        self._attributes[id(owner), "__dict__"] = (owner, "__dict__", tuple(held_by(owner)))
        for held in list(held_by(owner)):
            self._read_attribute(owner, held, True, READ)
        self._spread()

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

    # Afterwards

    def seal(self, variables: Container[int]) -> None:
        """The trace is over; `variables`: the identities of those tensors that the graph watches itself."""
        for name in list(self._modules):
            imported = self._spaces[id(sys.modules)].values
            if imported[name] is MISSING and name in sys.modules:  # just now, as no later call will
                imported[name] = sys.modules[name]
                self.visit(sys.modules[name], name)
        self._again += self._by_name.values()  # more strings are known now
        unknown = self._computing - self._having.keys() - {ANY}  # of what was made meanwhile, or of any
        if unknown and ANY not in self._computing:
            self._computing.add(ANY)
            self._again += self._objects
        for cached in self._caches:
            for part in cached.new():
                self.visit(part, cached.function.__name__)
        self._spread()
        self._leaves = [x for x in self._leaves if id(x) not in variables]
        self._take_gradients = [self._flags[id(x)] for x in self._leaves]
        self._watched = [a for a in self._attributes.values() if a is not None]
        self._kinds_then = [(owner, then) for owner, name, then in self._watched if name == "__class__"]
        self._values_then = [a for a in self._watched if a[1] != "__class__"]
        self._quick: list[Space | Contents | Cached] = [*self._spaces.values(), *self._contents.values()]
        for space in self._spaces.values():
            space.seal()
        self.own_change = self.broken() or next((w for w in map(_filled, self._caches) if w), None)
        self._quick += [cached.renewed() for cached in self._caches]
        for kept in (
            *(self._seen, self._pending, self._unvisited, self._was, self._before, self._objects, self._names),
            *(
                self._strings,
                self._computing,
                self._codes_of,
                self._caches,
                self._having,
                self._by_name,
                self._class_names,
                self._kinds,
                self._classes,
                self._holders,
            ),
        ):
            kept.clear()

    @property
    def leaves(self) -> list[Any]:
        """Tensors that were met and that the graph does not know of: their flags may have been read."""
        return self._leaves

    def hold(self) -> bool:
        """Whether everything is as it was: at each call of a compiled function, so in as few steps as it takes."""
        now = VERSION[0]
        if now != self._version:
            held = object.__getattribute__
            for owner, kind in self._kinds_then:
                if type(owner) is not kind:
                    return False
            for owner, name, then in self._values_then:
                if held(owner, "__dict__").get(name, MISSING) is not then and not _attribute_holds(owner, name, then):
                    return False
            self._version = now
        if self._leaves and [x.tracked for x in self._leaves] != self._take_gradients:
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


def _filled(cached: Cached) -> str | None:
    """Whether a function put objects into a cache and may have changed them since, as no later call will."""
    for x in cached.new():
        if not (issubclass(type(x), (Tensor, np.ndarray, FunctionType)) or is_plain(x) or _holds_tensor(x, 2)):
            return f"the cache of {cached.function.__name__}: a new {type(x).__name__}"
    return None


def _holds_tensor(x: Any, depth: int) -> bool:
    """Whether an object holds a tensor: it is made once, for it belongs to the trace."""
    held = [*attributes(x).values(), *(items(x) if issubclass(type(x), CONTAINERS) else x if type(x) is tuple else ())]
    return any(issubclass(type(v), Tensor) or (depth > 0 and _holds_tensor(v, depth - 1)) for v in held[:64])


def _attribute_holds(owner: Any, name: str, then: Any) -> bool:
    if name == "__class__":
        return type(owner) is then
    if name == "__dict__":
        return bool(tuple(held_by(owner)) == then)
    now = held_by(owner).get(name, MISSING)
    if isinstance(now, Table):
        same = isinstance(then, _Parts) and tuple(now) == then.names
        return same and all(map(is_, now.values(), then.values))
    return unchanged(now, then)


_PARTS = {
    "_modules": "modules",
    "_parameters": "parameters",
    "_buffers": "buffers",
    "_hooks": "hooks",
    "_pre_hooks": "hooks",
}


def _changed_attribute(owner: Any, name: str, then: Any) -> str:
    kind, now = type(owner).__name__, held_by(owner).get(name, MISSING)
    if name == "__class__":
        return f"a {then.__name__} became a {kind}"
    if name == "__dict__":
        return f"{kind}: it has other attributes"
    if isinstance(now, Table):
        return f"{kind}: its {_PARTS.get(name, name)} changed"
    return f"{kind}.{name.lstrip('_')}: {worded(then)} → {worded(now, then)}"
