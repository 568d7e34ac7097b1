"""The cases in NumPy."""

from __future__ import annotations

import operator
from typing import Any

import cases
import numpy as np
from cases import Case, calls


def ops() -> dict[str, Case]:
    x, y, m = cases.small()
    todo = (
        calls(operator.add, x, y),
        calls(operator.mul, x, 0.5),
        calls(np.tanh, x),
        calls(operator.matmul, m, m),
        calls(np.sum, x),
        calls(np.reshape, x, (2, 4)),
    )
    return dict(zip(cases.OPS, todo, strict=True))


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _layer_norm(x: Any) -> Any:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(1, keepdims=True) + np.float32(1e-5))


def kernels() -> dict[str, Case]:
    found = {}
    for size, shape in cases.SIZES.items():
        x, y, rows = cases.matrices(shape)
        todo = (
            calls(np.add, x, y),
            calls(np.exp, x),
            calls(np.tanh, x),
            calls(_gelu, x),
            calls(np.sum, x),
            calls(lambda x: np.sum(x, 0), x),
            calls(_softmax, x),
            calls(_layer_norm, x),
            calls(lambda x, rows: np.take(x, rows, 0), x, rows),
        )
        found.update(zip((f"{kernel}, {size}" for kernel in cases.KERNELS), todo, strict=True))
    for n in cases.PRODUCTS:
        x, y, _ = cases.matrices((n, n))
        found[f"matmul, {n}x{n}"] = calls(np.matmul, x, y)
    return found
