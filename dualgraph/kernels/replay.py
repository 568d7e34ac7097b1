"""Functions from outside called once: what they gave is kept, and given again where the same call runs in another program.

The first run of a graph may run it several times, to compare its stages. A function of the user's that has effects is
called by the first of them only: the others, and the run that follows, get the results that it gave there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from dualgraph.bits import same_bits
from dualgraph.errors import GraphError, Where
from dualgraph.kernels.kinds import External
from dualgraph.kernels.program import Program

Array = np.ndarray[Any, Any]
Key = tuple[tuple[int, ...], int]


class Kept(NamedTuple):
    """What one call got and gave."""

    inputs: tuple[Array, ...]
    results: tuple[Array, ...]


class Recording:
    """Each function is called once by what runs `inside`. `compared`: it must get the same bits every time.

    The outermost recording counts. Something may be run inside again, later.
    """

    def __init__(self, compared: bool):
        self.compared = compared
        self.calls: dict[Key, Kept] = {}

    def inside(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """A function that runs inside of the recording."""

        def inside(*args: Any) -> Any:
            before = _present.get()
            try:  # no `with` block, in whose own functions Ctrl-C might come
                _present.set(before or self)
                return run(*args)
            finally:
                _present.set(before)

        return inside


_present: ContextVar[Recording | None] = ContextVar("recording", default=None)


def key_of(program: Program) -> Key | None:
    """What tells the function that is added next from the others, in all programs of a graph; None outside of graphs.

    Of one call, or composite, the functions are told apart by their order. Passes keep that, and drop none that has effects.
    """
    if not program.origin:
        return None
    beside = itertools.takewhile(lambda step: step.origins == program.origin, reversed(program.steps))
    return program.origin, sum(isinstance(step.kernel, External) and not step.kernel.pure for step in beside)


def once(
    name: str, where: Where | None, key: Key | None, function: Callable[..., tuple[Array, ...]]
) -> Callable[..., tuple[Array, ...]]:
    """The function, called once in a recording."""
    if key is None:
        return function

    def run(*arrays: Array) -> tuple[Array, ...]:
        present = _present.get()
        if present is None:
            return function(*arrays)
        kept = present.calls.get(key)
        if kept is None:
            inputs = tuple(np.array(a) for a in arrays) if present.compared else ()  # it may write into what it gets
            try:
                _present.set(None)  # graphs that the function runs are no part of this
                results = tuple(np.array(r) for r in function(*arrays))
            finally:
                _present.set(present)
            present.calls[key] = Kept(inputs, results)
            return results
        if present.compared and not all(map(same_bits, kept.inputs, arrays)):
            raise GraphError(
                f"verify: a pass changed the bits that {name} gets; this is a fault of dualgraph, please report it"
            ).at(where)
        return kept.results

    return run


__all__ = ["Recording", "key_of", "once"]
