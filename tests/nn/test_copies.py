"""Models, parameters and optimisers are copied and pickled by value; the copies share nothing with the originals."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what users do with models
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import nn, optim, static
from dualgraph.errors import GradientError, GraphError

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in range(2, 6)},  # noqa: S301
}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.drop, self.scale, self.table = nn.Dropout(0.5), 2.0, {"k": [1.0]}
        self.register_buffer("seen", np.zeros((), np.float32))
        self.layers = nn.ModuleList([nn.Linear(3, 2)])

    def forward(self, x):
        return self.layers[0](self.drop(self.second(F.relu(self.first(x))) * self.scale))


def made() -> tuple[Any, Any]:
    dg.manual_seed(0)
    model = Tied()
    return model, optim.Adam(model.parameters(), lr=0.01)


def step_of(model, opt):
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


X, Y = dg.ones((4, 3)), dg.tensor([0, 1, 0, 1])


def state(model, opt) -> list[bytes]:
    values = [*model.parameters(), *model.buffers(), *(v for _, v in opt.named_variables())]
    grads = [p.grad for p in model.parameters()]
    return [v.numpy().tobytes() for v in (*values, *(g for g in grads if g is not None))]


@pytest.mark.parametrize("how", COPIES)
def test_a_model_with_its_optimiser(how):
    model, opt = made()
    step_of(model, opt)(X, Y)
    twin, other = COPIES[how]((model, opt))
    assert state(twin, other) == state(model, opt)
    assert twin.second.weight is twin.first.weight
    assert twin.first.weight is not model.first.weight
    assert isinstance(twin.first.weight, nn.Parameter)
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in model.named_parameters()]
    before = state(model, opt)
    dg.manual_seed(1)
    losses = [step_of(twin, other)(X, Y).item(), static.jit(step_of(twin, other))(X, Y).item()]
    assert state(model, opt) == before
    dg.manual_seed(1)
    assert [static.jit(step_of(model, opt))(X, Y).item(), step_of(model, opt)(X, Y).item()] == losses
    assert state(twin, other) == state(model, opt)


@pytest.mark.parametrize("how", COPIES)
def test_tensors(how):
    for x in (
        dg.tensor([1.0, -0.0], requires_grad=True),
        dg.ones((2, 3)).T,
        dg.Variable([1, 2], name="n"),
        dg.tensor(1.5),
    ):
        twin = COPIES[how](x)
        assert type(twin) is type(x)
        assert (twin.spec, twin.requires_grad) == (x.spec, x.requires_grad)
        assert twin.numpy().tobytes() == x.numpy().tobytes()
        assert getattr(twin, "name", None) == getattr(x, "name", None)
    w = nn.Parameter([1.0, 2.0])
    dg.sum(w * w).backward()
    twin = COPIES[how](w)
    assert twin.grad.tolist() == [2.0, 4.0]
    twin.grad = None
    static.jit(lambda: twin.assign(twin * 2.0))()
    assert (w.tolist(), w.grad.tolist()) == ([1.0, 2.0], [2.0, 4.0])


class Slotted(dg.Variable):
    """A variable that holds more than others, in slots, some of them private, and refers to itself."""

    __slots__ = ("__private", "more", "never_set")

    def __init__(self, value, more):
        super().__init__(value, name="slotted")
        self.more, self.__private = more, [self]

    def private(self):
        return self.__private


class Open(Slotted):
    pass


@pytest.mark.parametrize("kind", [Slotted, Open])
@pytest.mark.parametrize("how", [*COPIES, "copy"])
def test_slots_of_a_variable_of_the_users(how, kind):
    x = kind([1.0], {"k": (1, 2)})
    if kind is Open:
        x.dynamic = "d"
    twin = copy.copy(x) if how == "copy" else COPIES[how](x)
    assert (type(twin), twin.name, twin.more, twin.tolist()) == (kind, "slotted", {"k": (1, 2)}, [1.0])
    assert twin.private()[0] is (x if how == "copy" else twin)
    assert not hasattr(twin, "never_set")
    assert getattr(twin, "dynamic", None) == getattr(x, "dynamic", None)


def doubled(x):
    return x * 2.0


class Compiling(nn.Module):
    """A model that holds a compiled function."""

    def __init__(self, **options):
        super().__init__()
        self.compiled = static.compile(doubled, static.spec((2,)), **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": "fast"}, {"optimize": "none"}, {"passes": ["fusion"]}, {"passes": []}, {"verify": True}],
)
@pytest.mark.parametrize("how", COPIES)
def test_a_model_that_holds_a_compiled_function(how, options):
    model = Compiling(**options)
    twin = COPIES[how](model)
    assert twin.compiled([1.0, 2.0]).tolist() == [2.0, 4.0]
    assert twin.compiled is not model.compiled
    assert (twin.compiled._passes, twin.compiled._verify) == (model.compiled._passes, model.compiled._verify)


def test_what_cannot_be_copied_says_so():
    w = nn.Parameter([1.0])
    for how in COPIES.values():
        with pytest.raises(GradientError, match="detach") as raised:
            how(w * 2.0)
        assert raised.value.where.file == __file__
    exe = static.compile(lambda x: x * 2.0, static.spec((1,))).executable
    with pytest.raises(GraphError, match="compile the graph again"):
        copy.deepcopy(exe)
    with pytest.raises(GraphError, match="create it before"):
        static.jit(lambda x: copy.deepcopy(w) * x)(dg.ones(1))


def test_a_copy_of_a_variable_is_its_own():
    w = nn.Parameter([1.0, 2.0])
    twin = copy.copy(w)
    twin.assign(twin * 5.0)
    assert w.tolist() == [1.0, 2.0]


@static.jit
def compiled_activation(x):
    return x * dg.sigmoid(x)


class Activated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.activation = nn.Linear(2, 2), compiled_activation

    def forward(self, x):
        return self.activation(self.inner(x))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_a_compiled_function_of_a_module_is_found_by_its_name(way):
    model, x = Activated(), dg.ones((1, 2))
    made = way(model)
    assert made.activation is compiled_activation
    assert made(x).tolist() == model(x).tolist()
