"""What goes to the terminal: tables (plain text in a pipe), progress (on a terminal only), figures with their units."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from dualgraph import models
from dualgraph.compare.workloads import WORKLOADS, Workload, find
from dualgraph.errors import ArgumentError, DualgraphError

# Exit codes, beside 0. Wrong usage is 2 as everywhere, and 1 is also what Python itself ends with.
FAILED, USAGE, DIFFERENT = 1, 2, 3
# Where a terminal cannot show the first, it shows the second.
LIKE = {"µ": "u", "×": "x", "−": "-", "–": "-", "—": "-", "…": "..."}
Rows = Sequence[Sequence[str]]


class WorkloadName(click.ParamType[Workload]):
    """A workload by its name; completed in the shell, with a suggestion where it is misspelled."""

    name = "workload"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Workload:
        if isinstance(value, Workload):
            return value
        try:
            return find(value)
        except ArgumentError as error:
            self.fail(message(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        return [
            click.shell_completion.CompletionItem(w.name, help=w.summary)
            for w in WORKLOADS.values()
            if w.name.startswith(incomplete)
        ]


def message(error: DualgraphError) -> str:
    """What an error says; with the place if that is in a built-in model, not where this command was called from."""
    inside = error.where is not None and error.where.file.startswith(os.path.dirname(models.__file__))
    return str(error) if inside else str(error.args[0])


def chosen(workloads: tuple[Workload, ...]) -> list[Workload]:
    """The workloads named, each once; all of them where none is."""
    return list({w.name: w for w in workloads or WORKLOADS.values()}.values())


def table(title: str, header: Sequence[str], rows: Rows, left: int = 1) -> None:
    """Print a table; the first `left` columns to the left, the others to the right."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        console = Console()
        for number, (name, *cells) in enumerate(zip(header, *rows, strict=True)):
            word = max(map(len, " ".join((name, *cells)).split()), default=0)
            shown.add_column(Text(name), justify="left" if number < left else "right", min_width=word)
        for row in rows:
            shown.add_row(*map(Text, row))
        # Lines that a narrow terminal folds can be read, words cut by narrow columns cannot.
        console.width = max(console.width, console.measure(shown, options=console.options.update(width=1000)).minimum)
        console.print(shown, crop=False)
    else:
        click.echo(plain_table(title, header, rows, left))


def plain_table(title: str, header: Sequence[str], rows: Rows, left: int = 1) -> str:
    """The same as text, in columns two blanks apart.

    >>> print(plain_table("steps", ("mode", "time"), [("eager", "12 µs"), ("static", "3 µs")]))
    steps
      mode     time
      eager   12 µs
      static   3 µs
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [title] if title else []
    for row in (header, *rows):
        cells = [
            cell.ljust(w) if n < left else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def replace_by_alike(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of codecs: what the encoding lacks is written in letters that look like it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(LIKE.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("dualgraph.alike", replace_by_alike)


def prepare_output() -> None:
    """Make standard output and error fit to write to: open, and without characters that cannot be encoded."""
    if sys.stderr is None:
        while os.open(os.devnull, os.O_RDWR) < 2:  # or the next file that is opened would get what was meant for it
            pass
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise click.ClickException("standard output is closed; the results are written to it; redirect it to a file")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dualgraph.alike")


def silence(stream: Any) -> None:
    """Nothing more is written to a stream that failed, or Python would report it once more at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def progress(parts: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """(say what is being done, one part is done), shown on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None, lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=parts)
        yield lambda text: bar.update(task, description=text), lambda: bar.advance(task)


def seconds(value: float) -> str:
    """A time with three figures.

    >>> seconds(0.0123456), seconds(3.2e-6), seconds(0)
    ('12.3 ms', '3.20 µs', '0 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)} {unit}"
    return "0 s"


def amount(value: float | None, unit: str = "B") -> str:
    """A number of bytes (or of something else) with three figures and a decimal prefix.

    >>> amount(134400), amount(12), amount(9378241, ""), amount(None)
    ('134 kB', '12 B', '9.38 M', '-')
    """
    if value is None:
        return "-"
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{_three(value / size)} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()


def _three(value: float) -> str:
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"
