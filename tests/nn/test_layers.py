"""What layers compute, how their parameters start, and the randomness of dropout."""

import math
import re

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.modes import assert_modes_agree, random_state
from dualgraph import nn
from dualgraph.errors import ArgumentError, DTypeError, GraphError, ShapeError
from dualgraph.models import MLP, Affine
from dualgraph.nn import init

X = np.linspace(-3.0, 3.0, 24, dtype=np.float32).reshape(2, 3, 4)


def exact(x):
    return x.astype(np.float64)


def phi(x):
    return np.vectorize(lambda v: 0.5 * (1.0 + math.erf(v / math.sqrt(2.0))))(x)


LAYERS = [
    (nn.Identity(), lambda x: x),
    (nn.ReLU(), lambda x: np.maximum(x, 0)),
    (nn.Tanh(), np.tanh),
    (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    (nn.GELU(), lambda x: x * phi(x)),
    (nn.GELU("tanh"), lambda x: x * (np.tanh((x + 0.044715 * x**3) * math.sqrt(2 / math.pi)) + 1) / 2),
    (nn.Softplus(), lambda x: np.log1p(np.exp(x))),
    (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    (nn.ELU(0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0)))),
    (nn.Softmax(1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    (nn.LogSoftmax(), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
    (nn.Flatten(), lambda x: x.reshape(2, 12)),
    (nn.Flatten(0, 1), lambda x: x.reshape(6, 4)),
]


@pytest.mark.parametrize(("layer", "formula"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])
def test_layers_without_parameters(layer, formula):
    np.testing.assert_allclose(layer(dg.tensor(X)).numpy(), formula(exact(X)), rtol=2e-6, atol=1e-6)
    assert list(layer.parameters()) == []


def test_linear():
    layer = nn.Linear(4, 5)
    out = layer(dg.tensor(X))
    want = exact(X) @ exact(layer.weight.numpy()).T + layer.bias.numpy()
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-5, atol=1e-6)
    bare = nn.Linear(4, 5, bias=False)
    assert bare.bias is None
    assert bare(dg.tensor(X)).shape == (2, 3, 5)
    assert nn.Linear(4, 5, dtype="float64").weight.dtype == np.float64
    with pytest.raises(ShapeError, match="in_features = 4"):
        layer(dg.ones((2, 3)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), ArgumentError, "in_features = 0"),
        (lambda: nn.Linear(3, 2.0), ArgumentError, "out_features = 2.0"),
        (lambda: nn.Linear(3, 2, dtype="int64"), DTypeError, "bfloat16, float32, float64"),
        (lambda: nn.Dropout(1.5), ArgumentError, "p = 1.5"),
        (lambda: F.dropout(dg.ones(3), -0.1), ArgumentError, "p = -0.1"),
        (lambda: nn.MSELoss("avg"), ArgumentError, "reduction 'avg'"),
        (lambda: init.xavier_uniform_(nn.Parameter([1.0])), ShapeError, "2 axes or more"),
        (lambda: init.zeros_(dg.ones(3)), GraphError, "only variables"),
        (lambda: init.calculate_gain("swish"), ArgumentError, "got 'swish'"),
        (lambda: init.calculate_gain("leaky_relu", math.nan), ArgumentError, "a = nan"),
        (lambda: init.normal_(nn.Parameter([1.0]), 0, -1), ArgumentError, "std = -1"),
        (lambda: init.normal_(nn.Parameter([1.0]), math.nan), ArgumentError, "mean = nan"),
        (lambda: init.normal_(nn.Parameter([1.0]), 0, math.inf), ArgumentError, "std = inf"),
        (lambda: init.uniform_(nn.Parameter([1.0]), 1, 0), ArgumentError, "a = 1 and b = 0"),
        (lambda: init.xavier_uniform_(nn.Parameter([[1.0]]), -2), ArgumentError, "gain = -2"),
    ],
)
def test_misuse(make, error, message):
    before = random_state()
    with pytest.raises(error, match=message):
        make()
    assert random_state() == before


