"""Dynamic graphs: operations run when they are written, and a tape remembers them.

`frontend.py` how an operation runs and is recorded, `tape.py` the tape as an object.
"""

from dualgraph.eager.frontend import EAGER, PREPARED, Eager, Prepared
from dualgraph.eager.tape import Tape

__all__ = ["EAGER", "PREPARED", "Eager", "Prepared", "Tape"]
