"""The loop over the commands of a launch, and BLAS held to one thread while commands multiply matrices."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.llvm.runtime.emitter import Emitter
from dualgraph.kernels.llvm.runtime.sharing import parallel


def command_loop(module: ir.Module, name: str) -> Any:
    """`i64 run(machine, plan, slots)`: the command loop; -1, or the step of the first command that failed."""
    shared_run = parallel(module, f"{name}.parallel")
    e = Emitter(module, name, "l", "ppp", internal=True)
    table, plan, slots = e.function.args
    b = e.b
    commands, rows = e.word(plan, tables.PLAN_COMMANDS), e.pointer(plan, tables.PLAN_COMMAND_TABLE)
    the_pool = e.pointer(table, tables.WORD["pool"])
    failed = b.append_basic_block("failed")
    b.position_at_end(failed)
    failure = b.phi(e.i64)
    b.ret(failure)
    b.position_at_end(e.function.entry_basic_block)

    def command(i: Any) -> None:
        row = e.at(rows, b.mul(i, e.const(tables.COMMAND_WORDS)))
        fn, args = e.pointer(row, tables.COMMAND_FUNCTION), e.pointer(row, tables.COMMAND_ARGS)
        units, pieces = e.word(row, tables.COMMAND_UNITS), e.word(row, tables.COMMAND_PIECES)
        alone, large, shared, done, ok = (b.append_basic_block(n) for n in ("alone", "large", "shared", "done", "ok"))
        b.cbranch(b.icmp_signed(">", pieces, e.const(1)), large, alone)
        b.position_at_end(large)
        threads = e.atomic(e.at(the_pool, pool.WORKERS), "monotonic")
        b.cbranch(b.icmp_signed(">", threads, e.const(0)), shared, alone)
        b.position_at_end(shared)
        of_many = b.call(shared_run, [the_pool, fn, slots, args, units, pieces])
        b.branch(done)
        b.position_at_end(alone)
        of_one = e.call("ippll", fn, slots, args, e.const(0), units)
        b.branch(done)
        b.position_at_end(done)
        status = b.phi(e.i32)
        status.add_incoming(of_many, shared)
        status.add_incoming(of_one, alone)
        step = e.word(row, tables.COMMAND_STEP)
        failure.add_incoming(step, done)
        b.cbranch(b.icmp_signed("==", status, e.i32(0)), ok, failed)
        b.position_at_end(ok)

    e.loop(commands, command)
    b.ret(e.const(-1))
    return e.function


def hold_blas(module: ir.Module, name: str, *, entering: bool) -> Any:
    """`void blas(machine)`: one BLAS thread while any launch that multiplies matrices runs, then as it was.

    Large products are cut by this package, at boundaries that depend on shapes alone; so must be what BLAS does inside.
    """
    e = Emitter(module, name, "v", "p", internal=True)
    (table,) = e.function.args
    b = e.b
    lock = e.at(table, tables.WORD["blas_lock"])
    get, held, change, unlock = (b.append_basic_block(n) for n in ("get", "held", "change", "unlock"))
    b.branch(get)
    b.position_at_end(get)
    claimed = b.cmpxchg(lock, e.const(0), e.const(1), "acquire", "monotonic")
    b.cbranch(b.extract_value(claimed, 1), held, get)
    b.position_at_end(held)
    depth = e.at(table, tables.WORD["blas_depth"])
    before = e.word(table, tables.WORD["blas_depth"])
    after = b.add(before, e.const(1 if entering else -1))
    b.store(after, depth)
    saved = e.at(table, tables.WORD["blas_saved"])
    b.cbranch(b.icmp_signed("==", before if entering else after, e.const(0)), change, unlock)
    b.position_at_end(change)
    count = (
        e.call("i", e.pointer(table, tables.WORD["blas_get_threads"]))
        if entering
        else b.trunc(e.word(table, tables.WORD["blas_saved"]), e.i32)
    )
    if entering:
        b.store(b.sext(count, e.i64), saved)
    with b.if_then(b.icmp_signed("!=", count, e.i32(1))):
        e.call("vi", e.pointer(table, tables.WORD["blas_set_threads"]), e.i32(1) if entering else count)
    b.branch(unlock)
    b.position_at_end(unlock)
    e.set_atomic(0, lock, "release")
    b.ret_void()
    return e.function