def test_the_seed_fixes_the_first_values():
    def drawn(seed):
        dg.manual_seed(seed)
        return nn.Linear(7, 5).state_dict()

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all((first[k].numpy() == again[k].numpy()).all() for k in first)
    assert not any((first[k].numpy() == other[k].numpy()).any() for k in first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranges_of_first_values(dtype):
    dg.manual_seed(0)
    w = nn.Parameter(np.zeros((200, 300), dtype))

    def spread(variable, bound):
        x = variable.numpy()
        assert x.dtype == dtype
        assert np.abs(x).max() <= bound * (1 + 1e-6)
        assert np.abs(x).max() > 0.99 * bound
        error = bound * x.size**-0.5  # that of the mean is 1 / sqrt(3) of it
        assert abs(x.mean()) < 3 * error
        assert x.var() == pytest.approx(bound**2 / 3, abs=3 * bound * error)

    assert init.uniform_(w, -0.5, 0.5) is w
    spread(w, 0.5)
    spread(init.xavier_uniform_(w, gain=2.0), 2.0 * math.sqrt(6 / 500))
    spread(init.kaiming_uniform_(w, nonlinearity="relu"), math.sqrt(6 / 300))
    spread(init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(300))
    layer = nn.Linear(400, 1000, dtype=dtype)
    spread(layer.weight, 1 / 20)
    spread(layer.bias, 1 / 20)
    init.normal_(w, mean=3.0, std=0.1)
    assert w.numpy().mean() == pytest.approx(3.0, abs=0.002)
    assert w.numpy().std() == pytest.approx(0.1, rel=0.02)
    assert (init.constant_(w, 2.5).numpy() == 2.5).all()
    assert (init.ones_(w).numpy() == 1.0).all()
    assert (init.zeros_(w).numpy() == 0.0).all()
    assert w.requires_grad


def test_dropout():
    dg.manual_seed(1)
    x = dg.ones((400, 500), dtype="float64")
    x.requires_grad_()
    layer = nn.Dropout(0.2)
    out = layer(x)
    values = out.numpy()
    assert set(np.unique(values)) == {0.0, 1.25}
    assert (values == 0.0).mean() == pytest.approx(0.2, abs=0.004)
    out.sum().backward()
    assert x.grad.numpy().tobytes() == values.tobytes()  # the gradient passes where the value did
    assert (layer(x).numpy() != values).any()
    layer.eval()
    for same in (layer(x), nn.Dropout(0.0)(x)):
        assert same.numpy().tobytes() == x.numpy().tobytes()
        x.grad = None
        same.sum().backward()
        assert (x.grad.numpy() == 1.0).all()
    assert (nn.Dropout(1.0)(x).numpy() == 0.0).all()


def test_dropout_draws_by_the_seed():
    layer, x = nn.Dropout(0.5), dg.ones(100)
    dg.manual_seed(5)
    first = [layer(x).tolist() for _ in range(2)]
    dg.manual_seed(5)
    layer.eval()(x)  # draws nothing
    layer.train()
    assert [layer(x).tolist() for _ in range(2)] == first
    assert first[0] != first[1]


def test_dropout_removes_what_is_not_finite():
    dg.manual_seed(0)
    out = F.dropout(dg.tensor([np.inf] * 200), 0.5)
    assert set(out.tolist()) == {0.0, np.inf}


def test_losses():
    scores, labels = dg.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), dg.tensor([1, 0])
    rows = -np.log(np.exp(scores.numpy()) / np.exp(scores.numpy()).sum(1, keepdims=True))[[0, 1], [1, 0]]
    np.testing.assert_allclose(nn.CrossEntropyLoss()(scores, labels).numpy(), rows.mean(), rtol=1e-6)
    np.testing.assert_allclose(nn.CrossEntropyLoss("none")(scores, labels).numpy(), rows, rtol=1e-6)
    np.testing.assert_allclose(nn.NLLLoss("sum")(F.log_softmax(scores), labels).numpy(), rows.sum(), rtol=1e-6)
    np.testing.assert_allclose(nn.MSELoss()(scores, dg.zeros((2, 3))).numpy(), (scores.numpy() ** 2).mean(), rtol=1e-6)
    assert repr(nn.MSELoss("sum")) == "MSELoss(reduction='sum')"


def test_models():
    y = Affine()(dg.tensor(2.0))
    assert y.item() == np.float32(0.3) * np.float32(2.0) + np.float32(0.1)
    assert y.call.op.name == "add"
    assert y.call.inputs[0].call.op.name == "multiply"
    model = MLP((6, 5, 4), dtype="float64")
    assert model(dg.ones((3, 6), dtype="float64")).spec == ((3, 4), "float64")
    assert len(list(MLP().parameters())) == 6


# ------------------------------------------------------------------------------------------------- layer norm

# PyTorch 2: y, its gradients for x, weight and bias, and those of sum(gx**2) + sum(gw**3) for x and weight.
NORMED = {
    "y": [-0.929981109951, 1.464990554975, 2.581238193719, -0.185695338177, 3.042648719948, 2.603509849075],
    "gx": [1.423248117593, -2.346945571395, 0.923697453802, -0.288147938551, 0.086444381565, 0.201703556985],
    "gw": [-0.744285771774, -0.975652734962, 5.901468558616],
    "gb": [0.0, 2.5, 5.0],
    "hx": [7.306653925309, -48.520947111522, 41.214293186214, -30.859423155022, 9.617132135661, 21.24229101936],
    "hw": [2.419974679661, -6.396146295958, 3.648233040775],
}


