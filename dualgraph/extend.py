"""Extending dualgraph: define an operation once, and it runs in both modes.

Three forms, from small to large:

- `elementwise`: one scalar expression; the kernel and every gradient are derived from it.
- `composite`: a function over public operations; one launch in eager mode, opened and fused in static mode. Its
  gradient is derived by differentiating the function, unless a `vjp` is given, which is then obeyed in both modes.
- `external`: a function over NumPy arrays, for what no kernel of dualgraph computes.

A `vjp` is called as `vjp[i](g, out, *inputs, **params)`: `g` is the gradient of the result, the answer that of input i,
written in public operations so that it can be differentiated again. It has the shape of the input, or one that the input
broadcasts to; a tuple of rules has one for each input (None: no gradient), an empty one says that there is no gradient.

What the functions take and return is checked where the operation is used: errors of ours name
the user's line, and what they raise themselves is left alone. An operation is the function that is
returned, its name need not be unique; pickle finds it as it finds any function: by the name, in the module of its definition.

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
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from dualgraph import tree
from dualgraph.core.arguments import flag, integer, text
from dualgraph.core.broadcast import meet
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op, Operand, as_view
from dualgraph.core.tensor import Tensor
from dualgraph.errors import ArgumentError, shown
from dualgraph.exact import exact
from dualgraph.kernels.expr import call, cast, literal, select
from dualgraph.kernels.kinds import External
from dualgraph.kernels.program import Program, View
from dualgraph.kernels.replay import key_of, once
from dualgraph.ops import callbacks
from dualgraph.ops.callbacks import Callback, Rules
from dualgraph.ops.composite import composite as composite_op
from dualgraph.ops.scalar import Expression, elementwise_op
from dualgraph.ops.shape import contiguous
from dualgraph.spec import Spec

if TYPE_CHECKING:
    from dualgraph.core.types import Array, P, Results, Rule

MOST_OPS = 1024  # sets of parameters of one operation
MOST_OPERANDS = 64


def elementwise(
    name: str, expression: Expression, arity: int = 1, vjp: Sequence[Rule | None] | None = None
) -> Callable[..., Tensor]:
    """An operation that applies a scalar expression to each element of its broadcast operands.

    `expression` gets one `kernels.expr.Expr` per operand (all of one dtype) and combines them with operators,
    comparisons and `call`.
    """
    _check(name, {"expression": expression}, vjp)
    arity = integer(name, "arity", arity, 1)
    if arity > MOST_OPERANDS:
        raise ArgumentError(
            f"{name}: got arity = {shown(arity)}; it is at most {MOST_OPERANDS}; combine several operations"
        )
    scalar = Callback(name, "expression", expression)
    scalar.check(arity)
    rules = None if vjp is None else Rules(name, vjp)
    if rules is not None:
        rules.check(arity)
    made = callbacks.expression(scalar)
    op = elementwise_op(name, made, arity, floats=True, vjp=None if rules is None else rules.vjp)
    op = op if rules is None else _with_rules(op)

    def function(*operands: Any) -> Any:
        if len(operands) != arity:
            raise ArgumentError(f"{name}: got {len(operands)} operands; it takes {arity}; pass these")
        return bind(op, *meet(name, operands))

    return _named(function, name, sys._getframe(1), vjp)  # type: ignore[no-any-return]


def composite(
    name: str, function: Callable[P, Results], vjp: Sequence[Rule | None] | Rule | None = None
) -> Callable[P, Results]:
    """An operation computed by `function(*inputs, **params)` over public operations; params must be hashable.

    The function is recorded once for each set of shapes, dtypes and parameters, in both modes: it depends on these alone,
    and what it captures besides are constants.
    """
    _check(name, {"function": function}, vjp)

    def make(params: dict[str, Any]) -> Op:
        recorded = functools.partial(callbacks.results, Callback(name, "function", function, params))
        if vjp is None:
            return composite_op(name, recorded)
        rules = Rules(name, vjp, params)
        return _with_rules(composite_op(name, recorded, rules.vjp, lambda *inputs: rules.check(len(inputs))))

    return _applied(name, make, sys._getframe(1), vjp)  # type: ignore[no-any-return]


@overload
def external(
    name: str,
    function: Callable[..., Array | np.generic],
    spec: Callable[..., Spec],
    vjp: Sequence[Rule | None] | Rule = (),
    pure: bool = False,
) -> Callable[..., Tensor]: ...
@overload
def external(
    name: str,
    function: Callable[..., tuple[Array | np.generic, ...]],
    spec: Callable[..., tuple[Spec, ...]],
    vjp: Sequence[Rule | None] | Rule = (),
    pure: bool = False,
) -> Callable[..., tuple[Tensor, ...]]: ...
def external(
    name: str,
    function: Callable[..., object],
    spec: Callable[..., Spec | tuple[Spec, ...]],
    vjp: Sequence[Rule | None] | Rule = (),
    pure: bool = False,
) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """An operation computed by `function(*arrays, **params)` over NumPy arrays, returning an array or a tuple of them.

    `spec(*specs, **params)` gives shape and dtype of each result, and is asked once for each of what it is given. A static
    graph calls the function between its native segments. `pure`: the result depends on the inputs alone and nothing else
    happens, so that equal calls may be merged and unused ones dropped.
    """
    _check(name, {"function": function, "spec": spec}, vjp)
    pure = flag(name, "pure", pure)

    def make(params: dict[str, Any]) -> Op:
        return _external_op(
            Callback(name, "function", function, params),
            Callback(name, "spec", spec, params),
            Rules(name, vjp, params),
            pure,
        )

    return _applied(name, make, sys._getframe(1), vjp)  # type: ignore[no-any-return]


def _external_op(function: Callback, spec: Callback, rules: Rules, pure: bool) -> Op:
    name = function.name

    def infer(*inputs: Any) -> tuple[Spec, ...]:
        rules.check(len(inputs))
        function.check(len(inputs))
        return callbacks.specs(spec, *inputs)

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        where = program.where

        def run(*arrays: np.ndarray[Any, Any]) -> tuple[Any, ...]:
            return callbacks.arrays(name, function(*arrays), specs, where)

        views = [contiguous(program, as_view(program, x)) for x in operands]
        outs = tuple(program.new(s) for s in specs)
        program.add(External(name, run if pure else once(name, where, key_of(program), run), pure=pure), outs, views)
        return outs

    return _with_rules(Op(name, infer, lower, rules.vjp, literal_scalars=False, pure=pure))


def _with_rules(op: Op) -> Op:
    """Rules of the user's are called by each sweep: they may read what changes, and do more than compute."""
    return replace(op, joint_vjp=False)


