"""The pass that opens composites: same bits, same first error, and what the passes after it see."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance import modes
from dualgraph import extend, nn, optim, static
from dualgraph.bits import same_bits
from dualgraph.core.op import Part
from dualgraph.errors import GraphError, RangeError
from dualgraph.ops.registry import OPS
from dualgraph.ops.symbol import CONSTANT, Constant
from dualgraph.static import dag as dags
from dualgraph.static import rewriter

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6)).astype(np.float32)
W = RNG.standard_normal(6).astype(np.float32)
LABELS = np.array([0, 5, 2, 2])

centred = extend.composite("centred", lambda x: x - dg.mean(x, axis=-1, keepdims=True))
scaled = extend.composite("scaled", lambda x, by: centred(x) * by + dg.softmax(x, axis=-1))
nested = extend.composite("nested", lambda x: scaled(scaled(x, by=2.0), by=-0.5))
both = extend.composite("both", lambda x: (dg.exp(x), centred(x), x))
ruled = extend.composite("ruled", lambda x: dg.tanh(x), vjp=(lambda g, out, x: g * (1.0 - out * out),))
same = extend.composite("same", lambda x: x)
fixed = extend.composite("fixed", lambda x: (dg.ones(x.shape), dg.tensor([1.0, 2.0]), 3.0 * dg.ones(())))
sourceless = extend.composite("sourceless", lambda: dg.arange(3) * 2)
plus_one = extend.external("plus_one", lambda x: x + 1, lambda x: x, vjp=(lambda g, out, x: g,), pure=True)
outside = extend.composite("outside", lambda x: plus_one(centred(x)) * plus_one(x))


CASES = {
    "softmax": (lambda x: dg.softmax(x, axis=-1), [X]),
    "log_softmax": (lambda x: dg.log_softmax(x, axis=0), [X]),
    "logsumexp": (lambda x: dg.logsumexp(x, axis=1), [X]),
    "layer_norm": (lambda x, w: dg.layer_norm(x, 6, w), [X, W]),
    "cross_entropy": (lambda x: dg.cross_entropy(x, LABELS), [X]),
    "mse_loss": (lambda x: dg.mse_loss(x, dg.tensor(X[::-1].copy())), [X]),
    "linear": (lambda x, w: F.linear(x, w, w[:, 0]), [X, X]),
    "std": (lambda x: dg.std(x, axis=1) + dg.var(x), [X]),
    "prod": (lambda x: dg.prod(x, axis=1), [X]),
    "nested": (nested, [X]),
    "several results": (lambda x: both(both(x)[1]), [X]),
    "of one result": (lambda x: both(x)[0], [X]),
    "with a rule": (ruled, [X]),
    "its input": (lambda x: [same(x), same(x * 2.0), same(same(x))], [X]),
    "constants": (lambda x: [y * x[0, 0] for y in fixed(x)], [X]),
    "without inputs": (lambda x: x[0, :3] * sourceless(), [X]),
    "external": (outside, [X]),
    "nothing": (
        lambda x: [nested(x), dg.layer_norm(x, 6), dg.sum(dg.softmax(x, axis=-1))],
        [np.zeros((0, 6), np.float32)],
    ),
    "no columns": (lambda x: [dg.layer_norm(x, (2, 0)), both(x)], [np.zeros((3, 2, 0), np.float32)]),
    "float64": (lambda x: nested(dg.layer_norm(x, 6)), [X.astype(np.float64)]),
}


def executable_of(function: Any, arrays: Any, **options: Any) -> Any:
    graph, outputs = modes.define(function, arrays)
    return static.compile(graph, outputs=outputs, **options)


def ops_after(executable: Any, stage: str = "dead_code_again") -> Counter[str]:
    leaves = ("placeholder", "constant", "variable")
    calls = dags.calculations(executable.stages[stage])
    return Counter(call.op.name for call in calls if call.op.name not in leaves)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str, order: int) -> None:
    function, arrays = CASES[case]
    if order == 2 and case == "prod":
        arrays = [arrays[0][:2, :3].copy()]
    modes.assert_modes_agree(function, arrays, case, order=order)
    full = modes.differentiated(function, order) if order else function
    executable = executable_of(full, arrays, verify=True)
    modes.assert_bits(modes.run_executable(executable, arrays), modes.run_eager(full, arrays), f"{case} verified")


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_has_no_composite_and_names_of_its_own(case: str) -> None:
    function, arrays = CASES[case]
    executable = executable_of(modes.differentiated(function), arrays)
    written = [call for call in executable.stages["differentiated"] if call.op.parts is not None]
    calls = list(executable.stages["inlining"])
    assert not any(call.op.parts is not None for call in calls)
    names = [call.name for call in calls if call.op not in dags.SINKS]
    assert len(set(names)) == len(names)
    assert len({call.place for call in calls}) == len(calls)
    parts = [call for call in calls if isinstance(call, Part)]
    for part in parts:
        assert part.whole in written
        assert part.name.startswith(f"{part.whole.name}.")
        assert (part.where, part.serial) == (part.whole.where, part.whole.serial)
    assert [call.serial for call in dags.in_order(executable.stages["inlining"])] == sorted(c.serial for c in calls)
    opened = next(p for p in executable.passes if p.name == "inlining")
    assert opened.notes == [f"opened {call.name}" for call in written]
    assert opened.numerics == "exact"
    assert "inlining" in executable.explain()
    dags.check("inlining", executable.stages["inlining"], executable.stages["differentiated"])


def test_without_the_pass_composites_are_lowered_as_they_are() -> None:
    for options in ({"optimize": "none"}, {"passes": [p for p in static.PASSES if p.name != "inlining"]}):
        executable = executable_of(nested, [X], **options)
        assert [call.op.name for call in dags.calculations(executable.compilation.optimised)][-1] == "nested"
        assert same_bits(executable(X)[0].numpy(), nested(dg.tensor(X)).numpy())


def test_a_graph_without_composites_stays_the_same_object() -> None:
    executable = executable_of(lambda x: dg.tanh(x) * 2.0, [X])
    assert executable.stages["inlining"] is executable.stages["differentiated"]


def test_what_two_composites_compute_alike_is_computed_once() -> None:
    loss = executable_of(modes.differentiated(lambda x: dg.cross_entropy(x, LABELS)), [X])
    assert ops_after(loss, "inlining")["exp"] == 2
    assert ops_after(loss)["exp"] == 1
    twice = executable_of(lambda x: [dg.softmax(x, axis=-1), dg.log_softmax(x, axis=-1), dg.softmax(x, axis=-1)], [X])
    assert ops_after(twice)["exp"] == 1


def test_a_loss_and_its_gradient_are_one_kernel() -> None:
    def loss(x: Any) -> Any:
        y = dg.layer_norm(x, 6)
        return dg.softmax(y * y, axis=-1)

    executable = executable_of(modes.differentiated(loss), [X])
    assert executable.cost.launches == 1


def test_dead_code_goes_out_of_a_composite() -> None:
    def function(x: Any) -> Any:
        return both(x)[1]

    assert "exp" not in ops_after(executable_of(function, [X]))


def test_the_check_of_a_loss_that_nobody_uses_stays_alone() -> None:
    executable = executable_of(lambda x, t: [x + 1.0, [dg.cross_entropy(x, t)][1:]], [X, LABELS], verify=True)
    assert ops_after(executable) == {"in_range": 1, "add": 1}
    executable(X, LABELS)
    with pytest.raises(RangeError, match="cross_entropy"):
        executable(X, LABELS + 1)


def test_exact_rules_see_through_and_leave_foreign_nans() -> None:
    once = extend.composite("once", lambda x: x * 1.0)
    assert ops_after(executable_of(lambda x: once(dg.tanh(x)), [X])) == {"tanh": 1}
    left = executable_of(once, [X])
    assert ops_after(left) == {"multiply": 1}
    nans = np.array([[0x7FC12345, 0xFFC00000]], np.uint32).view(np.float32)
    modes.assert_modes_agree(lambda x: [once(x), dg.signbit(once(x))], [nans], order=0)


def test_constants_are_folded_inside() -> None:
    held = dg.tensor(X)
    executable = executable_of(lambda x: x + dg.softmax(held, axis=-1), [X], verify=True)
    assert ops_after(executable) == {"add": 1}
    assert same_bits(executable(X)[0].numpy(), (dg.tensor(X) + dg.softmax(held, axis=-1)).numpy())


def test_numbers_of_shapes_stay_operands() -> None:
    """So one kernel serves all of them, folded or not; a literal of the same value is another constant."""
    executable = executable_of(modes.differentiated(lambda x: dg.cross_entropy(x, LABELS, "mean")), [X])
    kept = [c.params["value"] for c in executable.compilation.optimised if c.op is CONSTANT and c.specs[0].shape == ()]
    assert [c.array.item() for c in kept if c.operand and c.array.dtype == np.float32].count(4.0) == 1
    number = np.array(2.0)
    assert Constant(number, operand=True) != Constant(number) == Constant(number.copy())


def test_random_draws_are_not_merged() -> None:
    def function(x: Any) -> Any:
        return [nn.functional.dropout(dg.softmax(x, axis=-1), 0.5) for _ in range(2)]

    executable = executable_of(function, [X], verify=True)
    assert ops_after(executable)["bernoulli"] == 2
    a, b = modes.run_executable(executable, [X])
    assert not same_bits(a, b)
    modes.assert_modes_agree(function, [X])


class Log:
    """Functions from outside: those with effects give what depends on the calls before."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.op = {
            name: extend.external(name, lambda x, name=name: self.called(name, x), lambda x: x, pure=name == "pure")
            for name in ("first", "second", "pure")
        }

    def called(self, name: str, x: Any) -> Any:
        if name == "pure":
            return x + 1
        self.calls.append(name)
        return x * len(self.calls)


