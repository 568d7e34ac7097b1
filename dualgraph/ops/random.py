"""Random numbers: ordinary kernels keyed by (seed, draw number).

The draw number counts random calls in program order and is a variable like any other, so both modes, switched at any
step, go on with the same numbers. See `kernels.random` for the generator.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import numpy as np

from dualgraph.errors import ArgumentError
from dualgraph.kernels import expr as E
from dualgraph.kernels import random as philox
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, View
from dualgraph.ops.creation import asarray, checked_shape
from dualgraph.ops.elementwise import OPS
from dualgraph.ops.op import Op, Operand, as_view, bind
from dualgraph.ops.tensor import TensorMethods
from dualgraph.spec import DEFAULT_FLOAT, Spec, dtype_name, is_float

_lock = threading.Lock()
_state: list[Any] = []  # the variables (seed, draw), put here by the mode that owns variables


def set_state(seed: Any, draw: Any) -> None:
    """Name the variables that hold the seed and the draw number."""
    _state[:] = [seed, draw]


def _next() -> tuple[Any, Any]:
    """The key of one draw; the counter moves on."""
    seed, draw = _state
    with _lock:
        number = draw + 0  # the value now, before the counter moves
        draw.assign(draw + 1)
    return seed, number


def manual_seed(seed: int) -> None:
    """Start the random numbers anew from a seed (an integer of 64 bits), in both modes.

    >>> import dualgraph as dg
    >>> dg.manual_seed(0)
    >>> x = dg.rand(3)
    >>> dg.manual_seed(0)
    >>> x.tolist() == dg.rand(3).tolist()
    True
    """
    try:
        number = index(seed)
    except TypeError:
        raise ArgumentError(f"manual_seed: got {seed!r}; a seed is an integer of 64 bits; pass an int") from None
    if not -(2**63) <= number < 2**63:
        raise ArgumentError(f"manual_seed: got {seed}; a seed has 64 bits; take it modulo 2**63")
    _state[0].assign(asarray(np.array(int(number))))
    _state[1].assign(asarray(np.array(0)))


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

    OPS[name] = Op(
        name, lambda *specs, shape, dtype: Spec(shape, dtype), lower, (None,) * (2 + arity), literal_scalars=False
    )
    return OPS[name]


_UNIFORM = _random_op("uniform", lambda seed, draw, *, dtype: philox.uniform(seed, draw, dtype), 0)
_NORMAL = _random_op("normal", lambda seed, draw, *, dtype: philox.normal(seed, draw, dtype), 0)
_BERNOULLI = _random_op("bernoulli", lambda seed, draw, p, *, dtype: philox.bernoulli(seed, draw, p), 1)
_INTEGERS = _random_op("integers", lambda seed, draw, low, high, *, dtype: philox.integers(seed, draw, low, high), 2)


def _float_dtype(name: str, dtype: Any) -> str:
    found = dtype_name(dtype)
    if not is_float(found):
        raise ArgumentError(
            f"{name}: got dtype {found}; random floats are float32 or float64; use randint for integers"
        )
    return found


def rand(shape: int | Sequence[int], *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """Uniform on [0, 1): 24 random bits for float32, 53 for float64, so that each value is exact.

    >>> import dualgraph as dg
    >>> x = dg.rand((2, 3))
    >>> x.shape, dg.all((x >= 0) & (x < 1)).item()
    ((2, 3), True)
    """
    params = {"shape": checked_shape("rand", shape), "dtype": _float_dtype("rand", dtype)}  # before the counter moves
    return bind(_UNIFORM, *_next(), **params)


def uniform(shape: int | Sequence[int], low: float = 0.0, high: float = 1.0, *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """Uniform on [low, high): low + (high - low) * u, u as from `rand`.

    >>> import dualgraph as dg
    >>> x = dg.uniform(100, -1.0, 1.0)
    >>> dg.all(dg.abs(x) <= 1).item()
    True
    """
    return rand(shape, dtype=dtype) * (high - low) + low


def randn(shape: int | Sequence[int], *, dtype: Any = DEFAULT_FLOAT) -> Any:
    """Normal with mean 0 and variance 1 (Box & Muller 1958); float32 or float64.

    >>> import dualgraph as dg
    >>> dg.randn((2, 3)).shape
    (2, 3)
    """
    params = {"shape": checked_shape("randn", shape), "dtype": _float_dtype("randn", dtype)}
    return bind(_NORMAL, *_next(), **params)


def bernoulli(shape: int | Sequence[int], p: float, *, dtype: Any = "bool") -> Any:
    """True (1 in another dtype) with probability p, in [0, 1]. Raises `ArgumentError`.

    >>> import dualgraph as dg
    >>> dg.bernoulli(3, 1.0).tolist()
    [True, True, True]
    """
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"bernoulli: got p = {p}; a probability lies in [0, 1]")
    params = {"shape": checked_shape("bernoulli", shape), "dtype": dtype_name(dtype)}
    return bind(_BERNOULLI, *_next(), asarray(np.array(p, np.float32)), **params)


def randint(shape: int | Sequence[int], low: int, high: int, *, dtype: Any = "int64") -> Any:
    """Integers uniform on [low, high), int64 unless another dtype is given. Raises `ArgumentError` unless low < high.

    >>> import dualgraph as dg
    >>> dg.randint(3, 5, 6).tolist()
    [5, 5, 5]
    """
    params = {"shape": checked_shape("randint", shape), "dtype": dtype_name(dtype)}
    try:
        first, last = index(low), index(high)
    except TypeError:
        raise ArgumentError(
            f"randint: got low = {_shown(low)} and high = {_shown(high)}; both are integers, and the shape comes before "
            "them; write randint(shape, low, high)"
        ) from None
    if not -(2**63) <= first < last < 2**63:
        raise ArgumentError(
            f"randint: got low = {first} and high = {last}; low must be below high and both must fit in 64 bits; "
            "write randint(shape, low, high)"
        )
    bounds = (asarray(np.array(first)), asarray(np.array(last)))
    return bind(_INTEGERS, *_next(), *bounds, **params)


def _shown(value: Any) -> str:
    """A value in words that are the same in both modes."""
    return f"a tensor of {value.spec}" if isinstance(value, TensorMethods) else repr(value)


__all__ = ["bernoulli", "manual_seed", "rand", "randint", "randn", "uniform"]
