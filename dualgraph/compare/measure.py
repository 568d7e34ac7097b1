"""A workload from the identity check to the last figure. A workload that is not identical is not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dualgraph.compare import accuracy, first_step, identity, recording, timing
from dualgraph.compare.arms import Arm, eager_arm, static_arm
from dualgraph.compare.identity import Identity, digest_of
from dualgraph.compare.memory import peak_of_step
from dualgraph.compare.report import (
    AccuracyRecord,
    IdentityRecord,
    PassesRecord,
    RatioRecord,
    WorkloadRecord,
)
from dualgraph.compare.report import Arm as ArmRecord
from dualgraph.compare.timing import Plan, Ratio, Samples, Timed, interleaved
from dualgraph.compare.workloads import Workload
from dualgraph.errors import DualgraphError
from dualgraph.static.passes import PASSES
from dualgraph.static.report import program_cost

Progress = Callable[[str], None]


class Settings(NamedTuple):
    """How thorough a comparison is."""

    plan: Plan
    processes: int  # for each figure of the first step


FULL = Settings(timing.FULL, 3)
QUICK = Settings(timing.QUICK, 1)

_EXACT = tuple(p.name for p in PASSES if p.numerics == "exact")
_GRAPH = tuple(p.name for p in PASSES if p.numerics == "exact" and p.stage == "graph")
_KERNEL = tuple(p.name for p in PASSES if p.numerics == "exact" and p.stage == "kernel")
_FAST = tuple(p.name for p in PASSES)
ABLATION = (("none", ()), ("graph passes", _GRAPH), ("fusion", _KERNEL), ("all", _EXACT), ("fast", _FAST))


class Unequal(DualgraphError, RuntimeError):
    """A timed run did not end with the same bits as its peer."""


def measure_workload(workload: Workload, settings: Settings = FULL, on: Progress = lambda text: None) -> WorkloadRecord:
    """Everything about one workload."""
    on("comparing bits")
    found = identity.check_workload(workload, on=lambda label: on(f"comparing bits: {label}"))
    records = {label: _identity_record(x) for label, x in found.items()}
    if not all(x.equal for x in records.values()):
        return WorkloadRecord(workload.summary, False, records)
    trained = _trained(workload, on)
    if trained is not None and not trained.equal:
        return WorkloadRecord(workload.summary, False, records, accuracy=trained)
    try:
        return _timings(workload, settings, records, trained, on)
    except Unequal as error:
        return WorkloadRecord(workload.summary, False, records, warnings=(str(error),))


def _timings(
    workload: Workload,
    settings: Settings,
    records: dict[str, IdentityRecord],
    trained: AccuracyRecord | None,
    on: Progress,
) -> WorkloadRecord:
    on("compiling")
    eager = eager_arm(workload)
    statics = {label: static_arm(workload, "fast", passes, f"static ({label})") for label, passes in ABLATION}
    arms = {"eager": eager, **statics}
    launches = recording.launches(eager_arm(workload))
    program, restore = recording.program_alone(static_arm(workload))
    timed = {**_timed(arms), "eager kernels": Timed(recording.replayed(launches)), "program": Timed(program, restore)}
    samples = interleaved(timed, settings.plan, lambda done: on(f"timing: round {done} of {settings.plan.rounds}"))

    on("measuring memory")
    static = statics["all"]
    plan = static.executable.memory
    costs = [program_cost(x.program) for x in launches]
    eager_record = _arm_record(
        samples,
        "eager",
        "eager kernels",
        calls=len(launches),
        kernels=sum(c.launches for c in costs),
        flops=sum(c.flops for c in costs),
        bytes=sum(c.bytes for c in costs),
        working_memory=peak_of_step(eager_arm(workload)),
    )
    static_record = _arm_record(
        samples,
        "all",
        "program",
        calls=1,
        kernels=static.executable.cost.launches,
        flops=static.executable.cost.flops,
        bytes=static.executable.cost.bytes,
        working_memory=peak_of_step(static_arm(workload)),
        arena=plan.arena,
        arena_lower_bound=plan.lower_bound,
    )
    on("first step in fresh processes")
    first = first_step.measure(workload.name, settings.processes)
    break_even = {
        cache: first_step.break_even(
            modes["eager"]["total"], modes["static"]["total"], eager_record.step, static_record.step
        )
        for cache, modes in first.items()
    }
    return WorkloadRecord(
        workload.summary,
        True,
        records,
        settings.plan.rounds,
        samples.steps,
        {"eager": eager_record, "static": static_record},
        _ratio_record(samples.ratio("eager", "all")),
        first,
        break_even,
        tuple(_passes_record(label, passes, statics[label], samples) for label, passes in ABLATION),
        trained,
        tuple(_warnings(samples)),
    )


def _timed(arms: dict[str, Arm]) -> dict[str, Timed]:
    """Each arm starts every sample from its first state; those that promise it must end it with the same bits."""
    expected: dict[int, str] = {}

    def one(arm: Arm) -> Timed:
        start = arm.state()

        def run(steps: int) -> None:
            run_step, batches = arm.run, arm.instance.batches
            for number in range(steps):
                run_step(*batches[number % len(batches)])
            arm.number = steps

        def prepare() -> None:
            arm.reset(start)

        def finish() -> None:
            digest = digest_of(arm.values())
            if expected.setdefault(arm.number, digest) != digest:
                raise Unequal(
                    f"a timed run of {arm.name} ended after {arm.number} steps with other bits than its peers; no time "
                    "is reported where bits differ; run `dualgraph check`, and report this as a fault"
                )

        return Timed(run, prepare, finish if arm.name != "static (fast)" else lambda: None)

    return {name: one(arm) for name, arm in arms.items()}


def _trained(workload: Workload, on: Progress) -> AccuracyRecord | None:
    if not workload.epochs:
        return None
    on("training in both modes")
    eager, static = (accuracy.train(arm, workload) for arm in (eager_arm(workload), static_arm(workload)))
    same = eager.digest == static.digest
    seconds = {"eager": eager.seconds, "static": static.seconds}
    return AccuracyRecord(workload.epochs, eager.steps, eager.accuracy, static.accuracy, same, seconds)


def _identity_record(found: Identity) -> IdentityRecord:
    difference = None if found.difference is None else str(found.difference)
    return IdentityRecord(found.equal, found.steps, found.compared, found.digest, difference)


def _ratio_record(ratio: Ratio) -> RatioRecord:
    return RatioRecord(ratio.value, ratio.low, ratio.high, ratio.word)


def _arm_record(samples: Samples, name: str, without_python: str, **counts: Any) -> ArmRecord:
    step = samples.median(name)
    alone = step * samples.ratio(without_python, name).value  # paired by round, as everything that is compared
    return ArmRecord(step, samples.quartiles(name), alone, step - alone, **counts)


def _passes_record(label: str, passes: tuple[str, ...], arm: Arm, samples: Samples) -> PassesRecord:
    executable = arm.executable
    ratio = _ratio_record(samples.ratio("eager", label))
    ulp = executable.ulp_distance or 0
    return PassesRecord(
        label, passes, samples.median(label), executable.cost.launches, executable.memory.arena, ulp, ratio
    )


def _warnings(samples: Samples) -> list[str]:
    """What makes the figures less certain, and what to do about it."""
    found = []
    for name in ("eager", "all"):
        low, high = samples.quartiles(name)
        spread = (high - low) / samples.median(name)
        if spread > 0.1:
            shown = "static" if name == "all" else name
            found.append(
                f"{shown}: step times vary by {spread:.0%} (interquartile); close other programs, or use --rounds"
            )
    return found
