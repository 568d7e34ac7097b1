"""The operations: one definition of each, for both modes, in the words of `dualgraph.core`.

Read in this order: `scalar.py`, `elementwise.py`, `identity.py`, `shape.py`, `symbol.py`, `composite.py`, `callbacks.py`,
`reduce.py`, `statistics.py`, `linalg.py`, `indexing.py`, `sorting.py`, `activations.py`, `losses.py`, `normalization.py`,
`creation.py`, `random.py`. `OPS` lists every op by name, `public.py` every public function.
"""

from dualgraph.ops import public as _public  # noqa: F401  # fills FUNCTIONS
from dualgraph.ops.registry import OPS

__all__ = ["OPS"]
