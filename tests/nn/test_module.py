"""The tree of modules: registration, walking, state, hooks, and what it says when it is misused."""

import copy

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn
from dualgraph.core.value import Variable
from dualgraph.errors import ArgumentError, DTypeError, RangeError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(np.ones((), np.float32))
        self.rest = nn.Sequential(nn.Tanh(), nn.Linear(4, 2, bias=False))
        self.register_buffer("seen", np.zeros(2, np.int64))

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale


NAMES = ["scale", "first.weight", "first.bias", "rest.1.weight"]


def bits(model):
    return {name: x.numpy().tobytes() for name, x in model.state_dict().items()}


def test_registration_and_walking():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [p.shape for p in net.parameters()] == [(), (4, 3), (4,), (2, 4)]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_buffers()] == ["seen"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [name for name, _ in net.named_children()] == ["first", "rest"]
    assert list(net.children()) == [net.first, net.rest]
    assert all(p.requires_grad for p in net.parameters())
    assert not any(b.requires_grad for b in net.buffers())
    assert isinstance(net.seen, Variable)
    assert net.get_submodule("rest.1") is net.rest[1]
    assert net.get_submodule("") is net
    assert net.get_parameter("rest.1.weight") is net.rest[1].weight
    assert net.get_buffer("seen") is net.seen


def test_shared_parts_are_found_once():
    net = nn.Module()
    net.a = nn.Linear(2, 2, bias=False)
    net.b = net.a
    net.weight = net.a.weight
    assert [name for name, _ in net.named_parameters()] == ["weight"]
    assert [name for name, _ in net.named_modules()] == ["", "a"]
    assert list(net.state_dict()) == ["weight", "a.weight", "b.weight"]
    assert [n for n, _ in net.named_parameters(remove_duplicate=False)] == ["weight", "a.weight", "b.weight"]


def test_attributes_change_their_kind():
    net = nn.Module()
    net.x = nn.Linear(1, 1)
    net.x = nn.Parameter([1.0])
    assert [name for name, _ in net.named_modules()] == [""]
    assert [name for name, _ in net.named_parameters()] == ["x"]
    net.x = Variable([1.0])
    assert list(net.named_parameters()) == []
    assert [name for name, _ in net.named_buffers()] == ["x"]
    del net.x
    assert list(net.state_dict()) == []
    assert not hasattr(net, "x")
    net.x = nn.Parameter([1.0])
    net.x = None
    assert net.x is None
    assert list(net.parameters()) == []


def test_assigning_to_a_buffer_keeps_the_variable():
    net = Net()
    buffer = net.seen
    net.seen = net.seen + 1
    assert net.seen is buffer
    assert buffer.tolist() == [1, 1]


def test_buffers_out_of_the_state_and_absent_ones():
    net = nn.Module()
    net.register_buffer("cache", [1.0], persistent=False)
    net.register_buffer("later", None)
    net.register_parameter("bias", None)
    assert [name for name, _ in net.named_buffers()] == ["cache"]
    assert net.state_dict() == {}
    net.later = dg.tensor([2.0])
    assert isinstance(net.later, Variable)
    assert list(net.state_dict()) == ["later"]


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (lambda net: setattr(net, "scale", 2.0), DTypeError, r"scale\.assign\(new\)"),
        (lambda net: setattr(net, "scale", dg.tensor(2.0)), DTypeError, "only a Parameter or None"),
        (lambda net: net.register_parameter("w", dg.tensor(1.0)), DTypeError, r"wrap the value in nn\.Parameter"),
        (lambda net: net.register_parameter("a.b", None), ArgumentError, "nor contain a dot"),
        (lambda net: net.register_buffer("", [1.0]), ArgumentError, "must not be empty"),
        (lambda net: net.register_buffer("forward", [1.0]), ArgumentError, "is an attribute already"),
        (lambda net: net.register_module("x", nn.Tanh), DTypeError, r"create it first, with \(\)"),
        (lambda net: nn.Sequential(nn.Tanh(), dg.tanh), DTypeError, "item 1.*wrap a function"),
        (lambda net: nn.Module()(1.0), ArgumentError, "define forward"),
        (lambda net: net.get_submodule("rest.7"), ArgumentError, r"did you mean 'rest\.1'\?"),
        (lambda net: net.get_parameter("frist.weight"), ArgumentError, r"did you mean 'first\.weight'\?"),
        (lambda net: net.get_buffer("sen"), ArgumentError, "did you mean 'seen'"),
        (lambda net: net.to("cuda"), ArgumentError, "'cpu'"),
        (lambda net: net.rest[5], RangeError, r"index 5 of 2 modules"),
        (lambda net: nn.ModuleDict({"a.b": nn.Tanh()}), ArgumentError, "without a dot"),
        (lambda net: nn.ModuleDict({"left": nn.Tanh()})["lefty"], ArgumentError, "did you mean 'left'"),
        (lambda net: nn.Parameter([1, 2]), DTypeError, "gradients exist for floats only"),
    ],
)
def test_misuse(misuse, error, message):
    net = Net()
    before = bits(net)
    with pytest.raises(error, match=message) as caught:
        misuse(net)
    assert __file__ in str(caught.value)  # the user's own line
    assert bits(net) == before


