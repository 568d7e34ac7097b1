"""The DAG of a static graph: a `networkx.MultiDiGraph` of calls, of which every topological order is right.

Nodes are calls: inputs, variables and constants, operations, and what is wanted of them: a `RESULT` for each result, an
`UPDATE` for each variable that is left with another value. Edges are of two kinds:

    operand   from the call that gives a value to the one that takes it; the key is the operand's position, so that `x * x`
              has two; attributes `operand` (the position) and `result` (which result of the producer it is)
    effect    what else must not change places; the key is "effect", and so is the attribute, with one of these values:
                "order"   calls that may refuse a value, or have an effect outside, one after the other as they were written
                "check"   nothing is updated before the last of these
                "read"    what reads a variable, before its update

Calls are lowered in the topological order in which serial numbers break ties: program order.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

from dualgraph.core.op import Call, Op, checks, pure, specs_of
from dualgraph.errors import DualgraphError, GraphError
from dualgraph.ops.composite import opened
from dualgraph.ops.symbol import CONSTANT, PLACEHOLDER, Symbol

if TYPE_CHECKING:
    import networkx

EFFECT = "effect"


def _not_bound(**_: Any) -> NoReturn:
    raise TypeError("leaves and sinks of a graph are made by the graph, not by bind")


VARIABLE = Op("variable", _not_bound, _not_bound)  # the value of a tensor when the graph starts
GRADIENT = Op("gradient", _not_bound, _not_bound)  # what its `.grad` holds then
RESULT = Op("result", _not_bound, _not_bound)  # of a value that is wanted; `position` among the results
UPDATE = Op("update", _not_bound, _not_bound)  # of a variable and its new value

LEAVES = (PLACEHOLDER, VARIABLE, GRADIENT)
SINKS = (RESULT, UPDATE)


def empty() -> networkx.MultiDiGraph[Call]:
    """A DAG without calls."""
    import networkx

    return networkx.MultiDiGraph()


def frozen(dag: networkx.MultiDiGraph[Any]) -> networkx.MultiDiGraph[Any]:
    """The same DAG, of which networkx lets nobody change nodes or edges any more: a stage stays as it was."""
    import networkx

    return networkx.freeze(dag)


def of(calls: Iterable[Call]) -> networkx.MultiDiGraph[Call]:
    """The DAG of calls that are given in an order in which they can run."""
    dag = empty()
    last: Call | None = None
    for call in calls:
        last = add(dag, call, last)
    return dag


def add(dag: networkx.MultiDiGraph[Call], call: Call, last: Call | None) -> Call | None:
    """Add a call with its edges; `last` is the latest call with an effect before it. Returns that for the next one."""
    if not call.inputs:
        dag.add_node(call)
    for number, x in enumerate(call.inputs):
        dag.add_edge(x.node, call, number, operand=number, result=x.index)
    if call.op is UPDATE:
        variable = call.inputs[0].node
        for reader in [*dag.successors(variable)]:
            if reader.op is not UPDATE:
                dag.add_edge(reader, call, EFFECT, effect="read")
        if last is not None:
            dag.add_edge(last, call, EFFECT, effect="check")
    elif has_effect(call):
        if last is not None:
            dag.add_edge(last, call, EFFECT, effect="order")
        return call
    return last


def without_gradients(dag: networkx.MultiDiGraph[Call]) -> networkx.MultiDiGraph[Call]:
    """What was written down: no calls that a sweep backwards made (node attribute `gradient`), and none that need them."""
    kept = set[Call]()
    for call in in_order(dag):
        if "gradient" not in dag.nodes[call] and all(x.node in kept for x in call.inputs):
            kept.add(call)
    return dag.subgraph(kept).copy()


def has_effect(call: Call) -> bool:
    """Whether a call may refuse a value or does something outside, so that it runs, and in its place."""
    op = call.op
    return op.checks or not op.pure or (op.parts is not None and (checks(call) or not pure(call)))


_serial = attrgetter("serial")


def in_order(dag: networkx.MultiDiGraph[Any]) -> list[Any]:
    """The nodes (calls, or kernel steps) in topological order, ties by serial number."""
    nodes = sorted(dag, key=_serial)
    place = {node: number for number, node in enumerate(nodes)}
    if all(place[node] < place[later] for node, reached in dag.adjacency() for later in reached):
        return nodes  # is what the sort below would give, for a tenth of its time
    import networkx

    return list(networkx.lexicographical_topological_sort(dag, key=_serial))


def calculations(dag: networkx.MultiDiGraph[Call]) -> list[Call]:
    """The calls in order without those that only say what is wanted."""
    return [call for call in in_order(dag) if call.op not in SINKS]


def results(dag: networkx.MultiDiGraph[Call]) -> list[Symbol]:
    """The values that are wanted, by position."""
    found = sorted((call for call in dag if call.op is RESULT), key=lambda call: call.params["position"])
    return [call.inputs[0] for call in found]


def updates(dag: networkx.MultiDiGraph[Call]) -> list[tuple[Call, Symbol]]:
    """The variables that are left with another value, and that value."""
    found = sorted((call for call in dag if call.op is UPDATE), key=_serial)
    return [(call.inputs[0].node, call.inputs[1]) for call in found]


def result(x: Symbol, position: int) -> Call:
    return Call(RESULT, (x,), {"position": position}, (), x.node.where)


def update(variable: Symbol, x: Symbol) -> Call:
    return Call(UPDATE, (variable, x), {}, (), x.node.where)


def recorder_of(calls: Iterable[Call]) -> Any:
    """The graph that symbols of calls belong to."""
    return next((x.recorder for call in calls for x in call.inputs), None)


def needed(calls: Iterable[Call]) -> set[Call]:
    """These calls and all on whose values they depend; what only keeps an order (effects) is no dependence."""
    stack, found = [*calls], set[Call]()
    while stack:
        call = stack.pop()
        if call not in found:
            found.add(call)
            stack.extend(x.node for x in call.inputs)
    return found


# What a DAG must be


def check(name: str, dag: Any, before: networkx.MultiDiGraph[Call] | None = None) -> None:
    """Raise if this is no DAG of calls, or not one that leaves what `before` leaves. `name`: of what made it."""
    import networkx

    if not isinstance(dag, networkx.MultiDiGraph):
        raise GraphError(f"{name}: got {type(dag).__name__}; a graph pass returns a networkx.MultiDiGraph of calls")
    for call, producers in dag.pred.items():
        _check_node(name, call, producers, before)
    try:
        calls = in_order(dag)
    except networkx.NetworkXUnfeasible:
        found = [edge[0] for edge in networkx.find_cycle(dag)]
        cycle = " → ".join(call.name for call in found)
        raise GraphError(f"{name}: the graph has a cycle, {cycle}; no call may need its own result").at(
            found[0].where
        ) from None
    if before is None:
        _check_as_recorded(name, calls)
    else:
        _check_sinks(name, dag, before, calls)
    _check_effects(name, dag, calls)


def _check_node(name: str, call: Any, producers: Mapping[Any, Any], before: Container[Call] | None) -> None:
    """A call whose edges say what its inputs say, whose results are what its op gives, and no input of another graph."""
    if not isinstance(call, Call):
        raise GraphError(f"{name}: got a node that is {type(call).__name__}; nodes are calls")
    if not _fits(call, producers):
        raise _misfit(name, call, producers)
    if before is None or call in before or call.op in SINKS:
        return
    if call.op in LEAVES:
        raise GraphError(
            f"{name}: {call.name} is an input that the graph has not; a pass adds no inputs, and takes those that are there"
        ).at(call.where)
    specs = _specs_given(name, call)
    if specs != tuple(call.specs):
        raise GraphError(f"{name}: {call.name} is said to give {_specs(call.specs)}; it gives {_specs(specs)}").at(
            call.where
        )


def _specs_given(name: str, call: Call) -> tuple[Any, ...]:
    """The specs of the results that an op gives for a call's operands and parameters."""
    if call.op is CONSTANT:
        return tuple(call.specs)
    try:
        return specs_of(call.op, [x.layout for x in call.inputs], call.params)
    except Exception as error:  # of any kind: nobody has checked what a pass of the user's gives to an op
        operands = _specs([x.spec for x in call.inputs])
        raise GraphError(
            f"{name}: {call.name} got operands of {operands} and parameters {call.params}, which {call.op} does not take "
            f"({type(error).__name__}: {error}); give a call what the public function gives it"
        ).at(call.where) from error


