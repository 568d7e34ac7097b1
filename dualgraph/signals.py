"""How a signal ends the command: one word on standard error, and the exit code 128 + its number.

Only where nobody else has a say: a signal that is ignored (`nohup`, a job in the background) stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "ended: the terminal was closed"}
PATIENCE = 5.0  # seconds for cleaning up
Handler = Callable[[int, FrameType | None], Any]


class Stopped(BaseException):
    """Raised by a signal while the command runs, so that files, processes and the terminal are cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def word(number: int) -> str:
    return WORDS[signal.Signals(number).name]


def end(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process now: there is nothing to clean up yet, or the user is tired of waiting for it."""
    try:
        os.write(2, (word(number) + "\n").encode())
    finally:
        os._exit(128 + number)


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the process in good order; a second signal ends it at once, and so does an exception that somebody dropped."""
    handle(end)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, lambda *_: end(number))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    raise Stopped(number)


def handle(handler: Handler) -> dict[int, Any]:
    """Let `handler` have the signals that nobody else has; returns those that had them."""
    found: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in WORDS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
                end,
                stop,
            ):
                found[number] = signal.signal(number, handler)
    return found


@contextmanager
def stopping() -> Iterator[None]:
    """While it lasts, signals raise `Stopped`."""
    hook = sys.unraisablehook

    def unraisable(unraisable: Any) -> None:
        """Python drops exceptions of finalisers: end here, or the signal would be lost."""
        if isinstance(unraisable.exc_value, Stopped):
            end(unraisable.exc_value.number)
        hook(unraisable)

    sys.unraisablehook = unraisable
    before = handle(stop)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
