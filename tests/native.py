"""Running one step as a native kernel on NumPy arrays, beside the reference: what tests of kernels share."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.kernels import expr as E
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.llvm import codegen, engine
from dualgraph.kernels.llvm.loops.selection import loop_command
from dualgraph.kernels.llvm.selection import command
from dualgraph.kernels.program import Step, View, row_shape, row_view
from dualgraph.kernels.reference.steps import RUN

Array = np.ndarray[Any, Any]
KERNEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
FORMS: tuple[dict[str, Any], ...] = ({}, {"orientation": "rows"}, {"orientation": "columns"}, {"width": 32})
Kind = TypeVar("Kind", bound=type[Any])


def emitted(kind: Kind) -> Kind:
    """A variant of the tests' own, which emits itself."""
    codegen.EMIT[kind] = kind.emit
    return kind


def loop(results: Sequence[E.Expr], dtypes: Sequence[str], rows: Sequence[bool] | None = None) -> Loop:
    code, numbers = E.linearise(results)
    return Loop(code, numbers, tuple(dtypes), tuple(rows or [False] * len(dtypes)))


def view(buffer: int, array: Array) -> View:
    """A view of a whole NumPy array, which must start at the buffer's first element or lie behind it."""
    strides = tuple(s // array.itemsize for s in array.strides)
    return View(buffer, array.shape, strides, 0, array.dtype.name)


def run(step: Step, arrays: Sequence[Array], cuts: Sequence[int] = (), **form: Any) -> int:
    """Run the step's native kernel, its units cut as told."""
    where = [array.__array_interface__["data"][0] for array in arrays]
    locate = lambda buffer: (buffer, 0)  # noqa: E731
    bound = loop_command(step, locate, **form) if isinstance(step.kernel, Loop) else command(step, locate)
    kernel = KERNEL(engine.addresses([bound.variant])[0])
    slots, args = np.array([*where, 0], np.int64), np.array([*bound.args, 0], np.int64)
    edges = [0, *sorted(min(cut, bound.units) for cut in cuts), bound.units]
    failed = [kernel(slots.ctypes.data, args.ctypes.data, begin, end) for begin, end in itertools.pairwise(edges)]
    return max(failed)


def assert_same(x: Array, y: Array, note: object = "") -> None:
    """Equal bits; a NaN equals any NaN."""
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    equal = x.view(f"u{x.itemsize}") == y.view(f"u{y.itemsize}")
    if x.dtype.kind == "f":
        equal |= np.isnan(x) & np.isnan(y)
    assert equal.all(), (note, x[~equal][:5], y[~equal][:5])


def compare(step: Step, arrays: Sequence[Array], first_output: int, note: object = "", **form: Any) -> list[Array]:
    """Native against reference, both on the arrays themselves; returns copies of the results."""
    outs = arrays[first_output:]
    with np.errstate(all="ignore"):
        RUN[Loop](step.kernel, step, dict(enumerate(arrays)))
    expected = [out.copy() for out in outs]
    for out in outs:
        out[...] = 77
    assert run(step, arrays, **form) == 0
    for out, value in zip(outs, expected, strict=True):
        assert_same(out, value, note)
    return [out.copy() for out in outs]


def sample(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    x = rng.standard_normal(shape) * 50
    return np.asarray(x > 0 if dtype == "bool" else x).astype(NUMPY_DTYPES[dtype])


def fold_step(
    kernel: Loop,
    arrays: Sequence[Array],
    outs: Sequence[Array],
    axes: tuple[int, ...],
    domain: tuple[int, ...] | None = None,
) -> Step:
    """Views of inputs and outputs over the domain, by default the shape of the first input. Arrays with folded axes of
    length 1 are rows."""
    domain = arrays[0].shape if domain is None else domain
    whole = []
    for number, array in enumerate((*arrays, *outs)):
        own = view(number, array)
        row = own.shape == row_shape(domain, axes)
        whole.append(row_view(own, domain, axes) if row else own.broadcast_to(domain))
    return Step(kernel, tuple(whole[len(arrays) :]), tuple(whole[: len(arrays)]), domain, axes)


def layouts(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> dict[str, Array]:
    """The same shape in all kinds of memory order."""
    order = tuple(reversed(range(len(shape))))
    doubled = tuple(2 * n for n in shape)
    steps = (slice(None, None, 2),) * len(shape)
    back = (slice(None, None, -1),) * len(shape)
    found = {
        "contiguous": sample(rng, shape, dtype),
        "transposed": sample(rng, shape[::-1], dtype).transpose(order),
        "every second": sample(rng, doubled, dtype)[steps],
        "backwards": sample(rng, shape, dtype)[back],
        "scalar": np.broadcast_to(sample(rng, (), dtype), shape),
    }
    if shape:
        found["row"] = np.broadcast_to(sample(rng, shape[-1:], dtype), shape)
        found["column"] = np.broadcast_to(sample(rng, (*shape[:-1], 1), dtype), shape)
    return {name: np.asarray(x) for name, x in found.items()}  # indexing makes scalars of arrays without axes
