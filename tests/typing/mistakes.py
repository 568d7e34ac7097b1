"""Mistakes that a type checker finds: each `type: ignore` names one, and one that is not needed is an error itself."""

import dualgraph as dg
from dualgraph import nn, optim, static

x = dg.tensor([[1.0, 2.0]])
layer = nn.Linear(2, 3)

dg.tensor(None)  # type: ignore[arg-type]
dg.tensor(1j)  # type: ignore[arg-type]
x + None  # type: ignore[operator]
x.to("cuda")  # type: ignore[arg-type]
x.sum(axes=0)  # type: ignore[call-arg]
x.sum(axis=0.5)  # type: ignore[arg-type]
x[0.5]  # type: ignore[index]
x[0] = 1.0  # type: ignore[index]
x.reshape("2")  # type: ignore[arg-type]
x.grad.tolist()  # type: ignore[union-attr]
x.register_hook(lambda: None)  # type: ignore[arg-type, misc]

nn.Linear("2", 3)  # type: ignore[arg-type]
nn.GELU("tan")  # type: ignore[arg-type]
nn.MSELoss("average")  # type: ignore[arg-type]
nn.init.calculate_gain("swish")  # type: ignore[arg-type]
layer(x, x)  # type: ignore[call-arg]
layer(None)  # type: ignore[arg-type]

optim.SGD(layer.weight)  # type: ignore[arg-type]
optim.Adam(layer.parameters(), betas=0.9)  # type: ignore[arg-type]
optim.Adam(layer.parameters()).lr = "fast"  # type: ignore[assignment]


def step(x: dg.Tensor) -> dg.Tensor:
    return layer(x)


static.jit(step)(x, x)  # type: ignore[call-arg]
static.jit(step)(x).step()  # type: ignore[attr-defined]
static.jit(step, optimize="fastest")  # type: ignore[arg-type]
static.compile(step, static.spec((1, 2)), optimize="fastest")  # type: ignore[call-overload]
static.spec("2")  # type: ignore[arg-type]
dg.grad(x, [1.0])  # type: ignore[list-item]