@pytest.mark.parametrize("verify", [False, True])
def test_functions_from_outside_keep_their_order_and_number(verify: bool) -> None:
    """A pure one before them is merged with one outside: they are told apart all the same, where stages are compared."""
    log = Log()
    first, second, pure = log.op["first"], log.op["second"], log.op["pure"]
    around = extend.composite("around", lambda x: (pure(x), second(first(x)), first(x), second(x) * 2.0))

    def function(x: Any) -> Any:
        return [pure(x), *around(x), *around(x)[2:]]

    expected = [y.numpy() for y in function(dg.tensor(X))]
    order = [*log.calls]
    executable = executable_of(function, [X], verify=verify)
    assert ops_after(executable)["pure"] == 1
    for _ in range(2):  # the second run compares nothing
        log.calls.clear()
        modes.assert_bits([y.numpy() for y in executable(X)], expected, "functions from outside")
        assert log.calls == order


PICKED = extend.composite("picked", lambda x, i: dg.take(x, i, axis=0) * 2.0)
TWICE = extend.composite("twice", lambda x, i, k: (PICKED(x, i), dg.take(x, k, axis=1)))
WRONG = {  # which of the labels, i, k are out of range
    "labels": (LABELS + 1, np.array([0]), np.array([0])),
    "i": (LABELS, np.array([9]), np.array([0])),
    "k": (LABELS, np.array([0]), np.array([-9])),
    "i and k": (LABELS, np.array([7]), np.array([8])),
    "all": (LABELS - 1, np.array([7]), np.array([8])),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_first_error_is_that_of_eager_mode(wrong: str) -> None:
    state = dg.Variable(np.zeros(2, np.float32))

    def function(x: Any, t: Any, i: Any, k: Any) -> Any:
        loss = dg.cross_entropy(x, t)
        picked = TWICE(x, i, k)
        state.assign(state + 1.0)
        return loss, picked, TWICE(x, i, k)

    arrays = [X, *WRONG[wrong]]
    with pytest.raises(RangeError) as eager:
        function(*map(dg.tensor, arrays))
    specs = [static.spec(a.shape, a.dtype) for a in arrays]
    for options in ({"optimize": "none"}, {}, {"verify": True}):
        with pytest.raises(RangeError) as compiled:
            static.compile(function, *specs, **options)(*arrays)
        assert str(compiled.value) == str(eager.value)
        assert state.tolist() == [0.0, 0.0]


def test_a_training_step() -> None:
    def run(compiled: bool) -> list[Any]:
        dg.manual_seed(5)
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 6))
        opt = optim.Adam(model.parameters(), lr=0.1)

        def step(x: Any, t: Any) -> Any:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            opt.step()
            return loss

        specs = (static.spec(X.shape), static.spec(LABELS.shape, "int64"))
        f = static.compile(step, *specs, verify=True) if compiled else step
        losses = [f(dg.tensor(X), dg.tensor(LABELS)).numpy() for _ in range(3)]
        return [*losses, *(p.numpy() for p in model.parameters())]

    modes.assert_bits(run(True), run(False), "a training step")


