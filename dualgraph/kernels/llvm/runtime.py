"""The native side of a program: one CPython builtin that runs all its commands, and the loop of a pool thread.

`builtin(plan)` makes a `METH_FASTCALL` builtin whose `self` is the plan: an int64 array that holds everything a call
needs (layout: `PLAN_*`, filled in by `provider`). A call checks its arguments, takes their data pointers, allocates the
results through NumPy's C API, runs the command table and returns. No address is a constant of the code, so the code is
cached on disk like any kernel: addresses come from the plan and from the `machine` table, one per process.

Slots (data pointers) live in the plan itself, as does the arena of scratch buffers. A call that finds the plan busy
(another thread while the GIL is released, or a finaliser run by an allocation) works on copies of its own.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]  # its capsule serves all C extensions

from dualgraph.errors import KernelError
from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm import engine

if TYPE_CHECKING:
    from llvmlite import ir

# Words of a plan.
PLAN_MACHINE, PLAN_ARGUMENTS, PLAN_OUTPUTS, PLAN_COMMANDS, PLAN_SLOTS, PLAN_ARENA_BYTES, PLAN_BUSY, PLAN_FLAGS = range(
    8
)
PLAN_SLOT_TABLE, PLAN_OUTPUT_TABLE, PLAN_COMMAND_TABLE = range(8, 11)  # addresses within the plan
PLAN_HEADER = 12

RELEASE_GIL, USES_BLAS = 1, 2  # flags

OUTPUT_DTYPE, OUTPUT_RANK, OUTPUT_DIMS = range(3)  # a row of the output table
OUTPUT_WORDS = 3

COMMAND_FUNCTION, COMMAND_ARGS, COMMAND_UNITS, COMMAND_PIECES, COMMAND_STEP = range(5)  # a row of the command table
COMMAND_WORDS = 5

# Words of the machine table: entry points and objects of the process.
_MACHINE = (
    "ndarray PyArray_Empty Py_IncRef Py_DecRef PyTuple_New PyTuple_SetItem PyLong_FromLong None PyErr_Format TypeError "
    "PyErr_NoMemory PyEval_SaveThread PyEval_RestoreThread malloc free pool blas_get_threads blas_set_threads "
    "blas_lock blas_depth blas_saved"
).split()
_M = {name: word for word, name in enumerate(_MACHINE)}

_ARENA_ALIGNMENT = 64
_DATA = 16  # offset of PyArrayObject.data
_TYPE = 8  # offset of PyObject.ob_type
_PYARRAY_EMPTY = 184  # slot of NumPy's C API table


class Plan(np.ndarray[Any, Any]):
    """An int64 array that keeps alive what its words point to."""

    keep: tuple[Any, ...] = ()


# ---- the machine table -------------------------------------------------------------------------------------------


_lock = threading.RLock()  # native code points to what is made once: two threads must not make it twice


def machine() -> np.ndarray[Any, Any]:
    """The table of the process's addresses. Raises KernelError where CPython or NumPy are not laid out as assumed."""
    with _lock:
        return _machine()


@functools.cache
def _machine() -> np.ndarray[Any, Any]:
    _check_layout()
    table = np.zeros(len(_MACHINE) + 3, np.int64)
    api = ctypes.pythonapi
    for name in _MACHINE:
        if name.startswith("Py") and name != "PyArray_Empty":
            table[_M[name]] = ctypes.cast(getattr(api, name), ctypes.c_void_p).value or 0
    process = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    for name in ("malloc", "free"):
        table[_M[name]] = ctypes.cast(getattr(process, name), ctypes.c_void_p).value or 0
    for name, thing in (("ndarray", np.ndarray), ("None", None), ("TypeError", TypeError)):
        table[_M[name]] = id(thing)
    table[_M["PyArray_Empty"]] = _numpy_api()[_PYARRAY_EMPTY]
    table[_M["pool"]] = pool.address()
    return table


