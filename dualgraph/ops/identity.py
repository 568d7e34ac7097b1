"""The value that a tensor has now: what a view that changes nothing gives.

With a gradient it is a result like any other (PyTorch's `w[:]`), without one a tensor of its own; no copy is made. That goes for
leaves and computed tensors alike: what is computed outside is a leaf inside of a graph, and gradients must add up alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.kernels.program import Program, View
from dualgraph.ops.registry import register
from dualgraph.spec import Spec

if TYPE_CHECKING:
    from dualgraph.core.tensor import Tensor


def _spec(x: Any) -> Spec:
    return Spec(x.shape, x.dtype)


def _lower(
    program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
) -> tuple[View, ...]:
    return (as_view(program, operands[0]),)


IDENTITY = register(Op("identity", _spec, _lower, (lambda g, out, x: g,), view=lambda view, out: view))


def identity(x: Any) -> Tensor:
    """The value of x now, under its gradient if gradients are recorded."""
    front = current()
    x = front.lift(x)
    if not (x.tracked and front.grad_enabled):
        return front.detach(x)
    return bind(IDENTITY, x)
