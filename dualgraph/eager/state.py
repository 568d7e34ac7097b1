"""The state that belongs to no model: the seed of the random numbers and the count of draws made from it."""

from __future__ import annotations

import numpy as np

from dualgraph.eager.tensor import Variable
from dualgraph.ops.random import set_state

SEED = Variable(np.zeros((), np.int64), name="random.seed")
DRAW = Variable(np.zeros((), np.int64), name="random.draw")

set_state(SEED, DRAW)