@pytest.mark.parametrize(("dtype", "room"), [("float32", 2e-6), ("float64", 1e-11)])
def test_layer_norm_as_pytorch_has_it(dtype, room):
    x = dg.tensor(np.array([[1.0, 2.0, 4.0], [0.5, -1.0, 3.0]], dtype), requires_grad=True)
    weight, bias = (dg.tensor(np.array(v, dtype), requires_grad=True) for v in ([1.0, -2.0, 0.5], [0.0, 1.0, 2.0]))
    seed = dg.tensor(np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype))
    y = F.layer_norm(x, 3, weight, bias, 0.5)
    gx, gw, gb = dg.grad(y, [x, weight, bias], seed, create_graph=True)
    hx, hw = dg.grad(dg.sum(gx * gx) + dg.sum(gw * gw * gw), [x, weight])
    for name, got in zip(NORMED, (y, gx, gw, gb, hx, hw), strict=True):
        want = np.array(NORMED[name])
        np.testing.assert_allclose(
            got.detach().numpy().reshape(-1), want, rtol=0, atol=room * np.abs(want).max(), err_msg=name
        )


@pytest.mark.parametrize("given", [(), ("weight",), ("bias",), ("weight", "bias")], ids=str)
@pytest.mark.parametrize(
    ("shape", "normalized"),
    [((4, 3), (3,)), ((2, 3, 4), (3, 4)), ((3,), 3), ((0, 3), 3), ((2, 0), 0), ((5, 1), 1), ((2, 70, 1), (70, 1))],
    ids=str,
)
def test_layer_norm_in_both_modes(shape, normalized, given):
    rng = np.random.default_rng(5)
    lengths = (normalized,) if isinstance(normalized, int) else normalized
    x = rng.uniform(-3, 3, shape).astype(np.float32)
    affine = [rng.uniform(0.5, 2, lengths).astype(np.float32) for _ in given]

    def function(x, *affine):
        return [F.layer_norm(x, normalized, **dict(zip(given, affine, strict=True)))]

    found = assert_modes_agree(function, [x, *affine], f"layer_norm {shape}", order=2)
    axes = tuple(range(len(shape) - len(lengths), len(shape)))
    options = dict(zip(given, affine, strict=True))
    if x.size:
        z = (exact(x) - exact(x).mean(axes, keepdims=True)) / np.sqrt(exact(x).var(axes, keepdims=True) + 1e-5)
        want = z * options.get("weight", 1.0) + options.get("bias", 0.0)
        np.testing.assert_allclose(found[0], want, rtol=1e-5, atol=1e-5)
    if math.prod(lengths) == 1:  # its own mean: nothing of it is left
        assert (found[0] == options.get("bias", 0.0)).all()
        assert not found[1].any()
    assert all(np.isfinite(f).all() for f in found)


def test_layer_norm_layer():
    layer = nn.LayerNorm((3, 4), dtype="float64")
    assert layer.weight.tolist() == [[1.0] * 4] * 3
    assert layer.bias.tolist() == [[0.0] * 4] * 3
    assert repr(layer) == "LayerNorm((3, 4), eps=1e-05, elementwise_affine=True)"
    out = layer(dg.tensor(X, dtype="float64")).numpy()
    np.testing.assert_allclose(out.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(out.var((1, 2)), 1, rtol=1e-4)
    assert [name for name, _ in nn.LayerNorm(4, bias=False).named_parameters()] == ["weight"]
    assert list(nn.LayerNorm(4, elementwise_affine=False).parameters()) == []
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: F.layer_norm(dg.ones((2, 3)), 4), ShapeError, "input of shape (2, 3) and normalized_shape (4,)"),
        (lambda: F.layer_norm(dg.ones((2, 3)), ()), ShapeError, "last axes, one at least"),
        (lambda: F.layer_norm(dg.ones(3), (2, 3)), ShapeError, "normalized_shape (2, 3)"),
        (lambda: F.layer_norm(dg.ones((2, 3)), 3, dg.ones(2)), ShapeError, "a weight of shape (2,)"),
        (lambda: F.layer_norm(dg.ones((2, 3)), 3, None, dg.ones((1, 3))), ShapeError, "a bias of shape (1, 3)"),
        (lambda: F.layer_norm(dg.arange(3), 3), DTypeError, "layer_norm: got int64"),
        (lambda: F.layer_norm(dg.ones(3), 3, eps=math.nan), ArgumentError, "layer_norm: got eps"),
        (lambda: nn.LayerNorm(-1), ShapeError, "LayerNorm: got shape"),
        (lambda: nn.LayerNorm(3, eps="small"), ArgumentError, "LayerNorm: got eps"),
    ],
)
def test_layer_norm_refuses(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()
