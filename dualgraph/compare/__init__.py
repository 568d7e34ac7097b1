"""The comparison of the two modes: are they equal, how fast is each, why, and from which step on compiling pays.

`workloads.py` what is trained, `arms.py` one workload in one mode, `identity.py` equal bits, `timing.py` interleaved
rounds, `first_step.py` the one-off cost, `memory.py` peaks, `recording.py` what eager mode runs, `attribution.py` where
the time goes, `accuracy.py` training to the end, `environment.py` the machine, `measure.py` all of it for a workload,
`report.py` the record, `drawing.py` graphs as text. Nothing is timed that was not found equal in the same run.
"""

from dualgraph.compare.identity import Difference, check_workload
from dualgraph.compare.measure import measure_workload
from dualgraph.compare.report import SCHEMA_VERSION, Report
from dualgraph.compare.workloads import WORKLOADS, Instance, Workload, find

__all__ = [
    "SCHEMA_VERSION",
    "WORKLOADS",
    "Difference",
    "Instance",
    "Report",
    "Workload",
    "check_workload",
    "find",
    "measure_workload",
]
