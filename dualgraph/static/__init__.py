"""Static graphs: define, differentiate, optimise, fuse, plan memory, generate, then run.

`graph.py` defining, `compile.py` tracing functions, `dataflow.py`, `passes.py` and `algebra.py` optimising, `lowering.py`
kernel steps, `pipeline.py` all stages in order, `feeds.py` arguments, `executable.py` running, `verify.py` checking,
`report.py` explaining.
"""

from dualgraph.spec import Spec
from dualgraph.static.compile import Compiled, Jitted, compile, jit, spec, trace
from dualgraph.static.executable import Executable
from dualgraph.static.graph import Graph, gradients, placeholder
from dualgraph.static.passes import PASSES

__all__ = [
    "PASSES", "Compiled", "Executable", "Graph", "Jitted", "Spec", "compile", "gradients", "jit", "placeholder", "spec",
    "trace",
]  # fmt: skip
