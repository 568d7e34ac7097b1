"""Functions that come from outside: how they are called, and what they must give.

A function of the user's is called with as many arguments as its operation has, and what it gives is looked at before
anything is computed from it. So a mistake in it is named where the operation is used, with the same words in both modes;
what the function raises itself is left alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.core.arguments import checked_shape
from dualgraph.errors import ArgumentError, DTypeError, GraphError, ShapeError, Where, shown
from dualgraph.kernels.expr import INSTRUCTIONS, LITERAL, Expr
from dualgraph.spec import Spec, dtype_name


class Callback:
    """A function of the user's with parameters bound by name; `what` it is to the operation `name`."""

    __slots__ = ("_bound", "_checked", "_function", "_params", "name", "what")

    def __init__(self, name: str, what: str, function: Callable[..., Any], params: dict[str, Any] | None = None):
        self.name, self.what = name, what
        self._function, self._params = function, params or {}
        self._bound = functools.partial(function, **params) if params else function
        self._checked: set[int] = set()  # numbers of arguments that it takes

    def __call__(self, *args: Any) -> Any:
        if len(args) not in self._checked:
            self.check(len(args))
        return self._bound(*args)

    def check(self, count: int) -> None:
        """Whether the function takes this many arguments and the parameters, where its signature is known."""
        try:
            signature = inspect.signature(self._function)
        except (TypeError, ValueError):
            self._checked.add(count)
            return
        try:
            signature.bind(*[None] * count, **self._params)
        except TypeError as error:
            got = f"{count} argument{'s' * (count != 1)}"
            if self._params:
                got += f" and the parameters {', '.join(self._params)}"
            raise ArgumentError(
                f"{self.name}: got {got} for its {self.what}, which takes ({_names(signature)}): {error}; let it take what "
                "the operation gets"
            ) from None
        self._checked.add(count)


def _names(signature: inspect.Signature) -> str:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return ", ".join(stars.get(p.kind, "") + p.name for p in signature.parameters.values())


class Rules:
    """Gradient rules: one for each input, or one function that gets the number of the input first."""

    def __init__(self, name: str, vjp: Any, params: dict[str, Any] | None = None):
        self._name = name
        self.vjp: Any = (
            Callback(name, "gradient rule", vjp, params)
            if callable(vjp)
            else tuple(None if rule is None else Callback(name, "gradient rule", rule, params) for rule in vjp)
        )

    def check(self, inputs: int) -> None:
        """None at all, or one for each of this many inputs."""
        if isinstance(self.vjp, tuple) and self.vjp and len(self.vjp) != inputs:
            raise ArgumentError(
                f"{self._name}: got {len(self.vjp)} gradient rules for {inputs} inputs; there must be one for each; pass None "
                "for an input without a gradient"
            )


def expression(callback: Callback) -> Callable[..., Expr]:
    """A scalar expression of the user's, made of the operands that it gets."""

    def made(*operands: Expr) -> Expr:
        found = callback(*operands)
        if not isinstance(found, Expr):
            raise ArgumentError(
                f"{callback.name}: got {shown(found)} from its expression; it must give a scalar expression; combine its "
                "operands with operators, call, select and cast, and make constants with literal(value, dtype)"
            )
        _check_leaves(callback.name, found, operands)
        return found

    return made


def _check_leaves(name: str, result: Expr, operands: tuple[Expr, ...]) -> None:
    """An expression kept from another call stands for other operands."""
    seen = {id(x) for x in operands}
    todo = [result]
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if x.op not in INSTRUCTIONS and x.op != LITERAL:
            raise ArgumentError(
                f"{name}: got an expression with something else than the operands of this call ({x.op}); each call has "
                "operands of its own; build the expression from these alone"
            )
        todo.extend(x.args)


def results(callback: Callback, *inputs: Any) -> Any:
    """What the function of a composite gives: a tensor or a tuple of them."""
    found = callback(*inputs)
    if found.__class__ is tuple and not found:
        raise GraphError(
            f"{callback.name}: got () from the function of a composite operation; it has one result at least; return a "
            "tensor or a tuple of tensors"
        )
    return found


def specs(callback: Callback, *inputs: Any) -> tuple[Spec, ...]:
    """What a spec rule says of the results."""
    found = callback(*inputs)
    listed = (found,) if isinstance(found, Spec) else found
    if not isinstance(listed, tuple) or not listed or not all(isinstance(s, Spec) for s in listed):
        raise ArgumentError(
            f"{callback.name}: got {_spelled(found)} from its spec; it must give the Spec of the result, or a tuple with one "
            "of each; return static.spec(shape, dtype)"
        )
    try:
        return tuple(Spec(checked_shape(callback.name, s.shape), dtype_name(s.dtype)) for s in listed)
    except (ShapeError, DTypeError) as error:
        raise ArgumentError(
            f"{callback.name}: got {_spelled(found)} from its spec; lengths are integers of 0 or more, and dtypes those of "
            f"tensors ({error.args[0]}); return static.spec(shape, dtype)"
        ) from None


def _spelled(found: Any) -> str:
    """A spec as it is, which may be none that can be written as one."""
    if isinstance(found, Spec):
        return f"Spec({shown(found[0])}, {shown(found[1])})"
    if type(found) is tuple and any(isinstance(s, Spec) for s in found):
        return f"({', '.join(_spelled(s) if isinstance(s, Spec) else shown(s) for s in found)})"
    return shown(found)


def arrays(
    name: str, returned: Any, promised: tuple[Spec, ...], where: Where | None
) -> tuple[np.ndarray[Any, Any], ...]:
    """What an external function returned, which must be what its spec said. `where` it was called; None: here."""
    found = returned if isinstance(returned, tuple) else (returned,)
    if len(found) != len(promised):
        raise ArgumentError(
            f"{name}: the function returned {len(found)} results, its spec names {len(promised)}; return a tuple of arrays"
        ).at(where)
    for x, spec in zip(found, promised, strict=True):
        if not isinstance(x, (np.ndarray, np.generic)) or x.shape != spec.shape or x.dtype != spec.dtype:
            got = f"{x.dtype}{list(x.shape)}" if isinstance(x, (np.ndarray, np.generic)) else shown(x)
            raise ArgumentError(
                f"{name}: the function returned {got}, its spec says {spec}; return a NumPy array of that shape and dtype"
            ).at(where)
    return tuple(map(np.asarray, found))


__all__ = ["Callback", "Rules", "arrays", "expression", "results", "specs"]
