"""Nested structures of arguments and results: flattened to leaves, and put together again.

Tuples, named tuples, lists and dictionaries are structure; everything else is a leaf, a `Spec` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dualgraph.errors import ArgumentError, shown
from dualgraph.spec import Spec


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The leaves in order, and the structure without them (hashable).

    >>> flatten((1, {"a": 2}))
    ([1, 2], ('tuple', (None, ('dict', ('a',), (None,)))))
    """
    leaves: list[Any] = []
    try:
        return leaves, _structure(value, leaves)
    except RecursionError:
        raise ArgumentError(
            f"got {shown(value)}, nested too deep or within itself; pass tensors and flat structures of them"
        ) from None


def _structure(value: Any, leaves: list[Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields") and not isinstance(value, Spec):
        return ("namedtuple", type(value), tuple(_structure(v, leaves) for v in value))
    if isinstance(value, (tuple, list)) and not isinstance(value, Spec):
        return (type(value).__name__, tuple(_structure(v, leaves) for v in value))
    if isinstance(value, dict):
        return ("dict", tuple(value), tuple(_structure(v, leaves) for v in value.values()))
    leaves.append(value)
    return None


def unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The inverse of `flatten`."""
    if structure is None:
        return next(leaves)
    kind, *rest = structure
    parts = [unflatten(s, leaves) for s in rest[-1]]
    if kind == "namedtuple":
        return rest[0](*parts)
    if kind == "dict":
        return dict(zip(rest[0], parts, strict=True))
    return tuple(parts) if kind == "tuple" else parts


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with `function` applied to each leaf."""
    leaves, structure = flatten(value)
    return unflatten(structure, iter([function(leaf) for leaf in leaves]))
