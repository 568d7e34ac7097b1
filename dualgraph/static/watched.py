"""What is watched from one call of a compiled function to the next, and whether it is as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from operator import is_, itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from dualgraph.errors import shown
from dualgraph.exact import PLAIN, exact
from dualgraph.ops.observed import MISSING

MOST_ELEMENTS = 4096  # of a container; of a longer one only the length is watched
MOST_BYTES = 1 << 16  # of an array; a larger one is watched by identity
MAPPINGS = (dict, MappingProxyType)


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
        return (*container, *container.values()) if isinstance(container, MAPPINGS) else tuple(container)

    def holds(self) -> bool:
        now, then = self._now(), self._then
        if not isinstance(now, tuple) or isinstance(self.container, np.ndarray):
            return bool(now == then)
        if not isinstance(then, tuple) or len(now) != len(then):
            return False
        return all(map(is_, now, then)) or all(map(unchanged, now, then))

    def broken(self) -> str | None:
        return None if self.holds() else f"{self.what}: its contents changed"


def worded(value: Any, other: Any = MISSING) -> str:
    """A value in a few words; `other` is what it took the place of."""
    if value is MISSING:
        return "nothing"
    if not is_plain(value) and type(other) is type(value):
        return f"another {type(value).__name__}"
    return str(shown(value))
