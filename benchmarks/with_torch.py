"""The cases in PyTorch."""

from __future__ import annotations

import operator
import os
from typing import Any

import cases
import torch
import torch.nn.functional as F
import workloads
from cases import Case, calls
from torch import nn

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class Line(nn.Module):
    def __init__(self, start: workloads.Workload):
        super().__init__()
        self.w, self.b = (nn.Parameter(torch.tensor(start.parameters[name])) for name in "wb")

    def forward(self, x: Any) -> Any:
        return self.w * x + self.b


class Classifier(nn.Module):
    def __init__(self, start: workloads.Workload):
        super().__init__()
        layers = []
        for number in range(3):
            w, b = start.parameters[f"w{number}"], start.parameters[f"b{number}"]
            layer = nn.Linear(*w.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(w).T)
                layer.bias.copy_(torch.tensor(b))
            layers.append(layer)
        self.first, self.second, self.out = layers

    def forward(self, x: Any) -> Any:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))


def training_step(name: str, mode: str) -> dict[str, Case]:
    """`mode`: eager, or compile (forward and loss); -fused: the fused optimiser; -step: the optimiser compiled too."""
    start = workloads.WORKLOADS[name]()
    fused = {"fused": True} if "fused" in mode else {}
    model: nn.Module
    if name == "affine":
        model, criterion = Line(start), F.mse_loss
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=start.learning_rate, **fused)
    else:
        model, criterion = Classifier(start), F.cross_entropy
        optimizer = torch.optim.Adam(model.parameters(), lr=start.learning_rate, **fused)
    x, target = torch.tensor(start.x), torch.tensor(start.target)

    def objective(x: Any, target: Any) -> Any:
        return criterion(model(x), target)

    forward = torch.compile(objective) if "compile" in mode else objective
    update = torch.compile(optimizer.step) if "step" in mode else optimizer.step
    first = [p.detach().clone() for p in model.parameters()]
    losses: list[Any] = []

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = forward(x, target)
            loss.backward()
            update()
        losses[:] = [loss.detach()]

    def reset() -> None:
        with torch.no_grad():
            for p, value in zip(model.parameters(), first, strict=True):
                p.copy_(value)
            for state in optimizer.state.values():  # in place: a new state would be compiled anew
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        value.zero_()

    return {"step": Case(run, reset, lambda: float(losses[0]))}


def ops() -> dict[str, Case]:
    a, b, c = map(torch.tensor, cases.small())
    found = {}
    for suffix, grad in (("", False), (cases.RECORDED, True)):
        x, m = a.clone().requires_grad_(grad), c.clone().requires_grad_(grad)
        todo = (
            calls(operator.add, x, b),
            calls(operator.mul, x, 0.5),
            calls(torch.tanh, x),
            calls(operator.matmul, m, c),
            calls(torch.sum, x),
            calls(torch.reshape, x, (2, 4)),
        )
        found.update(zip((op + suffix for op in cases.OPS), todo, strict=True))
    return found


def kernels() -> dict[str, Case]:
    found = {}
    for size, shape in cases.SIZES.items():
        x, y, rows = map(torch.tensor, cases.matrices(shape))
        todo = (
            calls(torch.add, x, y),
            calls(torch.exp, x),
            calls(torch.tanh, x),
            calls(lambda x: F.gelu(x, approximate="tanh"), x),
            calls(torch.sum, x),
            calls(lambda x: torch.sum(x, 0), x),
            calls(lambda x: torch.softmax(x, 1), x),
            calls(lambda x: F.layer_norm(x, x.shape[1:]), x),
            calls(lambda x, rows: torch.index_select(x, 0, rows), x, rows),
        )
        found.update(zip((f"{kernel}, {size}" for kernel in cases.KERNELS), todo, strict=True))
    for n in cases.PRODUCTS:
        x, y, _ = map(torch.tensor, cases.matrices((n, n)))
        found[f"matmul, {n}x{n}"] = calls(torch.matmul, x, y)
    return found
