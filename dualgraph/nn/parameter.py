"""The variable that a model learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgraph.core.value import Variable

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike


class Parameter(Variable):
    """A float variable that gradients are computed for; as an attribute of a `Module` it is found by `parameters()`.

    `assign(new)` replaces the value. It is one object in both modes: what one changes, the other sees.

    >>> w = Parameter([0.5, 1.0])
    >>> (w * w).sum().backward()
    >>> w.grad.tolist()
    [1.0, 2.0]
    """

    __slots__ = ()

    def __init__(self, value: ArrayLike, requires_grad: bool = True, name: str = ""):
        super().__init__(value, requires_grad, name)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"
