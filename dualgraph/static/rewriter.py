"""One pass over the calls of a DAG, replacing some: what graph passes are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_not
from typing import TYPE_CHECKING, Any

from dualgraph.core.op import Call, Op
from dualgraph.ops.composite import opened
from dualgraph.ops.symbol import CONSTANT, Constant, Symbol
from dualgraph.spec import Spec
from dualgraph.static import dag as dags
from dualgraph.static.provenance import Provenance

if TYPE_CHECKING:
    import networkx

    from dualgraph.types import Array

Rule = Callable[["Rewriter", Call, tuple[Symbol, ...]], "Sequence[Symbol] | None"]


class Rewriter:
    """Makes a DAG out of another one: each call, in program order, is kept or replaced by a rule.

    A rule `(rewriter, call, inputs)` gets each call with its inputs already rewritten, and returns the symbols that replace
    the call's results, or None to keep the call. New calls are made by `emit` and `constant`.
    """

    def __init__(self, dag: networkx.MultiDiGraph[Call]):
        self.dag = dag
        self.calls: list[Call] = []
        self.replaced: dict[tuple[int, int], Symbol] = {}
        self.provenance = Provenance()
        self.recorder: Any = dags.recorder_of(dag)
        self._changed = False

    def run(self, rule: Rule) -> networkx.MultiDiGraph[Call]:
        """The new DAG; the same one if no call was replaced."""
        for call in dags.in_order(self.dag):
            inputs = tuple([self.value(x) for x in call.inputs]) if self.replaced else call.inputs
            results = None if call.op in dags.SINKS else rule(self, call, inputs)
            if results is None:
                self.keep(call, inputs)
            else:
                self._changed = True
                for number, symbol in enumerate(results):
                    self.replaced[id(call), number] = symbol
        return dags.of(self.calls) if self._changed else self.dag

    def value(self, x: Symbol) -> Symbol:
        """What stands for a value now."""
        return self.replaced.get((id(x.node), x.index), x)

    def keep(self, call: Call, inputs: tuple[Symbol, ...]) -> Call:
        """The call, of these inputs."""
        if any(map(is_not, inputs, call.inputs)):
            again = call.instead(call.op, inputs, call.params, call.specs)
            for number in range(len(call.specs)):
                self.replaced[id(call), number] = Symbol(self.recorder, again, number)
            call = again
        self.calls.append(call)
        return call

    def emit(self, like: Call, op: Op, inputs: tuple[Symbol, ...], spec: Spec, **params: object) -> Symbol:
        """A new call in the place of `like`."""
        call = like.instead(op, inputs, params, (spec,))
        self.calls.append(call)
        return Symbol(self.recorder, call, 0)

    def constant(self, like: Call, array: Array, operand: bool = False) -> Symbol:
        """A known array in the place of `like`; as an `operand` it becomes no part of the code of a kernel."""
        return self.emit(like, CONSTANT, (), Spec(array.shape, array.dtype.name), value=Constant(array, operand))

    def open(self, call: Call, inputs: tuple[Symbol, ...]) -> list[Symbol]:
        """The results of a composite as those of the calls that it consists of, in its place."""
        parts, results = opened(call, inputs, self.recorder)
        self.calls += parts
        return results
