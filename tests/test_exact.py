"""Constants by type and bits, and structures that come back as what they were."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import tree
from dualgraph.exact import exact

NAN = float("nan")

SAME: list[tuple[Any, Any]] = [
    (1, 1), (NAN, float("nan")), ([1, {"a": NAN}], [1, {"a": NAN}]), ({1, 2}, {2, 1}), (np.float32(1), np.float32(1)),
    (np.array([NAN]), np.array([NAN])), (range(3), range(3)),
]  # fmt: skip
OTHER: list[tuple[Any, Any]] = [
    (1, True), (1, 1.0), (0.0, -0.0), (0, False), ("a", b"a"), ([1], (1,)), ({1}, frozenset({1})), ({1}, {1.0}),
    ({1: 2}, {True: 2}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (np.float32(1), np.float64(1)), (np.float64(1), 1.0),
    (np.zeros(2), np.zeros((2, 1))), (np.array([0.0]), np.array([-0.0])), (complex(0.0, -0.0), complex(0.0, 0.0)),
    (object(), object()), (lambda: 1, lambda: 1), (int, float), (dg.ones(1), dg.ones(1)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SAME)))
def test_the_same(number):
    x, y = SAME[number]
    assert exact(x) == exact(y)
    assert hash(exact(x)) == hash(exact(y))


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_others(number):
    x, y = OTHER[number]
    assert exact(x) != exact(y)
    assert exact((x,)) != exact((y,))
    assert exact({"k": [x]}) != exact({"k": [y]})


def test_what_holds_itself():
    loop: list[Any] = [1]
    loop.append(loop)
    assert exact(loop) == exact(loop)
    assert exact(loop) != exact(copy.deepcopy(loop))


def test_structures_and_leaves():
    value = [1, (2, {"x": 3, 4: [5]}), ()]
    leaves, structure = tree.flatten(value)
    assert leaves == [1, 2, 3, 5]
    assert tree.unflatten(structure, iter(leaves)) == value
    assert tree.describe(structure) == "[*, (*, {'x': *, 4: [*]}), ()]"
    assert structure == tree.flatten([7, (7, {"x": 7, 4: [7]}), ()])[1]
    assert structure != tree.flatten([7, (7, {"x": 7, 4.0: [7]}), ()])[1]
