"""The DAG of kernel steps: a `networkx.MultiDiGraph` of which every topological order is right.

Nodes are the steps of a program, `dag.graph["program"]` is that program without them: its buffers, inputs, outputs and
constants. Edges say which step runs after which, and why:

    value     from the step that writes a buffer to one that reads it; key and attribute `buffer` are the buffer's number
    effect    what else must not change places (key "effect"): writing where another step has still to read, or has written,
              and checks, in program order and before the updates of variables
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualgraph.kernels.fusion import Decision, Dependences, dependences, merge
from dualgraph.kernels.program import Program, Step, replace
from dualgraph.static.dag import EFFECT, in_order

if TYPE_CHECKING:
    import networkx


def of(program: Program) -> networkx.MultiDiGraph[Step]:
    """The DAG of the steps of a program."""
    dag = _empty(program)
    steps = program.steps
    dag.add_nodes_from(steps)
    for step, before, producers in zip(steps, *dependences(program), strict=True):
        for earlier, buffers in producers.items():
            for buffer in buffers:
                dag.add_edge(steps[earlier], step, buffer, buffer=buffer)
        for earlier in before - producers.keys():
            dag.add_edge(steps[earlier], step, EFFECT, effect="order")
    return dag


def _empty(program: Program) -> networkx.MultiDiGraph[Step]:
    import networkx

    return networkx.MultiDiGraph(program=replace(program, steps=[]))


def program_of(dag: networkx.MultiDiGraph[Step], steps: Sequence[Step] | None = None) -> Program:
    """The program that runs the steps in this order; in program order where none is given."""
    return replace(dag.graph["program"], steps=in_order(dag) if steps is None else list(steps))


def fused(dag: networkx.MultiDiGraph[Step]) -> tuple[networkx.MultiDiGraph[Step], list[Decision]]:
    """Steps that can be one loop are contracted into one."""
    program = program_of(dag)
    merged, decisions = merge(program, _needs(dag, program.steps))
    if len(merged) == len(program.steps):
        return dag, decisions
    owner = {program.steps[number]: m.step for m in merged for number in m.numbers}
    found = _empty(program)
    found.add_nodes_from(m.step for m in merged)
    for earlier, later, key, attributes in dag.edges(keys=True, data=True):
        a, b = owner[earlier], owner[later]
        if a is not b:
            found.add_edge(a, b, key, **attributes)
    return found, decisions


def _needs(dag: networkx.MultiDiGraph[Step], steps: Sequence[Step]) -> Dependences:
    numbers = {step: number for number, step in enumerate(steps)}
    edges = [{numbers[earlier]: tuple(keys) for earlier, keys in dag.pred[step].items()} for step in steps]
    producers = [{n: [k for k in keys if k != EFFECT] for n, keys in before.items()} for before in edges]
    return Dependences([set(before) for before in edges], [{n: b for n, b in p.items() if b} for p in producers])


__all__ = ["fused", "of", "program_of"]
