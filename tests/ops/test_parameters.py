"""Parameters are canonical: plans, traces and equal calls are found by their values alone, in one order."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.core import op as ops
from dualgraph.core.mode import bind
from dualgraph.core.op import Op, keywords
from dualgraph.errors import GraphError
from dualgraph.ops.registry import OPS
from dualgraph.spec import Spec

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def refused(function: Any, match: str, shape: tuple[int, ...] = (3, 4)) -> None:
    """In both modes."""
    with pytest.raises(TypeError, match=match):
        function(dg.ones(shape))
    with pytest.raises(TypeError, match=match):
        static.compile(function, static.spec(shape))


def test_names_are_those_of_the_function():
    def rule(x: Any, *more: Any, axes: Any, keepdims: Any = False) -> Any: ...

    assert keywords(rule) == ("axes", "keepdims")
    assert keywords(lambda x: x) == ()
    assert Op("mine", rule, rule).parameters == ("axes", "keepdims")
    assert OPS["sum"].parameters == ("axes", "keepdims")
    assert OPS["layer_norm"].parameters == ("shape", "eps")
    assert OPS["astype"].parameters == ("dtype",)


def test_another_order_is_refused_refused():
    refused(lambda x: bind(OPS["sum"], x, keepdims=True, axes=(0,)), "in this order")
    refused(lambda x: bind(OPS["layer_norm"], x, eps=1.0, shape=(4,)), "in this order")
    refused(lambda x: bind(OPS["sum"], x, axes=(0,), keepdims=True, more=1), "in this order")


@pytest.mark.parametrize("value", [-0.0, math.nan, np.float32(1), np.int64(1), [4], (4, -0.0), (4, [1])], ids=repr)
def test_values_that_are_equal_but_not_the_same_are_refused_refused(value: Any):
    unused = (1, 2, 3, 4)  # of which there is no plan that would be found
    refused(lambda x: bind(OPS["layer_norm"], x, shape=(4,), eps=value), "layer_norm got|unhashable", unused)


def test_a_pass_that_gives_them_otherwise_is_named():
    def run(dag: Any) -> Any:
        def rule(rw: Any, call: Any, inputs: Any) -> Any:
            if call.op is not OPS["sum"]:
                return None
            return [rw.emit(call, call.op, inputs, Spec((1, 4), "float32"), keepdims=True, axes=(0,))]

        return static.Rewriter(dag).run(rule)

    swaps = static.Pass("swaps", "graph", "exact", "swaps parameters", run)
    with pytest.raises(GraphError, match=r"pass swaps: sum_\d+ got .*in this order"):
        static.compile(lambda x: dg.sum(x, axis=0, keepdims=True), static.spec(X.shape), passes=[swaps])


# The public functions make them so, whatever they are given

SAID = {  # equal things said in several ways
    "axis": [lambda x, v=v: dg.sum(x, axis=v) for v in (1, np.int64(1), -1, (1,), [np.int32(-1)])],
    "keepdims": [lambda x, v=v: dg.max(x, axis=0, keepdims=v) for v in (True, 1, np.bool_(True))],
    "correction": [lambda x, v=v: dg.var(x, correction=v) for v in (0, 0.0, -0.0, np.float32(-0.0), np.int64(0))],
    "one": [lambda x, v=v: dg.std(x, correction=v) for v in (1, 1.0, np.float64(1))],
    "eps": [lambda x, v=v: dg.layer_norm(x, 4, eps=v) for v in (0, 0.0, -0.0, np.float32(0))],
    "shape": [lambda x, v=v: dg.layer_norm(x, v) for v in (4, (4,), [4], np.int64(4), -np.int64(-4))],
    "dtype": [lambda x, v=v: dg.astype(x, v) for v in ("float64", np.float64, np.dtype("float64"), "f8")],
    "window": [lambda x, v=v: x[v] for v in (slice(1, 3), slice(np.int64(1), 3), slice(-2, None), slice(1, 9, 1))],
    "count": [lambda x, v=v: dg.linspace(0, 1, v) for v in (5, np.int64(5))],
}


@pytest.mark.parametrize("what", SAID)
def test_what_is_said_in_several_ways_is_one_call(what: str, monkeypatch: pytest.MonkeyPatch):
    found: dict[str, list[Any]] = defaultdict(list)
    true = ops.specs_of

    def specs_of(op: Op, inputs: Any, params: dict[str, Any]) -> Any:
        found[op.name].append([(name, type(value), value) for name, value in params.items()])
        return true(op, inputs, params)

    monkeypatch.setattr("dualgraph.ops.symbol.specs_of", specs_of)
    run = static.compile(lambda x: [f(x) for f in SAID[what]], static.spec(X.shape), verify=True)
    (results,) = [calls for calls in found.values() if len(calls) == len(SAID[what])]
    assert all(call == results[0] for call in results)
    assert len({x.numpy().tobytes() for x in run(X)}) == 1
    assert len({f(dg.tensor(X)).numpy().tobytes() for f in SAID[what]}) == 1
    merged = next(p for p in run.passes if p.name == "common_subexpressions")
    assert len([r for r in merged.notes if " is " in r]) >= len(SAID[what]) - 1


def test_ends_of_a_range_keep_their_signs():
    def function(x: Any) -> Any:
        return [dg.linspace(-0.0, 1.0, 3), dg.linspace(0.0, 1.0, 3), dg.linspace(1.0, -0.0, 3), dg.linspace(1, 0, 3)]

    eager = [x.numpy() for x in function(None)]
    assert [math.copysign(1.0, x[k]) for x, k in zip(eager, (0, 0, 2, 2), strict=True)] == [-1.0, 1.0, -1.0, 1.0]
    for level in ("none", "exact"):
        compiled = static.compile(function, static.spec(1), optimize=level, verify=True)
        assert [x.numpy().tobytes() for x in compiled(np.zeros(1, np.float32))] == [x.tobytes() for x in eager]
