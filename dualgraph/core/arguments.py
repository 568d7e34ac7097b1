"""The door for arguments that are no tensors: shapes, axes, numbers, choices, sequences of tensors.

Every public function brings its arguments through one of these, so that whatever is passed either is understood or raises
an error of ours, with the same words in both modes and before anything has changed. NumPy integers and arrays of shape ()
count as numbers; a bool does not, nor does a tensor: its value may be known only when a compiled graph runs.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import Any

import numpy as np

from dualgraph.core.tensor import Tensor
from dualgraph.errors import ArgumentError, AxisError, DTypeError, DualgraphError, ShapeError, shown
from dualgraph.spec import Shape, fitting

Error = type[DualgraphError]
_NOT_SEQUENCES = (str, bytes, bytearray, memoryview)


def integer(
    name: str, what: str, value: Any, least: int | None = None, error: Error = ArgumentError, hint: str = ""
) -> int:
    """An integer, of at least `least`. `hint`: what to write instead, where there is more to say than to pass one."""
    found = _index(value)
    if found is None or (least is not None and found < least):
        rule = "an integer" if least is None else f"an integer of at least {least}"
        raise error(f"{name}: got {what} = {shown(value)}; it must be {rule}; {hint or _remedy(value, 'a Python int')}")
    return found


def number(name: str, what: str, value: Any, finite: bool = False) -> int | float:
    """A real number as a Python int or float."""
    found = _real(value)
    if found is None or (finite and isinstance(found, float) and not math.isfinite(found)):
        rule = "a finite number" if finite else "a number"
        raise ArgumentError(
            f"{name}: got {what} = {shown(value)}; it must be {rule}; {_remedy(value, 'a Python int or float')}"
        )
    return found


def real(name: str, what: str, value: Any, finite: bool = False) -> float:
    """A real number as a Python float."""
    found = number(name, what, value, finite)
    try:
        return float(found)
    except OverflowError:
        raise ArgumentError(
            f"{name}: got {what} = {shown(value)}; no float is near it; use a number within their range"
        ) from None


def parameter(name: str, what: str, value: Any) -> float:
    """A finite number as a parameter of an op, which knows no -0.0."""
    return real(name, what, value, finite=True) + 0.0


def probability(name: str, value: Any) -> float:
    """A number in [0, 1]."""
    found = _real(value)
    if found is None or not 0 <= found <= 1:
        raise ArgumentError(
            f"{name}: got p = {shown(value)}; a probability lies in [0, 1]; {_remedy(value, 'a Python float')}"
        )
    return float(found)


def flag(name: str, what: str, value: Any) -> bool:
    """True or False; 1 and 0 count as these."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_) or _index(value) in (0, 1):
        return bool(value)
    raise ArgumentError(f"{name}: got {what} = {shown(value)}; it must be True or False; pass one of them")


def text(name: str, what: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ArgumentError(f"{name}: got {what} {shown(value)}; it must be a string; pass one")
    return value


def choice(name: str, what: str, value: Any, options: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in options:
        near = difflib.get_close_matches(value, options, 1) if isinstance(value, str) else []
        remedy = f"did you mean {near[0]!r}?" if near else "choose one of these"
        among = f"one of {', '.join(options)}" if options else "one of those that there are, and there are none"
        raise ArgumentError(
            f"{name}: got {what} {shown(value)}; it must be {among}; {remedy if options else 'leave it out'}"
        )
    return value


def checked_shape(name: str, shape: Any) -> Shape:
    """A shape given as one length or several."""
    lengths = integers(name, "shape", shape, ShapeError)
    if lengths and min(lengths) < 0:
        raise ShapeError(f"{name}: got shape {shown(lengths)}; lengths must be 0 or more")
    return fitting(name, lengths)


def integers(name: str, what: str, value: Any, error: Error) -> tuple[int, ...]:
    """One integer or a sequence of them, as a tuple."""
    if value.__class__ is tuple:
        for n in value:
            if n.__class__ is not int:
                break
        else:
            return value
    one = _index(value)
    if one is not None:
        return (one,)
    found = [_index(n) for n in value] if is_sequence(value) else [None]
    if None in found:
        raise error(
            f"{name}: got {what} {shown(value)}; it must be an integer or a sequence of integers; "
            f"{_remedy(value, 'a tuple of Python ints')}"
        )
    return tuple(found)  # type: ignore[arg-type]


def normalize_axis(name: str, axis: Any, rank: int) -> int:
    """A possibly negative axis as a position from the left."""
    at = _index(axis)
    if at is None:
        raise AxisError(
            f"{name}: got axis {shown(axis)}; an axis is an integer; {_remedy(axis, 'a Python int')}, or a tuple of them "
            "where several are allowed"
        )
    if not -rank <= at < rank:
        raise AxisError(
            f"{name}: got axis {shown(at)} for a tensor of rank {rank}; it must lie in [{-rank}, {rank}); use an axis it has"
        )
    return at % rank


def normalize_axes(name: str, axis: Any, rank: int) -> tuple[int, ...]:
    """None (all), one axis or several, as sorted positions."""
    if axis is None:
        return tuple(range(rank))
    if axis.__class__ is int or not is_sequence(axis):
        return (normalize_axis(name, axis, rank),)
    axes = [normalize_axis(name, a, rank) for a in axis]
    if len(set(axes)) != len(axes):
        raise AxisError(f"{name}: got axes {shown(tuple(axes))}; each axis may be named once; remove the repeated one")
    return tuple(sorted(axes))


def tensors(name: str, values: Any) -> list[Any]:
    """The elements of a list or tuple, to be made tensors."""
    if not isinstance(values, (list, tuple)):
        raise DTypeError(
            f"{name}: got {shown(values)}; tensors are passed together as a list or a tuple; pass [a, b, …]"
        )
    if not values:
        raise ArgumentError(f"{name}: got no tensors; pass at least one")
    return list(values)


def members(value: Any) -> list[Any] | None:
    """What an iterable gives, or None where it is none: an array of shape () and a string pass for one, too."""
    if isinstance(value, (*_NOT_SEQUENCES, Tensor)):
        return None
    try:
        iterator = iter(value)
    except TypeError:
        return None
    return list(iterator)


def _index(value: Any) -> int | None:
    if value.__class__ is int:
        return value
    if isinstance(value, (bool, np.bool_, Tensor)):
        return None
    try:
        return index(value)
    except (TypeError, ValueError):
        return None


def _real(value: Any) -> int | float | None:
    if value.__class__ in (int, float):
        return value
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, (bool, Tensor)) or not isinstance(value, Real):
        return None
    whole = _index(value)
    return float(value) if whole is None else whole


def is_sequence(value: Any) -> bool:
    """Whether several are given, rather than one."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, _NOT_SEQUENCES)


def _remedy(value: Any, wanted: str) -> str:
    if isinstance(value, Tensor):
        return f"a tensor's value may be known only when a compiled graph runs: pass {wanted}"
    return f"pass {wanted}"
