"""`RUN`: every kernel kind, run on views of memory. Operands are read whole before a result is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.dtypes import NUMPY_DTYPES
from dualgraph.kernels import expr
from dualgraph.kernels.expr import Instr
from dualgraph.kernels.kinds import (
    CheckIndex,
    External,
    Gather,
    GatherAlong,
    Loop,
    MatMul,
    ScatterAdd,
    ScatterAddAlong,
    Sort,
)
from dualgraph.kernels.nan import computes, one_nan
from dualgraph.kernels.program import Step, View, row_shape
from dualgraph.kernels.reference.folds import fold
from dualgraph.kernels.reference.scalars import NUMPY, Array, cast
from dualgraph.spec import ITEMSIZE, Shape

Memory = dict[int, Array]


class _Window:
    """Memory at an address as NumPy's array interface; keeps the owner of the memory alive."""

    def __init__(self, owner: Array, interface: dict[str, Any]):
        self.owner, self.__array_interface__ = owner, interface


def window(array: Array, view: View) -> Array:
    """The view on the memory that starts at the array's first element, whatever the array's own strides are."""
    size = ITEMSIZE[view.dtype]
    interface = {
        "version": 3,
        "typestr": NUMPY_DTYPES[view.dtype].str,
        "data": (array.__array_interface__["data"][0] + view.offset * size, False),
        "shape": view.shape,
        "strides": tuple(stride * size for stride in view.strides),
    }
    return np.asarray(_Window(array, interface)).view(NUMPY_DTYPES[view.dtype])  # whose name alone not all dtypes tell


def _read(memory: Memory, view: View) -> Array:
    """A row-major copy: bits of NumPy's functions may depend on strides, and a step may overwrite what it reads."""
    return np.array(window(memory[view.buffer], view), order="C", copy=True)


def _write(memory: Memory, view: View, value: Any) -> None:
    window(memory[view.buffer], view)[...] = value


def _rows_only(view: View, domain: Shape, fold_axes: tuple[int, ...]) -> View:
    """The inverse of `program.row_view`: folded axes get length 1 again."""
    return view.with_layout(row_shape(domain, fold_axes), view.strides)


def _run_loop(kernel: Loop, step: Step, memory: Memory) -> bool:
    domain, axes = step.domain, step.fold_axes
    operands = [
        _read(memory, _rows_only(view, domain, axes) if row else view)
        for view, row in zip(step.ins, kernel.row_inputs, strict=True)
    ]
    values: list[Array] = []
    for instr in kernel.code:
        args = [values[a] for a in instr.args]
        value = np.asarray(_evaluate(instr, args, operands, domain, axes))
        assert value.dtype == NUMPY_DTYPES[instr.dtype], f"{instr}: the interpreter made {value.dtype}"
        values.append(one_nan(value) if computes(instr) else value)
    is_row = kernel.is_row()
    for view, result in zip(step.outs, kernel.results, strict=True):
        target = _rows_only(view, domain, axes) if is_row[result] else view
        _write(memory, target, values[result])
    return True


def _evaluate(instr: Instr, args: list[Array], operands: list[Array], domain: Shape, axes: tuple[int, ...]) -> Any:
    """One instruction over the whole domain; values that do not vary along an axis may have length 1 there."""
    if instr.op == expr.INPUT:
        return operands[instr.attr]
    if instr.op == expr.LITERAL:
        return expr.literal_array(instr.attr, instr.dtype).reshape((1,) * len(domain))
    if instr.op == expr.INDEX:
        return np.arange(math.prod(domain), dtype=np.int64).reshape(domain)
    if instr.op == expr.POSITION:
        along = tuple(n if axis in axes else 1 for axis, n in enumerate(domain))
        return np.arange(math.prod(along), dtype=np.int64).reshape(along)
    if instr.op == expr.FOLD:
        return _fold_axes(instr.attr, np.broadcast_to(args[0], domain), axes)
    if instr.op == "cast":
        return cast(args[0], instr.dtype)
    return NUMPY[instr.op](*(np.asarray(x, order="C") for x in np.broadcast_arrays(*args)))


