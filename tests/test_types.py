"""Public signatures: an editor knows what is taken and what is given, and a type checker follows it through user code."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgraph
from dualgraph import compare, data, eager, errors, extend, models, nn, optim, static
from dualgraph.core import types as words

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(dualgraph.__file__).parent
MODULES = (dualgraph, eager, nn, nn.functional, nn.init, optim, data, static, extend, models, compare, errors)

HOOK = "gets what any module of the user's takes and gives"

# What may hold `Any`, and why: a callable or an attribute; or a class, for all that it says and its subclasses say anew.
EXCEPTIONS = {
    "Value.tolist": "lists nested as deep as there are axes, which is known only when the program runs",
    "Value.__dlpack__": "a capsule: Python has a name for its type from 3.13 on",
    "Module.forward": "modules take and give whatever they are written for; calling one has the types of its forward",
    "Module.register_forward_hook": HOOK,
    "Module.register_forward_pre_hook": HOOK,
    "DataLoader.__init__": "batches have the structure of the user's examples with arrays as leaves: no type says that",
    "Report.environment": "what JSON can hold, of many kinds",
    "Compiled.__getattr__": "the rest is its executable's, where it has types",
}


class Foreign:
    """A class with parameters that exist for type checkers alone."""

    def __class_getitem__(cls, _: Any) -> type:
        return cls


@functools.cache
def names_of(module: str) -> dict[str, Any]:
    """What annotations of a module can name: its globals, and what it imports for type checkers alone."""
    found = dict(vars(sys.modules[module]))
    blocks = [x for x in ast.parse(inspect.getsource(sys.modules[module])).body if isinstance(x, ast.If)]
    for node in (x for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING" for x in block.body):
        if isinstance(node, ast.ImportFrom) and node.module != "typing_extensions":
            origin = importlib.import_module(node.module)
            found.update({alias.name: getattr(origin, alias.name) for alias in node.names})
    found["networkx"] = types.SimpleNamespace(MultiDiGraph=Foreign)
    return found


def hints_of(thing: Any, module: str) -> dict[str, Any]:
    """The annotations of a function, or those of a class without those of its bases."""
    own = types.SimpleNamespace(__annotations__=vars(thing).get("__annotations__", {}))
    return typing.get_type_hints(own if isinstance(thing, type) else thing, names_of(module))


def public_names(module: types.ModuleType) -> list[str]:
    """`__all__`, or what is defined there."""
    here = [name for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in here if not name.startswith("_")]))


def public_things() -> Iterator[tuple[str, Any]]:
    for module in MODULES:
        prefix = module.__name__.removeprefix("dualgraph").removeprefix(".")
        yield from ((f"{prefix}.{name}".lstrip("."), getattr(module, name)) for name in public_names(module))


def is_ours(f: Any) -> bool:
    return inspect.isfunction(f) and Path(f.__code__.co_filename).is_relative_to(PACKAGE)


def bases_of(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.startswith("dualgraph")]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def functions_of(member: Any) -> list[Any]:
    """What can be called of a member of a class."""
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if f is not None]
    if isinstance(member, functools.cached_property):
        return [member.func]
    return [getattr(member, "__func__", member)]


def public_functions() -> dict[str, list[Any]]:
    """Public functions, methods, operators and properties, by names such as `Tensor.sum` or `nn.functional.dropout`."""
    found: dict[str, list[Any]] = {}
    seen: set[int] = set()
    for name, thing in public_things():
        pairs = [(name, thing)]
        if isinstance(thing, type):
            members = ((base, n, x) for base in bases_of(thing) for n, x in vars(base).items() if not is_private(n))
            pairs = [(f"{base.__name__}.{n}", f) for base, n, x in members for f in functions_of(x)]
        for label, f in pairs:
            if is_ours(f) and id(f) not in seen:
                seen.add(id(f))
                found.setdefault(label, []).append(f)
    return found


def public_attributes() -> dict[str, Any]:
    """What public classes say of their attributes."""
    return {
        f"{base.__name__}.{name}": hint
        for base in CLASSES.values()
        for name, hint in hints_of(base, base.__module__).items()
        if not name.startswith("_")
    }


def annotations(f: Any) -> dict[str, Any]:
    """The parameters and the result of a function with what they are annotated with; `inspect.Parameter.empty` if not."""
    empty = inspect.Parameter.empty
    names = list(inspect.signature(f).parameters)
    hints = hints_of(f, f.__module__)
    if names and names[0] in ("self", "cls") and names[0] not in hints:
        del names[0]
    result = () if f.__name__ in ("__init__", "__new__") else ("return",)
    return {name: hints.get(name, empty) for name in (*names, *result)}


def vague(f: Any) -> list[str]:
    """The parameters (and "return") without a type, or with one that holds `Any`, in any overload."""
    signatures = [annotations(g) for g in typing.get_overloads(f) or [f]]
    return [name for found in signatures for name, hint in found.items() if holds_any(hint)]


def holds_any(hint: Any) -> bool:
    """Whether `Any` is, or stands within, an annotation; NumPy's own, of an array's dtype and shape, aside."""
    if hint is Any or hint is inspect.Parameter.empty:
        return True
    if isinstance(hint, (list, tuple)):
        return any(map(holds_any, hint))
    if typing.is_typeddict(hint):
        return any(map(holds_any, typing.get_type_hints(hint, vars(words)).values()))
    if typing.get_origin(hint) in (np.ndarray, np.dtype, np.integer, np.floating, typing.Literal):
        return False
    return any(map(holds_any, typing.get_args(hint)))


CLASSES = {base.__name__: base for _, x in public_things() if isinstance(x, type) for base in bases_of(x)}
FUNCTIONS = public_functions()
ATTRIBUTES = public_attributes()


def exception(name: str) -> str | None:
    """The entry by which a name may hold `Any`: its own, or that of a class whose member it is, or says anew."""
    if name in EXCEPTIONS:
        return name
    kind, _, member = name.rpartition(".")
    bases = CLASSES[kind].__mro__ if kind in CLASSES else ()
    return next((b.__name__ for b in bases if b.__name__ in EXCEPTIONS and member in vars(b)), None)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if exception(name) is None])
def test_a_public_function_says_what_it_takes_and_gives(name):
    found = [parameter for f in FUNCTIONS[name] for parameter in vague(f)]
    assert found == [], f"{name}: annotate these with the words of dualgraph.core.types"


def test_public_attributes_have_types():
    assert [name for name, hint in ATTRIBUTES.items() if holds_any(hint) and exception(name) is None] == []


def test_every_exception_is_needed():
    faults = [name for name, fs in FUNCTIONS.items() if any(map(vague, fs))]
    faults += [name for name, hint in ATTRIBUTES.items() if holds_any(hint)]
    assert {exception(name) for name in faults} - {None} == set(EXCEPTIONS)


def test_the_words_load_nothing_at_run_time():
    """Annotations are never evaluated: no module of the package imports their words outside of `TYPE_CHECKING`."""
    allowed = {"types.py"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module in ("dualgraph.types", "dualgraph.core.types"):
                found.append(path.name)
    assert set(found) <= allowed


# What a type checker makes of it


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What mypy says of the programs in `typing/`, line by line."""
    api = pytest.importorskip("mypy.api", reason="mypy is in the extra dev")
    programs = sorted(str(path) for path in (ROOT / "tests" / "typing").glob("*.py"))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path_factory.mktemp("mypy"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(ROOT))
        output, faults, _ = api.run([*options, "--no-error-summary", *programs])
    assert faults == ""
    return output.splitlines()


@pytest.mark.parametrize("program", ["training", "mistakes", "operations"])
def test_types_of_user_code(checked, program):
    assert [line for line in checked if f"{program}.py" in line] == []
