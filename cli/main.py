"""The command line: its subcommands, and how errors and exit codes are shown.

Exit codes: 0 well, 1 usage or another error, 2 the modes gave different bits, 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import click

import dualgraph
from dualgraph.errors import CacheWarning, DualgraphError

from . import check, compare, doctor, graph
from .console import FAILED, INTERRUPTED, message

EPILOG = """\b
Exit codes: 0 well, 1 wrong usage or another error, 2 the modes gave different bits.
Colours are left out where NO_COLOR is set.
Completion of commands and workloads in the shell, for bash, zsh or fish:
  eval "$(_DUALGRAPH_COMPLETE=bash_source dualgraph)"
"""


class Commands(click.Group):
    """A group that ends with the exit codes above, and shows errors of dualgraph without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                code = super().main(*args, standalone_mode=False, **extra)  # type: ignore[call-overload]
                return _leave(code if isinstance(code, int) else 0, standalone_mode)
            except click.Abort:
                click.echo("interrupted", err=True)
                return _leave(INTERRUPTED, standalone_mode)
            except click.ClickException as error:
                error.show()
                return _leave(FAILED, standalone_mode)
            except DualgraphError as error:
                click.echo(f"Error: {message(error)}", err=True)
                return _leave(FAILED, standalone_mode)


def _leave(code: int, standalone: bool) -> int:
    if standalone:
        sys.exit(code)
    return code


def _show_warning(message: Any, category: Any, *where: Any, **_: Any) -> None:
    name = "cache" if issubclass(category, CacheWarning) else category.__name__
    click.echo(f"Warning ({name}): {message}", err=True)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dualgraph.__version__, prog_name="dualgraph", message="%(prog)s %(version)s")
def main() -> None:
    """One model as a dynamic and as a static graph: the same bits, how fast each is, and why."""


for command in (compare.command, check.command, graph.command, doctor.command):
    main.add_command(command)
