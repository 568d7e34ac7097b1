"""What eager mode does in a step: the operations it applies, and the launches of kernels behind them.

Nothing is added to the hot path. Operations are heard by a front end that takes the place of the eager one for a step;
launches by replacing, for a step, everything that is prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dualgraph.compare.arms import Arm
from dualgraph.core.op import Op
from dualgraph.eager import PREPARED, Eager, Prepared
from dualgraph.kernels import provider
from dualgraph.kernels.program import Program

if TYPE_CHECKING:
    from dualgraph.core.types import Params, Tensor

Heard = Callable[[Op, tuple[Any, ...], dict[str, Any], Any], None]


class Listening(Eager):
    """The eager front end, telling `heard` of every operation, those of backward and update one by one."""

    __slots__ = ("heard",)

    def __init__(self, heard: Heard, grad_enabled: bool = True):
        super().__init__(grad_enabled)
        self.heard = heard

    def apply(self, op: Op, inputs: tuple[Any, ...], params: Params) -> Tensor:
        results = super().apply(op, inputs, params)
        self.heard(op, inputs, params, results)
        return results

    def pull(self, *_: Any) -> None:
        """Rules one by one."""

    def update(self, op: Op, inputs: Sequence[Any], variables: Sequence[Any], params: Params) -> None:
        new = self.apply(op, tuple(inputs), params)
        for variable, value in zip(variables, new if isinstance(new, tuple) else (new,), strict=True):
            variable.assign(value)

    def with_grad(self, enabled: bool) -> Eager:
        return self if enabled == self.grad_enabled else Listening(self.heard, enabled)


class Launch(NamedTuple):
    """One call into native code."""

    launch: Callable[..., Any]
    arrays: tuple[Any, ...]
    program: Program


def launches(arm: Arm) -> list[Launch]:
    """The launches of a steady eager step, with the arrays they took. The arm does two steps."""
    with arm.turn():
        arm.step()  # all that it needs is prepared
    found: list[Launch] = []
    of_gradients = (pullback.prepared for prepared in PREPARED.values() for pullback in prepared.pullbacks.values())
    with arm.turn(), _replaced([x for x in (*PREPARED.values(), *of_gradients) if x.launch is not None], found):
        arm.step()
    return found


@contextmanager
def _replaced(prepared: list[Prepared], found: list[Launch]) -> Iterator[None]:
    originals = [x.launch for x in prepared]
    try:
        for x in prepared:
            x.launch = _noting(x, found)
        yield
    finally:
        for x, launch in zip(prepared, originals, strict=True):
            x.launch = launch


def _noting(prepared: Prepared, found: list[Launch]) -> Callable[..., Any]:
    launch = prepared.launch
    assert launch is not None

    def noting(*arrays: Any) -> Any:
        found.append(Launch(launch, arrays, prepared.program))
        return launch(*arrays)

    return noting


def replayed(found: list[Launch]) -> Callable[[int], None]:
    """The launches of a step again and again, without anything around them. Results live to the end of the step."""
    calls = [(x.launch, x.arrays) for x in found]

    def run(steps: int) -> None:
        for _ in range(steps):
            [launch(*arrays) for launch, arrays in calls]

    return run


def program_alone(arm: Arm) -> tuple[Callable[[int], None], Callable[[], None]]:
    """The native program of a static arm on copies of its arrays: run it n times, and put the copies back."""
    executable, kept = arm.executable, []
    launch, inputs = executable._launch, len(executable.feeds.names)

    def noting(*given: Any) -> Any:
        kept.append(executable.state(given[:inputs]))
        return launch(*given)

    executable._launch = noting
    try:
        with arm.turn():
            arm.step()
    finally:
        executable._launch = launch
    program = provider.load(executable.program, executable.compilation.arena).launch
    (first,) = kept
    arrays = [a.copy() for a in first]

    def run(steps: int) -> None:
        for _ in range(steps):
            program(*arrays)

    def restore() -> None:
        for array, value in zip(arrays, first, strict=True):
            array[...] = value

    return run, restore
