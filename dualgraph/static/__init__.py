"""Static graphs: define, differentiate, optimise, fuse, plan memory, generate, then run.

`graph.py` defining, `tracing.py` functions written down as graphs, `guards.py` what that depended on, `compile.py` and
`jitted.py` for one signature and for each, `dag.py` and `kernel_dag.py` what a graph is, `passes.py`, `rewriter.py` and
`algebra.py` optimising, `lowering.py` kernel steps, `schedule.py` their order, `pipeline.py` all stages one after the
other, `feeds.py` arguments, `executable.py` running, `verify.py` and `retrace.py` checking, `report.py` and `export.py` showing.
"""

from dualgraph.spec import Spec
from dualgraph.static.compile import Compiled, compile
from dualgraph.static.executable import Executable
from dualgraph.static.graph import Graph, gradients, placeholder
from dualgraph.static.jitted import Jitted, jit
from dualgraph.static.passes import PASSES, Pass
from dualgraph.static.rewriter import Rewriter
from dualgraph.static.tracing import spec, trace

__all__ = [
    "PASSES", "Compiled", "Executable", "Graph", "Jitted", "Pass", "Rewriter", "Spec", "compile", "gradients", "jit",
    "placeholder", "spec", "trace",
]  # fmt: skip
