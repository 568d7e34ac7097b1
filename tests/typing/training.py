"""User code, as mypy sees it: models, training, both modes. Read by `tests/test_types.py`, never run."""

from collections.abc import Iterator
from typing import assert_type

import numpy as np

import dualgraph as dg
from dualgraph import data, extend, nn, optim, static
from dualgraph.static import Compiled, Executable

x = dg.tensor([[1.0, 2.0]])
assert_type(x, dg.Tensor)

# Operators and methods

for result in (x + 1, 1 + x, x - 1.0, 2 / x, x // 2, x % 2, x**2, 2**x, x @ x.T, -x, +x, abs(x), x * np.ones(2)):
    assert_type(result, dg.Tensor)
assert_type(np.ones(2) * x, dg.Tensor)
assert_type(np.float32(2) * x, dg.Tensor)
assert_type(x == 1, dg.Tensor)
assert_type(x != x, dg.Tensor)
assert_type(x < 1, dg.Tensor)
assert_type(x[0], dg.Tensor)
assert_type(x[:, None, ..., -1], dg.Tensor)
assert_type(x[x.argmax()], dg.Tensor)
assert_type(x.sort(0, descending=True), dg.Tensor)
assert_type(x.sum(axis=(0, 1), dtype="float64", keepdims=True), dg.Tensor)
assert_type(x.var(axis=-1, correction=1), dg.Tensor)
assert_type(x.reshape(2, 1).astype(dg.float64).clip(0, None), dg.Tensor)
assert_type(x.shape, tuple[int, ...])
assert_type(x.item() + 1, int | float)
assert_type(x.requires_grad_().backward(), None)
assert_type(x.grad, dg.Tensor | None)
assert_type(list(x), list[dg.Tensor])
remove = x.register_hook(lambda g: g * 2)
remove()
array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = x.numpy()

# Modules

layer = nn.Linear(2, 3)
assert_type(layer(x), dg.Tensor)
assert_type(layer(np.ones((1, 2), np.float32)), dg.Tensor)
assert_type(layer.weight, nn.Parameter)
assert_type(layer.weight @ layer.weight, dg.Tensor)
assert_type(layer.weight.requires_grad_(False), nn.Parameter)
assert_type(layer.train(), nn.Linear)
assert_type(layer.eval().requires_grad_(), nn.Linear)
assert_type(layer.state_dict(), dict[str, dg.Tensor])
assert_type(nn.Sequential(layer, nn.Tanh())(x), dg.Tensor)
assert_type(nn.CrossEntropyLoss("sum")(layer(x), [1]), dg.Tensor)
assert_type(nn.init.uniform_(layer.weight, -1, 1), nn.Parameter)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: dg.Tensor, scale: float = 1.0) -> tuple[dg.Tensor, dg.Tensor]:
        hidden = self.hidden(x)
        return self.out(hidden) * scale, hidden


model = Model()
assert_type(model(x, scale=2.0), tuple[dg.Tensor, dg.Tensor])
assert_type(model.parameters(), Iterator[nn.Parameter])
assert_type(list(model.named_buffers()), list[tuple[str, dg.Variable]])
model.register_forward_hook(lambda module, args, out: None)

# Optimisers, gradients, contexts

optimizer = optim.Adam(model.parameters(), lr=1e-3)
assert_type(optimizer.step(), None)
assert_type(optimizer.lr, float)
optimizer.lr = 0.1
optimizer.load_state_dict(optimizer.state_dict())
assert_type(optimizer.param_groups[0]["lr"], float)
optim.SGD([{"params": [layer.weight], "lr": 0.5}, {"params": [layer.bias]}], lr=1.0, momentum=0.9)
assert_type(dg.grad(x, [layer.weight]), list[dg.Tensor])
assert_type(dg.grad(x, list(model.parameters()), create_graph=True), list[dg.Tensor])
with dg.Tape() as tape:
    assert_type(tape.gradient(x * x, [x]), list[dg.Tensor])
with dg.no_grad(), dg.enable_grad():
    pass


@dg.no_grad()
def evaluated(x: dg.Tensor) -> float:
    return layer(x).item()


@dg.no_grad
def predicted(x: dg.Tensor) -> dg.Tensor:
    return layer(x)


assert_type(evaluated(x), float)
assert_type(predicted(x), dg.Tensor)

# Data

loader = data.DataLoader(data.TensorDataset(np.ones((4, 2)), [0, 1, 2, 3]), batch_size=2)
for images, labels in loader:
    layer(images)
    labels.reshape(-1)
assert_type(loader.state_dict(), dict[str, int])

# Static graphs


def step(x: dg.Tensor, scale: float = 1.0) -> tuple[dg.Tensor, dict[str, dg.Tensor]]:
    loss = (layer(x) * scale).sum()
    loss.backward()
    return loss, {"loss": loss}


fast = static.jit(step)
assert_type(fast(x, scale=2.0), tuple[dg.Tensor, dict[str, dg.Tensor]])
assert_type(fast.misses, list[str])
assert_type(static.jit(layer)(x), dg.Tensor)


class Trainer:
    @static.jit
    def step(self, x: dg.Tensor) -> dg.Tensor:
        return x


assert_type(Trainer().step(x), dg.Tensor)

compiled = static.compile(step, static.spec((1, 2)), optimize="fast")
assert_type(compiled, Compiled[tuple[dg.Tensor, dict[str, dg.Tensor]]])
assert_type(compiled(np.ones((1, 2))), tuple[dg.Tensor, dict[str, dg.Tensor]])
assert_type(compiled.executable.explain(), str)

with static.Graph() as graph:
    a = static.placeholder("a", (2,))
    y = (a * 2.0).sum()
    assert_type(static.gradients(y, [a]), list[dg.Tensor])
executable = static.compile(graph, outputs={"y": y})
assert_type(executable, Executable[dict[str, dg.Tensor]])
assert_type(executable(a=[1.0, 2.0]), dict[str, dg.Tensor])

# Operations of one's own


def scaled(x: dg.Tensor, *, by: float = 2.0) -> dg.Tensor:
    return x * by


def same(x: static.Spec) -> static.Spec:
    return x


softsign = extend.elementwise("softsign", lambda x: x / (extend.call("abs", x) + 1.0))
assert_type(softsign(x), dg.Tensor)
assert_type(extend.composite("scaled", scaled)(x, by=3.0), dg.Tensor)
assert_type(extend.external("doubled", lambda x: x * 2, same, vjp=[lambda g, out, x: g * 2.0])(x), dg.Tensor)
