"""A compiled graph: called with arrays, it runs the whole program natively and leaves its effects.

Variables are updated in place where nobody else can see their storage, else in a copy; so nothing that a caller holds
(a result, a saved value, `p.numpy()`) is ever overwritten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from dualgraph import tree
from dualgraph.errors import FeedError, GraphError, here
from dualgraph.kernels import memory, provider
from dualgraph.kernels.cpu import pool
from dualgraph.kernels.failure import checked_operand, explain
from dualgraph.kernels.program import Program
from dualgraph.ops.op import Call, Op, default
from dualgraph.ops.symbol import Symbol
from dualgraph.ops.tensor import TensorMethods
from dualgraph.static import report
from dualgraph.static.dataflow import Dataflow
from dualgraph.static.feeds import Feeds
from dualgraph.static.graph import Graph, Variable
from dualgraph.static.lowering import lower
from dualgraph.static.passes import Pass
from dualgraph.static.pipeline import Compilation, PassReport
from dualgraph.static.verify import ulp_distance, verify

Array = np.ndarray[Any, Any]


COMPILED = Op(
    "compiled",
    spec=lambda: (),
    lower=lambda *_: (),
    no_gradient=(
        "got the result of a compiled graph, which has no history to go back through; put backward() or dg.grad inside the "
        "compiled function, or detach() the result"
    ),
)


class Executable:
    """A graph compiled for its inputs. Call it with arrays or tensors, by position or by name.

    Inspect it: `graph`, `flow` (after the graph passes), `program` (kernel steps), `passes`, `kernels`, `memory`,
    `cost`, `times`, `explain()`, `watch(name)`.
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
        self._outputs, self._structure = tree.flatten(outputs)
        symbols = [graph.lift(x) if isinstance(x, TensorMethods) else None for x in self._outputs]
        self._is_tensor = [s is not None for s in symbols]
        _check_arguments(graph)
        self._graded = [(v.tensor, v.final_gradient) for v in graph.variables.values() if v.touched]
        wanted = [s for s in symbols if s is not None]
        results = [*wanted, *(s for _, s in self._graded if s is not None)]
        self.compilation = Compilation(graph, results, passes)
        start = time.perf_counter()
        self._loaded: Any = provider.load(self.program, self.compilation.arena)
        self._launch: Callable[..., Any] = self._loaded.launch
        self.times = {
            "define": define_seconds,
            "differentiate": differentiate_seconds,
            "optimise": self.compilation.seconds,
            "generate": time.perf_counter() - start,
        }
        graph.closed = "the graph is compiled; its symbols are fixed: define a new graph, or call the compiled one"

        self.feeds = Feeds(graph.placeholders)
        self._bound = [v.tensor for v in self.compilation.variables]
        self._in_place = [v.tensor for v in self.compilation.written]
        self._read_gradients = self.compilation.read_gradients
        read = {id(v.tensor) for v in self._read_gradients}
        self._cleared = [tensor for tensor, _ in self._graded if id(tensor) not in read]
        places = {id(v): n for n, v in enumerate(self.compilation.variables, self.compilation.feeds)}
        self._places = [places[id(v)] for v in self.compilation.written]  # where they stand among the arrays
        self._exposed = getattr(self._loaded, "releases_gil", True)  # other Python threads may run during a launch
        self._result_specs = [s.spec for s in results]
        self._histories = [
            Call(COMPILED, (), {}, (s.spec,), s.node.where) if s.requires_grad else None for s in results
        ]
        self._wanted = len(wanted)
        self._single = self._structure is None and self._wanted == 1
        self._tensor: Any = type(default().constant(0.0, "float32"))
        self._lock = threading.RLock()
        self._first, self._verified = True, verified
        self.ulp_distance: int | None = None
        """At level "fast": how far the results of the first run were from those of the graph as defined."""

    def __repr__(self) -> str:
        return f"<Executable: {len(self.program.steps)} kernels, inputs {', '.join(self.feeds.names) or 'none'}>"

    # Running

    def __call__(self, *args: Any, **named: Any) -> Any:
        arrays = self.feeds.arrays(args, named)
        with self._lock:
            if self._first:
                self._first_run(arrays)
            fresh: list[Array] | None = None
            if self._exposed and self._in_place and threading.active_count() > 1 + pool.workers():
                fresh = [tensor.storage.copy() for tensor in self._in_place]  # other threads may read while we write
            else:
                for tensor in self._in_place:
                    if getrefcount(tensor.storage) > 2:  # somebody else sees this storage: leave it to them
                        tensor.storage = tensor.storage.copy()
            for tensor in self._bound:
                arrays.append(tensor.storage)
            if fresh is not None:
                for place, storage in zip(self._places, fresh, strict=True):
                    arrays[place] = storage
            for variable in self._read_gradients:
                arrays.append(held_gradient(variable))
            for tensor in self._cleared:
                tensor._grad = None
            results = self._launch(*arrays)
            if results.__class__ is int:
                raise self.failure(self.program, results, arrays)
            if fresh is not None:
                for tensor, storage in zip(self._in_place, fresh, strict=True):
                    tensor.storage = storage
            if self._single and not self._graded:
                return self._result(results, 0)
            if len(self._result_specs) < 2:
                results = () if results is None else (results,)
            self._leave_gradients(results)
        if self._single:
            return self._result(results[0], 0)
        found = (self._result(array, number) for number, array in enumerate(results))
        leaves = (next(found) if new else x for new, x in zip(self._is_tensor, self._outputs, strict=True))
        return tree.unflatten(self._structure, leaves)

    def quick_path(self) -> Callable[[tuple[Any, ...]], Any] | None:
        """The usual step (one result, gradients left behind, a launch that keeps the interpreter's lock) without detours.

        Gradients are left as arrays and become tensors when they are looked at.
        """
        if not self._single or self._exposed or self._read_gradients or any(s is None for _, s in self._graded):
            return None
        make, launch, specs, feed = self._tensor, self._launch, self.feeds.specs, self.feeds.arrays
        in_place, bound, cleared = tuple(self._in_place), tuple(self._bound), tuple(self._cleared)
        history, spec = self._histories[0], self._result_specs[0]
        left = tuple((tensor, at) for at, (tensor, _) in enumerate(self._graded, 1))

        def run(args: tuple[Any, ...]) -> Any:
            if self._first:
                return self(*args)
            try:
                arrays = [x.storage for x in args]
                if [x.layout for x in args] != specs:
                    arrays = feed(args, {})
            except AttributeError:
                arrays = feed(args, {})
            for tensor in in_place:
                if getrefcount(tensor.storage) > 2:  # somebody else sees this storage: leave it to them
                    tensor.storage = tensor.storage.copy()
            for tensor in bound:
                arrays.append(tensor.storage)
            for tensor in cleared:
                tensor._grad = None
            results = launch(*arrays)
            if results.__class__ is int:
                raise self.failure(self.program, results, arrays)
            if left:
                for tensor, at in left:
                    tensor._grad = results[at]
                results = results[0]
            return make(results, spec) if history is None else make(results, spec, True, history, 0)

        return run

    def _result(self, array: Array, number: int) -> Any:
        history = self._histories[number]
        if history is None:
            return self._tensor(array, self._result_specs[number])
        return self._tensor(array, self._result_specs[number], True, history, 0)

    def _leave_gradients(self, results: Sequence[Array]) -> None:
        at = self._wanted
        for tensor, symbol in self._graded:
            if symbol is None:
                tensor._grad = None
            else:
                tensor._grad = self._tensor(results[at], self._result_specs[at])
                at += 1

    def _first_run(self, arrays: Sequence[Array]) -> None:
        if self._verified:
            verify(self, arrays)
        if not self.compilation.exact:
            self.ulp_distance = ulp_distance(self, arrays)
        self._first = False

    def state(self, feeds: Sequence[Array], leaves: Sequence[Call] | None = None) -> list[Array]:
        """Copies of everything the program takes: feeds, the present values of variables, gradients; or of `leaves`."""
        fed = {id(p.node): a for p, a in zip(self.graph.placeholders, feeds, strict=True)}
        variables = {id(v.node): v for v in self.graph.variables.values()}
        graded = {id(v.gradient.node): v for v in variables.values() if v.gradient is not None}
        arrays = []
        for leaf in self.compilation.leaves if leaves is None else leaves:
            key = id(leaf)
            if key in fed:
                arrays.append(np.array(fed[key]))
            else:
                arrays.append(
                    np.array(variables[key].tensor.storage if key in variables else held_gradient(graded[key]))
                )
        return arrays

    def failure(self, program: Program, failed: int, arrays: Sequence[Array]) -> Exception:
        """The error of a failed check, at the line that defined the operation."""
        step = program.steps[failed]
        seen: dict[int, Array] = {**program.constants, **dict(zip(program.inputs, arrays, strict=False))}
        view = checked_operand(step)
        if view.buffer not in seen:
            copies = [np.array(a) for a in arrays]
            provider.load(program).stepwise(copies, lambda number, buffers: seen.update(buffers))
        flat = seen[view.buffer].reshape(-1)
        strides = tuple(s * flat.itemsize for s in view.strides)
        values = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides)
        call = self.compilation.call_of(step.origins[0]) if step.origins else None
        return explain(call.op.name if call else "check", step, values).at(call.where if call else None)

    # Looking inside

    @property
    def flow(self) -> Dataflow:
        """The calls after the graph passes."""
        return self.compilation.flow

    @property
    def program(self) -> Program:
        """The kernel steps after the program passes."""
        return self.compilation.program

    @property
    def passes(self) -> list[PassReport]:
        """What each pass did."""
        return self.compilation.passes

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