def use_blas(get_threads: int, set_threads: int) -> None:
    """The BLAS functions that read and set its number of threads; see `_Emitter.blas`."""
    table = machine()
    table[_M["blas_get_threads"]], table[_M["blas_set_threads"]] = get_threads, set_threads


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _machine.cache_info().currsize:
        table = _machine()
        if table[_M["blas_depth"]] and table[_M["blas_set_threads"]]:
            ctypes.CFUNCTYPE(None, ctypes.c_int)(int(table[_M["blas_set_threads"]]))(int(table[_M["blas_saved"]]))
        table[_M["blas_lock"]] = table[_M["blas_depth"]] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _numpy_api() -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(_multiarray_umath._ARRAY_API, None)
    return ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))


def _check_layout() -> None:
    """The launch code reads two fields of an ndarray and calls one slot of NumPy's C API: see that all are in place."""
    sample = np.arange(6.0)[2:]
    good = sys.implementation.name == "cpython" and ctypes.sizeof(ctypes.c_void_p) == 8
    good = good and (
        ctypes.c_void_p.from_address(id(sample) + _DATA).value == sample.ctypes.data
        and ctypes.c_void_p.from_address(id(sample) + _TYPE).value == id(np.ndarray)
    )
    if good:
        empty = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int, ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(
            _numpy_api()[_PYARRAY_EMPTY]
        )
        dims = (ctypes.c_int64 * 2)(2, 3)
        dtype = np.dtype(np.float32)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))  # PyArray_Empty steals it
        made = empty(2, ctypes.addressof(dims), dtype, 0)
        good = type(made) is np.ndarray and made.shape == (2, 3) and made.dtype == dtype and made.flags.carray
    if not good:
        raise KernelError(
            "got a CPython or NumPy whose arrays are not laid out as native kernels assume (64-bit, not free-threaded, "
            "NumPy 2); set DUALGRAPH_KERNELS=reference to run on NumPy alone"
        )


# ---- the builtin -------------------------------------------------------------------------------------------------


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


def builtin(plan: Plan) -> Callable[..., Any]:
    """The launch function of a plan: a builtin that keeps the plan alive."""
    with _lock:
        method = _method()
    made: Callable[..., Any] = _new_builtin()(ctypes.addressof(method), plan, None)
    return made


def worker() -> int:
    """The address of the loop of a pool thread: `void worker(ptr pool, i64 epoch)`."""
    return engine.addresses([Worker()])[0]


# ---- emitted code ------------------------------------------------------------------------------------------------


class _Callee:
    """A pointer to call: opaque pointers carry no function type, which llvmlite's builder wants to see."""

    def __init__(self, pointer: Any, function_type: Any):
        self.type, self.function_type, self.get_reference = pointer.type, function_type, pointer.get_reference


