"""`verify=True`, at each call: the function is traced again, and must define the graph that is about to run.

Guards know what a trace read as far as it can be found; this asks the function itself. Calls are compared in program
order, constants by their bits, variables and captured tensors by identity, then what a run leaves, then the results. The
second graph is thrown away: what its definition did in Python stays, as after an eager call, and nothing else.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from itertools import zip_longest
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from dualgraph import tree
from dualgraph.bits import same_bits
from dualgraph.core.op import Call, Op
from dualgraph.core.tensor import Tensor
from dualgraph.errors import GraphError, Where, shown
from dualgraph.exact import attributes, exact, plainly
from dualgraph.ops.callbacks import Callback
from dualgraph.ops.symbol import CONSTANT, PLACEHOLDER, Constant, Symbol
from dualgraph.static.conditions import is_plain
from dualgraph.static.dag import GRADIENT, VARIABLE
from dualgraph.static.executable import Executable
from dualgraph.static.following import VIEWS, class_is_users
from dualgraph.static.graph import Argument, Graph, Link
from dualgraph.static.tracing import Given, name_of, trace_given

MEND = "nothing that is guarded has changed: pass it as an argument, or keep it in a buffer or a module's attribute"


def _left(v: Link) -> tuple[Any, ...]:
    """The flag and the hooks that a tensor has before a run and after it."""
    if isinstance(v.tensor, Argument):
        return v.tracked, v.hooks, v.value.tracked, tuple(v.value.hooks or ())
    return v.tracked, v.hooks, v.final_tracked, v.final_hooks


# What a run does to a tensor.
_EFFECTS: dict[str, Callable[[Link], Any]] = {
    "gives another value than the compiled graph to": lambda v: v.value if v.updated else None,
    "leaves another .grad than the compiled graph in": lambda v: (v.touched, v.final_gradient),
    "reads .grad otherwise than the compiled graph of": lambda v: (v.gradient_was_none, v.defaulted, v.gradient),
    "leaves another requires_grad or other hooks than the compiled graph in": _left,
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
        raise GraphError(f"verify: {name_of(function)}, traced again: {words}; {MEND}").at(where)


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
            return _instead("has", _said(now), _said(then))
        if then.op in (VARIABLE, GRADIENT):
            same = self._key(then.params["key"]) == self._key(now.params["key"])
            return None if same else _instead("reads", _said(now), _said(then))
        for name, old in then.params.items():
            new = now.params[name]
            if not self._same(old, new):
                reader = next(iter(self._now.dag.successors(now)), None)
                takes = "has" if reader is None else f"{reader.op} takes"
                return _instead(takes if now.op is CONSTANT else f"{now.op} has {name} =", _worded(new), _worded(old))
        for number, (x, y) in enumerate(zip(then.inputs, now.inputs, strict=True)):
            if self._place(x) != self._place(y):
                return _instead(f"operand {number} of {now.op} is", _worded(y), _worded(x))
        if then.tracked != now.tracked:
            return _instead(f"{now.op} takes gradients:", _worded(now.tracked), _worded(then.tracked))
        return None if then.specs == now.specs else _instead(f"{now.op} gives", _worded(now.specs), _worded(then.specs))

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
                    return f"{words} {_said(new.node)}"
            if (id(old.tensor) in then.switched) != (id(new.tensor) in now.switched):
                return f"switches requires_grad or hooks otherwise than the compiled graph of {_said(new.node)}"
        return None

    def _results(self, then: list[Any], structure: Any, now: list[Any], now_structure: Any) -> str | None:
        if not self._same(structure, now_structure):
            return _instead("returns", tree.describe(now_structure), tree.describe(structure))
        for old, new in zip(then, now, strict=True):
            if not self._same(old, new) or not self._same(_source(old), _source(new)):
                return _instead("returns", _worded(new), _worded(old))
        return None

    def _key(self, key: int) -> tuple[bool, int]:
        """Which tensor a leaf stands for: arguments by number."""
        return key in self._numbers, self._numbers.get(key, key)

    def _place(self, x: Symbol) -> tuple[int | None, int]:
        return self._places.get(x.node), x.index

    def _same_class(self, x: type, y: type) -> bool:
        """Whether two classes are one that the function defines anew each time: by names, bases, methods, constants."""
        if (x.__module__, x.__qualname__, x.__bases__, [*vars(x)]) != (
            y.__module__,
            y.__qualname__,
            y.__bases__,
            [*vars(y)],
        ):
            return False
        pairs = zip(vars(x).values(), vars(y).values(), strict=True)
        held = (FunctionType, list, dict, set)
        return all(self._same(a, b) for a, b in pairs if isinstance(a, held) or is_plain(a))

    def _same(self, x: Any, y: Any, inside: frozenset[tuple[int, int]] = frozenset()) -> bool:
        """Whether what the two traces hold in one place is the same to every program."""
        if x is y or (id(x), id(y)) in inside:
            return True
        if not (type(x) is type(y) or self._same_class(type(x), type(y))):
            return False
        if isinstance(x, Symbol):
            states = [(self._place(s), s.tracked, s.call is None) for s in (x, y)]
            return states[0] == states[1]
        if isinstance(x, Constant):
            return x.operand == y.operand and same_bits(x.array, y.array)
        if isinstance(x, Argument):
            return self._key(id(x)) == self._key(id(y))
        if isinstance(x, type):
            return isinstance(y, type) and self._same_class(x, y)
        if isinstance(x, (Tensor, ModuleType)):
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
        made = x.composition or (x.lower if x.scalar is None else x.scalar.expression)
        return [x.name, x.pure, made]
    if isinstance(x, Callback):
        return [x._function, x._params]
    if isinstance(x, (tuple, list)):
        return list(x)
    if isinstance(x, dict):
        return [*x.keys(), *x.values()]
    if isinstance(x, (deque, *VIEWS)) or (isinstance(x, np.ndarray) and x.dtype.hasobject):
        return [*iter(x)]  # type: ignore[call-overload]
    held = attributes(x)
    if isinstance(x, BaseException):
        return [x.args, *held, *held.values()]
    if held or is_plain(x) or isinstance(x, np.ndarray):
        return [*held, *held.values()] or None
    return _reduced(x)


def _reduced(x: Any) -> list[Any] | None:
    """What an object of C's is made again from, if it says that."""
    if class_is_users(type(x)):
        return []
    try:
        made = x.__reduce_ex__(2)
    except Exception:  # of whatever kind: it cannot be made again
        return None
    return list(made) if isinstance(made, tuple) and not any(isinstance(part, Iterator) for part in made) else None


