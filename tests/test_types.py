"""Public signatures: an editor knows what is taken and what is given, and a type checker infers it through user code."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dualgraph
from dualgraph import compare, data, eager, errors, extend, models, nn, optim, static
from dualgraph.ops import types as words

ROOT = Path(__file__).resolve().parents[1]
MODULES = (dualgraph, eager, nn, nn.functional, nn.init, optim, data, static, extend, models, compare, errors)

HOOK = "the arguments and results of any function or module that somebody else writes"
FRONT_END = "front ends and operations speak it among themselves"

# What may hold `Any`, and why: a name as in `name of a callable`, or that of a class for all of its members.
EXCEPTIONS: dict[str, str] = {}

# Operations whose signatures are still to come.
TO_COME: tuple[str, ...] = ()


class Signature(NamedTuple):
    """A public callable, property or attribute, with what it is annotated with; None where something is not."""

    name: str
    annotations: dict[str, Any]


class Foreign:
    """A class of a package that has no types at run time, with any parameters."""

    def __class_getitem__(cls, _: Any) -> type:
        return cls


@functools.cache
def names_of(module: str) -> dict[str, Any]:
    """What annotations of a module can name: its globals, and what it imports for type checkers alone."""
    source = inspect.getsource(sys.modules[module])
    found = dict(vars(sys.modules[module]))
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test):
            for node in block.body:
                if isinstance(node, ast.ImportFrom) and node.module != "typing_extensions":
                    origin = importlib.import_module(node.module)
                    found.update({alias.asname or alias.name: getattr(origin, alias.name) for alias in node.names})
                elif isinstance(node, ast.Import):
                    found.update(
                        {alias.asname or alias.name: importlib.import_module(alias.name) for alias in node.names}
                    )
    found["networkx"] = types.SimpleNamespace(MultiDiGraph=Foreign)  # whose parameter exists for type checkers alone
    return found


def public_names(module: types.ModuleType) -> list[str]:
    """`__all__`, or what is defined there."""
    here = [name for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in here if not name.startswith("_")]))


def is_ours(f: Any) -> bool:
    return inspect.isfunction(f) and Path(f.__code__.co_filename).is_relative_to(Path(dualgraph.__file__).parent)


def functions_of(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class and of its bases here, operators included."""
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("dualgraph"):
            continue
        for name, member in vars(base).items():
            private = name.startswith("_") and not name.endswith("__")
            if private or name in seen:
                continue
            seen.add(name)
            if isinstance(member, property):
                yield from ((f"{base.__name__}.{name}", f) for f in (member.fget, member.fset) if f is not None)
            elif isinstance(member, functools.cached_property):
                yield f"{base.__name__}.{name}", member.func
            else:
                yield f"{base.__name__}.{name}", inspect.unwrap(getattr(member, "__func__", member))


def public_functions() -> dict[str, Any]:
    """Every public function and method once, by a name such as `Tensor.sum` or `nn.functional.relu`."""
    found: dict[int, tuple[str, Any]] = {}
    for module in MODULES:
        prefix = module.__name__.removeprefix("dualgraph").removeprefix(".")
        for name in public_names(module):
            value = getattr(module, name)
            pairs = functions_of(value) if isinstance(value, type) else [(f"{prefix}.{name}".lstrip("."), value)]
            for label, f in pairs:
                if is_ours(f):
                    found.setdefault(id(f), (label, f))
    return {f"{label}": f for label, f in found.values()}


def signatures(name: str, f: Any) -> list[Signature]:
    """The overloads of a function, or its only signature."""
    return [annotated(name, g) for g in typing.get_overloads(f) or [f]]


def annotated(name: str, f: Any) -> Signature:
    parameters = list(inspect.signature(f).parameters.values())
    method = "." in f.__qualname__ and parameters and parameters[0].name in ("self", "cls", "kind")
    names = [p.name for p in parameters[1 if method else 0 :]]
    hints = typing.get_type_hints(f, names_of(f.__module__) if f.__module__ in sys.modules else None)
    given = dict.fromkeys([*names, *(() if name.endswith("__init__") else ("return",))])
    return Signature(name, {key: hints.get(key) for key in given})


def holds_any(hint: Any) -> bool:
    """Whether `Any` is, or stands within, an annotation; NumPy's own, of an array's dtype and shape, aside."""
    if hint is Any:
        return True
    if isinstance(hint, (list, tuple)):
        return any(map(holds_any, hint))
    if typing.is_typeddict(hint):
        return any(map(holds_any, typing.get_type_hints(hint, vars(words)).values()))
    if typing.get_origin(hint) in (np.ndarray, np.dtype, np.integer, np.floating, typing.Literal):
        return False
    return any(map(holds_any, typing.get_args(hint)))


FUNCTIONS = public_functions()
if __name__ == "__main__":
    bad = {}
    for n, f in FUNCTIONS.items():
        for s in signatures(n, f):
            if any(h is None or holds_any(h) for h in s.annotations.values()):
                bad[n] = s.annotations
    print(len(FUNCTIONS), len(bad))
    for n, a in bad.items():
        print(n, FUNCTIONS[n].__module__, {k: v for k, v in a.items() if v is None or holds_any(v)})
