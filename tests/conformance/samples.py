"""Sample inputs of every registered op: one visible table, from which the conformance tests are generated.

A row names the op, gives the public function, the operands, and the same thing in NumPy. Adding an op means adding a row:
`test_every_op_has_samples` names those that lack one.

Operands are written as `domain:shape`, such as `"real:3,4"`; see `DOMAINS`. `reference` gets arrays; floats come to it in
a wider dtype than the op computed in.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualgraph as dg
from dualgraph.core.mode import bind
from dualgraph.dtypes import converted
from dualgraph.ops import OPS
from dualgraph.ops.indexing import in_range

Array = np.ndarray[Any, Any]
WIDE: dict[str, Any] = {"float32": np.float64, "float64": np.longdouble}

DOMAINS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    # floats, in the dtype under test
    "real": lambda rng, s: rng.uniform(-3, 3, s),
    "positive": lambda rng, s: rng.uniform(0.2, 3, s),
    "unit": lambda rng, s: rng.uniform(-0.9, 0.9, s),
    "apart": lambda rng, s: rng.permutation(int(np.prod(s))).reshape(s) / 3 - 1,  # no ties
    "ties": lambda rng, s: rng.integers(-1, 2, s) / 2,
    "away": lambda rng, s: rng.choice([-1, 1], s) * rng.uniform(0.5, 3, s),  # not near zero
    # others, as they are
    "int": lambda rng, s: rng.integers(-9, 10, s),
    "count": lambda rng, s: rng.integers(0, 5, s),
    "index": lambda rng, s: rng.integers(-3, 3, s),  # valid for axes of length 3 and more
    "label": lambda rng, s: rng.integers(0, 3, s),
    "bool": lambda rng, s: rng.integers(0, 2, s).astype(bool),
}
FLOAT_DOMAINS = ("real", "positive", "unit", "apart", "ties", "away")
INTEGER_DOMAINS = ("int", "count", "index", "label")


@dataclass(frozen=True, eq=False)
class Sample:
    """A call of one op. `name` tells several samples of an op apart."""

    op: str
    function: Callable[..., Any]
    operands: tuple[str, ...]
    reference: Callable[..., Any] | None = None
    ulp: float = 0.0  # distance from the reference in the result's dtype; 0 demands the rounded value itself
    near: float = 0.0  # instead of ulp, where sums are involved: distance relative to the largest element
    smooth: bool = True  # finite differences make sense
    name: str = ""

    def __repr__(self) -> str:
        return self.name or self.op

    @property
    def has_floats(self) -> bool:
        return any(o.split(":")[0] in FLOAT_DOMAINS for o in self.operands)

    def arrays(self, dtype: str = "float32", integer: str = "int64") -> list[Array]:
        """The operands, the same at every call."""
        rng = np.random.default_rng(zlib.crc32(repr(self).encode()))
        found = []
        for operand in self.operands:
            domain, shape = operand.split(":")
            array = DOMAINS[domain](rng, tuple(int(n) for n in shape.split(",") if n))
            to = dtype if domain in FLOAT_DOMAINS else integer if domain in INTEGER_DOMAINS else "bool"
            found.append(converted(np.asarray(array), to))
        return found

    def expected(self, arrays: list[Array], dtype: str) -> Any:
        """What NumPy says, in a wider dtype where there is one."""
        assert self.reference is not None
        with np.errstate(all="ignore"):
            return self.reference(*(a.astype(WIDE[dtype]) if a.dtype.kind == "f" else a for a in arrays))


def unary(op: str, reference: Any, domain: str = "real", ulp: float = 0.0, **options: Any) -> Sample:
    return Sample(op, getattr(dg, op, None) or options.pop("function"), (f"{domain}:3,4",), reference, ulp, **options)


def binary(op: str, reference: Any, x: str = "real", y: str = "real", ulp: float = 0.0, **options: Any) -> Sample:
    function = options.pop("function", None) or getattr(dg, op)
    return Sample(op, function, (f"{x}:3,4", f"{y}:4"), reference, ulp, **options)


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _minimum(x: Array, y: Array) -> Array:
    """NumPy leaves open which zero it returns; IEEE 754-2019 does not: -0 < +0."""
    return np.where((x == 0) & (y == 0), np.where(np.signbit(x), x, y), np.minimum(x, y))


def _softmax(x: Array, axis: Any) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _cross_entropy(x: Array, labels: Array) -> Array:
    return -np.log(_softmax(x, 1))[np.arange(len(x)), labels]


def _layer_norm(x: Array, weight: Any, bias: Any, axes: Any = -1, eps: float = 1e-5) -> Array:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def _scatter(g: Array, index: Array) -> Array:
    out = np.zeros((4, 2), g.dtype)
    np.add.at(out, index, g)
    return out


def _scatter_along(g: Array, index: Array) -> Array:
    out = np.zeros((3, 5), g.dtype)
    np.add.at(out, (np.arange(3)[:, None], index), g)
    return out


def _window(x: Array) -> Array:
    out = np.zeros((7, 4), x.dtype)
    out[5::-2, 1:3] = x
    return out


MOMENTUM: dict[str, Any] = {"momentum": 0.5, "dampening": 0.25, "nesterov": True, "weight_decay": 0.5, "number": 0}
SCALES: dict[str, Any] = {"absent": (), "beta1": 0.5, "beta2": 0.75, "decay": 0.0}
ADAM: dict[str, Any] = {
    "numbers": (0,),
    "absent": (),
    "beta1": 0.5,
    "beta2": 0.75,
    "eps": 0.5,
    "weight_decay": 0.25,
    "decay": 0.0,
}


def _momentum(lr: Any, p: Array, g: Array, buffer: Array) -> list[Any]:
    g = g + 0.5 * p
    moved = 0.5 * buffer + 0.75 * g
    return [p - lr * (g + 0.5 * moved), moved]


def _extreme(g: Array, x: Array) -> Array:
    hit = x == x.max(1, keepdims=True)
    return np.where(hit, g / hit.sum(1, keepdims=True), 0)


def _adam_scales(lr: Any, count: Array) -> list[Any]:
    t = (count + 1).astype(np.float64)
    return [count + 1, lr / (1 - 0.5**t), np.sqrt(1 - 0.75**t)]


def _adam(lr: Any, count: Array, p: Array, g: Array, m: Array, v: Array) -> list[Any]:
    count, rate, root = _adam_scales(lr, count)
    g = g + 0.25 * p
    m, v = m + (g - m) * 0.5, v * 0.75 + g * g * 0.25
    return [count, p - rate * m / (np.sqrt(v) / root + 0.5), m, v]


LOSS_ROWS = ("real:5,3", "label:5")
MATH = 2.0  # ULP, the promise of the mathematical functions

SAMPLES: tuple[Sample, ...] = (
    # arithmetic
    binary("add", np.add), binary("subtract", np.subtract), binary("multiply", np.multiply),
    binary("divide", np.divide, y="away"), binary("floor_divide", np.floor_divide, y="away"),
    binary("remainder", np.remainder, y="away", ulp=1.0),
    binary("pow", np.power, x="positive", ulp=MATH),
    binary("pow", lambda x, y: x**2, function=lambda x, y: dg.power(x, 2.0) + 0 * y, ulp=1.0, name="pow-2"),
    binary("pow", lambda x, y: x**3, function=lambda x, y: dg.power(x, 3) + 0 * y, ulp=MATH, name="pow-3"),
    binary("minimum", _minimum), binary("maximum", lambda x, y: -_minimum(-x, -y)), binary("copysign", np.copysign),
    binary("atan2", np.arctan2, ulp=MATH), unary("negative", np.negative), unary("abs", np.abs), unary("sign", np.sign),
    unary("square", np.square), unary("reciprocal", np.reciprocal, "away"),
    unary("floor", np.floor), unary("ceil", np.ceil), unary("round", np.rint), unary("trunc", np.trunc),
    binary("hypot", np.hypot, ulp=MATH),
    # functions
    unary("sqrt", np.sqrt, "positive"), unary("rsqrt", lambda x: 1 / np.sqrt(x), "positive", MATH),
    unary("exp", np.exp, ulp=MATH), unary("exp2", np.exp2, ulp=MATH), unary("expm1", np.expm1, ulp=MATH),
    unary("log", np.log, "positive", MATH), unary("log2", np.log2, "positive", MATH),
    unary("log10", np.log10, "positive", MATH), unary("log1p", np.log1p, "positive", MATH),
    unary("sin", np.sin, ulp=MATH), unary("cos", np.cos, ulp=MATH), unary("tan", np.tan, "unit", ulp=MATH),
    unary("asin", np.arcsin, "unit", MATH), unary("acos", np.arccos, "unit", MATH), unary("atan", np.arctan, ulp=MATH),
    unary("sinh", np.sinh, ulp=MATH), unary("cosh", np.cosh, ulp=MATH), unary("tanh", np.tanh, ulp=MATH),
    unary("sigmoid", lambda x: 1 / (1 + np.exp(-x)), ulp=MATH), unary("erf", _erf, ulp=MATH),
    # comparison, logic, bits
    binary("equal", np.equal, "ties", "ties", smooth=False), binary("not_equal", np.not_equal, "ties", "ties", smooth=False),
    binary("less", np.less, "ties", "ties", smooth=False), binary("less_equal", np.less_equal, "ties", "ties", smooth=False),
    binary("greater", np.greater, "ties", "ties", smooth=False),
    binary("greater_equal", np.greater_equal, "ties", "ties", smooth=False),
    binary("logical_and", np.logical_and, "ties", "ties", smooth=False),
    binary("logical_or", np.logical_or, "bool", "bool"), binary("logical_xor", np.logical_xor, "int", "int"),
    unary("logical_not", np.logical_not, "ties", smooth=False),
    unary("isnan", np.isnan), unary("isinf", np.isinf), unary("isfinite", np.isfinite), unary("signbit", np.signbit),
    binary("bitwise_and", np.bitwise_and, "int", "int"), binary("bitwise_or", np.bitwise_or, "int", "int"),
    binary("bitwise_xor", np.bitwise_xor, "int", "int"), unary("bitwise_invert", np.invert, "int"),
    binary("bitwise_left_shift", np.left_shift, "int", "count"),
    binary("bitwise_right_shift", np.right_shift, "int", "count"),
    Sample("where", dg.where, ("bool:3,1", "real:3,4", "real:4"), np.where),
    Sample("astype", lambda x: dg.astype(x, "int32"), ("real:3,4",), lambda x: x.astype(np.int32), name="astype-int32"),
    Sample("astype", lambda x: dg.astype(dg.astype(x, "float64"), "float32"), ("real:3,4",), lambda x: x, 1.0, smooth=False,
           name="astype-float"),
    Sample("astype", lambda x: dg.astype(x, "float64") * 0.5, ("int:3,4",), lambda x: x * 0.5, name="astype-from-int"),
    # shapes
    Sample("reshape", lambda x: dg.reshape(x, (4, -1)), ("real:2,3,2",), lambda x: x.reshape(4, 3)),
    Sample("permute_dims", lambda x: dg.permute_dims(x, (2, 0, 1)), ("real:2,3,2",), lambda x: x.transpose(2, 0, 1)),
    Sample("broadcast_to", lambda x: dg.broadcast_to(x, (2, 3, 4)), ("real:3,1",), lambda x: np.broadcast_to(x, (2, 3, 4))),
    Sample("slice", lambda x: x[4:0:-2, 1], ("real:5,3",), lambda x: x[4:0:-2, 1]),
    Sample("slice", lambda x: [x[1:3], x[0:2]], ("real:4,3",), lambda x: [x[1:3], x[0:2]], name="slice-overlap"),
    Sample("embed", lambda x: bind(OPS["embed"], x, shape=(7, 4), window=((5, -2, 3), (1, 1, 2))), ("real:3,2",), _window),
    Sample("concat", lambda *xs: dg.concat(xs, axis=1), ("real:2,3", "real:2,1", "real:2,0"),
           lambda *xs: np.concatenate(xs, 1)),
    Sample("full", lambda: dg.full((2, 3), 1.5), (), lambda: np.full((2, 3), 1.5)),
    # limits
    binary("clip_min", lambda x, low: np.where((x >= low) | np.isnan(x), x, low), function=lambda x, y: dg.clip(x, min=y)),
    binary("clip_max", lambda x, high: np.where((x <= high) | np.isnan(x), x, high), function=lambda x, y: dg.clip(x, max=y)),
    # reductions
    Sample("sum", lambda x: dg.sum(x, axis=1), ("real:3,40,2",), lambda x: x.sum(1), near=1e-6),
    Sample("sum", lambda x: dg.sum(x, axis=(0, 2), keepdims=True), ("real:3,5,4",), lambda x: x.sum((0, 2), keepdims=True),
           near=1e-6, name="sum-apart"),
    Sample("sum", dg.sum, ("real:7",), np.sum, near=1e-6, name="sum-all"),
    Sample("sum", lambda x: dg.sum(x, axis=0), ("bool:5,3",), lambda x: x.sum(0), name="sum-bool"),
    Sample("prod", lambda x: dg.prod(x, axis=1), ("away:3,5",), lambda x: x.prod(1), near=1e-6),
    Sample("prod", lambda x: dg.prod(x, axis=0), ("int:4,3",), lambda x: x.prod(0), name="prod-int"),
    Sample("max", lambda x: dg.max(x, axis=1), ("apart:3,5",), lambda x: x.max(1)),
    Sample("max", lambda x: dg.max(x, axis=0, keepdims=True), ("ties:4,3",), lambda x: x.max(0, keepdims=True), smooth=False,
           name="max-ties"),
    Sample("min", lambda x: dg.min(x, axis=(0, 1)), ("apart:3,5",), np.min),
    Sample("any", lambda x: dg.any(x, axis=1), ("bool:4,3",), lambda x: x.any(1)),
    Sample("all", lambda x: dg.all(x, axis=0, keepdims=True), ("bool:4,3",), lambda x: x.all(0, keepdims=True)),
    Sample("count_nonzero", lambda x: dg.count_nonzero(x, axis=1), ("ties:4,5",), lambda x: np.count_nonzero(x, 1), smooth=False),
    Sample("mean", lambda x: dg.mean(x, axis=0), ("real:6,5",), lambda x: x.mean(0), near=1e-6),
    Sample("var", lambda x: dg.var(x, axis=1, correction=1.0), ("real:3,9",), lambda x: x.var(1, ddof=1), near=1e-5),
    Sample("std", lambda x: dg.std(x, axis=(0, 1)), ("real:3,9",), lambda x: x.std(), near=1e-5),
    Sample("logsumexp", lambda x: dg.logsumexp(x, axis=1), ("real:3,5",), lambda x: np.log(np.exp(x).sum(1)), near=1e-6),
    Sample("argmax", lambda x: dg.argmax(x, axis=1), ("ties:4,5",), lambda x: x.argmax(1), smooth=False),
    Sample("argmin", dg.argmin, ("ties:4,5",), np.argmin, smooth=False),
    # activations
    unary("relu", lambda x: np.where(x <= 0, 0, x), "away"), unary("silu", lambda x: x / (1 + np.exp(-x)), ulp=4.0),
    unary("softplus", lambda x: np.logaddexp(x, 0), ulp=4.0),
    unary("softsign", lambda x: x / (1 + np.abs(x)), ulp=1.0),
    unary("log_sigmoid", lambda x: 0 - np.logaddexp(-x, 0), ulp=4.0),
    binary("elu", lambda x, a: np.where(x > 0, x, a * np.expm1(np.where(x > 0, 0, x))), y="away", ulp=MATH + 1),
    unary("gelu", lambda x: x * 0.5 * (1 + _erf(x * math.sqrt(0.5))), near=1e-6),
    Sample("gelu_tanh", lambda x: dg.gelu(x, approximate="tanh"), ("real:3,4",),
           lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), near=1e-6),
    Sample("softmax", lambda x: dg.softmax(x, axis=0), ("real:4,3",), lambda x: _softmax(x, 0), near=1e-6),
    Sample("softmax", lambda x: dg.softmax(x, axis=-1), ("real:2,4,3",), lambda x: _softmax(x, -1), near=1e-6,
           name="softmax-last"),
    Sample("log_softmax", lambda x: dg.log_softmax(x, axis=1), ("real:4,3",), lambda x: np.log(_softmax(x, 1)), near=1e-6),
    # indexing
    Sample("arange", lambda: dg.arange(1, 10, 3), (), lambda: np.arange(1, 10, 3)),
    Sample("linspace", lambda: dg.linspace(-1.0, 2.0, num=7), (), lambda: np.linspace(-1, 2, 7)),
    Sample("take", lambda x, i: dg.take(x, i, axis=1), ("real:2,5,3", "index:2,2"), lambda x, i: np.take(x, i, 1)),
    Sample("take", lambda x, i: x[i], ("real:3", "index:6"), lambda x, i: x[i], name="take-duplicates"),
    Sample("scatter_add", lambda g, i: bind(OPS["scatter_add"], g, i, axis=0, shape=(4, 2)), ("real:6,2", "index:6"),
           _scatter, near=1e-6),
    Sample("take_along_axis", lambda x, i: dg.take_along_axis(x, i, axis=1), ("real:3,5", "index:3,2"),
           lambda x, i: np.take_along_axis(x, i, 1)),
    Sample("scatter_add_along_axis", lambda g, i: bind(OPS["scatter_add_along_axis"], g, i, axis=1, shape=(3, 5)),
           ("real:3,6", "index:3,6"), _scatter_along, near=1e-6),
    Sample("in_range", lambda i: in_range(i, 3), ("label:5",), lambda i: i),
    Sample("one_hot", lambda i: dg.one_hot(i, 4, dtype="float32"), ("label:2,3",), lambda i: np.eye(4)[i]),
    Sample("argsort", lambda x: dg.argsort(x, axis=0), ("ties:6,3",), lambda x: np.argsort(x, 0, kind="stable"), smooth=False),
    Sample("argsort", lambda x: dg.argsort(x, descending=True), ("int:3,9",), lambda x: np.argsort(-x, kind="stable"),
           name="argsort-descending"),
    Sample("argsort", lambda x: dg.sort(x, axis=0), ("apart:6,3",), lambda x: np.sort(x, 0), name="sort"),
    Sample("argsort", lambda x: dg.sort(x, axis=1, descending=True), ("apart:2,5,3",), lambda x: -np.sort(-x, 1),
           name="sort-descending"),
    # products
    Sample("matmul", dg.matmul, ("real:3,4", "real:4,5"), np.matmul, near=1e-6),
    Sample("matmul", lambda x, y: dg.matmul(x.mT, y), ("real:2,4,3", "real:4,5"),
           lambda x, y: np.matmul(x.swapaxes(-1, -2), y), near=1e-6, name="matmul-batched"),
    Sample("matmul", dg.matmul, ("real:4", "real:4,5"), np.matmul, near=1e-6, name="matmul-vector"),
    Sample("matmul", dg.matmul, ("int:3,4", "int:4,2"), np.matmul, name="matmul-int"),
    Sample("linear", dg.linear, ("real:5,4", "real:3,4", "real:3"), lambda x, w, b: x @ w.T + b, near=1e-6),
    Sample("linear", dg.linear, ("real:2,5,4", "real:3,4"), lambda x, w: x @ w.T, near=1e-6, name="linear-rank-3"),
    # losses
    Sample("cross_entropy", dg.cross_entropy, LOSS_ROWS, lambda x, y: _cross_entropy(x, y).mean(), near=1e-6),
    Sample("cross_entropy", lambda x, y: dg.cross_entropy(x, y, "none"), LOSS_ROWS, _cross_entropy, near=1e-6,
           name="cross_entropy-none"),
    Sample("nll_loss", dg.nll_loss, LOSS_ROWS, lambda x, y: -x[np.arange(5), y].mean(), near=1e-6),
    Sample("mse_loss", dg.mse_loss, ("real:3,4", "real:3,4"), lambda x, y: ((x - y) ** 2).mean(), near=1e-6),
    Sample("mse_loss", lambda x, y: dg.mse_loss(x, y, "sum"), ("real:3,4", "real:3,4"), lambda x, y: ((x - y) ** 2).sum(),
           near=1e-6, name="mse_loss-sum"),
    # normalisation
    Sample("layer_norm", lambda x, w, b: dg.layer_norm(x, 5, w, b), ("real:2,3,5", "away:5", "real:5"), _layer_norm, near=1e-5),
    Sample("layer_norm", lambda x: dg.layer_norm(x, (3, 4), eps=0.1), ("real:2,3,4",),
           lambda x: _layer_norm(x, 1, 0, (1, 2), 0.1), near=1e-5, name="layer_norm-plain"),
    # internal: gradients that are ops, dropout, the optimisers' updates
    Sample("identity", lambda x: bind(OPS["identity"], x), ("real:3,4",), lambda x: x),
    Sample("extreme_vjp", lambda g, x: bind(OPS["extreme_vjp"], g, dg.max(x, axis=1, keepdims=True), x, axes=(1,)),
           ("real:3,1", "ties:3,4"), _extreme, ulp=0.5, smooth=False),
    Sample("prod_vjp", lambda g, x: bind(OPS["prod_vjp"], g, x, axes=(1,)), ("real:3,1", "away:3,4"),
           lambda g, x: g * x.prod(1, keepdims=True) / x, near=1e-6),
    Sample("mean_vjp", lambda g: bind(OPS["mean_vjp"], g, count=3), ("real:3,1",), lambda g: g / 3, ulp=0.5),
    Sample("var_vjp", lambda g, x: bind(OPS["var_vjp"], g, x, axes=(1,), correction=1.0), ("real:3,1", "real:3,4"),
           lambda g, x: g * 2 / 3 * (x - x.mean(1, keepdims=True)), near=1e-6),
    Sample("dropout", lambda x, keep: bind(OPS["dropout"], x, keep, dg.full((), 1.5, dtype=x.dtype)), ("real:3,4", "bool:3,4"),
           lambda x, keep: np.where(keep, x * 1.5, 0)),
    Sample("sgd_update", lambda lr, p, g: bind(OPS["sgd_update"], lr, p, g, weight_decay=0.5),
           ("positive:", "real:3,4", "real:3,4"), lambda lr, p, g: p - lr * (g + 0.5 * p), near=1e-6),
    Sample("momentum_update", lambda *xs: list(bind(OPS["momentum_update"], *xs, **MOMENTUM)),
           ("positive:", "real:3,4", "real:3,4", "real:3,4"), _momentum, near=1e-6),
    Sample("counted", lambda count: bind(OPS["counted"], count, absent=(1,)), ("count:3",), lambda n: np.add(n, [1, 0, 1])),
    Sample("adam_scales", lambda lr, count: list(bind(OPS["adam_scales"], lr, count, **SCALES)), ("positive:", "count:3"),
           _adam_scales, near=1e-6),
    Sample("adam_update", lambda *xs: list(bind(OPS["adam_update"], *xs, **ADAM)),
           ("positive:", "count:1", "real:3,4", "real:3,4", "real:3,4", "positive:3,4"), _adam, near=1e-6),
    # random numbers: the reference is the other provider and the other mode
    Sample("uniform", lambda: dg.rand((5, 3)), ()), Sample("normal", lambda: dg.randn((7,), dtype="float64"), ()),
    Sample("bernoulli", lambda: dg.bernoulli((9,), 0.3), ()), Sample("integers", lambda: dg.randint((4, 3), -5, 100), ()),
)  # fmt: skip

# Elementwise ops by the public function: every layout, shape and special value goes through them.
ELEMENTWISE = tuple(s for s in SAMPLES if OPS[s.op].scalar is not None and not s.name)
FLOATING = tuple(s for s in SAMPLES if s.has_floats)


def missing(registered: Any) -> list[str]:
    """Ops without a sample."""
    return sorted(set(registered) - {s.op for s in SAMPLES})
