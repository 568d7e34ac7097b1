"""A compiled graph: called with arrays, it runs the whole program natively and leaves its effects.

Variables are updated in place where nobody else can see their storage, else in a copy; so nothing that a caller holds
(a result, a saved value, `p.numpy()`) is ever overwritten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any

import numpy as np

from dualgraph import tree
from dualgraph.errors import DTypeError, FeedError, GraphError, ShapeError, here
from dualgraph.kernels import memory as planner
from dualgraph.kernels import provider
from dualgraph.kernels.failure import checked_operand, explain
from dualgraph.kernels.program import Program
from dualgraph.ops.arrays import as_array
from dualgraph.ops.op import Call, current, default
from dualgraph.ops.symbol import Symbol
from dualgraph.ops.tensor import TensorMethods
from dualgraph.static import report
from dualgraph.static.dataflow import Dataflow
from dualgraph.static.graph import VARIABLE, Graph
from dualgraph.static.lowering import Lowered, lower
from dualgraph.static.passes import Pass
from dualgraph.static.verify import ulp_distance, verify

Array = np.ndarray[Any, Any]


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


class Executable:
    """A graph compiled for its inputs. Call it with arrays or tensors, by position or by name.

    Inspect it: `graph`, `flow` (after the graph passes), `program` (kernel steps), `passes`, `kernels`, `memory`, `cost`,
    `times`, `explain()`, `watch(name)`.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Any,
        passes: Sequence[Pass],
        define_seconds: float = 0.0,
        differentiate_seconds: float = 0.0,
        verified: bool = False,
    ):
        self.graph = graph
        leaves, self._structure = tree.flatten(outputs)
        symbols = [graph.lift(x) if isinstance(x, TensorMethods) else None for x in leaves]
        self._is_tensor = [s is not None for s in symbols]
        self._constants = leaves
        self._chosen = tuple(passes)
        for p in graph.placeholders:
            if p._grad is not None:
                name = p.node.params["name"]
                raise GraphError(
                    f"backward() reached the argument {name!r}; a compiled graph leaves gradients in variables only: take "
                    f"dg.grad(loss, [{name}]) and return it, or make it a dualgraph.Variable"
                ).at(p.node.where)
        effects = graph.effects()
        self._graded = [(t, s) for t, s in effects.gradients]
        wanted = [s for s in symbols if s is not None]
        results = [*wanted, *(s for _, s in self._graded if s is not None)]
        by_tensor = {id(v.tensor): v for v in graph.variables.values()}
        state = _StateNodes(graph)
        updates = [(state.variables[id(t)], s) for t, s in effects.updates]
        self.passes: list[PassReport] = []
        self.defined = Dataflow(tuple(graph.calls), (*results, *(s for _, s in updates)))
        flow = self.defined
        start = time.perf_counter()
        self._stages: list[tuple[str, Dataflow]] = [("defined", flow)]
        for p in self._chosen:
            if p.stage == "graph":
                flow = self._run_pass(p, flow, lambda f: len(f.calls))
                self._stages.append((p.name, flow))
        self.flow = flow
        # only variables that still matter are handed to the program
        used = {id(x.node) for c in flow.calls for x in c.inputs} | {id(x.node) for x in flow.results}
        used |= {id(node) for node, _ in updates}
        self._feeds = [p.node for p in graph.placeholders]
        self._variables = [v for v in graph.variables.values() if id(state.variables[id(v.tensor)]) in used]
        self._read_gradients = [
            v for v in graph.variables.values() if v.gradient is not None and id(v.gradient.node) in used
        ]
        self._gradients_absent = [v.tensor for v in graph.variables.values() if v.gradient_was_none]
        nodes = [*self._feeds, *(state.variables[id(v.tensor)] for v in self._variables)]
        nodes += [v.gradient.node for v in self._read_gradients if v.gradient is not None]
        self._nodes = nodes
        self._n_results = len(results)
        self._n_wanted = len(wanted)
        self._updates = [(node, s) for (node, _), s in zip(updates, flow.results[len(results) :], strict=True)]
        lowered: Lowered = lower(flow, nodes, len(results), self._updates)
        self._lowered = lowered
        program = lowered.program
        self.unfused = program
        for p in self._chosen:
            if p.stage == "program":
                program = self._run_pass(p, program, lambda f: len(f.steps))
        self.program: Program = program
        self.arena = planner.plan(program)
        optimise_seconds = time.perf_counter() - start
        start = time.perf_counter()
        self._loaded: Any = provider.load(program, self.arena)
        self._launch: Callable[..., Any] = self._loaded.launch
        self.times = {
            "define": define_seconds,
            "differentiate": differentiate_seconds,
            "optimise": optimise_seconds,
            "generate": time.perf_counter() - start,
        }
        graph.closed = "the graph is compiled; its symbols are fixed: define a new graph, or call the compiled one"
        self._lock = threading.RLock()
        self._names = [p.node.params["name"] for p in graph.placeholders]
        self._feed_specs = [p.spec for p in graph.placeholders]
        first = len(self._feeds)
        self._bound = [v.tensor for v in self._variables]
        self._in_place = [v.tensor for n, v in enumerate(self._variables) if first + n in lowered.written]
        self._tensor: Any = type(default().constant(0.0, "float32"))
        self._result_specs = [s.spec for s in results]
        self._single = self._structure is None and self._n_wanted == 1
        self._reset_first = [t for t, s in self._graded if id(t) not in {id(v.tensor) for v in self._read_gradients}]
        self._by_tensor = by_tensor
        self._first, self._verify_next = True, verified
        self.ulp_distance: int | None = None
        """At level "fast": how far the results of the first run were from those of the graph as defined."""

    def _run_pass(self, p: Pass, subject: Any, size: Callable[[Any], int]) -> Any:
        start = time.perf_counter()
        result, notes = p.run(subject)
        seconds = time.perf_counter() - start
        self.passes.append(PassReport(p.name, p.numerics, p.reason, size(subject), size(result), seconds, notes))
        return result

    def __repr__(self) -> str:
        return f"<Executable: {len(self.program.steps)} kernels, inputs {', '.join(self._names) or 'none'}>"

    def __call__(self, *args: Any, **named: Any) -> Any:
        arrays = self._feed(args, named)
        with self._lock:
            return self._run(arrays)

    def _feed(self, args: tuple[Any, ...], named: dict[str, Any]) -> list[Array]:
        specs = self._feed_specs
        if named or len(args) != len(specs):
            args = self._by_name(args, named)
        arrays = []
        for number, value in enumerate(args):
            spec = specs[number]
            if value.__class__ is self._tensor and value.layout == spec:
                arrays.append(value.storage)
            else:
                arrays.append(self._fed_array(number, value))
        return arrays

    def _fed_array(self, number: int, value: Any) -> Array:
        spec, name = self._feed_specs[number], self._names[number]
        if isinstance(value, TensorMethods):
            value = current().lift(value).numpy()
        array = value
        if array.__class__ is not np.ndarray or not array.dtype.isnative:
            try:
                array = as_array(value)
            except (DTypeError, ShapeError) as error:
                raise FeedError(f"feed {name!r}: {error.args[0]}").at(here(4)) from None
            if array.dtype.name != spec.dtype and not hasattr(value, "dtype"):
                array = _weak(array, spec.dtype)
        if array.dtype.name != spec.dtype:
            raise FeedError(
                f"feed {name!r}: got {array.dtype.name}; the graph was compiled for {spec.dtype}; cast it with astype, or "
                "compile for this dtype (static.jit does so by itself)"
            ).at(here(4))
        if array.shape != spec.shape:
            raise FeedError(
                f"feed {name!r}: got shape {array.shape}; the graph was compiled for {spec.shape}; reshape it, or compile "
                "for this shape (static.jit does so by itself)"
            ).at(here(4))
        return np.ascontiguousarray(array).reshape(spec.shape) if not array.flags.c_contiguous else array

    def _by_name(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        names = self._names
        extra = [n for n in named if n not in names]
        if len(args) > len(names) or extra:
            what = ", ".join(map(repr, extra)) if extra else f"{len(args)} positional"
            raise FeedError(
                f"got extra feeds ({what}); the graph takes {', '.join(names) or 'none'}; leave them out"
            ).at(here(4))
        given = dict(zip(names, args, strict=False))
        twice = [n for n in named if n in given]
        if twice:
            raise FeedError(f"got feed {twice[0]!r} twice; pass it by position or by name").at(here(4))
        given.update(named)
        missing = [n for n in names if n not in given]
        if missing:
            raise FeedError(
                f"got no feed for {', '.join(map(repr, missing))}; every input of the graph must be fed"
            ).at(here(4))
        return tuple(given[n] for n in names)

    def _run(self, arrays: list[Array]) -> Any:
        if self._first:
            self._first = False
            if self._verify_next:
                verify(self, arrays)
            if any(p.numerics != "exact" for p in self._chosen):
                self.ulp_distance = ulp_distance(self, arrays)
        for tensor in self._in_place:
            if getrefcount(tensor.storage) > 2:  # somebody else sees this storage: leave it to them
                tensor.storage = tensor.storage.copy()
        for tensor in self._bound:
            arrays.append(tensor.storage)
        for v in self._read_gradients:
            arrays.append(self._held_gradient(v))
        for tensor in self._reset_first:
            tensor._grad = None
        results = self._launch(*arrays)
        if results.__class__ is int:
            raise self._failure_of(self.program, results, arrays)
        del arrays
        make, specs = self._tensor, self._result_specs
        if self._single and not self._graded:
            return make(results, specs[0])
        if self._n_results == 1:
            results = (results,)
        elif results is None:
            results = ()
        at = self._n_wanted
        for tensor, symbol in self._graded:
            if symbol is None:
                tensor._grad = None
            else:
                tensor._grad = make(results[at], specs[at])
                at += 1
        if self._single:
            return make(results[0], specs[0])
        tensors = iter([make(r, s) for r, s in zip(results, specs, strict=True)][: self._n_wanted])
        filled = [
            next(tensors) if is_tensor else c for is_tensor, c in zip(self._is_tensor, self._constants, strict=True)
        ]
        return tree.unflatten(self._structure, iter(filled))

    def _held_gradient(self, v: Any) -> Array:
        g = v.tensor._grad
        spec = v.gradient.spec
        if g is None or g.spec != spec:
            raise FeedError(
                f"got no gradient in .grad of a tensor of {v.tensor.spec}, but the graph was defined to add to one; run "
                "backward before, or define the graph again (static.jit does so by itself)"
            ).at(here(4))
        return np.ascontiguousarray(g.numpy())

    def _failure_of(self, program: Program, failed: int, arrays: Sequence[Array]) -> Exception:
        """The error of a failed check, at the line that defined the operation."""
        step = program.steps[failed]
        seen: dict[int, Array] = {**program.constants, **dict(zip(program.inputs, arrays, strict=False))}
        view = checked_operand(step)
        if view.buffer not in seen:
            copies = [np.array(a) for a in arrays]
            loaded: Any = provider.load(program)
            loaded.stepwise(copies, lambda number, buffers: seen.update(buffers))
        flat = seen[view.buffer].reshape(-1)
        strides = tuple(s * flat.itemsize for s in view.strides)
        values = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides)
        calls = {c.serial: c for c in self.defined.calls}
        call = calls.get(step.origins[0]) if step.origins else None
        return explain(call.op.name if call else "check", step, values).at(call.where if call else None)

    @property
    def kernels(self) -> list[report.Kernel]:
        """Every kernel: loop pseudo-code, LLVM IR, assembly."""
        return report.kernels(self)

    @property
    def memory(self) -> report.Memory:
        """The memory plan."""
        return report.memory_report(self)

    @property
    def cost(self) -> report.Cost:
        """Floating-point operations, bytes and launches of one run."""
        return report.cost(self)

    def explain(self) -> str:
        """What was compiled and why, in words."""
        return report.explain(self)

    def watch(self, *what: Any) -> Watched:
        """An executable that also returns the values of the named calls (`"tanh_12"`, a symbol, or a call)."""
        return Watched(self, what)


