"""Who imports whom, read from the sources: floors, rooms, no circles, no import inside a function without a reason."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A folder imports from lower floors and from itself; `dualgraph` is the public `__init__`.
FLOORS = (
    ("startup", "signals", "dtypes", "spec", "exact", "tree", "errors", "config", "bits", "locks", "types", "device"),
    ("kernels",),
    ("core",),
    ("ops",),
    ("autodiff",),
    ("extend",),
    ("eager", "static"),
    ("nn", "optim", "data"),
    ("dualgraph",),
    ("models",),
    ("compare",),
    ("cli",),
    ("__main__",),
)
FLOOR = {folder: number for number, row in enumerate(FLOORS) for folder in row}

# The rooms of a folder, from the ground up, where its own files are that are not named here. A room imports from lower
# ones and from itself.
ROOMS = {
    "dualgraph.kernels": (("cpu", "reference"), ("llvm",), ("provider",)),
    "dualgraph.kernels.llvm": (
        ("maths",),
        ("loops",),
        ("indexing", "products", "sorting"),
        ("runtime",),
        ("codegen",),
        ("engine",),
        ("selection",),
        ("loading",),
    ),
    "dualgraph.ops": (
        ("registry", "symbol", "callbacks"),
        ("identity", "scalar"),
        ("elementwise",),
        ("composite", "shape"),
        ("reduce", "creation", "indexing"),
        ("statistics",),
        ("activations", "linalg", "losses", "normalization", "random", "sorting"),
        ("public",),
    ),
}

# Lower, and still not for them: what runs in both modes knows neither.
APART = dict.fromkeys(("nn", "optim", "data", "models"), ("eager", "static"))

# What a function may import, and why it is not imported at the top.
LAZY = {
    "cupy": "optional; needs a GPU to be of use",
    "llvmlite": "45 ms; not needed by the reference kernels",
    "ml_dtypes": "4 ms; needed for bfloat16 only",
    "networkx": "150 ms; needed by static graphs only",
    "platformdirs": "20 ms; not needed where the cache directory is given",
    "rich": "needed on a terminal only",
    "threadpoolctl": "needed at the first matrix product",
    "dualgraph.kernels.llvm": "its emitters import llvmlite",
    "dualgraph.signals": "of the command alone",
}


class Import(NamedTuple):
    target: str  # dotted name of the imported module
    line: int
    in_function: bool
    name: str = ""  # what is imported from the module


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("dualgraph", *parts) if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# What stands in for cli in a checkout comes first, the real one takes its name.
FILES = {module_name(path): path for top in ("dualgraph", "cli") for path in sorted((ROOT / top).rglob("*.py"))}


def imports(name: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """All imports of a module, those for type checkers included."""
    package = name if is_package else name.rpartition(".")[0]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in FILES else base, node.lineno, in_function, alias.name)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(source), False)


@functools.cache
def imports_of(name: str) -> list[Import]:
    return list(imports(name, FILES[name].read_text("utf-8"), FILES[name].name == "__init__.py"))


def folder(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "dualgraph"


def upward(name: str, found: list[Import]) -> list[str]:
    """The imports that break the floors, in words."""
    own = folder(name)
    faults = []
    for target, line, *_ in found:
        if target.split(".")[0] != "dualgraph":
            continue
        other = folder(target)
        same_folder = own == other or (own in FLOORS[0] and other in FLOORS[0])
        if not same_folder and (FLOOR[other] >= FLOOR[own] or other in APART.get(own, ())):
            faults.append(f"{name}:{line} ({own}) imports {target} ({other})")
    return faults


def upstairs(name: str, found: list[Import]) -> list[str]:
    """The imports that break the order of rooms, in words."""
    faults = []
    for package, rows in ROOMS.items():
        level = {room: number for number, row in enumerate(rows) for room in row}
        for target, line, *_ in found:
            if name.startswith(f"{package}.") and target.startswith(f"{package}."):
                own, other = (module.removeprefix(f"{package}.").split(".")[0] for module in (name, target))
                if own != other and other in level and level[other] >= level.get(own, -1):
                    faults.append(f"{name}:{line} ({own}) imports {target} ({other})")
    return faults


def reached(start: str, leads_to: dict[str, set[str]]) -> set[str]:
    seen, stack = set[str](), [start]
    while stack:
        new = leads_to[stack.pop()] - seen
        seen |= new
        stack += new
    return seen


def circles(leads_to: dict[str, set[str]]) -> list[list[str]]:
    """The modules that lead back to themselves, those that lead to each other in one list."""
    ends = {name: reached(name, leads_to) for name in leads_to}
    rings = {frozenset(other for other in ends[name] if name in ends[other]) for name in ends if name in ends[name]}
    return sorted(map(sorted, rings))


# What signatures are written with, which is there for type checkers alone: `test_types` holds that nothing runs it.
WORDS = {"dualgraph.types", "dualgraph.core.types"}


@functools.cache
def edges() -> dict[str, set[str]]:
    return {name: {found.target for found in imports_of(name)} & FILES.keys() - {name} - WORDS for name in FILES}


def hidden(name: str, found: list[Import]) -> list[str]:
    """The imports inside functions that have no reason in `LAZY`."""
    return [
        f"{name}:{line} imports {target} inside a function"
        for target, line, in_function, _ in found
        if in_function and not any(target == lazy or target.startswith(lazy + ".") for lazy in LAZY)
    ]


def test_every_module_has_a_floor():
    assert {folder(name) for name in FILES} <= set(FLOOR), "give the new module or folder its place in FLOORS"


@pytest.mark.parametrize("name", FILES)
def test_floors(name):
    assert upward(name, imports_of(name)) == []


@pytest.mark.parametrize("name", [name for name in FILES if any(name.startswith(f"{package}.") for package in ROOMS)])
def test_rooms(name):
    assert upstairs(name, imports_of(name)) == []


def test_every_room_is_there():
    for package, rows in ROOMS.items():
        assert {f"{package}.{room}" for row in rows for room in row} <= FILES.keys()


@pytest.mark.parametrize("part", sorted(FLOOR))
def test_no_circles(part):
    """Not even among imports that are inside functions or for type checkers, the words of signatures (`WORDS`) left out."""
    assert [ring for ring in circles(edges()) if any(folder(name) == part for name in ring)] == []


def test_the_key_of_machine_code_covers_what_emitters_import():
    """But for what has no part in code: the words of errors, settings (which are in the key themselves)."""
    pytest.importorskip("llvmlite")
    from dualgraph.kernels.llvm import engine

    here = Path(engine.__file__).parents[2]
    covered = {path.relative_to(here) for path in engine._sources()}
    imported = reached("dualgraph.kernels.llvm.codegen", edges())
    without = {"dualgraph.errors", "dualgraph.config", "dualgraph.locks"}
    assert {name for name in imported if FILES[name].relative_to(ROOT / "dualgraph") not in covered} <= without


@pytest.mark.parametrize("name", FILES)
def test_no_import_inside_functions(name):
    assert hidden(name, imports_of(name)) == []


def test_dependencies_are_those_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    used = {found.target.split(".")[0] for name in FILES for found in imports_of(name)}
    brought = {"typing_extensions"}  # by every type checker, for which alone it is imported
    assert used - set(sys.stdlib_module_names) - {"dualgraph", "cupy", "cupyx"} - brought == declared


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("dualgraph.eager.tape", "import dualgraph.static.graph", "(eager) imports dualgraph.static.graph (static)"),
        ("dualgraph.static.graph", "from dualgraph import eager", "(static) imports dualgraph"),
        ("dualgraph.kernels.llvm.engine", "from ... import ops", "(kernels) imports dualgraph"),
        ("dualgraph.kernels.fusion", "from ..core.op import Op", "(kernels) imports dualgraph.core.op (core)"),
        ("dualgraph.core.op", "from dualgraph import tensor", "(core) imports dualgraph (dualgraph)"),
        ("dualgraph.core.value", "from dualgraph.ops import shape", "(core) imports dualgraph.ops.shape (ops)"),
        ("dualgraph.optim.adam", "from dualgraph.nn import Module", "(optim) imports dualgraph.nn (nn)"),
        ("dualgraph.nn.linear", "import dualgraph.eager", "(nn) imports dualgraph.eager (eager)"),
        (
            "dualgraph.nn.module",
            "from dualgraph.eager.tape import Tape",
            "(nn) imports dualgraph.eager.tape (eager)",
        ),
        (
            "dualgraph.models.mlp",
            "if TYPE_CHECKING:\n  from dualgraph.static import Graph",
            "(models) imports dualgraph.static",
        ),
        ("dualgraph.spec", "from dualgraph.kernels import expr", "(spec) imports dualgraph.kernels"),
    ],
)
def test_an_upward_import_is_caught(name, source, fault):
    (found,) = upward(name, list(imports(name, source)))
    assert fault in found


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dualgraph.errors", "from dualgraph.spec import Spec"),
        ("dualgraph.models.mlp", "import dualgraph as dg\nfrom dualgraph import nn"),
        ("dualgraph.nn.parameter", "from dualgraph.core.value import Variable"),
        ("dualgraph.cli.main", "from . import graph\nfrom .graph import command\nfrom dualgraph.compare import report"),
        ("dualgraph.kernels.llvm.engine", "from llvmlite import ir\nfrom ..program import Program"),
    ],
)
def test_a_right_import_passes(name, source):
    assert upward(name, list(imports(name, source))) == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        (
            "dualgraph.kernels.llvm.loops.rows",
            "from dualgraph.kernels.llvm.products.code import emit_zero",
            "(loops) imports dualgraph.kernels.llvm.products.code (products)",
        ),
        ("dualgraph.kernels.llvm.products.code", "from dualgraph.kernels.llvm import indexing", "(products) imports"),
        ("dualgraph.kernels.llvm.lanes", "def f():\n  from dualgraph.kernels.llvm.maths import exp", "(lanes) imports"),
        ("dualgraph.kernels.memory", "from dualgraph.kernels import provider", "(memory) imports"),
        ("dualgraph.ops.shape", "from dualgraph.ops import creation", "(shape) imports dualgraph.ops.creation"),
    ],
)
def test_an_import_from_upstairs_is_caught(name, source, fault):
    (found,) = upstairs(name, list(imports(name, source)))
    assert fault in found


def test_a_circle_is_found():
    leads_to = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert circles(leads_to) == [["b", "c"], ["e"]]


def test_an_import_inside_a_function_is_caught():
    source = "import os\ndef f():\n  import networkx as nx\n  class A:\n    import json\n"
    found = list(imports("dualgraph.static.graph", source))
    assert hidden("dualgraph.static.graph", found) == ["dualgraph.static.graph:5 imports json inside a function"]
