"""The public operations: what `__all__` of each family lists, which is the only list of them.

Operators and methods of tensors find them in `FUNCTIONS`. Type checkers follow the star imports; a list that is put together they
would not read, so they do not see it.
"""

from typing import TYPE_CHECKING

from dualgraph.core.tensor import FUNCTIONS
from dualgraph.ops.activations import *
from dualgraph.ops.creation import *
from dualgraph.ops.elementwise import *
from dualgraph.ops.indexing import *
from dualgraph.ops.linalg import *
from dualgraph.ops.losses import *
from dualgraph.ops.normalization import *
from dualgraph.ops.random import *
from dualgraph.ops.reduce import *
from dualgraph.ops.shape import *
from dualgraph.ops.sorting import *
from dualgraph.ops.statistics import *

if not TYPE_CHECKING:
    from dualgraph.ops import (
        activations,
        creation,
        elementwise,
        indexing,
        linalg,
        losses,
        normalization,
        random,
        reduce,
        shape,
        sorting,
        statistics,
    )  # fmt: skip

    _FAMILIES = (
        activations,
        creation,
        elementwise,
        indexing,
        linalg,
        losses,
        normalization,
        random,
        reduce,
        shape,
        sorting,
        statistics,
    )
    __all__ = [name for family in _FAMILIES for name in family.__all__]
    FUNCTIONS.update({name: globals()[name] for name in __all__}, getitem=indexing.getitem)
