"""Random programs in four executions: eager; static none; static exact; static exact from a warm disk cache.

All outputs and all gradients are equal by bits. `HYPOTHESIS_PROFILE=explore` draws ten times as many.
"""

from __future__ import annotations

import hypothesis
import pytest

from conformance.modes import NATIVE, assert_bits, define, differentiated, run_eager, run_executable
from conformance.programs import RandomProgram, programs
from dualgraph import static
from dualgraph.kernels.llvm import cache, engine


@hypothesis.settings(max_examples=5 * hypothesis.settings().max_examples)
@hypothesis.given(programs())
def test_four_executions(program: RandomProgram) -> None:
    arrays = program.arrays()
    function = differentiated(program, program.order)
    expected = run_eager(function, arrays)
    graph, outputs = define(function, arrays)
    for level in ("none", "exact"):
        executable = static.compile(graph, outputs=outputs, optimize=level)
        assert_bits(run_executable(executable, arrays), expected, level)
    if NATIVE:
        with forgotten_machine_code() as loads:
            again = static.compile(graph, outputs=outputs, optimize="exact")
        assert_bits(run_executable(again, arrays), expected, "exact, from the disk cache")
        assert all(loads), "machine code that was just compiled is not in the disk cache"


class forgotten_machine_code:
    """Inside, kernels come from the disk cache, as in a new process. Gives the list of whether each was found there."""

    def __enter__(self) -> list[bool]:
        self.loads: list[bool] = []
        self.patch = pytest.MonkeyPatch()
        load = cache.load

        def counting(key: str) -> bytes | None:
            code = load(key)
            self.loads.append(code is not None)
            return code

        self.patch.setattr(engine, "_addresses", {})
        self.patch.setattr(cache, "load", counting)
        return self.loads

    def __exit__(self, *exc: object) -> None:
        self.patch.undo()


@pytest.mark.skipif(not NATIVE, reason="the reference provider has no machine code")
def test_the_warm_cache_is_really_read() -> None:
    """The fourth execution of the test above is not the third once more."""
    import numpy as np

    import dualgraph as dg

    x = np.linspace(-1, 1, 7, dtype=np.float32)
    graph, outputs = define(differentiated(lambda x: dg.tanh(x) * dg.exp(x)), [x])
    first = static.compile(graph, outputs=outputs)
    with forgotten_machine_code() as loads:
        again = static.compile(graph, outputs=outputs)
    assert loads
    assert all(loads)
    assert_bits(run_executable(again, [x]), run_executable(first, [x]), "loaded again")