def test_forgotten_super():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(ArgumentError, match=r"call super\(\)\.__init__\(\) first"):
        Forgetful()


def test_state_is_a_snapshot():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["scale", "seen", "first.weight", "first.bias", "rest.1.weight"]
    before = bits(net)
    with dg.no_grad():
        for p in net.parameters():
            p.assign(p * 2.0 + 1.0)
    assert {name: x.numpy().tobytes() for name, x in state.items()} == before
    assert not any(x.requires_grad for x in state.values())
    weight = net.first.weight
    assert net.load_state_dict(state) == ([], [])
    assert net.first.weight is weight
    assert weight.requires_grad
    assert bits(net) == before


def test_state_from_arrays_and_numbers():
    net = Net()
    arrays = {name: np.array(x.numpy()) + 1 for name, x in net.state_dict().items()}
    net.load_state_dict({**arrays, "seen": [5, 6]})
    arrays["first.bias"][:] = 0.0  # a copy was taken
    assert net.seen.tolist() == [5, 6]
    assert net.scale.item() == 2.0
    assert (net.first.bias.numpy() != 0.0).all()


def test_unfit_state_changes_nothing():
    net, donor = Net(), Net()
    before = bits(net)
    state = donor.state_dict()
    state["first.wieght"] = state.pop("first.weight")
    state["scale"] = np.ones(2, np.float32)
    state["rest.1.weight"] = np.zeros((2, 4))
    with pytest.raises(ArgumentError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for part in (
        "missing: first.weight (float32[4, 3])",
        "unexpected: first.wieght; did you mean 'first.weight'?",
        "unfit: scale: got float32[2], must be float32[]",
        "unfit: rest.1.weight: got float64[2, 4], must be float32[2, 4]",
        __file__,
    ):
        assert part in message
    assert bits(net) == before
    with pytest.raises(ArgumentError, match="unfit: scale"):
        net.load_state_dict(state, strict=False)
    assert bits(net) == before
    del state["scale"], state["rest.1.weight"]
    assert net.load_state_dict(state, strict=False) == (["scale", "first.weight", "rest.1.weight"], ["first.wieght"])
    assert net.first.bias.numpy().tobytes() == donor.first.bias.numpy().tobytes()


def test_switches():
    net = Net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    assert net.to("cpu") is net
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(dg.ones((1, 3))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    seen = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Tanh", "Linear", "Sequential", "Net"]


def test_hooks_run_in_order_and_replace():
    net, log = nn.Identity(), []

    def pre(name, change):
        return lambda module, args: (log.append((name, args[0])), change(args))[1]

    def post(name, change):
        return lambda module, args, out: (log.append((name, args[0], out)), change(out))[1]

    net.register_forward_pre_hook(pre("a", lambda args: args[0] + 1))
    handle = net.register_forward_pre_hook(pre("b", lambda args: (args[0] * 10,)))
    net.register_forward_hook(post("c", lambda out: None))
    net.register_forward_hook(post("d", lambda out: -out))
    assert net(2) == -30
    assert log == [("a", 2), ("b", 3), ("c", 30, 30), ("d", 30, 30)]
    handle.remove()
    handle.remove()
    assert net(2) == -3


def test_one_hook_registered_twice_is_removed_once():
    net, calls = nn.Identity(), []
    hook = lambda module, args, out: calls.append(1)  # noqa: E731
    net.register_forward_hook(hook)
    net.register_forward_hook(hook).remove()
    net(0)
    assert calls == [1]


def test_copies_are_independent():
    net = Net()
    twin = copy.deepcopy(net)
    assert bits(twin) == bits(net)
    assert twin.get_parameter("first.weight") is twin.first.weight
    before = bits(net)
    twin.first.weight.assign(dg.zeros((4, 3)))
    assert bits(net) == before


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (rest): Sequential(\n"
        "    (0): Tanh()\n"
        "    (1): Linear(in_features=4, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Parameter([1.0])) == "Parameter(tensor([1.], requires_grad=True))"


def test_containers():
    model = nn.Sequential({"inner": nn.Linear(2, 2), "1": nn.Tanh()}).append(nn.ReLU())
    assert model.inner is model[0]
    assert [name for name, _ in model.named_children()] == ["inner", "1", "2"]
    assert model(dg.ones((1, 2))).shape == (1, 2)
    assert [type(m) for m in model[1:]] == [nn.Tanh, nn.ReLU]
    assert model[-1] is model[2]
    model[2] = nn.Identity()
    assert type(model[-1]) is nn.Identity
    layers = nn.ModuleList([nn.Tanh()])
    layers.extend([nn.ReLU(), nn.Linear(1, 1)]).append(nn.Identity())
    layers.insert(1, nn.Sigmoid())
    assert [type(m) for m in layers] == [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Linear, nn.Identity]
    assert [name for name, _ in layers.named_parameters()] == ["3.weight", "3.bias"]
    assert len(layers[1:3]) == 2
    heads = nn.ModuleDict({"keys": nn.Linear(1, 1)})  # a name that is also a method
    heads["b"] = nn.Tanh()
    assert list(heads.keys()) == list(heads) == ["keys", "b"]
    assert [name for name, _ in heads.items()] == ["keys", "b"]
    assert "b" in heads
    del heads["b"]
    assert len(heads) == len(list(heads.values())) == 1
    assert [name for name, _ in heads.named_parameters()] == ["keys.weight", "keys.bias"]


def test_a_refused_item_leaves_a_list_as_it_was():
    layers = nn.ModuleList([nn.Tanh(), nn.ReLU()])
    for wrong in (
        lambda: layers.insert(0, 3),
        lambda: layers.insert("a", nn.Tanh()),
        lambda: layers.extend([nn.Tanh(), 3]),
    ):
        with pytest.raises(dg.errors.DualgraphError):
            wrong()
        assert [type(layer) for layer in layers] == [nn.Tanh, nn.ReLU]
    layers.insert(-100, nn.Sigmoid())
    assert type(layers[0]) is nn.Sigmoid


def test_a_state_of_the_live_parameters_of_the_same_module():
    """Is read before anything is assigned: parameters may change places."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = (np.array(layer.weight.numpy()) for layer in model)
    model.load_state_dict({"0.weight": model[1].weight, "1.weight": model[0].weight}, strict=False)
    assert np.array_equal(model[0].weight.numpy(), second)
    assert np.array_equal(model[1].weight.numpy(), first)