def _check(name: Any, functions: dict[str, Any], vjp: Any = None) -> None:
    """The arguments of a definition."""
    text("extend", "the name", name)
    for what, function in functions.items():
        if not callable(function):
            raise ArgumentError(f"{name}: got {what} = {shown(function)}; it must be a function; pass one")
    rules = vjp if isinstance(vjp, (tuple, list)) else ()
    if not (vjp is None or callable(vjp) or isinstance(vjp, (tuple, list))) or any(
        r is not None and not callable(r) for r in rules
    ):
        raise ArgumentError(
            f"{name}: got vjp = {shown(vjp)}; it is a tuple with a function (or None) for each input, or one function that "
            "gets the number of the input first"
        )


def _applied(name: str, make: Callable[[dict[str, Any]], Op], definer: FrameType, rules: Any) -> Any:
    """The public function of an operation: one `Op` for each set of parameters, told apart by name, type and value."""
    ops: dict[Any, Op] = {}

    def apply(*inputs: Any, **params: Any) -> Any:
        key = exact(dict(sorted(params.items())))
        op = ops.get(key)
        if op is None:
            _check_constants(name, params)
            if len(ops) >= MOST_OPS:
                ops.clear()
            op = ops[key] = make(params)
        front = current()
        return front.apply(op, tuple(front.lift(x) for x in inputs), {})

    return _named(apply, name, definer, rules)


def _check_constants(name: str, params: dict[str, Any]) -> None:
    """What may change is no constant, nor is a tensor: its value may be known only when a compiled graph runs."""
    try:
        hash(tuple(params.values()))
    except (TypeError, RecursionError):
        constant = False
    else:
        constant = not any(isinstance(x, Tensor) for x in tree.flatten(params)[0])
    if not constant:
        raise ArgumentError(
            f"{name}: got parameters {shown(params)}; they are hashable constants; pass arrays and tensors as inputs"
        )


def _named(function: Any, name: str, definer: FrameType, rules: Any) -> Any:
    """The function as `def name` in the place of its definition would make it: so it is pickled and copied alike.

    It shows its gradient `rules`, which are called whenever a graph is differentiated.
    """
    function.rules = tuple(rules) if isinstance(rules, list) else rules
    code = definer.f_code
    in_function = code.co_flags & inspect.CO_NEWLOCALS
    place = f"{code.co_qualname}.<locals>" if in_function else definer.f_locals.get("__qualname__", "")  # of a class
    function.__name__ = name
    function.__qualname__ = f"{place}.{name}" if place else name
    function.__module__ = definer.f_globals.get("__name__", "__main__")
    return function


__all__ = ["call", "cast", "composite", "elementwise", "external", "literal", "select"]
