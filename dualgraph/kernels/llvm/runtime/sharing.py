"""How a command is shared with the pool: what the calling thread does, and the loop of a pool thread.

The pool is a table of words (`cpu.pool`). At most one task is open; its pieces are taken by an atomic counter.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm.runtime.emitter import Emitter
from dualgraph.kernels.llvm.runtime.variants import Worker


def _pieces(module: ir.Module, name: str) -> Any:
    """`void pieces(pool)`: take pieces of the open task until none is left."""
    e = Emitter(module, name, "v", "p", internal=True)
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


def parallel(module: ir.Module, name: str) -> Any:
    """`i32 parallel(pool, fn, slots, args, units, pieces)`: offer a command to the pool and take part in it.

    A task is open from the moment its fields are written until its pieces are all taken; a worker announces itself in
    `inside` before it looks whether the task is open, so when nobody is inside after closing, nobody reads the fields.
    """
    pieces_of = _pieces(module, f"{name}.pieces")
    e = Emitter(module, name, "i", "ppppll", internal=True)
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


def emit_worker(_: Worker, module: ir.Module, name: str) -> None:
    pieces_of = _pieces(module, f"{name}.pieces")
    e = Emitter(module, name, "v", "pl")
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
