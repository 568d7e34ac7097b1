"""The operations: one definition of each, for both modes.

Read in this order: `op.py` (Op, Call, bind), `elementwise.py`, `shape.py`, `composite.py`, `reduce.py`, `linalg.py`,
`indexing.py`, `activations.py`, `losses.py`, `creation.py`, `random.py`. `OPS` lists every op by name.
"""

from dualgraph.ops import activations, creation, elementwise, indexing, linalg, losses, random, reduce, shape
from dualgraph.ops.elementwise import OPS
from dualgraph.ops.op import Call, Op, bind, enable_grad, is_grad_enabled, no_grad
from dualgraph.ops.tensor import FUNCTIONS, Tensor

PUBLIC: dict[str, tuple[str, ...]] = {
    "elementwise": (
        "abs", "acos", "add", "asin", "astype", "atan", "atan2", "bitwise_and", "bitwise_invert", "bitwise_left_shift",
        "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "clip", "copysign", "cos", "cosh", "divide", "equal",
        "erf", "exp", "exp2", "expm1", "floor", "floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan",
        "less", "less_equal", "log", "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor",
        "maximum", "minimum", "multiply", "negative", "not_equal", "reciprocal", "remainder", "round", "rsqrt", "sigmoid",
        "sign", "signbit", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "trunc", "where",
    ),
    "shape": (
        "broadcast_arrays", "broadcast_to", "concat", "expand_dims", "flatten", "flip", "full_like",
        "matrix_transpose", "moveaxis", "ones_like", "permute_dims", "reshape", "split", "squeeze", "stack", "swapaxes",
        "zeros_like",
    ),
    "reduce": ("all", "any", "argmax", "argmin", "logsumexp", "max", "mean", "min", "prod", "std", "sum", "var"),
    "linalg": ("linear", "matmul", "outer", "vecdot"),
    "indexing": ("getitem", "one_hot", "take", "take_along_axis"),
    "activations": (
        "elu", "gelu", "leaky_relu", "log_sigmoid", "log_softmax", "relu", "silu", "softmax", "softplus",
        "softsign",
    ),
    "losses": ("cross_entropy", "mse_loss", "nll_loss"),
    "creation": ("arange", "asarray", "eye", "full", "linspace", "ones", "zeros"),
    "random": ("bernoulli", "manual_seed", "rand", "randint", "randn", "uniform"),
}  # fmt: skip

_MODULES = {
    "activations": activations, "creation": creation, "elementwise": elementwise, "indexing": indexing,
    "linalg": linalg, "losses": losses, "random": random, "reduce": reduce, "shape": shape,
}  # fmt: skip

for _module, _names in PUBLIC.items():
    for _name in _names:
        FUNCTIONS[_name] = getattr(_MODULES[_module], _name)
FUNCTIONS["pow"] = FUNCTIONS["power"] = elementwise.power

__all__ = [
    "FUNCTIONS",
    "OPS",
    "PUBLIC",
    "Call",
    "Op",
    "Tensor",
    "bind",
    "enable_grad",
    "is_grad_enabled",
    "no_grad",
]
