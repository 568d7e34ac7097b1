"""From a function or a graph to an executable: `compile` for one signature.

What a trace depends on besides its arguments is guarded; where a guard fails the function is traced again, and the reason
is kept in words.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

import numpy as np

from dualgraph import tree
from dualgraph.core.arguments import flag
from dualgraph.core.mode import current, default, within
from dualgraph.core.tensor import Tensor
from dualgraph.core.value import Value
from dualgraph.errors import ArgumentError, FeedError, RecompileWarning, here
from dualgraph.locks import lock
from dualgraph.spec import Spec
from dualgraph.static.conditions import worded
from dualgraph.static.executable import Executable, R
from dualgraph.static.graph import Graph
from dualgraph.static.passes import Pass, chosen
from dualgraph.static.retrace import retrace
from dualgraph.static.tracing import (
    PLAIN,
    Given,
    GradSpec,
    given_of,
    name_of,
    results_of,
    same_constant,
    trace_given,
    tracing,
)

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Level

MOST_VARIANTS = 16  # kept of one signature
WARN_AFTER = 16  # traces of one function; then at four times as many, and so on


@overload
def compile(
    target: Graph,
    *,
    outputs: R,
    optimize: Level = "exact",
    passes: Sequence[str | Pass] | None = None,
    verify: bool = False,
) -> Executable[R]: ...
@overload
def compile(
    target: Callable[..., R],
    *specs: object,
    optimize: Level = "exact",
    passes: Sequence[str | Pass] | None = None,
    verify: bool = False,
) -> Compiled[R]: ...
def compile(
    target: Graph | Callable[..., R],
    *specs: object,
    outputs: R | None = None,
    optimize: Level = "exact",
    passes: Sequence[str | Pass] | None = None,
    verify: bool = False,
) -> Executable[R] | Compiled[R]:
    """Compile a graph (give its `outputs`) or a function (give the specs of its arguments).

    `optimize`: "none", "exact" (default; the same bits as eager mode) or "fast" (identities of real numbers as well).
    `passes`: the passes that there are, by name or as `static.Pass`, your own among them; of these the level runs those that
    it allows. `verify=True` runs every stage once and compares all bits, and traces a function again at each call: where it
    does not define the graph that would run, a `GraphError` names the difference.

    >>> from dualgraph import static
    >>> double = static.compile(lambda x: x * 2.0, static.spec((3,)))
    >>> double([1.0, 2.0, 3.0]).tolist()
    [2.0, 4.0, 6.0]
    """
    selected, verify = chosen(optimize, passes), flag("compile", "verify", verify)
    if isinstance(target, Graph):
        if outputs is None or specs:
            raise ArgumentError("compile: a graph needs outputs=[…] and no specs; its inputs are its placeholders").at(
                here(2)
            )
        outputs = within(target, results_of, target, outputs)
        outputs = tree.map_leaves(lambda x: target.lift(x) if isinstance(x, Tensor) else x, outputs)
        return Executable(target, outputs, selected, 0.0, target.differentiate_seconds, verify)
    if not callable(target):
        raise ArgumentError(f"compile: got {type(target).__name__}; pass a static.Graph or a function").at(here(2))
    if outputs is not None:
        raise ArgumentError("compile: outputs belong to a graph; a function returns its own").at(here(2))
    for leaf in tree.flatten(specs)[0]:
        if isinstance(leaf, (Tensor, np.ndarray)):
            raise ArgumentError(
                "compile: got a tensor among the specs; give static.spec(shape, dtype) for each tensor argument, or use "
                "static.jit, which reads them off its arguments"
            ).at(here(2))
    compiled = Compiled(target, specs, {}, selected, verify)
    compiled.prepare({})
    return compiled


class Variant:
    """An executable and what it took for granted: what was read while tracing, gradients that were there or not."""

    __slots__ = (
        "_flags",
        "_guards",
        "absent",
        "captured",
        "executable",
        "given",
        "grad_enabled",
        "names",
        "own_change",
        "present",
        "quick",
        "reads_held",
    )

    def __init__(self, executable: Executable, graph: Graph, given: dict[int, Given], direct: bool):
        self.executable, self.grad_enabled, self.given = executable, graph.grad_enabled, given
        self._guards, self.own_change = graph.guards, graph.guards.own_change
        variables = list(graph.variables.values())
        self._flags = [(v.tensor, v.tracked, list(v.hooks)) for v in variables]
        self.absent = [v.tensor for v in variables if v.gradient_was_none]
        self.present = [v.tensor for v in variables if v.gradient is not None]
        self.captured = _captured(graph)
        self.names = [p.node.params["name"] for p in graph.placeholders]
        arguments = enumerate(graph.arguments.values())
        self.reads_held = {n for n, v in arguments if v.gradient_was_none or v.gradient is not None}
        usual = direct and self.grad_enabled and not (self.absent or self.present or self.reads_held or given)
        usual = usual and self.own_change is None
        self.quick = executable.quick_path() if usual else None

    def holds(self) -> bool:
        """Whether everything but the arguments is as it was: the quick form of `broken`."""
        for tensor, requires_grad, hooks in self._flags:
            if tensor.tracked != requires_grad or tensor.hooks != hooks:
                return False
        return self._guards.hold()

    def broken(self, given: dict[int, Given], tensors: Sequence[Any]) -> str | None:
        """Why this variant does not fit the present state; None if it does."""
        if self.own_change is not None:
            return f"{self.own_change}, by the function itself"
        if current().grad_enabled != self.grad_enabled:
            return f"gradients enabled: {self.grad_enabled} → {not self.grad_enabled}"
        for tensor, requires_grad, _ in self._flags:
            if tensor.tracked != requires_grad:
                return f"{_named(tensor)}: requires_grad {requires_grad} → {tensor.tracked}"
        if not self.holds():
            return self._guards.broken() or "the hooks of a variable changed"
        for tensor in self.absent:
            if tensor._grad is not None:
                return f".grad of {_named(tensor)}: None → a gradient"
        for tensor in self.present:
            if tensor._grad is None:
                return f".grad of {_named(tensor)}: a gradient → None"
        if given or self.given:
            return self._unfit(given, tensors)
        return None

    def _same_identity(self, then: Given, x: Any) -> bool:
        """Whether an argument is, or is not, what the function reaches in another way, too."""
        return x is then.captured if then.captured is not None else id(x) not in self.captured

    def _unfit(self, given: dict[int, Given], tensors: Sequence[Any]) -> str | None:
        """Why arguments with gradients, or that are variables, do not fit."""
        for number in sorted({*given, *self.given}):
            then, now, name = self.given.get(number, PLAIN), given.get(number, PLAIN), self.names[number]
            if then.same != now.same:
                return f"argument {name}: the same tensor as another argument, or no more"
            if then.variable != now.variable:
                return f"argument {name}: {'a tensor → a variable' if now.variable else 'a variable → a tensor'}"
            if then.tracked != now.tracked:
                return f"argument {name}: requires_grad {then.tracked} → {now.tracked}"
            if then.hooks != now.hooks:
                return f"argument {name}: its hooks changed"
            if then.held != now.held and number in self.reads_held:
                return f"argument {name}: .grad {'None → a gradient' if now.held else 'a gradient → None'}"
            if now.same < 0 and number < len(tensors) and not self._same_identity(then, tensors[number]):
                return f"argument {name}: a tensor that the function also reaches in another way, or no more"
        return None


def _captured(graph: Graph) -> set[int]:
    """The identities of the tensors that a function reaches by itself; where it switches arguments, of all that it may ask."""
    found = {id(v.tensor) for v in graph.variables.values()}
    if any(id(v.tensor) in graph.switched for v in graph.arguments.values()):
        found |= {id(x) for x in graph.guards.leaves}
    return found


def _met(graph: Graph, given: dict[int, Given], tensors: Sequence[Any]) -> dict[int, Given]:
    """The arguments that the function also reaches in another way: one tensor, by whichever way."""
    captured = _captured(graph)
    return {
        number: g._replace(captured=x)
        for number, g in given.items()
        if g.captured is None and id(x := tensors[number]) in captured
    }


def _named(tensor: Any) -> str:
    name = getattr(tensor, "name", "")
    return f"{name!r} ({tensor.spec})" if name else f"a tensor of {tensor.spec}"


class Compiled(Generic[R]):
    """A function compiled for one signature of its arguments, with a variant for each state it was traced in."""

    function: Callable[..., R]
    __wrapped__: Callable[..., R]

    def __init__(
        self,
        function: Callable[..., R],
        specs: tuple[object, ...],
        named: dict[str, object],
        passes: Sequence[Pass],
        verify: bool,
        missed: Callable[[str], None] | None = None,
    ):
        self.function, self.__wrapped__ = function, function
        self._missed = self._note if missed is None else missed
        self._specs, self._named, self._passes, self._verify = specs, named, tuple(passes), verify
        self.variants: list[Variant] = []
        self._lock = lock()  # of the variants
        self.misses: list[str] = []
        self._direct = not named and all(isinstance(s, Spec) for s in specs)  # every argument is one tensor
        inputs = [leaf for leaf in tree.flatten((specs, named))[0] if isinstance(leaf, Spec)]
        self._told = frozenset(number for number, leaf in enumerate(inputs) if isinstance(leaf, GradSpec))

    def _note(self, reason: str) -> None:
        self.misses.append(reason)
        warn_of_misses(self.function, self.misses)

    def prepare(self, given: dict[int, Given], tensors: Sequence[object] = (), reason: str = "first call") -> Variant:
        """Trace and compile for the present state."""
        graph = Graph()
        try:
            traced = trace_given(graph, self.function, self._specs, self._named, given)
        except Exception:  # maybe because what is one tensor came as two
            met = _met(graph, given, tensors)
            if not met:
                raise
        else:
            met = _met(graph, given, tensors)
        if met:
            return self.prepare({**given, **met}, tensors, reason)
        executable = Executable(
            graph, traced.outputs, self._passes, traced.seconds, graph.differentiate_seconds, self._verify
        )
        variant = Variant(executable, graph, given, self._direct and not self._verify)
        self.variants = [variant, *(v for v in self.variants if v.own_change is None)]
        del self.variants[MOST_VARIANTS:]
        self._missed(reason)
        return variant

    @property
    def executable(self) -> Executable[R]:
        """The variant used last."""
        return (self.variants[0] if self.variants else self.prepare({})).executable

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("variants", "function"):
            raise AttributeError(name)
        return getattr(self.executable, name)

    def __repr__(self) -> str:
        return f"<compiled {name_of(self.function)}: {self.executable!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        """A copy is traced anew at its first call: it belongs to the copies of what this one belongs to."""
        return Compiled, (self.function, self._specs, self._named, self._passes, self._verify)

    def __call__(self, *args: object, **named: object) -> R:
        if current() is default() and not named and self.variants:
            first = self.variants[0]
            if first.quick is not None and len(args) == len(first.names) and are_plain(args) and first.holds():
                return first.quick(args)  # type: ignore[no-any-return]
        if tracing():
            return self._inside(args, named)  # type: ignore[no-any-return]
        return self.run(self._leaves(args, named))

    def run(self, tensors: Sequence[ArrayLike], reason: str = "first call") -> R:
        """Run the variant that fits, with a value for each input; `reason`: why, if there is none yet."""
        return self._fitting(tensors, reason).executable(*tensors)  # type: ignore[no-any-return]

    def _fitting(self, tensors: Sequence[Any], reason: str = "first call") -> Variant:
        given = given_of(tensors, self._told)
        with self._lock:
            for number, variant in enumerate(self.variants):
                broken = variant.broken(given, tensors)
                if broken is None:
                    if number:
                        self.variants.remove(variant)
                        self.variants.insert(0, variant)
                    if self._verify:
                        retrace(variant.executable, self.function, self._specs, self._named, variant.given)
                    return variant
                if not number:
                    reason = broken
            return self.prepare(given, tensors, reason)

    def _inside(self, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Inside a trace: part of that graph, with the arguments checked as ever."""
        leaves, structure = tree.flatten((args, named))
        feeds, number = self.executable.feeds, 0
        checked = []
        self._leaves(args, named)
        for value, want in zip(leaves, tree.flatten((self._specs, self._named))[0], strict=True):
            if isinstance(want, Spec):
                value = feeds.symbol(number, value)
                if isinstance(want, GradSpec) and not value.tracked:
                    value = value.detach().requires_grad_()
                number += 1
            checked.append(value)
        args, named = tree.unflatten(structure, iter(checked))
        return self.function(*args, **named)

    def _leaves(self, args: tuple[Any, ...], named: dict[str, Any]) -> Sequence[Any]:
        """The values of the inputs, in order; constants must be those that were compiled."""
        if self._direct:
            return self.executable.feeds.matched(args, named)
        given, structure = tree.flatten((args, named))
        wanted, expected = tree.flatten((self._specs, self._named))
        if structure != expected:
            raise FeedError(
                f"got arguments of structure {tree.describe(structure)}; the function was compiled for "
                f"{tree.describe(expected)}; pass the same nesting, or use static.jit"
            ).at(here(3))
        for value, want in zip(given, wanted, strict=True):
            if not isinstance(want, Spec) and not same_constant(value, want):
                raise FeedError(
                    f"got the Python value {worded(value, want)}; the function was compiled for {worded(want)}, a constant "
                    "of its graph; pass it as a tensor, or use static.jit"
                ).at(here(3))
        return [value for value, want in zip(given, wanted, strict=True) if isinstance(want, Spec)]


def are_plain(values: Sequence[Any]) -> bool:
    """Whether all are values and nothing else: no variables, and nothing that takes a gradient."""
    for x in values:
        if x.__class__ is Value:
            if x.tracked:
                return False
        elif x.__class__ is not np.ndarray:
            return False
    return True


def warn_of_misses(function: Callable[..., Any], misses: Sequence[str]) -> None:
    """Say so where a function is traced again and again."""
    count = len(misses)
    if count < WARN_AFTER or count & (count - 1) or (count // WARN_AFTER).bit_length() % 2 == 0:
        return
    often, times = Counter(reason.split(":")[0] for reason in misses).most_common(1)[0]
    last = next(reason for reason in reversed(misses) if reason.startswith(often))
    remedy = (
        "give arguments of few shapes (pad them), and numbers that change as tensors"
        if often.startswith("argument")
        else "keep what changes in a buffer or a dualgraph.Variable, or pass it as an argument"
    )
    place = here(2)
    warnings.warn_explicit(
        f"{name_of(function)} was traced and compiled {count} times, {times} of them because of "
        f"{often} (the last time: {last}); {remedy}",
        RecompileWarning,
        place.file if place is not None else "<unknown>",
        place.line if place is not None else 0,
    )
