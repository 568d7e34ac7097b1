"""The cases in dualgraph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import cases
import workloads
from cases import Case, calls

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import nn, optim, static


class Line(nn.Module):
    def __init__(self, start: workloads.Workload):
        super().__init__()
        self.w, self.b = nn.Parameter(start.parameters["w"]), nn.Parameter(start.parameters["b"])

    def forward(self, x: Any) -> Any:
        return self.w * x + self.b


class Classifier(nn.Module):
    def __init__(self, start: workloads.Workload):
        super().__init__()
        layers = []
        for number in range(3):
            w, b = start.parameters[f"w{number}"], start.parameters[f"b{number}"]
            layer = nn.Linear(*w.shape)
            layer.weight.assign(dg.tensor(w.T))
            layer.bias.assign(dg.tensor(b))
            layers.append(layer)
        self.first, self.second, self.out = layers

    def forward(self, x: Any) -> Any:
        return self.out(F.tanh(self.second(F.tanh(self.first(x)))))


def training_step(name: str, mode: str) -> dict[str, Case]:
    """`mode`: eager, or static (the same step compiled as a whole)."""
    start = workloads.WORKLOADS[name]()
    model: nn.Module
    if name == "affine":
        model, criterion = Line(start), F.mse_loss
        optimizer: Any = optim.SGD(model.parameters(), lr=start.learning_rate)
    else:
        model, criterion = Classifier(start), F.cross_entropy
        optimizer = optim.Adam(model.parameters(), lr=start.learning_rate)
    x, target = dg.tensor(start.x), dg.tensor(start.target)

    def step(x: Any, target: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    variables = [*model.parameters(), *(v for _, v in optimizer.named_variables())]
    first = [v.numpy().copy() for v in variables]
    compiled: list[Callable[..., Any]] = [step] if mode == "eager" else []
    losses: list[Any] = []

    def run(steps: int) -> None:
        if not compiled:  # here, so that compilation counts as part of the first step
            compiled.append(static.compile(step, *(static.spec(v.shape, v.dtype) for v in (x, target))))
        one = compiled[0]
        for _ in range(steps):
            loss = one(x, target)
        losses[:] = [loss]

    def reset() -> None:
        for variable, value in zip(variables, first, strict=True):
            variable.assign(dg.tensor(value))

    return {"step": Case(run, reset, lambda: float(losses[0]))}


def ops() -> dict[str, Case]:
    a, b, c = map(dg.tensor, cases.small())
    found = {}
    for suffix, grad in (("", False), (cases.RECORDED, True)):
        x, m = dg.tensor(a, requires_grad=grad), dg.tensor(c, requires_grad=grad)
        todo = (
            calls(operator.add, x, b),
            calls(operator.mul, x, 0.5),
            calls(dg.tanh, x),
            calls(operator.matmul, m, c),
            calls(dg.sum, x),
            calls(dg.reshape, x, (2, 4)),
        )
        found.update(zip((op + suffix for op in cases.OPS), todo, strict=True))
    return found


def _layer_norm(x: Any) -> Any:
    centred = x - dg.mean(x, axis=1, keepdims=True)
    return centred * dg.rsqrt(dg.mean(centred * centred, axis=1, keepdims=True) + 1e-5)


def kernels() -> dict[str, Case]:
    found = {}
    for size, shape in cases.SIZES.items():
        x, y, rows = map(dg.tensor, cases.matrices(shape))
        layer_norm = static.compile(_layer_norm, static.spec(shape))
        todo = (
            calls(dg.add, x, y),
            calls(dg.exp, x),
            calls(dg.tanh, x),
            calls(lambda x: dg.gelu(x, approximate="tanh"), x),
            calls(dg.sum, x),
            calls(lambda x: dg.sum(x, axis=0), x),
            calls(lambda x: dg.softmax(x, axis=1), x),
            calls(layer_norm, x),
            calls(lambda x, rows: dg.take(x, rows, axis=0), x, rows),
        )
        found.update(zip((f"{kernel}, {size}" for kernel in cases.KERNELS), todo, strict=True))
    for n in cases.PRODUCTS:
        x, y, _ = map(dg.tensor, cases.matrices((n, n)))
        found[f"matmul, {n}x{n}"] = calls(dg.matmul, x, y)
    return found
