"""The passes, in the order in which they run: one visible table.

Graph passes map a DAG of calls to a DAG of calls, kernel passes a DAG of kernel steps to one. Each has a numerics class:
`exact` passes keep every bit and run by default; `reassociates` marks those that hold for real numbers only. Views need
no pass: lowering always folds reshapes, transposes and slices into the strides of their readers, in both modes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dualgraph.errors import ArgumentError, shown
from dualgraph.kernels import provider
from dualgraph.kernels.program import Program
from dualgraph.ops.arguments import choice
from dualgraph.ops.composite import lower_call
from dualgraph.ops.creation import RANGE
from dualgraph.ops.op import Call, pure
from dualgraph.ops.shape import FILL
from dualgraph.ops.symbol import CONSTANT, Symbol
from dualgraph.spec import Spec
from dualgraph.static import dag as dags
from dualgraph.static import kernel_dag
from dualgraph.static.algebra import EXACT, REASSOCIATING, Rewrite
from dualgraph.static.dag import LEAVES, SINKS, has_effect, in_order
from dualgraph.static.rewriter import Rewriter

LARGEST_FOLD = 1 << 16  # elements: folding more would trade compile time and memory for little

Dag = Any  # networkx.MultiDiGraph, of calls or of kernel steps
Run = Callable[[Dag], tuple[Dag, Sequence[Any]]]


class Pass(NamedTuple):
    """A named transformation. `stage` is "graph" or "program"."""

    name: str
    stage: str
    numerics: str  # "exact" | "reassociates"
    reason: str  # what it is good for, in one line
    run: Callable[[Any], tuple[Any, list[str]]]


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
        if call.op in (FILL, RANGE):  # cheaper to compute than to read
            return None
        if not inputs or any(x.node.op is not CONSTANT for x in inputs) or has_effect(call):
            return None
        if any(s.size > LARGEST_FOLD for s in call.specs):
            return None
        notes.append(f"folded {call.name}")
        return [rw.constant(call, array) for array in evaluate(call, [x.node.params["value"].array for x in inputs])]

    return Rewriter(dag).run(rule), notes


def evaluate(call: Call, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """The results of one call of known arrays."""
    program = Program(where=call.where)
    operands = tuple(program.input(Spec(a.shape, a.dtype.name)) for a in arrays)
    views = lower_call(program, call.op, operands, call.specs, call.params)
    known = dict(enumerate(arrays))
    program.outputs = list(dict.fromkeys(v.buffer for v in views if v.buffer not in known))
    if program.outputs:
        results = provider.load(program).launch(*(np.ascontiguousarray(a) for a in arrays))
        assert results.__class__ is not int, f"{call.name} failed, though it checks nothing"
        results = results if isinstance(results, tuple) else (results,)
        known.update(zip(program.outputs, results, strict=True))
    found = []
    for view in views:
        flat = np.ascontiguousarray(known[view.buffer]).reshape(-1)
        strides = tuple(s * flat.itemsize for s in view.strides)
        empty = 0 in view.shape
        found.append(
            np.empty(view.shape, flat.dtype)
            if empty
            else np.array(np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides), order="C")
        )
    return found


def common_subexpressions(dag: Dag) -> tuple[Dag, list[str]]:
    """Equal calls of equal inputs, computed once. After differentiation: before, it would change how gradients add up."""
    notes: list[str] = []
    seen: dict[Any, Call] = {}

    def rule(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> list[Symbol] | None:
        if call.op in LEAVES or not pure(call):
            return None
        key = (call.op, tuple((id(x.node), x.index) for x in inputs), *call.params.items())
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
    Pass("dead_code", "graph", "exact", "drops what no result depends on", dead_code),
    Pass("constant_folding", "graph", "exact", "computes now what is known now", constant_folding),
    Pass("exact_algebra", "graph", "exact", "drops operations that change no bit", _algebra(EXACT)),
    Pass("real_algebra", "graph", "reassociates", "uses identities of real numbers", _algebra(REASSOCIATING)),
    Pass("common_subexpressions", "graph", "exact", "computes equal things once", common_subexpressions),
    Pass("dead_code_again", "graph", "exact", "drops what the passes before left over", dead_code),
    Pass("fusion", "kernel", "exact", "keeps intermediate results in registers and cache", _fusion),
)
LEVELS = ("none", "exact", "fast")
NAMES = tuple(p.name for p in PASSES)


def chosen(optimize: str, names: Sequence[str] | None = None) -> tuple[Pass, ...]:
    """The passes of a level, or those named."""
    if names is not None:
        if not isinstance(names, (list, tuple)):
            raise ArgumentError(f"passes: got {shown(names)}; they are a list of {', '.join(NAMES)}; pass [] for none")
        for name in names:
            choice("passes", "a pass", name, NAMES)
        return tuple(p for p in PASSES if p.name in names)
    choice("compile", "optimize", optimize, LEVELS)
    return tuple(p for p in PASSES if optimize == "fast" or (optimize == "exact" and p.numerics == "exact"))
