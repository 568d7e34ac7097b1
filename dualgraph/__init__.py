"""dualgraph: one model, two executions, the same bits.

Operations run eagerly by default and are recorded on a tape; `dualgraph.static` compiles the same code as a graph.

>>> import dualgraph as dg
>>> x = dg.tensor([[1.0, 2.0]], requires_grad=True)
>>> y = dg.sum(x * x)
>>> y.backward()
>>> x.grad.tolist()
[[2.0, 4.0]]
"""

from dualgraph import startup as _startup  # noqa: F401  # before anything else

# isort: split

import typing as _typing

import numpy as _np

# `name as name`, and all that a star brings, is public to type checkers.
from dualgraph import data as data
from dualgraph import eager as eager
from dualgraph import errors as errors
from dualgraph import nn as nn
from dualgraph import optim as optim
from dualgraph import static as static
from dualgraph.autodiff import backward as backward
from dualgraph.autodiff import grad as grad
from dualgraph.core.mode import enable_grad as enable_grad
from dualgraph.core.mode import is_grad_enabled as is_grad_enabled
from dualgraph.core.mode import no_grad as no_grad
from dualgraph.core.tensor import Tensor as Tensor
from dualgraph.core.value import Variable as Variable
from dualgraph.core.value import tensor as tensor
from dualgraph.eager import Tape as Tape
from dualgraph.kernels.cpu.pool import get_num_threads as get_num_threads
from dualgraph.kernels.cpu.pool import set_num_threads as set_num_threads
from dualgraph.ops.public import *
from dualgraph.spec import Spec as Spec

__version__ = "0.1.0"

bool: _np.dtype[_np.bool_] = _np.dtype("bool")
int32: _np.dtype[_np.int32] = _np.dtype("int32")
int64: _np.dtype[_np.int64] = _np.dtype("int64")
float32: _np.dtype[_np.float32] = _np.dtype("float32")
float64: _np.dtype[_np.float64] = _np.dtype("float64")

if _typing.TYPE_CHECKING:
    bfloat16: _np.dtype[_typing.Any]
else:
    from dualgraph.dtypes import NUMPY_DTYPES as _NUMPY_DTYPES
    from dualgraph.dtypes import STORED as _STORED
    from dualgraph.ops import public as _public

    __all__ = [
        *_public.__all__,
        *"Spec Tape Tensor Variable backward bfloat16 bool data eager enable_grad errors float32 float64".split(),
        *"get_num_threads grad int32 int64 is_grad_enabled nn no_grad optim set_num_threads static tensor".split(),
    ]

    def __getattr__(name: str) -> _typing.Any:
        """Dtypes for which NumPy needs another package, when they are asked for."""
        if name in _STORED:
            return _NUMPY_DTYPES[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
