"""The operations: one definition of each, for both modes, in the words of `dualgraph.core`.

Read in this order: `scalar.py`, `elementwise.py`, `shape.py`, `composite.py`, `reduce.py`,
`statistics.py`, `linalg.py`, `indexing.py`, `activations.py`, `losses.py`, `creation.py`, `random.py`. `OPS` lists every op
by name, `public.py` every public function.
"""

from dualgraph.ops import public as _public  # noqa: F401  # fills FUNCTIONS
from dualgraph.ops.registry import OPS

__all__ = ["OPS"]
