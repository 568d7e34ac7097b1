"""Plans as things to call: one CPython builtin runs all commands of a program.

`builtin(plan)` makes a `METH_FASTCALL` builtin whose `self` is the plan: an int64 array that holds everything a call
needs (see `runtime.tables`; filled in by `plan`). What a call does is `runtime.launch`, what a pool thread does is
`runtime.sharing`; both are code like any kernel, cached on disk.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from dualgraph import locks
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.runtime.tables import LaunchPlan
from dualgraph.kernels.llvm.runtime.variants import Launch, Worker

_lock = locks.lock()  # native code points to what is made once: two threads must not make it twice


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL = 0x0080


@functools.cache
def _method() -> _MethodDef:
    return _MethodDef(b"launch", engine.addresses([Launch()])[0], _METH_FASTCALL, b"Run a loaded program on arrays.")


@functools.cache
def _new_builtin() -> Any:
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new


def builtin(plan: LaunchPlan) -> Callable[..., Any]:
    """The launch function of a plan: a builtin that keeps the plan alive."""
    with _lock:
        method = _method()
    made: Callable[..., Any] = _new_builtin()(ctypes.addressof(method), plan, None)
    return made


def worker() -> int:
    """The address of the loop of a pool thread: `void worker(ptr pool, i64 epoch)`."""
    return engine.addresses([Worker()])[0]
