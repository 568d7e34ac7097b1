"""Equal arms are found equal; every kind of fault in one arm is found, at its place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim
from dualgraph.bits import same_bits
from dualgraph.compare import identity
from dualgraph.compare.arms import eager_arm, mixed_arm, static_arm
from dualgraph.compare.identity import check_workload, compare_arms
from dualgraph.compare.workloads import WORKLOADS, Instance, Workload, find
from dualgraph.nn import functional as F
from dualgraph.ops.registry import OPS

AFFINE = find("affine")


@contextmanager
def rule(op, vjp):
    """`op` differentiates by `vjp(number, g, out, *inputs)` for a while."""
    right = op.vjp
    object.__setattr__(op, "vjp", vjp)
    try:
        yield
    finally:
        object.__setattr__(op, "vjp", right)


def wrong_by_a_rounding(op):
    right = op.vjp
    return rule(op, lambda number, g, out, *inputs: right(number, g, out, *inputs) * 1.0000001)


def dropped(op):
    right = op.vjp
    return rule(op, lambda number, g, out, *inputs: None if number == 0 else right(number, g, out, *inputs))


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_identical(name):
    found = check_workload(find(name), steps=4)
    assert list(found) == ["static none", "static exact", "eager, then static"]
    assert [x.difference for x in found.values()] == [None] * 3
    assert len({x.digest for x in found.values()}) == 1


def noisy() -> Instance:
    """Two random calls a step, so that the draw number must be kept in step."""
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x + dg.randn((4, 3))) * dg.rand((4, 2)), y)
        loss.backward()
        optimizer.step()
        return loss

    return Instance(model, optimizer, step, ((dg.ones((4, 3)), dg.zeros((4, 2))),))


def test_each_arm_has_its_own_random_numbers():
    found = check_workload(Workload("noisy", "", noisy), steps=6)
    assert [x.difference for x in found.values()] == [None] * 3


@pytest.mark.parametrize("fault", [wrong_by_a_rounding, dropped])
def test_a_wrong_vjp_is_found(fault):
    with fault(OPS["multiply"]):
        other = static_arm(AFFINE)
    found = compare_arms(eager_arm(AFFINE), other, steps=3)
    assert not found.equal
    assert (found.difference.step, found.difference.what) == (1, "gradient of w")
    assert "in eager and" in str(found.difference)


def after(arm, step, change):
    """`arm`, with a fault after one of its steps."""
    run = arm.run

    def faulty(*batch):
        result = run(*batch)
        return change(arm, result) or result if arm.number + 1 == step else result

    arm.run = faulty
    return arm


def flip_last_bit(variable):
    bits = np.array(variable.numpy()).reshape(-1).view(np.uint8)
    bits[0] ^= 1
    variable.assign(dg.tensor(bits.view(variable.dtype).reshape(variable.shape)))


FAULTS = {
    "output": lambda arm, loss: loss + 1e-3,
    "gradient of b": lambda arm, _: setattr(arm.instance.model.b, "grad", None),
    "parameter w": lambda arm, _: flip_last_bit(arm.instance.model.w),
    "optimiser lr.0": lambda arm, _: flip_last_bit(arm.instance.optimizer.param_groups[0].rate),
    "random draw number": lambda arm, _: dg.rand((1,)) and None,
}


@pytest.mark.parametrize("what", FAULTS)
def test_the_first_difference_is_named(what):
    found = compare_arms(eager_arm(AFFINE), after(static_arm(AFFINE), 3, FAULTS[what]), steps=5)
    assert (found.difference.step, found.difference.what, found.steps) == (3, what, 3)


def test_the_place_of_a_difference():
    def change(arm, _):
        p = arm.instance.model.hidden[1].weight
        value = np.array(p.numpy())
        value[5, 7] = np.nextafter(value[5, 7], 1)
        p.assign(dg.tensor(value))

    mlp = find("mlp")
    found = compare_arms(eager_arm(mlp), after(static_arm(mlp), 2, change), steps=3).difference
    assert (found.elements, found.size, found.index) == (1, 128 * 128, (5, 7))
    assert "parameter hidden.1.weight[5, 7] is" in str(found)


def test_bits_not_values():
    nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert same_bits(nan[:1], nan[:1].copy())
    assert not same_bits(nan[:1], nan[1:])
    assert not same_bits(np.array(0.0), np.array(-0.0))
    assert not same_bits(np.zeros(2), np.zeros((2, 1)))
    assert not same_bits(np.zeros(2, np.float32), np.zeros(2, np.int32))


def test_mixing_goes_over_to_the_compiled_step():
    seen = []
    arm = mixed_arm(AFFINE, 2)
    eager, _ = arm.instance.step, arm.executable
    arm.instance = replace(arm.instance, step=lambda *batch: seen.append(arm.number) or eager(*batch))
    compare_arms(eager_arm(AFFINE), arm, steps=5)
    assert seen == [0, 1]


def test_levels_are_those_that_promise_bits():
    assert identity.LEVELS == ("none", "exact")
