"""The options that every script of this folder has."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from processes import Settings


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a measurement."""
    settings = Settings()
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--python", default=settings.python, help="interpreter with torch and jax; default: this one")
    found.add_argument("--rounds", type=int, default=settings.rounds, help="samples of each (default %(default)s)")
    found.add_argument("--seconds", type=float, default=settings.seconds, help="of a sample (default %(default)s)")
    found.add_argument("--threads", type=int, default=settings.threads, help="of all libraries (default %(default)s)")
    return found


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings given on the command line."""
    return Settings(arguments.python, arguments.rounds, arguments.seconds, arguments.threads)


def show(report: Callable[[Settings], dict[str, str]], description: str | None) -> None:
    """Run one script: its tables on stdout."""
    arguments = parser(description).parse_args()
    print("\n\n".join(report(settings_of(arguments)).values()))
