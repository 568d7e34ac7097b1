"""What a hard user does to state, parameters and results: each was wrong once, or nearly."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import extend, nn, static
from dualgraph.errors import FeedError, GradientError, GraphError, SymbolError


def test_what_a_variable_was_made_of_is_not_written_to():
    source = np.array([1.0, 2.0], np.float32)
    tensor = dg.tensor([1.0, 2.0])
    p, q = nn.Parameter(source), nn.Parameter(tensor)
    copy = dg.Variable(p)
    held = p.numpy()
    step = static.jit(lambda: (p.assign(p * 2.0), q.assign(q * 2.0))[0])
    step()
    step()
    assert p.tolist() == q.tolist() == [4.0, 8.0]
    assert held.tolist() == source.tolist() == tensor.tolist() == copy.tolist() == [1.0, 2.0]


def both(function):
    """The function in eager mode and compiled, on fresh state each time."""
    return function(lambda f: f), function(lambda f: static.jit(f))


def test_a_variable_assigned_between_two_uses():
    def run(mode):
        w = nn.Parameter([2.0])

        def f():
            loss = dg.sum(w**2)
            w.assign(w * 0.5)
            loss = loss + dg.sum(w**2)
            return dg.grad(loss, [w])[0]

        return mode(f)().tolist()

    eager, compiled = both(run)
    assert eager == compiled == [6.0]


def test_old_values_only_and_backward_after_an_update():
    def run(mode):
        w = nn.Parameter([2.0, 3.0])
        seen = []
        w.register_hook(lambda g: seen.append(1))

        def f():
            w.grad = None
            loss = dg.sum(w * w * w)
            w.assign(w * 0.5)
            (loss + dg.sum(w * 0.1)).backward()
            return loss

        mode(f)()
        return w.grad.numpy().tobytes(), len(seen)

    eager, compiled = both(run)
    assert eager == compiled


def test_state_is_not_made_while_tracing():
    def step(x):
        v = dg.Variable(np.zeros(2, np.float32))
        v.assign(v + x)
        return v + 0.0

    with pytest.raises(GraphError, match="create it before"):
        static.jit(step)(np.ones(2, np.float32))


def test_values_of_variables_are_not_baked_in():
    count = dg.Variable(np.array(0.0, np.float32))
    for read in (float, bool, lambda v: v.item(), lambda v: v.numpy(), lambda v: v.tolist(), np.asarray):
        with pytest.raises(SymbolError, match="outside of the traced function"):
            static.jit(lambda x, read=read: x * float(np.sum(read(count))))(np.ones(1, np.float32))
    assert "0." in repr(count)


def test_results_have_no_history_and_say_so():
    w = nn.Parameter([3.0])
    fast = static.jit(lambda x: dg.sum(w * x))
    with pytest.raises(GradientError, match="result of a compiled graph"):
        (fast(np.array([2.0], np.float32)) + dg.sum(w)).backward()
    assert not fast(np.array([2.0], np.float32)).detach().requires_grad


def test_hooks_that_come_and_go_are_noticed():
    w = nn.Parameter([3.0])

    def step():
        w.grad = None
        dg.sum(w * 2.0).backward()

    fast = static.jit(step)
    fast()
    remove = w.register_hook(lambda g: g * 10.0)
    fast()
    assert w.grad.tolist() == [20.0]
    remove()
    fast()
    assert w.grad.tolist() == [2.0]


def test_numbers_made_tensors_are_their_own():
    dg.asarray(7.0).requires_grad_()
    assert not (dg.tensor([1.0]) * 7.0).requires_grad
    assert not dg.asarray(7.0).requires_grad


def test_parameters_of_composites_are_told_apart():
    f = extend.composite("told", lambda x, *, a=1.0, b=1.0: x * a + b)
    x = dg.tensor([10.0])
    assert (f(x, a=2.0).item(), f(x, b=2.0).item()) == (21.0, 12.0)
    g = extend.composite("kinds", lambda x, *, n: x * 2.0 if n is True else x * 3.0)
    assert (g(x, n=1).item(), g(x, n=True).item()) == (30.0, 20.0)
    signs = [dg.linspace(zero, -1.0, 2).numpy()[0] for zero in (-0.0, 0.0)]
    assert [bool(np.signbit(s)) for s in signs] == [True, False]


def test_composites_take_no_state_from_outside():
    w = nn.Parameter([3.0])
    with pytest.raises(GraphError, match="pass it in as an input"):
        extend.composite("captures", lambda x: x * w)(dg.tensor([1.0]))
    with pytest.raises(GraphError, match="inside of a composite"):
        extend.composite("draws", lambda x: x * dg.rand((1,)))(dg.tensor([1.0]))


def test_external_functions_run_as_often_in_both_modes():
    def run(mode):
        calls = [0]

        def counting(a):
            calls[0] += 1
            return a + calls[0]

        op = extend.external("counting", counting, lambda s: s)
        f = mode(lambda x: op(x) - op(x))
        return [f(dg.tensor([1.0])).tolist() for _ in range(2)], calls

    eager, compiled = both(run)
    assert eager == compiled


def test_verify_waits_for_a_run_that_succeeds():
    fast = static.compile(
        lambda x, y: F.cross_entropy(x, y), static.spec((2, 3)), static.spec((2,), "int64"), verify=True
    )
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(dg.errors.RangeError):
        fast(x, np.array([0, 9]))
    assert fast.executable._first
    fast(x, np.array([0, 2]))
    assert not fast.executable._first


def test_grad_modes_inside_and_outside():
    w = nn.Parameter([0.5])

    def f():
        with dg.enable_grad():
            (g,) = dg.grad(dg.sum(dg.exp(w)), [w], create_graph=True)
            return dg.grad(dg.sum(g), [w])[0]

    with dg.no_grad():
        assert f().tolist() == static.jit(f)().tolist()

    @dg.no_grad()
    def twice(x):
        return x * 2.0

    assert not twice(w).requires_grad


def test_gradients_of_detached_arguments():
    def saliency(x):
        x = x.detach().requires_grad_()
        return dg.grad(dg.sum(dg.tanh(x)), [x])[0]

    x = np.array([0.3, -2.0], np.float32)
    assert static.jit(saliency)(x).tolist() == saliency(dg.tensor(x)).tolist()


def test_a_replaced_parameter_is_noticed_though_its_module_is_not_called():
    layer = nn.Linear(2, 1, bias=False)
    fast = static.jit(lambda x: F.linear(x, layer.weight))
    x = np.ones((1, 2), np.float32)
    fast(x)
    layer.weight = nn.Parameter(np.zeros((1, 2), np.float32))
    assert fast(x).tolist() == [[0.0]]


def test_buffers_take_numbers():
    module = nn.Module()
    module.register_buffer("n", np.zeros((), np.float32))
    module.n = 5.0
    assert module.n.item() == module.state_dict()["n"].item() == 5.0


def test_a_compiled_step_heeds_the_grad_mode():
    w = nn.Parameter([1.0])

    def step():
        loss = dg.sum(w * 2.0)
        if loss.requires_grad:
            loss.backward()
        return loss

    fast = static.compile(step)
    with dg.no_grad():
        fast()
    assert w.grad is None
    fast()
    assert w.grad.tolist() == [2.0]


def test_integers_are_not_wrapped_when_fed():
    fast = static.compile(lambda i: i * 2, static.spec((2,), "int32"))
    with pytest.raises(FeedError, match="got int64"):
        fast([2**40, 1])
    assert fast([3, 1]).tolist() == [6, 2]


def test_numpy_scalars_are_weak_in_both_modes():
    def f(x, rate):
        return x * rate

    x = dg.tensor([1.0, 2.0])
    eager, compiled = f(x, np.float64(0.1)), static.jit(f)(x, np.float64(0.1))
    assert eager.dtype == compiled.dtype == np.float32
    assert eager.numpy().tobytes() == compiled.numpy().tobytes()


@pytest.mark.parametrize("values", [[0.0, 0.0, 3.0], [0.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
def test_second_derivative_of_prod_with_zeros(values):
    x = dg.tensor(np.array(values), requires_grad=True)
    (g,) = dg.grad(dg.prod(x), [x], create_graph=True)
    a, b, c = values
    assert g.tolist() == [b * c, a * c, a * b]
    (h,) = dg.grad(g[0], [x])
    assert h.tolist() == [0.0, c, b]


def test_other_threads_never_see_half_an_update():
    w = nn.Parameter(np.zeros((1500, 1000), np.float32))
    train, look = static.jit(lambda: w.assign(w + 1.0)), static.jit(lambda: dg.max(w) - dg.min(w))
    train()
    look()
    stop: list[int] = []

    def work():
        while not stop:
            train()

    thread = threading.Thread(target=work)
    thread.start()
    torn = sum(look().item() != 0.0 for _ in range(100))
    stop.append(1)
    thread.join()
    assert torn == 0