class _Emitter:
    """A builder with the few idioms of this file. Pointers are opaque; tables are arrays of 64-bit words."""

    def __init__(self, module: ir.Module, name: str, result: str, parameters: str, *, internal: bool = False):
        from llvmlite import ir

        self.ir, self.module = ir, module
        self.i8, self.i32, self.i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
        self.ptr = ir.PointerType()
        self.types = {"p": self.ptr, "i": self.i32, "l": self.i64, "v": ir.VoidType()}
        self.function = ir.Function(module, self.type(result, parameters), name)
        self.function.attributes.add("nounwind")
        if internal:
            self.function.linkage = "internal"
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    def type(self, result: str, parameters: str, *, var_arg: bool = False) -> Any:
        return self.ir.FunctionType(self.types[result], [self.types[p] for p in parameters], var_arg=var_arg)

    def const(self, value: int) -> Any:
        return self.i64(value)

    def at(self, base: Any, word: Any) -> Any:
        """The address of a word of a table."""
        word = self.i64(word) if isinstance(word, int) else word
        return self.b.gep(base, [word], inbounds=True, source_etype=self.i64)

    def bytes_at(self, base: Any, offset: Any) -> Any:
        offset = self.i64(offset) if isinstance(offset, int) else offset
        return self.b.gep(base, [offset], inbounds=True, source_etype=self.i8)

    def word(self, base: Any, word: Any) -> Any:
        return self.b.load(self.at(base, word), typ=self.i64)

    def pointer(self, base: Any, word: Any) -> Any:
        return self.b.load(self.at(base, word), typ=self.ptr)

    def atomic(self, address: Any, ordering: str = "seq_cst") -> Any:
        return self.b.load_atomic(address, ordering, 8, typ=self.i64)

    def set_atomic(self, value: Any, address: Any, ordering: str = "seq_cst") -> None:
        value = self.i64(value) if isinstance(value, int) else value
        self.b.atomic_rmw("xchg", address, value, ordering)  # the builder's atomic store wants a typed pointer

    def add_atomic(self, address: Any, value: int) -> Any:
        return self.b.atomic_rmw("add", address, self.i64(value), "seq_cst")

    def call(self, signature: str, function: Any, *args: Any, var_arg: bool = False) -> Any:
        """Call through a pointer; `signature` is the result's letter, then the parameters'."""
        kind = self.type(signature[0], signature[1:], var_arg=var_arg)
        return self.ir_call(kind, function, args)

    def ir_call(self, kind: Any, function: Any, args: Any) -> Any:
        return self.b.call(_Callee(function, kind), list(args))

    def loop(self, count: Any, body: Any) -> None:
        """`for i in range(count): body(i)`; the body may leave through a branch of its own."""
        b, start = self.b, self.b.block
        head, inside, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(self.i64)
        i.add_incoming(self.i64(0), start)
        b.cbranch(b.icmp_signed("<", i, count), inside, after)
        b.position_at_end(inside)
        body(i)
        i.add_incoming(b.add(i, self.i64(1)), b.block)
        b.branch(head)
        b.position_at_end(after)

    def pause(self) -> None:
        """Tell the processor that this is a spin loop."""
        machine = self.module.triple.split("-")[0].lower()
        if machine in ("x86_64", "amd64"):
            self.b.call(self.intrinsic("llvm.x86.sse2.pause", "v"), [])
        elif machine in ("aarch64", "arm64"):
            self.b.call(self.intrinsic("llvm.aarch64.hint", "vi"), [self.i32(1)])

    def intrinsic(self, name: str, signature: str) -> Any:
        declared = self.module.globals.get(name)
        return declared or self.ir.Function(self.module, self.type(signature[0], signature[1:]), name)

    def text(self, content: str) -> Any:
        data = bytearray(content.encode() + b"\0")
        kind = self.ir.ArrayType(self.i8, len(data))
        number = len(self.module.globals)
        constant = self.ir.GlobalVariable(self.module, kind, f"text.{self.function.name}.{number}")
        constant.linkage, constant.global_constant = "private", True
        constant.initializer = self.ir.Constant(kind, data)
        return constant


def _pieces(module: ir.Module, name: str) -> Any:
    """`void pieces(pool)`: take pieces of the open task until none is left."""
    e = _Emitter(module, name, "v", "p", internal=True)
    (table,) = e.function.args
    b = e.b
    fn, slots, args = (e.pointer(table, w) for w in (pool.FUNCTION, pool.SLOTS, pool.ARGS))
    units, pieces = e.word(table, pool.UNITS), e.word(table, pool.PIECES)
    head, inside, failed, after = (b.append_basic_block(n) for n in ("head", "piece", "failed", "after"))
    b.branch(head)
    b.position_at_end(head)
    piece = e.add_atomic(e.at(table, pool.NEXT), 1)
    b.cbranch(b.icmp_signed("<", piece, pieces), inside, after)
    b.position_at_end(inside)
    begin = b.sdiv(b.mul(units, piece), pieces)
    end = b.sdiv(b.mul(units, b.add(piece, e.const(1))), pieces)
    status = e.call("ippll", fn, slots, args, begin, end)
    b.cbranch(b.icmp_signed("==", status, e.i32(0)), head, failed)
    b.position_at_end(failed)
    e.set_atomic(1, e.at(table, pool.STATUS))
    b.branch(head)
    b.position_at_end(after)
    b.ret_void()
    return e.function


