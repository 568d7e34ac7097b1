"""Losses as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgraph.nn import functional as F
from dualgraph.nn.module import Module
from dualgraph.ops.losses import checked_reduction

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Reduction, Tensor


class _Loss(Module):
    reduction: Reduction

    def __init__(self, reduction: Reduction = "mean"):
        super().__init__()
        self.reduction = checked_reduction(type(self).__name__, reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """-log softmax(input)[target] of each row, averaged, summed or as it is ("mean", "sum", "none").

    >>> import dualgraph as dg
    >>> loss = CrossEntropyLoss()
    >>> round(loss(dg.tensor([[0.0, 0.0]]), dg.tensor([1])).item(), 6)
    0.693147
    """

    def forward(self, input: ArrayLike, target: ArrayLike) -> Tensor:
        return F.cross_entropy(input, target, self.reduction)


class NLLLoss(_Loss):
    """-input[row, target[row]] of rows of log-probabilities."""

    def forward(self, input: ArrayLike, target: ArrayLike) -> Tensor:
        return F.nll_loss(input, target, self.reduction)


class MSELoss(_Loss):
    """(input - target)**2, averaged, summed or as it is; shapes must be equal."""

    def forward(self, input: ArrayLike, target: ArrayLike) -> Tensor:
        return F.mse_loss(input, target, self.reduction)
