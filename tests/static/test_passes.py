"""Each pass does what its line in the table says, on graphs small enough to count."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.static.passes import NAMES, PASSES


def ops(executable) -> list[str]:
    return [c.op.name for c in executable.flow.calls if c.op.name not in ("placeholder", "constant", "variable")]


def compiled(function, *specs, **options):
    return static.compile(function, *(specs or (static.spec((4,)),)), **options)


X = np.array([-0.0, 0.0, 1.5, -np.inf], np.float32)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 1.0,
        lambda x: 1.0 * x,
        lambda x: x / 1.0,
        lambda x: x - 0.0,
        lambda x: x + -0.0,
        lambda x: dg.negative(dg.negative(x)),
        lambda x: dg.maximum(x, x),
        lambda x: dg.where(x > 0, x, x),
    ],
)
def test_exact_rules_remove_the_operation(function):
    exact, none = compiled(function), compiled(function, optimize="none")
    assert ops(exact) == []
    assert len(ops(none)) > 0
    assert exact(X).numpy().tobytes() == none(X).numpy().tobytes() == function(dg.tensor(X)).numpy().tobytes()


@pytest.mark.parametrize("function", [lambda x: x + 0.0, lambda x: x * 0.0, lambda x: x - x, lambda x: x / x])
def test_rules_of_real_numbers_run_only_at_level_fast(function):
    assert len(ops(compiled(function))) == 1
    assert ops(compiled(function, optimize="fast")) in ([], ["full"])
    assert compiled(function)(X).numpy().tobytes() == function(dg.tensor(X)).numpy().tobytes()


def test_dead_code_goes_and_range_checks_stay():
    def function(x, y):
        dg.exp(x)
        dg.cross_entropy(x, y)
        return x + 1.0

    executable = compiled(function, static.spec((2, 3)), static.spec((2,), "int64"))
    assert "exp" not in ops(executable)
    x = np.zeros((2, 3), np.float32)
    assert executable(x, np.array([0, 2])).shape == (2, 3)


def test_common_subexpressions_are_computed_once():
    executable = compiled(lambda x: dg.exp(x) + dg.exp(x))
    assert ops(executable).count("exp") == 1
    assert ops(compiled(lambda x: dg.exp(x) + dg.exp(x), optimize="none")).count("exp") == 2


def test_random_draws_are_never_merged():
    two = static.compile(lambda: (dg.rand((3,)), dg.rand((3,))))
    a, b = two()
    assert a.tolist() != b.tolist()


def test_constants_are_folded_by_the_kernels_that_would_run():
    constant = dg.tensor([0.1, 0.2, 0.3, 0.4])
    executable = compiled(lambda x: x + dg.tanh(dg.exp(constant)))
    assert ops(executable) == ["add"]
    eager = dg.tensor(X) + dg.tanh(dg.exp(constant))
    assert executable(X).numpy().tobytes() == eager.numpy().tobytes()


def test_fusion_makes_one_kernel_of_a_chain_and_says_why_not_elsewhere():
    executable = compiled(lambda x: dg.sum(dg.tanh(x * 2.0) + 1.0))
    assert len(executable.program.steps) == 1
    w = np.eye(4, dtype=np.float32)
    product = compiled(lambda x: dg.exp(x @ dg.tensor(w)), static.spec((4, 4)))
    assert len(product.program.steps) == 2
    assert any("MatMul" in note for p in product.passes for note in p.notes)


def test_gradients_add_up_in_program_order_before_merging():
    x = dg.tensor(np.random.default_rng(0).standard_normal(64).astype(np.float32), requires_grad=True)

    def function():
        y = dg.exp(x)
        return dg.grad(dg.sum(dg.exp(x) * 3.0 + y * 7.0 + y), [x])[0]

    eager = function()
    for level in ("none", "exact"):
        assert static.compile(function, optimize=level)().numpy().tobytes() == eager.numpy().tobytes()


def test_passes_by_name_and_wrong_names():
    executable = compiled(lambda x: x * 1.0, passes=["dead_code"])
    assert [p.name for p in executable.executable.passes] == ["dead_code"]
    with pytest.raises(dg.errors.ArgumentError, match="one of dead_code"):
        compiled(lambda x: x, passes=["dead_cod"])
    with pytest.raises(dg.errors.ArgumentError, match="one of none, exact, fast"):
        compiled(lambda x: x, optimize="more")


def test_the_table_of_passes_is_complete():
    assert len(set(NAMES)) == len(NAMES)
    for p in PASSES:
        assert p.stage in ("graph", "program")
        assert p.numerics in ("exact", "reassociates")
        assert p.reason


def test_dag_is_a_networkx_graph_with_ordered_operands():
    with static.Graph() as g:
        x = static.placeholder("x", (2,))
        y = x * x
    dag = g.dag
    assert networkx.is_directed_acyclic_graph(dag)
    edges = dag.get_edge_data(x.node, y.node)
    assert sorted(e["operand"] for e in edges.values()) == [0, 1]


def test_level_fast_reports_what_it_costs():
    fast = compiled(lambda x: dg.log(dg.exp(x / 3.0)), static.spec((64,)), optimize="fast")
    assert fast.ulp_distance is None
    fast(np.linspace(-5, 5, 64).astype(np.float32))
    assert 0 < fast.ulp_distance < 1000
    assert "ULP" in fast.explain()
    assert compiled(lambda x: x * 2.0).ulp_distance is None


def test_ulp_distance_counts_floats():
    from dualgraph.static.verify import _ulps

    one = np.array([1.0], np.float32)
    assert _ulps(one, np.nextafter(one, np.float32(2))) == 1
    assert _ulps(np.array([-0.0]), np.array([0.0])) == 0
    assert _ulps(np.array([np.nan]), np.array([np.nan])) == 0
    assert _ulps(-np.array([5e-324]), np.array([5e-324])) == 2
