"""The training steps in JAX: the whole step in one jit, its state donated."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import workloads
from cases import Case


def _line(p: Any, x: Any, target: Any) -> Any:
    return jnp.mean((p["w"] * x + p["b"] - target) ** 2)


def _classifier(p: Any, x: Any, target: Any) -> Any:
    for layer in (0, 1):
        x = jnp.tanh(x @ p[f"w{layer}"] + p[f"b{layer}"])
    scores = jax.nn.log_softmax(x @ p["w2"] + p["b2"])
    # One-hot labels: XLA fuses them on CPUs, where indexing becomes a scatter in the gradient.
    return -jnp.mean(jnp.sum(jax.nn.one_hot(target, scores.shape[1]) * scores, axis=1))


def _sgd(p: Any, g: Any, state: Any, rate: float) -> Any:
    return jax.tree.map(lambda p, g: p - rate * g, p, g), state


def _adam(p: Any, g: Any, state: Any, rate: float) -> Any:
    count, m, v = state
    count = count + 1
    t = count.astype(jnp.float32)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * (g * g), v, g)
    step, root = rate / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
    p = jax.tree.map(lambda p, m, v: p - step * m / (jnp.sqrt(v) * root + 1e-8), p, m, v)
    return p, (count, m, v)


def training_step(name: str, mode: str) -> dict[str, Case]:
    """`mode` is jit."""
    start = workloads.WORKLOADS[name]()
    objective, update = (_line, _sgd) if name == "affine" else (_classifier, _adam)
    x, target = jnp.array(start.x), jnp.array(start.target, jnp.int32 if name == "mlp" else jnp.float32)

    def step(p: Any, state: Any, x: Any, target: Any) -> Any:
        loss, g = jax.value_and_grad(objective)(p, x, target)
        return *update(p, g, state, start.learning_rate), loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held: dict[str, Any] = {}

    def reset() -> None:
        held["p"] = {key: jnp.array(value) for key, value in start.parameters.items()}
        zeros = [jax.tree.map(jnp.zeros_like, held["p"]) for _ in range(2)]
        held["state"] = (jnp.zeros((), jnp.int32), *zeros) if name == "mlp" else ()
        jax.block_until_ready(held)

    def run(steps: int) -> None:
        p, state = held["p"], held["state"]
        for _ in range(steps):
            p, state, loss = compiled(p, state, x, target)
        held.update(jax.block_until_ready({"p": p, "state": state, "loss": loss}))

    reset()
    return {"step": Case(run, reset, lambda: float(held["loss"]))}
