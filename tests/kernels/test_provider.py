"""Which provider a process uses, and that both run the same program."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dualgraph.kernels import expr as E
from dualgraph.kernels import provider
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program
from dualgraph.spec import Spec

SHOW = "from dualgraph.kernels import provider; print(provider.name(), bool(provider.why_not_llvm()))"


def shown(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("asked", ["llvm", "reference"])
def test_the_environment_decides(asked: str) -> None:
    if asked == "llvm":
        pytest.importorskip("llvmlite")
    assert shown(SHOW, DUALGRAPH_KERNELS=asked).stdout.split()[0] == asked


def test_an_unknown_provider_is_an_error() -> None:
    done = shown(SHOW, DUALGRAPH_KERNELS="cuda")
    assert "got DUALGRAPH_KERNELS='cuda'; the providers of kernels are llvm, reference" in done.stderr


def test_without_llvmlite_the_reference_serves() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'llvmlite' else find(name, *rest)\n" + SHOW
    )
    assert shown(code, DUALGRAPH_KERNELS="").stdout == "reference True\n"


def test_an_unknown_array_layout_falls_back() -> None:
    pytest.importorskip("llvmlite")
    code = "from dualgraph.kernels.llvm.runtime import tables; tables.DATA = 24\n" + SHOW
    assert shown(code, DUALGRAPH_KERNELS="").stdout == "reference True\n"


def test_the_reference_needs_no_llvmlite() -> None:
    code = (
        "import sys; sys.modules['llvmlite'] = None\n"
        "from dualgraph.kernels import provider\n"
        "from dualgraph.kernels.program import Program\n"
        "print(provider.name(), provider.load(Program()).launch())"
    )
    assert shown(code, DUALGRAPH_KERNELS="reference").stdout == "reference None\n"


@pytest.mark.parametrize("asked", ["llvm", "reference"])
def test_one_program_in_each(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if asked == "llvm":
        pytest.importorskip("llvmlite")
    monkeypatch.setenv("DUALGRAPH_KERNELS", asked)
    for cached in (provider.name, provider._loader):
        cached.cache_clear()
    x, y = (E.input(i, "float32") for i in range(2))
    code, results = E.linearise([x * y + x])
    program = Program()
    spec = Spec((5, 3), "float32")
    views = [program.input(spec), program.input(spec)]
    out = program.new(spec)
    program.add(Loop(code, results, ("float32",) * 2, (False,) * 2), [out], views, domain=spec.shape)
    program.outputs.append(out.buffer)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(spec.shape).astype("float32") for _ in range(2))
    loaded = provider.load(program)
    seen: list[Any] = []
    np.testing.assert_array_equal(loaded.launch(a, b), a * b + a)
    np.testing.assert_array_equal(
        loaded.stepwise([a, b], lambda step, memory: seen.append((step, list(memory)))), a * b + a
    )
    assert seen == [(0, [out.buffer])]
    for cached in (provider.name, provider._loader):
        cached.cache_clear()