class _StateNodes:
    """The leaf call of each variable."""

    def __init__(self, graph: Graph):
        self.variables: dict[int, Call] = {}
        for call in graph.calls:
            if call.op is VARIABLE:
                self.variables[call.params["key"]] = call


class Watched:
    """Runs a compiled graph and reports intermediate values beside its results, without changing any bit."""

    def __init__(self, executable: Executable, what: Sequence[Any]):
        self.executable = executable
        calls = {c.name: c for c in executable.defined.calls}
        self._symbols: list[tuple[str, Symbol]] = []
        for item in what:
            call = item.node if isinstance(item, Symbol) else item if isinstance(item, Call) else calls.get(item)
            if call is None:
                near = [n for n in calls if n.rsplit("_", 1)[0] == str(item).rsplit("_", 1)[0]]
                raise FeedError(
                    f"watch: got {item!r}; no call has this name"
                    + (f"; did you mean {', '.join(near[:5])}?" if near else "; see executable.graph.calls")
                )
            index = item.index if isinstance(item, Symbol) else 0
            self._symbols.append((call.name, Symbol(None, call, index)))  # type: ignore[arg-type]

    def __call__(self, *args: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
        exe = self.executable
        arrays = exe._feed(args, named)
        inputs = [a.copy() for a in arrays]
        inputs += [t.storage.copy() for t in exe._bound]
        inputs += [exe._held_gradient(v).copy() for v in exe._read_gradients]
        flow = Dataflow(exe.defined.calls, tuple(s for _, s in self._symbols))
        lowered = lower(flow, exe._nodes, len(self._symbols), ())
        values = provider.load(lowered.program, planner.plan(lowered.program)).launch(*inputs)
        values = values if isinstance(values, tuple) else (values,)
        make = exe._tensor
        seen = {name: make(v, s.spec) for (name, s), v in zip(self._symbols, values, strict=True)}
        return exe(*args, **named), seen


def _weak(array: Array, dtype: str) -> Array:
    """Python numbers take the dtype that is asked for, where their kind allows it."""
    if array.dtype.kind == "i" or (array.dtype.kind == "f" and dtype.startswith("float")):
        return array.astype(dtype)
    return array


__all__ = ["Executable", "PassReport", "Watched"]