def _source(x: Any) -> Any:
    """What is returned in the place of a symbol that was not computed."""
    return x.source if isinstance(x, Symbol) else None


def _instead(what: str, now: str, then: str) -> str:
    """What is there now, and what is there in the compiled graph; where both look alike, that they are not."""
    return f"{what} {now}, " + ("not the one of the compiled graph" if now == then else f"in the compiled graph {then}")


def _said(call: Call | None) -> str:
    """A call in words."""
    if call is None:
        return "no further call"
    if call.op is CONSTANT:
        return f"the constant {_worded(call.params['value'])}"
    if call.op in (VARIABLE, GRADIENT, PLACEHOLDER):
        name = call.params["name"]
        what = {VARIABLE: "the variable", GRADIENT: "the .grad of", PLACEHOLDER: "the argument"}[call.op]
        return f"{what} {name!r} ({call.specs[0]})" if name else f"{what} {call.specs[0]}"
    return f"a call of {call.op}"


def _worded(x: Any) -> str:
    """A value in words."""
    if isinstance(x, Constant):
        return str(shown(x.array if x.array.shape else x.array.item()))
    if not isinstance(x, Symbol):
        return str(shown(x))
    if not x.node.inputs:
        return _said(x.node)
    line = f" (line {x.node.where.line})" if x.node.where is not None else ""
    return f"the result of {x.node.op}{line}"
