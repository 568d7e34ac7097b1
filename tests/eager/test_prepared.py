"""Prepared launches: made once for an op, layouts and parameters; where their results lie."""

from __future__ import annotations

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import extend
from dualgraph.eager import PREPARED, frontend


def prepared_of(op_name):
    return [prepared for key, prepared in PREPARED.items() if key[0].name == op_name]


def test_results_lie_in_inputs_and_in_what_the_launch_gives():
    def function(x, y):
        double = x * 2.0
        return y, double, x, double

    both = extend.composite("both_of_them", function)
    x, y = dg.tensor([1.0, 2.0]), dg.tensor([3.0])
    found = both(x, y)
    assert [r.tolist() for r in found] == [[3.0], [2.0, 4.0], [1.0, 2.0], [2.0, 4.0]]
    (prepared,) = prepared_of("both_of_them")
    assert prepared.places == (1, 2, 0, 2)
    assert found[0].storage is y.storage
    assert found[1].storage is found[3].storage


def test_the_result_of_a_view_is_the_storage_of_its_input():
    x = dg.tensor(np.arange(6.0).reshape(2, 3))
    assert dg.permute_dims(x, (1, 0)).storage is x.storage


def test_a_launch_is_prepared_once():
    triple = extend.composite("triple_of_it", lambda x: x * 3.0)
    x = dg.tensor([1.0, 2.0])
    for _ in range(3):
        triple(x)
    assert len(prepared_of("triple_of_it")) == 1
    triple(dg.tensor([1.0, 2.0, 3.0]))
    assert len(prepared_of("triple_of_it")) == 2


def test_shapes_that_keep_changing_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(frontend, "PREPARED", {})
    monkeypatch.setattr(frontend, "MOST_PREPARED", 4)
    x = dg.tensor(np.arange(20.0))
    for n in range(1, 20):
        assert dg.exp(x[:n]).shape == (n,)
        assert len(frontend.PREPARED) <= 4


@pytest.mark.parametrize("wanted", [True, False])
def test_a_failed_check_leaves_what_is_prepared_usable(wanted):
    table = dg.tensor([1.0, 2.0, 3.0], requires_grad=wanted)
    with pytest.raises(IndexError, match="take"):
        dg.take(table, dg.tensor([3]))
    assert dg.take(table, dg.tensor([2])).tolist() == [3.0]