def _fold_axes(monoid: str, x: Array, axes: tuple[int, ...]) -> Array:
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    extent = math.prod(x.shape[axis] for axis in axes)
    folded_first = x.transpose(*sorted(axes), *kept).reshape(extent, *(x.shape[axis] for axis in kept))
    return fold(monoid, folded_first).reshape(row_shape(x.shape, axes))


def _run_matmul(kernel: MatMul, step: Step, memory: Memory) -> bool:
    """Row-major copies of both factors: one BLAS call per shape, whatever the layout was."""
    x, y = (_read(memory, factor) for factor in kernel.factors(step.ins))
    _write(memory, step.outs[0], one_nan(np.matmul(x, y)))
    return True


def _valid(index: Array, low: int, high: int) -> bool:
    return bool(np.all((index >= low) & (index < high)))


def _run_gather(kernel: Gather, step: Step, memory: Memory) -> bool:
    x, index = (_read(memory, view) for view in step.ins)
    if not _valid(index, -x.shape[1], x.shape[1]):
        return False
    _write(memory, step.outs[0], x[:, index, :])
    return True


def _run_scatter_add(kernel: ScatterAdd, step: Step, memory: Memory) -> bool:
    g, index = (_read(memory, view) for view in step.ins)
    out = np.zeros(step.outs[0].shape, g.dtype)
    if not _valid(index, -out.shape[1], out.shape[1]):
        return False
    for i, target in enumerate(index):
        out[:, target, :] += g[:, i, :]
    _write(memory, step.outs[0], one_nan(out))
    return True


def _run_gather_along(kernel: GatherAlong, step: Step, memory: Memory) -> bool:
    x, index = (_read(memory, view) for view in step.ins)
    if not _valid(index, -x.shape[1], x.shape[1]):
        return False
    _write(memory, step.outs[0], np.take_along_axis(x, index, axis=1))
    return True


def _run_scatter_add_along(kernel: ScatterAddAlong, step: Step, memory: Memory) -> bool:
    g, index = (_read(memory, view) for view in step.ins)
    out = np.zeros(step.outs[0].shape, g.dtype)
    if not _valid(index, -out.shape[1], out.shape[1]):
        return False
    a, b = np.ogrid[: g.shape[0], : g.shape[2]]
    for i in range(g.shape[1]):
        out[a, index[:, i, :], b] += g[:, i, :]
    _write(memory, step.outs[0], one_nan(out))
    return True


def _run_sort(kernel: Sort, step: Step, memory: Memory) -> bool:
    x = _read(memory, step.ins[0])
    if kernel.descending:
        rank = np.unique(x, return_inverse=True)[1].reshape(x.shape)
        x = np.where(x == x, -rank, 1)
    _write(memory, step.outs[0], np.argsort(x, axis=1, kind="stable"))
    return True


def _run_check_index(kernel: CheckIndex, step: Step, memory: Memory) -> bool:
    return _valid(_read(memory, step.ins[0]), kernel.low, kernel.high)


def _run_external(kernel: External, step: Step, memory: Memory) -> bool:
    results = kernel.function(*(_read(memory, view) for view in step.ins), **dict(kernel.params))
    for view, value in zip(step.outs, results, strict=True):
        if value.shape != view.shape or value.dtype != NUMPY_DTYPES[view.dtype]:
            raise TypeError(
                f"external kernel {kernel.name} returned {value.dtype}{list(value.shape)} where {view.spec} was "
                "declared; correct the function or the spec rule of its op"
            )
        _write(memory, view, value)
    return True


# Each runs one step and says whether its checks held.
RUN: dict[type, Callable[[Any, Step, Memory], bool]] = {
    Loop: _run_loop,
    MatMul: _run_matmul,
    Gather: _run_gather,
    ScatterAdd: _run_scatter_add,
    GatherAlong: _run_gather_along,
    ScatterAddAlong: _run_scatter_add_along,
    Sort: _run_sort,
    CheckIndex: _run_check_index,
    External: _run_external,
}
