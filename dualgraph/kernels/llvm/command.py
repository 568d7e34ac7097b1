"""A command: one native kernel bound to its operands, ready for the command loop.

Everything native has the ABI `i32 kernel(ptr slots, ptr args, i64 begin, i64 end)`: `slots` holds one data pointer per
buffer, `args` the numbers that the kernel's own binder laid out, `[begin, end)` the units of work to do. Any cut of the
units gives the same bits and different units write disjoint memory. The result is 0, or 1 when a check failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Locate = Callable[[int], tuple[int, int]]  # buffer -> (slot, byte offset)


@runtime_checkable
class Variant(Protocol):
    """The code of a kernel: a frozen, hashable record whose `repr` is canonical (it keys the disk cache)."""

    def emit(self, module: Any, name: str) -> None:
        """Define the function `name` in an `llvmlite.ir.Module`."""


@dataclass(frozen=True, slots=True)
class Command:
    """A variant with its arguments. `work`: rough number of scalar operations, to decide on threads."""

    variant: Variant
    args: tuple[int, ...]
    units: int
    work: int
