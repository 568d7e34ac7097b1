"""Optimisers against their formulas in NumPy's float64, over trajectories."""

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim

STEPS = 20
RNG = np.random.default_rng(7)
START = [RNG.normal(size=(3, 4)), RNG.normal(size=5), RNG.normal(size=())]
CENTRES = [RNG.normal(size=x.shape) for x in START]


def gradient(number, p, step):
    """Of a loss that changes with the step: 0 and negative gradients, and large ones."""
    return (p - CENTRES[number]) * (1.0 + step % 3) - (step == 5)


class NumpySGD:
    def __init__(self, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.weight_decay, self.nesterov, self.buffers = weight_decay, nesterov, {}

    def __call__(self, number, p, g):
        g = g + self.weight_decay * p
        if self.momentum:
            if number in self.buffers:
                self.buffers[number] = self.momentum * self.buffers[number] + (1 - self.dampening) * g
            else:
                self.buffers[number] = g
            b = self.buffers[number]
            g = g + self.momentum * b if self.nesterov else b
        return p - self.lr * g


class NumpyAdam:
    def __init__(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
        self.lr, self.betas, self.eps, self.weight_decay, self.decoupled = lr, betas, eps, weight_decay, decoupled
        self.state = {}

    def __call__(self, number, p, g):
        beta1, beta2 = self.betas
        if self.decoupled:
            p = p * (1 - self.lr * self.weight_decay)
        else:
            g = g + self.weight_decay * p
        t, m, v = self.state.get(number, (0, 0.0, 0.0))
        t, m, v = t + 1, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        self.state[number] = t, m, v
        return p - self.lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + self.eps)


CASES = {
    "sgd": (optim.SGD, NumpySGD, {"lr": 0.05}),
    "sgd-decay": (optim.SGD, NumpySGD, {"lr": 0.05, "weight_decay": 0.1}),
    "momentum": (optim.SGD, NumpySGD, {"lr": 0.05, "momentum": 0.9}),
    "momentum-decay": (optim.SGD, NumpySGD, {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}),
    "dampening": (optim.SGD, NumpySGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (optim.SGD, NumpySGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (optim.Adam, NumpyAdam, {"lr": 0.1}),
    "adam-options": (optim.Adam, NumpyAdam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.05}),
    "adam-zeros": (optim.Adam, NumpyAdam, {"lr": 0.1, "betas": (0.0, 0.99)}),
    "adamw": (optim.AdamW, lambda **o: NumpyAdam(**o, decoupled=True), {"lr": 0.1, "weight_decay": 0.1}),
    "adamw-none": (optim.AdamW, NumpyAdam, {"lr": 0.1, "weight_decay": 0.0}),
}


def parameters(dtype):
    return [nn.Parameter(x.astype(dtype)) for x in START]


def run(case, dtype, steps, skip=lambda number, step: False, change=lambda optimizer, step: None):
    """The trajectories of our optimiser and of NumPy's, as two lists of values of the parameters."""
    ours, theirs, options = CASES[case]
    params, model = parameters(dtype), theirs(**options)
    optimizer = ours(params, **options)
    want = [x.copy() for x in START]
    for step in range(steps):
        optimizer.zero_grad()
        for number, p in enumerate(params):
            if not skip(number, step):
                p.grad = dg.tensor(np.asarray(gradient(number, p.numpy().astype(np.float64), step)).astype(dtype))
                want[number] = model(number, want[number], gradient(number, want[number], step))
        change(optimizer, step)
        change(model, step)
        optimizer.step()
    return [p.numpy() for p in params], want


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("case", CASES)
def test_formula(case, dtype, tolerance):
    for got, want in zip(*run(case, dtype, STEPS), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_parameters_without_gradient_are_left_alone(case):
    # Each parameter counts its own updates: one that starts late, one that pauses.
    late = lambda number, step: (number == 1 and step < 7) or (number == 2 and 3 <= step < 9)  # noqa: E731
    for got, want in zip(*run(case, "float64", STEPS, skip=late), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    for got, start in zip(run(case, "float64", 3, skip=lambda *_: True)[0], START, strict=True):
        assert (got == start).all()


@pytest.mark.parametrize("case", CASES)
def test_the_learning_rate_changes_at_once(case):
    def change(optimizer, step):
        optimizer.lr = 0.03 / (1 + step)

    # NumPy's model updates while the gradients are set, so it sees a rate one step later.
    ours, theirs, options = CASES[case]
    params, model = parameters("float64"), theirs(**options)
    optimizer, want = ours(params, **options), [x.copy() for x in START]
    for step in range(6):
        change(optimizer, step)
        change(model, step)
        for number, p in enumerate(params):
            p.grad = dg.tensor(np.asarray(gradient(number, p.numpy(), step)))
            want[number] = model(number, want[number], gradient(number, want[number], step))
        optimizer.step()
        assert optimizer.lr == 0.03 / (1 + step)
    for p, x in zip(params, want, strict=True):
        np.testing.assert_allclose(p.numpy(), x, rtol=1e-12, atol=1e-12)


def test_the_learning_rate_keeps_its_precision():
    p = nn.Parameter(np.zeros(1))
    sgd = optim.SGD([p], lr=0.1)
    p.grad = dg.tensor(np.ones(1))
    sgd.step()
    assert p.item() == -0.1
    assert sgd.lr == sgd.param_groups[0]["lr"] == 0.1


def test_the_learning_rate_may_be_computed():
    sgd = optim.SGD([nn.Parameter([0.0])], lr=0.5)
    sgd.lr = sgd.param_groups[0].rate * 0.5
    assert sgd.lr == 0.25
    sgd.lr = np.float32(0.75)
    assert sgd.lr == 0.75
    sgd.lr = dg.tensor(0.5)
    assert sgd.lr == 0.5


def test_groups_have_their_own_options():
    params = parameters("float64")
    optimizer = optim.SGD([{"params": params[:2], "lr": 0.5}, {"params": params[2], "momentum": 0.9}], lr=0.1)
    for p in params:
        p.grad = dg.ones(p.shape, dtype="float64")
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    np.testing.assert_allclose(params[0].numpy(), START[0] - 0.5, rtol=1e-14)
    np.testing.assert_allclose(params[2].numpy(), START[2] - 0.1 - 0.19, rtol=1e-14)
    assert [group.lr for group in optimizer.param_groups] == [0.0, 0.1]
    optimizer.lr = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_gradients_are_cleared():
    p = nn.Parameter([1.0])
    sgd = optim.SGD([p], lr=1.0, momentum=0.5)
    p.grad = dg.tensor([2.0])
    sgd.step()
    sgd.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0]
    sgd.step()  # momentum goes on
    assert p.tolist() == [-2.0]
    sgd.zero_grad()
    assert p.grad is None
    sgd.step()
    assert p.tolist() == [-2.0]


def test_steps_are_not_recorded():
    p = nn.Parameter([1.0])
    adam = optim.Adam([p])
    (p * p).sum().backward()
    adam.step()
    assert p.is_leaf
    assert p.requires_grad
    assert all(not v.requires_grad for _, v in adam.named_variables())
