"""`dualgraph check`: are both modes equal, bit for bit?"""

from __future__ import annotations

import click

from dualgraph.compare.identity import STEPS, check_workload
from dualgraph.compare.workloads import Workload

from .console import DIFFERENT, WorkloadName, chosen, progress, table


@click.command("check")
@click.argument("workloads", nargs=-1, type=WorkloadName(), metavar="[WORKLOAD]...")
@click.option("--steps", type=click.IntRange(2), default=STEPS, show_default=True, help="Training steps to compare.")
@click.pass_context
def command(ctx: click.Context, workloads: tuple[Workload, ...], steps: int) -> None:
    """Check that eager and static WORKLOADs (all of them, if none is named) agree bit for bit.

    After every step the outputs, all gradients, parameters, buffers, optimiser state and random numbers are compared:
    at each exact level of optimisation, and for a training that goes over from eager to static half-way.
    """
    todo = chosen(workloads)
    found = {}
    with progress(len(todo)) as (say, done):
        for w in todo:
            found[w.name] = check_workload(w, steps, on=lambda text, name=w.name: say(f"{name}: {text}"))  # type: ignore[misc]
            done()
    rows = [
        (name, label, str(x.steps), str(x.compared), x.digest[:16], "yes" if x.equal else "NO")
        for name, labels in found.items()
        for label, x in labels.items()
    ]
    table("eager mode against", ("workload", "execution", "steps", "arrays", "sha256", "same bits"), rows, left=2)
    faults = [
        f"DIFFERENT: {name}, eager against {label}: {x.difference}"
        for name, labels in found.items()
        for label, x in labels.items()
        if not x.equal
    ]
    click.echo("\n".join(["", *(faults or ["All bits were equal."])]))
    if faults:
        ctx.exit(DIFFERENT)
