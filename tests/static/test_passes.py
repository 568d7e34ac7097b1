"""Each pass does what its line in the table says, on graphs small enough to count."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

import dualgraph as dg
from dualgraph import extend, static
from dualgraph.bits import same_bits
from dualgraph.static import dag as dags
from dualgraph.static.passes import NAMES, PASSES


def ops(executable) -> list[str]:
    return [
        c.op.name
        for c in dags.calculations(executable.compilation.optimised)
        if c.op.name not in ("placeholder", "constant", "variable")
    ]


def compiled(function, *specs, **options):
    return static.compile(function, *(specs or (static.spec((8,)),)), **options)


NANS = np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFF800001], np.uint32).view(np.float32)
X = np.concatenate([np.array([-0.0, 0.0, 1.5, -np.inf], np.float32), NANS])

IDENTITIES = {  # exact but for the bits of a NaN, which what they drop would make the one NaN
    "times_one": lambda x: x * 1.0,
    "one_times": lambda x: 1.0 * x,
    "over_one": lambda x: x / 1.0,
    "minus_zero": lambda x: x - 0.0,
    "plus_negative_zero": lambda x: x + -0.0,
    "double_negation": lambda x: dg.negative(dg.negative(x)),
    "maximum": lambda x: dg.maximum(x, x),
    "minimum": lambda x: dg.minimum(x, x),
}
DROPPED = ("multiply", "divide", "subtract", "add", "negative", "maximum", "minimum")
PARAMETER = dg.Variable(X[::-1].copy(), requires_grad=True)
SEEN = {  # what shows the bits of a NaN
    "itself": lambda x: x,
    "signbit": dg.signbit,
    "copysign": lambda x: dg.copysign(1.0, x),
    "flipped": lambda x: dg.signbit(dg.flip(x)),
}
twice = extend.composite("twice", lambda x: dg.concat([x, x])[::2])
halved = extend.composite("halved", lambda x: dg.concat([x, x])[::2] * 0.5)
COMPUTED = {
    "tanh": dg.tanh,
    "view": lambda x: dg.flip(dg.reshape(dg.exp(x), (2, 4)).mT),
    "where": lambda x: dg.where(x > 0, x * 2.0, 0.0),
    "where-constant": lambda x: dg.where(x > 0, dg.tensor(np.arange(8, dtype=np.float32)), dg.sqrt(x)),
    "take": lambda x: dg.take(x + 1.0, np.arange(8)),
    "concat": lambda x: dg.concat([x * 2.0, dg.zeros(2)]),
    "product": lambda x: dg.reshape(x, (2, 4)) @ dg.ones((4, 3)),
    "sum": lambda x: dg.sum(dg.reshape(x, (4, 2)), axis=1),
    "scatter": lambda x: dg.grad(dg.take(PARAMETER, np.array([0, 1, 1])), [PARAMETER], x[:3])[0],
    "composite": halved,
    "softmax": lambda x: dg.softmax(x, axis=0),
    "gradient": lambda x: dg.grad(dg.sum(x * PARAMETER), [PARAMETER], 2.0)[0],
    "random": lambda x: dg.rand((8,)),
    "constant": lambda x: dg.tensor(np.arange(8, dtype=np.float32)),
}
outside = extend.external("outside", lambda x: x.copy(), lambda x: x, pure=True)
COPIES = {
    "input": lambda x: x,
    "variable": lambda x: PARAMETER,
    "view": lambda x: dg.flip(dg.reshape(x, (2, 4)).mT),
    "where": lambda x: dg.where(x > 0, x * 2.0, x),
    "where-literal": lambda x: dg.where(x > 0, x * 2.0, NANS[1]),
    "relu": dg.relu,
    "clip": lambda x: dg.clip(x, 0.0, 1.0),
    "take": lambda x: dg.take(x, np.arange(8)),
    "concat": lambda x: dg.concat([x * 2.0, x]),
    "composite": twice,
    "gradient": lambda x: dg.grad(dg.where(PARAMETER > 0, PARAMETER, 0.0), [PARAMETER], x)[0],
    "full": lambda x: dg.full_like(x, float(NANS[1])),
    "external": outside,
}


def ops_seen_alike(function) -> list[str]:
    """All bits are equal in eager mode and at both levels. The ops that are left."""
    dg.manual_seed(3)
    expected = [np.ascontiguousarray(x.numpy()) for x in function(dg.tensor(X))]
    for level in ("none", "exact"):
        executable = compiled(function, optimize=level)
        dg.manual_seed(3)
        assert all(map(same_bits, [x.numpy() for x in executable(X)], expected))
    return ops(executable)


def seen(x) -> list:
    return [see(x) for see in SEEN.values()]


@pytest.mark.parametrize("source", COMPUTED)
def test_exact_rules_drop_what_changes_nothing(source):
    def function(x):
        y = COMPUTED[source](x)
        return [z for identity in IDENTITIES.values() for z in seen(identity(y))]

    assert ops_seen_alike(function) == ops(compiled(lambda x: seen(COMPUTED[source](x))))


@pytest.mark.parametrize("source", COPIES)
def test_exact_rules_leave_what_may_hold_another_nan(source):
    def function(x):
        y = COPIES[source](x)
        return [z for identity in IDENTITIES.values() for z in seen(identity(y))]

    left, without = ops_seen_alike(function), ops(compiled(lambda x: seen(COPIES[source](x))))
    assert all(left.count(name) > without.count(name) for name in DROPPED)


def test_constants_with_other_nans():
    held = dg.tensor(X[::-1].copy())  # folded: computed once, by the kernels that would run
    assert ops_seen_alike(lambda x: [x + 1.0, *(z for f in IDENTITIES.values() for z in seen(f(held)))]) == ["add"]


def test_a_choice_between_equals_is_a_copy():
    assert ops_seen_alike(lambda x: seen(dg.where(x > 0, x, x))) == ops(compiled(seen))


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


def test_views_of_constants_are_folded_whatever_lies_where():
    base = dg.tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    for captured in (base, base[::-1], base[:, ::-1], base.T, base[1:, ::2], dg.broadcast_to(base[0], (3, 4))):
        for function in (
            lambda x, c=captured: dg.reshape(c, (-1, 1)) * x[0],
            lambda x, c=captured: (c.T[0] @ c.T[0]) * x[0],
            lambda x, c=captured: dg.argsort(c[::-1].T, axis=0) * x[0],
        ):
            executable = compiled(function)
            assert {"matmul", "argsort"}.isdisjoint(ops(executable))
            assert same_bits(executable(np.ones(8, np.float32)).numpy(), function(np.ones(8, np.float32)).numpy())


def test_constants_are_folded_by_the_kernels_that_would_run():
    constant = dg.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
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
    with pytest.raises(dg.errors.ArgumentError, match="one of inlining"):
        compiled(lambda x: x, passes=["dead_cod"])
    with pytest.raises(dg.errors.ArgumentError, match="one of none, exact, fast"):
        compiled(lambda x: x, optimize="more")


def test_the_table_of_passes_is_complete():
    assert len(set(NAMES)) == len(NAMES)
    for p in PASSES:
        assert p.stage in ("graph", "kernel")
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
