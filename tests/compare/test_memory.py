"""Peaks of a step, and what eager mode launches in one."""

from __future__ import annotations

import numpy as np
import pytest

from dualgraph.compare.arms import eager_arm, static_arm
from dualgraph.compare.identity import digest_of
from dualgraph.compare.memory import peak_of_step
from dualgraph.compare.recording import launches, program_alone, replayed
from dualgraph.compare.workloads import WORKLOADS, find
from dualgraph.eager import PREPARED
from dualgraph.kernels import provider

# The reference interpreter copies operands as it goes: its own memory is larger than that of any plan.
native = pytest.mark.skipif(provider.name() != "llvm", reason="a matter of the native kernels")


@native
@pytest.mark.parametrize("name", WORKLOADS)
def test_static_needs_no_more_than_eager(name):
    assert peak_of_step(static_arm(find(name))) <= peak_of_step(eager_arm(find(name)))


@native
def test_gradients_and_arena_are_counted():
    arm = static_arm(find("mlp"))
    gradients = sum(4 * p.size for p in arm.instance.model.parameters())
    peak = peak_of_step(arm)
    assert (
        gradients + arm.executable.compilation.arena.size
        <= peak
        < 1.2 * (gradients + arm.executable.compilation.arena.size)
    )


def test_launches_of_a_step():
    arm = eager_arm(find("affine"))
    found = launches(arm)
    assert 5 <= len(found) <= 20
    assert len(launches(arm)) == len(found)
    prepared = [x for x in PREPARED.values() if x.loaded is not None]
    assert prepared
    assert all(x.launch == x.loaded.launch for x in prepared)  # put back


def test_a_replay_changes_nothing():
    arm = eager_arm(find("affine"))
    run = replayed(launches(arm))
    before = digest_of(arm.values())
    run(3)
    assert digest_of(arm.values()) == before


@native
def test_the_program_alone_leaves_the_model_alone():
    arm = static_arm(find("affine"))
    run, restore = program_alone(arm)
    launch = arm.executable._launch
    before = digest_of(arm.values())
    run(3)
    restore()
    assert digest_of(arm.values()) == before
    assert arm.executable._launch is launch
    assert np.isfinite(float(arm.step()))
