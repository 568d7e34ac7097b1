"""The passes, in the order in which they run: one visible table.

Graph passes map a DAG of calls to a DAG of calls, kernel passes a DAG of kernel steps to one. Each has a numerics class:
`exact` passes keep every bit and run by default; `reassociates` marks those that hold for real numbers only. Views need
no pass: lowering always folds reshapes, transposes and slices into the strides of their readers, in both modes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from dualgraph.core.arguments import choice
from dualgraph.core.layout import array_of
from dualgraph.core.op import Call, pure
from dualgraph.device import CPU
from dualgraph.errors import ArgumentError, shown
from dualgraph.kernels import provider
from dualgraph.kernels.program import Program
from dualgraph.ops.composite import lower_call
from dualgraph.ops.creation import LINSPACE, RANGE
from dualgraph.ops.shape import FILL
from dualgraph.ops.symbol import CONSTANT, Symbol
from dualgraph.spec import Spec
from dualgraph.static import dag as dags
from dualgraph.static import kernel_dag
from dualgraph.static.algebra import EXACT, REASSOCIATING, Rewrite
from dualgraph.static.dag import LEAVES, SINKS, has_effect, in_order
from dualgraph.static.rewriter import Rewriter

if TYPE_CHECKING:
    import networkx

LARGEST_FOLD = 1 << 16  # elements: folding more would trade compile time and memory for little

Dag: TypeAlias = "networkx.MultiDiGraph[Any]"  # of calls or of kernel steps
# Gives a DAG, or a DAG and notes.
Run: TypeAlias = (
    "Callable[[networkx.MultiDiGraph[Any]], networkx.MultiDiGraph[Any] | tuple[networkx.MultiDiGraph[Any], list[str]]]"
)


class Pass(NamedTuple):
    """A named transformation of the DAG at a stage: "graph" (of calls) or "kernel" (of kernel steps).

    `run(dag)` returns a DAG, or a DAG and a list of notes for the report. `numerics` is "exact" (every bit stays) or
    "reassociates" (holds for real numbers). `before` or `after` name the pass beside which it runs; else its place in the
    list counts. All graph passes run before all kernel passes. See `static.Rewriter` for passes over calls.

    >>> from dualgraph import static
    >>> def count(dag):
    ...     return dag, [f"{len(dag)} nodes"]
    >>> counting = static.Pass("counting", "graph", "exact", "counts nodes", count, after="dead_code")
    >>> double = static.compile(lambda x: x * 2.0, static.spec((3,)), passes=[*static.PASSES, counting])
    >>> [p.notes for p in double.passes if p.name == "counting"]
    [['4 nodes']]
    """

    name: str
    stage: Literal["graph", "kernel"]
    numerics: Literal["exact", "reassociates"]
    reason: str  # what it is good for, in one line
    run: Run
    before: str = ""
    after: str = ""

    @property
    def built_in(self) -> bool:
        """Whether it is one of `static.PASSES`."""
        return self in PASSES

    def __reduce__(self) -> tuple[object, ...]:
        return (_named, (self.name,)) if self.built_in else (Pass, tuple(self))


def _named(name: str) -> Pass:
    return next(p for p in PASSES if p.name == name)


def inlining(dag: Dag) -> tuple[Dag, list[str]]:
    """Composites opened: from here on all passes see the calls that they consist of.

    After differentiation, which takes a composite as a whole. What a composite computes is what its calls say, each
    rounding among them, and lowering it lowers these: so opening it changes no bit.
    """
    composites = [call for call in dag if call.op.parts is not None]
    if not composites:
        return dag, []
    opened = Rewriter(dag).run(lambda rw, call, inputs: None if call.op.parts is None else rw.open(call, inputs))
    return opened, [f"opened {call.name}" for call in composites]


def dead_code(dag: Dag) -> tuple[Dag, list[str]]:
    """Calls on which nothing that is wanted depends. Range checks of labels stay: they are an effect."""
    live = dags.needed(call for call in dag if call.op in (*SINKS, *LEAVES) or has_effect(call))
    if len(live) == len(dag):
        return dag, []
    calls = in_order(dag)
    return dags.of(c for c in calls if c in live), [f"removed {c.name}" for c in calls if c not in live]


def constant_folding(dag: Dag) -> tuple[Dag, list[str]]:
    """Calls of constants, run now by the same kernels that would run later."""
    notes: list[str] = []

    def rule(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> list[Symbol] | None:
        spec = call.specs[0]
        if call.op is FILL and spec.shape == ():
            return [inputs[0]]
        if call.op in (FILL, LINSPACE, RANGE):  # cheaper to compute than to read
            return None
        if not inputs or any(x.node.op is not CONSTANT for x in inputs) or has_effect(call):
            return None
        if any(s.size > LARGEST_FOLD for s in call.specs):
            return None
        notes.append(f"folded {call.name}")
        constants = [x.node.params["value"] for x in inputs]
        operand = any(c.operand for c in constants)
        return [rw.constant(call, array, operand) for array in evaluate(call, [c.array for c in constants])]

    return Rewriter(dag).run(rule), notes


def evaluate(call: Call, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """The results of one call of known arrays."""
    program = Program(where=call.where)
    operands = tuple(program.input(Spec(a.shape, a.dtype.name)) for a in arrays)
    views = lower_call(program, call.op, operands, call.specs, call.params)
    arrays = [np.ascontiguousarray(a) for a in arrays]  # captured ones lie in any way
    known = {**program.constants, **dict(enumerate(arrays))}
    program.outputs = list(dict.fromkeys(v.buffer for v in views if v.buffer not in known))
    if program.outputs:
        results = provider.load(program).launch(*arrays)
        assert results.__class__ is not int, f"{call.name} failed, though it checks nothing"
        results = results if isinstance(results, tuple) else (results,)
        known.update(zip(program.outputs, results, strict=True))
    return [CPU.copy(array_of(known[view.buffer], view)) for view in views]


def common_subexpressions(dag: Dag) -> tuple[Dag, list[str]]:
    """Equal calls of equal inputs, computed once. After differentiation: before, it would change how gradients add up."""
    notes: list[str] = []
    seen: dict[Any, Call] = {}

    def rule(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> list[Symbol] | None:
        if call.op in LEAVES or not pure(call):
            return None
        key = (call.op, tuple([(id(x.node), x.index) for x in inputs]), *call.params.values())
        first = seen.get(key)
        if first is None:
            seen[key] = call
            return None
        notes.append(f"{call.name} is {first.name}")
        return [rw.value(Symbol(rw.recorder, first, n)) for n in range(len(call.specs))]

    return Rewriter(dag).run(rule), notes


def _algebra(rules: Sequence[Rewrite]) -> Run:
    def run(dag: Dag) -> tuple[Dag, list[str]]:
        notes: list[str] = []

        def rule(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> list[Symbol] | None:
            for rewrite in rules:
                found = rewrite(rw, call, inputs)
                if found is not None:
                    notes.append(f"{rewrite.__name__} at {call.name}: {rewrite.__doc__}")
                    return [found]
            return None

        return Rewriter(dag).run(rule), notes

    return run


def _fusion(dag: Dag) -> tuple[Dag, Sequence[Any]]:
    return kernel_dag.fused(dag)


PASSES: tuple[Pass, ...] = (
    Pass("inlining", "graph", "exact", "lets the passes after it see into composites", inlining),
    Pass("dead_code", "graph", "exact", "drops what no result depends on", dead_code),
    Pass("constant_folding", "graph", "exact", "computes now what is known now", constant_folding),
    Pass("exact_algebra", "graph", "exact", "drops operations that change no bit", _algebra(EXACT)),
    Pass("real_algebra", "graph", "reassociates", "uses identities of real numbers", _algebra(REASSOCIATING)),
    Pass("common_subexpressions", "graph", "exact", "computes equal things once", common_subexpressions),
    Pass("dead_code_again", "graph", "exact", "drops what the passes before left over", dead_code),
    Pass("fusion", "kernel", "exact", "keeps intermediate results in registers and cache", _fusion),
)
LEVELS = ("none", "exact", "fast")
STAGES = ("graph", "kernel")
RESERVED = ("defined", "differentiated", "lowered", "fused")  # names of stages that no pass makes
NUMERICS = ("exact", "reassociates")
NAMES = tuple(p.name for p in PASSES)


def chosen(optimize: str, passes: Sequence[str | Pass] | None = None) -> tuple[Pass, ...]:
    """The passes of a level: all that there are, or of those given, the ones whose numerics the level allows."""
    choice("compile", "optimize", optimize, LEVELS)
    if passes is None:
        passes = PASSES if optimize != "none" else ()
    elif not isinstance(passes, (list, tuple)) or isinstance(passes, Pass):
        raise ArgumentError(
            f"passes: got {shown(passes)}; they are a list of passes or of names ({', '.join(NAMES)}); pass [] for none"
        )
    known = {p.name: p for p in PASSES}
    found = [p if isinstance(p, Pass) else known[choice("passes", "a pass", p, NAMES)] for p in passes]
    for p in found:
        _check_pass(p, found)
    unwanted = [
        p for p, given in zip(found, passes, strict=True) if not _allowed(p, optimize) and isinstance(given, str)
    ]
    if unwanted:
        raise ArgumentError(
            f"passes: got {unwanted[0].name!r}, which reassociates, at level {optimize!r}, which keeps every bit; say "
            'optimize="fast", or leave it out'
        )
    placed = sorted(_placed(found), key=lambda p: STAGES.index(p.stage))
    return tuple(p for p in placed if _allowed(p, optimize))


def _allowed(p: Pass, optimize: str) -> bool:
    return optimize == "fast" or p.numerics == "exact"


def _check_pass(p: Pass, passes: Sequence[Pass]) -> None:
    names = [q.name for q in passes]
    if not isinstance(p.name, str) or not p.name or names.count(p.name) > 1 or p.name in RESERVED:
        raise ArgumentError(
            f"passes: got the name {shown(p.name)}; each pass has a name of its own, other than {', '.join(RESERVED)}; "
            "give it one"
        )
    choice(f"pass {p.name}", "stage", p.stage, STAGES)
    choice(f"pass {p.name}", "numerics", p.numerics, NUMERICS)
    if not callable(p.run):
        raise ArgumentError(f"pass {p.name}: got {shown(p.run)} to run; give a function from DAG to DAG")
    if p.before and p.after:
        raise ArgumentError(f"pass {p.name}: got both before={p.before!r} and after={p.after!r}; give one of them")
    for beside in filter(None, (p.before, p.after)):
        choice(f"pass {p.name}", "a pass to be beside", beside, [name for name in names if name != p.name])
        wrong = p.before if p.stage == "kernel" else p.after
        if wrong and passes[names.index(wrong)].stage != p.stage:
            raise ArgumentError(
                f"pass {p.name}: got {'before' if p.before else 'after'}={beside!r}; graph passes run before kernel passes; "
                f"name a {p.stage} pass"
            )


def _placed(passes: Sequence[Pass]) -> list[Pass]:
    """In the order in which they run: those that name no neighbour as they are given, the others beside theirs."""
    order = [p for p in passes if not p.before and not p.after]
    left = [p for p in passes if p not in order]
    while left:
        names = [p.name for p in order]
        p = next((p for p in left if (p.before or p.after) in names), None)
        if p is None:
            waiting = ", ".join(p.name for p in left)
            raise ArgumentError(
                f"passes: got {waiting}, which wait for one another; let one of them say no before or after"
            )
        place = names.index(p.before or p.after)
        order.insert(place if p.before else place + 1, p)
        left.remove(p)
    return order
