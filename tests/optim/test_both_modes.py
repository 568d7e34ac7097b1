"""A whole training step, written once, compiled and eager: equal bits, one state, and changes that take effect."""

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import nn, optim, static

RNG = np.random.default_rng(3)
X = RNG.normal(size=(8, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 8)

OPTIMIZERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1, weight_decay=0.01),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda ps: optim.Adam(ps, lr=0.01, weight_decay=0.1),
    "adamw": lambda ps: optim.AdamW([{"params": list(ps)[:2], "lr": 0.1}, {"params": list(ps)[2:]}]),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Dropout(0.3), nn.Linear(5, 4))
        self.unused = nn.Linear(2, 2)
        self.register_buffer("mean", np.zeros(4, np.float32))

    def forward(self, x):
        out = self.body(x)
        if self.training:
            self.mean = self.mean * 0.9 + out.detach().mean(axis=0) * 0.1
        return out - self.mean


class Job:
    """A model with its optimiser and step, from one seed."""

    def __init__(self, kind, compiled):
        dg.manual_seed(11)
        self.model = Net()
        self.optimizer = OPTIMIZERS[kind](list(self.model.parameters()))
        spec = (static.spec(X.shape), static.spec(Y.shape, "int64"))
        self.run = static.compile(self.step, *spec) if compiled else self.step

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def bits(self):
        state = {name: x.numpy().tobytes() for name, x in self.model.state_dict().items()}
        state |= {name: v.numpy().tobytes() for name, v in self.optimizer.named_variables()}
        grads = {
            f"{name}.grad": None if p.grad is None else p.grad.numpy().tobytes()
            for name, p in self.model.named_parameters()
        }
        return state | grads

    def lasting(self):
        return {name: x for name, x in self.bits().items() if not name.endswith(".grad")}


def both(kind, script):
    """The trace of a script in both modes; the draws are made from the same seed."""
    traces = []
    for compiled in (False, True):
        job = Job(kind, compiled)
        dg.manual_seed(5)
        traces.append(list(script(job)))
    return traces


def assert_equal(traces):
    eager, compiled = traces
    for step, (want, got) in enumerate(zip(eager, compiled, strict=True)):
        different = [name for name in want if want[name] != got[name]]
        assert not different, f"step {step}: {different}"


def steps(job, count):
    for _ in range(count):
        loss = job.run(X, Y)
        yield job.bits() | {"loss": loss.numpy().tobytes()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_equal_bits(kind):
    assert_equal(both(kind, lambda job: steps(job, 5)))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_new_learning_rate(kind):
    def script(job):
        yield from steps(job, 2)
        job.optimizer.lr = 0.05
        yield from steps(job, 2)
        job.optimizer.param_groups[0]["lr"] = 0.0
        yield from steps(job, 2)

    assert_equal(both(kind, script))


def test_switches_are_noticed():
    def script(job):
        yield from steps(job, 2)
        job.model.eval()
        yield from steps(job, 2)
        job.model.train()
        job.model.body[2].p = 0.9
        yield from steps(job, 2)
        handle = job.model.register_forward_hook(lambda module, args, out: out * 2.0)
        yield from steps(job, 1)
        handle.remove()
        job.model.body[1] = nn.Tanh()
        yield from steps(job, 1)

    assert_equal(both("adam", script))


def test_frozen_layers_are_noticed():
    def script(job):
        yield from steps(job, 1)
        job.model.body[0].requires_grad_(False)
        yield from steps(job, 2)
        job.model.body[0].requires_grad_()
        yield from steps(job, 2)

    assert_equal(both("adam", script))


def test_modes_take_turns():
    def script(job):
        for _ in range(3):
            yield from steps(job, 1)
            job.step(X, Y)
            yield job.bits()

    assert_equal(both("adam", script))


def test_snapshots_are_not_written_to():
    job = Job("adam", compiled=True)
    job.run(X, Y)
    state, optimizer = job.model.state_dict(), job.optimizer.state_dict()
    before, copies = job.lasting(), {name: x.numpy().copy() for name, x in state.items()}
    job.run(X, Y)
    assert job.lasting() != before
    for name, x in state.items():
        assert x.numpy().tobytes() == copies[name].tobytes(), name
    job.model.load_state_dict(state)
    job.optimizer.load_state_dict(optimizer)
    assert job.lasting() == before


def test_an_error_leaves_the_state():
    job = Job("adam", compiled=True)
    job.run(X, Y)
    before = job.lasting()
    with pytest.raises(dg.errors.RangeError):
        job.run(X, Y + 4)
    assert job.lasting() == before


def test_the_rate_is_not_baked_in():
    job = Job("sgd", compiled=False)
    with pytest.raises(dg.errors.SymbolError):
        static.compile(lambda x: x * job.optimizer.lr, static.spec((2,)))
    halved = static.compile(lambda: setattr(job.optimizer, "lr", job.optimizer.param_groups[0].rate * 0.5))
    halved()
    halved()
    assert job.optimizer.lr == 0.025
