"""From a function or a graph to an executable: `compile` for one signature, `jit` for each signature it meets.

A function is traced by running it once on symbols: an ordinary training step, `zero_grad`, `backward` and `opt.step()`
included. What the trace depends on besides its arguments (train/eval flags, whether `.grad` was there) is guarded; where
a guard fails the function is traced again, and the reason is kept in words.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from dualgraph import tree
from dualgraph.errors import ArgumentError, FeedError, GraphError, here, shown
from dualgraph.ops.arguments import checked_shape, flag
from dualgraph.ops.arrays import as_array
from dualgraph.ops.op import current, default, using
from dualgraph.ops.tensor import TensorMethods
from dualgraph.spec import DEFAULT_FLOAT, Spec, dtype_name
from dualgraph.static.executable import Executable
from dualgraph.static.graph import Graph
from dualgraph.static.passes import Pass, chosen


class Traced(NamedTuple):
    """A function written down as a graph."""

    graph: Graph
    outputs: Any
    seconds: float  # define, without differentiation


class GradSpec(Spec):
    """The spec of an argument with respect to which the function takes gradients."""

    __slots__ = ()


def spec(shape: int | Sequence[int], dtype: Any = DEFAULT_FLOAT, requires_grad: bool = False) -> Spec:
    """Shape and dtype of an argument; `requires_grad` where the function takes gradients with respect to it.

    >>> spec((64,), "int64")
    Spec(shape=(64,), dtype='int64')
    """
    form = GradSpec if flag("spec", "requires_grad", requires_grad) else Spec
    return form(checked_shape("spec", shape), dtype_name(dtype, DEFAULT_FLOAT))


def argument_names(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> list[str]:
    """A readable name for each leaf of the arguments."""
    try:
        names = list(inspect.signature(getattr(function, "forward", function)).parameters)
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


def trace(function: Callable[..., Any], *specs: Any, **named: Any) -> Traced:
    """Run `function` once on symbols: leaves of `specs` that are a `Spec` become inputs, the rest are Python constants."""
    if not callable(function):
        raise ArgumentError(f"trace: got {shown(function)}; pass a function").at(here(2))
    graph = Graph()
    graph.grad_enabled = bool(current().grad_enabled)
    start = time.perf_counter()
    leaves, structure = tree.flatten((specs, named))
    names = argument_names(function, specs, named)
    seen: dict[str, int] = {}
    values = []
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, Spec):
            count = seen[name] = seen.get(name, 0) + 1
            name = name if count == 1 else f"{name}_{count}"
            symbol = graph.placeholder(Spec(*leaf), name, isinstance(leaf, GradSpec))
            graph.placeholders.append(symbol)
            values.append(symbol)
        else:
            values.append(leaf)
    args, kwargs = tree.unflatten(structure, iter(values))
    with using(graph):
        outputs = function(*args, **kwargs)
        outputs = tree.map_leaves(lambda x: graph.lift(x) if isinstance(x, TensorMethods) else x, outputs)
    return Traced(graph, outputs, time.perf_counter() - start - graph.differentiate_seconds)


def tracing() -> bool:
    """Is a graph being defined?"""
    front = current()
    return front is not default() and isinstance(getattr(front, "recorder", front), Graph)


def compile(
    target: Any,
    *specs: Any,
    outputs: Any = None,
    optimize: str = "exact",
    passes: Sequence[str] | None = None,
    verify: bool = False,
) -> Any:
    """Compile a graph (give its `outputs`) or a function (give the specs of its arguments).

    `optimize`: "none", "exact" (default; the same bits as eager mode) or "fast" (identities of real numbers as well).
    `passes` names the passes to run instead. `verify=True` runs every stage once and compares all bits.

    >>> double = compile(lambda x: x * 2.0, spec((3,)))
    >>> double([1.0, 2.0, 3.0]).tolist()
    [2.0, 4.0, 6.0]
    """
    selected = chosen(optimize, passes)
    if isinstance(target, Graph):
        if outputs is None or specs:
            raise ArgumentError("compile: a graph needs outputs=[…] and no specs; its inputs are its placeholders").at(
                here(2)
            )
        return Executable(target, outputs, selected, 0.0, target.differentiate_seconds, verify)
    if not callable(target):
        raise ArgumentError(f"compile: got {type(target).__name__}; pass a static.Graph or a function").at(here(2))
    if outputs is not None:
        raise ArgumentError("compile: outputs belong to a graph; a function returns its own").at(here(2))
    for leaf in tree.flatten(specs)[0]:
        if isinstance(leaf, (TensorMethods, np.ndarray)):
            raise ArgumentError(
                "compile: got a tensor among the specs; give static.spec(shape, dtype) for each tensor argument, or use "
                "static.jit, which reads them off its arguments"
            ).at(here(2))
    compiled = Compiled(target, selected, verify)
    compiled.prepare(specs, {})
    return compiled


def jit(
    function: Callable[..., Any],
    *,
    optimize: str = "exact",
    passes: Sequence[str] | None = None,
    verify: bool = False,
) -> Jitted:
    """A function compiled for each signature it is called with; `misses` tells why each time.

    >>> double = jit(lambda x: x * 2.0)
    >>> double(np.ones(2, np.float32)).tolist(), double(np.ones(3, np.float32)).tolist()
    ([2.0, 2.0], [2.0, 2.0, 2.0])
    >>> double.misses
    ['first call', 'argument x: shape (2,) → (3,)']
    """
    if not callable(function):
        raise ArgumentError(f"jit: got {shown(function)}; pass a function").at(here(2))
    return Jitted(function, chosen(optimize, passes), verify)


class Variant:
    """An executable and what it took for granted: attributes, gradients that were there or not, the grad mode."""

    __slots__ = ("_checks", "absent", "executable", "grad_enabled", "guards", "present", "quick")

    def __init__(self, executable: Executable, graph: Graph, direct: bool):
        self.executable, self.grad_enabled = executable, graph.grad_enabled
        self.guards = [(owner, name, _present(owner, name)) for owner, name, _ in graph.guards.values()]
        self.absent = [v.tensor for v in graph.variables.values() if v.gradient_was_none]
        self.present = [v.tensor for v in graph.variables.values() if v.gradient is not None]
        by_owner: dict[int, list[tuple[Any, str, Any]]] = {}
        for guard in self.guards:
            by_owner.setdefault(id(guard[0]), []).append(guard)
        self._checks = [
            (
                attrgetter(*(g[1] for g in group)),
                group[0][0],
                tuple(g[2] for g in group) if len(group) > 1 else group[0][2],
            )
            for group in by_owner.values()
        ]
        usual = direct and self.grad_enabled and not self.absent and not self.present
        self.quick = executable.quick_path() if usual else None

    def holds(self) -> bool:
        """Whether all guarded attributes are as they were: the quick form of `broken`."""
        for get, owner, values in self._checks:  # noqa: SIM110 - a generator would cost more than the checks
            if get(owner) != values:
                return False
        return True

    def broken(self) -> str | None:
        """Why this variant does not fit the present state; None if it does."""
        if current().grad_enabled != self.grad_enabled:
            return f"gradients enabled: {self.grad_enabled} → {not self.grad_enabled}"
        for owner, attribute, value in self.guards:
            now = getattr(owner, attribute)
            if now is not value and now != value:
                if attribute == "_structure":
                    return f"{type(owner).__name__}: a parameter, part, hook or attribute of it was changed"
                return f"{type(owner).__name__}.{attribute.lstrip('_')}: {value} → {now}"
        for tensor in self.absent:
            if tensor._grad is not None:
                return f".grad of a tensor of {tensor.spec}: None → a gradient"
        for tensor in self.present:
            if tensor._grad is None:
                return f".grad of a tensor of {tensor.spec}: a gradient → None"
        return None


def _present(owner: Any, attribute: str) -> Any:
    value = getattr(owner, attribute)
    return list(value) if isinstance(value, list) else value


class Compiled:
    """A function compiled for one signature of its arguments, with a variant for each state it was traced in."""

    def __init__(self, function: Callable[..., Any], passes: Sequence[Pass], verify: bool):
        self.function, self._passes, self._verify = function, tuple(passes), verify
        self.variants: list[Variant] = []
        self.misses: list[str] = []
        self._specs: tuple[Any, ...] = ()
        self._named: dict[str, Any] = {}
        self._direct = False  # every argument is one tensor

    def prepare(self, specs: tuple[Any, ...], named: dict[str, Any], reason: str = "first call") -> Variant:
        """Trace and compile for the present state."""
        self._specs, self._named = specs, named
        self._direct = not named and all(isinstance(s, Spec) for s in specs)
        traced = trace(self.function, *specs, **named)
        graph = traced.graph
        executable = Executable(
            graph, traced.outputs, self._passes, traced.seconds, graph.differentiate_seconds, self._verify
        )
        variant = Variant(executable, graph, self._direct)
        self.variants.insert(0, variant)
        self.misses.append(reason)
        return variant

    @property
    def executable(self) -> Executable:
        """The variant used last."""
        return self.variants[0].executable

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "variants":
            raise AttributeError(name)
        return getattr(self.executable, name)

    def __repr__(self) -> str:
        return f"<compiled {getattr(self.function, '__name__', 'function')}: {self.executable!r}>"

    def __call__(self, *args: Any, **named: Any) -> Any:
        if current() is default() and not named:
            first = self.variants[0]
            if first.quick is not None and first.holds():
                return first.quick(args)
        if tracing():
            return self.function(*args, **named)  # inside a trace: part of that graph
        executable = self._fitting().executable
        if self._direct:
            return executable(*args, **named)
        return executable(*self._leaves(args, named))

    def _fitting(self) -> Variant:
        first = self.variants[0]
        reason = first.broken()
        if reason is None:
            return first
        for variant in self.variants[1:]:
            if variant.broken() is None:
                self.variants.remove(variant)
                self.variants.insert(0, variant)
                return variant
        return self.prepare(self._specs, self._named, reason)

    def _leaves(self, args: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        given, structure = tree.flatten((args, named))
        wanted, expected = tree.flatten((self._specs, self._named))
        if structure != expected:
            raise FeedError(
                f"got arguments of structure {structure}; the function was compiled for {expected}; pass the same nesting, "
                "or use static.jit"
            ).at(here(3))
        for value, want in zip(given, wanted, strict=True):
            if not isinstance(want, Spec) and value is not want and value != want:
                raise FeedError(
                    f"got the Python value {shown(value)}; the function was compiled for {shown(want)}, a constant of its graph; "
                    "pass it as a tensor, or use static.jit"
                ).at(here(3))
        return [value for value, want in zip(given, wanted, strict=True) if isinstance(want, Spec)]


class Jitted:
    """A function that compiles itself for each signature; see `jit`."""

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """As a method: compiled for each object apart."""
        if owner is None:
            return self
        bound = self._bound.get(id(owner))
        if bound is None or bound[0] is not owner:
            method = functools.partial(self.function, owner)
            bound = self._bound[id(owner)] = (owner, Jitted(method, self._passes, self._verify))
        return bound[1]

    def __init__(self, function: Callable[..., Any], passes: Sequence[Pass], verify: bool):
        self.function, self._passes, self._verify = function, tuple(passes), verify
        self._cache: dict[Any, Compiled] = {}
        self._last: tuple[list[str], Any] | None = None
        self._reasons: list[str] = []
        self._bound: dict[int, tuple[Any, Jitted]] = {}
        self._seen: dict[Any, Compiled] = {}

    @property
    def misses(self) -> list[str]:
        """Why the function was traced, once for each time."""
        return list(self._reasons)

    @property
    def executables(self) -> list[Executable]:
        """Every executable made so far."""
        return [v.executable for c in self._cache.values() for v in c.variants]

    def __repr__(self) -> str:
        return f"<jit {getattr(self.function, '__name__', 'function')}: {len(self._cache)} signatures>"

    def __call__(self, *args: Any, **named: Any) -> Any:
        front = current()
        usual = None
        if front is default() and not named:
            try:  # tensors only: their layouts are the signature
                usual = tuple([(x.layout, x.requires_grad) for x in args])
                first = self._seen[usual].variants[0]
                if first.quick is not None and first.holds():
                    return first.quick(args)
            except (AttributeError, KeyError):
                pass
        if tracing():
            return self.function(*args, **named)
        leaves, structure = tree.flatten((args, named))
        described = [_describe(x) for x in leaves]
        graded = tuple([d.__class__ is GradSpec for d in described])  # equal to a Spec, and yet another signature
        key = (structure, tuple(described), bool(front.grad_enabled), graded)
        compiled = self._cache.get(key)
        if compiled is None:
            compiled = self._miss(args, named, key, leaves, structure, described)
        if usual is not None and compiled._direct:
            self._seen[usual] = compiled
        known = len(compiled.misses)
        executable = compiled._fitting().executable
        self._reasons += compiled.misses[known:]
        return executable(*(x for x, d in zip(leaves, described, strict=True) if isinstance(d, Spec)))

    def _miss(
        self, args: Any, named: Any, key: Any, leaves: list[Any], structure: Any, described: list[Any]
    ) -> Compiled:
        names = argument_names(self.function, args, named)
        reason = self._reason(key, names)
        specs, kwargs = tree.unflatten(
            structure, iter([d if isinstance(d, Spec) else x for d, x in zip(described, leaves, strict=True)])
        )
        compiled = Compiled(self.function, self._passes, self._verify)
        compiled.prepare(specs, kwargs, reason)
        self._cache[key] = compiled
        self._reasons.append(reason)
        return compiled

    def _reason(self, key: Any, names: list[str]) -> str:
        if not self._cache:
            return "first call"
        nearest = min(self._cache, key=lambda old: (old[0] != key[0], len(_differences(old, key, names))))
        return "; ".join(_differences(nearest, key, names))


def _differences(old: Any, new: Any, names: list[str]) -> list[str]:
    if old[0] != new[0]:
        return ["the structure of the arguments"]
    found = []
    for name, was, now in zip(names, old[1], new[1], strict=True):
        if was == now:
            continue
        if isinstance(was, Spec) and isinstance(now, Spec):
            if was.shape != now.shape:
                found.append(f"argument {name}: shape {was.shape} → {now.shape}")
            if was.dtype != now.dtype:
                found.append(f"argument {name}: dtype {was.dtype} → {now.dtype}")
        else:
            found.append(f"argument {name}: {_shown(was)} → {_shown(now)}")
    if old[2] != new[2]:
        found.append(f"gradients enabled: {old[2]} → {new[2]}")
    for name, was, now in zip(names, old[3], new[3], strict=True):
        if was != now:
            found.append(f"argument {name}: requires_grad {was} → {now}")
    return found


def _shown(description: Any) -> str:
    if isinstance(description, Spec):
        return str(description)
    kind, value = description
    return str(value) if kind is float else shown(value)


def _describe(x: Any) -> Any:
    """A tensor's spec, or a Python constant with its type (1, 1.0 and True are equal but not the same)."""
    if isinstance(x, TensorMethods):
        return GradSpec(*x.spec) if x.requires_grad else x.spec
    if isinstance(x, (bool, int, float)):  # numpy.float64 is a Python float, and weak as one in both modes
        return (float, repr(float(x))) if isinstance(x, float) else (type(x), x)
    if isinstance(x, np.ndarray):
        return Spec(x.shape, dtype_name(x.dtype))
    if isinstance(x, np.generic):
        array = as_array(x)
        return Spec(array.shape, array.dtype.name)
    try:
        hash(x)
    except TypeError:
        raise GraphError(
            f"jit: got an argument of type {type(x).__name__}, which is neither a tensor nor a hashable constant; pass "
            "tensors, numbers, strings or nested tuples, lists and dictionaries of them"
        ).at(here(3)) from None
    return (type(x), repr(x) if isinstance(x, float) else x)
