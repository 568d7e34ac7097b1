"""Nested structures of arguments and results: flattened to leaves, and put together again.

Tuples, lists and dictionaries are structure, subclasses of them too (named tuples, `OrderedDict`, `defaultdict`, …), which
come back as what they were; everything else is a leaf, a `Spec` too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dualgraph.errors import ArgumentError, shown
from dualgraph.exact import attributes, elements, exact, store
from dualgraph.spec import Spec


class Node(NamedTuple):
    """A container without its leaves. Equal nodes have containers of one type, keys and attributes."""

    kind: type
    children: tuple[Any, ...]  # a Node for each container inside, None for each leaf
    keys: Keys | None = None  # of a dictionary
    attributes: Keys | None = None  # what a subclass's object holds besides


class Keys:
    """Python constants that are compared by type and bits, and given back as they are."""

    __slots__ = ("key", "values")

    def __init__(self, values: Any):
        self.values, self.key = values, exact(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr(self.values)


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The leaves in order, and the structure without them (hashable; None for a single leaf).

    >>> leaves, structure = flatten((1, {"a": 2}))
    >>> leaves, describe(structure)
    ([1, 2], "(*, {'a': *})")
    """
    leaves: list[Any] = []
    try:
        return leaves, _structure(value, leaves)
    except RecursionError:
        raise ArgumentError(
            f"got {shown(value)}, nested too deep or within itself; pass tensors and flat structures of them"
        ) from None


def _structure(value: Any, leaves: list[Any]) -> Any:
    kind = type(value)
    if isinstance(value, (tuple, list)) and not isinstance(value, Spec):
        parts = tuple([_structure(v, leaves) for v in (value if kind in (tuple, list) else elements(value))])
        return Node(kind, parts, None, None if kind in (tuple, list) else _attributes(value))
    if isinstance(value, dict):
        parts = tuple([_structure(v, leaves) for v in store(value).values(value)])
        return Node(kind, parts, Keys(elements(value)), None if kind is dict else _attributes(value))
    leaves.append(value)
    return None


def nodes(structure: Any) -> Iterator[Node]:
    """The containers of a structure, the outermost first."""
    if structure is not None:
        yield structure
        for child in structure.children:
            yield from nodes(child)


def _attributes(value: Any) -> Keys | None:
    held = attributes(value)
    if isinstance(value, defaultdict):
        held["default_factory"] = value.default_factory
    return Keys(held) if held else None


def unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The inverse of `flatten`."""
    if structure is None:
        return next(leaves)
    kind, children, keys, held = structure
    parts = [unflatten(child, leaves) for child in children]
    if kind is tuple:
        return tuple(parts)
    if kind is list:
        return parts
    if kind is dict:
        return dict(zip(keys.values, parts, strict=True))
    return _subclass(kind, parts, keys, held)


def _subclass(kind: Any, parts: list[Any], keys: Keys | None, held: Keys | None) -> Any:
    """An object of a subclass of tuple, list or dict, made without its `__init__`."""
    if issubclass(kind, tuple):
        value = tuple.__new__(kind, parts)
    else:
        value = kind.__new__(kind)
        if keys is None:
            list.extend(value, parts)
        else:
            for key, part in zip(keys.values, parts, strict=True):
                store(value).__setitem__(value, key, part)
    for name, attribute in (held.values if held is not None else {}).items():
        object.__setattr__(value, name, attribute)
    return value


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with `function` applied to each leaf."""
    leaves, structure = flatten(value)
    return unflatten(structure, iter([function(leaf) for leaf in leaves]))


def describe(structure: Any) -> str:
    """A structure in words, with `*` for each leaf."""
    if structure is None:
        return "*"
    kind, children, keys, _ = structure
    inside = [describe(child) for child in children]
    if keys is not None:
        text = "{" + ", ".join(f"{k!r}: {v}" for k, v in zip(keys.values, inside, strict=True)) + "}"
    elif issubclass(kind, list):
        text = "[" + ", ".join(inside) + "]"
    else:
        text = "(" + ", ".join(inside) + ("," if len(inside) == 1 else "") + ")"
    return text if kind in (tuple, list, dict) else f"{kind.__name__}{text}"
