"""Devices: the places where values lie. Which ones there are is said here alone.

A device knows how its storages are copied, and its numbers in the DLPack protocol. What is new on it is allocated by the
launches that compute it, in their own way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dualgraph.errors import ArgumentError, shown

Storage: TypeAlias = np.ndarray[Any, Any]  # of the processor's memory


@dataclass(frozen=True)
class Device:
    """A place for storages."""

    name: str
    kind: int  # DLPack's number of what it is
    index: int  # which one of these
    copy: Callable[[Storage], Storage]  # the elements in row-major order, in a storage of their own


CPU = Device("cpu", kind=1, index=0, copy=lambda storage: np.array(storage, order="C"))
DEVICES = {device.name: device for device in (CPU,)}


def device_named(what: str, name: object) -> Device:
    """The device of a name that is passed to `what`.

    >>> device_named("to", "cpu").kind
    1
    """
    found = DEVICES.get(name) if isinstance(name, str) else None
    if found is None:
        raise ArgumentError(
            f"{what}: got device {shown(name)}; this version runs on {' and '.join(map(repr, DEVICES))} only; use "
            f"{CPU.name!r}"
        )
    return found
