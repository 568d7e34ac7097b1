"""Random numbers: ordinary kernels keyed by (seed, draw number).

The draw number counts random calls in program order and is a variable like any other, so both modes, switched at any
step, go on with the same numbers. See `kernels.random` for the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.core.arguments import checked_shape, integer, probability, real
from dualgraph.core.mode import bind
from dualgraph.core.op import ADDRESSABLE, Op, Operand, as_view, specs_of
from dualgraph.core.value import Variable
from dualgraph.dtypes import DTYPES, FLOATS, NUMPY_DTYPES
from dualgraph.errors import ArgumentError, DTypeError, shown
from dualgraph.kernels import expr as E
from dualgraph.kernels import random as philox
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.locks import lock
from dualgraph.ops.creation import asarray
from dualgraph.ops.elementwise import minimum
from dualgraph.ops.registry import register
from dualgraph.spec import DEFAULT_FLOAT, DEFAULT_INTEGER, Shape, Spec, dtype_name, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import DTypeLike, Params, ShapeLike, Tensor

_lock = lock()
# The state that belongs to no model.
SEED = Variable(np.zeros((), np.int64), name="random.seed")
DRAW = Variable(np.zeros((), np.int64), name="random.draw")


def _next() -> tuple[Tensor, Tensor]:
    """The key of one draw; the counter moves on."""
    with _lock:
        number = DRAW + 0  # the value now, before the counter moves
        DRAW.assign(DRAW + 1)
    return SEED, number


def manual_seed(seed: int) -> None:
    """Start the random numbers anew from a seed (an integer of 64 bits), in both modes.

    >>> import dualgraph as dg
    >>> dg.manual_seed(0)
    >>> x = dg.rand(3)
    >>> dg.manual_seed(0)
    >>> x.tolist() == dg.rand(3).tolist()
    True
    """
    number = integer("manual_seed", "seed", seed)
    if not -(2**63) <= number < 2**63:
        raise ArgumentError(f"manual_seed: got {shown(number)}; a seed has 64 bits; take it modulo 2**63")
    SEED.assign(asarray(np.array(number)))
    DRAW.assign(asarray(np.array(0)))


def _random_op(name: str, expression: Callable[..., E.Expr], arity: int) -> Op:
    """`expression(seed, draw, *operands, dtype)` for every element of a shape."""

    def lower(
        program: Program, operands: tuple[Operand, ...], specs: tuple[Spec, ...], params: dict[str, Any]
    ) -> tuple[View, ...]:
        views = [as_view(program, x) for x in operands]
        (spec,) = specs
        leaves = [E.input(i, v.dtype) for i, v in enumerate(views)]
        code, results = E.linearise([E.cast(expression(*leaves, dtype=spec.dtype), spec.dtype)])
        out = program.new(spec)
        loop = Loop(code, results, tuple(v.dtype for v in views), (False,) * len(views))
        program.add(loop, (out,), tuple(v.broadcast_to(spec.shape) for v in views), spec.shape)
        return (out,)

    return register(
        Op(name, lambda *specs, shape, dtype: Spec(shape, dtype), lower, (None,) * (2 + arity), literal_scalars=False)
    )


_UNIFORM = _random_op("uniform", lambda seed, draw, *, dtype: philox.uniform(seed, draw, dtype), 0)
_NORMAL = _random_op("normal", lambda seed, draw, *, dtype: philox.normal(seed, draw, dtype), 0)
_BERNOULLI = _random_op("bernoulli", lambda seed, draw, p, *, dtype: philox.bernoulli(seed, draw, p), 1)
_INTEGERS = _random_op("integers", lambda seed, draw, low, high, *, dtype: philox.integers(seed, draw, low, high), 2)


def _float_dtype(name: str, dtype: Any) -> str:
    found = dtype_name(dtype, DEFAULT_FLOAT)
    if not is_float(found):
        raise ArgumentError(
            f"{name}: got dtype {found}; random floats are {', '.join(FLOATS)}; use randint for integers"
        )
    return found


def rand(shape: ShapeLike, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """Uniform on [0, 1): 24 random bits for float32, 53 for float64, 8 for bfloat16, so that each value is exact.

    >>> import dualgraph as dg
    >>> x = dg.rand((2, 3))
    >>> x.shape, dg.all((x >= 0) & (x < 1)).item()
    ((2, 3), True)
    """
    return _rand("rand", shape, dtype)


def _rand(name: str, shape: Any, dtype: Any) -> Tensor:
    return _draw(_UNIFORM, checked_shape(name, shape), _float_dtype(name, dtype))


def _draw(op: Op, shape: Shape, dtype: str, *operands: Any) -> Tensor:
    """One draw, of a size that is checked before the counter moves."""
    params: Params = {"shape": shape, "dtype": dtype}
    if math.prod(shape) > ADDRESSABLE // 8:
        specs_of(op, (), params)
    return bind(op, *_next(), *operands, **params)


def uniform(shape: ShapeLike, low: float = 0.0, high: float = 1.0, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """Uniform on [low, high): low + (high - low) * u, u as from `rand`; what rounds to high becomes the number before it.

    >>> import dualgraph as dg
    >>> x = dg.uniform(100, -1.0, 1.0)
    >>> dg.all(dg.abs(x) <= 1).item()
    True
    """
    first, last = real("uniform", "low", low, finite=True), real("uniform", "high", high, finite=True)
    if first > last:
        raise ArgumentError(
            f"uniform: got low = {shown(low)} and high = {shown(high)}; low must not be above high; exchange them"
        )
    kind = NUMPY_DTYPES[_float_dtype("uniform", dtype)].type
    with np.errstate(over="ignore"):
        within = bool(np.isfinite(kind(last) - kind(first)))
        if not np.isfinite([kind(first), kind(last)]).all():
            raise ArgumentError(
                f"uniform: got the ends {shown(low)} and {shown(high)} for {np.dtype(kind)}; both must be finite in it"
            )
        below = float(np.nextafter(kind(last), kind(first)))
    u = _rand("uniform", shape, dtype)
    values = u * (last - first) + first if within else u * last + (1.0 - u) * first
    return minimum(values, below) if first < last else values


def randn(shape: ShapeLike, *, dtype: DTypeLike = DEFAULT_FLOAT) -> Tensor:
    """Normal with mean 0 and variance 1 (Box & Muller 1958), in a dtype of floats.

    >>> import dualgraph as dg
    >>> dg.randn((2, 3)).shape
    (2, 3)
    """
    return _draw(_NORMAL, checked_shape("randn", shape), _float_dtype("randn", dtype))


def bernoulli(shape: ShapeLike, p: float, *, dtype: DTypeLike = "bool") -> Tensor:
    """True (1 in another dtype) with probability p, in [0, 1]. Raises `ArgumentError`.

    >>> import dualgraph as dg
    >>> dg.bernoulli(3, 1.0).tolist()
    [True, True, True]
    """
    p = probability("bernoulli", p)
    lengths, name = checked_shape("bernoulli", shape), dtype_name(dtype, "bool")
    return _draw(_BERNOULLI, lengths, name, asarray(np.array(p, np.float32)))


def randint(shape: ShapeLike, low: int, high: int, *, dtype: DTypeLike = "int64") -> Tensor:
    """Integers uniform on [low, high), int64 unless another dtype is given. Raises `ArgumentError` unless low < high.

    >>> import dualgraph as dg
    >>> dg.randint(3, 5, 6).tolist()
    [5, 5, 5]
    """
    lengths, name = checked_shape("randint", shape), dtype_name(dtype, DEFAULT_INTEGER)
    first, last = (
        integer("randint", what, n, hint="write randint(shape, low, high)")
        for what, n in (("low", low), ("high", high))
    )
    if not -(2**63) <= first < last < 2**63:
        raise ArgumentError(
            f"randint: got low = {shown(first)} and high = {shown(last)}; low must be below high and both must fit in 64 "
            "bits; write randint(shape, low, high)"
        )
    least, most = DTYPES[name].integers
    if not least <= first < last <= most + 1:
        raise DTypeError(
            f"randint: got low = {first} and high = {last} for {name}, which holds the integers {least} to {most}; use a wider "
            "dtype"
        )
    return _draw(_INTEGERS, lengths, name, asarray(np.array(first)), asarray(np.array(last)))


__all__ = [
    "bernoulli",
    "manual_seed",
    "rand",
    "randint",
    "randn",
    "uniform",
]
