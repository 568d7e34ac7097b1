"""Extending dualgraph: define an operation once, and it runs in both modes.

Three forms, from small to large:

- `elementwise`: one scalar expression; the kernel and every gradient are derived from it.
- `composite`: a function over public operations; one launch in eager mode, part of the fused step in static mode. Its
  gradient is derived by differentiating the function, unless a `vjp` is given, which is then obeyed in both modes.
- `external`: a function over NumPy arrays, for what no kernel of dualgraph computes.

A `vjp` is called as `vjp[i](g, out, *inputs, **params)`: `g` is the gradient of the result, the answer that of input i,
written in public operations so that it can be differentiated again.

>>> import dualgraph as dg
>>> from dualgraph import extend
>>> softsign = extend.elementwise("softsign", lambda x: x / (extend.call("abs", x) + 1.0))
>>> x = dg.tensor([1.0, -3.0], requires_grad=True)
>>> dg.sum(softsign(x)).backward()
>>> x.grad.tolist()
[0.25, 0.0625]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dualgraph import autodiff
from dualgraph.errors import ArgumentError, here
from dualgraph.kernels.expr import call, cast, literal, select
from dualgraph.kernels.kinds import External
from dualgraph.kernels.program import Program, View
from dualgraph.ops.broadcast import meet
from dualgraph.ops.composite import composite as composite_op
from dualgraph.ops.elementwise import Expression, elementwise_op
from dualgraph.ops.op import Op, Operand, Vjp, as_specs, as_view, bind, current, using
from dualgraph.ops.shape import contiguous
from dualgraph.ops.symbol import Symbol
from dualgraph.spec import Spec, is_float


def elementwise(name: str, expression: Expression, arity: int = 1, vjp: tuple[Vjp | None, ...] | None = None) -> Any:
    """An operation that applies a scalar expression to each element of its broadcast operands.

    `expression` gets one `kernels.expr.Expr` per operand (all of one dtype) and combines them with operators and `call`.
    """
    op = replace(elementwise_op(name, expression, arity, floats=True, vjp=vjp), joint_vjp=vjp is None)

    def function(*operands: Any) -> Any:
        if len(operands) != arity:
            raise TypeError(f"{name}() takes {arity} operands, got {len(operands)}")
        return bind(op, *meet(name, operands))

    return _named(function, name)


def composite(name: str, function: Callable[..., Any], vjp: tuple[Vjp | None, ...] | Vjp | None = None) -> Any:
    """An operation computed by `function(*inputs, **params)` over public operations; params must be hashable."""

    def make(params: dict[str, Any]) -> Op:
        bound = functools.partial(function, **params)
        if vjp is None:
            return composite_op(name, bound, _derived(name, bound))
        return replace(composite_op(name, bound, _bound_vjp(vjp, params)), joint_vjp=False)

    return _applied(name, make)


def external(
    name: str,
    function: Callable[..., Any],
    spec: Callable[..., Spec | tuple[Spec, ...]],
    vjp: tuple[Vjp | None, ...] | Vjp = (),
    pure: bool = False,
) -> Any:
    """An operation computed by `function(*arrays, **params)` over NumPy arrays, returning an array or a tuple of them.

    `spec(*specs, **params)` gives shape and dtype of each result. A static graph calls the function between its native
    segments. `pure`: the result depends on the inputs alone and nothing else happens, so that equal calls may be merged
    and unused ones dropped.
    """

    def make(params: dict[str, Any]) -> Op:
        bound = functools.partial(function, **params)
        rule = functools.partial(spec, **params)
        return _external_op(name, bound, rule, _bound_vjp(vjp, params), pure)

    return _applied(name, make)


def _external_op(name: str, function: Callable[..., Any], spec: Callable[..., Any], vjp: Any, pure: bool) -> Op:
    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        def run(*arrays: np.ndarray[Any, Any]) -> tuple[Any, ...]:
            results = function(*arrays)
            return results if isinstance(results, tuple) else (results,)

        views = [contiguous(program, as_view(program, x)) for x in operands]
        outs = tuple(program.new(s) for s in specs)
        program.add(External(name, run), outs, views)
        return outs

    return Op(
        name, lambda *specs: as_specs(spec(*specs)), lower, vjp, literal_scalars=False, pure=pure, joint_vjp=False
    )


def _applied(name: str, make: Callable[[dict[str, Any]], Op]) -> Any:
    """The public function of an operation: one `Op` for each set of parameters, told apart by name, type and value."""
    ops: dict[Any, Op] = {}

    def apply(*inputs: Any, **params: Any) -> Any:
        key = tuple((k, type(v), repr(v) if isinstance(v, float) else v) for k, v in sorted(params.items()))
        try:
            op = ops.get(key)
        except TypeError:
            raise ArgumentError(
                f"{name}: got parameters {params}; parameters are hashable constants; pass arrays and tensors as inputs"
            ).at(here(2)) from None
        if op is None:
            op = ops[key] = make(params)
        front = current()
        return front.apply(op, tuple(front.lift(x) for x in inputs), {})

    return _named(apply, name)


def _bound_vjp(vjp: Any, params: dict[str, Any]) -> Any:
    """Gradient rules that get the parameters of the operation by name."""
    if callable(vjp):
        return functools.partial(vjp, **params)
    return tuple(rule and functools.partial(rule, **params) for rule in vjp)


def _named(function: Any, name: str) -> Any:
    function.__name__ = function.__qualname__ = name
    return function


def _derived(name: str, function: Callable[..., Any]) -> Vjp:
    """The gradient of a composite as composites, one for each input, made when first needed."""
    rules: dict[tuple[int, int], Op] = {}

    def vjp(number: int, g: Any, out: Any, *inputs: Any, **params: Any) -> Any:
        if not is_float(inputs[number].layout[1]):
            return None
        gradients = g if isinstance(g, tuple) else (g,)
        key = (number, len(gradients))
        if key not in rules:
            pullback = _pullback(function, *key)
            rules[key] = composite_op(f"{name}_vjp{number}", pullback, _derived(f"{name}_vjp{number}", pullback))
        return bind(rules[key], *gradients, *inputs, **params)

    return vjp


def _pullback(function: Callable[..., Any], number: int, count: int) -> Callable[..., Any]:
    def gradient(*operands: Any, **params: Any) -> Any:
        gradients, inputs = operands[:count], operands[count:]
        leaves = [_leaf(x) for x in inputs]
        with using(current().with_grad(True)):
            out = function(*leaves, **params)
            outs: Sequence[Any] = out if isinstance(out, tuple) else (out,)
            pairs = [(o, g) for o, g in zip(outs, gradients, strict=True) if o.requires_grad]
            return autodiff.grad(
                [o for o, _ in pairs], [leaves[number]], [g for _, g in pairs], create_graph=True, allow_unused=True
            )[0]

    return gradient


def _leaf(x: Symbol) -> Symbol:
    """A symbol as a leaf to differentiate with respect to."""
    return Symbol(x.recorder, x.node, x.index, is_float(x.layout.dtype), leaf=True)


__all__ = ["call", "cast", "composite", "elementwise", "external", "literal", "select"]
