"""The command line: its subcommands, and how errors, signals and exit codes are shown.

Exit codes: 0 well, 1 an error, 2 wrong usage, 3 the modes gave different bits; 128 + the number of the signal that ended
it, so 130 for Ctrl-C, and 141 where the reader of a pipe has gone away: then, as with any other tool, without a word.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

import dualgraph
from dualgraph import signals
from dualgraph.errors import CacheWarning, DualgraphError

from . import check, compare, doctor, graph
from .console import FAILED, message, prepare_output, silence

INTERRUPTED, BROKEN_PIPE = 128 + signal.SIGINT, 128 + 13
EPILOG = """\b
Exit codes: 0 well, 1 an error, 2 wrong usage, 3 the modes gave different bits,
130 interrupted.
Colours are left out where NO_COLOR is set.
Completion of commands and workloads in the shell, for bash, zsh or fish:
  eval "$(_DUALGRAPH_COMPLETE=bash_source dualgraph)"
"""


class PipeClosed(click.ClickException):
    """The reader of the output has gone away: no error of ours, and nobody to tell."""

    exit_code = BROKEN_PIPE

    def __init__(self) -> None:
        super().__init__("")

    def show(self, file: Any = None) -> None:
        pass


class Commands(click.Group):
    """A group that ends with the exit codes above, and shows errors of dualgraph and of the system without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        with warnings.catch_warnings(), contextlib.suppress(OSError):  # of standard error itself
            warnings.showwarning = _show_warning
            code = FAILED
            try:
                with signals.stopping(), _system_errors():
                    prepare_output()
                    found = super().main(*args, standalone_mode=False, **extra)  # type: ignore[call-overload]
                    code = found if isinstance(found, int) else 0
            except signals.Stopped as stopped:
                code = 128 + stopped.number
                click.echo(signals.word(stopped.number), err=True)
            except click.Abort:
                code = INTERRUPTED
                click.echo("interrupted", err=True)
            except click.ClickException as error:
                code = error.exit_code
                error.show()
            except DualgraphError as error:
                click.echo(f"Error: {message(error)}", err=True)
        silence(sys.stdout)
        silence(sys.stderr)
        if standalone_mode:
            sys.exit(code)
        return code

    # Around these, not `main`: there click itself ends the process at a closed pipe.

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _system_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _system_errors():
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        why = error.strerror or str(error)
        if error.filename is None:
            raise click.ClickException(
                f"{why}, on writing the output; redirect it to where it can be written"
            ) from error
        raise click.ClickException(f"{why}: {error.filename!r}; mend that and run the command again") from error


def _show_warning(message: Any, category: Any, *where: Any, **_: Any) -> None:
    name = "cache" if issubclass(category, CacheWarning) else category.__name__
    click.echo(f"Warning ({name}): {message}", err=True)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dualgraph.__version__, prog_name="dualgraph", message="%(prog)s %(version)s")
def main() -> None:
    """One model as a dynamic and as a static graph: the same bits, how fast each is, and why."""


for command in (compare.command, check.command, graph.command, doctor.command):
    main.add_command(command)
