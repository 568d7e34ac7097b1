"""A function written down as a graph, by running it once on symbols: an ordinary training step, `backward` included."""

from __future__ import annotations

import functools
import inspect
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from types import CoroutineType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from dualgraph import tree
from dualgraph.core.arguments import checked_shape, flag
from dualgraph.core.mode import current, default, within
from dualgraph.core.observed import Observed, observing
from dualgraph.core.tensor import Tensor
from dualgraph.errors import ArgumentError, DTypeError, GraphError, here, shown
from dualgraph.exact import attributes, exact, plainly
from dualgraph.ops.symbol import Symbol, recorder_of
from dualgraph.spec import DEFAULT_FLOAT, Spec, dtype_name, is_float
from dualgraph.static.graph import Graph, hooks_met

if TYPE_CHECKING:
    from dualgraph.types import DTypeLike, ShapeLike


class Definition(NamedTuple):
    """A function written down as a graph."""

    graph: Graph
    outputs: Any
    seconds: float  # define, without differentiation


class GradSpec(Spec):
    """The spec of an argument with respect to which the function takes gradients."""

    __slots__ = ()


class Given(NamedTuple):
    """What a trace takes for granted of an argument that is more than its values: a variable, or one with gradients."""

    held: bool = False  # its `.grad` is there
    hooks: tuple[Any, ...] = ()
    same: int = -1  # the argument that is the same object, if an earlier one is
    variable: bool = False
    captured: Any = None  # itself, where the function also reaches it in another way
    tracked: bool = False  # it takes a gradient, and its spec does not say so


PLAIN = Given()


def spec(shape: ShapeLike, dtype: DTypeLike = DEFAULT_FLOAT, requires_grad: bool = False) -> Spec:
    """Shape and dtype of an argument; `requires_grad` where the function takes gradients with respect to it.

    >>> spec((64,), "int64")
    Spec(shape=(64,), dtype='int64')
    """
    form = GradSpec if flag("spec", "requires_grad", requires_grad) else Spec
    made = form(checked_shape("spec", shape), dtype_name(dtype, DEFAULT_FLOAT))
    if requires_grad and not is_float(made.dtype):
        raise DTypeError(f"spec: got {made} with requires_grad; gradients exist for floats only").at(here(2))
    return made


def argument_names(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> list[str]:
    """A readable name for each leaf of the arguments."""
    try:
        names = list(inspect.signature(plainly(function, "forward", function)).parameters)
    except (TypeError, ValueError):
        names = []
    result = []
    for number, value in enumerate(args):
        base = names[number] if number < len(names) else f"arg{number}"
        leaves, structure = tree.flatten(value)
        result += [base] if structure is None else [f"{base}.{n}" for n in range(len(leaves))]
    for key, value in named.items():
        leaves, structure = tree.flatten(value)
        result += [key] if structure is None else [f"{key}.{n}" for n in range(len(leaves))]
    return result


def name_of(function: Any) -> str:
    """What a function is called in messages."""
    return str(plainly(function, "__name__", "function"))


def trace(function: Callable[..., object], *specs: object, **named: object) -> Definition:
    """Run `function` once on symbols: leaves of `specs` that are a `Spec` become inputs, the rest are Python constants."""
    if not callable(function):
        raise ArgumentError(f"trace: got {shown(function)}; pass a function").at(here(2))
    return trace_given(Graph(), function, specs, named, {})


def trace_given(
    graph: Graph, function: Callable[..., Any], specs: tuple[Any, ...], named: dict[str, Any], given: dict[int, Given]
) -> Definition:
    """`trace` into a new graph, with what is known of some of the inputs, by number."""
    graph.grad_enabled = current().grad_enabled
    start = time.perf_counter()
    leaves, structure = tree.flatten((specs, named))
    names = argument_names(function, specs, named)
    seen: dict[str, int] = {}
    values: list[Any] = []
    numbers: list[int | None] = []  # of inputs; None for constants
    graph.guards.depend_on(function, name_of(function))
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, Spec):
            count = seen[name] = seen.get(name, 0) + 1
            numbers.append(len(graph.placeholders))
            state = given.get(len(graph.placeholders), PLAIN)
            full_name = name if count == 1 else f"{name}_{count}"
            tracked = isinstance(leaf, GradSpec) or state.tracked
            graph.argument(
                Spec(leaf.shape, dtype_name(leaf.dtype)), full_name, tracked, state.held, state.hooks, state.variable
            )
        else:
            graph.guards.depend_on(leaf, name)
            numbers.append(None)
    for node in tree.nodes(structure):  # the function may call methods of a subclass, and use keys and attributes
        for held in (node.kind, *(keys.values for keys in (node.keys, node.attributes) if keys is not None)):
            graph.guards.depend_on(held, "an argument")
    graph.known = {number for number, state in given.items() if state.same >= 0 or state.captured is not None}
    for place, leaf in zip(numbers, leaves, strict=True):
        state = PLAIN if place is None else given.get(place, PLAIN)
        first = place if place is None or state.same < 0 else state.same
        value = leaf if first is None else graph.placeholders[first]
        values.append(value if state.captured is None else state.captured)
    args, kwargs = tree.unflatten(structure, iter(values))

    def run() -> Any:
        return results_of(graph, function(*args, **kwargs))

    back = graph.back()
    try:
        outputs = within(graph, observing, run)
        graph.conclude()
    finally:
        deque(back, 0)  # one call of C: Ctrl-C comes before or after it
    graph.guards.seal(graph.variables)
    return Definition(graph, outputs, time.perf_counter() - start - graph.differentiate_seconds)


