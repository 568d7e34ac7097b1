"""The explicit tape: the list of calls recorded while it is active.

>>> import dualgraph as dg
>>> x = dg.tensor(2.0, requires_grad=True)
>>> with dg.eager.Tape() as tape:
...     y = x * x + x
>>> [call.op.name for call in tape.calls]
['multiply', 'add']
>>> [g.item() for g in tape.gradient(y, [x])]
[5.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dualgraph import autodiff
from dualgraph.core.mode import Chosen, current
from dualgraph.core.op import Call
from dualgraph.eager.frontend import Eager
from dualgraph.errors import GraphError, here

if TYPE_CHECKING:
    from dualgraph.core.types import Tensor


class Tape:
    """Records the calls made inside its `with` block, in program order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._contexts: list[Any] = []

    def __enter__(self) -> Tape:
        front = current()
        if not isinstance(front, Eager):
            raise GraphError(
                "Tape: a static graph is being defined; its calls are in graph.calls; use the tape outside"
            ).at(here(2))
        listening = Eager(front.grad_enabled, (*front.tapes, self))
        context = Chosen(listening)
        context.enter()
        self._contexts.append((context, listening))
        return self

    def __exit__(self, *exc: object) -> None:
        context, front = self._contexts.pop()
        context.leave()
        front.forget()

    def gradient(self, output: Tensor, inputs: Sequence[Tensor], retain_graph: bool = False) -> list[Tensor]:
        """The gradients of a scalar with respect to `inputs`; see `dualgraph.grad`."""
        return autodiff.grad(output, inputs, retain_graph=retain_graph)
