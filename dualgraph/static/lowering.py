"""From calls to kernel steps: one program for the whole graph, its updates last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dualgraph.kernels.kinds import CheckIndex
from dualgraph.kernels.program import Program, View
from dualgraph.ops.composite import lower_call
from dualgraph.ops.linalg import contiguous_copy
from dualgraph.ops.op import Call, Operand, as_view
from dualgraph.ops.shape import copy_loop
from dualgraph.ops.symbol import PLACEHOLDER, Symbol, literal_of
from dualgraph.spec import contiguous_strides
from dualgraph.static.dataflow import Dataflow
from dualgraph.static.graph import GRADIENT, VARIABLE


class Lowered(NamedTuple):
    """A program and the leaves whose arrays it takes: placeholders, variables, gradients, in this order."""

    program: Program
    leaves: tuple[Call, ...]
    written: frozenset[int]  # numbers of leaves (variables) that the program writes into


def lower(flow: Dataflow, leaves: Sequence[Call], results: int, updates: Sequence[tuple[Call, Symbol]]) -> Lowered:
    """`flow.results[:results]` become outputs; each update (variable node, symbol) is written into its variable."""
    program = Program()
    values: dict[tuple[int, int], Operand] = {}
    for call in leaves:
        values[id(call), 0] = program.input(call.specs[0])
    fixed = len(leaves)
    for call in flow.calls:
        if call.op in (PLACEHOLDER, VARIABLE, GRADIENT):
            continue
        literal = literal_of(call)
        if literal is not None:
            values[id(call), 0] = literal
            continue
        program.origin = (call.serial,)
        operands = tuple(values[id(x.node), x.index] for x in call.inputs)
        for number, view in enumerate(lower_call(program, call.op, operands, call.specs, call.params)):
            values[id(call), number] = view
    program.origin = ()
    for symbol in flow.results[:results]:
        view = as_view(program, values[id(symbol.node), symbol.index])
        program.outputs.append(_own_buffer(program, view, fixed))
    numbers = {id(call): number for number, call in enumerate(leaves)}
    targets: list[tuple[int, View]] = []
    for variable, x in updates:
        view = as_view(program, values[id(x.node), x.index])
        if view.buffer != numbers[id(variable)] or not _whole(program, view):
            targets.append((numbers[id(variable)], view))
    written = {number for number, _ in targets}
    sources = [contiguous_copy(program, v) if v.buffer in written else v for _, v in targets]
    for (number, _), source in zip(targets, sources, strict=True):
        target = View(number, source.shape, contiguous_strides(source.shape), 0, source.dtype)
        program.add(copy_loop(source.dtype, source.dtype), (target,), (source,), source.shape)
    _checks_first(program, fixed, written)
    return Lowered(program, tuple(leaves), frozenset(written))


def _whole(program: Program, view: View) -> bool:
    return view.contiguous and view.offset == 0 and view.spec.size == program.buffers[view.buffer].size


def _own_buffer(program: Program, view: View, fixed: int) -> int:
    """The buffer of a result, a fresh one unless it is scratch that no other result has."""
    shared = view.buffer < fixed or view.buffer in program.constants or view.buffer in program.outputs
    if shared or not _whole(program, view):
        view = contiguous_copy(program, view)
    return view.buffer


def _checks_first(program: Program, fixed: int, written: set[int]) -> None:
    """Checks of what comes in run before anything else, so that a failure leaves all state untouched."""

    def early(step: Any) -> bool:
        return isinstance(step.kernel, CheckIndex) and step.ins[0].buffer < fixed and step.ins[0].buffer not in written

    program.steps = [s for s in program.steps if early(s)] + [s for s in program.steps if not early(s)]
