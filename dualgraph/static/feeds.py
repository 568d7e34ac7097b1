"""The arguments of a compiled graph: matched to its inputs by position or name, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualgraph.core.arrays import as_array, copied
from dualgraph.core.mode import current
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Value
from dualgraph.dtypes import converted
from dualgraph.errors import DTypeError, FeedError, ShapeError, here
from dualgraph.ops.symbol import Symbol
from dualgraph.spec import Shape, is_float

Array = np.ndarray[Any, Any]


class Feeds:
    """Turns arguments into arrays of the specs that the graph was compiled for."""

    def __init__(self, placeholders: Sequence[Symbol]):
        self.names = [p.node.params["name"] for p in placeholders]
        self.specs = [p.spec for p in placeholders]

    def matched(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """One value per input, in their order."""
        return self._by_name(args, named) if named or len(args) != len(self.specs) else args

    def arrays(self, values: Sequence[Any]) -> list[Array]:
        """One C-contiguous array per input."""
        arrays = []
        for number, value in enumerate(values):
            if value.__class__ is Value and value.layout == self.specs[number]:
                arrays.append(value.storage)
            else:
                arrays.append(self._checked(number, value))
        return arrays

    def symbol(self, number: int, value: Any) -> Any:
        """A value for an input of a function that is being traced as a part of another one."""
        if not isinstance(value, Tensor):
            return current().lift(self._checked(number, value))
        self._check_spec(number, value.shape, value.layout.dtype)
        return value

    def _checked(self, number: int, value: Any) -> Array:
        spec, name = self.specs[number], self.names[number]
        if isinstance(value, Tensor):
            value = current().lift(value).numpy()
        array = value
        if array.__class__ is not np.ndarray or not array.dtype.isnative:
            try:
                array = as_array(value)
            except (DTypeError, ShapeError) as error:
                raise FeedError(f"feed {name!r}: {error.args[0]}").at(here()) from None
            if array.dtype.name != spec.dtype and not hasattr(value, "dtype"):
                array = _weak(array, spec.dtype)
        self._check_spec(number, array.shape, array.dtype.name)
        return array if array.flags.c_contiguous else copied(array)

    def _check_spec(self, number: int, shape: Shape, dtype: str) -> None:
        spec, name = self.specs[number], self.names[number]
        if dtype != spec.dtype:
            raise FeedError(
                f"feed {name!r}: got {dtype}; the graph was compiled for {spec.dtype}; cast it with astype, or "
                "compile for this dtype (static.jit does so by itself)"
            ).at(here())
        if shape != spec.shape:
            raise FeedError(
                f"feed {name!r}: got shape {shape}; the graph was compiled for {spec.shape}; reshape it, or compile "
                "for this shape (static.jit does so by itself)"
            ).at(here())

    def _by_name(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        names = self.names
        extra = [n for n in named if n not in names]
        if len(args) > len(names) or extra:
            what = ", ".join(map(repr, extra)) if extra else f"{len(args)} positional"
            raise FeedError(
                f"got extra feeds ({what}); the graph takes {', '.join(names) or 'none'}; leave them out"
            ).at(here())
        given = dict(zip(names, args, strict=False))
        twice = [n for n in named if n in given]
        if twice:
            raise FeedError(f"got feed {twice[0]!r} twice; pass it by position or by name").at(here())
        given.update(named)
        missing = [n for n in names if n not in given]
        if missing:
            raise FeedError(
                f"got no feed for {', '.join(map(repr, missing))}; every input of the graph must be fed"
            ).at(here())
        return tuple(given[n] for n in names)


def _weak(array: Array, dtype: str) -> Array:
    """Python numbers take the dtype that is asked for, where their kind allows it."""
    floats = is_float(dtype)
    if array.dtype.kind == "i" or (floats and is_float(array.dtype.name)):
        with np.errstate(over="ignore"):
            cast = converted(array, dtype)
        if array.dtype.kind != "i" or floats or np.array_equal(cast, array):
            return cast
    return array
