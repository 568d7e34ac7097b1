"""The smallest model: a straight line, two operations."""

from __future__ import annotations

import numpy as np

import dualgraph as dg
from dualgraph import nn


class Affine(nn.Module):
    """y = w * x + b, as z = w * x and y = z + b.

    >>> import dualgraph as dg
    >>> round(Affine()(dg.tensor(2.0)).item(), 6)
    0.7
    """

    def __init__(self, w: float = 0.3, b: float = 0.1, *, dtype: str = "float32"):
        super().__init__()
        self.w = nn.Parameter(np.array(w, dtype))
        self.b = nn.Parameter(np.array(b, dtype))

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        z = self.w * x
        return z + self.b
