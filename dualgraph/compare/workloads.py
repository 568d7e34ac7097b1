"""What is compared: a table of workloads. Each builds a model, its optimiser and its data, and a training step.

The step is ordinary eager code, written once. It never asks which mode it runs in; both arms of a comparison run it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import dualgraph as dg
from dualgraph import models, nn, optim
from dualgraph.data.digits import digits_split
from dualgraph.errors import ArgumentError
from dualgraph.nn import functional as F
from dualgraph.ops.random import DRAW, SEED

Batch = tuple[dg.Tensor, ...]
FIRST_SEED = 0  # of the random numbers, before a workload is built


@dataclass(frozen=True)
class Instance:
    """A workload with its own parameters and optimiser state: two instances of a workload start with equal bits."""

    model: nn.Module
    optimizer: optim.Optimizer
    step: Callable[..., dg.Tensor]  # batch -> loss; updates the parameters
    batches: tuple[Batch, ...]  # one epoch
    held_out: Batch | None = None  # inputs and labels for the accuracy

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        """The model alone."""
        return self.model(x)  # type: ignore[no-any-return]

    def variables(self) -> Iterator[tuple[str, dg.Variable]]:
        """Everything a step may change, but for gradients: parameters, buffers, optimiser state, random numbers."""
        yield from ((f"parameter {name}", p) for name, p in self.model.named_parameters())
        yield from ((f"buffer {name}", b) for name, b in self.model.named_buffers())
        yield from ((f"optimiser {name}", v) for name, v in self.optimizer.named_variables())
        yield "random seed", SEED
        yield "random draw number", DRAW


@dataclass(frozen=True)
class Workload:
    """A named workload. `epochs`: of training for the accuracy; 0 where there is none."""

    name: str
    summary: str
    factory: Callable[[], Instance]
    epochs: int = 0

    def build(self) -> Instance:
        """A fresh instance; the random numbers start anew."""
        dg.manual_seed(FIRST_SEED)
        return self.factory()


def affine() -> Instance:
    """Eight noisy points on the line 2.5 x - 1."""
    model = models.Affine()
    optimizer = optim.SGD(model.parameters(), lr=0.05)

    def step(x: dg.Tensor, t: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    draws = np.random.Philox(FIRST_SEED).random_raw(16).astype(np.float64) / 2**64
    x = draws[:8] * 4 - 2
    t = 2.5 * x - 1 + (draws[8:] - 0.5) * 0.1
    return Instance(model, optimizer, step, ((dg.tensor(x.astype(np.float32)), dg.tensor(t.astype(np.float32))),))


def mlp() -> Instance:
    """Handwritten digits, batches of 64; a last shorter batch would be another graph and is left out."""
    model = models.MLP((64, 128, 128, 10))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    train, test = digits_split()
    starts = range(0, len(train.labels) - 63, 64)
    batches = tuple((dg.tensor(train.images[n : n + 64]), dg.tensor(train.labels[n : n + 64])) for n in starts)
    return Instance(model, optimizer, step, batches, (dg.tensor(test.images), dg.tensor(test.labels)))


WORKLOADS: Mapping[str, Workload] = {
    w.name: w
    for w in (
        Workload("affine", "y = w x + b on 8 points, mean squared error, SGD", affine),
        Workload("mlp", "handwritten digits, 64-128-128-10, tanh, cross-entropy, Adam, batch 64", mlp, epochs=20),
    )
}


def find(name: str) -> Workload:
    """The workload of this name.

    >>> find("mpl")
    Traceback (most recent call last):
    dualgraph.errors.ArgumentError: got the workload 'mpl'; there is none of this name; did you mean 'mlp'?...
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    close = difflib.get_close_matches(name, WORKLOADS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the workloads are {', '.join(WORKLOADS)}"
    raise ArgumentError(f"got the workload {name!r}; there is none of this name; {hint}")
