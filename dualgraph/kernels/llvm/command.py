"""A command: one native kernel bound to its operands, ready for the command loop.

Everything native has the ABI `i32 kernel(ptr slots, ptr args, i64 begin, i64 end)`: `slots` holds one data pointer per
buffer, `args` the numbers that its `selection` laid out, `[begin, end)` the units of work to do. Any cut of the
units gives the same bits and different units write disjoint memory. The result is 0, or 1 when a check failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Locate = Callable[[int], tuple[int, int]]  # buffer -> (slot, byte offset)


class Variant:
    """Says which code a kernel is: a frozen, hashable record whose `repr` is canonical (it keys the disk cache).

    What writes the code is a row of `codegen.EMIT`; it is imported where code must be written.
    """

    __slots__ = ()

    @property
    def straight(self) -> bool:
        """Long code without a branch: the short list of LLVM's passes is enough."""
        return False


@dataclass(frozen=True, slots=True)
class Command:
    """A variant with its arguments. `work`: rough number of scalar operations, to decide on threads."""

    variant: Variant
    args: tuple[int, ...]
    units: int
    work: int
