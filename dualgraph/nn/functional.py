"""The functions behind the layers, by PyTorch's names; axes are called `axis`, as everywhere here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgraph.core.arguments import flag, probability
from dualgraph.core.mode import bind, current
from dualgraph.core.op import Op
from dualgraph.dtypes import DTYPES
from dualgraph.ops.activations import (
    elu,
    gelu,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    relu,
    silu,
    softmax,
    softplus,
)
from dualgraph.ops.composite import composite
from dualgraph.ops.creation import asarray
from dualgraph.ops.elementwise import astype, sigmoid, tanh, where
from dualgraph.ops.indexing import one_hot
from dualgraph.ops.linalg import linear
from dualgraph.ops.losses import cross_entropy, mse_loss, nll_loss
from dualgraph.ops.normalization import layer_norm
from dualgraph.ops.random import bernoulli
from dualgraph.ops.registry import register
from dualgraph.spec import DEFAULT_FLOAT, is_float

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike, Tensor


def _drop(x: Any, keep: Any, scale: Any) -> Any:
    kept = where(keep, x * scale, 0.0)
    return astype(kept, x.layout.dtype) if is_float(x.layout.dtype) else kept


_DROP: Op = register(
    composite("dropout", _drop, (lambda g, out, x, keep, scale: bind(_DROP, g, keep, scale), None, None))
)


def dropout(x: ArrayLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element set to 0 with probability p, the others multiplied by 1 / (1 - p); x itself unless training.

    So the mean stays what it was (Srivastava et al. 2014, in the inverted form). One random draw is made if 0 < p < 1.
    """
    p, training = probability("dropout", p), flag("dropout", "training", training)
    x = asarray(x)
    if not training or p == 0.0:
        return x.reshape(x.shape)  # of a variable its value now
    if p == 1.0:
        return where(False, x, 0.0)  # not x * 0, which keeps infinities and signs
    dtype = x.layout.dtype
    scale = current().constant(1.0 / (1.0 - p), DTYPES[dtype].compute if is_float(dtype) else DEFAULT_FLOAT)
    return bind(_DROP, x, bernoulli(x.shape, 1.0 - p), scale)


__all__ = [
    "cross_entropy",
    "dropout",
    "elu",
    "gelu",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