def _parallel(module: ir.Module, name: str) -> Any:
    """`i32 parallel(pool, fn, slots, args, units, pieces)`: offer a command to the pool and take part in it.

    A task is open from the moment its fields are written until its pieces are all taken; a worker announces itself in
    `inside` before it looks whether the task is open, so when nobody is inside after closing, nobody reads the fields.
    """
    pieces_of = _pieces(module, f"{name}.pieces")
    e = _Emitter(module, name, "i", "ppppll", internal=True)
    table, fn, slots, args, units, pieces = e.function.args
    b = e.b
    serial, shared = b.append_basic_block("serial"), b.append_basic_block("shared")
    claimed = b.cmpxchg(e.at(table, pool.BUSY), e.const(0), e.const(1), "seq_cst", "seq_cst")
    b.cbranch(b.extract_value(claimed, 1), shared, serial)
    b.position_at_end(serial)  # another thread uses the pool
    b.ret(e.call("ippll", fn, slots, args, e.const(0), units))
    b.position_at_end(shared)
    for value, w in ((fn, pool.FUNCTION), (slots, pool.SLOTS), (args, pool.ARGS), (units, pool.UNITS)):
        b.store(value, e.at(table, w))
    e.set_atomic(pieces, e.at(table, pool.PIECES), "monotonic")
    e.set_atomic(0, e.at(table, pool.NEXT))
    e.set_atomic(0, e.at(table, pool.STATUS))
    e.call("ip", e.pointer(table, pool.FEGETENV), e.at(table, pool.ENVIRONMENT))
    e.set_atomic(1, e.at(table, pool.OPEN))
    wake, work = b.append_basic_block("wake"), b.append_basic_block("work")
    sleepers = e.atomic(e.at(table, pool.SLEEPERS))
    b.cbranch(b.icmp_signed(">", sleepers, e.const(0)), wake, work)
    b.position_at_end(wake)
    e.call("ip", e.pointer(table, pool.LOCK), e.at(table, pool.MUTEX))
    e.call("ip", e.pointer(table, pool.BROADCAST), e.at(table, pool.CONDITION))
    e.call("ip", e.pointer(table, pool.UNLOCK), e.at(table, pool.MUTEX))
    b.branch(work)
    b.position_at_end(work)
    b.call(pieces_of, [table])
    e.set_atomic(0, e.at(table, pool.OPEN))
    wait, spin, give_way, after = (b.append_basic_block(n) for n in ("wait", "spin", "yield", "after"))
    b.branch(wait)
    b.position_at_end(wait)
    turns = b.phi(e.i64)
    turns.add_incoming(e.const(0), work)
    inside = e.atomic(e.at(table, pool.INSIDE))
    b.cbranch(b.icmp_signed("==", inside, e.const(0)), after, spin)
    b.position_at_end(spin)
    e.pause()
    more = b.add(turns, e.const(1))
    turns.add_incoming(more, spin)
    b.cbranch(b.icmp_signed("<", turns, e.const(pool.SPINS)), wait, give_way)
    b.position_at_end(give_way)  # the worker that we wait for may need this processor
    e.call("i", e.pointer(table, pool.YIELD))
    turns.add_incoming(e.const(0), give_way)
    b.branch(wait)
    b.position_at_end(after)
    status = b.trunc(e.atomic(e.at(table, pool.STATUS)), e.i32)
    e.set_atomic(0, e.at(table, pool.BUSY), "release")
    b.ret(status)
    return e.function


