"""The DAG of kernel steps: a `networkx.MultiDiGraph` of which every topological order is right.

Nodes are the steps of a program, `dag.graph["program"]` is that program without them: its buffers, inputs, outputs and
constants. Edges say which step runs after which, and why:

    value     from the step that writes a buffer to one that reads it; key and attribute `buffer` are the buffer's number
    effect    what else must not change places (key "effect"): writing where another step has still to read, or has written,
              and checks, in program order and before the updates of variables
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dualgraph.errors import GraphError
from dualgraph.kernels.fusion import Decision, Dependences, dependences, merge
from dualgraph.kernels.program import Program, Step, reads, replace, writes
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
    program: Program = dag.graph["program"]
    return replace(program, steps=in_order(dag) if steps is None else list(steps))


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


def check(name: str, dag: Any, before: networkx.MultiDiGraph[Step] | None = None) -> None:
    """Raise if this is no DAG of kernel steps, or if steps could change places that must not. `name`: of what made it."""
    import networkx

    if not isinstance(dag, networkx.MultiDiGraph) or not isinstance(dag.graph.get("program"), Program):
        raise GraphError(
            f"{name}: got {type(dag).__name__}; a kernel pass returns a networkx.MultiDiGraph of steps, with the graph "
            "attribute `program` of the one that it was given"
        )
    for node in dag:
        if not isinstance(node, Step):
            raise GraphError(f"{name}: got a node that is {type(node).__name__}; nodes are kernel steps")
    if not networkx.is_directed_acyclic_graph(dag):
        cycle = " → ".join(str(edge[0].serial) for edge in networkx.find_cycle(dag))
        raise GraphError(f"{name}: the graph has a cycle, steps {cycle}; no step may need its own result")
    program = program_of(dag)
    written = {*program.inputs, *program.constants}
    for step, needed in zip(program.steps, dependences(program).before, strict=True):
        for earlier in sorted(needed):
            if not networkx.has_path(dag, program.steps[earlier], step):
                raise GraphError(
                    f"{name}: step {step.serial} must run after step {program.steps[earlier].serial}, and no edge says so; "
                    "keep the edges between steps that touch one buffer, and between checks"
                )
        missing = sorted(reads(step) - written)
        if missing:
            raise GraphError(f"{name}: step {step.serial} reads buffer {missing[0]}, which no step before it writes")
        written |= writes(step)
    lost = sorted({*program.outputs} - written)
    if lost:
        raise GraphError(f"{name}: no step writes buffer {lost[0]}, which is a result; keep what writes results")


def _needs(dag: networkx.MultiDiGraph[Step], steps: Sequence[Step]) -> Dependences:
    numbers = {step: number for number, step in enumerate(steps)}
    edges = [{numbers[earlier]: tuple(keys) for earlier, keys in dag.pred[step].items()} for step in steps]
    producers = [{n: [k for k in keys if k != EFFECT] for n, keys in before.items()} for before in edges]
    return Dependences([set(before) for before in edges], [{n: b for n, b in p.items() if b} for p in producers])


__all__ = ["check", "fused", "of", "program_of"]
