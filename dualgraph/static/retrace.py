"""`verify=True`, at each call: the function is traced again, and must define the graph that is about to run.

Guards know what a trace read as far as it can be found; this asks the function itself. Calls are compared in program
order, constants by their bits, variables and captured tensors by identity, then what a run leaves, then the results. The
second graph is thrown away: what its definition did in Python stays, as after an eager call, and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import zip_longest
from types import FunctionType, MethodType, ModuleType
from typing import Any

from dualgraph import tree
from dualgraph.bits import same_bits
from dualgraph.errors import GraphError, Where, shown
from dualgraph.exact import attributes, exact, plainly
from dualgraph.ops.op import Call, Op
from dualgraph.ops.symbol import CONSTANT, PLACEHOLDER, Constant, Symbol
from dualgraph.ops.tensor import Tensor
from dualgraph.static.conditions import worded
from dualgraph.static.dag import GRADIENT, VARIABLE
from dualgraph.static.executable import Executable
from dualgraph.static.graph import Argument, Graph, Variable
from dualgraph.static.tracing import Given, name_of, trace_given

MEND = "nothing that is guarded has changed: pass it as an argument, or keep it in a buffer or a module's attribute"



def _left(v: Variable) -> tuple[Any, ...]:
    """The flag and the hooks that a tensor has before a run and after it."""
    if isinstance(v.tensor, Argument):
        return v.tracked, v.hooks, v.value.tracked, tuple(v.value.hooks or ())
    return v.tracked, v.hooks, v.final_tracked, v.final_hooks


# What a run does to a tensor.
_EFFECTS: dict[str, Callable[[Variable], Any]] = {
    "gives it another value": lambda v: v.value if v.updated else None,
    "leaves another .grad": lambda v: (v.touched, v.final_gradient),
    "reads .grad otherwise": lambda v: (v.gradient_was_none, v.defaulted, v.gradient),
    "leaves another requires_grad or other hooks": _left,
}


def retrace(
    executable: Executable,
    function: Callable[..., Any],
    specs: tuple[object, ...],
    named: dict[str, object],
    given: dict[int, Given],
) -> None:
    """Trace `function` again and compare with what `executable` was compiled from."""
    graph = Graph()
    outputs = trace_given(graph, function, specs, named, given).outputs
    graph.closed = "the graph was defined for a comparison; its symbols mean nothing outside: return what you need"
    different = Comparison(executable.graph, graph).first(executable.defined_outputs, tree.flatten(outputs))
    if different is not None:
        words, where = different
        raise GraphError(f"verify: {name_of(function)}, traced again, {words}; {MEND}").at(where)


class Comparison:
    """Two definitions, call by call."""

    def __init__(self, then: Graph, now: Graph):
        self._then, self._now = then, now
        self._calls = list(zip_longest(then.calls, now.calls))
        self._places = {c: n for n, pair in enumerate(self._calls) for c in pair if c is not None}
        arguments = (enumerate(graph.arguments) for graph in (then, now))
        self._numbers = {key: number for found in arguments for number, key in found}  # of arguments, by identity

    def first(self, then: tuple[list[Any], Any], now: tuple[list[Any], Any]) -> tuple[str, Where | None] | None:
        """The first difference in words, and the user's line; None if there is none. `then`, `now`: the results."""
        for old, new in self._calls:
            words = self._call(old, new)
            if words:
                return words, (new or old).where
        words = self._effects() or self._results(*then, *now)
        return (words, None) if words else None

    def _call(self, then: Call | None, now: Call | None) -> str | None:
        if then is None or now is None or not self._same(then.op, now.op):
            return f"has {_said(now)} where the compiled graph has {_said(then)}"
        if then.op in (VARIABLE, GRADIENT):
            same = self._key(then.params["key"]) == self._key(now.params["key"])
            return None if same else f"reads {_said(now)} where the compiled graph reads {_said(then)}"
        for name, old in then.params.items():
            new = now.params.get(name)
            if not self._same(old, new):
                return (
                    self._constant(now, old, new)
                    if now.op is CONSTANT
                    else _instead(f"{now.op} has {name} =", new, old)
                )
        for number, (x, y) in enumerate(zip(then.inputs, now.inputs, strict=True)):
            if not self._same(x, y):
                return f"has, as operand {number} of {now.op}, {_told(y)} where the compiled graph has {_told(x)}"
        return None if then.specs == now.specs else _instead(f"{now.op} gives", now.specs, then.specs)

    def _constant(self, call: Call, then: Constant, now: Constant) -> str:
        reader = next(iter(self._now.dag.successors(call)), None)
        return _instead(
            "has" if reader is None else f"{reader.op} takes", now.array, then.array, "takes" if reader else "has"
        )

    def _effects(self) -> str | None:
        then, now = self._then, self._now
        for records in (then.variables, now.variables):
            for key, v in records.items():
                if key not in then.variables or key not in now.variables:
                    more = "reads" if records is now.variables else "no longer reads"
                    return f"{more} {_said(v.node)}"
        pairs = [*((v, now.variables[key]) for key, v in then.variables.items())]
        pairs += zip(then.arguments.values(), now.arguments.values(), strict=True)
        for old, new in pairs:
            for words, what in _EFFECTS.items():
                if not self._same(what(old), what(new)):
                    return f"{words} than the compiled graph: {_said(new.node)}"
            if (id(old.tensor) in then.switched) != (id(new.tensor) in now.switched):
                return f"changes requires_grad or hooks otherwise than the compiled graph: {_said(new.node)}"
        return None

    def _results(self, then: list[Any], structure: Any, now: list[Any], now_structure: Any) -> str | None:
        if structure != now_structure:
            return _instead("returns", tree.describe(now_structure), tree.describe(structure), "returns", str)
        for old, new in zip(then, now, strict=True):
            if not self._same(old, new) or not self._same(_source(old), _source(new)):
                return _instead(
                    "returns", new, old, "returns", lambda x: _told(x) if isinstance(x, Symbol) else worded(x)
                )
        return None

    def _key(self, key: int) -> tuple[bool, int]:
        """Which tensor a leaf stands for: arguments by number."""
        return key in self._numbers, self._numbers.get(key, key)

    def _same(self, x: Any, y: Any, inside: frozenset[tuple[int, int]] = frozenset()) -> bool:
        """Whether what the two traces hold in one place is the same to every program."""
        if x is y or (id(x), id(y)) in inside:
            return True
        if type(x) is not type(y):
            return False
        if isinstance(x, Symbol):
            places = [(self._places.get(s.node), s.index, s.tracked, s.call is None) for s in (x, y)]
            return places[0] == places[1]
        if isinstance(x, Constant):
            return x.operand == y.operand and same_bits(x.array, y.array)
        if isinstance(x, Argument):
            return self._key(id(x)) == self._key(id(y))
        if isinstance(x, (Tensor, type, ModuleType)):
            return False
        if exact(x) == exact(y):
            return True
        held = [_parts(v) for v in (x, y)]
        inside = inside | {(id(x), id(y))}
        return (
            held[0] is not None
            and held[1] is not None
            and len(held[0]) == len(held[1])
            and all(self._same(a, b, inside) for a, b in zip(*held, strict=True))
        )


