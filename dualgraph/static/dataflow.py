"""What the passes work on: calls in program order, and the symbols whose values are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualgraph.ops.op import Call, Op
from dualgraph.ops.symbol import CONSTANT, Constant, Symbol
from dualgraph.spec import Spec
from dualgraph.static.graph import dag_of
from dualgraph.static.provenance import Provenance

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class Dataflow:
    """A graph without its history: `calls` in an order in which they can run, `results` wanted from them."""

    calls: tuple[Call, ...]
    results: tuple[Symbol, ...]

    @property
    def dag(self) -> networkx.MultiDiGraph[Call]:
        """The calls as a networkx graph."""
        return dag_of(self.calls)


Rule = Callable[["Rewriter", Call, tuple[Symbol, ...]], "Sequence[Symbol] | None"]


class Rewriter:
    """One pass over a dataflow in program order, replacing calls as it goes.

    A rule gets each call with its inputs already rewritten and returns the symbols that replace the call's results, or
    None to keep the call.
    """

    def __init__(self, flow: Dataflow):
        self.flow = flow
        self.calls: list[Call] = []
        self.replaced: dict[tuple[int, int], Symbol] = {}
        self.provenance = Provenance()
        self.recorder: Any = next((x.recorder for x in flow.results), None)

    def run(self, rule: Rule) -> Dataflow:
        for call in self.flow.calls:
            inputs = tuple(self.value(x) for x in call.inputs)
            results = rule(self, call, inputs)
            if results is None:
                self.keep(call, inputs)
            else:
                for number, symbol in enumerate(results):
                    self.replaced[id(call), number] = symbol
        return Dataflow(tuple(self.calls), tuple(self.value(x) for x in self.flow.results))

    def value(self, x: Symbol) -> Symbol:
        return self.replaced.get((id(x.node), x.index), x)

    def keep(self, call: Call, inputs: tuple[Symbol, ...]) -> None:
        if any(new is not old for new, old in zip(inputs, call.inputs, strict=True)):
            again = Call(call.op, inputs, call.params, call.specs, call.where)
            again.serial = call.serial
            for number in range(len(call.specs)):
                self.replaced[id(call), number] = Symbol(self.recorder, again, number)
            call = again
        self.calls.append(call)

    def emit(self, like: Call, op: Op, inputs: tuple[Symbol, ...], spec: Spec, **params: Any) -> Symbol:
        """A new call in the place of `like`."""
        call = Call(op, inputs, params, (spec,), like.where)
        call.serial = like.serial
        self.calls.append(call)
        return Symbol(self.recorder, call, 0)

    def constant(self, like: Call, array: Any) -> Symbol:
        return self.emit(like, CONSTANT, (), Spec(array.shape, array.dtype.name), value=Constant(array))
