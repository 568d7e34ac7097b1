"""A compiled graph: called with arrays, it runs the whole program natively and leaves its effects.

Values of variables and gradients are the program's state (`kernels.state`): the launch reads and changes them itself.
Nothing that anybody holds (a result, a saved value, `p.numpy()`) is ever overwritten, and a step that fails, at
whatever point, leaves all of it as it was.
"""

from __future__ import annotations

import copy
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np

from dualgraph import tree
from dualgraph.core.layout import array_of
from dualgraph.core.mode import current
from dualgraph.core.op import Call, Op
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Value
from dualgraph.device import CPU
from dualgraph.errors import FeedError, GraphError, OutOfMemoryError, here
from dualgraph.kernels import memory, provider
from dualgraph.kernels.failure import check_of, explain, searches_call_functions
from dualgraph.kernels.program import Program
from dualgraph.kernels.replay import Recording
from dualgraph.kernels.state import State
from dualgraph.locks import lock
from dualgraph.ops.symbol import Symbol
from dualgraph.spec import Spec
from dualgraph.static import dag as dags
from dualgraph.static import export, report
from dualgraph.static.collector import uncollected
from dualgraph.static.effects import Effects, held_gradient
from dualgraph.static.feeds import Feeds
from dualgraph.static.graph import Argument, Graph
from dualgraph.static.lowering import lower
from dualgraph.static.passes import Pass
from dualgraph.static.pipeline import Compilation, PassReport
from dualgraph.static.verify import ulp_distance, verify

if TYPE_CHECKING:
    import networkx
    from typing_extensions import TypeVar

    from dualgraph.core.types import ArrayLike

    R = TypeVar("R", default=Any)  # what a call gives: the structure of the outputs
else:
    from typing import TypeVar

    R = TypeVar("R")

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


