"""Where a report is written: tried before anything is measured, replaced as a whole when it is there.

A file is replaced by a new one of its name, so it must be a regular one or not there yet: a device or a pipe has readers
or a meaning of its own and is refused.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from typing import Any

import click

KINDS = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
REMEDY = "name a regular or a new file, or - for standard output"


class ReportFile(click.ParamType[str]):
    """A file that can be replaced, or -."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "-" and (why := unfit(value)):
            self.fail(f"{why}; {REMEDY}", param, ctx)
        return str(value)


def unfit(file: str) -> str:
    """Why a report cannot be written there; empty where it can. It is tried, and leaves nothing behind."""
    if not file:
        return "the name is empty"
    try:
        found = _stat(file)
        folder = os.path.dirname(os.path.realpath(file))
        if found is None:
            if file.endswith(os.sep):
                return f"{file!r} is the name of a directory"
            if not os.path.isdir(folder):
                return f"the directory {folder!r} does not exist; make it first"
        elif stat.S_ISDIR(found.st_mode):
            return f"{file!r} is a directory"
        elif not stat.S_ISREG(found.st_mode):
            return f"{file!r} is {KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}"
        elif _is_stdout(found):
            return f"{file!r} is the file that standard output goes to"
        else:
            os.close(os.open(file, os.O_WRONLY))
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except (OSError, ValueError) as error:
        return f"{file!r} cannot be written ({getattr(error, 'strerror', None) or error})"


def _stat(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except FileNotFoundError:
        return None


def _is_stdout(found: os.stat_result) -> bool:
    try:
        return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no file of the system's
        return False


def replace(file: str, text: str) -> None:
    """Write the text to a new file, then give it the name; where that fails, the old one is still there."""
    target = os.path.realpath(file)
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode)
    except FileNotFoundError:
        os.umask(mask := os.umask(0))
        mode = 0o666 & ~mask
    descriptor, temporary = tempfile.mkstemp(prefix=".dualgraph-", dir=os.path.dirname(target))
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
