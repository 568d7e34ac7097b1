"""The order in which kernel steps run: a topological order of their DAG that needs little memory.

Greedy: of the steps that are ready the one that sets free the most bytes, after what it allocates, runs next; ties by
serial number. (The best order is NP-hard to find: Sethi 1975, "Complete register allocation problems".) Where that is no
better than program order, which a greedy choice does not rule out, program order stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from dualgraph.kernels.memory import items, most_alive
from dualgraph.kernels.program import Step, reads, writes
from dualgraph.static.dag import in_order
from dualgraph.static.kernel_dag import program_of

if TYPE_CHECKING:
    import networkx


class Schedule(NamedTuple):
    """An order, and the most bytes of scratch memory alive at one step in it and in program order."""

    steps: list[Step]
    peak: int
    program_peak: int


def scheduled(dag: networkx.MultiDiGraph[Step]) -> Schedule:
    """The order in which the steps of a DAG run."""
    steps = in_order(dag)
    peak = _peak(dag, steps)
    greedy = _greedy(dag)
    least = peak if greedy == steps else _peak(dag, greedy)
    return Schedule(greedy, least, peak) if least < peak else Schedule(steps, peak, peak)


def _peak(dag: networkx.MultiDiGraph[Step], steps: Sequence[Step]) -> int:
    return most_alive(items(program_of(dag, steps)))


def _greedy(dag: networkx.MultiDiGraph[Step]) -> list[Step]:
    program = dag.graph["program"]
    elsewhere = {*program.inputs, *program.outputs, *program.constants}
    touched = {step: (reads(step) | writes(step)) - elsewhere for step in dag}
    waiting: dict[int, set[Step]] = {}  # buffer -> steps that have still to touch it
    for step, buffers in touched.items():
        for buffer in buffers:
            waiting.setdefault(buffer, set()).add(step)
    alive: set[int] = set()
    missing = dict(dag.in_degree())

    def growth(step: Step) -> int:
        """The bytes that are allocated for a step, less those that are free after it."""
        total = 0
        for buffer in touched[step]:
            born, dies = buffer not in alive, len(waiting[buffer]) == 1
            total += (born - dies) * program.buffers[buffer].nbytes
        return total

    ready = {step: growth(step) for step, n in missing.items() if not n}
    heap = [(bytes_, step.serial, n, step) for n, (step, bytes_) in enumerate(ready.items())]
    heapify(heap)
    count, order = len(heap), list[Step]()

    def push(step: Step) -> None:
        nonlocal count
        ready[step] = growth(step)
        heappush(heap, (ready[step], step.serial, count, step))
        count += 1

    while heap:
        bytes_, _, _, step = heappop(heap)
        if ready.get(step) != bytes_:
            continue  # it ran, or stands again in the heap with another growth
        del ready[step]
        order.append(step)
        changed = set[Step]()
        for buffer in touched[step]:
            waiting[buffer].discard(step)
            if buffer not in alive or len(waiting[buffer]) == 1:
                changed |= waiting[buffer]
            alive.add(buffer)
        for other in changed & ready.keys():
            push(other)
        for later, edges in dag.succ[step].items():
            missing[later] -= len(edges)
            if not missing[later]:
                push(later)
    return order


__all__ = ["Schedule", "scheduled"]
