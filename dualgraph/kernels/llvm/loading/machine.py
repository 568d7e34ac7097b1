"""What native code needs to know of this process: the addresses it calls, and where CPython and NumPy keep things.

`machine()` is the table that plans point to. It is made once, after a look whether objects are laid out as assumed.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import sys
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]  # its capsule serves all C extensions

from dualgraph import locks
from dualgraph.errors import KernelError
from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm.runtime import tables

_lock = locks.lock()  # native code points to what is made once: two threads must not make it twice


def machine() -> np.ndarray[Any, Any]:
    """The table of the process's addresses. Raises KernelError where CPython or NumPy are not laid out as assumed."""
    with _lock:
        return _machine()


@functools.cache
def _machine() -> np.ndarray[Any, Any]:
    check_objects()
    table = np.zeros(len(tables.MACHINE), np.int64)
    api = ctypes.pythonapi
    for name in tables.MACHINE:
        if name.startswith("Py") and name != "PyArray_Empty":
            table[tables.WORD[name]] = ctypes.cast(getattr(api, name), ctypes.c_void_p).value or 0
    process = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    for name in ("malloc", "free", "memcpy"):
        table[tables.WORD[name]] = ctypes.cast(getattr(process, name), ctypes.c_void_p).value or 0
    for name, thing in (("ndarray", np.ndarray), ("None", None), ("TypeError", TypeError)):
        table[tables.WORD[name]] = id(thing)
    table[tables.WORD["PyArray_Empty"]] = _numpy_api()[tables.PYARRAY_EMPTY]
    table[tables.WORD["pool"]] = pool.address()
    return table


def use_blas(get_threads: int, set_threads: int) -> None:
    """The BLAS functions that read and set its number of threads; see `runtime.command_loop`."""
    table = machine()
    table[tables.WORD["blas_get_threads"]], table[tables.WORD["blas_set_threads"]] = get_threads, set_threads


def _reset_after_fork() -> None:
    if _machine.cache_info().currsize:
        table = _machine()
        if table[tables.WORD["blas_depth"]] and table[tables.WORD["blas_set_threads"]]:
            ctypes.CFUNCTYPE(None, ctypes.c_int)(int(table[tables.WORD["blas_set_threads"]]))(
                int(table[tables.WORD["blas_saved"]])
            )
        table[tables.WORD["blas_lock"]] = table[tables.WORD["blas_depth"]] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _numpy_api() -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(_multiarray_umath._ARRAY_API, None)
    return ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))


def check_objects() -> None:
    """The launch code reads fields of objects and calls one slot of NumPy's C API: see that all are in place."""
    sample = np.arange(6.0)[2:]
    good = sys.implementation.name == "cpython" and ctypes.sizeof(ctypes.c_void_p) == 8
    good = good and (
        ctypes.c_void_p.from_address(id(sample) + tables.DATA).value == sample.ctypes.data
        and ctypes.c_void_p.from_address(id(sample) + tables.TYPE).value == id(np.ndarray)
    )
    if good:
        empty = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int, ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
            _numpy_api()[tables.PYARRAY_EMPTY]
        )
        dims = (ctypes.c_int64 * 2)(2, 3)
        dtype = np.dtype(np.float32)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))  # PyArray_Empty steals it
        made = empty(2, ctypes.addressof(dims), dtype, 0)
        good = type(made) is np.ndarray and made.shape == (2, 3) and made.dtype == dtype and made.flags.carray
    if not (good and _slots_are_known()):
        raise KernelError(
            "got a CPython or NumPy whose arrays are not laid out as native kernels assume (64-bit, not free-threaded, "
            "NumPy 2); set DUALGRAPH_KERNELS=reference to run on NumPy alone"
        )


class _Cell:
    __slots__ = ("storage",)


def _slots_are_known() -> bool:
    """Is an array in a slot found there, with a count of 1 when nobody else has it, and are its fields in place?"""
    cell = _Cell()
    cell.storage = np.zeros((3, 2), np.float32)  # type: ignore[attr-defined]
    place = slot(cell, "storage")
    array = ctypes.c_void_p.from_address(place).value or 0

    def field(kind: Any, offset: int) -> Any:
        return kind.from_address(array + offset).value

    count = [field(ctypes.c_int32, tables.REFERENCES)]
    more = [cell.storage, cell.storage.T, memoryview(cell.storage)]  # type: ignore[attr-defined]
    count.append(field(ctypes.c_int32, tables.REFERENCES))
    (same, *_), flags = more, field(ctypes.c_int32, tables.FLAGS)
    return (
        count == [1, 1 + len(more)]
        and array == id(same)
        and field(ctypes.c_int32, tables.RANK) == 2
        and list((ctypes.c_int64 * 2).from_address(field(ctypes.c_void_p, tables.DIMS))) == [3, 2]
        and field(ctypes.c_void_p, tables.DTYPE) == id(same.dtype)
        and bool(flags & tables.OWNS_DATA)
        and not ctypes.c_int32.from_address(id(same.view()) + tables.FLAGS).value & tables.OWNS_DATA
    )


def slot_offset(kind: type, name: str) -> int:
    """Where in objects of a type a slot (of `__slots__`) lies."""
    descriptor = inspect.getattr_static(kind, name)
    member = ctypes.c_void_p.from_address(id(descriptor) + tables.MEMBER).value or 0
    return int(ctypes.c_int64.from_address(member + tables.MEMBER_OFFSET).value)


def slot(thing: Any, name: str) -> int:
    """The address of a slot of an object: a pointer to what is there lies at it."""
    place = id(thing) + slot_offset(type(thing), name)
    assert ctypes.c_void_p.from_address(place).value == id(getattr(thing, name))
    return place
