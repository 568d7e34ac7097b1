"""Arms take turns, do the same work, and are judged by paired ratios."""

from __future__ import annotations

import numpy as np
import pytest

from dualgraph.compare import timing
from dualgraph.compare.first_step import MODES, STAGES, break_even, first_step
from dualgraph.compare.timing import Effort, Ratio, Timed, calibrated, interleaved, paired_ratio


def busy(turns):
    return lambda steps: sum(range(turns * steps)) and None


def test_every_arm_does_the_same_steps_from_a_prepared_state():
    log = []
    arms = {
        name: Timed(
            lambda steps, name=name: log.append((name, "run", steps)) or busy(2000)(steps),
            lambda name=name: log.append((name, "prepare", 0)),
            lambda name=name: log.append((name, "finish", 0)),
        )
        for name in ("a", "b", "c")
    }
    samples = interleaved(arms, Effort(rounds=6, seconds=0.0002, warmups=1))
    rounds = log[-6 * 9 :]
    assert [what for _, what, _ in rounds] == ["prepare", "run", "finish"] * 18
    assert {steps for _, what, steps in rounds if what == "run"} == {samples.steps}
    orders = [tuple(name for name, what, _ in rounds[n : n + 9] if what == "run") for n in range(0, 54, 9)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    assert {len(x) for x in samples.seconds.values()} == {6}


def test_calibration_looks_at_the_fastest_arm_and_spares_the_slowest(monkeypatch):
    fast, slow = Timed(busy(1)), Timed(busy(1))
    seconds = {id(fast): 1e-6, id(slow): 1e-3}
    monkeypatch.setattr(timing, "sample", lambda arm, steps: steps * seconds[id(arm)])
    assert calibrated([slow], 1e-6) == 1
    assert calibrated([fast], 0.001) == 1000
    assert calibrated([fast, slow], 0.001) == timing.SLOWEST


def test_the_slower_arm_is_found():
    samples = interleaved({"slow": Timed(busy(4000)), "fast": Timed(busy(500))}, Effort(9, 0.0005, 1))
    assert samples.ratio("slow", "fast").word == "static"
    assert samples.ratio("fast", "slow").word == "eager"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Ratio(5.1, 4.9, 5.3), "static 5.10x faster [4.90, 5.30]"),
        (Ratio(36.07, 14.69, 36.72), "static 36.1x faster [14.7, 36.7]"),
        (Ratio(0.5, 0.4, 0.8), "eager 2.00x faster [1.25, 2.50]"),
        (Ratio(1.01, 0.9, 1.1), "same [0.90, 1.10]"),
    ],
)
def test_verdict(ratio, words):
    assert str(ratio) == words


def test_a_disturbed_round_moves_neither_ratio_nor_interval_much():
    rng = np.random.default_rng(0)
    fast = 1 + 0.01 * rng.random(21)
    load = np.where(np.arange(21) % 4 == 0, 3.0, 1.0)  # slows both arms of a round alike
    ratio = paired_ratio(2 * fast * load * (1 + 0.01 * rng.random(21)), fast * load)
    assert 1.98 < ratio.low <= ratio.value <= ratio.high < 2.05


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        r = paired_ratio(2 * np.exp(0.1 * rng.standard_normal(21)), np.exp(0.1 * rng.standard_normal(21)))
        covered += r.low <= 2 <= r.high
    assert covered >= 180  # of 200, for a 95 % interval


@pytest.mark.parametrize(
    ("first_eager", "first_static", "eager", "static", "step"),
    [
        (0.1, 0.5, 0.003, 0.001, 201),
        (0.5, 0.1, 0.003, 0.001, 1),  # compiled sooner than eager mode had its kernels
        (0.1, 0.5, 0.001, 0.003, None),
        (0.1, 0.5, 0.001, 0.001, None),
        (0.5, 0.1, 0.001, 0.003, None),  # ahead at first, and then behind for ever
    ],
)
def test_break_even(first_eager, first_static, eager, static, step):
    assert break_even(first_eager, first_static, eager, static) == step
    if step is not None and step > 1:
        total = lambda n, first, each: first + (n - 1) * each  # noqa: E731
        assert total(step, first_static, static) <= total(step, first_eager, eager)
        assert total(step - 1, first_static, static) > total(step - 1, first_eager, eager)


def test_first_step_is_split():
    for mode in MODES:
        times = first_step("affine", mode)
        assert set(times) == {"start", "run", "total", *(STAGES if mode == "static" else ())}
        assert sum(times.values()) - times["total"] - times["start"] <= times["total"]


def test_plans():
    assert timing.QUICK.rounds <= timing.FULL.rounds
    assert 0.02 <= timing.FULL.seconds <= 0.05
