"""The records of dtypes say what NumPy says; all that depends on a dtype knows each one that it is about, and no other."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgraph
from dualgraph import dtypes
from dualgraph.dtypes import COMPUTED, COMPUTED_FLOATS, DTYPES, FLOATS, INTEGERS, NAMES, NUMPY_DTYPES, STORED, Table
from dualgraph.errors import DTypeError
from dualgraph.spec import dtype_name, is_float, promote

PACKAGE = Path(dualgraph.__file__).parent
GROUPS = {NAMES, FLOATS, INTEGERS, COMPUTED, COMPUTED_FLOATS, STORED}


@functools.cache
def modules() -> list[Any]:
    found = pkgutil.walk_packages(dualgraph.__path__, "dualgraph.")
    return [importlib.import_module(m.name) for m in found if not m.name.startswith(("dualgraph.cli", "dualgraph.__"))]


def tables() -> list[tuple[str, Table[Any]]]:
    found = {id(t): (f"{m.__name__}.{n}", t) for m in modules() for n, t in vars(m).items() if isinstance(t, Table)}
    return list(found.values())


def test_every_table_has_a_row_for_every_dtype_that_it_is_about():
    assert all(NUMPY_DTYPES[name].name == name for name in STORED)  # which are looked up late
    for name, table in tables():
        assert set(table) == set(table.over), f"{name} ({table.what})"
        assert tuple(table.over) in GROUPS, name


def test_a_table_asked_for_another_dtype_says_so():
    for _, table in tables():
        with pytest.raises(DTypeError, match=r"got dtype 'float8'; it is known for"):
            table["float8"]
    for fact in (is_float, lambda name: promote(name, "bool"), dtype_name):
        with pytest.raises(DTypeError, match="float8"):
            fact("float8")


def named(node: ast.AST) -> list[str]:
    """The dtypes named by a constant, or by those of a tuple, but for bool, which is the only one of its kind."""
    inner = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    values = [x.value for x in inner if isinstance(x, ast.Constant)]
    return [v for v in values if isinstance(v, str) and (v in NAMES or v == "float") and v not in ("bool", "float")]


def lines_that_test_names(tree: ast.AST) -> Iterator[int]:
    """The lines that compare something with the name of a dtype, or choose by it."""
    inside = {
        id(a) for c in ast.walk(tree) if isinstance(c, ast.Call) and ast.unparse(c.func) == "Table" for a in c.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(named(x) for x in (node.left, *node.comparators)):
            yield node.lineno
        if isinstance(node, ast.Dict) and id(node) not in inside and any(k is not None and named(k) for k in node.keys):
            yield node.lineno
        if isinstance(node, ast.Attribute) and node.attr == "startswith" and "dtype" in ast.unparse(node.value):
            yield node.lineno


def test_no_code_tests_a_dtype_by_its_name():
    """What depends on a dtype is a fact of its record or a row of a table: a branch on a name takes all others for one."""
    paths = [*PACKAGE.rglob("*.py")]
    assert len(paths) > 150
    allowed = {("kernels/llvm/maths/arithmetic.py", "widen")}  # to the widest, which needs no conversion
    for path in paths:
        place = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text())
        own = {n.name: range(n.lineno, (n.end_lineno or 0) + 1) for n in tree.body if isinstance(n, ast.FunctionDef)}
        fine = {line for file, function in allowed if file == place for line in own[function]}
        assert not [f"{place}:{line}" for line in lines_that_test_names(tree) if line not in fine]


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_a_record(name):
    record, numpy_dtype = DTYPES[name], NUMPY_DTYPES[name]
    assert numpy_dtype.name == record.name == name
    assert numpy_dtype.itemsize == record.itemsize == record.bits // 8
    assert DTYPES[record.compute].kind == record.kind
    assert DTYPES[record.compute].compute == record.compute
    for value in (record.lowest, record.highest, 0, 1):
        assert record.decode(record.encode(value)) == value
        made = np.array(record.encode(value), f"u{record.itemsize}").view(numpy_dtype)
        assert made.item() == value
    low, high = record.integers
    assert np.array([low, high]).astype(numpy_dtype).tolist() == [low, high]


@pytest.mark.parametrize("name", FLOATS)
def test_the_bits_of_a_float(name):
    record, unsigned = DTYPES[name], f"u{DTYPES[name].itemsize}"
    bits = np.array([record.infinity, record.one_nan, record.poison, record.encode(record.highest) + 1], unsigned)
    values = bits.view(NUMPY_DTYPES[name]).astype(np.float64)
    assert values[0] == values[3] == np.inf
    assert np.isnan(values[1:3]).all()
    beyond = np.array([2.0**record.digits + 1]).astype(NUMPY_DTYPES[name])
    assert beyond.astype(np.float64)[0] == 2.0**record.digits  # the first integer that it does not hold


def test_kinds_and_widths_are_in_the_order_of_promotion():
    kinds = [DTYPES[name].kind for name in NAMES]
    assert kinds == sorted(kinds, key=("bool", "integer", "float").index)
    for group in (INTEGERS, FLOATS):
        assert [DTYPES[name].bits for name in group] == sorted(DTYPES[name].bits for name in group)
    assert set(dtypes.COMPUTED_FLOATS) <= set(FLOATS)