@dataclass(frozen=True)
class Worker:
    """`void worker(ptr pool, i64 epoch)`: what a pool thread does, without the GIL, until the pool stops."""

    def emit(self, module: ir.Module, name: str) -> None:
        pieces_of = _pieces(module, f"{name}.pieces")
        e = _Emitter(module, name, "v", "pl")
        table, my_epoch = e.function.args
        b = e.b
        entry = b.block
        blocks = ("look", "live", "work", "enter", "leave", "idle", "sleep", "check", "nap", "up", "stop")
        look, live, work, enter, leave, idle, sleep, check, nap, up, stop = (b.append_basic_block(n) for n in blocks)

        def stopped() -> Any:
            return b.icmp_signed("!=", e.atomic(e.at(table, pool.EPOCH)), my_epoch)

        def available() -> Any:
            left = b.icmp_signed(
                "<", e.atomic(e.at(table, pool.NEXT), "monotonic"), e.atomic(e.at(table, pool.PIECES), "monotonic")
            )
            return b.and_(left, b.icmp_signed("!=", e.atomic(e.at(table, pool.OPEN)), e.const(0)))

        b.branch(look)
        b.position_at_end(look)
        turns = b.phi(e.i64)
        turns.add_incoming(e.const(0), entry)
        b.cbranch(stopped(), stop, live)
        b.position_at_end(live)
        b.cbranch(available(), work, idle)

        b.position_at_end(work)
        e.add_atomic(e.at(table, pool.INSIDE), 1)
        is_open = b.icmp_signed("!=", e.atomic(e.at(table, pool.OPEN)), e.const(0))
        b.cbranch(is_open, enter, leave)
        b.position_at_end(enter)
        e.call("ip", e.pointer(table, pool.FESETENV), e.at(table, pool.ENVIRONMENT))
        b.call(pieces_of, [table])
        b.branch(leave)
        b.position_at_end(leave)
        e.add_atomic(e.at(table, pool.INSIDE), -1)
        turns.add_incoming(e.const(0), leave)
        b.branch(look)

        b.position_at_end(idle)
        e.pause()
        more = b.add(turns, e.const(1))
        turns.add_incoming(more, idle)
        b.cbranch(b.icmp_signed("<", more, e.const(pool.SPINS)), look, sleep)

        b.position_at_end(sleep)
        e.call("ip", e.pointer(table, pool.LOCK), e.at(table, pool.MUTEX))
        e.add_atomic(e.at(table, pool.SLEEPERS), 1)
        b.branch(check)
        b.position_at_end(check)
        b.cbranch(b.or_(stopped(), available()), up, nap)
        b.position_at_end(nap)
        e.call("ipp", e.pointer(table, pool.WAIT), e.at(table, pool.CONDITION), e.at(table, pool.MUTEX))
        b.branch(check)
        b.position_at_end(up)
        e.add_atomic(e.at(table, pool.SLEEPERS), -1)
        e.call("ip", e.pointer(table, pool.UNLOCK), e.at(table, pool.MUTEX))
        turns.add_incoming(e.const(0), up)
        b.branch(look)

        b.position_at_end(stop)
        b.ret_void()


def _run(module: ir.Module, name: str) -> Any:
    """`i64 run(machine, plan, slots)`: the command loop; -1, or the step of the first command that failed."""
    parallel = _parallel(module, f"{name}.parallel")
    e = _Emitter(module, name, "l", "ppp", internal=True)
    table, plan, slots = e.function.args
    b = e.b
    commands, rows = e.word(plan, PLAN_COMMANDS), e.pointer(plan, PLAN_COMMAND_TABLE)
    the_pool = e.pointer(table, _M["pool"])
    failed = b.append_basic_block("failed")
    b.position_at_end(failed)
    failure = b.phi(e.i64)
    b.ret(failure)
    b.position_at_end(e.function.entry_basic_block)

    def command(i: Any) -> None:
        row = e.at(rows, b.mul(i, e.const(COMMAND_WORDS)))
        fn, args = e.pointer(row, COMMAND_FUNCTION), e.pointer(row, COMMAND_ARGS)
        units, pieces = e.word(row, COMMAND_UNITS), e.word(row, COMMAND_PIECES)
        alone, large, shared, done, ok = (b.append_basic_block(n) for n in ("alone", "large", "shared", "done", "ok"))
        b.cbranch(b.icmp_signed(">", pieces, e.const(1)), large, alone)
        b.position_at_end(large)
        threads = e.atomic(e.at(the_pool, pool.WORKERS), "monotonic")
        b.cbranch(b.icmp_signed(">", threads, e.const(0)), shared, alone)
        b.position_at_end(shared)
        of_many = b.call(parallel, [the_pool, fn, slots, args, units, pieces])
        b.branch(done)
        b.position_at_end(alone)
        of_one = e.call("ippll", fn, slots, args, e.const(0), units)
        b.branch(done)
        b.position_at_end(done)
        status = b.phi(e.i32)
        status.add_incoming(of_many, shared)
        status.add_incoming(of_one, alone)
        step = e.word(row, COMMAND_STEP)
        failure.add_incoming(step, done)
        b.cbranch(b.icmp_signed("==", status, e.i32(0)), ok, failed)
        b.position_at_end(ok)

    e.loop(commands, command)
    b.ret(e.const(-1))
    return e.function


