"""One NaN: whatever sign and payload an operation gives, what is stored is the same; plain copies keep their bits."""

from __future__ import annotations

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import static

NAN = {"float32": 0x7FC00000, "float64": 0x7FF8000000000000}


def bits(x) -> set[int]:
    array = np.ascontiguousarray(x.numpy()).reshape(-1)
    return set(array.view(np.uint32 if array.itemsize == 4 else np.uint64).tolist())


def operands(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    inf = np.full((3, 40), np.inf, dtype)
    return inf, np.full((3, 40), -np.nan, dtype)


FUNCTIONS = [
    lambda x, y: x - x,
    lambda x, y: -(x - x),
    lambda x, y: y + (x - x),
    lambda x, y: (x - x) + y,
    lambda x, y: dg.sum(x - x, axis=1),
    lambda x, y: dg.sum(x - x, axis=0),
    lambda x, y: dg.sum(-(x - x) + y),
    lambda x, y: dg.maximum(y, x),
    lambda x, y: dg.max(y * x, axis=0),
    lambda x, y: dg.softmax(x, axis=1),
    lambda x, y: dg.abs(y) * 1.0,
    lambda x, y: dg.sin(x),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_computed_nans_are_one(number, dtype):
    function, (x, y) = FUNCTIONS[number], operands(dtype)
    assert bits(function(dg.tensor(x), dg.tensor(y))) == {NAN[dtype]}
    spec = static.spec(x.shape, dtype)
    for level in ("none", "exact"):
        assert bits(static.compile(function, spec, spec, optimize=level)(x, y)) == {NAN[dtype]}


def test_copies_keep_their_bits():
    payload = np.array([0x7FC12345, 0xFFC00001], np.uint32).view(np.float32)
    x = dg.tensor(payload)
    for copy in (dg.flip(dg.flip(x)), dg.concat([x, x])[:2], x.reshape(2, 1).reshape(2)):
        assert np.ascontiguousarray(copy.numpy()).tobytes() == payload.tobytes()
