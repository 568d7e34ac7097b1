"""Locks that do not outlive a fork: in the child nobody holds them, whichever thread held them in the parent."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import ref

_all: list[ref[Any]] = []  # no `WeakSet`: Ctrl-C would be lost in the callbacks that it has in Python
_most = [64]


def lock() -> Any:
    """A re-entrant lock: one of the interpreter's own, whose `with` block Ctrl-C cannot leave locked."""
    made = threading.RLock()
    _all.append(ref(made))
    if len(_all) > _most[0]:
        _all[:] = [held for held in _all if held() is not None]
        _most[0] = 2 * len(_all) + 64
    return made


def _renew() -> None:
    for held in (reference() for reference in _all):
        if held is not None:
            held._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
