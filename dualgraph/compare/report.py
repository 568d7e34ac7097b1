"""The record of a comparison: what `dualgraph compare --json` writes.

`schema` is the version of this form. A field may be added in the same version; one that changes or goes raises it. All
times are seconds, all sizes bytes; null means not measured, and for a break-even step "never". The classes below are
the objects of the JSON document, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class IdentityRecord:
    """Eager mode against another execution: bits of outputs, gradients, parameters, optimiser state, random numbers."""

    equal: bool
    steps: int
    compared: int  # arrays
    digest: str  # SHA-256 of all arrays as eager mode had them
    difference: str | None  # the first place where they differ


@dataclass(frozen=True)
class Arm:
    """One mode of a workload. Times are of a steady step: the median over the rounds."""

    step: float
    quartiles: tuple[float, float]
    kernels_alone: float  # the kernels of a step, and the memory of their results, without any Python around them
    python: float  # step - kernels_alone: dispatch, tape, sweep; in static mode: taking feeds and giving results
    calls: int  # from Python into native code, per step
    kernels: int  # run by them
    flops: int
    bytes: int  # of operands and results of all kernels
    working_memory: int  # peak of a step besides parameters and optimiser state
    arena: int | None = None  # static: scratch memory, known before the run
    arena_lower_bound: int | None = None  # no plan for this order of kernels needs less


@dataclass(frozen=True)
class RatioRecord:
    """Step time eager / static, paired by round, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    faster: str  # "static", "eager" or "same" (the interval holds 1)


@dataclass(frozen=True)
class PassesRecord:
    """A static arm with some of the passes: what they give."""

    label: str  # "none", "graph passes", "fusion", "all" (the default), "fast" (with passes that may change bits)
    passes: tuple[str, ...]
    step: float
    kernels: int
    arena: int
    ulp: int  # the largest distance of a result of one step from that of the graph as defined; 0 for exact passes
    ratio: RatioRecord  # against eager mode


@dataclass(frozen=True)
class AccuracyRecord:
    """A whole training in both modes."""

    epochs: int
    steps: int
    eager: float
    static: float
    equal: bool  # bits of parameters, optimiser state, and scores of held-out examples
    seconds: Mapping[str, float]  # mode -> the whole training


@dataclass(frozen=True)
class WorkloadRecord:
    """A workload. Where `identical` is false nothing was timed, and everything below `identity` is null."""

    summary: str
    identical: bool
    identity: Mapping[str, IdentityRecord]
    rounds: int | None = None
    steps_per_sample: int | None = None
    arms: Mapping[str, Arm] | None = None  # "eager", "static"
    ratio: RatioRecord | None = None
    first_step: Mapping[str, Mapping[str, Mapping[str, float]]] | None = (
        None  # cache -> mode -> stage -> seconds; see `first_step`
    )
    break_even: Mapping[str, int | None] | None = None  # cache -> steps from which on static took less in all
    passes: tuple[PassesRecord, ...] | None = None
    accuracy: AccuracyRecord | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The whole document. `identical` is true if no workload showed any difference."""

    identical: bool
    quick: bool
    environment: Mapping[str, Any]
    workloads: Mapping[str, WorkloadRecord]
    seconds: float  # of the whole comparison
    schema: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, object]:
        """Plain dictionaries, lists, strings and numbers."""
        return asdict(self)
