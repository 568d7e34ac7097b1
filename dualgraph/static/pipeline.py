"""The way from a graph to a program: graph passes, lowering, program passes, memory plan.

define → differentiate → *optimise → lower → fuse → plan memory* → generate → run
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualgraph.kernels import memory
from dualgraph.kernels.fusion import Decision
from dualgraph.kernels.program import Program
from dualgraph.ops.op import Call
from dualgraph.ops.symbol import Symbol
from dualgraph.static.dataflow import Dataflow
from dualgraph.static.graph import Graph, Variable
from dualgraph.static.lowering import lower
from dualgraph.static.passes import Pass


@dataclass
class PassReport:
    """What one pass did."""

    name: str
    numerics: str
    reason: str
    before: int  # calls, or steps of the program
    after: int
    seconds: float
    notes: list[str] = field(default_factory=list)


class Compilation:
    """A graph on its way to a program, with every stage kept for inspection.

    The program's inputs are `leaves`: the fed placeholders, then `variables` (those that matter), then the gradients read
    from `.grad` of `read_gradients`. Its outputs are the `results`; `written` variables are updated in place.
    """

    def __init__(self, graph: Graph, results: Sequence[Symbol], passes: Sequence[Pass]):
        start = time.perf_counter()
        self.graph, self.passes = graph, list[PassReport]()
        updates = [(v, v.value) for v in graph.variables.values() if v.updated]
        self.results = len(results)
        self.defined = Dataflow(tuple(graph.calls), (*results, *(symbol for _, symbol in updates)))
        self._names = {call.serial: call.name for call in self.defined.calls}
        self.stages: list[tuple[str, Dataflow]] = [("defined", self.defined)]
        for p in passes:
            if p.stage == "graph":
                self.stages.append((p.name, self._run(p, self.stages[-1][1], lambda flow: len(flow.calls))))
        self.flow = self.stages[-1][1]

        used = {id(x.node) for call in self.flow.calls for x in call.inputs} | {id(x.node) for x in self.flow.results}
        self.feeds = len(graph.placeholders)
        self.variables: list[Variable] = [v for v in graph.variables.values() if v.updated or id(v.node) in used]
        self.read_gradients: list[Variable] = [
            v for v in graph.with_gradients if v.gradient is not None and id(v.gradient.node) in used
        ]
        self.leaves: list[Call] = [
            *(p.node for p in graph.placeholders),
            *(v.node for v in self.variables),
            *(v.gradient.node for v in self.read_gradients if v.gradient is not None),
        ]
        new_values = self.flow.results[self.results :]
        lowered = lower(
            self.flow, self.leaves, self.results, [(v.node, x) for (v, _), x in zip(updates, new_values, strict=True)]
        )
        self.written: list[Variable] = [
            v for number, v in enumerate(self.variables, self.feeds) if number in lowered.written
        ]
        self.program: Program = lowered.program
        for p in passes:
            if p.stage == "program":
                self.program = self._run(p, self.program, lambda program: len(program.steps))
        self.arena = memory.plan(self.program)
        self.seconds = time.perf_counter() - start

    def _run(self, p: Pass, subject: Any, size: Callable[[Any], int]) -> Any:
        start = time.perf_counter()
        result, notes = p.run(subject)
        seconds = time.perf_counter() - start
        notes = [self._said(note) if isinstance(note, Decision) else note for note in notes]
        self.passes.append(PassReport(p.name, p.numerics, p.reason, size(subject), size(result), seconds, notes))
        return result

    def _said(self, decision: Decision) -> str:
        """A decision of fusion in the names of calls."""
        verb = "fused" if decision.kind == "fused" else "not fused"
        producer, consumer = (
            ", ".join(self._names.get(serial, "?") for serial in origins[:3]) or "an update"
            for origins in (decision.producer_origins, decision.consumer_origins)
        )
        return f"{verb}: {producer} into {consumer}: {decision.reason}"

    @property
    def every_leaf(self) -> list[Call]:
        """All inputs and variables and the gradients used, also those that no stage but the first needs."""
        variables = self.graph.variables.values()
        used = {id(x.node) for call in self.defined.calls for x in call.inputs} | {
            id(x.node) for x in self.defined.results
        }
        records = self.graph.with_gradients
        gradients = [v.gradient.node for v in records if v.gradient is not None and id(v.gradient.node) in used]
        return [*(p.node for p in self.graph.placeholders), *(v.node for v in variables), *gradients]

    @property
    def exact(self) -> bool:
        """Whether only passes ran that keep every bit."""
        return all(p.numerics == "exact" for p in self.passes)

    def call_of(self, serial: int) -> Call | None:
        """The call as the user defined it, by serial number."""
        return next((call for call in self.defined.calls if call.serial == serial), None)
