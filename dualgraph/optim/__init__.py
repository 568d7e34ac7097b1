"""Optimisers, with PyTorch's names and formulas; a step is operations like any other and runs in both modes.

`optimizer.py` groups and state, `scales.py` the scalars of a step, then `sgd.py` and `adam.py`.
"""

from dualgraph.optim.adam import Adam, AdamW
from dualgraph.optim.optimizer import Optimizer
from dualgraph.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
