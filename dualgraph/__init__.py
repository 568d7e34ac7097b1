"""dualgraph: one model, two executions, the same bits.

Operations run eagerly by default and are recorded on a tape; `dualgraph.static` compiles the same code as a graph.
"""

from dualgraph import eager
from dualgraph.autodiff import backward, grad
from dualgraph.eager import Tensor, Variable, tensor
from dualgraph.ops import FUNCTIONS as _FUNCTIONS
from dualgraph.ops import enable_grad, is_grad_enabled, no_grad
globals().update(_FUNCTIONS)
