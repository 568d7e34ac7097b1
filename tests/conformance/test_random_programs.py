"""Random programs in four executions: eager; static none; static exact; static exact from a warm disk cache.

All outputs and all gradients are equal by bits. `HYPOTHESIS_PROFILE=explore` draws others, ten times as many.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import NATIVE, assert_bits, define, differentiated, run_executable
from conformance.programs import FUNCTIONS, LAYINGS, SECOND, WAYS, RandomProgram, program_of, smallest
from conformance.runs import assert_same, bound
from dualgraph import static
from dualgraph.dtypes import STORED
from dualgraph.kernels.llvm import cache, engine

CALLS = 3
PARTS = 10
EACH = hypothesis.settings().max_examples // 2 + 2
FIRST = 0 if hypothesis.settings().derandomize else secrets.randbits(31)


def four_executions(program: RandomProgram) -> None:
    given = bound(program)
    expected = given.outcome(*[given.function] * CALLS)
    for level in ("none", "exact"):
        given = bound(program)
        assert_same(given.outcome(*[static.jit(given.function, optimize=level)] * CALLS), expected, level)
    if NATIVE:
        given = bound(program)
        run = static.jit(given.function)
        with forgotten_machine_code() as loads:
            found = given.outcome(run, given.function, run)
        assert_same(found, expected, "exact, from the disk cache, in turns with eager")
        assert all(loads), "machine code that was just compiled is not in the disk cache"


def fails(program: RandomProgram) -> bool:
    try:
        four_executions(program)
    except Exception:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_four_executions(part: int) -> None:
    all_of([program_of(seed) for seed in range(FIRST + part * EACH, FIRST + (part + 1) * EACH)])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", STORED)
def test_four_executions_of_a_stored_dtype(dtype: str) -> None:
    all_of([program_of(seed)._replace(dtype=dtype) for seed in range(FIRST, FIRST + EACH)])


def all_of(programs: Sequence[RandomProgram]) -> None:
    for program in programs:
        try:
            four_executions(program)
        except Exception as e:
            e.add_note(f"{program!r}, made smaller: {smallest(program, fails)!r}")
            raise


def test_what_the_programs_reach() -> None:
    """Every function more than once, every order of magnitude, integers and random numbers."""
    seen: Counter[str] = Counter()
    for seed in range(520):
        program = program_of(seed)
        seen.update({instruction.name for instruction in program.instructions})
        seen.update({instruction.kind for instruction in program.instructions})
        seen.update(h.way for h in program.handed)
        seen.update(h.layout for h in program.handed)
        seen.update({f"{kind} 2^{math.prod(shape).bit_length()}" for shape, kind in program.kinds()})
    rare = {name: seen[name] for names in FUNCTIONS.values() for name in names if seen[name] < 3}
    assert not rare
    assert min(seen[name] for name in (*LAYINGS, *WAYS, *SECOND)) >= 20
    assert min(seen["f 2^6"], seen["f 2^13"], seen["f 2^17"], seen["i 2^6"], seen["i 2^13"]) >= 4
    assert seen["f 2^18"] >= 1
    assert min(seen["random"], seen["integer"], seen["meeting"], seen["product"]) >= 20


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
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    graph, outputs = define(differentiated(lambda x: dg.tanh(x) * dg.exp(x)), [x])
    first = static.compile(graph, outputs=outputs)
    with forgotten_machine_code() as loads:
        again = static.compile(graph, outputs=outputs)
    assert loads
    assert all(loads)
    assert_bits(run_executable(again, [x]), run_executable(first, [x]), "loaded again")
