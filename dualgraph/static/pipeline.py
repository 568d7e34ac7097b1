"""The way from a graph to a program: graph passes, lowering, kernel passes, order, memory plan.

define → differentiate → *optimise → lower → fuse → order → plan memory* → generate → run
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dualgraph.core.op import Call
from dualgraph.errors import GraphError, shown
from dualgraph.kernels import memory
from dualgraph.kernels.fusion import Decision
from dualgraph.kernels.program import Program
from dualgraph.ops.symbol import Symbol
from dualgraph.static import dag as dags
from dualgraph.static import kernel_dag
from dualgraph.static.graph import Graph, Link
from dualgraph.static.lowering import lower
from dualgraph.static.passes import Pass
from dualgraph.static.schedule import scheduled

if TYPE_CHECKING:
    import networkx


CHECKS = {"graph": dags.check, "kernel": kernel_dag.check}


@dataclass
class PassReport:
    """What one pass did."""

    name: str
    numerics: str
    reason: str
    before: int  # nodes of the DAG: calls, or kernel steps
    after: int
    seconds: float
    notes: list[str] = field(default_factory=list)
    built_in: bool = True


class Compilation:
    """A graph on its way to a program, with every stage kept for inspection.

    The program's inputs are `leaves`: the fed placeholders, then `variables` (those that matter), then the gradients read
    from `.grad` of `read_gradients`. Its outputs are the `results`; `written` variables are updated in place.
    """

    def __init__(self, graph: Graph, results: Sequence[Symbol], passes: Sequence[Pass]):
        start = time.perf_counter()
        self.graph, self.passes = graph, list[PassReport]()
        self.graph_stages = {"differentiated": dags.frozen(graph.finished(results))}
        self._origins = {call.serial: call for call in self.differentiated}
        for p in passes:
            if p.stage == "graph":
                self.graph_stages[p.name] = self._run(p, self.optimised)

        calls = dags.in_order(self.optimised)
        results, updates = dags.results(self.optimised), dags.updates(self.optimised)
        used = {id(x.node) for call in calls for x in call.inputs}
        self.feeds = len(graph.placeholders)
        self.variables: list[Link] = [v for v in graph.variables.values() if id(v.node) in used]
        self.read_gradients: list[Link] = [
            v for v in graph.with_gradients if v.gradient is not None and id(v.gradient.node) in used
        ]
        self.leaves: list[Call] = [
            *(p.node for p in graph.placeholders),
            *(v.node for v in self.variables),
            *(v.gradient.node for v in self.read_gradients if v.gradient is not None),
        ]
        lowered = lower(calls, self.leaves, results, updates)
        self.results = len(results)
        self.written: list[Link] = [
            v for number, v in enumerate(self.variables, self.feeds) if number in lowered.written
        ]
        self.kernel_stages = {"lowered": dags.frozen(kernel_dag.of(lowered.program))}
        for p in passes:
            if p.stage == "kernel":
                self.kernel_stages[p.name] = self._run(p, self.fused)
        self.schedule = scheduled(self.fused)
        self.program: Program = kernel_dag.program_of(self.fused, self.schedule.steps)
        self.arena = memory.plan(self.program)
        self.seconds = time.perf_counter() - start

    @property
    def differentiated(self) -> networkx.MultiDiGraph[Call]:
        """The calls as they were written down, gradients among them."""
        return self.graph_stages["differentiated"]

    @property
    def optimised(self) -> networkx.MultiDiGraph[Call]:
        """The calls after the graph passes."""
        return next(reversed(self.graph_stages.values()))

    @property
    def fused(self) -> networkx.MultiDiGraph[Any]:
        """The kernel steps after the kernel passes: what runs."""
        return next(reversed(self.kernel_stages.values()))

    @cached_property
    def stages(self) -> dict[str, networkx.MultiDiGraph[Any]]:
        """The DAG of each stage, in the order in which they were made."""
        defined = dags.frozen(dags.without_gradients(self.differentiated))
        return {"defined": defined, **self.graph_stages, **self.kernel_stages, "fused": self.fused}

    def _run(self, p: Pass, dag: Any) -> Any:
        start = time.perf_counter()
        try:
            returned = p.run(dag if p.built_in or p.stage == "graph" else dags.frozen(kernel_dag.lent(dag)))
        except Exception as error:
            error.add_note(f"in the pass {p.name!r}")
            raise
        result, notes = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, [])
        if not p.built_in:
            CHECKS[p.stage](f"pass {p.name}", result, dag)
            if isinstance(notes, str) or not isinstance(notes, Sequence):
                raise GraphError(f"pass {p.name}: got notes that are {shown(notes)}; they are a list of strings")
        seconds = time.perf_counter() - start
        notes = [self._said(note) if isinstance(note, Decision) else str(note) for note in notes]
        report = PassReport(p.name, p.numerics, p.reason, len(dag), len(result), seconds, notes, p.built_in)
        self.passes.append(report)
        return dags.frozen(result)

    def _said(self, decision: Decision) -> str:
        """A decision of fusion in the names of calls."""
        verb = "fused" if decision.kind == "fused" else "not fused"
        producer, consumer = (
            ", ".join(self._origins[s].name if s in self._origins else "?" for s in origins[:3]) or "an update"
            for origins in (decision.producer_origins, decision.consumer_origins)
        )
        return f"{verb}: {producer} into {consumer}: {decision.reason}"

    @property
    def every_leaf(self) -> list[Call]:
        """All inputs and variables and the gradients used, also those that no stage but the first needs."""
        variables = self.graph.variables.values()
        used = {id(x.node) for call in self.differentiated for x in call.inputs}
        records = self.graph.with_gradients
        gradients = [v.gradient.node for v in records if v.gradient is not None and id(v.gradient.node) in used]
        return [*(p.node for p in self.graph.placeholders), *(v.node for v in variables), *gradients]

    @property
    def exact(self) -> bool:
        """Whether only passes ran that keep every bit."""
        return all(p.numerics == "exact" for p in self.passes)

    def call_of(self, serial: int) -> Call | None:
        """The call as the user defined it, by serial number."""
        return self._origins.get(serial)
