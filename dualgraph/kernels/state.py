"""State: inputs of a program that lie in slots of objects (variables), and outputs that are left in slots.

A launch with state reads the slots itself and changes them itself, so that what it promises is in one place: an array
that anybody else holds is never written to; a launch that fails leaves every slot as it was; one that succeeds changes
all of them at once, between two bytecodes, so that neither another thread nor a signal sees half a step.

`kernels.llvm.runtime_state` does it natively and writes into the arrays themselves where the slot alone holds them.
`with_state` does it in Python for programs that run Python functions: there other threads may look at any time, so it
writes into copies. So it does where there is more to change at once than the launch knows of: whoever launches gets the
`Changes` then, adds his own, and does them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

VALUE, GRADIENT, LAYOUT = "storage", "_grad", "layout"  # the slots
_value_of = attrgetter(VALUE)


class State(NamedTuple):
    """Which inputs and outputs of a program lie in slots. Cells are objects whose slot `VALUE` holds an exact ndarray."""

    first: int  # the input that stands for the first cell
    cells: tuple[Any, ...]  # one for each input from there on
    written: frozenset[int]  # the numbers of cells that the program writes to
    left: list[Any] = []  # noqa: RUF012 - the objects whose slot `GRADIENT` receives the last outputs, in this order
    cleared: list[Any] = []  # noqa: RUF012 - those where it becomes None
    wrapper: type | None = None  # what may stand for an array in `GRADIENT`: it holds one in `VALUE`, all of it if
    whole: type | None = None  # what is in its slot `LAYOUT` has this type
    apart: bool = False  # a launch changes nothing: it returns its results and the `Changes`


class Changes(NamedTuple):
    """What is to be put into slots: of these objects, these slots, these values."""

    owners: tuple[Any, ...]
    slots: tuple[str, ...]
    values: tuple[Any, ...]

    def commit(self, *others: Iterable[Any]) -> None:
        """Make the changes, and go through `others`, which are to be iterators of C as well."""
        before = list(map(getattr, self.owners, self.slots))  # finalisers run when all is done
        # One call of C: no other thread, no handler of a signal comes in between.
        deque(chain(map(setattr, *self), *others), maxlen=0)
        del before


def redirect(state: State, number: int, receiver: Any) -> Any:
    """Have gradient `number`, counted over `left` and then `cleared`, left in another object; the one before."""
    receivers, at = (state.left, number) if number < len(state.left) else (state.cleared, number - len(state.left))
    before, receivers[at] = receivers[at], receiver
    return before


def with_state(launch: Callable[..., Any], state: State, outputs: int) -> Callable[..., Any]:
    """A launch that takes all inputs and returns all outputs, as one that keeps its state in slots."""
    written = sorted(state.written)
    slots = (VALUE,) * len(written) + (GRADIENT,) * (len(state.left) + len(state.cleared))
    nothing = (None,) * len(state.cleared)
    returned = outputs - len(state.left)

    def run(*given: Any) -> Any:
        owners = (*(state.cells[n] for n in written), *state.left, *state.cleared)
        values = list(map(_value_of, state.cells))  # one call of C: no other step ends in between
        for number in written:
            values[number] = values[number].copy()
        results = launch(*given[: state.first], *values, *given[state.first :])
        if results.__class__ is int:
            return results
        found: tuple[Any, ...] = results if outputs > 1 else () if results is None else (results,)
        shown = None if not returned else found[0] if returned == 1 else found[:returned]
        changes = Changes(owners, slots, (*(values[n] for n in written), *found[returned:], *nothing))
        if state.apart:
            return shown, changes
        changes.commit()
        return shown

    return run


__all__ = ["GRADIENT", "LAYOUT", "VALUE", "Changes", "State", "redirect", "with_state"]
