"""Leaves, `requires_grad` and `.grad` inside of a traced step: the same bookkeeping in both modes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import pickle  # noqa: TID251 - what users do with models
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import extend, nn, optim, static, tree
from dualgraph.errors import DualgraphError, FeedError, GradientError, GraphError, ShapeError


def fast_gradient_sign(w: Any, v: Any, x: Any) -> Any:
    x.requires_grad_()
    dg.sum(dg.sin(x * w)).backward()
    return x.detach() + dg.sign(x.grad)


def first_order_adaptation(w: Any, v: Any, x: Any) -> Any:
    with dg.no_grad():
        adapted = w - 0.5 * x
    adapted.requires_grad_()
    dg.sum(adapted * adapted).backward()
    return adapted.grad


def latent(w: Any, v: Any, x: Any) -> Any:
    z = dg.zeros(2).requires_grad_()
    dg.sum((z - w) ** 2).backward()
    return z.grad, z - 0.1 * z.grad


def through_a_new_leaf(w: Any, v: Any, x: Any) -> Any:
    d = (x.detach() * 1.5).requires_grad_()
    dg.sum(d * d * w).backward()
    dg.sum(d * 3.0).backward()
    return d.grad


def not_past_a_new_leaf(w: Any, v: Any, x: Any) -> Any:
    with dg.no_grad():
        g = x * w
    g.requires_grad_()
    return dg.grad(dg.sum(g * g), [w], allow_unused=True)


def past_a_new_leaf(w: Any, v: Any, x: Any) -> Any:
    with dg.no_grad():
        g = x * w
    g.requires_grad_()
    return dg.grad(dg.sum(g * g), [w])


def switched_off_and_on(w: Any, v: Any, x: Any) -> Any:
    first = dg.sum(w * x)
    w.requires_grad_(False)
    second = dg.sum(w * w * x)
    w.requires_grad_(True)
    (first + second).backward()
    return first + second


def switched_for_the_rest(w: Any, v: Any, x: Any) -> Any:
    w.requires_grad_(not w.requires_grad)
    if w.requires_grad:
        dg.sum(w * x).backward()
    return x * 1.0


def one_frozen_for_the_other(w: Any, v: Any, x: Any) -> Any:
    for p, q in ((w, v), (v, w)):
        q.requires_grad_(False)
        dg.sum(p * q * x).backward()
        q.requires_grad_(True)
    return dg.sum(w * v)


def a_gradient_that_is_a_variable(w: Any, v: Any, x: Any) -> Any:
    w.grad = v
    v.assign(v + 1.0)
    return w.grad * 1.0


def reads_a_plain_gradient(w: Any, v: Any, x: Any) -> Any:
    return x * 2.0 if x.grad is None else x.grad * 3.0


def a_wrong_gradient(w: Any, v: Any, x: Any) -> Any:
    x.grad = dg.zeros(5, dtype="float64")


def no_tensor_as_a_gradient(w: Any, v: Any, x: Any) -> Any:
    x.grad = 3.0


STEPS = [
    fast_gradient_sign, first_order_adaptation, latent, through_a_new_leaf, not_past_a_new_leaf, past_a_new_leaf,
    switched_off_and_on, switched_for_the_rest, one_frozen_for_the_other, a_gradient_that_is_a_variable,
    reads_a_plain_gradient, a_wrong_gradient, no_tensor_as_a_gradient,
]  # fmt: skip


def run(step: Callable[..., Any], modes: list[Callable[[Any], Any]], plain: bool) -> list[Any]:
    """What each call gave and left behind."""
    w, v = nn.Parameter([1.0, 2.0]), nn.Parameter([-3.0, 0.5])
    x = dg.tensor([0.5, -1.5], requires_grad=not plain)
    x.grad = dg.tensor([5.0, 6.0]) if step is reads_a_plain_gradient else None

    def bound(x: Any) -> Any:
        return step(w, v, x)

    compiled = [mode(bound) for mode in modes]
    seen: list[Any] = []
    for number in range(4):
        try:
            result = compiled[number % len(compiled)](x)
        except DualgraphError as error:
            seen.append((type(error), error.args))
            continue
        results = result if isinstance(result, (tuple, list)) else [] if result is None else [result]
        seen.append([(r.spec, r.detach().numpy().tobytes()) for r in results])
        for p in (w, v, x):
            grad = None if p.grad is None else p.grad.numpy().tobytes()
            seen.append((p.requires_grad, p.detach().numpy().tobytes(), grad))
    return seen


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("step", STEPS)
def test_both_modes(step, level, plain):
    def compiled(f: Any) -> Any:
        return static.jit(f, optimize=level)

    eager = run(step, [lambda f: f], plain)
    assert run(step, [compiled], plain) == eager
    assert run(step, [compiled, lambda f: f], plain) == eager
    assert run(step, [lambda f: f, compiled], plain) == eager


def test_an_adversarial_pair():
    """A generator and a discriminator in one step, each frozen while the other learns."""

    def train(mode: Callable[[Any], Any]) -> Any:
        dg.manual_seed(0)
        g, d = nn.Linear(2, 2), nn.Linear(2, 1)
        of_g, of_d = optim.SGD(g.parameters(), lr=0.1), optim.Adam(d.parameters(), lr=0.1)

        def step(z: Any) -> Any:
            d.requires_grad_(False)
            of_g.zero_grad()
            first = -d(g(z)).mean()
            first.backward()
            of_g.step()
            d.requires_grad_(True)
            of_d.zero_grad()
            second = dg.tanh(d(g(z).detach())).mean()
            second.backward()
            of_d.step()
            return first, second

        f = mode(step)
        losses = [[v.item() for v in f(dg.ones((3, 2)))] for _ in range(5)]
        return losses, [p.numpy().tobytes() for m in (g, d) for p in m.parameters()]

    assert train(static.jit) == train(lambda f: f)


def test_results_of_arguments_that_take_gradients_are_never_cut_silently():
    w = nn.Parameter([1.0, 2.0])
    f = static.compile(lambda z: z * z, static.spec((2,)))
    with pytest.raises(GradientError, match="compiled graph"):
        dg.sum(f(w * 3.0) + w).backward()
    assert w.grad is None
    with dg.no_grad():
        assert f(w).tolist() == [1.0, 4.0]
    step, x = static.compile(lambda z: dg.sum(w * z).backward(), static.spec((2,))), dg.ones(2).requires_grad_()
    step(x)
    assert (w.grad.tolist(), x.grad.tolist()) == ([1.0, 1.0], [1.0, 2.0])
    assert step.misses == ["first call", "argument z: requires_grad False → True"]


def test_gradients_with_a_history_say_so_later():
    w = nn.Parameter([1.0, 2.0])
    static.jit(lambda: dg.sum(w * w * w).backward(create_graph=True))()
    g = w.grad
    w.grad = None
    assert g.detach().tolist() == [3.0, 12.0]
    with pytest.raises(GradientError, match="compiled graph"):
        dg.sum(g * g).backward()


def test_one_tensor_for_two_inputs_of_a_graph():
    w = nn.Parameter([1.0, 2.0])
    graph = static.Graph()
    with graph:
        a, b = (static.placeholder(n, (2,), requires_grad=True) for n in "ab")
        (a * a * w + 3.0 * b).sum().backward()
    exe = static.compile(graph, outputs=[])
    x, y = (dg.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    exe(x, y)
    assert (x.grad.tolist(), y.grad.tolist()) == ([2.0, 8.0], [3.0, 3.0])
    for given in ((x, x), (w, y)):
        with pytest.raises(FeedError, match="pass two tensors"):
            exe(*given)
    assert x.grad.tolist() == [2.0, 8.0]


def test_freezing_what_the_graph_does_not_use_yet():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)

    def penalty(x: Any) -> Any:
        return sum((dg.sum(p * p) for p in model.parameters() if p.requires_grad), dg.sum(x))

    fast, x = static.jit(penalty), dg.ones(2)
    assert fast(x).item() == penalty(x).item()
    model[0].requires_grad_(True)
    assert fast(x).item() == penalty(x).item()
    assert "requires_grad False → True" in fast.misses[1]


def test_results_that_hold_symbols_are_refused():
    class Box:
        def __init__(self, value: Any):
            self.value = value

    refused: list[Callable[[Any], Any]] = [
        lambda x: Box(x * 2.0),
        lambda x: {x * 2.0},
        lambda x: (y for y in (x, x)),
        lambda x: {"a": Box([x * 1.0])},
    ]
    for function in refused:
        with pytest.raises(GraphError, match="make other objects outside"):
            static.jit(function)(dg.ones(2))


def test_other_results_are_each_callers_own():
    fast = static.jit(lambda x: (x * 1.0, np.arange(3), {1}))
    first, second = fast(dg.ones(1)), fast(dg.ones(1))
    first[1][0] = 99
    first[2].add(2)
    assert second[1].tolist() == fast(dg.ones(1))[1].tolist() == [0, 1, 2]
    assert second[2] == fast(dg.ones(1))[2] == {1}


def test_gradient_rules_of_the_wrong_shape():
    from dualgraph import extend

    for wrong in (dg.ones(()), dg.ones(3)):
        op = extend.composite("wrong", lambda q: q * 2.0, vjp=(lambda g, o, q, wrong=wrong: wrong,))
        x = dg.tensor([1.0, 2.0], requires_grad=True)
        words = set()
        for mode in (lambda f: f, static.jit):
            with pytest.raises(ShapeError, match="mend the gradient rule") as raised:
                mode(lambda x, op=op: dg.sum(op(x)).backward())(x)
            words.add(raised.value.args)
        assert len(words) == 1
        assert x.grad is None


UNCHANGED: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda w: w.reshape(w.shape),
    "-1": lambda w: w.reshape(-1),
    "permute": lambda w: w.permute_dims((0,)),
    "broadcast": lambda w: w.broadcast_to(w.shape),
    "slice": lambda w: w[:],
    "ellipsis": lambda w: w[...],
    "squeeze": lambda w: w.squeeze(),
    "moveaxis": lambda w: dg.moveaxis(w, 0, 0),
    "swapaxes": lambda w: w.swapaxes(0, 0),
    "flatten": lambda w: w.flatten(),
    "flip": lambda w: dg.flip(w, axis=()),
    "arrays": lambda w: dg.broadcast_arrays(w)[0],
    "dropout": lambda w: nn.functional.dropout(w, 0.0),
    "astype": lambda w: w.astype("float32"),
    "eval": lambda w: nn.functional.dropout(w, 0.5, False),
}


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", UNCHANGED)
def test_views_that_change_nothing_do_not_follow_a_variable(name, trainable):
    def run(mode: Callable[[Any], Any]) -> Any:
        w = dg.Variable([1.0, 2.0], requires_grad=trainable)
        seen: list[Any] = []
        if trainable:
            w.register_hook(lambda g: seen.append(1))

        def step(x: Any) -> Any:
            w.grad = None
            y = UNCHANGED[name](w)
            loss = dg.sum(y * y * x) + dg.sum(w * 0.1)
            with dg.no_grad():
                w.assign(w + 10.0)
            loss = loss + dg.sum(y * 0.7) + dg.sum(w * w * 0.3)
            if trainable:
                loss.backward()
            return loss, y * 1.0

        f, x = mode(step), dg.tensor([0.3, -0.7])
        found = [[v.detach().numpy().tobytes() for v in f(x)] for _ in range(3)]
        return found, w.tolist(), None if w.grad is None else w.grad.numpy().tobytes()

    assert run(static.jit) == run(lambda f: f)


def test_a_view_that_changes_nothing_is_computed():
    w = nn.Parameter([1.0, 2.0])
    for way in UNCHANGED.values():
        old = way(w)
        if old is not w:
            assert not old.is_leaf
            assert old.requires_grad
            with pytest.raises(GradientError, match="only a leaf can be switched"):
                old.requires_grad_(False)
            with pytest.raises(GraphError, match="still has its history"):
                static.jit(lambda x, old=old: dg.sum(old * old * x))(dg.ones(2))
            with dg.no_grad():
                assert not way(w).requires_grad
    old = w[:]
    w.assign(w * 10.0)
    dg.sum(old * old).backward()
    assert (old.tolist(), w.tolist(), w.grad.tolist()) == ([1.0, 2.0], [10.0, 20.0], [2.0, 4.0])


def test_asarray_gives_what_it_is_given():
    w, x = nn.Parameter([1.0, 2.0]), dg.ones(2)
    assert dg.asarray(w) is w
    assert dg.asarray(x, dtype="float32") is x
    assert static.jit(lambda: dg.asarray(w))() is w
    assert static.jit(dg.asarray)(x) is x


def test_flags_that_a_step_leaves_otherwise():
    """Compiling changes nothing; each run does what an eager call does."""

    def run(mode: Callable[[Any], Any]) -> Any:
        w, v = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])

        def step() -> Any:
            w.grad = v.grad = None
            v.register_hook(lambda g: g * 2.0)
            if w.requires_grad:
                dg.sum(w * v).backward()
                w.requires_grad_(False)
            else:
                dg.sum(w * v * v).backward()
                w.requires_grad_(True)
            return dg.sum(v)

        f = mode(step)
        seen: list[Any] = [(w.requires_grad, len(v.hooks or ()))]
        for _ in range(4):
            f()
            grads = [None if p.grad is None else p.grad.tolist() for p in (w, v)]
            seen.append((w.requires_grad, len(v.hooks or ()), grads))
        return seen

    eager = run(lambda f: f)
    assert run(static.jit) == eager
    assert run(static.compile) == eager


def switched_before_backward(w: Any, v: Any, x: Any) -> Any:
    w.requires_grad_(False)
    loss = dg.sum(w * v * x)
    w.requires_grad_(True)
    loss.backward()
    return loss


def frozen_before_backward(w: Any, v: Any, x: Any) -> Any:
    loss = dg.sum(w * v * x)
    w.requires_grad_(False)
    loss.backward()
    w.requires_grad_(True)
    return loss


def made_inside(w: Any, v: Any, x: Any) -> Any:
    z = dg.tensor([0.5, 0.25], requires_grad=True)
    dg.sum(z * w).backward()
    return z.grad


@pytest.mark.parametrize("step", [switched_before_backward, frozen_before_backward, made_inside])
def test_flags_at_the_time_of_the_backward(step):
    eager = run(step, [lambda f: f], True)
    assert run(step, [static.jit], True) == eager
    assert run(step, [static.jit, lambda f: f], True) == eager


def test_gradients_that_take_gradients_are_refused():
    k = nn.Parameter([1.0, 2.0])
    dg.sum(k * k * k).backward(create_graph=True)
    with pytest.raises(GraphError, match="detach"):
        static.jit(lambda: dg.grad(dg.sum(k.grad * k), [k])[0])()


def test_arguments_are_not_kept():
    import gc
    import weakref

    fast = static.jit(lambda x: dg.sum(x * x).backward())
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    fast(x)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


def toggled_by_assignment(w: Any, v: Any, x: Any) -> Any:
    w.requires_grad = not w.requires_grad
    if w.requires_grad:
        dg.sum(w * x).backward()
    return dg.sum(w * v)


@pytest.mark.parametrize("plain", [True, False])
def test_flags_set_by_assignment(plain):
    eager = run(toggled_by_assignment, [lambda f: f], plain)
    assert run(toggled_by_assignment, [static.jit], plain) == eager
    assert run(toggled_by_assignment, [static.jit, lambda f: f], plain) == eager


def test_watched_values_are_never_cut_silently():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    with static.Graph() as graph:
        p = static.placeholder("x", (2,))
        h = p * p
    watched = static.compile(graph, outputs=[h]).watch(h)
    with pytest.raises(FeedError, match=r"takes a gradient.*say static.placeholder\(…, requires_grad=True\)"):
        watched(x)
    with static.Graph() as graph:
        p = static.placeholder("x", (2,), requires_grad=True)
        h = p * p
    _, seen = static.compile(graph, outputs=[h]).watch(h)(x)
    with pytest.raises(GradientError, match="compiled graph"):
        dg.grad(dg.sum(next(iter(seen.values())) + x), [x])


OWNERS: dict[str, Callable[[], Any]] = {
    "parameter": lambda: nn.Parameter([1.0, 2.0]),
    "buffer": lambda: dg.Variable([1.0, 2.0]),
    "leaf": lambda: dg.tensor([1.0, 2.0], requires_grad=True),
    "plain": lambda: dg.tensor([1.0, 2.0]),
    "array": lambda: np.array([1.0, 2.0], np.float32),
}
WAYS = {**UNCHANGED, "itself": lambda w: w}


OF_ARRAYS = ("moveaxis", "flip", "dropout", "eval", "arrays")  # which are methods of tensors only otherwise


def described(x: Any) -> Any:
    """What can be seen of a tensor or an array."""
    if not isinstance(x, dg.Tensor):
        return np.asarray(x).tobytes()
    return x.requires_grad, x.detach().numpy().tobytes(), None if x.grad is None else x.grad.numpy().tobytes()


def with_a_gradient(x: Any, result: Any) -> Any:
    if not result.requires_grad:
        result.requires_grad_()
    dg.sum(result * result * 3.0).backward()
    return result.grad, result.requires_grad


def frozen(x: Any, result: Any) -> Any:
    if result.requires_grad and result.is_leaf:
        result.requires_grad_(False)
    return result.requires_grad, dg.sum(result * 2.0)


@pytest.mark.parametrize("use", [None, with_a_gradient, frozen])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize(
    ("way", "owner"), [(way, owner) for way in WAYS for owner in OWNERS if owner != "array" or way in OF_ARRAYS]
)
def test_what_is_the_same_value(way, owner, captured, grad, use):
    """A leaf, or a view of it that changes nothing: returned, differentiated and frozen."""

    def run(mode: Callable[[Any], Any]) -> Any:
        w = OWNERS[owner]()

        def step(x: Any) -> Any:
            x = w if captured else x
            if grad:
                y = WAYS[way](x)
            else:
                with dg.no_grad():
                    y = WAYS[way](x)
            return y if use is None else use(x, y)

        f = mode(step)
        seen: list[Any] = []
        for number in range(3):
            result = f(w)
            results = result if isinstance(result, tuple) else (result,)
            seen.append(([x is w for x in results], [described(x) for x in results], described(w)))
            if use is None and grad and result.requires_grad and result.is_leaf:
                dg.sum(result * (number + 1.0)).backward()
            if isinstance(w, dg.Variable):
                w.assign(w.detach() * 2.0)
            seen.append(([described(x) for x in results], described(w)))
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_gradients_of_parameters_that_are_passed_and_used():
    model = nn.Linear(2, 1)

    def step(params: Any, x: Any) -> Any:
        return dg.grad(dg.sum(model(x) ** 2), params)

    given = list(model.parameters()), dg.ones((3, 2))
    f = static.jit(step)
    for _ in range(2):
        assert [described(g) for g in f(*given)] == [described(g) for g in step(*given)]


def leading(x: Any, t: Any) -> list[Any]:
    with dg.no_grad():
        still = x * 5.0
    through = dg.grad(dg.sum(t.detach().requires_grad_() * x), [x]) if x.requires_grad else [t * 1.0]
    return [x * 2.0, t * 2.0, x.detach() * 3.0, still, x > 0, dg.astype(x, "int64") * 1.0, x[:], t[:], x, t, *through]


def test_results_that_need_no_gradient_are_ordinary_tensors_whatever_was_passed():
    """Also where the spec does not say that what is passed takes a gradient."""
    x, t, spec = dg.ones(2).requires_grad_(), dg.ones(2), static.spec((2,))
    with static.Graph() as graph:
        outputs = leading(static.placeholder("x", (2,), requires_grad=True), static.placeholder("t", (2,)))
    runs = [leading, static.jit(leading), static.compile(leading, spec, spec), static.compile(graph, outputs=outputs)]
    flags = [[(y.requires_grad, y.is_leaf) for y in run(x, t)] for run in runs]
    assert flags[0].count((True, False)) == 2
    assert flags == flags[:1] * 4
    w = nn.Parameter([1.0, 2.0])
    dg.sum(w * runs[2](x, t)[1]).backward()
    assert w.grad.tolist() == [2.0, 2.0]


def made_from_data(w: Any) -> Any:
    made = dg.tensor([0.0, 0.0])
    made.requires_grad_()
    dg.sum((w.detach() + made) ** 2.0).backward()
    return made.grad


def made_and_returned(w: Any) -> Any:
    return dg.tensor([1.0, 2.0])


def returned_twice(w: Any) -> Any:
    h = w * 2.0
    return h, (h, [h]), w, w


def leaf_with_a_hook(w: Any) -> Any:
    made = w.detach().requires_grad_()
    made.register_hook(lambda g: g * 3.0)
    return made


def computed_and_asked(w: Any) -> Any:
    h = w * 2.0
    h.requires_grad_()
    return h


def made_and_gone_through(w: Any) -> Any:
    made = w.detach().requires_grad_()
    dg.sum(made * w).backward()
    return made * 1.0


def switched_off(w: Any) -> Any:
    w.requires_grad_(False)
    return w * 1.0


BEHIND = [
    made_from_data,
    made_and_returned,
    returned_twice,
    leaf_with_a_hook,
    computed_and_asked,
    made_and_gone_through,
    switched_off,
]


@pytest.mark.parametrize("f", BEHIND, ids=lambda f: f.__name__)
@pytest.mark.parametrize("told", [False, True])
def test_what_a_compiled_function_does_to_a_tensor_that_takes_a_gradient(f, told):
    """Is what it does in eager mode, whether its spec says so or not: which results are one, flags, gradients, hooks."""

    def seen(run: Any) -> Any:
        found = []
        for _ in range(2):
            x = dg.tensor([1.0, 2.0], requires_grad=True)
            results, _ = tree.flatten(run(x))
            found.append([[y is results[0] for y in results], [y is x for y in results]])
            found.append([(y.requires_grad, y.is_leaf, len(y.hooks or ())) for y in (*results, x)])
            found.append(None if x.grad is None else x.grad.tolist())
            leaf = next((y for y in results if y.requires_grad and y.is_leaf), None)
            if leaf is not None:
                dg.sum(leaf * 2.0).backward()
                found.append(leaf.grad.tolist())
        return found

    assert seen(static.compile(f, static.spec((2,), requires_grad=told))) == seen(f) == seen(static.jit(f))
    verified = static.jit(f, verify=True)
    assert seen(verified) == seen(f)
    assert verified.misses == ["first call"]


def test_a_tensor_that_is_made_inside_is_one_of_each_call():
    made = static.jit(made_and_returned)
    first, second = made(dg.ones(2)).requires_grad_(), made(dg.ones(2))
    dg.sum(first * first).backward()
    assert (second.requires_grad, second.grad, first.grad.tolist()) == (False, None, [2.0, 4.0])


def test_a_model_that_keeps_what_removes_a_hook():
    """Is copied and pickled; its copies have no hooks, and take none off the original."""
    model = nn.Linear(2, 1)
    model.handle = model.weight.register_hook(lambda g: g * 2.0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        other.handle()
        assert len(model.weight.hooks) == 1
        assert not other.weight.hooks
    model.handle()
    assert not model.weight.hooks


def slope_of_a_plain_tensor(x: Any, y: Any) -> Any:
    x.requires_grad_(True)
    (g,) = dg.grad(dg.sum(x * y), [x])
    x.requires_grad_(False)
    return g


@pytest.mark.parametrize("mode", [static.jit, lambda f: static.compile(f, static.spec((2,)), static.spec((2,)))])
def test_flags_that_are_switched_and_back_are_those_of_one_tensor(mode):
    """Whether it was two tensors or one is looked at in each call, not in the first alone."""
    a, b = dg.tensor([1.0, 2.0]), dg.tensor([2.0, 3.0])
    f = mode(slope_of_a_plain_tensor)
    for _ in range(3):
        assert f(a, b).tolist() == [2.0, 3.0]
    assert slope_of_a_plain_tensor(a, a).tolist() == [2.0, 4.0]
    for _ in range(2):
        with pytest.raises(FeedError, match="got a tensor twice"):
            f(a, a)
    assert f(a, b).tolist() == [2.0, 3.0]


def test_the_remover_of_a_hook_that_a_run_has_kept():
    """Removes it: a run that registers another leaves those that were there as they were."""

    def more(x):
        w.register_hook(lambda g: g * 5.0)
        return x * 1.0

    def seen(run):
        nonlocal w
        found = []
        for _ in range(3):
            w = nn.Parameter([1.0])
            remove = w.register_hook(plus)
            run(dg.ones(1))
            remove()
            dg.sum(w).backward()
            found.append((w.grad.tolist(), len(w.hooks)))
        return found

    w, plus = nn.Parameter([1.0]), lambda g: g + 1.0
    assert seen(static.jit(more)) == seen(more) == [([5.0], 1)] * 3


@dataclasses.dataclass
class Scale:
    """A hook that says that it is equal to others, or cannot say."""

    by: Any
    compared: Any = 0

    def __call__(self, g: Any) -> Any:
        return g * self.by

    def __eq__(self, other: object) -> bool:
        return bool(self.compared == other.compared)

    __hash__ = None


@pytest.mark.parametrize("compared", [0, np.zeros(2)], ids=["equal", "no answer"])
def test_hooks_that_say_that_they_are_equal(compared):
    w = nn.Parameter([1.0])

    def step(x):
        w.grad = None
        dg.sum(w * x).backward()

    run = static.jit(step)
    for by in (2.0, 3.0):
        remove = w.register_hook(Scale(by, compared))
        run(dg.ones(1))
        assert w.grad.tolist() == [by]
        remove()


def test_a_graph_that_is_defined_further_after_flags_were_changed():
    w = nn.Parameter([1.0])
    graph = static.Graph()
    with graph:
        w.requires_grad_(False)
    with graph:
        assert not w.requires_grad
    assert w.requires_grad
    w.register_hook(lambda g: g)
    with pytest.raises(GraphError, match="which was given others since; define the graph anew"):
        graph.__enter__()
    assert w.requires_grad
    assert len(w.hooks) == 1


def test_an_intermediate_result_that_keeps_its_gradient_is_passed():
    """What a graph computes from it has nothing to do with that."""
    w = nn.Parameter([1.0, 2.0])
    for mode in (lambda f: f, static.jit, lambda f: static.compile(f, static.spec((2,)))):
        h = w * 2.0
        h.retain_grad()
        assert mode(lambda x: dg.sum(x * 3.0))(h).item() == 18.0
        dg.sum(h * h).backward()
        assert h.grad.tolist() == [4.0, 8.0]


def test_flags_that_another_thread_changes_while_a_function_is_traced():
    """Stay changed, and are not taken for something that the function does."""
    w, other = nn.Parameter([1.0, 2.0]), nn.Parameter([1.0])
    tracing, changed = threading.Event(), threading.Event()

    def step(x):
        loss = dg.sum(w * x) * other
        tracing.set()
        assert changed.wait(10)
        return loss.detach()

    run = static.jit(step)
    thread = threading.Thread(target=run, args=(dg.ones(2),))
    thread.start()
    assert tracing.wait(10)
    w.requires_grad_(False)
    other.register_hook(lambda g: g * 2.0)
    changed.set()
    thread.join()
    assert (w.requires_grad, len(other.hooks)) == (False, 1)
    w.requires_grad_(True)
    run(dg.ones(2))
    assert (w.requires_grad, len(other.hooks)) == (True, 1)


def test_a_gradient_beside_its_tensor():
    def step(x: Any) -> Any:
        y = dg.sum(x * 2.0)
        y.retain_grad()
        y.backward()
        return y

    x = dg.ones(2).requires_grad_()
    assert step(x).grad.item() == 1.0
    with pytest.raises(GraphError, match=r"return its \.grad beside it"):
        static.jit(step)(x)
    with static.Graph() as graph:
        y = step(static.placeholder("x", (2,), requires_grad=True))
    with pytest.raises(GraphError, match=r"return its \.grad beside it"):
        static.compile(graph, outputs=[y])
    (found,) = static.compile(graph, outputs=[y.grad])(x)
    assert found.item() == 1.0


def hooked_and_left(w: Any, x: Any) -> Any:
    for p in (w, x):
        p.register_hook(lambda g: g * 2.0)
        dg.sum(p * 3.0).backward()
    return x * 1.0


def hooked_and_removed(w: Any, x: Any) -> Any:
    removers = [p.register_hook(lambda g: g * 2.0) for p in (w, x)]
    dg.sum(w * x).backward()
    for remove in removers:
        remove()
    return x * 1.0


def made_and_seen_again(w: Any, x: Any) -> Any:
    t = (x.detach() * 1.0).requires_grad_()
    t.register_hook(lambda g: g * 2.0)
    u = t[:]
    dg.sum(u * u * w).backward(retain_graph=True)
    (g,) = dg.grad(dg.sum(u * t * w), [t])
    t.requires_grad_(False)
    return t.grad + g, u.detach()


C = dg.tensor([5.0, 6.0])


def a_constant_that_becomes_a_leaf(w: Any, x: Any) -> Any:
    """What took no gradient when it was used gets none."""
    loss = dg.sum(C * w * x)
    C.requires_grad_(True)
    loss.backward()
    dg.sum(C * w).backward()
    g = C.grad * 1.0
    C.grad = None
    C.requires_grad_(False)
    return g


def frozen_after_a_view(w: Any, x: Any) -> Any:
    y = w[:]
    w.requires_grad_(False)
    dg.sum(y * x).backward(retain_graph=True)
    w.requires_grad_(True)
    return y * 1.0


def made_and_seen_in_a_composite(w: Any, x: Any) -> Any:
    dg.sum(seen_again(w, x) * x).backward()
    (g,) = dg.grad(dg.sum(seen_again(w, x)), [w], create_graph=True)
    (h,) = dg.grad(dg.sum(g * g), [w])
    return g.detach() + h


seen_again = extend.composite("seen_again", lambda w, x: dg.reshape(w, (2,)) * w[:] * dg.asarray(w) * x.flatten())


@pytest.mark.parametrize(
    "step",
    [
        hooked_and_left,
        hooked_and_removed,
        made_and_seen_again,
        a_constant_that_becomes_a_leaf,
        frozen_after_a_view,
        made_and_seen_in_a_composite,
    ],
)
def test_hooks_that_a_step_registers(step):
    def run(mode: Callable[[Any], Any]) -> Any:
        w, x = nn.Parameter([1.0, 2.0]), dg.tensor([3.0, 4.0], requires_grad=True)
        f = mode(lambda x: step(w, x))
        seen = []
        for _ in range(3):
            result = f(x)
            seen.append([described(r) for r in (result if isinstance(result, tuple) else (result,))])
            seen.append([(described(p), len(p.hooks or ())) for p in (w, x)])
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_gradients_through_a_composite_with_a_view_that_changes_nothing():
    op = extend.composite("op", lambda x: dg.reshape(x, (2,)) * 3.0)
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    dg.sum(op(x)).backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_removers_of_hooks_on_arguments():
    for mode in (lambda f: f, static.jit):
        x = dg.tensor([1.0], requires_grad=True)
        remove = x.register_hook(lambda g: g)
        mode(lambda x: (x.register_hook(lambda g: g * 2.0), x * 1.0)[1])(x)
        assert len(x.hooks) == 2
        remove()
        assert len(x.hooks) == 1


def test_hooks_of_results_without_a_history():
    w = nn.Parameter([1.0, 2.0])
    result = static.jit(lambda: w * 2.0)()
    with pytest.raises(GradientError, match="compiled"):
        result.register_hook(lambda g: g)


def test_hooks_that_a_step_removes():
    def run(mode: Callable[[Any], Any]) -> Any:
        w = nn.Parameter([1.0, 2.0])
        removers = [w.register_hook(lambda g: g * 2.0)]

        def step() -> Any:
            removers[0]()
            dg.sum(w * w).backward()

        f = mode(step)
        seen = [len(w.hooks or ())]
        for _ in range(2):
            f()
            seen.append((len(w.hooks or ()), w.grad.tolist()))
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_a_leaf_that_is_made_in_another_context():
    for context in (dg.no_grad, dg.Tape):
        with context():
            assert dg.tensor([1.0], requires_grad=True).requires_grad


def test_a_trace_that_fails_leaves_flags_alone():
    w = nn.Parameter([1.0])

    def step() -> Any:
        w.requires_grad_(False)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        static.jit(step)()
    assert w.requires_grad


def test_captured_results_with_a_history():
    w = nn.Parameter([1.0, 2.0])
    h = w * 2.0
    for step in (lambda: h.grad, lambda: h.requires_grad_(), lambda: h * 1.0):
        with pytest.raises(GraphError, match="history"):
            static.jit(step)()


def test_a_parameter_as_a_gradient():
    def run(mode: Callable[[Any], Any]) -> Any:
        p, q = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])

        def step() -> Any:
            p.grad = q
            q.assign(q.detach() * 2.0)

        f, seen = mode(step), []
        for _ in range(2):
            f()
            seen.append((described(p.grad), described(q)))
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_gradients_with_a_history_that_only_have_to_be_there():
    def run(mode: Callable[[Any], Any]) -> Any:
        p = nn.Parameter([1.0, 2.0])
        opt = optim.SGD([p], lr=0.5)
        dg.sum(p * p).backward()
        p.grad = p.grad + 0.5 * p

        def step() -> Any:
            opt.zero_grad(set_to_none=False)
            dg.sum(p * p).backward()
            opt.step()

        f = mode(step)
        f(), f()
        return described(p)

    assert run(static.jit) == run(lambda f: f)


HISTORIES: dict[str, Callable[[Any, Any], Any]] = {
    "of a captured parameter": lambda w, x: static.jit(
        lambda h: dg.grad(dg.sum(h * w), [w], retain_graph=True)[0]
    )(w * 2.0),
    "of another argument": lambda w, x: static.jit(
        lambda x, v: dg.grad(dg.sum(x * v), [x], retain_graph=True)[0]
    )(x, x * 2.0),
    "unused otherwise": lambda w, x: static.jit(
        lambda h: dg.grad(dg.sum(h * h), [w], allow_unused=True)[0]
    )(w * 2.0),
    "compiled for a spec": lambda w, x: static.compile(
        lambda h: dg.grad(dg.sum(h * w), [w])[0], static.spec((2,), requires_grad=True)
    )(w * 2.0),
    "compiled for a spec without": lambda w, x: static.compile(
        lambda h: dg.grad(dg.sum(h * w), [w])[0], static.spec((2,))
    )(w * 2.0),
    "under no_grad": lambda w, x: dg.no_grad()(
        static.compile(dg.enable_grad()(lambda h: dg.grad(dg.sum(h * w), [w])[0]), static.spec((2,)))
    )(w * 2.0),
    "of a compiled result": lambda w, x: static.jit(lambda h: dg.grad(dg.sum(h * w), [w])[0])(
        static.jit(lambda: w * 2.0)()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_that_a_gradient_would_go_through(name):
    w, x = nn.Parameter([3.0, 4.0]), dg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises((GraphError, FeedError), match=r"detach\(\)"):
        HISTORIES[name](w, x)


def test_a_history_that_no_gradient_goes_through():
    w, x = nn.Parameter([3.0, 4.0]), dg.tensor([1.0, 2.0], requires_grad=True)
    slope = static.jit(lambda h: dg.grad(dg.sum(h * h * w), [h])[0])
    other = static.jit(lambda h, x: dg.grad(dg.sum(h * h * x), [h, x]))
    assert slope(x * 2.0).tolist() == [12.0, 32.0]
    assert [g.tolist() for g in other(w * 2.0, x)] == [[12.0, 32.0], [36.0, 64.0]]


def spelled_out(x: Any, w: Any) -> Any:
    with static.Graph() as graph:
        p = static.placeholder("x", (2,), requires_grad=True)
        loss = dg.sum(p * p * w)
        loss.backward()
    return static.compile(graph, outputs=loss)


def test_gradients_add_up_in_a_graph_that_is_spelled_out():
    x, w = dg.tensor([1.0, -0.0], requires_grad=True), nn.Parameter([2.0, 3.0])
    y, v = dg.tensor([1.0, -0.0], requires_grad=True), nn.Parameter([2.0, 3.0])
    run = spelled_out(x, w)
    for _ in range(3):
        run(x)
        dg.sum(y * y * v).backward()
        assert [described(t) for t in (x, w)] == [described(t) for t in (y, v)]


def test_flags_in_a_graph_that_is_spelled_out():
    w, v = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])
    with static.Graph() as graph:
        loss = dg.sum(w * v)
        w.requires_grad_(False)
        v.requires_grad = False
    assert w.requires_grad
    assert v.requires_grad
    static.compile(graph, outputs=loss)()
    assert not w.requires_grad
    assert not v.requires_grad


def test_a_gradient_that_a_graph_was_told_is_not_there():
    w = nn.Parameter([1.0, 2.0])
    with static.Graph() as graph:
        result = w * (2.0 if w.grad is None else 3.0)
    run = static.compile(graph, outputs=result)
    run()
    w.grad = dg.ones(2)
    with pytest.raises(FeedError, match="clear it"):
        run()
    with static.Graph() as graph:
        p = static.placeholder("p", (2,), requires_grad=True)
        result = p * (2.0 if p.grad is None else 3.0)
    run = static.compile(graph, outputs=result)
    run(x := dg.ones(2).requires_grad_())
    x.grad = dg.ones(2)
    with pytest.raises(FeedError, match="clear it"):
        run(x)


def with_flags_set(x: Any) -> Any:
    factor = float(x.requires_grad)
    x.requires_grad = True
    return dg.ones(2) * factor


def test_flags_that_are_set_by_attribute():
    for make in (lambda: dg.Variable([1.0, 2.0]), lambda: dg.tensor([1.0, 2.0])):
        x = make()
        run = static.compile(lambda x=x: with_flags_set(x))
        assert not x.requires_grad
        assert run().tolist() == [0.0, 0.0]
        assert x.requires_grad
        assert run().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [None, "no", 2.5, 1, dg.tensor(True)])
def test_flags_that_are_none(value):
    x = dg.ones(2)
    with pytest.raises(DualgraphError, match="True or False"):
        x.requires_grad = value
    assert x.requires_grad is False


def test_flags_of_what_takes_no_gradient():
    with pytest.raises(DualgraphError, match="floats only"):
        dg.tensor([1]).requires_grad = True
    with pytest.raises(GradientError, match="leaf"):
        (nn.Parameter([1.0]) * 2.0).requires_grad = False


def test_what_is_unpickled_is_nobody_elses():
    buffers: list[Any] = []
    data = pickle.dumps(dg.tensor([1.0, 2.0]), protocol=5, buffer_callback=buffers.append)
    memory = [bytearray(b.raw()) for b in buffers]
    x = pickle.loads(data, buffers=memory)  # noqa: S301
    for block in memory:
        block[:] = bytes(len(block))
    assert x.tolist() == [1.0, 2.0]


USES_OF_A_HISTORY: dict[str, Callable[[Any], Any]] = {
    "detached": lambda h: h.detach() * 2.0,
    "zeros": dg.zeros_like,
    "shape": lambda h: dg.ones(h.shape),
}


@pytest.mark.parametrize("name", USES_OF_A_HISTORY)
def test_captured_values_without_their_history(name):
    h = nn.Parameter([1.0, 2.0]) * 3.0

    def step() -> Any:
        return USES_OF_A_HISTORY[name](h)

    def quiet() -> Any:
        with dg.no_grad():
            return h * 2.0

    for f in (step, quiet):
        assert described(static.jit(f)()) == described(f().detach())


def test_gradients_of_gradients_of_leaves():
    """What becomes a gradient as it is has no history."""
    steps: list[Callable[[Any, Any], Any]] = [
        lambda p, q: p.backward(q),
        lambda p, q: (p + q).backward(q),
        lambda p, q: setattr(p, "grad", dg.grad(p + q, [p], grad_outputs=[q])[0]),
        lambda p, q: (p.register_hook(lambda g: q), dg.sum(p * p).backward())[1],
    ]
    for number, step in enumerate(steps):

        def run(mode: Callable[[Any], Any], step: Callable[[Any, Any], Any] = step) -> Any:
            p, q = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])
            f, seen = mode(lambda: step(p, q)), []
            for _ in range(2):
                p.grad = None
                f()
                seen.append((described(p), described(p.grad)))
            return seen

        assert run(static.jit) == run(lambda f: f), number


def test_gradients_through_what_was_freed():
    def penalty(w: Any) -> Any:
        h = dg.exp(w)
        dg.grad(dg.sum(h), [w])
        return dg.grad(dg.sum(h * w), [w])[0]

    def unused(w: Any) -> Any:
        h = dg.exp(w)
        dg.sum(h).backward()
        return dg.grad(dg.sum(h * 2.0), [w], allow_unused=True)[0]

    w = dg.tensor([1.0, 2.0], requires_grad=True)
    for f in (penalty, unused):
        for mode in (lambda f: f, static.jit):
            with pytest.raises(GradientError, match="retain_graph=True"):
                mode(f)(w)


def test_gradients_in_front_of_what_was_freed():
    def heads(w: Any, v: Any) -> Any:
        h = dg.exp(w)
        k = h * 2.0
        dg.sum(h).backward()
        w.grad = None
        return dg.grad(dg.sum(k * k), [k], retain_graph=True)[0], dg.grad(dg.sum(k * v), [v], retain_graph=True)[0]

    def taken(w: Any, v: Any) -> Any:
        h = dg.exp(w)
        dg.grad(dg.sum(h), [w])
        return dg.grad(dg.sum(h * v), [v])[0]

    w, v = (dg.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    for step in (heads, taken):
        found = [mode(step)(w, v) for mode in (lambda f: f, static.jit)]
        assert len({str([described(g) for g in (r if isinstance(r, tuple) else (r,))]) for r in found}) == 1


def test_gradients_after_a_sweep_that_failed():
    def fails(g: Any, out: Any, x: Any) -> Any:
        raise ValueError("no")

    op = extend.composite("op", lambda x: x * 2.0, vjp=(fails,))
    w = dg.tensor([1.0, 2.0], requires_grad=True)
    h = dg.exp(w)
    loss = dg.sum(op(h * 3.0) * h)
    with pytest.raises(ValueError, match="no"):
        loss.backward()
    with pytest.raises(GradientError, match="retain_graph=True"):
        dg.grad(loss + dg.sum(w), [w], allow_unused=True)


def test_seeds_are_each_callers_own():
    w = dg.tensor([1.0, 2.0], requires_grad=True)
    loss = dg.sum(w * w)
    loss.retain_grad()
    loss.backward()
    x = dg.tensor(1.0, requires_grad=True)
    for g in (loss.grad, dg.grad(x, [x])[0]):
        g.requires_grad_()
    assert not (dg.ones(2) * 1.0).requires_grad
    assert not dg.asarray(1.0).requires_grad


def test_parameters_that_are_passed_and_reached_in_the_model():
    def train(mode: Callable[[Any], Any]) -> Any:
        dg.manual_seed(1)
        model, x = nn.Linear(2, 1), dg.ones((3, 2))

        def step(params: Any) -> Any:
            dg.sum(model(x) ** 2).backward()
            found = [p.grad * 1.0 for p in params]
            for p in params:
                p.grad = None
                p.assign(p.detach() * 0.5)
            return found

        f = mode(step)
        return [[described(g) for g in f(list(model.parameters()))] for _ in range(3)]

    assert train(static.jit) == train(lambda f: f)


def test_what_is_captured_is_passed_and_others_too():
    """A parameter that the function also uses, an older value of it, other leaves, and arrays, in every order."""

    def trained(mode: Callable[[Any], Any], order: Any) -> Any:
        w, v, b = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0]), dg.Variable([5.0, 6.0])
        old = w.detach()
        w.assign(w.detach() * 10.0)
        values = [
            w,
            old,
            v,
            v.detach(),
            b,
            b[:],
            dg.tensor([7.0, 8.0], requires_grad=True),
            np.array([9.0, 1.0], np.float32),
        ]

        def step(x: Any) -> Any:
            loss = dg.sum(x * w * b)
            loss.backward()
            b.assign(b + 1.0)
            return loss

        f = mode(step)
        return [(described(f(values[n]).detach()), [described(p) for p in (w, v, b)]) for n in order]

    numbers = range(8)
    for order in itertools.chain(itertools.permutations(numbers, 2), [(*numbers, *reversed(numbers))]):
        assert trained(static.jit, order) == trained(lambda f: f, order), order


def test_second_derivatives_at_a_value_that_was_assigned_over():
    def run(mode: Callable[[Any], Any]) -> Any:
        w, x = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])

        def step() -> Any:
            loss = dg.sum(w * w * w * x)
            w.assign(w.detach() * 10.0)
            (g,) = dg.grad(loss, [w], create_graph=True)
            dg.sum(g * g).backward()
            return g.detach()

        f = mode(step)
        return [(described(f()), described(w), described(x)) for _ in range(3)]

    eager = run(lambda f: f)
    assert run(static.jit) == eager
    assert np.frombuffer(eager[0][0][1], np.float32).tolist() == [9.0, 48.0]
    assert np.frombuffer(eager[0][1][2], np.float32).tolist() == [2 * 9.0 * 18.0, 2 * 48.0 * 48.0]


def test_hooks_of_arguments_with_a_history():
    def run(mode: Callable[[Any], Any]) -> Any:
        w = nn.Parameter([1.0, 2.0])
        f = mode(lambda y: dg.grad(dg.sum(y * y), [y], retain_graph=True)[0])
        seen = []
        for factor in (None, 10.0, 100.0):
            y = w * 2.0
            if factor is not None:
                y.register_hook(lambda g, factor=factor: g * factor)
            seen.append(described(f(y)))
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_the_second_of_a_view_and_its_leaf_comes_back():
    w = nn.Parameter([1.0, 2.0])
    f = static.jit(lambda a, b: (b, a))
    old = w[:]
    assert all(x is y for x, y in zip(f(old, w), (w, old), strict=True))
    assert all(x is y for x, y in zip(f(w, old), (old, w), strict=True))


def test_what_lies_behind_a_target_is_left_alone():
    def run(mode: Callable[[Any], Any]) -> Any:
        w = nn.Parameter([1.0, 2.0])

        def step() -> Any:
            y = w * 2.0
            (g,) = dg.grad(dg.sum(y * y), [y])
            dg.sum(y).backward()
            (h,) = dg.grad(dg.sum(y * g), [y])  # behind it all is freed
            return g, h

        f = mode(step)
        return [[described(r) for r in f()] for _ in range(2)], described(w)

    assert run(static.jit) == run(lambda f: f)


def test_a_target_without_a_gradient_rule():
    op = extend.external("op", lambda a: a * 2.0, lambda s: s)
    w = nn.Parameter([1.0, 2.0])

    def step() -> Any:
        y = op(w)
        return dg.grad(dg.sum(y * y), [y])[0]

    assert described(static.jit(step)()) == described(step())


def test_identities_of_leaves_that_are_gone():
    """A new leaf may get the address of one that was behind a freed call."""
    kept = []
    for _ in range(50):
        h = dg.exp(dg.tensor([1.0, 2.0], requires_grad=True))
        dg.sum(h).backward()
        v = dg.tensor([3.0, 4.0], requires_grad=True)
        assert dg.grad(dg.sum(h * v), [v])[0].tolist() == h.detach().tolist()
        kept.append(h)


def test_a_parameter_that_is_frozen_for_the_forward_alone():
    """As in PyTorch: it gets no gradient, whatever it is used beside."""

    def run(mode: Callable[[Any], Any], use: Callable[[Any, Any], Any]) -> Any:
        g, d = nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])

        def step() -> Any:
            d.requires_grad_(False)
            loss = dg.sum(use(g, d))
            d.requires_grad_(True)
            loss.backward()
            return loss

        f = mode(step)
        for _ in range(2):
            f()
        return described(g), described(d)

    for use in (lambda g, d: g * d, lambda g, d: g + d * 3.0, lambda g, d: dg.where(g > 0, d, g), dg.atan2, dg.vecdot):
        eager = run(lambda f: f, use)
        assert run(static.jit, use) == eager
        assert eager[1][2] is None
        assert eager[0][2] is not None


def test_a_leaf_that_was_frozen_when_the_graph_was_freed():
    def step(w: Any, u: Any) -> Any:
        y = w * u
        w.requires_grad_(False)
        dg.sum(y).backward()
        w.requires_grad_(True)
        return dg.grad(dg.sum(y * u), [w], allow_unused=True)[0]

    for mode in (lambda f: f, static.jit):
        with pytest.raises(GradientError, match="freed"):
            mode(step)(nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0]))


def test_views_beside_a_view_that_is_passed_twice():
    def run(mode: Callable[[Any], Any]) -> Any:
        found = []
        for _ in range(20):  # addresses of what is gone are used again
            p, q = nn.Parameter([1.0, 2.0]), nn.Parameter([8.0, 9.0])
            leaf = dg.tensor([5.0, 7.0], requires_grad=True)
            f = mode(lambda a, b, p=p, q=q, leaf=leaf: (p * 1.0, leaf[:], q[:], p[:], a, b))
            found.append([described(x.detach()) for x in f(p[:], p[:])])
        return found

    assert run(static.jit) == run(lambda f: f)


@pytest.mark.parametrize("hooked", [True, False])
@pytest.mark.parametrize("kind", ["leaf", "parameter"])
def test_what_is_frozen_when_it_is_passed(kind, hooked):
    def run(mode: Callable[[Any], Any]) -> Any:
        p = nn.Parameter([1.0, 2.0]) if kind == "parameter" else dg.tensor([1.0, 2.0], requires_grad=True)
        if hooked:
            p.register_hook(lambda g: g * 10.0)
        x = p
        p.requires_grad_(False)

        def step(x: Any) -> Any:
            x.requires_grad_()
            if x.requires_grad:
                dg.sum(x * x).backward()
            return x * 1.0

        f = mode(step)
        return [(described(f(x).detach()), described(x), described(p)) for _ in range(2)]

    assert run(static.jit) == run(lambda f: f)


@pytest.mark.parametrize("kind", ["parameter", "leaf", "constant"])
@pytest.mark.parametrize("then", [True, False])
def test_flags_between_a_forward_and_a_recorded_sweep(then, kind):
    """What the sweep records asks whether it takes gradients at that time."""

    def run(mode: Callable[[Any], Any]) -> Any:
        w = nn.Parameter([1.0, 2.0])
        c = nn.Parameter([3.0, 4.0]) if kind == "parameter" else dg.tensor([3.0, 4.0], requires_grad=kind == "leaf")

        def step(x: Any) -> Any:
            c.requires_grad_(then)
            y = w * w * c * x
            c.requires_grad_(not then)
            (g,) = dg.grad(dg.sum(y), [w], create_graph=True)
            c.requires_grad_(True)
            dg.sum(g * g).backward()
            return g.detach()

        f = mode(step)
        return [(described(f(dg.ones(2))), described(w), described(c)) for _ in range(2)]

    eager = run(lambda f: f)
    assert run(static.jit) == eager
    assert (eager[0][2][2] is None) == then


def test_flags_of_arguments_that_are_read_in_another_way():
    class Holder:
        pass

    def run(mode: Callable[[Any], Any]) -> Any:
        model, holder = nn.Linear(2, 1), Holder()
        holder.leaf = dg.tensor([1.0, 2.0], requires_grad=True)
        for p in model.parameters():
            p.requires_grad_(False)

        def unfreeze(params: Any) -> Any:
            for p in params:
                p.requires_grad_(True)
            return dg.ones(()) * float(sum(p.size for p in model.parameters() if p.requires_grad))

        def freeze(a: Any) -> Any:
            a.requires_grad_(False)
            return dg.ones(()) * float(holder.leaf.requires_grad)

        f, g = mode(unfreeze), mode(freeze)
        seen = []
        for _ in range(2):
            seen.append((f(list(model.parameters())).item(), g(holder.leaf).item(), holder.leaf.requires_grad))
            holder.leaf.requires_grad_(True)
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_flags_and_hooks_that_change_under_a_graph_that_is_spelled_out():
    w = nn.Parameter([1.0, 2.0])
    with static.Graph() as graph:
        loss = dg.sum(w * w)
        loss.backward()
    run = static.compile(graph, outputs=loss)
    run()
    w.requires_grad_(False)
    with pytest.raises(FeedError, match="define the graph again"):
        run()
    w.requires_grad_(True)
    run()
    w.register_hook(lambda g: g)
    with pytest.raises(FeedError, match="define the graph again"):
        run()


def test_hooks_and_flags_of_what_is_fed_to_a_graph_that_is_spelled_out():
    x, c = dg.tensor([1.0, 2.0], requires_grad=True), dg.tensor([1.0, 1.0])
    with static.Graph() as graph:
        p = static.placeholder("x", (2,), requires_grad=True)
        loss = dg.sum(p * p * c)
        loss.backward()
    run = static.compile(graph, outputs=loss)
    run(x=x)
    assert x.grad.tolist() == [2.0, 4.0]
    x.register_hook(lambda g: g * 10.0)
    with pytest.raises(FeedError, match="define the graph again"):
        run(x=x)
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    run(x=x)
    c.requires_grad_(True)
    with pytest.raises(FeedError, match="define the graph again"):
        run(x=x)


def test_a_graph_that_is_spelled_out_without_gradients():
    w = nn.Parameter([2.0, 3.0])
    with dg.no_grad(), static.Graph() as graph:
        y = w * 2.0
        assert not y.requires_grad
    assert not static.compile(graph, outputs=y)().requires_grad
    with static.Graph() as graph:
        y = w * 2.0
    run = static.compile(graph, outputs=y)
    assert run().requires_grad
    with dg.no_grad():
        assert not run().requires_grad


def test_leaves_that_are_made_inside_are_leaves():
    """Also as arguments of the next step: a training loop without a module."""

    def run(mode: Callable[[Any], Any]) -> Any:
        def step(params: Any, x: Any) -> Any:
            loss = dg.sum((x @ params["w"] + params["b"]) ** 2)
            loss.backward()
            return {k: (p - 0.01 * p.grad).detach().requires_grad_() for k, p in params.items()}, loss.detach()

        f = mode(step)
        params: Any = {"w": dg.ones((2, 1)).requires_grad_(), "b": dg.zeros(1).requires_grad_()}
        seen = []
        for _ in range(4):
            params, loss = f(params, dg.ones((3, 2)))
            assert all(p.is_leaf and p.requires_grad for p in params.values())
            seen.append((described(loss), {k: described(p) for k, p in params.items()}))
        dg.sum(params["w"] * params["w"]).backward()
        return seen, described(params["w"])

    assert run(static.jit) == run(lambda f: f)


def test_gradients_that_are_leaves():
    def own(w: Any) -> Any:
        w.grad = dg.tensor([5.0, 6.0]).requires_grad_()

    other = dg.tensor([7.0, 8.0], requires_grad=True)

    def captured(w: Any) -> Any:
        w.grad = other

    for step in (own, captured):
        seen = []
        for mode in (lambda f: f, static.jit):
            w = nn.Parameter([1.0, 2.0])
            mode(lambda step=step, w=w: step(w))()
            seen.append((described(w.grad), w.grad.is_leaf, w.grad is other))
        assert seen[0] == seen[1]


def test_a_parameter_as_the_gradient_of_a_result():
    def run(mode: Callable[[Any], Any]) -> Any:
        p, x = nn.Parameter([1.0, 2.0]), dg.tensor([5.0, 6.0], requires_grad=True)

        def step(x: Any) -> Any:
            h = x * 2.0
            h.grad = p
            dg.sum(h.grad * x).backward()
            return h.grad

        return described(mode(step)(x)), described(p), described(x)

    assert run(static.jit) == run(lambda f: f)


def made_a_leaf(a: Any, b: Any) -> Any:
    a.requires_grad_()
    dg.sum(a * b).backward()
    return b * 1.0


def hooked_inside(a: Any, b: Any) -> Any:
    if not a.requires_grad:
        a.requires_grad_()
        a.register_hook(lambda g: g)
        a.requires_grad_(False)
    return b * 1.0


def switched_on_and_off(a: Any, b: Any) -> Any:
    a.requires_grad_()
    (g,) = dg.grad(dg.sum(a * b), [a])
    a.requires_grad_(False)
    return g


@pytest.mark.parametrize("step", [made_a_leaf, hooked_inside, switched_on_and_off])
def test_what_is_done_to_a_plain_tensor_that_comes_twice_is_refused(step):
    constant = dg.ones(2)
    captured = static.jit(lambda a: step(a, constant)), static.jit(lambda b: step(constant, b))
    for f, given in ((static.jit(step), (constant, constant)), *((f, (constant,)) for f in captured)):
        for _ in range(2):
            with pytest.raises(FeedError, match="got a tensor twice, or one that the graph also reads"):
                f(*given)
            assert not constant.requires_grad
            assert constant.grad is None
    both = static.jit(step)
    both(dg.ones(2), constant)
    x = dg.ones(2).requires_grad_()
    y = dg.ones(2).requires_grad_()
    assert described(static.jit(made_a_leaf)(x, x).detach()) == described(made_a_leaf(y, y).detach())
    assert described(x) == described(y)


def test_a_held_gradient_is_no_leaf():
    w = nn.Parameter([1.0, 2.0])
    w.grad = dg.ones(2)

    def step() -> Any:
        w.grad.requires_grad_()
        return w * 1.0

    with pytest.raises(GraphError, match=r"the \.grad .* that a tensor has when the graph starts"):
        static.jit(step)()


def test_a_parameter_that_is_passed_as_a_gradient():
    def run(mode: Callable[[Any], Any]) -> Any:
        w, p = nn.Parameter([1.0, 2.0]), nn.Parameter([5.0, 6.0])
        leaf = dg.tensor([7.0, 8.0], requires_grad=True)

        def step(g: Any) -> Any:
            w.grad = g
            return w.grad.requires_grad

        f, seen = mode(step), []
        for g in (p, leaf, p, dg.ones(2)):
            seen.append((f(g), described(w)))
            p.assign(p.detach() + 1.0)
            seen.append(described(w))
        return seen

    assert run(static.jit) == run(lambda f: f)


def test_an_array_that_becomes_a_leaf_inside():
    def step(x: Any) -> Any:
        x = dg.asarray(x)
        x.requires_grad_()
        dg.sum(x * x).backward()
        return x.grad

    x = np.array([1.0, 2.0], np.float32)
    fast = static.jit(step)
    assert fast(x).tolist() == fast(x).tolist() == step(x).tolist() == [2.0, 4.0]

    def leaf(x: Any) -> Any:
        x = dg.asarray(x)
        x.requires_grad_()
        dg.sum(x * x).backward()
        return x

    for found in (leaf(x), static.jit(leaf)(x)):
        assert (found.is_leaf, found.requires_grad, found.grad.tolist()) == (True, True, [2.0, 4.0])


def test_a_new_leaf_that_is_returned_twice_is_one_leaf():
    for mode in (lambda f: f, static.jit):
        a, b = mode(lambda x: (lambda z: (z, z))((x * 2.0).detach().requires_grad_()))(dg.ones(2))
        dg.sum(a * b).backward()
        assert a is b
        assert a.grad.tolist() == [4.0, 4.0]


def test_gradients_that_a_function_enables_for_itself():
    w = nn.Parameter([2.0, 3.0])

    def step(x: Any) -> Any:
        with dg.enable_grad():
            y = w * x
        return y, y * 1.0

    with dg.no_grad():
        expected = [y.requires_grad for y in step(dg.ones(2))]
        assert [y.requires_grad for y in static.jit(step)(dg.ones(2))] == expected == [True, False]
        assert [y.requires_grad for y in static.compile(step, static.spec((2,)))(dg.ones(2))] == expected


def test_parameters_that_are_frozen_for_a_while_and_asked_in_another_way():
    def run(mode: Callable[[Any], Any]) -> Any:
        net = nn.Linear(2, 2)

        def step(params: Any, x: Any) -> Any:
            for p in params:
                p.requires_grad_(False)
            n = sum(p.size for p in net.parameters() if p.requires_grad)
            for p in params:
                p.requires_grad_(True)
            return dg.sum(x) * float(n)

        f = mode(step)
        return [f(list(net.parameters()), dg.ones(2)).item() for _ in range(2)]

    assert run(static.jit) == run(lambda f: f) == [0.0, 0.0]


def test_a_compiled_function_that_takes_gradients_inside_of_another():
    inner = static.compile(lambda x: dg.grad(dg.sum(x * x * x), [x])[0], static.spec((2,), requires_grad=True))
    for x in (dg.tensor([1.0, 2.0]), np.array([1.0, 2.0], np.float32), dg.tensor([1.0, 2.0], requires_grad=True)):
        assert static.jit(lambda x: inner(x))(x).tolist() == inner(x).tolist() == [3.0, 12.0]


@pytest.mark.parametrize("tracked", [True, False])
def test_verify_where_a_gradient_is_read_for_nothing(tracked):
    x = dg.tensor([1.0, 2.0], requires_grad=tracked)
    x.grad = dg.ones(2)
    f = static.jit(lambda x: (x.grad * 1.0, x * 2.0)[1], verify=True)
    assert [f(x).detach().tolist() for _ in range(2)] == [[2.0, 4.0]] * 2


@pytest.mark.parametrize("way", UNCHANGED.values(), ids=UNCHANGED)
@pytest.mark.parametrize("kind", ["leaf", "computed"])
def test_gradients_add_up_alike_whatever_an_argument_was_computed_from(kind, way):
    """A leaf to the graph: a view that changes nothing must not be one thing of a leaf and another of what was computed."""
    rng = np.random.default_rng(0)
    parts = [dg.tensor((rng.standard_normal(512) * 10 ** rng.uniform(-3, 3)).astype(np.float32)) for _ in range(4)]
    w = nn.Parameter(rng.standard_normal(512).astype(np.float32))
    made = {"leaf": lambda: w, "computed": lambda: w * 2.0}

    def step(a: Any) -> Any:
        v = way(a)
        loss = sum(dg.sum(x * c) for x, c in zip((v, a, v, a), parts, strict=True))
        return dg.grad(loss, [a])[0]

    expected = step(made[kind]()).numpy().tobytes()
    for level in ("none", "exact"):
        assert static.jit(step, optimize=level)(made[kind]()).numpy().tobytes() == expected


def of_symbols(done: Callable[[Any], Any]) -> Any:
    kept = []
    static.jit(lambda x: kept.append((x, x * 2.0)) or dg.sum(x))(dg.ones(2).requires_grad_())
    return [functools.partial(done, x) for x in kept[0]]


GONE: dict[str, Callable[[Any], Any]] = {
    "register_hook": lambda x: x.register_hook(lambda g: g),
    "requires_grad_": lambda x: x.requires_grad_(),
    "grad": lambda x: setattr(x, "grad", None),
}


@pytest.mark.parametrize("what", GONE)
def test_what_is_done_to_a_symbol_when_its_graph_is_over(what):
    for do in of_symbols(GONE[what]):
        with pytest.raises(GraphError, match="outside of its graph"):
            do()


def test_a_hook_of_an_argument_is_not_taken_off_by_its_symbol():
    """The remover that the function has got knows nothing of the tensor that was passed."""
    removers, x = [], dg.ones(1).requires_grad_()
    static.jit(lambda x: removers.append(x.register_hook(lambda g: g * 2.0)) or x * 1.0)(x)
    with pytest.raises(GraphError, match="outside of its graph"):
        removers[0]()


def test_a_hook_that_is_registered_anew_by_a_step():
    """Is another registration, though of the same function."""

    def seen(run):
        w = nn.Parameter([1.0])
        removers = [w.register_hook(double)]

        def step(x):
            removers.pop()()
            w.register_hook(double)
            return x * 1.0

        run = run(step)
        run(dg.ones(1))
        return len(w.hooks)

    double = lambda g: g * 2.0  # noqa: E731
    assert seen(static.jit) == seen(lambda f: f) == 1


def test_a_graph_is_defined_in_one_block_at_a_time():
    graph = static.Graph()
    with graph, pytest.raises(GraphError, match="is being defined"):
        graph.__enter__()
    with graph:
        static.placeholder("x", (2,))


def test_hooks_of_a_computed_tensor_that_a_spelled_out_graph_does_not_know():
    with static.Graph() as graph:
        x = static.placeholder("x", (1,), requires_grad=True)
        g = dg.grad(dg.sum(x * x), [x])
    h = nn.Parameter([1.0]) * 2.0
    h.register_hook(lambda g: g * 10.0)
    with pytest.raises(FeedError, match="other hooks"):
        static.compile(graph, outputs=g)(h)


@pytest.mark.parametrize("mode", [static.jit, lambda f: static.compile(f, static.spec((2,)), static.spec((2,)))])
def test_a_hook_of_a_tensor_that_takes_a_gradient_for_a_while(mode):
    a, b, hooked = dg.tensor([1.0, 2.0]), dg.tensor([5.0, 7.0]), dg.ones(2).requires_grad_()
    hooked.register_hook(lambda g: g * 10.0)
    hooked.requires_grad_(False)
    f = mode(slope_of_a_plain_tensor)
    for _ in range(2):
        assert f(a, b).tolist() == [5.0, 7.0]
        assert f(hooked, b).tolist() == [50.0, 70.0] == slope_of_a_plain_tensor(hooked, b).tolist()