def _fits(call: Call, producers: Mapping[Any, Any]) -> bool:
    """Whether the operands' edges are those that the inputs say."""
    operands = 0
    for parallel in producers.values():
        operands += len(parallel) - (EFFECT in parallel)
    if operands != len(call.inputs):
        return False
    for number, x in enumerate(call.inputs):
        edge = producers.get(x.node, {}).get(number)
        if edge is None or edge.get("operand") != number or edge.get("result") != x.index:
            return False
    return True


def _misfit(name: str, call: Call, producers: Mapping[Any, Any]) -> DualgraphError:
    edges = {
        key: (producer, edge.get("operand"), edge.get("result"))
        for producer, parallel in producers.items()
        for key, edge in parallel.items()
        if key != EFFECT
    }
    expected: dict[Any, Any] = {number: (x.node, number, x.index) for number, x in enumerate(call.inputs)}
    wrong = min((key for key in edges.keys() | expected.keys() if edges.get(key) != expected.get(key)), key=str)
    return GraphError(
        f"{name}: operand {wrong} of {call.name} is {_said(expected.get(wrong))}, and its edge comes from "
        f"{_said(edges.get(wrong))}; give each operand an edge with its position as key and as `operand`, and `result`, "
        "or change calls by static.Rewriter"
    ).at(call.where)


