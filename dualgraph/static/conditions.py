"""What is watched from one call of a compiled function to the next, and whether it is as it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice, repeat
from operator import is_, itemgetter
from typing import Any, NamedTuple

import numpy as np

from dualgraph.core.observed import MISSING
from dualgraph.errors import shown
from dualgraph.exact import PLAIN, Identity, elements, exact, store, stored_slots

MOST_ELEMENTS = 4096  # of a container; of a longer one only the length is watched
MOST_RESULTS = 256  # of a cache without bounds, which forgets all of them or none
MOST_BYTES = 1 << 16  # of an array; a larger one is watched by identity


_PLAINEST = frozenset((*PLAIN, float, complex, tuple))


def _may_hold_attributes(kind: type) -> bool:
    """Whether objects of a kind may have attributes of their own: these count by identity, like every object's."""
    return kind.__dictoffset__ != 0 or any(map(stored_slots, kind.__mro__))


def is_plain(value: Any) -> bool:
    """Whether a value is a constant that counts by type and bits."""
    kind = type(value)  # not `isinstance`, which may ask a proxy for its `__class__`
    if kind not in _PLAINEST and not issubclass(kind, Enum) and _may_hold_attributes(kind):
        return False
    if issubclass(kind, (tuple, frozenset)):
        return all(is_plain(v) for v in elements(value))
    if issubclass(kind, np.void):  # a record, which may be changed in place
        return False
    return issubclass(kind, (*PLAIN, float, complex, Enum, np.generic, range, slice))


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
        self._absent = frozenset([name for name, value in self.values.items() if value is MISSING])
        self._then = tuple([self.values[name] for name in present])
        # With one name more than there are, the answer is a tuple in any case.
        self._get: Callable[[Any], Any] = itemgetter(*present, *present[:1]) if present else tuple
        held = self.names
        self._lacks = (dict.keys(held) if isinstance(held, dict) else held.keys()).isdisjoint  # the keys follow it

    def holds(self) -> bool:
        if self._then:
            try:
                now = self._get(self.names)
            except KeyError:
                return False
            if not all(map(is_, now, self._then)):
                if not all(map(unchanged, now, self._then)):
                    return False
                self._then = now[: len(self._then)]  # equal, though not the same objects
        return not self._absent or self._lacks(self._absent)

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
    """What a list, dictionary, set or array holds. No code of a subclass is run to see it."""

    def __init__(self, container: Any, what: str):
        self.container, self.what = container, what
        self.is_array = isinstance(container, (np.ndarray, np.void))
        self._store: Any = None if self.is_array else store(container)
        self._then = self._now()

    def _now(self) -> Any:
        container, kind = self.container, self._store
        if self.is_array:
            mask = None
            if type(container) is not np.ndarray and isinstance(container, np.ndarray):
                mask = vars(container).get("_mask") if hasattr(container, "__dict__") else None  # of a masked array
                container = np.ndarray.view(container, np.ndarray)
            content = container.tobytes() if container.nbytes <= MOST_BYTES else None
            return container.dtype, container.shape, content, mask.tobytes() if isinstance(mask, np.ndarray) else mask
        if kind.__len__(container) > MOST_ELEMENTS:
            return kind.__len__(container)
        if issubclass(kind, dict):
            return (*kind.__iter__(container), *kind.values(container))
        return tuple(kind.__iter__(container))

    def parts(self) -> tuple[Any, ...]:
        """What else is to be looked at."""
        return () if self.is_array or not isinstance(now := self._now(), tuple) else now

    def holds(self) -> bool:
        now, then = self._now(), self._then
        if not isinstance(now, tuple) or self.is_array:
            return bool(now == then)
        if not isinstance(then, tuple) or len(now) != len(then):
            return False
        if all(map(is_, now, then)):
            return True
        if not all(map(unchanged, now, then)):
            return False
        self._then = now  # equal, though not the same objects
        return True

    def broken(self) -> str | None:
        return None if self.holds() else f"{self.what}: its contents changed"


class Members(Contents):
    """What a class holds. Names with two underscores come by themselves, with the first copy of an object say."""

    def holds(self) -> bool:
        if super().holds():
            return True
        now, then = self._now(), self._then
        if not (isinstance(now, tuple) and isinstance(then, tuple) and _given(now) == _given(then)):
            return False
        self._then = now
        return True


def _given(contents: tuple[Any, ...]) -> list[Any]:
    names, values = contents[: len(contents) // 2], contents[len(contents) // 2 :]
    return [(n, Identity(v)) for n, v in zip(names, values, strict=True) if not str(n).startswith("__")]


class Cached:
    """The results that `functools.cache` or `lru_cache` keeps: none may go, for it would be computed anew."""

    def __init__(self, function: Any):
        self.function = function
        self._keys, self._values = self._entries()  # kept alive: their identities tell

    def _entries(self) -> tuple[list[Any], list[Any]]:
        """The keys that the cache holds, and the results; only the garbage collector is told of them."""
        held = gc.get_referents(self.function)
        number = next((n for n in range(len(held) - 1, 0, -1) if held[n] is self.function.__wrapped__), 1)
        table = held[number - 1]  # of results, or of links: of each there is its key, its result and its type
        if type(table) is dict and type(next(iter(table.values()), None)).__name__ != "_lru_list_elem":
            return list(islice(table, MOST_RESULTS)), list(islice(table.values(), MOST_RESULTS))
        return held[1 : number - 1 : 3], held[2 : number - 1 : 3]

    def results(self) -> list[Any]:
        return self._entries()[1]

    def new(self) -> list[Any]:
        """What was put there since."""
        known = {*map(id, self._values)}
        return [x for x in self.results() if id(x) not in known]

    def renewed(self) -> Cached:
        return Cached(self.function)

    def holds(self) -> bool:
        keys, values = self._entries()
        first = all(map(is_, self._keys, keys)) and all(map(is_, self._values, values))
        if first and len(keys) >= len(self._keys):  # the others were put there since
            return True
        now = dict(zip(map(id, keys), values, strict=True))
        if all(map(is_, map(now.get, map(id, self._keys), repeat(MISSING)), self._values)):
            return True  # in another order
        return self._has_again(keys, values)

    def _has_again(self, keys: list[Any], values: list[Any]) -> bool:
        """Whether what went was put there again: under an equal key, an equal result."""
        now = {_key(key): (key, value) for key, value in zip(keys, values, strict=True)}
        again = [now.get(_key(key), (key, MISSING)) for key in self._keys]
        if not all(unchanged(value, then) for (_, value), then in zip(again, self._values, strict=True)):
            return False
        self._keys, self._values = [key for key, _ in again], [value for _, value in again]
        return True

    def broken(self) -> str | None:
        return None if self.holds() else f"the cache of {self.function.__name__}: its contents changed"


def _key(key: Any) -> Any:
    return exact(key) if is_plain(key) else Identity(key)


def worded(value: Any, other: Any = MISSING) -> str:
    """A value in a few words; `other` is what it took the place of."""
    if value is MISSING:
        return "nothing"
    if not is_plain(value) and type(other) is type(value):
        return f"another {type(value).__name__}"
    return str(shown(value))
