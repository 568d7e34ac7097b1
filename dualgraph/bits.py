"""What equal bits are: same shape, same dtype, same bytes. Signed zeros differ, and so do NaNs of other bits.

No comparison needs more: every NaN that is computed has the same bits, and copies keep theirs (`kernels.nan`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def same_bits(x: Array, y: Array) -> bool:
    """Same shape, dtype and bytes."""
    return x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()


def differing(x: Array, y: Array) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The positions, in row-major order, at which two arrays of one shape and dtype differ in a bit."""
    as_bytes = [np.ascontiguousarray(a).reshape(-1, 1).view(np.uint8) for a in (x, y)]
    return np.flatnonzero((as_bytes[0] != as_bytes[1]).any(axis=1))


__all__ = ["differing", "same_bits"]
