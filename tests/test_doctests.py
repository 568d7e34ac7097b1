"""Every example in a docstring or a page runs.

Modules are tested as they are imported by everything else, installed or not; pytest's own collection would import the
files of the tree a second time.
"""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import dualgraph
import dualgraph.cli
from dualgraph.ops import public

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules(package: ModuleType) -> set[str]:
    prefix = package.__name__
    return {prefix, *(module.name for module in pkgutil.walk_packages(package.__path__, prefix + "."))}


# In an editable installation the folder of the command lies beside that of the package.
@pytest.mark.parametrize("name", sorted(modules(dualgraph) | modules(dualgraph.cli)))
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert results.failed == 0


@pytest.mark.parametrize("name", public.__all__)
def test_every_operation_has_an_example(name):
    """Those that are made of a record, too, which doctest does not take for functions of their module."""
    example = doctest.DocTestParser().get_doctest(getattr(dualgraph, name).__doc__, {}, name, None, 0)
    assert example.examples
    assert doctest.DocTestRunner(optionflags=FLAGS).run(example).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    # Without its fences a code block is what doctest reads.
    text = re.sub(r"^```.*$", "", page.read_text("utf-8"), flags=re.MULTILINE)
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(example).failed == 0
