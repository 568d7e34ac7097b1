"""When two Python constants are the same: by type and by bits, not by `==`.

`1 == 1.0 == True` and `0.0 == -0.0`, yet they give other results; NaN is not equal to itself, yet it is the same constant.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from types import MemberDescriptorType, MethodType
from typing import Any

import numpy as np

PLAIN = (bool, int, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
_STORES: tuple[Any, ...] = (OrderedDict, dict, list, tuple, set, frozenset, deque, bytearray, array)
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__index__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
}
COMPILED = "<compiled "  # so begin the names under which objects keep their compiled methods
DEEPEST = 64  # levels of nesting; what is deeper, or holds itself, is told apart by identity


class Identity:
    """A key that only the same object has. Holds the object, so that no other can take its place."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return f"{type(self.value).__name__} at {id(self.value):#x}"


def store(value: Any) -> Any:
    """The built-in type that keeps the items of a container: its methods call none of a subclass's."""
    for base in _STORES:  # no generator: Ctrl-C would be lost where it is closed
        if isinstance(value, base):
            return base
    raise TypeError(f"{type(value).__name__} is no container")


def elements(value: Any) -> tuple[Any, ...]:
    """What a container holds, keys for a dictionary, without running code of a subclass."""
    return tuple(store(value).__iter__(value))


def exact(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """A hashable key: equal for two constants exactly when no program can tell them apart by value.

    Numbers, strings, enumerations, containers, arrays and dataclasses count by content, and so do objects that define
    `==` themselves; all others by identity.

    >>> exact(1) == exact(True), exact(0.0) == exact(-0.0), exact([float("nan")]) == exact([float("nan")])
    (False, False, True)
    """
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind is float:
        return kind, struct.pack("<d", value)
    if id(value) in inside or len(inside) > DEEPEST:
        return Identity(value)
    below = (*inside, id(value))
    if isinstance(value, Enum):
        return kind, value._name_, exact(value._value_, below)
    if isinstance(value, MethodType):
        return kind, Identity(value.__func__), Identity(value.__self__)
    if isinstance(value, complex):
        return kind, struct.pack("<dd", value.real, value.imag)
    if isinstance(value, (np.ndarray, np.generic)):
        return Identity(value) if value.dtype.hasobject else (kind, value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, (tuple, list)):
        return kind, tuple([exact(v, below) for v in elements(value)]), _attributes(value, below)
    if isinstance(value, dict):
        pairs = store(value).items(value)
        return kind, tuple([(exact(k, below), exact(v, below)) for k, v in pairs]), _attributes(value, below)
    if isinstance(value, (set, frozenset)):  # in the order of iteration
        return kind, tuple([exact(v, below) for v in elements(value)]), _attributes(value, below)
    if isinstance(value, (slice, range)):
        return kind, tuple([exact(v, below) for v in (value.start, value.stop, value.step)])
    if is_dataclass(value) and not isinstance(value, type):
        return kind, _attributes(value, below)
    if isinstance(value, (int, float, str, bytes)):  # a subclass
        plain = next(convert for base, convert in _BASES.items() if isinstance(value, base))
        return kind, exact(plain(value), below), _attributes(value, below)
    return _object_key(value, kind, below)


def _attributes(value: Any, inside: tuple[int, ...]) -> Any:
    return tuple([(exact(name), exact(v, inside)) for name, v in attributes(value).items()])


def plainly(value: Any, name: str, otherwise: Any = None) -> Any:
    """An attribute as Python itself finds it: no `__getattr__` or `__getattribute__` of the user's is asked."""
    try:
        return object.__getattribute__(value, name)
    except Exception:
        return otherwise


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds by name, in its dictionary and in slots, compiled methods left out."""
    held = plainly(value, "__dict__") or {}
    return {**{n: v for n, v in held.items() if not str(n).startswith(COMPILED)}, **_slots(value)}


def _slots(value: Any) -> dict[str, Any]:
    held = {}
    for base in type(value).__mro__:
        for name in stored_slots(base):
            try:
                held[name] = vars(base)[name].__get__(value)
            except AttributeError:
                continue  # it is not set
    return held


def stored_slots(base: type) -> list[str]:
    """The slots that a class declares, by the names under which they are stored."""
    members = list(vars(base).items()) if "__slots__" in vars(base) else []
    return [name for name, member in members if isinstance(member, MemberDescriptorType)]


def _holds_more(kind: Any) -> bool:
    """Whether objects of a kind hold something besides their attributes: those of types that are written in C may."""
    library = (base.__module__.partition(".")[0] for base in kind.__mro__ if base is not object)
    return any(name in sys.stdlib_module_names and name not in _PURE for name in library)


_PURE = ("abc", "dataclasses", "enum", "types", "typing", "__main__")


def _object_key(value: Any, kind: Any, inside: tuple[int, ...]) -> Any:
    """Objects with an equality of their own count by what they hold; those that hold it elsewhere, by it and by words."""
    if kind.__eq__ is object.__eq__ or isinstance(value, type) or _is_tensor(kind):
        return Identity(value)
    attributes = _attributes(value, inside)
    if attributes and not _holds_more(kind):
        return kind, attributes
    try:
        hash(value)
    except TypeError:
        return Identity(value)
    return kind, value, repr(value), attributes


def _is_tensor(kind: Any) -> bool:
    """Kinds whose `==` is elementwise: they keep NumPy's operators away, or take them over."""
    return getattr(kind, "__array_ufunc__", 0) is None or getattr(kind, "takes_operators", False)