def _blas(module: ir.Module, name: str, *, entering: bool) -> Any:
    """`void blas(machine)`: one BLAS thread while any launch that multiplies matrices runs, then as it was.

    Large products are cut by this package, at boundaries that depend on shapes alone; so must be what BLAS does inside.
    """
    e = _Emitter(module, name, "v", "p", internal=True)
    (table,) = e.function.args
    b = e.b
    lock = e.at(table, _M["blas_lock"])
    get, held, change, unlock = (b.append_basic_block(n) for n in ("get", "held", "change", "unlock"))
    b.branch(get)
    b.position_at_end(get)
    claimed = b.cmpxchg(lock, e.const(0), e.const(1), "acquire", "monotonic")
    b.cbranch(b.extract_value(claimed, 1), held, get)
    b.position_at_end(held)
    depth = e.at(table, _M["blas_depth"])
    before = e.word(table, _M["blas_depth"])
    after = b.add(before, e.const(1 if entering else -1))
    b.store(after, depth)
    saved = e.at(table, _M["blas_saved"])
    b.cbranch(b.icmp_signed("==", before if entering else after, e.const(0)), change, unlock)
    b.position_at_end(change)
    count = (
        e.call("i", e.pointer(table, _M["blas_get_threads"]))
        if entering
        else b.trunc(e.word(table, _M["blas_saved"]), e.i32)
    )
    if entering:
        b.store(b.sext(count, e.i64), saved)
    with b.if_then(b.icmp_signed("!=", count, e.i32(1))):
        e.call("vi", e.pointer(table, _M["blas_set_threads"]), e.i32(1) if entering else count)
    b.branch(unlock)
    b.position_at_end(unlock)
    e.set_atomic(0, lock, "release")
    b.ret_void()
    return e.function


