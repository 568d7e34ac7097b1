"""Data from outside as arrays of a supported dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgraph.errors import DTypeError, ShapeError
from dualgraph.ops.tensor import TensorMethods
from dualgraph.spec import DEFAULT_FLOAT, NUMPY_DTYPES, dtype_name

Array = np.ndarray[Any, Any]


def as_array(data: Any, dtype: Any = None) -> Array:
    """Data as a fresh C-contiguous array of a supported dtype; Python floats become float32."""
    if dtype is not None:
        name = dtype_name(dtype)
        return np.array(as_array(data), dtype=NUMPY_DTYPES[name], order="C")
    if isinstance(data, (list, tuple)) and _holds_tensors(data):
        data = _plain(data)
    try:
        array = np.array(data, order="C")
    except ValueError as error:
        raise ShapeError(f"tensor: got nested data of uneven lengths ({error}); rows must be equally long") from None
    if array.dtype == np.float64 and not isinstance(data, (np.ndarray, np.generic)):
        array = array.astype(NUMPY_DTYPES[DEFAULT_FLOAT])
    if array.dtype.name not in NUMPY_DTYPES or not array.dtype.isnative:
        raise DTypeError(
            f"tensor: got data of {array.dtype} ({type(data).__name__}); supported are {', '.join(NUMPY_DTYPES)}; "
            "convert it with numpy's astype first"
        )
    return array


def _holds_tensors(data: Any) -> bool:
    return any(isinstance(x, TensorMethods) or (isinstance(x, (list, tuple)) and _holds_tensors(x)) for x in data)


def _plain(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_plain(x) for x in data]
    return data.tolist() if isinstance(data, TensorMethods) else data  # type: ignore[attr-defined]
