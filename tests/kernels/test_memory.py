"""Memory plans: no two living buffers overlap, little is wasted, and the judge sees wrong plans."""

from __future__ import annotations

import math
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dualgraph.kernels import expr as E
from dualgraph.kernels import memory
from dualgraph.kernels.kinds import External, Loop
from dualgraph.kernels.memory import Arena
from dualgraph.kernels.program import Program, View
from dualgraph.spec import Spec

F32 = "float32"
COPY = External("copy", math.fsum)  # never run here
DOUBLE = Loop(*E.linearise([E.input(0, F32) * 2.0]), (F32,), (False,))


def opaque(program: Program, size: int, *ins: View) -> View:
    out = program.new(Spec((size,), F32))
    program.add(COPY, [out], ins)
    return out


def doubled(program: Program, x: View) -> View:
    out = program.new(Spec(x.shape, F32))
    program.add(DOUBLE, [out], [x], x.shape)
    return out


def random_program(sizes: list[int], window: int, seed: int = 0) -> Program:
    p, rng = Program(), random.Random(seed)
    views = [p.input(Spec((4,), F32))]
    for size in sizes:
        ins = rng.sample(views[-window:], min(2, len(views[-window:])))
        like = rng.random() < 0.3
        views.append(doubled(p, ins[0]) if like else opaque(p, size, *ins))
    p.outputs = [views[-1].buffer]
    return p


def test_live_ranges_are_those_of_scratch_alone() -> None:
    p = Program()
    x = p.input(Spec((4,), F32))
    y = opaque(p, 4, x)
    z = opaque(p, 4, y)
    p.outputs = [opaque(p, 4, z, y).buffer]
    assert memory.live_ranges(p) == {y.buffer: (0, 2), z.buffer: (1, 2)}


def test_dead_buffers_are_used_again() -> None:
    p = Program()
    x = p.input(Spec((4,), F32))
    for _ in range(10):
        x = opaque(p, 256, x)
    p.outputs = [opaque(p, 1, x).buffer]
    arena = memory.plan(p)
    assert arena.size == arena.peak == arena.lower_bound == 2 * 1024


def test_a_result_takes_the_place_of_a_dying_operand() -> None:
    p = Program()
    x = opaque(p, 256, p.input(Spec((4,), F32)))
    y = doubled(p, doubled(p, x))
    p.outputs = [opaque(p, 1, y).buffer]
    arena = memory.plan(p)
    assert arena.size == 1024
    assert memory.check(p, arena) == []


@pytest.mark.parametrize("turned", [False, True])
def test_but_not_where_it_is_walked_otherwise(turned: bool) -> None:
    p = Program()
    x = opaque(p, 256, p.input(Spec((4,), F32))).with_layout((16, 16), (1, 16) if turned else (16, 1))
    p.outputs = [opaque(p, 1, doubled(p, x)).buffer]
    arena = memory.plan(p)
    assert arena.size == (2048 if turned else 1024)


def test_nor_in_a_step_with_folds() -> None:
    p = Program()
    x = opaque(p, 256, p.input(Spec((4,), F32)))
    out = p.new(Spec((256,), F32))
    code, results = E.linearise([E.input(0, F32) - E.fold("max", E.input(0, F32))])
    p.add(Loop(code, results, (F32,), (False,)), [out], [x], (256,), (0,))
    p.outputs = [opaque(p, 1, out).buffer]
    assert memory.plan(p).size == 2048


@given(st.lists(st.sampled_from([0, 1, 3, 16, 17, 100, 1000, 5000]), min_size=1, max_size=60), st.integers(1, 12))
@settings(max_examples=150)
def test_plans_are_sound(sizes: list[int], window: int) -> None:
    p = random_program(sizes, window)
    arena = memory.plan(p)
    assert memory.check(p, arena) == []
    assert arena.lower_bound <= arena.peak <= arena.size


@given(st.lists(st.sampled_from([1, 16, 100, 1000]), min_size=5, max_size=40), st.data())
def test_the_judge_agrees_with_a_plain_one(sizes: list[int], data: Any) -> None:
    p = random_program(sizes, 4)
    arena = memory.plan(p)
    if not arena.offsets:
        return
    moved = data.draw(st.sampled_from(sorted(arena.offsets)))
    wrong = arena._replace(offsets=arena.offsets | {moved: data.draw(st.integers(0, arena.size // 64)) * 64})
    faults = memory.check(p, wrong)
    assert bool(faults) == bool(plain_faults(p, wrong))


def plain_faults(p: Program, arena: Arena) -> list[tuple[int, int]]:
    ranges, faults = memory.live_ranges(p), []
    for x, (first, last) in ranges.items():
        size = p.buffers[x].nbytes
        if arena.offsets[x] + size > arena.size:
            faults.append((x, x))
        for y, (begin, end) in ranges.items():
            together = first <= end and begin <= last
            apart = arena.offsets[x] + size <= arena.offsets[y] or (
                arena.offsets[y] + p.buffers[y].nbytes <= arena.offsets[x]
            )
            handed = (
                last == begin and arena.offsets[x] == arena.offsets[y] and memory.may_take_over(p, p.steps[begin], y, x)
            ) or (
                end == first and arena.offsets[x] == arena.offsets[y] and memory.may_take_over(p, p.steps[first], x, y)
            )
            if x != y and together and not apart and not handed:
                faults.append((x, y))
    return faults


def test_little_is_wasted() -> None:
    rng = random.Random(1)
    for number, limit in ((200, 1.15), (20_000, 1.25)):
        p = random_program([64 * rng.randrange(1, 500) for _ in range(number)], 30)
        arena = memory.plan(p)
        assert memory.check(p, arena) == []
        assert arena.size <= limit * arena.lower_bound
