"""Locks that do not outlive a fork: in the child nobody holds them, whichever thread held them in the parent."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_all: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> Any:
    """A re-entrant lock: one of the interpreter's own, whose `with` block Ctrl-C cannot leave locked."""
    made = threading.RLock()
    _all.add(made)
    return made


def _renew() -> None:
    for held in list(_all):
        held._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