@dataclass(frozen=True)
class Launch:
    """`PyObject *launch(PyObject *plan, PyObject *const *args, Py_ssize_t nargs)`."""

    def emit(self, module: ir.Module, name: str) -> None:
        run = _run(module, f"{name}.run")
        blas_enter = _blas(module, f"{name}.blas_enter", entering=True)
        blas_leave = _blas(module, f"{name}.blas_leave", entering=False)
        e = _Emitter(module, name, "p", "ppl")
        this, args, count = e.function.args
        b, null = e.b, e.ptr(None)
        plan = b.load(e.bytes_at(this, _DATA), typ=e.ptr)
        table = e.pointer(plan, PLAN_MACHINE)

        def python(signature: str, function: str, *operands: Any) -> Any:
            return e.call(signature, e.pointer(table, _M[function]), *operands)

        def refuse(message: str, *operands: Any) -> None:
            """End the block: raise TypeError."""
            error = e.pointer(table, _M["TypeError"])
            kind = e.type("p", "pp", var_arg=True)
            e.ir_call(kind, e.pointer(table, _M["PyErr_Format"]), [error, e.text(message), *operands])
            b.ret(null)

        arguments, outputs = e.word(plan, PLAN_ARGUMENTS), e.word(plan, PLAN_OUTPUTS)
        number_of_slots = e.word(plan, PLAN_SLOTS)
        with b.if_then(b.icmp_signed("!=", count, arguments), likely=False):
            refuse("got %zd arrays; the program takes %zd; pass one array for each of its inputs", count, arguments)

        def check(i: Any) -> None:
            kind = b.load(e.bytes_at(e.pointer(args, i), _TYPE), typ=e.ptr)
            right = b.icmp_unsigned("==", kind, e.pointer(table, _M["ndarray"]))
            wrong, good = b.append_basic_block("wrong"), b.append_basic_block("good")
            b.cbranch(right, good, wrong)
            b.position_at_end(wrong)
            refuse(
                "got an object that is not a numpy.ndarray as input %zd; a launch takes exact ndarrays only; convert "
                "it with numpy.asarray",
                i,
            )
            b.position_at_end(good)

        e.loop(arguments, check)

        # The plan's own slots and arena, or copies where another call is using them.
        own_slots = e.pointer(plan, PLAN_SLOT_TABLE)
        busy = b.icmp_signed("!=", e.word(plan, PLAN_BUSY), e.const(0))
        claim, copy, ready = (b.append_basic_block(n) for n in ("claim", "copy", "ready"))
        b.cbranch(busy, copy, claim)
        b.position_at_end(claim)
        b.store(e.const(1), e.at(plan, PLAN_BUSY))
        b.branch(ready)
        b.position_at_end(copy)
        arena_bytes = e.word(plan, PLAN_ARENA_BYTES)
        slot_bytes = b.shl(number_of_slots, e.const(3))
        total = b.add(b.add(slot_bytes, arena_bytes), e.const(_ARENA_ALIGNMENT))
        memory = e.call("pl", e.pointer(table, _M["malloc"]), total)
        with b.if_then(b.icmp_unsigned("==", memory, null), likely=False):
            b.ret(python("p", "PyErr_NoMemory"))
        aligned = b.and_(b.add(b.ptrtoint(memory, e.i64), e.const(_ARENA_ALIGNMENT - 1)), e.const(-_ARENA_ALIGNMENT))
        own_arena = e.bytes_at(memory, b.sub(aligned, b.ptrtoint(memory, e.i64)))
        new_slots = e.bytes_at(own_arena, arena_bytes)  # arena sizes are multiples of the alignment
        e.loop(number_of_slots, lambda i: b.store(e.word(own_slots, i), e.at(new_slots, i)) and None)
        b.store(own_arena, e.at(new_slots, b.add(arguments, outputs)))
        copied = b.block
        b.branch(ready)
        b.position_at_end(ready)
        slots = b.phi(e.ptr)
        slots.add_incoming(own_slots, claim)
        slots.add_incoming(new_slots, copied)
        block = b.phi(e.ptr)  # what to free in the end
        block.add_incoming(null, claim)
        block.add_incoming(memory, copied)

        def leave() -> None:
            mine, theirs, after = (b.append_basic_block(n) for n in ("mine", "theirs", "left"))
            b.cbranch(b.icmp_unsigned("==", block, null), mine, theirs)
            b.position_at_end(mine)
            b.store(e.const(0), e.at(plan, PLAN_BUSY))
            b.branch(after)
            b.position_at_end(theirs)
            e.call("vp", e.pointer(table, _M["free"]), block)
            b.branch(after)
            b.position_at_end(after)

        e.loop(arguments, lambda i: self._take(e, e.pointer(args, i), slots, i))

        # Results.
        rows = e.pointer(plan, PLAN_OUTPUT_TABLE)
        no_memory = b.append_basic_block("no_memory")
        compute = b.append_basic_block("compute")
        none, one, tuple_, fill = (b.append_basic_block(n) for n in ("none", "one", "tuple", "fill"))
        kinds = b.switch(outputs, tuple_)
        kinds.add_case(e.const(0), none)
        kinds.add_case(e.const(1), one)

        def allocate(i: Any) -> Any:
            row = e.at(rows, b.mul(i, e.const(OUTPUT_WORDS)))
            dtype = e.pointer(row, OUTPUT_DTYPE)
            python("vp", "Py_IncRef", dtype)  # PyArray_Empty steals one
            rank = b.trunc(e.word(row, OUTPUT_RANK), e.i32)
            return python("pippi", "PyArray_Empty", rank, e.pointer(row, OUTPUT_DIMS), dtype, e.i32(0))

        b.position_at_end(none)
        nothing = e.pointer(table, _M["None"])
        python("vp", "Py_IncRef", nothing)
        b.branch(compute)

        b.position_at_end(one)
        array = allocate(e.const(0))
        usable = b.append_basic_block("usable")
        b.cbranch(b.icmp_unsigned("==", array, null), no_memory, usable)
        b.position_at_end(usable)
        self._take(e, array, slots, arguments)
        b.branch(compute)

        b.position_at_end(tuple_)
        several = python("pl", "PyTuple_New", outputs)
        b.cbranch(b.icmp_unsigned("==", several, null), no_memory, fill)
        b.position_at_end(fill)
        no_item = b.append_basic_block("no_item")

        def item(i: Any) -> None:
            array = allocate(i)
            good = b.append_basic_block("item")
            b.cbranch(b.icmp_unsigned("==", array, null), no_item, good)
            b.position_at_end(good)
            self._take(e, array, slots, b.add(arguments, i))
            python("ipl" + "p", "PyTuple_SetItem", several, i, array)

        e.loop(outputs, item)
        filled = b.block
        b.branch(compute)

        b.position_at_end(no_item)
        python("vp", "Py_DecRef", several)
        b.branch(no_memory)
        b.position_at_end(no_memory)  # the error is set already
        leave()
        b.ret(null)

        b.position_at_end(compute)
        result = b.phi(e.ptr)
        for value, origin in ((nothing, none), (array, usable), (several, filled)):
            result.add_incoming(value, origin)
        flags = e.word(plan, PLAN_FLAGS)
        plain, special, finish = (b.append_basic_block(n) for n in ("plain", "special", "finish"))
        b.cbranch(b.icmp_signed("==", flags, e.const(0)), plain, special)
        b.position_at_end(plain)
        plain_step = b.call(run, [table, plan, slots])
        b.branch(finish)
        b.position_at_end(special)
        special_step = self._special(e, flags, run, (blas_enter, blas_leave), (table, plan, slots))
        special_end = b.block
        b.branch(finish)
        b.position_at_end(finish)
        step = b.phi(e.i64)
        step.add_incoming(plain_step, plain)
        step.add_incoming(special_step, special_end)
        leave()
        with b.if_then(b.icmp_signed(">=", step, e.const(0)), likely=False):
            python("vp", "Py_DecRef", result)
            b.ret(python("pl", "PyLong_FromLong", step))
        b.ret(result)

    @staticmethod
    def _take(e: _Emitter, array: Any, slots: Any, slot: Any) -> None:
        e.b.store(e.b.load(e.bytes_at(array, _DATA), typ=e.ptr), e.at(slots, slot))

    @staticmethod
    def _special(e: _Emitter, flags: Any, run: Any, blas: tuple[Any, Any], operands: tuple[Any, Any, Any]) -> Any:
        """Run without the GIL, or with BLAS held to one thread, or both."""
        b, table = e.b, operands[0]
        releases = b.icmp_signed("!=", b.and_(flags, e.const(RELEASE_GIL)), e.const(0))
        multiplies = b.icmp_signed("!=", b.and_(flags, e.const(USES_BLAS)), e.const(0))
        state = b.alloca(e.ptr)
        with b.if_then(releases):
            b.store(e.call("p", e.pointer(table, _M["PyEval_SaveThread"])), state)
        with b.if_then(multiplies):
            b.call(blas[0], [table])
        step = b.call(run, list(operands))
        with b.if_then(multiplies):
            b.call(blas[1], [table])
        with b.if_then(releases):
            e.call("vp", e.pointer(table, _M["PyEval_RestoreThread"]), b.load(state, typ=e.ptr))
        return step
