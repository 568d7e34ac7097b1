"""The state of optimisers: saving, resuming, and what is refused."""

import math

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim, static
from dualgraph.errors import ArgumentError, DTypeError

MAKERS = {
    "sgd": lambda params: optim.SGD(params, lr=0.1),
    "momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "dampening": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda params: optim.Adam(params, lr=0.1, weight_decay=0.1),
    "adamw": lambda params: optim.AdamW([{"params": params[:1], "lr": 0.2}, {"params": params[1:]}]),
}


def fresh():
    return [nn.Parameter(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)), nn.Parameter(np.array(0.5))]


def train(params, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p * p * p).sum().astype("float64") for p in params).backward()
        optimizer.step()


def bits(params, optimizer):
    return [p.numpy().tobytes() for p in params] + [v.numpy().tobytes() for _, v in optimizer.named_variables()]


@pytest.mark.parametrize("kind", MAKERS)
def test_resume(kind):
    params = fresh()
    optimizer = MAKERS[kind](params)
    train(params, optimizer, 3)
    state, values = optimizer.state_dict(), [p.numpy().copy() for p in params]
    train(params, optimizer, 3)
    again = [nn.Parameter(x) for x in values]
    resumed = MAKERS[kind](again)
    variables = dict(resumed.named_variables())
    resumed.load_state_dict(state)
    assert all(variables[name] is v for name, v in resumed.named_variables())
    train(again, resumed, 3)
    assert bits(again, resumed) == bits(params, optimizer)


def test_the_form_of_a_state():
    params = fresh()
    adam = optim.Adam(params, lr=0.5)
    assert [name for name, _ in adam.named_variables()] == [
        "lr.0", "step.0", "exp_avg.0", "exp_avg_sq.0", "exp_avg.1", "exp_avg_sq.1",
    ]  # fmt: skip
    train(params, adam, 2)
    state = adam.state_dict()
    assert state["param_groups"] == [
        {"lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "params": [0, 1]}
    ]
    assert {key: type(value).__name__ for key, value in state["state"][1].items()} == {
        "step": "int", "exp_avg": "Value", "exp_avg_sq": "Value",
    }  # fmt: skip
    assert [slots["step"] for slots in state["state"].values()] == [2, 2]
    before = state["state"][0]["exp_avg"].tolist()
    train(params, adam, 1)
    assert state["state"][0]["exp_avg"].tolist() == before


def test_unfit_state_changes_nothing():
    params = fresh()
    adam = optim.Adam(params)
    train(params, adam, 2)
    before = bits(params, adam)

    def refused(change, message):
        state = adam.state_dict()
        state["param_groups"][0]["lr"] = 0.7
        change(state)
        with pytest.raises(ArgumentError, match=message) as caught:
            adam.load_state_dict(state)
        assert __file__ in str(caught.value)
        assert bits(params, adam) == before

    refused(lambda s: s["param_groups"].append({}), "got 2 groups, must be 1")
    refused(lambda s: s["param_groups"][0].update(params=[0]), r"got parameters \[0\], must be \[0, 1\]")
    refused(lambda s: s["param_groups"][0].update(betas=(0.5, 0.9)), r"betas = \(0.5, 0.9\), this optimiser has")
    refused(lambda s: s["param_groups"][0].update(lr=None), "missing: group 0: lr")
    refused(lambda s: s["state"].pop(1), "missing: exp_avg of parameter 1")
    refused(
        lambda s: s["state"][0].update(exp_avg=np.zeros(2, np.float32)), r"exp_avg of parameter 0: got float32\[2\]"
    )
    refused(lambda s: s["state"][0].pop("step"), "missing: group 0: step")
    refused(lambda s: s.clear(), "got 0 groups")


W = nn.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD([]), ArgumentError, "got no parameters"),
        (lambda: optim.SGD(p for p in ()), ArgumentError, "a generator is empty once it was read"),
        (lambda: optim.SGD(W), DTypeError, "a single tensor"),
        (lambda: optim.SGD({W}), DTypeError, "a set.*fixed order"),
        (lambda: optim.SGD(3), DTypeError, "a int"),
        (lambda: optim.SGD([dg.tensor([1.0])]), DTypeError, r"parameter 0 is a tensor of float32\[1\].*nn.Parameter"),
        (lambda: optim.SGD([np.ones(2)]), DTypeError, "parameter 0 is array"),
        (lambda: optim.SGD([W, nn.Parameter([1.0]), W]), ArgumentError, "parameter 2 .* is parameter 0 again"),
        (lambda: optim.SGD([{"params": [W]}, {"params": [W]}]), ArgumentError, "parameter 1 .* is parameter 0 again"),
        (lambda: optim.SGD([{"params": []}]), ArgumentError, "a group without parameters"),
        (lambda: optim.SGD([{"parms": [W]}]), ArgumentError, "did you mean 'params'"),
        (lambda: optim.SGD([{"params": [W], "momentun": 0.5}]), ArgumentError, "did you mean 'momentum'"),
        (lambda: optim.SGD([W], lr=-0.1), ArgumentError, "lr = -0.1; it must be a number of at least 0"),
        (lambda: optim.SGD([W], lr=float("nan")), ArgumentError, "lr = nan"),
        (lambda: optim.SGD([W], lr="0.1"), ArgumentError, "lr = '0.1'"),
        (lambda: optim.SGD([W], momentum=-1), ArgumentError, "momentum = -1"),
        (lambda: optim.SGD([W], nesterov=True), ArgumentError, "it needs a momentum above 0"),
        (lambda: optim.SGD([W], momentum=0.9, dampening=0.1, nesterov=True), ArgumentError, "no dampening"),
        (
            lambda: optim.Adam([W], betas=(0.9, 1.0)),
            ArgumentError,
            r"betas\[1\] = 1.0; it must be a number in \[0, 1\)",
        ),
        (lambda: optim.Adam([W], betas=0.9), ArgumentError, "betas = 0.9; they are two numbers"),
        (lambda: optim.Adam([W], eps=-1e-8), ArgumentError, "eps = -1e-08"),
        (lambda: optim.AdamW([{"params": [W], "weight_decay": -1}]), ArgumentError, "weight_decay = -1"),
        (lambda: setattr(optim.SGD([W]), "lr", -1), ArgumentError, "lr = -1"),
        (lambda: optim.SGD([W]).param_groups[0].__setitem__("momentum", 0.5), ArgumentError, "only lr can be changed"),
        (lambda: optim.SGD([W]).param_groups[0]["momentm"], ArgumentError, "did you mean 'momentum'"),
        (
            lambda: optim.SGD([{"params": [W]}, {"params": [nn.Parameter([1.0])], "lr": 1}]).lr,
            ArgumentError,
            "different rates",
        ),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert __file__ in str(caught.value)