def results_of(graph: Graph, outputs: Any) -> Any:
    """What a definition gives: `result_of` each leaf; containers whose attributes hold symbols are refused, too."""
    _, structure = tree.flatten(outputs)
    for node in tree.nodes(structure):
        if node.attributes is not None and _holds_symbol(node.attributes.values, 4):
            raise _leaking(node.kind)
    return tree.map_leaves(functools.partial(result_of, graph), outputs)


def _leaking(x: object) -> GraphError:
    return GraphError(
        f"got {shown(x)} as a result of a traced function; its tensors would be symbols for ever: return tensors, or "
        "tuples, lists and dictionaries of them, and make other objects outside"
    )


def result_of(graph: Graph, x: Any) -> Any:
    """A symbol; or something from outside, which is returned as it is: a tensor, and what holds no symbol."""
    if isinstance(x, Symbol):
        if x.source is None and x.grad is not None:
            raise GraphError(
                f"got a tensor with a .grad ({x.spec}) as a result of a traced function; results are values, and their "
                "gradients stay behind: return its .grad beside it"
            )
        return graph.lift(x)
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (Iterator, CoroutineType, AsyncIterator)) or _holds_symbol(
        x, 3
    ):  # an iterator is used up by one caller
        raise _leaking(x)
    return x


def _holds_symbol(x: Any, depth: int) -> bool:
    if isinstance(x, Symbol):
        return True
    if not depth or isinstance(x, (type, ModuleType, Observed)):
        return False
    held = [*attributes(x).values()]
    if isinstance(x, (list, tuple, set, frozenset, deque, dict, MappingProxyType, type({}.values()), type({}.items()))):
        held += [*x, *(x.values() if isinstance(x, (dict, MappingProxyType)) else ())]
    if isinstance(x, FunctionType):
        held += [plainly(cell, "cell_contents") for cell in x.__closure__ or ()]
    if isinstance(x, MethodType):
        held.append(x.__self__)
    if isinstance(x, functools.partial):
        held += [x.func, *x.args, *x.keywords.values()]
    return any(_holds_symbol(value, depth - 1) for value in held[:1000])


def tracing() -> bool:
    """Is a graph being defined?"""
    front = current()
    return front is not default() and isinstance(recorder_of(front), Graph)


def given_of(tensors: Sequence[Any], told: Container[int]) -> dict[int, Given]:
    """What a trace would take for granted of these arguments, by number; of plain tensors and arrays nothing.

    `told`: the numbers of those whose specs say that they take gradients.
    """
    found: dict[int, Given] = {}
    met = [(n, x) for n, x in enumerate(tensors) if isinstance(x, Tensor) and _is_more(x)]
    objects = {id(x): number for number, x in reversed(met)}  # the first of each
    for number, x in met:
        same = objects[id(x)]
        found[number] = Given(
            held=x.grad is not None,
            hooks=tuple(hooks_met(x)),
            same=-1 if same == number else same,
            variable=x.is_variable,
            tracked=x.tracked and number not in told,
        )
    return found


def _is_more(x: Any) -> bool:
    """Whether a tensor is more than its values: there is somewhere to leave a gradient, or there is one."""
    return bool(x.tracked or x.is_variable or x.hooks or x.grad is not None)


def same_constant(x: Any, y: Any) -> bool:
    """Whether two Python values are one constant of a graph."""
    return x is y or bool(exact(x) == exact(y))
