"""Models: modules with parameters, by PyTorch's names, written against operations only; they run in both modes.

`parameter.py` the learnt variable, `module.py` the tree, then `containers.py`, `layers.py`, `activations.py` and
`losses.py`; `functional.py` the functions behind them, `init.py` the first values.
"""

from dualgraph.nn import functional, init
from dualgraph.nn.activations import (
    ELU,
    GELU,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from dualgraph.nn.containers import ModuleDict, ModuleList, Sequential
from dualgraph.nn.layers import Dropout, Flatten, LayerNorm, Linear
from dualgraph.nn.losses import CrossEntropyLoss, MSELoss, NLLLoss
from dualgraph.nn.module import Module
from dualgraph.nn.parameter import Parameter

__all__ = [
    "ELU",
    "GELU",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
]
