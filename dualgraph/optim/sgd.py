"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgraph.core.arguments import flag
from dualgraph.core.mode import bind, current
from dualgraph.errors import ArgumentError, here
from dualgraph.ops.composite import composite
from dualgraph.ops.elementwise import add, astype, equal, where
from dualgraph.ops.registry import register
from dualgraph.optim.optimizer import Group, Optimizer, Options, Params, checked_number
from dualgraph.optim.scales import counted


def _sgd(lr: Any, p: Any, g: Any, *, weight_decay: float) -> Any:
    return p - astype(lr, p.dtype) * _decayed(p, g, weight_decay)


def _momentum(
    lr: Any,
    p: Any,
    g: Any,
    buffer: Any,
    *count: Any,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    number: int,
) -> Any:
    g = _decayed(p, g, weight_decay)
    moved = buffer * momentum + g * (1.0 - dampening) if dampening else buffer * momentum + g
    if count:
        moved = where(equal(count[0][number], 1), g, moved)  # the first update is not dampened
    direction = add(g, moved * momentum) if nesterov else moved
    return p - astype(lr, p.dtype) * direction, moved


def _decayed(p: Any, g: Any, weight_decay: float) -> Any:
    return g + p * weight_decay if weight_decay else g


def _sgd_group(lr: Any, *values: Any, weight_decay: float) -> Any:
    half = len(values) // 2
    return tuple([_sgd(lr, p, g, weight_decay=weight_decay) for p, g in zip(values[:half], values[half:], strict=True)])


SGD_UPDATE = register(composite("sgd_update", _sgd_group))
MOMENTUM_UPDATE = register(composite("momentum_update", _momentum))


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for (Sutskever et al. 2013).

        g ← g + weight_decay p
        b ← momentum b + (1 − dampening) g         (b ← g at the first update)
        p ← p − lr (g + momentum b  if nesterov, else b)

    Without momentum, p ← p − lr g. The learning rate can be changed at any time: `optimizer.lr = 0.01`.

    >>> from dualgraph import nn, optim
    >>> w = nn.Parameter([1.0])
    >>> sgd = optim.SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> sgd.step()
    >>> w.tolist()
    [0.5]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        checked = super()._checked(options)
        for key in ("momentum", "dampening", "weight_decay"):
            checked[key] = checked_number("SGD", key, options[key])
        checked["nesterov"] = flag("SGD", "nesterov", options["nesterov"])
        if checked["nesterov"] and (not checked["momentum"] or checked["dampening"]):
            raise ArgumentError(
                f"SGD: got nesterov with momentum = {checked['momentum']} and dampening = {checked['dampening']}; it "
                "needs a momentum above 0 and no dampening"
            ).at(here())
        return checked

    def _slots(self, options: Options) -> Sequence[str]:
        return ("momentum_buffer",) if options["momentum"] else ()

    def _counted(self, options: Options) -> bool:
        return bool(options["momentum"] and options["dampening"])

    def update(self, group: Group) -> None:
        options, rate = group.options, group.rate
        present, absent = group.with_gradients()
        if not present:
            return
        if not options["momentum"]:
            variables = [x[1] for x in present]
            inputs = [rate, *variables, *[x[2] for x in present]]
            current().update(SGD_UPDATE, inputs, variables, {"weight_decay": options["weight_decay"]})
            return
        count: tuple[Any, ...] = ()
        if group.count is not None:
            count = (counted(group.count, absent),)
            group.count.assign(count[0])
        params = {name: options[name] for name in ("momentum", "dampening", "nesterov", "weight_decay")}
        for number, p, g in present:
            buffer = group.state[number]["momentum_buffer"]
            place = number if count else 0
            new, moved = bind(MOMENTUM_UPDATE, rate, p, g, buffer, *count, **params, number=place)
            p.assign(new)
            buffer.assign(moved)
