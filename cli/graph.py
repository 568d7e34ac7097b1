"""`dualgraph graph`: a workload's computation graph as text."""

from __future__ import annotations

import json

import click

from dualgraph.compare.drawing import FORMATS, MODES, PARTS, STAGES, draw
from dualgraph.compare.workloads import Workload

from .console import WorkloadName


@click.command("graph")
@click.argument("workload", type=WorkloadName())
@click.option(
    "--stage", type=click.Choice(STAGES), default="defined", show_default=True, help="How far it is compiled."
)
@click.option("--mode", type=click.Choice(MODES), default="static", show_default=True, help="The DAG, or the tape.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "--what", type=click.Choice(PARTS), default="forward", show_default=True, help="The model, or a whole step."
)
def command(workload: Workload, stage: str, mode: str, form: str, what: str) -> None:
    """Draw the graph of a WORKLOAD: operations, their operands and results.

    In static mode the graph as it was defined, after the passes (optimised), or as kernels (fused); in eager mode the
    recorded tape, in the same form.
    """
    if mode == "eager" and stage != "defined":
        raise click.UsageError(
            f"--stage {stage} needs --mode static: a tape is run as it is recorded, and has no stages"
        )
    drawing = FORMATS[form](draw(workload, mode, stage, what))
    click.echo(drawing if isinstance(drawing, str) else json.dumps(drawing, indent=2))
