"""The operations: one definition of each, for both modes.

Read in this order: `op.py` (Op, Call, bind), `scalar.py`, `elementwise.py`, `shape.py`, `composite.py`, `reduce.py`,
`statistics.py`, `linalg.py`, `indexing.py`, `activations.py`, `losses.py`, `creation.py`, `random.py`. `OPS` lists every op
by name, `public.py` every public function.
"""

from dualgraph.ops import public as _public  # noqa: F401  # fills FUNCTIONS
from dualgraph.ops.op import Call, Op, bind, enable_grad, is_grad_enabled, no_grad
from dualgraph.ops.registry import OPS
from dualgraph.ops.tensor import FUNCTIONS, Tensor

__all__ = [
    "FUNCTIONS",
    "OPS",
    "Call",
    "Op",
    "Tensor",
    "bind",
    "enable_grad",
    "is_grad_enabled",
    "no_grad",
]