class Executable(Generic[R]):
    """A graph compiled for its inputs. Call it with arrays or tensors, by position or by name.

    Inspect it: `graph`, `stages` (the DAG of each), `program` (kernel steps in order), `passes`, `kernels`, `memory`,
    `cost`, `times`, `explain()`, `watch(name)`.
    """

    @uncollected
    def __init__(
        self,
        graph: Graph,
        outputs: R,
        passes: Sequence[Pass],
        define_seconds: float = 0.0,
        differentiate_seconds: float = 0.0,
        verified: bool = False,
    ):
        graph.check()
        self.graph = graph
        self._outputs, self._structure = tree.flatten(outputs)
        wanted = [graph.lift(x) for x in self._outputs if isinstance(x, Symbol)]
        self.feeds = Feeds(graph.placeholders)
        self._effects = Effects(graph, self.feeds.names)
        self.compilation = Compilation(graph, [*wanted, *self._effects.gradients], passes)
        self._read_gradients = self.compilation.read_gradients
        self._effects.read(self._read_gradients)
        self._apart = self._effects.more
        start = time.perf_counter()
        self._bound = [_as_cell(v.tensor) for v in self.compilation.variables]
        try:
            self._loaded: Any = provider.load(self.program, self.compilation.arena, self._state())
        except MemoryError:
            raise self._out_of_memory() from None
        self._launch: Callable[..., Any] = self._loaded.launch
        self.times = {
            "define": define_seconds,
            "differentiate": differentiate_seconds,
            "optimise": self.compilation.seconds,
            "generate": time.perf_counter() - start,
        }
        graph.closed = "the graph is compiled; its symbols are fixed: define a new graph, or call the compiled one"

        self._keeps_calls = searches_call_functions(self.program)
        self._exposed = getattr(self._loaded, "releases_gil", True)  # other Python threads may run during a launch
        self._result_specs = [s.spec for s in wanted]
        self._wanted = wanted
        self._histories = [_history(s) for s in wanted]
        self._leaves = [(number, s) for number, s in enumerate(wanted) if s.source is not None]
        first = {id(s): number for number, s in reversed([*enumerate(wanted)])}
        self._again = [(n, first[id(s)]) for n, s in enumerate(wanted) if first.get(id(s), n) != n]
        self._single = self._structure is None and len(wanted) == 1
        self._lock = lock()
        self._first, self._verified = True, verified
        self.ulp_distance: int | None = None
        """At level "fast": how far the results of the first run were from those of the graph as defined."""

    def __repr__(self) -> str:
        return f"<Executable: {len(self.program.steps)} kernels, inputs {', '.join(self.feeds.names) or 'none'}>"

    @property
    def defined_outputs(self) -> tuple[list[object], tree.Node | None]:
        """What the definition returned: the leaves, and their structure."""
        return self._outputs, self._structure

    def __reduce__(self) -> NoReturn:
        raise GraphError(
            "got an executable to copy or pickle; it belongs to the variables of its graph: compile the graph again, or use "
            "static.jit, whose copies compile themselves"
        ).at(here(2))

    # Running

    def __call__(self, *args: ArrayLike, **named: ArrayLike) -> R:
        values = self.feeds.matched(args, named)
        arrays = self.feeds.arrays(values)
        passed = self._effects.passed(values)
        with self._lock:
            calls = self._first_run(arrays, {**self._effects.asked(values), **passed}) if self._first else None
            if calls is None and self._keeps_calls:
                calls = Recording(compared=False)
            launch = self._launch if calls is None else calls.inside(self._launch)
            given = [*arrays, *self._held(passed)]
            before = [(number, self._loaded.redirect(number, passed[id(x)])) for number, x in self._redirected]
            try:
                results = launch(*given)
            except MemoryError:
                raise self._out_of_memory() from None
            finally:  # nobody is kept alive, and a call that a signal or finaliser makes in between harms none
                for number, receiver in before:
                    self._loaded.redirect(number, receiver)
            if results.__class__ is int:
                search = self.failure if calls is None else calls.inside(self.failure)
                raise search(self.program, results, self.state(arrays, passed))
            if self._apart:
                results, changes = results
            if len(self._result_specs) + len(self._effects.left) < 2:
                results = () if results is None else (results,)
            if self._apart:
                self._effects.leave(passed, results[len(self._result_specs) :], self._made, changes)
        made = [self._result(array, number) for number, array in enumerate(results[: len(self._result_specs)])]
        for number, symbol in self._leaves:
            made[number] = self._leaf(made[number], symbol, values, passed)
        for number, same in self._again:  # one tensor, which may be given hooks or a gradient
            made[number] = made[same]
        found = iter(made)
        leaves = [next(found) if isinstance(x, Symbol) else _own(x) for x in self._outputs]
        return tree.unflatten(self._structure, iter(leaves))  # type: ignore[no-any-return]

    def _leaf(self, result: Any, symbol: Symbol, values: Sequence[Any], passed: dict[int, Any]) -> Any:
        """A result that was not computed: the tensor that was passed, or that lies outside."""
        if not isinstance(symbol.source, Argument):
            return symbol.source
        given = values[symbol.source.position]
        return given if isinstance(given, Tensor) else passed.get(id(symbol.source), result)

    def quick_path(self) -> Callable[[tuple[object, ...]], R] | None:
        """The usual step (one result, no gradient read, a launch that keeps the interpreter's lock) without detours."""
        if not self._single or self._exposed or self._read_gradients or self._leaves or not self._effects.usual:
            return None
        if _is_new_leaf(self._wanted[0]):
            return None
        launch, specs, feed = self._launch, self.feeds.specs, self.feeds.arrays
        history, spec = self._histories[0], self._result_specs[0]

        def run(args: tuple[Any, ...]) -> Any:
            if self._first:
                return self(*args)
            try:
                arrays = [x.storage for x in args]
                if [x.layout for x in args] != specs:
                    arrays = feed(args)
            except AttributeError:
                arrays = feed(args)
            try:
                result = launch(*arrays)
            except MemoryError:
                raise self._out_of_memory() from None
            if result.__class__ is int:
                raise self.failure(self.program, result, self.state(arrays))
            return Value(result, spec) if history is None else Value(result, spec, True, history, 0)

        return run

    def _out_of_memory(self) -> OutOfMemoryError:
        """The error where scratch memory or a result cannot be had: named by the largest that a step writes."""
        written = (v.spec for step in self.program.steps for v in step.outs)
        largest = max(written, key=lambda spec: spec.nbytes, default=None)
        return OutOfMemoryError(
            f"compiled step: there is no memory for what it computes, up to {largest} at once; compute it in parts"
        )

    def _state(self) -> State:
        """What the launch reads and changes by itself."""
        variables, written = self.compilation.variables, {id(v) for v in self.compilation.written}
        return State(
            self.compilation.feeds,
            tuple(self._bound),
            frozenset(number for number, v in enumerate(variables) if id(v) in written),
            [self._receiver(tensor) for tensor, g in self._effects.graded if g is not None],
            [self._receiver(tensor) for tensor, g in self._effects.graded if g is None],
            Value,
            Spec,
            apart=self._apart,
        )

    def _receiver(self, tensor: Any) -> Any:
        """What `.grad` is left in; for an argument something else until it is known what is passed."""
        return Value(np.zeros((), np.float32), Spec((), "float32")) if isinstance(tensor, Argument) else tensor

    @property
    def _redirected(self) -> list[tuple[int, Argument]]:
        """The gradients that are left in what is passed: their numbers among those that the launch leaves."""
        order = [
            *(t for t, g in self._effects.graded if g is not None),
            *(t for t, g in self._effects.graded if g is None),
        ]
        return [(number, tensor) for number, tensor in enumerate(order) if isinstance(tensor, Argument)]

    def _result(self, array: Array, number: int) -> Any:
        symbol, history = self._wanted[number], self._histories[number]
        if history is not None and self.graph.grad_enabled and not current().grad_enabled:
            return Value(array, symbol.spec)
        if history is not None:
            return Value(array, self._result_specs[number], True, history, 0)
        return _new_leaf(array, symbol) if _is_new_leaf(symbol) else Value(array, self._result_specs[number])

    def _made(self, array: Array, symbol: Symbol) -> Any:
        """A value that a run leaves: with a history that says that there is none, if it takes a gradient."""
        if _is_new_leaf(symbol):
            return _new_leaf(array, symbol)
        if symbol.call is None and isinstance(symbol.source, Tensor):
            return symbol.source
        history = _history(symbol)
        return Value(array, symbol.spec) if history is None else Value(array, symbol.spec, True, history, 0)

    def _first_run(self, arrays: Sequence[Array], passed: dict[int, Any]) -> Recording | None:
        """What comes before the first launch; returns what functions from outside gave, which are called once for all."""
        exact = self.compilation.exact
        calls = Recording(compared=exact)
        if not exact:  # first: what the functions get is then what they get in the launch
            self.ulp_distance = calls.inside(ulp_distance)(self, arrays, passed)
        if self._verified:
            calls.inside(verify)(self, arrays, passed)
        self._first = False
        return calls if calls.calls else None

    def state(
        self,
        feeds: Sequence[Array],
        passed: Mapping[int, Tensor] = MappingProxyType({}),
        leaves: Sequence[Call] | None = None,
    ) -> list[Array]:
        """Copies of everything the program takes: feeds, the present values of variables, gradients; or of `leaves`.

        `passed`: the tensors in whose `.grad` those of arguments are.
        """
        fed = {id(p.node): a for p, a in zip(self.graph.placeholders, feeds, strict=True)}
        variables = {id(v.node): v.tensor for v in self.graph.variables.values()}
        graded = {id(v.gradient.node): v for v in self.graph.with_gradients if v.gradient is not None}
        arrays = []
        for leaf in self.compilation.leaves if leaves is None else leaves:
            key = id(leaf)
            if key in fed:
                array = fed[key]
            elif key in variables:
                array = variables[key].detach().numpy()
            else:
                v = graded[key]
                array = held_gradient(passed.get(id(v.tensor), v.tensor), v)
            arrays.append(CPU.copy(array).reshape(leaf.specs[0].shape))
        return arrays

    def _held(self, passed: Mapping[int, Any]) -> list[Array]:
        """The gradients that are read."""
        return [held_gradient(passed.get(id(v.tensor), v.tensor), v) for v in self._read_gradients]

    def failure(self, program: Program, failed: int, arrays: Sequence[Array]) -> Exception:
        """The error of a failed check, at the line that defined the operation."""
        step = program.steps[failed]
        seen: dict[int, Array] = {**program.constants, **dict(zip(program.inputs, arrays, strict=False))}
        view = check_of(step).operand
        if view.buffer not in seen:
            copies = [np.array(a) for a in arrays]
            provider.load(program).stepwise(copies, lambda number, buffers: seen.update(buffers))
        values = array_of(seen[view.buffer], view)
        call = self.compilation.call_of(step.origins[0]) if step.origins else None
        return explain(call.op.name if call else "check", step, values).at(call.where if call else None)

    # Looking inside

    @property
    def stages(self) -> dict[str, networkx.MultiDiGraph[Any]]:
        """The DAG of each stage: defined, differentiated, after each pass, lowered, after each pass, fused: what runs."""
        return self.compilation.stages

    def save_graph(self, path: str | os.PathLike[str], *, stage: str = "fused") -> None:
        """Write the DAG of a stage to a file: `.json` (node-link), `.graphml` or `.dot`. Attributes are plain data.

        >>> import networkx, tempfile, os
        >>> from dualgraph import static
        >>> double = static.compile(lambda x: x + x, static.spec((3,)))
        >>> path = os.path.join(tempfile.mkdtemp(), "double.graphml")
        >>> double.save_graph(path, stage="differentiated")
        >>> sorted(op for _, op in networkx.read_graphml(path).nodes(data="op"))
        ['add', 'placeholder', 'result']
        """
        export.save(path, stage, self.stages)

    @property
    def program(self) -> Program:
        """The kernel steps, in the order in which they run."""
        return self.compilation.program

    @property
    def passes(self) -> list[PassReport]:
        """What each pass did."""
        return self.compilation.passes

    @property
    def kernels(self) -> list[report.Kernel]:
        """Every kernel: loop pseudo-code, LLVM IR, assembly."""
        return report.kernels(self.compilation, self._loaded)

    @property
    def memory(self) -> report.Memory:
        """The memory plan."""
        return report.memory_report(self.compilation)

    @property
    def cost(self) -> report.Cost:
        """Floating-point operations, bytes and launches of one run."""
        return report.program_cost(self.program)

    def explain(self) -> str:
        """What was compiled and why, in words."""
        return report.explain(self.compilation, self._loaded, self.times, self.ulp_distance)

    def watch(self, *what: str | Tensor | Call | Sequence[str | Tensor | Call]) -> Watched:
        """An executable that also returns the values of the named calls (`"tanh_12"`, a symbol, or a call)."""
        return Watched(self, what)


