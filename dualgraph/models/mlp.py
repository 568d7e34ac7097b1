"""The classifier of handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import dualgraph as dg
from dualgraph import nn
from dualgraph.nn import functional as F


class MLP(nn.Module):
    """Linear layers with tanh between them; the last gives the class scores.

    >>> import dualgraph as dg
    >>> MLP()(dg.zeros((5, 64))).shape
    (5, 10)
    """

    def __init__(self, sizes: Sequence[int] = (64, 128, 128, 10), *, dtype: str = "float32"):
        super().__init__()
        *hidden, last = [nn.Linear(n, m, dtype=dtype) for n, m in pairwise(sizes)]
        self.hidden, self.out = nn.ModuleList(hidden), last

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        for layer in self.hidden:
            x = F.tanh(layer(x))
        return self.out(x)
