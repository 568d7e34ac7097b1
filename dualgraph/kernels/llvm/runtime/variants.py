"""The variants of code that is not a kernel. `launch` and `sharing` write it."""

from __future__ import annotations

from dataclasses import dataclass

from dualgraph.kernels.llvm.command import Variant


@dataclass(frozen=True)
class Launch(Variant):
    """`PyObject *launch(PyObject *plan, PyObject *const *args, Py_ssize_t nargs)`: one run of a program."""


@dataclass(frozen=True)
class Worker(Variant):
    """`void worker(ptr pool, i64 epoch)`: what a pool thread does, without the GIL, until the pool stops."""
