"""The static graph: calls written down first, run later.

A `Graph` is a recorder with inputs (placeholders), variables (tensors whose value is read at every run), constants
(everything else that is captured) and effects (new values of variables, gradients left in `.grad`). What it records is
`graph.dag`, a networkx graph (see `dag.py`).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, starmap, zip_longest
from operator import setitem
from typing import TYPE_CHECKING, Any

from dualgraph import autodiff
from dualgraph.core.arguments import checked_shape, flag, members
from dualgraph.core.arrays import as_array
from dualgraph.core.mode import Chosen, current
from dualgraph.core.op import Call
from dualgraph.core.tensor import Registered, Tensor, check_assigned, check_gradient, is_retaining
from dualgraph.errors import (
    ArgumentError,
    DTypeError,
    DualgraphError,
    GraphError,
    here,
    shown,
)
from dualgraph.ops.symbol import Recorder, Symbol, recorder_of
from dualgraph.spec import DEFAULT_FLOAT, Spec, dtype_name, is_float
from dualgraph.static import dag as dags
from dualgraph.static.dag import GRADIENT, VARIABLE
from dualgraph.static.guards import Guards

if TYPE_CHECKING:
    import networkx

    from dualgraph.core.types import ArrayLike, DTypeLike, ShapeLike, Value, Variable


class Link:
    """The link of a graph to a tensor outside of it: what is read and left of its value, gradient, flag and hooks."""

    __slots__ = (
        "defaulted",
        "final_gradient",
        "final_hooks",
        "final_tracked",
        "gradient",
        "gradient_was_none",
        "hooks",
        "node",
        "tensor",
        "touched",
        "tracked",
        "updated",
        "value",
    )

    def __init__(self, tensor: Any, value: Symbol):
        self.tensor, self.value = tensor, value
        self.node = value.node  # the leaf that stands for its value at the start
        self.updated = False
        self.gradient: Symbol | None = None  # `.grad` at the start, if it is read
        self.defaulted = False  # -0.0 stands for `.grad` at the start if there is none
        self.gradient_was_none = False  # `.grad` was read at the start and there was none
        self.final_gradient: Symbol | None = None
        self.touched = False  # `.grad` was set
        # As they were at the start, and what a run leaves.
        self.tracked, self.hooks = value.tracked, tuple(value.hooks or ())
        self.final_tracked, self.final_hooks = self.tracked, self.hooks

    def conclude(self) -> None:
        """Keep what the definition leaves."""
        self.final_tracked, self.final_hooks = self.tensor.tracked, tuple(self.tensor.hooks)

    def leave(self, requires_grad: bool, hooks: tuple[Any, ...]) -> None:
        self.tensor.tracked = requires_grad
        self.tensor.hooks[:] = hooks

    def hooks_left(self, present: Sequence[Registered]) -> list[Registered]:
        """The hooks that a run leaves where there were `present` ones: those that are still there are the same registrations."""
        now = {id(then): held for then, held in zip(self.hooks, present, strict=True)}
        return [now.get(id(hook), hook) for hook in self.final_hooks]

    @property
    def has_other_flags(self) -> bool:
        """Whether a run leaves the tensor with another `requires_grad` or other hooks."""
        hooks = zip_longest(self.final_hooks, self.hooks)
        return self.final_tracked != self.tracked or any(left is not held for left, held in hooks)


class Argument:
    """The tensor that is passed for an input, as far as gradients are concerned: it is another one at each run."""

    __slots__ = ("__weakref__", "_graph", "_held", "is_variable", "position", "spec")

    def __init__(self, graph: Graph, position: int, spec: Spec, held: bool, variable: bool):
        self._graph, self.position, self.spec, self._held, self.is_variable = graph, position, spec, held, variable

    @property
    def tracked(self) -> bool:
        return self._graph.arguments[id(self)].value.tracked

    def held_gradient(self) -> Argument | None:
        """Stands for what `.grad` holds when the graph starts: something of this spec, or nothing."""
        return self if self._held else None

    @property
    def grad(self) -> Any:
        return self._graph.get_grad(self)

    @grad.setter
    def grad(self, g: Any) -> None:
        check_gradient(g, self.spec)
        self._graph.set_grad(self, g)


def _check_is_leaf(tensor: Any) -> None:
    if tensor.call is not None:
        raise GraphError(
            f"got a tensor ({tensor.spec}) that was computed eagerly and still has its history; a graph cannot "
            "differentiate through it: detach() it, or pass it in as an argument"
        )


def hooks_met(x: Any) -> Sequence[Registered]:
    """The hooks that a gradient of a tensor from outside meets in a graph, which does not go back to where it was computed."""
    if x.call is None:
        return x.hooks or ()
    hooks = x.call.hooks.get(x.index, ()) if x.call.hooks else ()
    return [hook for hook in hooks if not is_retaining(hook)]


def hooks_of(tensor: Any) -> list[Any]:
    """The list of a tensor's hooks, so that those registered later, while the graph is defined, are seen as well."""
    if tensor.hooks is None:
        tensor.hooks = []
    return tensor.hooks  # type: ignore[no-any-return]


