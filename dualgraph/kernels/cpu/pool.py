"""The pool of threads that large kernels are cut over; one for the process.

Workers are Python daemon threads inside one native call each, without the GIL, which take pieces of the open task (see
`kernels.llvm.runtime.sharing`). The calling thread takes part. Cuts do not change bits, so the number of threads does not.
Nothing starts before the first program with a command worth cutting is loaded. A forked child has no workers and runs
alone until it loads such a program itself. A pool in use by another thread is not waited for: the command runs alone.
Where the platform has no POSIX threads there are no workers and every command runs on the calling thread.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from operator import index
from typing import Any

import numpy as np

from dualgraph import config
from dualgraph.errors import ArgumentError, shown

# Words of the pool, an int64 array shared with native code; hot ones have a cache line each.
WORKERS, EPOCH, FUNCTION, SLOTS, ARGS, UNITS, PIECES, BUSY = range(8)
NEXT, STATUS, OPEN, INSIDE, SLEEPERS = 16, 24, 32, 40, 48
LOCK, UNLOCK, WAIT, BROADCAST, YIELD, FEGETENV, FESETENV = range(56, 63)
MUTEX, CONDITION, ENVIRONMENT = 64, 80, 96  # 128 bytes each; POSIX platforms need 40 to 64
_WORDS = 112

SPINS = 1000  # pauses before a worker sleeps: some 20 to 50 microseconds
GRAIN = 1 << 18  # scalar operations that are worth a piece of their own: 5 (exp) to 20 (add) microseconds
MAX_PIECES = 128
MOST_THREADS = 1024

_FUNCTIONS = {
    LOCK: "pthread_mutex_lock",
    UNLOCK: "pthread_mutex_unlock",
    WAIT: "pthread_cond_wait",
    BROADCAST: "pthread_cond_broadcast",
    YIELD: "sched_yield",
    FEGETENV: "fegetenv",
    FESETENV: "fesetenv",
}


class _Pool:
    def __init__(self) -> None:
        whole = np.zeros(_WORDS + 8, np.int64)
        skip = -whole.ctypes.data % 64 // 8
        self.words = whole[skip : skip + _WORDS]
        self.threads: list[threading.Thread] = []
        self.size = 1
        self.entry: Callable[[], int] | None = None
        self.lock = threading.Lock()
        self.library = _posix()
        if self.library is not None:
            for word, name in _FUNCTIONS.items():
                self.words[word] = ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value or 0
        self.resize(config.num_threads())
        self.reset()

    def resize(self, count: int) -> None:
        self.size = count if self.library is not None else 1

    def reset(self) -> None:
        """As it is before any thread was started: at first, and in a forked child."""
        self.threads, self.lock = [], threading.Lock()
        self.words[EPOCH] += 1
        for word in (WORKERS, BUSY, NEXT, STATUS, OPEN, INSIDE, SLEEPERS, PIECES):
            self.words[word] = 0
        if self.library is not None:
            self.library.pthread_mutex_init(self._at(MUTEX), None)
            self.library.pthread_cond_init(self._at(CONDITION), None)

    def _at(self, word: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.words.ctypes.data + 8 * word)

    def start(self) -> None:
        if self.entry is None or self.library is None:
            return
        with self.lock:
            if self.threads or self.size < 2:
                return
            loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self.entry())
            epoch = int(self.words[EPOCH])
            for number in range(1, self.size):
                thread = threading.Thread(
                    target=loop, args=(self.words.ctypes.data, epoch), name=f"dualgraph-{number}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # a limit of the system, or the interpreter is shutting down: fewer will do
                    break
                self.threads.append(thread)
            self.words[WORKERS] = len(self.threads)

    def stop(self) -> None:
        with self.lock:
            self.words[WORKERS] = 0
            self.words[EPOCH] += 1
            for thread in self.threads:
                while thread.is_alive():
                    # Not under the mutex (a launch may want it while it holds the GIL), so a worker about to sleep may
                    # miss it: again until all are gone.
                    self.library.pthread_cond_broadcast(self._at(CONDITION))
                    thread.join(0.002)
            self.threads = []


def _posix() -> Any:
    """The C library, or None where it has no POSIX threads."""
    if os.name != "posix":
        return None
    library = ctypes.PyDLL(None)
    return library if all(hasattr(library, name) for name in _FUNCTIONS.values()) else None


_pool = _Pool()
atexit.register(_pool.stop)  # workers must have left the native code when the interpreter is torn down
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def address() -> int:
    """The address of the pool's words, for native code."""
    return int(_pool.words.ctypes.data)


def start(entry: Callable[[], int]) -> None:
    """Start the workers if they are not running; `entry()` is the address of the native loop of a worker."""
    _pool.entry = entry
    if not _pool.threads:
        _pool.start()


def get_num_threads() -> int:
    """The number of threads that large kernels are cut over, the calling one included."""
    return _pool.size


def set_num_threads(count: int) -> None:
    """Use `count` threads for large kernels (one where the platform has no POSIX threads). Results do not depend on it."""
    whole = isinstance(count, (int, np.integer, np.ndarray)) and not isinstance(count, bool)
    try:
        wanted = index(count) if whole else 0
    except TypeError:
        wanted = 0
    if not 1 <= wanted <= MOST_THREADS:
        raise ArgumentError(
            f"set_num_threads: got {shown(count)} threads; the number of threads is an integer from 1 to {MOST_THREADS}; "
            "pass 1 for none"
        )
    count = wanted
    if count == _pool.size:
        return
    running = bool(_pool.threads)
    _pool.stop()
    _pool.resize(count)
    if running or _pool.entry is not None:
        _pool.start()


def is_possible() -> bool:
    """Whether this platform has the threads of the pool."""
    return _pool.library is not None


def pieces(units: int, work: int) -> int:
    """In how many pieces a command is offered to the pool: 1 where it is too small to gain."""
    return max(1, min(units, work // GRAIN, MAX_PIECES))


def workers() -> int:
    """The number of worker threads running now, which are Python threads too."""
    return len(_pool.threads)