RATES = {
    "number": -1.0,
    "nan": math.nan,
    "inf": math.inf,
    "tensor": dg.tensor(-1.0),
    "tensor of nan": dg.tensor(math.nan),
    "tensor of inf": dg.tensor(math.inf, dtype="float64"),
    "variable": dg.Variable(-0.5),
    "integer": dg.tensor(-2),
}


@pytest.mark.parametrize("name", RATES)
def test_a_rate_outside_its_rule(name):
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=0.1)
    for owner in (optimizer, optimizer.param_groups[0]):
        with pytest.raises(ArgumentError, match="lr = "):
            owner.lr = RATES[name]
        if "variable" not in name:
            with pytest.raises(ArgumentError, match="lr = "):
                static.compile(lambda owner=owner: setattr(owner, "lr", RATES[name]))()
        assert optimizer.lr == 0.1


def test_a_rate_that_is_a_tensor():
    optimizer = optim.SGD([nn.Parameter([1.0])], lr=0.1)
    for value in (dg.tensor(0.5), dg.Variable(0.25), dg.tensor(0)):
        optimizer.lr = value
        assert optimizer.lr == value.item()
    optimizer.param_groups[0].rate.assign(dg.tensor(0.5, dtype="float64"))
    static.compile(lambda: setattr(optimizer, "lr", optimizer.param_groups[0].rate * 0.5))()
    assert optimizer.lr == 0.25


def test_an_optimiser_without_a_rate():
    with pytest.raises(ArgumentError, match="no lr among the defaults"):
        optim.Optimizer([nn.Parameter([1.0])], {})


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, "0.5", None, True, [0.5]])
def test_rates_in_a_state_follow_the_rule_of_the_constructor(lr):
    opt = optim.SGD([nn.Parameter([1.0])], lr=0.5)
    state = opt.state_dict()
    state["param_groups"][0]["lr"] = lr
    with pytest.raises(ArgumentError, match="lr"):
        opt.load_state_dict(state)
    assert opt.lr == 0.5


@pytest.mark.parametrize("step", [-1, 3.7, "3", 2**70, True])
def test_counts_in_a_state_are_whole(step):
    opt = optim.Adam([nn.Parameter([1.0])], lr=0.5)
    state = opt.state_dict()
    state["state"][0]["step"] = step
    with pytest.raises(ArgumentError, match="must be a whole number of at least 0"):
        opt.load_state_dict(state)


def test_rates_in_a_state_may_be_numpys_or_tensors():
    opt = optim.SGD([nn.Parameter([1.0])], lr=0.5)
    for lr in (np.float64(0.25), dg.tensor(0.125, dtype="float64"), np.array(0.5), 1):
        state = opt.state_dict()
        state["param_groups"][0]["lr"] = lr
        opt.load_state_dict(state)
        assert opt.lr == float(lr)


def test_options_cannot_be_changed_as_attributes_either():
    group = optim.SGD([nn.Parameter([1.0])], lr=0.5, momentum=0.5).param_groups[0]
    with pytest.raises(ArgumentError, match="only lr can be changed"):
        group.momentum = 0.9
    assert group["momentum"] == 0.5
    group.lr = 0.25
    assert group["lr"] == 0.25


def test_groups_beside_parameters():
    p, q = nn.Parameter([1.0]), nn.Parameter([2.0])
    with pytest.raises(ArgumentError, match="a group is a dict with the key 'params'"):
        optim.SGD([{"params": [p]}, q], lr=0.1)