# What is wrong is noticed, and named


def test_verify_names_the_pass_and_the_composite(monkeypatch: pytest.MonkeyPatch) -> None:
    true = rewriter.opened

    def wrong(whole: Any, inputs: Any, recorder: Any) -> Any:
        parts, results = true(whole, inputs, recorder)
        for part in parts:
            if part.op is OPS["exp"]:
                part.op = OPS["tanh"]
        return parts, results

    monkeypatch.setattr(rewriter, "opened", wrong)
    executable = executable_of(lambda x: dg.softmax(x, axis=-1) * 2.0, [X], verify=True)
    with pytest.raises(GraphError, match=r"inlining changed the bits of softmax_\d+"):
        executable(X)


def without(name: str, number: int) -> static.Pass:
    """Leaves a check out."""

    def run(dag: Any) -> Any:
        calls = dags.in_order(dag)
        left = [call for call in calls if call.op is OPS[name]]
        return dags.of(call for call in calls if call is not left[number])

    return static.Pass("without", "graph", "exact", "forgets a check", run, after="dead_code")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_pass_keeps_the_checks_inside_of_composites(number: int) -> None:
    def function(x: Any, i: Any, k: Any) -> Any:
        TWICE(x, i, k)
        dg.take(x, i, axis=1)
        return x

    arrays = [X, np.array([1]), np.array([2])]
    with pytest.raises(GraphError, match="without: calls that check values or have effects outside are gone"):
        executable_of(function, arrays, passes=[*static.PASSES, without("take", number)])


