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
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dualgraph import autodiff
from dualgraph.errors import ArgumentError, here, shown
from dualgraph.exact import exact
from dualgraph.kernels.expr import call, cast, literal, select
from dualgraph.kernels.kinds import External
from dualgraph.kernels.program import Program, View
from dualgraph.ops.arguments import flag, integer
from dualgraph.ops.broadcast import meet
from dualgraph.ops.composite import composite as composite_op
from dualgraph.ops.elementwise import Expression, elementwise_op
from dualgraph.ops.op import Op, Operand, Vjp, as_specs, as_view, bind, current, within
from dualgraph.ops.shape import contiguous
from dualgraph.ops.symbol import Symbol
from dualgraph.spec import Spec, is_float

MOST_OPS = 1024  # sets of parameters of one operation


def elementwise(name: str, expression: Expression, arity: int = 1, vjp: tuple[Vjp | None, ...] | None = None) -> Any:
    """An operation that applies a scalar expression to each element of its broadcast operands.

    `expression` gets one `kernels.expr.Expr` per operand (all of one dtype) and combines them with operators and `call`.
    """
    _check(name, {"expression": expression}, vjp)
    arity = integer(name, "arity", arity, 1)
    op = replace(elementwise_op(name, expression, arity, floats=True, vjp=vjp), joint_vjp=vjp is None)

    def function(*operands: Any) -> Any:
        if len(operands) != arity:
            raise TypeError(f"{name}() takes {arity} operands, got {len(operands)}")
        return bind(op, *meet(name, operands))

    return _named(function, name)


def composite(name: str, function: Callable[..., Any], vjp: tuple[Vjp | None, ...] | Vjp | None = None) -> Any:
    """An operation computed by `function(*inputs, **params)` over public operations; params must be hashable.

    The function is recorded once for each set of shapes, dtypes and parameters, in both modes: it depends on these alone,
    and what it captures besides are constants.
    """
    _check(name, {"function": function}, vjp)

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
    _check(name, {"function": function, "spec": spec}, vjp)
    pure = flag(name, "pure", pure)

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
            return _results(name, function(*arrays), specs)

        views = [contiguous(program, as_view(program, x)) for x in operands]
        outs = tuple(program.new(s) for s in specs)
        program.add(External(name, run), outs, views)
        return outs

    return Op(
        name, lambda *specs: as_specs(spec(*specs)), lower, vjp, literal_scalars=False, pure=pure, joint_vjp=False
    )


def _results(name: str, returned: Any, specs: tuple[Spec, ...]) -> tuple[np.ndarray[Any, Any], ...]:
    """What an external function returned, which must be what its spec said."""
    results = returned if isinstance(returned, tuple) else (returned,)
    if len(results) != len(specs):
        raise ArgumentError(
            f"{name}: the function returned {len(results)} results, its spec names {len(specs)}; return a tuple of arrays"
        ).at(here())
    arrays = []
    for x, spec in zip(results, specs, strict=True):
        if not isinstance(x, (np.ndarray, np.generic)) or x.shape != spec.shape or x.dtype != spec.dtype:
            got = f"{x.dtype}{list(x.shape)}" if isinstance(x, (np.ndarray, np.generic)) else shown(x)
            raise ArgumentError(
                f"{name}: the function returned {got}, its spec says {spec}; return a NumPy array of that shape and dtype"
            ).at(here())
        arrays.append(np.asarray(x))
    return tuple(arrays)


def _check(name: Any, functions: dict[str, Any], vjp: Any = None) -> None:
    """The arguments of a definition."""
    if not isinstance(name, str):
        raise ArgumentError(f"extend: got the name {shown(name)}; a name is a string; pass one").at(here())
    for what, function in functions.items():
        if not callable(function):
            raise ArgumentError(f"{name}: got {what} = {shown(function)}; it must be a function; pass one").at(here())
    rules = vjp if isinstance(vjp, (tuple, list)) else ()
    if not (vjp is None or callable(vjp) or isinstance(vjp, (tuple, list))) or any(
        r is not None and not callable(r) for r in rules
    ):
        raise ArgumentError(
            f"{name}: got vjp = {shown(vjp)}; it is a tuple with a function (or None) for each input, or one function that "
            "gets the number of the input first"
        ).at(here())


def _applied(name: str, make: Callable[[dict[str, Any]], Op]) -> Any:
    """The public function of an operation: one `Op` for each set of parameters, told apart by name, type and value."""
    ops: dict[Any, Op] = {}

    def apply(*inputs: Any, **params: Any) -> Any:
        try:
            hash(tuple(params.values()))  # what may change is no constant
        except TypeError:
            raise ArgumentError(
                f"{name}: got parameters {shown(params)}; they are hashable constants; pass arrays and tensors as inputs"
            ).at(here(2)) from None
        key = exact(dict(sorted(params.items())))
        op = ops.get(key)
        if op is None:
            if len(ops) >= MOST_OPS:
                ops.clear()
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

        def differentiated() -> Any:
            out = function(*leaves, **params)
            outs = [current().lift(o) for o in (out if isinstance(out, tuple) else (out,))]
            pairs = [(o, g) for o, g in zip(outs, gradients, strict=True) if o.tracked]
            return autodiff.grad(
                [o for o, _ in pairs], [leaves[number]], [g for _, g in pairs], create_graph=True, allow_unused=True
            )[0]

        return within(current().with_grad(True), differentiated)

    return gradient


def _leaf(x: Symbol) -> Symbol:
    """A symbol as a leaf to differentiate with respect to."""
    return Symbol(x.recorder, x.node, x.index, is_float(x.layout.dtype), leaf=True)


__all__ = ["call", "cast", "composite", "elementwise", "external", "literal", "select"]
