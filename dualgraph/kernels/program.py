"""Programs: kernels applied to views of buffers, in order. What both modes hand to the machine.

An eager op is a program of one or a few steps; a static step is a program of many. Buffers are named by number; a
program's inputs and outputs are buffers whose memory comes with the call, the others are constants or scratch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dualgraph.errors import Where
from dualgraph.kernels.kinds import Kernel
from dualgraph.spec import ITEMSIZE, Shape, Spec, contiguous_strides


@dataclass(frozen=True, slots=True)
class View:
    """A strided window on a buffer. `offset` and `strides` count elements; a stride of 0 broadcasts."""

    buffer: int
    shape: Shape
    strides: Shape
    offset: int
    dtype: str

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)

    @property
    def contiguous(self) -> bool:
        return all(
            n == 1 or s == c for n, s, c in zip(self.shape, self.strides, contiguous_strides(self.shape), strict=True)
        )

    @property
    def row_major(self) -> bool:
        """Is each matrix of the last two axes contiguous?"""
        rows, columns = self.shape[-2:]
        down, across = self.strides[-2:]
        return 0 in self.shape or ((columns == 1 or across == 1) and (rows == 1 or down == columns))

    @property
    def transposed(self) -> View:
        """The last two axes exchanged."""
        (*batch, m, n), (*strides, down, across) = self.shape, self.strides
        return self.with_layout((*batch, n, m), (*strides, across, down))

    def with_layout(self, shape: Shape, strides: Shape, offset: int | None = None) -> View:
        return View(self.buffer, shape, strides, self.offset if offset is None else offset, self.dtype)

    def broadcast_to(self, shape: Shape) -> View:
        """The same elements read over a larger domain: stride 0 along new axes and axes of length 1."""
        missing = len(shape) - len(self.shape)
        strides = (0,) * missing + tuple(
            0 if have == 1 and want != 1 else stride
            for have, want, stride in zip(self.shape, shape[missing:], self.strides, strict=True)
        )
        return self.with_layout(shape, strides)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One kernel application. For a `Loop`, every view has the rank of `domain`; see `loop_step`."""

    kernel: Kernel
    outs: tuple[View, ...]
    ins: tuple[View, ...]
    domain: Shape = ()
    fold_axes: tuple[int, ...] = ()
    origins: tuple[int, ...] = ()  # serial numbers of the calls this step computes
    serial: int = 0  # its place in the program that was lowered; of a fused step that of its first


@dataclass
class Program:
    """Steps over buffers. Buffers 0 … are numbered in the order in which they were made."""

    buffers: list[Spec] = field(default_factory=list)  # extent of each buffer (contiguous)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)  # fresh results of a call
    constants: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    origin: tuple[int, ...] = ()  # given to the steps made from here on
    where: Where | None = None  # the user's line of the call that is lowered; None in eager mode: the line that runs

    def new(self, spec: Spec) -> View:
        """A new scratch buffer, seen whole."""
        self.buffers.append(spec)
        return View(len(self.buffers) - 1, spec.shape, contiguous_strides(spec.shape), 0, spec.dtype)

    def input(self, spec: Spec) -> View:
        view = self.new(spec)
        self.inputs.append(view.buffer)
        return view

    def constant(self, array: np.ndarray[Any, Any]) -> View:
        from_array = Spec(array.shape, array.dtype.name)
        view = self.new(from_array)
        self.constants[view.buffer] = np.ascontiguousarray(array).reshape(array.shape)
        return view

    def add(
        self,
        kernel: Kernel,
        outs: Sequence[View],
        ins: Sequence[View],
        domain: Shape = (),
        fold_axes: tuple[int, ...] = (),
    ) -> None:
        self.steps.append(Step(kernel, tuple(outs), tuple(ins), domain, fold_axes, self.origin, len(self.steps)))


def reads(step: Step) -> set[int]:
    return {view.buffer for view in step.ins}


def writes(step: Step) -> set[int]:
    return {view.buffer for view in step.outs}


def row_shape(domain: Shape, fold_axes: tuple[int, ...]) -> Shape:
    """The domain with folded axes of length 1: the shape of row results."""
    return tuple(1 if axis in fold_axes else n for axis, n in enumerate(domain))


def row_view(view: View, domain: Shape, fold_axes: tuple[int, ...]) -> View:
    """A row operand or result (folded axes of length 1) as a view over the whole domain, stride 0 along them."""
    strides = tuple(0 if axis in fold_axes else s for axis, s in enumerate(view.strides))
    return view.with_layout(domain, strides)


def nbytes(view: View) -> int:
    return math.prod(view.shape) * ITEMSIZE[view.dtype]


__all__ = ["Program", "Step", "View", "nbytes", "reads", "replace", "row_shape", "row_view", "writes"]
