"""The protocol of front ends: each says what only it can say, and one seen with another grad mode is the same one."""

from __future__ import annotations

import inspect

import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.core.mode import FrontEnd, current, default
from dualgraph.eager import EAGER, Eager
from dualgraph.ops.symbol import Recorder, recorder_of

MEMBERS = [name for name, member in vars(FrontEnd).items() if inspect.isfunction(member)]
WITHOUT_DEFAULT = [name for name in MEMBERS if "raise NotImplementedError" in inspect.getsource(vars(FrontEnd)[name])]


@pytest.mark.parametrize("front", [Eager, Recorder, static.Graph])
@pytest.mark.parametrize("name", WITHOUT_DEFAULT)
def test_each_front_end_answers_what_has_no_default(front, name):
    assert getattr(front, name) is not getattr(FrontEnd, name)


@pytest.mark.parametrize("front", [Eager, Recorder, static.Graph])
@pytest.mark.parametrize("name", MEMBERS)
def test_members_take_the_same_arguments(front, name):
    ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (FrontEnd, front))
    assert list(ours) == list(theirs)


def test_every_member_is_explained():
    assert all(vars(FrontEnd)[name].__doc__ for name in MEMBERS)


def test_a_graph_without_gradients_is_that_graph():
    with static.Graph() as graph:
        with dg.no_grad():
            front = current()
            assert not front.grad_enabled
            assert recorder_of(front) is graph
            for name in set(MEMBERS) - {"apply", "with_grad"}:
                assert getattr(front, name) == getattr(graph, name), name
            with dg.enable_grad():
                assert current() is graph
        assert current() is graph
    assert current() is default() is EAGER