def test_a_check_that_an_equal_one_has_made_may_go() -> None:
    def function(x: Any, i: Any) -> Any:
        return [PICKED(x, i), PICKED(x, i) + 1.0, dg.take(x * 1.0, i, axis=0), dg.take(x * 1.0, i, axis=0)]

    executable = executable_of(function, [X, np.array([1, 2])], verify=True)
    assert ops_after(executable)["take"] == 2
    executable(X, np.array([1, 2]))


def test_a_pass_of_the_users_sees_parts_or_wholes() -> None:
    def names(dag: Any) -> Any:
        return dag, sorted({call.op.name for call in dag if call.inputs and call.op not in dags.SINKS})

    before = static.Pass("before", "graph", "exact", "looks", names, before="inlining")
    after = static.Pass("after", "graph", "exact", "looks", names, after="inlining")
    executable = executable_of(
        scaled_twice := (lambda x: dg.softmax(x, axis=-1)), [X], passes=[*static.PASSES, before, after]
    )
    notes = {p.name: p.notes for p in executable.passes}
    assert notes["before"] == ["softmax"]
    assert notes["after"] == ["divide", "exp", "max", "subtract", "sum"]
    assert same_bits(executable(X)[0].numpy(), scaled_twice(dg.tensor(X)).numpy())


def test_what_replaces_a_part_is_a_part() -> None:
    def squares(dag: Any) -> Any:
        def rule(rw: Any, call: Any, inputs: Any) -> Any:
            return [rw.emit(call, OPS["square"], inputs[:1], call.specs[0])] if call.op is OPS["multiply"] else None

        return static.Rewriter(dag).run(rule)

    square = extend.composite("mine", lambda x: (x * x) + 1.0)
    mine = static.Pass("mine", "graph", "exact", "squares", squares, after="inlining")
    executable = executable_of(square, [X], passes=[*static.PASSES, mine], verify=True)
    (call,) = (c for c in executable.stages["mine"] if c.op is OPS["square"])
    assert isinstance(call, Part)
    assert call.whole.op.name == "mine"
    executable(X)


SPECIAL = {
    "gradient of a mean": lambda x: dg.grad(dg.mean(x * -0.0), [x])[0],
    "mean of zeros": lambda x: dg.grad(dg.mean(x) * -0.0, [x])[0],
    "sort": dg.sort,
    "gradient of a sort": lambda x: dg.grad(dg.sum(dg.sort(x) * -0.0), [x])[0],
    "softmax": lambda x: dg.softmax(x, axis=0) * 1.0 + 0.0,
    "mean": lambda x: (dg.mean(x) * 1.0) / 1.0,
    "variance": lambda x: dg.var(x) * 1.0 - 0.0,
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("what", SPECIAL)
def test_signed_zeros_and_nans_through_what_was_opened(what, dtype):
    """What a composite gives is the same bits whether it runs as a whole, as calls among others, or rewritten."""
    special = np.array([-0.0, 0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-40, 1.0])
    for start in (0, 4, 6):
        x = dg.tensor(special[start:], dtype=dtype).requires_grad_()
        expected = SPECIAL[what](x).numpy().tobytes()
        for level in ("none", "exact"):
            run = static.jit(SPECIAL[what], optimize=level, verify=True)
            assert run(x).numpy().tobytes() == expected