class Watched:
    """Runs a compiled graph and reports intermediate values beside its results, without changing any bit.

    The values come from a program of their own that computes them unfused from the same inputs and state.
    """

    def __init__(self, executable: Executable, what: Sequence[Any]):
        self.executable = executable
        calls = {c.name: c for c in dags.calculations(executable.compilation.differentiated)}
        what = tuple(what[0]) if len(what) == 1 and isinstance(what[0], (list, tuple)) else what
        self._symbols = [(symbol.node.name, symbol) for symbol in (_found(item, calls) for item in what)]

    def __call__(self, *args: ArrayLike, **named: ArrayLike) -> tuple[Any, dict[str, Tensor]]:
        calls = Recording(compared=self.executable.compilation.exact)  # functions from outside are called once
        return calls.inside(self._run)(args, named)  # type: ignore[no-any-return]

    def _run(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        exe = self.executable
        given = exe.feeds.matched(args, named)
        feeds, passed = exe.feeds.arrays(given), exe._effects.passed(given)
        calls = dags.in_order(exe.compilation.differentiated)
        program = lower(calls, exe.compilation.leaves, [symbol for _, symbol in self._symbols]).program
        state = exe.state(feeds, passed)
        values = provider.load(program, memory.plan(program)).launch(*state)
        if values.__class__ is int:
            raise exe.failure(program, values, state)
        values = values if isinstance(values, tuple) else (values,)
        seen = {name: exe._made(v, s) for (name, s), v in zip(self._symbols, values, strict=True)}
        return exe(*args, **named), seen


def _found(item: Any, calls: dict[str, Call]) -> Symbol:
    if isinstance(item, Symbol) and calls.get(item.node.name) is item.node:
        return item
    call = item if isinstance(item, Call) else calls.get(item) if isinstance(item, str) else None
    if call is None:
        near = [n for n in calls if n.rsplit("_", 1)[0] == str(item).rsplit("_", 1)[0]]
        hint = f"did you mean {', '.join(near[:5])}?" if near else "see executable.graph.calls"
        raise FeedError(f"watch: got {item!r}; no call has this name; {hint}").at(here())
    return Symbol(None, call, 0)  # type: ignore[arg-type]


def _own(x: Any) -> Any:
    """A result that is no tensor, for this call alone: what can be changed is copied."""
    return copy.copy(x) if isinstance(x, (np.ndarray, set, bytearray, deque)) else x


def _new_leaf(array: Array, symbol: Symbol) -> Value:
    """A leaf that was made inside of the graph, with the hooks that it was given there."""
    made = Value(array, symbol.spec, True)
    made.hooks = list(symbol.hooks or ())
    return made


def _is_new_leaf(symbol: Symbol) -> bool:
    """Whether it was made a leaf inside of the graph: nothing lies behind it."""
    return symbol.tracked and symbol.call is None and symbol.source is None


def _history(symbol: Symbol) -> Call | None:
    """What a result that needs a gradient says to who wants to go back through it."""
    needed = symbol.tracked and not _is_new_leaf(symbol)
    return Call(COMPILED, (), {}, (symbol.spec,), symbol.node.where) if needed else None


def _as_cell(tensor: Any) -> Any:
    """A tensor whose storage is its value in row-major order. What is not is no `Variable`, so it never changes."""
    if tensor.layout.__class__ is Spec:
        return tensor
    return Value(CPU.copy(tensor.detach().numpy()), tensor.spec)


__all__ = ["Executable", "PassReport", "Watched"]