class Watched:
    """Runs a compiled graph and reports intermediate values beside its results, without changing any bit.

    The values come from a program of their own that computes them unfused from the same inputs and state.
    """

    def __init__(self, executable: Executable, what: Sequence[Any]):
        self.executable = executable
        calls = {c.name: c for c in executable.compilation.defined.calls}
        self._symbols = [(symbol.node.name, symbol) for symbol in (_found(item, calls) for item in what)]

    def __call__(self, *args: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
        exe = self.executable
        feeds = exe.feeds.arrays(args, named)
        flow = Dataflow(exe.compilation.defined.calls, tuple(symbol for _, symbol in self._symbols))
        program = lower(flow, exe.compilation.leaves, len(self._symbols), ()).program
        state = exe.state(feeds)
        values = provider.load(program, memory.plan(program)).launch(*state)
        if values.__class__ is int:
            raise exe.failure(program, values, state)
        values = values if isinstance(values, tuple) else (values,)
        seen = {name: exe._tensor(v, s.spec) for (name, s), v in zip(self._symbols, values, strict=True)}
        return exe(*args, **named), seen


def _found(item: Any, calls: dict[str, Call]) -> Symbol:
    if isinstance(item, Symbol):
        return item
    call = item if isinstance(item, Call) else calls.get(item)
    if call is None:
        near = [n for n in calls if n.rsplit("_", 1)[0] == str(item).rsplit("_", 1)[0]]
        hint = f"did you mean {', '.join(near[:5])}?" if near else "see executable.graph.calls"
        raise FeedError(f"watch: got {item!r}; no call has this name; {hint}").at(here())
    return Symbol(None, call, 0)  # type: ignore[arg-type]


def _check_arguments(graph: Graph) -> None:
    """A gradient that `backward` left in an argument would be lost."""
    for p in graph.placeholders:
        if p._grad is not None:
            name = p.node.params["name"]
            raise GraphError(
                f"backward() reached the argument {name!r}; a compiled graph leaves gradients in variables only: take "
                f"dg.grad(loss, [{name}]) and return it, or make it a dualgraph.Variable"
            ).at(p.node.where)


def held_gradient(variable: Variable) -> Array:
    """What `.grad` of a variable holds, where the graph reads it."""
    assert variable.gradient is not None
    g, spec = variable.tensor.held_gradient(), variable.gradient.spec
    if g is None or g.spec != spec:
        raise FeedError(
            f"got no gradient in .grad of a tensor of {variable.tensor.spec}, but the graph was defined to add to one; run "
            "backward before, or define the graph again (static.jit does so by itself)"
        ).at(here())
    return np.ascontiguousarray(g.numpy()).reshape(spec.shape)


__all__ = ["Executable", "PassReport", "Watched"]
