"""Operations as mypy sees them."""

from typing import assert_type

import numpy as np

import dualgraph as dg
from dualgraph.nn import functional as F

x = dg.tensor([[1.0, 2.0]])

assert_type(dg.sum(x), dg.Tensor)
assert_type(dg.sum([[1, 2], [3, 4]], axis=0, dtype=dg.float32, keepdims=True), dg.Tensor)
assert_type(dg.exp(np.ones(2)), dg.Tensor)
assert_type(dg.add(x, 1), dg.Tensor)
assert_type(dg.where(x > 0, x, 0.0), dg.Tensor)
assert_type(dg.matmul(x, x), dg.Tensor)
assert_type(dg.take(x, [0, 1], axis=1), dg.Tensor)
assert_type(dg.concat([x, x], axis=1), dg.Tensor)
assert_type(dg.split(x, 2), list[dg.Tensor])
assert_type(dg.zeros((2, 3), dtype=np.float64), dg.Tensor)
assert_type(dg.arange(3), dg.Tensor)
assert_type(dg.randn(3), dg.Tensor)
assert_type(dg.argmax(x, axis=1), dg.Tensor)
assert_type(dg.sort(x, axis=0, descending=True, stable=False), dg.Tensor)
assert_type(F.relu(x), dg.Tensor)
assert_type(F.linear(x, x), dg.Tensor)
assert_type(F.dropout(x, 0.1), dg.Tensor)
assert_type(F.cross_entropy(x, [1], reduction="sum"), dg.Tensor)
F.mse_loss(x, x, reduction="average")  # type: ignore[arg-type]
dg.exp(None)  # type: ignore[arg-type]
dg.sum(x, axis="rows")  # type: ignore[arg-type]
