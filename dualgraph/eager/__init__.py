"""Dynamic graphs: operations run when they are written, and a tape remembers them.

`tensor.py` the value, `frontend.py` how an operation runs and is recorded, `tape.py` the tape as an object.
"""

from dualgraph.eager.frontend import EAGER, Eager, Plan
from dualgraph.eager.state import DRAW, SEED
from dualgraph.eager.tape import Tape
from dualgraph.eager.tensor import EagerTensor, Variable, tensor

__all__ = ["DRAW", "EAGER", "SEED", "Eager", "EagerTensor", "Plan", "Tape", "Variable", "tensor"]