def _parts(x: Any) -> list[Any] | None:
    """What an object that a trace made consists of; None where one cannot see it."""
    if isinstance(x, FunctionType):
        cells = [plainly(cell, "cell_contents") for cell in x.__closure__ or ()]
        return [x.__code__, x.__defaults__, x.__kwdefaults__, *cells]
    if isinstance(x, MethodType):
        return [x.__func__, x.__self__]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, Op):  # one that is defined by the traced function
        made = next(v for v in (x.composition, x.scalar, x.lower) if v is not None)
        return [x.name, x.pure, x.checks, made]
    if isinstance(x, (tuple, list)):
        return list(x)
    if isinstance(x, dict):
        return [*x.keys(), *x.values()]
    held = attributes(x)
    return [*held, *held.values()] or None


def _source(x: Any) -> Any:
    """What is returned in the place of a symbol that was not computed."""
    return x.source if isinstance(x, Symbol) else None


def _instead(what: str, now: object, then: object, verb: str = "has", say: Callable[[Any], str] = shown) -> str:
    """What is there now and what was there then; where both look alike, that they are not."""
    found = [say(v) for v in (now, then)]
    if found[0] == found[1]:
        return f"{what} another {found[0]} than the compiled graph {verb}"
    return f"{what} {found[0]} where the compiled graph {verb} {found[1]}"


def _said(call: Call | None) -> str:
    """A call in words."""
    if call is None:
        return "no further call"
    if call.op is CONSTANT:
        return f"the constant {shown(call.params['value'].array)}"
    if call.op in (VARIABLE, GRADIENT, PLACEHOLDER):
        name = call.params["name"]
        what = {VARIABLE: "the variable", GRADIENT: "the .grad of", PLACEHOLDER: "the argument"}[call.op]
        return f"{what} {name!r} ({call.specs[0]})" if name else f"{what} a tensor of {call.specs[0]}"
    return f"a call of {call.op}"


def _told(x: Symbol) -> str:
    """A value in words."""
    if not x.node.inputs:
        return _said(x.node)
    line = f" (line {x.node.where.line})" if x.node.where is not None else ""
    return f"the result of {x.node.op}{line}"