def _said(found: tuple[Any, Any, Any] | None) -> str:
    return "nothing" if found is None else f"result {found[2]} of {getattr(found[0], 'name', found[0])}"


def _specs(specs: Sequence[Any]) -> str:
    return ", ".join(map(str, specs)) or "nothing"


def _check_as_recorded(name: str, calls: Sequence[Call]) -> None:
    effects = [call for call in calls if has_effect(call) and call.op not in SINKS]
    for earlier, later in pairwise(effects):
        if earlier.serial > later.serial:
            raise GraphError(
                f"{name}: {later.name} was defined before {earlier.name}, and edges put it behind; both check values or have "
                "effects outside, so they keep their order"
            ).at(later.where)


def _check_sinks(
    name: str, dag: networkx.MultiDiGraph[Call], before: networkx.MultiDiGraph[Call], calls: Sequence[Call]
) -> None:
    """The same results of the same specs, the same variables updated, the same effects in the same order."""
    specs = [[x.layout for x in results(d)] for d in (before, dag)]
    if specs[0] != specs[1]:
        raise GraphError(
            f"{name}: the results are {_specs(specs[1])}; they were {_specs(specs[0])}; keep their specs and order"
        )
    written = [[leaf for leaf, _ in updates(d)] for d in (before, dag)]
    if written[0] != written[1]:
        raise GraphError(f"{name}: other variables are updated than before; keep each update, of the same variable")
    (there, needed), (kept, _) = _effects_of(in_order(before)), _effects_of(calls)
    if not (_follow(kept, there) and _follow(needed, kept)):
        raise GraphError(
            f"{name}: calls that check values or have effects outside are gone, new, or in another order; keep them as they are"
        )


def _effects_of(calls: Sequence[Call]) -> tuple[list[int], list[int]]:
    """The calls that have effects, parts of composites too, by serial number: all, and those that must stay.

    What an earlier call has checked alike need not be checked again.
    """
    numbers: dict[Any, int] = {}  # of values: the same for equal calls
    values: dict[tuple[Call, int], tuple[int, int]] = {}
    every, kept = list[int](), list[int]()
    recorder = recorder_of(calls)
    for call in calls:
        parts, results = opened(call, call.inputs, recorder) if call.op.parts is not None else ([call], ())
        for part in parts:
            key: Any = part
            if part.op not in (*LEAVES, *SINKS) and part.op.pure:
                key = part.op, tuple([values[x.node, x.index] for x in part.inputs]), *part.params.values()
            if has_effect(part) and part.op not in SINKS:
                every.append(part.serial)
                kept += () if key in numbers else (part.serial,)
            value = numbers.setdefault(key, len(numbers))
            values.update(((part, number), (value, number)) for number in range(len(part.specs)))
        values.update(((call, number), values[x.node, x.index]) for number, x in enumerate(results))
    return every, kept


def _follow(some: Sequence[int], every: Iterable[int]) -> bool:
    """Whether these are among all, in the same order."""
    rest = iter(every)
    return all(x in rest for x in some)


def _check_effects(name: str, dag: networkx.MultiDiGraph[Call], calls: Sequence[Call]) -> None:
    """Between calls that must not change places there is a way."""
    import networkx

    for earlier, later, kind in _effects(dag, calls):
        if not dag.has_edge(earlier, later) and not networkx.has_path(dag, earlier, later):
            raise GraphError(
                f"{name}: {later.name} must run after {earlier.name}, and no edge says so; keep the edges of effects "
                f'(here effect="{kind}")'
            ).at(later.where)


def _effects(dag: networkx.MultiDiGraph[Call], calls: Iterable[Call]) -> Iterator[tuple[Call, Call, str]]:
    last: Call | None = None
    for call in calls:
        if call.op is UPDATE:
            if last is not None:
                yield last, call, "check"
            variable = call.inputs[0].node
            yield from ((reader, call, "read") for reader in dag.successors(variable) if reader.op is not UPDATE)
        elif has_effect(call):
            if last is not None:
                yield last, call, "order"
            last = call


__all__ = [
    "CONSTANT",
    "GRADIENT",
    "LEAVES",
    "PLACEHOLDER",
    "RESULT",
    "SINKS",
    "UPDATE",
    "VARIABLE",
    "add",
    "calculations",
    "check",
    "empty",
    "frozen",
    "has_effect",
    "in_order",
    "needed",
    "of",
    "result",
    "results",
    "update",
    "updates",
    "without_gradients",
]
