"""Rewrite rules: each a named function whose docstring states the equation.

An *exact* rule holds for every float, signed zeros, infinities and NaN included: a rule that drops a computation fires
only where what is left was computed itself (`provenance`). The others hold for real numbers, and run only at level "fast".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualgraph.core.op import Call
from dualgraph.dtypes import converted, scalar_array, widened
from dualgraph.kernels.expr import literal_array, literal_bits
from dualgraph.ops.registry import OPS
from dualgraph.ops.shape import FILL
from dualgraph.ops.symbol import Symbol, literal_of
from dualgraph.spec import is_float
from dualgraph.static.rewriter import Rewriter

Result = "Symbol | None"


def is_literal(x: Symbol, value: float) -> bool:
    """Is x a scalar constant of exactly this value (zeros by their sign)?"""
    found = literal_of(x.node)
    if found is None or (isinstance(value, float) and not is_float(found[1])):  # no integer is -0.0
        return False
    return found[0] == literal_bits(value, found[1])


def _unchanged(call: Call, x: Symbol) -> Symbol | None:
    """x, if it has the shape and dtype that the call would give."""
    return x if x.layout == call.specs[0] else None


def _computed(rw: Rewriter, call: Call, x: Symbol) -> Symbol | None:
    """x, if it is already what the call would compute, also where it is NaN."""
    return x if x.layout == call.specs[0] and rw.provenance.is_computed(x) else None


def times_one(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x * 1 → x, 1 * x → x, for computed x"""
    if call.op is OPS["multiply"]:
        for x, y in (inputs, inputs[::-1]):
            if is_literal(y, 1):
                return _computed(rw, call, x)
    return None


def over_one(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x / 1 → x, for computed x"""
    return _computed(rw, call, inputs[0]) if call.op is OPS["divide"] and is_literal(inputs[1], 1) else None


def minus_zero(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x - (+0) → x, for computed x: also for x = -0"""
    return _computed(rw, call, inputs[0]) if call.op is OPS["subtract"] and is_literal(inputs[1], 0) else None


def plus_negative_zero(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x + (-0) → x, for computed x: also for x = +0, where x + (+0) → x would be wrong for x = -0"""
    if call.op is OPS["add"] and is_float(call.specs[0].dtype):
        for x, y in (inputs, inputs[::-1]):
            if is_literal(y, -0.0):
                return _computed(rw, call, x)
    return None


def double_negation(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """-(-x) → x, for computed x"""
    inner = inputs[0].node if inputs else None
    if call.op is OPS["negative"] and inner is not None and inner.op is call.op:
        return _computed(rw, call, inner.inputs[0])
    return None


def same_extreme(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """max(x, x) → x, min(x, x) → x, for computed x"""
    if call.op in (OPS["maximum"], OPS["minimum"]) and _same(*inputs):
        return _computed(rw, call, inputs[0])
    return None


def same_choice(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """where(c, x, x) → x, for any x: it copies"""
    return _unchanged(call, inputs[1]) if call.op is OPS["where"] and _same(*inputs[1:]) else None


def reshape_of_reshape(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """reshape(reshape(x, s), t) → reshape(x, t), and x where t is its own shape"""
    inner = inputs[0].node if inputs else None
    if call.op is not OPS["reshape"] or inner is None or inner.op is not call.op:
        return None
    (x,) = inner.inputs
    return x if x.layout == call.specs[0] else rw.emit(call, call.op, (x,), call.specs[0], **call.params)


def permute_of_permute(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """permute_dims(permute_dims(x, a), b) → permute_dims(x, a[b]), and x where that is the identity"""
    inner = inputs[0].node if inputs else None
    if call.op is not OPS["permute_dims"] or inner is None or inner.op is not call.op:
        return None
    axes = tuple(inner.params["axes"][a] for a in call.params["axes"])
    (x,) = inner.inputs
    return x if axes == tuple(range(len(axes))) else rw.emit(call, call.op, (x,), call.specs[0], axes=axes)


def fill_is_a_scalar(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """f(x, full(shape, c)) → f(x, c) for elementwise f, where x has the result's shape already"""
    if call.op.scalar is None or not any(x.node.op is FILL and x.shape for x in inputs):
        return None
    if not any(x.shape == call.specs[0].shape and x.node.op is not FILL for x in inputs):
        return None
    new = []
    for x in inputs:
        if x.node.op is FILL and x.shape:
            (x,) = x.node.inputs
        new.append(x)
    return rw.emit(call, call.op, tuple(new), call.specs[0], **call.params)


def plus_zero(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x + 0 → x: wrong for x = -0, which becomes +0"""
    if call.op is OPS["add"]:
        for x, y in (inputs, inputs[::-1]):
            if is_literal(y, 0):
                return _unchanged(call, x)
    return None


def times_zero(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x * 0 → 0: wrong for infinities, NaN and the sign of zero"""
    if call.op is OPS["multiply"] and any(is_literal(x, 0) for x in inputs):
        return _filled(rw, call, 0)
    return None


def minus_itself(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x - x → 0: wrong for infinities and NaN"""
    if call.op is OPS["subtract"] and _same(*inputs):
        return _filled(rw, call, 0)
    return None


def over_itself(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x / x → 1: wrong for zeros, infinities and NaN"""
    if call.op is OPS["divide"] and _same(*inputs):
        return _filled(rw, call, 1)
    return None


def over_constant(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """x / c → x * (1/c): rounds twice unless c is a power of two"""
    literal = literal_of(inputs[1].node) if call.op is OPS["divide"] else None
    if literal is None or literal[1] != inputs[0].layout.dtype or not is_float(literal[1]):
        return None
    c = widened(literal_array(*literal))
    if c == 0:
        return None
    inverse = rw.constant(call, converted(np.asarray(1 / c, c.dtype), literal[1]))
    return rw.emit(call, OPS["multiply"], (inputs[0], inverse), call.specs[0])


def log_of_exp(rw: Rewriter, call: Call, inputs: tuple[Symbol, ...]) -> Symbol | None:
    """log(exp(x)) → x: wrong where exp overflows or underflows"""
    inner = inputs[0].node if inputs else None
    if call.op is OPS["log"] and inner is not None and inner.op is OPS["exp"]:
        return _unchanged(call, inner.inputs[0])
    return None


def _filled(rw: Rewriter, call: Call, value: int) -> Symbol:
    """The result of a call as one number everywhere."""
    spec = call.specs[0]
    filled = rw.constant(call, scalar_array(value, spec.dtype))
    return rw.emit(call, FILL, (filled,), spec, shape=spec.shape)


def _same(x: Symbol, y: Symbol) -> bool:
    return x.node is y.node and x.index == y.index


Rewrite = Callable[[Rewriter, Call, tuple[Any, ...]], Any]

EXACT: tuple[Rewrite, ...] = (
    times_one,
    over_one,
    minus_zero,
    plus_negative_zero,
    double_negation,
    same_extreme,
    same_choice,
    reshape_of_reshape,
    permute_of_permute,
    fill_is_a_scalar,
)
REASSOCIATING: tuple[Rewrite, ...] = (
    plus_zero,
    times_zero,
    minus_itself,
    over_itself,
    over_constant,
    log_of_exp,
)