class Graph(Recorder):
    """A computation defined before it runs.

    >>> from dualgraph import static
    >>> with static.Graph() as g:
    ...     x = static.placeholder("x", (2,))
    ...     y = x * 2.0 + 1.0
    >>> [call.op.name for call in g.calls]
    ['placeholder', 'constant', 'multiply', 'constant', 'add']
    >>> static.compile(g, outputs=[y])(x=[1.0, 2.0])[0].tolist()
    [3.0, 5.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.dag: networkx.MultiDiGraph[Call] = dags.empty()
        """The calls, their operands and their effects: see `dualgraph.static.dag`."""
        self._effect: Call | None = None  # the latest call that has one
        self._defined = 0  # calls
        self._sinks: list[Call] | None = None  # what a compilation wants of it
        self._sweeping = 0
        self.variables: dict[int, Link] = {}
        self.placeholders: list[Symbol] = []
        self.arguments: dict[int, Link] = {}
        self.switched: set[int] = set()  # tensors whose flag or hooks were changed, maybe back again
        self.known: set[int] = set()  # arguments of which it is known that they are another one, or are captured
        self._flags_before: list[tuple[Any, str, bool]] = []  # what `setattr` gets
        self._hooks_before: list[tuple[list[Any], slice, tuple[Any, ...]]] = []  # what `setitem` gets
        self.guards = Guards()
        self._contexts: list[Chosen] = []
        self.spelled_out = False  # in a `with` block; else traced
        self.behind: dict[int, list[Any]] = {}  # by argument: what gradients are taken of, maybe through its history

    def __enter__(self) -> Graph:
        if self.closed:
            raise GraphError(f"got a graph to define further: {self.closed}").at(here(2))
        if self._contexts:
            raise GraphError("got a graph to define that is being defined; one `with` block at a time").at(here(2))
        for key in self.switched & self.variables.keys():
            self._check_as_before(self.variables[key])
        self.grad_enabled = current().grad_enabled
        context = Chosen(self)
        context.enter()
        self._contexts.append(context)
        self.spelled_out = True
        for key, link in self.variables.items():
            if key in self.switched:
                link.leave(link.final_tracked, link.final_hooks)
        return self

    def _check_as_before(self, link: Link) -> None:
        """What was done to flags and hooks while the graph was being defined goes on from what they were."""
        if link.tensor.tracked != link.tracked or tuple(hooks_of(link.tensor)) != link.hooks:
            raise GraphError(
                f"got a graph to define further that changes requires_grad or hooks of a tensor of {link.tensor.spec}, which "
                "was given others since; define the graph anew"
            ).at(here(3))

    def __exit__(self, *exc: object) -> None:
        self._contexts.pop().leave()
        self.conclude()
        deque(self.back(), 0)

    def __repr__(self) -> str:
        calls = len(self.dag) - len(self._sinks or ())
        return f"<Graph: {calls} calls, {len(self.placeholders)} inputs, {len(self.variables)} variables>"

    def add(self, call: Call) -> None:
        if self._sinks is not None:
            self._reopen()
        self._defined += 1
        self._effect = dags.add(self.dag, call, self._effect)
        if self._sweeping:
            self.dag.nodes[call]["gradient"] = True

    def begin_sweep(self) -> float:
        self._sweeping += 1
        return super().begin_sweep()

    def end_sweep(self, started: float) -> None:
        self._sweeping -= 1
        super().end_sweep(started)

    @property
    def calls(self) -> list[Call]:
        """The calls in program order."""
        return dags.calculations(self.dag)

    def check(self) -> None:
        """Refuse a DAG that has lost inputs or variables."""
        leaves = {x.node for x in self.placeholders} | {link.node for link in self.variables.values()}
        if not leaves.issubset(self.dag):
            raise self._changed()

    def _changed(self) -> GraphError:
        return GraphError(
            f"compile: got a DAG of {len(self.dag)} calls, not the {self._defined} that were defined; a graph is changed by "
            "passes (static.Pass), not behind its back"
        )

    def finished(self, results: Sequence[Symbol]) -> networkx.MultiDiGraph[Call]:
        """The DAG with what is wanted of it: these results, and the new values of variables."""
        self._reopen()
        dags.check("compile", self.dag)
        if len(self.dag) != self._defined:
            raise self._changed()
        updated = [v for v in self.variables.values() if v.updated]
        self._sinks = [dags.result(x, number) for number, x in enumerate(results)]
        self._sinks += [dags.update(Symbol(self, v.node, 0, leaf=True), v.value) for v in updated]
        for sink in self._sinks:
            dags.add(self.dag, sink, self._effect)
        return self.dag

    def _reopen(self) -> None:
        """A DAG of its own, without what a compilation wanted: that one keeps its DAG as it was."""
        if self._sinks is not None:
            self.dag = self.dag.copy()
            self.dag.remove_nodes_from(self._sinks)
            self._sinks = None

    # Capturing what comes from outside

    def capture(self, value: ArrayLike) -> Symbol:
        if not isinstance(value, Tensor):
            return self.constant_array(as_array(value))
        leaf = value.is_variable or (value.tracked and value.call is None)
        if leaf or id(value) in self.variables:
            return self._present(self.link(value))
        _check_is_leaf(value)
        return self._captured_constant(value)

    def _present(self, link: Link) -> Symbol:
        """The value now, with the gradients that are wanted now: `requires_grad` may be switched within a step."""
        symbol, tensor = link.value, link.tensor
        if symbol.tracked != tensor.tracked:
            link.value = Symbol(self, symbol.node, symbol.index, tensor.tracked, leaf=True)
            link.value.source, link.value.hooks = tensor, symbol.hooks
        return link.value

    def _captured_constant(self, value: Any) -> Symbol:
        found = self._constants.get(id(value))
        if found is None:
            symbol = self.constant_array(value.numpy())
            symbol.source, symbol.hooks = value, hooks_of(value)  # it may take a gradient when one is asked for
            found = self._constants[id(value)] = (value, symbol)
        return found[1]

    @cached_property
    def _constants(self) -> dict[int, tuple[Any, Symbol]]:
        return {}

    @property
    def constants(self) -> list[Tensor]:
        """The tensors that were captured as constants."""
        return [x for x, _ in self._constants.values() if isinstance(x, Tensor)]

    def argument(
        self,
        spec: Spec,
        name: str,
        requires_grad: bool,
        held: bool = False,
        hooks: Sequence[Registered] = (),
        variable: bool = False,
    ) -> Symbol:
        """An input; `held` if what is passed has a gradient already, `variable` if it is one."""
        symbol = self.placeholder(spec, name, requires_grad)
        source = Argument(self, len(self.placeholders), spec, held, variable)
        symbol.source, symbol.hooks = source, list(hooks)
        self.placeholders.append(symbol)
        self.arguments[id(source)] = Link(source, symbol)
        for hook in hooks:
            self.guards.depend_on(hook.hook, "a hook")
        return symbol

    @property
    def with_gradients(self) -> list[Link]:
        """The links to everything in whose `.grad` the graph may leave something."""
        return [*self.variables.values(), *self.arguments.values()]

    def link(self, tensor: Tensor) -> Link:
        """The link to a tensor that is read by reference."""
        found = self.variables.get(id(tensor))
        if found is None:
            _check_is_leaf(tensor)
            symbol = self.leaf(VARIABLE, tensor.spec, tensor.tracked, name=getattr(tensor, "name", ""), key=id(tensor))
            symbol.source, symbol.hooks = tensor, hooks_of(tensor)
            found = Link(tensor, symbol)  # which sees the hooks
            found.tracked = self.guards.flag_before(tensor, found.tracked)
            self.variables[id(tensor)] = found
            for hook in symbol.hooks:
                self.guards.depend_on(hook.hook, "a hook")
        return found

    def saved_inputs(self, call: Call, create_graph: bool) -> tuple[Tensor, ...]:
        """The values that a call used; a sweep that is recorded sees whether they take gradients now."""
        return tuple(map(self._flagged_now, call.inputs)) if create_graph else call.inputs

    def _flagged_now(self, x: Symbol) -> Symbol:
        source = x.source
        if x.call is not None or source is None or source.tracked == x.tracked:
            return x
        now = Symbol(self, x.node, x.index, source.tracked, leaf=True)
        now.source, now.hooks = source, x.hooks
        return now

    def switching(self, x: Tensor) -> None:
        tensor = x.source if isinstance(x, Symbol) else x
        if not isinstance(x, Symbol):
            self.link(x)
        if id(tensor) not in self.switched and isinstance(tensor, Tensor):
            link = self.variables.get(id(tensor))
            self._flags_before.append((tensor, "tracked", tensor.tracked if link is None else link.tracked))
            self._hooks_before.append((hooks_of(tensor), slice(None), tuple(hooks_of(tensor))))
        self.switched.add(id(tensor))
        if isinstance(x, Symbol) and x.node.op is GRADIENT and x.source is None:
            raise GraphError(
                f"requires_grad_: got the .grad ({x.spec}) that a tensor has when the graph starts; it is a value of the "
                "graph: detach() it first"
            ).at(here(3))

    def conclude(self) -> None:
        """The definition is over: what it did to the flags of tensors is what a run does. Other threads may do more."""
        for key, link in self.variables.items():
            if key in self.switched:
                link.conclude()

    def back(self) -> Iterator[None]:
        """Brings flags and hooks back while it is iterated, also of tensors that are met later: all in one call of C."""
        return chain(starmap(setattr, self._flags_before), starmap(setitem, self._hooks_before))

    # State, as the operations of tensors see it

    def assign(self, variable: Variable, value: ArrayLike) -> None:
        where = here(3)
        try:
            if self.closed:
                raise GraphError(f"assign: {self.closed}")
            symbol = self.lift(value)
            check_assigned(variable, symbol)
        except DualgraphError as error:
            raise error.at(where) from None
        link = self.link(variable)
        fresh = Symbol(self, symbol.node, symbol.index, variable.tracked, leaf=True)
        fresh.source, fresh.hooks = variable, hooks_of(variable)
        link.value, link.updated = fresh, True

    def get_grad(self, x: Value | Argument) -> Tensor | None:
        link = self._linked(x)
        if not link.touched and link.gradient is None:
            held = x.held_gradient()
            if held is None:
                link.gradient_was_none = True
                return None
            self._read_gradient(link, held.spec)
        return link.final_gradient

    def _linked(self, x: Any) -> Link:
        return self.arguments[id(x)] if isinstance(x, Argument) else self.link(x)

    def held_before(self, x: Tensor) -> Tensor | None:
        """In a graph that is spelled out -0.0 if there is none: added to a gradient it changes nothing."""
        if not self.spelled_out or x.source is None:
            return x.grad
        link = self._linked(x.source)
        if not link.touched and link.gradient is None:
            self._read_gradient(link, x.spec)
            link.defaulted = True
        return link.final_gradient

    def _read_gradient(self, link: Link, spec: Spec) -> None:
        tensor = link.tensor
        link.gradient = self.leaf(GRADIENT, spec, name=getattr(tensor, "name", ""), key=id(tensor))
        link.final_gradient = link.gradient

    def set_grad(self, x: Value | Argument, g: Tensor | None) -> None:
        link = self._linked(x)
        link.final_gradient = None if g is None else self.value_now(g)
        link.touched = True

    def differentiates(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        arguments = {id(p.node): p.source for p in self.placeholders if p.tracked}
        stack, seen = [x.node for x in outputs if isinstance(x, Symbol)], set()
        while stack and arguments:
            node = stack.pop()
            if id(node) not in seen:
                seen.add(id(node))
                stack.extend(x.node for x in node.inputs)
        for node_id, argument in arguments.items():
            others = [x.source for x in targets if x.source is not None and x.source is not argument]
            if node_id in seen and others:
                self.behind.setdefault(id(argument), []).extend(others)

    def observe(self, owner: object, name: str) -> None:
        frame = sys._getframe(2)  # past the look-up of the attribute
        self.guards.read(owner, name, frame.f_code, frame.f_lasti)

    def copied(self, owner: object) -> None:
        self.guards.read_whole(owner)

    def wrote(self, owner: object, name: str) -> None:
        self.guards.wrote(owner, name)


def _graph_being_defined(what: str) -> Graph:
    graph = recorder_of(current())
    if not isinstance(graph, Graph):
        raise GraphError(f"{what}: no graph is being defined; use it inside `with static.Graph():`").at(here(3))
    return graph


def placeholder(
    name: str, shape: ShapeLike, dtype: DTypeLike = DEFAULT_FLOAT, *, requires_grad: bool = False
) -> Tensor:
    """An input of the graph being defined, fed by name when the compiled graph runs."""
    graph = _graph_being_defined("placeholder")
    if not isinstance(name, str):
        raise ArgumentError(f"placeholder: got the name {shown(name)}; a name is a string; pass one").at(here(2))
    requires_grad = flag("placeholder", "requires_grad", requires_grad)
    if any(p.node.params["name"] == name for p in graph.placeholders):
        raise ArgumentError(f"placeholder: got the name {name!r} twice; each input has a name of its own").at(here(2))
    spec = Spec(checked_shape("placeholder", shape), dtype_name(dtype, DEFAULT_FLOAT))
    if requires_grad and not is_float(spec.dtype):
        raise DTypeError(f"placeholder: got {spec} with requires_grad; gradients exist for floats only").at(here(2))
    return graph.argument(spec, name, requires_grad)


def gradients(
    loss: Tensor | Sequence[Tensor],
    inputs: Tensor | Iterable[Tensor],
    *,
    grad_outputs: ArrayLike | Sequence[ArrayLike | None] | None = None,
    allow_unused: bool = False,
) -> list[Tensor]:
    """Symbols for the gradients of `loss` with respect to `inputs` (parameters or symbols); differentiable again."""
    _graph_being_defined("gradients")
    wrt = members(inputs)
    return autodiff.grad(
        loss,
        [inputs] if wrt is None else wrt,  # type: ignore[list-item]
        grad_outputs,
        create_graph=True,
        retain_graph=True,
        allow_unused=allow_unused,
    )


__all__ = ["Argument", "Graph", "Link", "gradients", "hooks_met", "hooks_of", "placeholder"]
