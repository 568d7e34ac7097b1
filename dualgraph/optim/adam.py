"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgraph.core.mode import current
from dualgraph.errors import ArgumentError, here, shown
from dualgraph.ops.composite import composite
from dualgraph.ops.elementwise import astype, sqrt
from dualgraph.ops.registry import register
from dualgraph.optim.optimizer import Group, Optimizer, Params, checked_number
from dualgraph.optim.scales import adam_scales


def _adam(
    rates: Any,
    roots: Any,
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    *shrink: Any,
    number: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Any, Any, Any]:
    rate, root = astype(rates[number], p.dtype), astype(roots[number], p.dtype)
    if weight_decay:
        g = g + p * weight_decay
    if shrink:
        p = p * astype(shrink[0], p.dtype)
    m = m + (g - m) * (1.0 - beta1)
    v = v * beta2 + g * (1.0 - beta2) * g
    return p - rate * m / (sqrt(v) / root + eps), m, v


def _adam_group(
    rate: Any,
    count: Any,
    *values: Any,
    numbers: tuple[int, ...],
    absent: tuple[int, ...],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decay: float,
) -> tuple[Any, ...]:
    count, rates, roots, *shrink = adam_scales(rate, count, absent=absent, beta1=beta1, beta2=beta2, decay=decay)
    options = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    new = [count]
    for place, number in enumerate(numbers):
        new += _adam(rates, roots, *values[4 * place : 4 * place + 4], *shrink, number=number, **options)
    return tuple(new)


ADAM_UPDATE = register(composite("adam_update", _adam_group))


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient (Kingma & Ba 2015), with PyTorch's arithmetic.

        g ← g + weight_decay p
        m ← m + (1 − β₁) (g − m)
        v ← β₂ v + (1 − β₂) g²
        p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)

    t counts the updates of the parameter. The learning rate can be changed at any time: `optimizer.lr = 1e-4`.

    >>> from dualgraph import nn, optim
    >>> w = nn.Parameter([1.0, -1.0])
    >>> adam = optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> adam.step()
    >>> [round(x, 6) for x in w.tolist()]
    [0.9, -0.9]
    """

    SLOTS: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    DECOUPLED: bool = False  # weight decay apart from the gradient

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        name, betas = type(self).__name__, options["betas"]
        checked = super()._checked(options)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ArgumentError(f"{name}: got betas = {shown(betas)}; they are two numbers in [0, 1)").at(here())
        checked["betas"] = tuple(checked_number(name, f"betas[{i}]", beta, below=1.0) for i, beta in enumerate(betas))
        for key in ("eps", "weight_decay"):
            checked[key] = checked_number(name, key, options[key])
        return checked

    def _counted(self, options: Any) -> bool:
        return True

    def update(self, group: Group) -> None:
        present, absent = group.with_gradients()
        if not present:
            return
        (beta1, beta2), decay = group.options["betas"], group.options["weight_decay"]
        assert group.count is not None
        inputs, variables = [group.rate, group.count], [group.count]
        for number, p, g in present:
            m, v = group.state[number].values()
            inputs += (p, g, m, v)
            variables += (p, m, v)
        params = {
            "numbers": tuple([x[0] for x in present]),
            "absent": absent,
            "beta1": beta1,
            "beta2": beta2,
            "eps": group.options["eps"],
            "weight_decay": 0.0 if self.DECOUPLED else decay,
            "decay": decay if self.DECOUPLED else 0.0,
        }
        current().update(ADAM_UPDATE, inputs, variables, params)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019): first p ← (1 − lr weight_decay) p."""

    DECOUPLED = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
