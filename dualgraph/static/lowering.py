"""From calls to kernel steps: one program for the whole graph, its updates last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dualgraph.core.op import Call, Operand, as_view
from dualgraph.kernels.program import Program, View
from dualgraph.ops.composite import lower_call
from dualgraph.ops.shape import contiguous_copy, copy_loop
from dualgraph.ops.symbol import Symbol, literal_of
from dualgraph.spec import Spec, contiguous_strides
from dualgraph.static.dag import LEAVES, SINKS


class Lowered(NamedTuple):
    """A program and the leaves whose arrays it takes: placeholders, variables, gradients, in this order."""

    program: Program
    leaves: tuple[Call, ...]
    written: frozenset[int]  # numbers of leaves (variables) that the program writes into
    owners: tuple[Call, ...]  # of each step the call that it computes, but for copies at the end


def lower(
    calls: Sequence[Call],
    leaves: Sequence[Call],
    results: Sequence[Symbol],
    updates: Sequence[tuple[Call, Symbol]] = (),
    transposed: bool = False,
) -> Lowered:
    """`calls` in an order in which they can run; `results` become outputs; each update (variable, symbol) is written last.

    `transposed`: the arrays of the leaves have their axes in the reverse order (no updates then).
    """
    program = Program()
    values: dict[tuple[int, int], Operand] = {}
    for call in leaves:
        values[id(call), 0] = _leaf(program, call.specs[0], transposed)
    fixed = len(leaves)
    owners: list[Call] = []
    for call in calls:
        if call.op in (*LEAVES, *SINKS):
            continue
        literal = literal_of(call)
        if literal is not None:
            values[id(call), 0] = literal
            continue
        program.origin, program.where = (call.serial,), call.where
        operands = tuple(values[id(x.node), x.index] for x in call.inputs)
        for number, view in enumerate(lower_call(program, call.op, operands, call.specs, call.params)):
            values[id(call), number] = view
        owners += [call] * (len(program.steps) - len(owners))
    program.origin, program.where = (), None
    for symbol in results:
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
    return Lowered(program, tuple(leaves), frozenset(written), tuple(owners))


def _leaf(program: Program, spec: Spec, transposed: bool) -> View:
    if not transposed:
        return program.input(spec)
    view = program.input(Spec(spec.shape[::-1], spec.dtype))
    return view.with_layout(spec.shape, view.strides[::-1])


def _whole(program: Program, view: View) -> bool:
    return view.contiguous and view.offset == 0 and view.spec.size == program.buffers[view.buffer].size


def _own_buffer(program: Program, view: View, fixed: int) -> int:
    """The buffer of a result, a fresh one unless it is scratch that no other result has."""
    shared = view.buffer < fixed or view.buffer in program.constants or view.buffer in program.outputs
    if shared or not _whole(program, view):
        view = contiguous_copy(program, view)
    return view.buffer
