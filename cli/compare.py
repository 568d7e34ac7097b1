"""`dualgraph compare`: both modes side by side."""

from __future__ import annotations

import json
import time

import click

from dualgraph.compare.environment import environment, is_busy
from dualgraph.compare.first_step import STAGES
from dualgraph.compare.identity import LEVELS, STEPS
from dualgraph.compare.measure import FULL, QUICK, measure_workload
from dualgraph.compare.report import RatioRecord, Report, WorkloadRecord
from dualgraph.compare.timing import Ratio
from dualgraph.compare.workloads import Workload

from .console import DIFFERENT, WorkloadName, amount, chosen, progress, seconds, table
from .report_file import ReportFile, replace


@click.command("compare")
@click.argument("workloads", nargs=-1, type=WorkloadName(), metavar="[WORKLOAD]...")
@click.option("--rounds", type=click.IntRange(3), help="Rounds in which the arms take turns.")
@click.option("--quick", is_flag=True, help="Fewer rounds and shorter samples.")
@click.option(
    "--json",
    "file",
    type=ReportFile(),
    help="Write the report as JSON to a file, replaced when all is measured; - writes it to stdout and nothing else.",
)
@click.pass_context
def command(
    ctx: click.Context, workloads: tuple[Workload, ...], rounds: int | None, quick: bool, file: str | None
) -> None:
    """Compare the eager and the static execution of WORKLOADs (all of them, if none is named).

    First the bits: outputs, gradients, parameters, optimiser state and random numbers of both modes must be equal. Then
    step times in interleaved rounds, the cost of the first step, memory, kernels, and where the time goes.
    """
    settings = QUICK if quick else FULL
    if rounds is not None:
        settings = settings._replace(effort=settings.effort._replace(rounds=rounds))
    start, found = time.perf_counter(), {}
    where = environment()
    todo = chosen(workloads)
    with progress(len(todo)) as (say, done):
        for workload in todo:
            found[workload.name] = measure_workload(
                workload,
                settings,
                lambda text, name=workload.name: say(f"{name}: {text}"),  # type: ignore[misc]
            )
            done()
    same = all(record.identical for record in found.values())
    report = Report(same, quick, where, found, time.perf_counter() - start)
    text = json.dumps(report.to_json(), indent=2) + "\n"
    if file == "-":
        click.echo(text, nl=False)
    else:
        try:
            if file is not None:
                replace(file, text)
        finally:  # what was measured is not lost where the file could not be written after all
            show(report)
    if not same:
        ctx.exit(DIFFERENT)


def show(report: Report) -> None:
    """The report for people."""
    about = report.environment
    click.echo(
        f"dualgraph {about['dualgraph']}, {about['provider']} kernels for {about['target'] or about['cpu']}, "
        f"{about['threads']} threads; Python {about['python']}, NumPy {about['numpy']}; BLAS {about['blas']}\n"
        f"{about['cpu']}, {about['processors']} processors, load average {about['load_average']}, {about['date']}\n"
    )
    for name, record in report.workloads.items():
        if record.identical:
            show_workload(name, record)
    table("summary", ("workload", "same bits", "eager", "static", "verdict", "pays from step"), summary(report))
    click.echo()
    load, usable = about["load_average"], about["processors"]
    if load is not None and is_busy(load, usable):
        click.echo(f"Warning: the load average was {load} on {usable} processors; close other programs")
    for name, record in report.workloads.items():
        for warning in record.warnings:
            click.echo(f"Warning: {name}: {warning}")
        for label, found in record.identity.items():
            if not found.equal:
                click.echo(f"DIFFERENT: {name}, eager against {label}: {found.difference}")
        if record.accuracy is not None and not record.accuracy.equal:
            click.echo(f"DIFFERENT: {name}: {record.accuracy.steps} steps of training ended with different bits")
    click.echo(verdict(report))


def verdict(report: Report) -> str:
    if not report.identical:
        return "The modes gave different bits: no times are reported for these workloads."
    trained = [r.accuracy.steps for r in report.workloads.values() if r.accuracy is not None]
    longest = f", and after {max(trained)} steps of training" if trained else ""
    return (
        f"All outputs, gradients, weights, optimiser states and random numbers were equal bit for bit: {STEPS} steps, "
        f"levels {' and '.join(LEVELS)}, modes mixed half-way, every timed run{longest}. {report.seconds:.0f} s in all."
    )


def summary(report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, r in report.workloads.items():
        if r.arms is None or r.ratio is None:
            rows.append((name, "NO", "-", "-", "-", "-"))
            continue
        rows.append(
            (name, "yes", seconds(r.arms["eager"].step), seconds(r.arms["static"].step), in_words(r.ratio), pays(r))
        )
    return rows


def in_words(ratio: RatioRecord) -> str:
    return str(Ratio(ratio.value, ratio.low, ratio.high))


def pays(record: WorkloadRecord) -> str:
    """The break-even step with a cold and with a warm cache."""
    steps = record.break_even or {}
    return ", ".join(f"{'never' if n is None else n} ({cache})" for cache, n in steps.items())


def show_workload(name: str, record: WorkloadRecord) -> None:
    arms = record.arms or {}
    table(f"{name}: {record.summary}", ("a step", *arms), [(what, *cells) for what, cells in step_rows(record)])
    if record.first_step is not None:
        columns = ("start", *STAGES, "run", "total")
        header = ("first step", *columns)
        rows = [
            (f"{mode}, {cache} cache", *(seconds(times[s]) if s in times else "-" for s in columns))
            for cache, modes in record.first_step.items()
            for mode, times in modes.items()
        ]
        click.echo()
        table("", header, rows)
    if record.passes is not None:
        rows = [
            (p.label, seconds(p.step), str(p.kernels), amount(p.arena), str(p.ulp), in_words(p.ratio))
            for p in record.passes
        ]
        click.echo()
        table("", ("passes", "step", "kernels", "arena", "ULP off", "against eager"), rows)
    if record.accuracy is not None:
        a = record.accuracy
        click.echo(
            f"\n  accuracy on held-out data after {a.epochs} epochs ({a.steps} steps): eager {a.eager:.4f} in "
            f"{seconds(a.seconds['eager'])}, static {a.static:.4f} in {seconds(a.seconds['static'])}"
        )
    click.echo()


def step_rows(record: WorkloadRecord) -> list[tuple[str, list[str]]]:
    """Where the time and the memory of a step go."""
    arms = list((record.arms or {}).values())
    return [
        ("time", [seconds(a.step) for a in arms]),
        ("  kernels alone", [f"{seconds(a.kernels_alone)} ({a.kernels_alone / a.step:.0%})" for a in arms]),
        ("  Python: dispatch, tape, sweep", [f"{seconds(a.python)} ({a.python / a.step:.0%})" for a in arms]),
        ("calls into native code", [str(a.calls) for a in arms]),
        ("kernels run", [str(a.kernels) for a in arms]),
        ("floating-point operations", [amount(a.flops, "") for a in arms]),
        ("bytes touched", [amount(a.bytes) for a in arms]),
        ("peak working memory", [amount(a.working_memory) for a in arms]),
        ("  arena, planned", [amount(a.arena) for a in arms]),
        ("  least possible", [amount(a.arena_lower_bound) for a in arms]),
    ]
