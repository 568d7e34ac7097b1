"""The parts of a launch that read and change state (`kernels.state`): cells before the commands, all slots after them.

A launch writes into the array of a cell itself where four things hold, else into a copy:

- Its count of references is 1. That one is the slot's, which is read here without taking another; so nobody else holds
  the array, through whatever view, buffer or argument. Nothing is asked about how an interpreter counts what is on its
  stack: whoever has the array besides got it from the slot by a new reference, or borrows it from a local variable or
  an argument tuple, which own theirs.
- It owns its memory: views of an array that does not would hold the owner and not it.
- The GIL is kept from this test to the last write, and no Python code runs in between: allocating an array of numbers
  runs none (the tuple of results, whose allocation may collect garbage, is made before).
- The program writes to it when nothing can fail any more.

A launch that releases the GIL therefore writes into copies only, and holds what it reads. It does so where another
thread exists, and keeps the GIL where nobody would gain. That is a question of speed alone: while the GIL is kept,
threads of whatever origin that come meanwhile wait.

Outputs that are left in objects follow the same rule: a new gradient is written over the old one where nobody else has
that, be it there as an array or as a tensor that only the slot holds. So a step that clears its gradients needs the
memory of one set, though the old set must survive a failure. Nothing is put into a slot before all commands have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.llvm.runtime.emitter import Emitter


class StateCode:
    """Emits them into a launch. Without state, each is a loop that ends before it begins.

    `holds` are the words behind the slots: for each cell what takes its place (or is read meanwhile), then the outputs
    to leave, then what was in their slots. Whatever is there is let go in the end.
    """

    def __init__(self, e: Emitter, plan: Any, table: Any):
        self.e, self.plan, self.table, self.null = e, plan, table, e.ptr(None)
        self.cells, self.first = e.word(plan, tables.PLAN_CELLS), e.word(plan, tables.PLAN_FIRST)
        self.left, self.returned = e.word(plan, tables.PLAN_LEFT), e.word(plan, tables.PLAN_RETURNED)
        self.rows, self.left_rows = e.pointer(plan, tables.PLAN_CELL_TABLE), e.pointer(plan, tables.PLAN_LEFT_TABLE)

    def python(self, signature: str, function: str, *operands: Any) -> Any:
        return self.e.call(signature, self.e.pointer(self.table, tables.WORD[function]), *operands)

    def row(self, i: Any) -> Any:
        return self.e.at(self.rows, self.e.b.mul(i, self.e.const(tables.CELL_WORDS)))

    def array(self, i: Any) -> Any:
        """What is in a cell now: a borrowed reference."""
        return self.e.b.load(self.e.pointer(self.row(i), tables.CELL_SLOT), typ=self.e.ptr)

    def field(self, thing: Any, offset: int, kind: Any) -> Any:
        return self.e.b.load(self.e.bytes_at(thing, offset), typ=kind)

    def left_row(self, i: Any) -> Any:
        return self.e.at(self.left_rows, self.e.b.mul(i, self.e.const(tables.LEFT_WORDS)))

    def use(self, i: Any) -> Any:
        return self.e.word(self.row(i), tables.CELL_USE)

    def is_equal(self, thing: Any, other: Any) -> Any:
        return self.e.b.icmp_unsigned("==", thing, other)

    def place(self, i: Any) -> Any:
        """The slot of argument i: the cells stand among the arguments."""
        b = self.e.b
        return b.select(b.icmp_signed("<", i, self.first), i, b.add(i, self.cells))

    def begin(self, slots: Any, number_of_slots: Any, outputs: Any) -> None:
        """Nothing is held yet."""
        e, b = self.e, self.e.b
        self.slots, self.kept = slots, b.sub(outputs, self.returned)  # those that are left in objects
        self.objects = b.add(self.cells, b.add(self.kept, self.left))
        self.holds = e.at(slots, b.sub(number_of_slots, self.objects))
        e.loop(self.objects, lambda i: b.store(self.null, e.at(self.holds, i)) and None)

    def mode(self) -> Any:
        """What the commands run under: `RELEASE_GIL`, where somebody may gain, and `USES_BLAS`."""
        e, b = self.e, self.e.b
        self.flags = e.word(self.plan, tables.PLAN_FLAGS)
        mode = b.and_(self.flags, e.const(tables.RELEASE_GIL | tables.USES_BLAS))
        both = e.const(tables.RELEASE_GIL | tables.WRITES_CELLS)
        start = b.block
        look, head, some, more = (b.append_basic_block(n) for n in ("look", "thread", "some", "more"))
        alone, others, known = (b.append_basic_block(n) for n in ("alone", "others", "known"))
        b.cbranch(b.icmp_signed("==", b.and_(self.flags, both), both), look, known)
        b.position_at_end(look)
        ours = b.add(e.word(e.pointer(self.table, tables.WORD["pool"]), pool.WORKERS), e.const(1))
        newest = self.python("pp", "PyInterpreterState_ThreadHead", self.python("p", "PyInterpreterState_Get"))
        b.branch(head)
        b.position_at_end(head)
        thread, seen = b.phi(e.ptr), b.phi(e.i64)
        b.cbranch(b.icmp_unsigned("==", thread, self.null), alone, some)
        b.position_at_end(some)
        now = b.add(seen, e.const(1))
        b.cbranch(b.icmp_signed(">", now, ours), others, more)
        b.position_at_end(more)
        following = self.python("pp", "PyThreadState_Next", thread)
        for phi, at_first, later in ((thread, newest, following), (seen, e.const(0), now)):
            phi.add_incoming(at_first, look)
            phi.add_incoming(later, more)
        b.branch(head)
        b.position_at_end(alone)
        kept = b.and_(mode, e.const(tables.USES_BLAS))
        b.branch(known)
        b.position_at_end(others)
        b.branch(known)
        b.position_at_end(known)
        result = b.phi(e.i64)
        for value, origin in ((mode, start), (kept, alone), (mode, others)):
            result.add_incoming(value, origin)
        self.keeps_gil = b.icmp_signed("==", b.and_(result, e.const(tables.RELEASE_GIL)), e.const(0))
        return result

    def once(self, thing: Any) -> Any:
        e, b = self.e, self.e.b
        return b.icmp_signed("==", self.field(thing, tables.REFERENCES, e.i32), e.i32(1))

    def sole(self, array: Any) -> Any:
        """Does its slot alone hold this array, which is the owner of its memory, and will it stay so?"""
        e, b = self.e, self.e.b
        owner = b.and_(self.field(array, tables.FLAGS, e.i32), e.i32(tables.OWNS_DATA))
        return b.and_(b.and_(self.once(array), b.icmp_signed("!=", owner, e.i32(0))), self.keeps_gil)

    def take_outputs(self, inputs: Any, allocate: Callable[[Any], Any], undo: Any) -> None:
        """Memory for the outputs that are left in objects: that of the gradient before, or new."""
        e, b = self.e, self.e.b
        ndarray = e.pointer(self.table, tables.WORD["ndarray"])
        wrapper, whole = e.pointer(self.plan, tables.PLAN_WRAPPER), e.pointer(self.plan, tables.PLAN_WHOLE)
        value, form = e.word(self.plan, tables.PLAN_WRAPPER_VALUE), e.word(self.plan, tables.PLAN_WRAPPER_LAYOUT)

        def output(i: Any) -> None:
            number, row = b.add(self.returned, i), self.left_row(i)
            names = "look", "found", "other", "wrapped", "inner", "array", "again", "new", "good", "ready"
            look, found, other, wrapped, inner, array, again, new, good, ready = map(b.append_basic_block, names)
            late = b.icmp_signed("!=", e.word(row, tables.LEFT_AT_THE_END), e.const(0))
            b.cbranch(b.and_(late, self.keeps_gil), look, new)
            b.position_at_end(look)
            before = b.load(e.pointer(row, tables.LEFT_SLOT), typ=e.ptr)
            b.cbranch(self.is_equal(before, self.null), new, found)
            b.position_at_end(found)
            kind = self.field(before, tables.TYPE, e.ptr)
            b.cbranch(self.is_equal(kind, ndarray), array, other)
            b.position_at_end(other)
            b.cbranch(b.and_(self.is_equal(kind, wrapper), self.once(before)), wrapped, new)
            b.position_at_end(wrapped)
            inside = b.load(e.bytes_at(before, value), typ=e.ptr)
            shape = b.load(e.bytes_at(before, form), typ=e.ptr)
            b.cbranch(b.or_(self.is_equal(inside, self.null), self.is_equal(shape, self.null)), new, inner)
            b.position_at_end(inner)
            b.cbranch(self.is_equal(self.field(shape, tables.TYPE, e.ptr), whole), array, new)
            b.position_at_end(array)
            old = b.phi(e.ptr)
            old.add_incoming(before, found)
            old.add_incoming(inside, inner)
            b.cbranch(self.sole(old), again, new)
            b.position_at_end(again)
            self.python("vp", "Py_IncRef", old)
            b.branch(ready)
            b.position_at_end(new)
            made = allocate(number)
            b.cbranch(b.icmp_unsigned("==", made, self.null), undo, good)
            b.position_at_end(good)
            b.branch(ready)
            b.position_at_end(ready)
            result = b.phi(e.ptr)
            result.add_incoming(old, again)
            result.add_incoming(made, good)
            b.store(result, e.at(self.holds, b.add(self.cells, i)))
            b.store(self.field(result, tables.DATA, e.ptr), e.at(self.slots, b.add(inputs, number)))

        e.loop(self.kept, output)

    def take_cells(self, undo: Any) -> None:
        """The memory of each cell, or of a copy."""
        e, b = self.e, self.e.b

        def cell(i: Any) -> None:
            array = self.array(i)
            written = b.icmp_signed("!=", self.use(i), e.const(tables.READ))
            changes, copies, made, reads, holds, ready = (
                b.append_basic_block(n) for n in ("changes", "copies", "made", "reads", "holds", "ready")
            )
            b.cbranch(written, changes, reads)
            b.position_at_end(changes)
            late = b.icmp_signed("==", self.use(i), e.const(tables.WRITTEN_AT_THE_END))
            b.cbranch(b.and_(late, self.sole(array)), ready, copies)
            b.position_at_end(copies)
            dtype = self.field(array, tables.DTYPE, e.ptr)
            self.python("vp", "Py_IncRef", dtype)  # PyArray_Empty steals one
            rank, dims = self.field(array, tables.RANK, e.i32), self.field(array, tables.DIMS, e.ptr)
            copy = self.python("pippi", "PyArray_Empty", rank, dims, dtype, e.i32(0))
            b.cbranch(b.icmp_unsigned("==", copy, self.null), undo, made)
            b.position_at_end(made)
            self.python(
                "pppl",
                "memcpy",
                self.field(copy, tables.DATA, e.ptr),
                self.field(array, tables.DATA, e.ptr),
                e.word(self.row(i), tables.CELL_BYTES),
            )
            b.store(copy, e.at(self.holds, i))
            b.branch(ready)
            b.position_at_end(reads)
            b.cbranch(self.keeps_gil, ready, holds)
            b.position_at_end(holds)
            self.python("vp", "Py_IncRef", array)
            b.store(array, e.at(self.holds, i))
            b.branch(ready)
            b.position_at_end(ready)
            used = b.phi(e.ptr)
            for value, origin in ((array, changes), (copy, made), (array, reads), (array, holds)):
                used.add_incoming(value, origin)
            b.store(self.field(used, tables.DATA, e.ptr), e.at(self.slots, b.add(self.first, i)))

        e.loop(self.cells, cell)

    def commit(self) -> None:
        """All commands have run: put everything in its slot, and hold what was there."""
        e, b = self.e, self.e.b

        def cell(i: Any) -> None:
            new = e.pointer(self.holds, i)
            written = b.icmp_signed("!=", self.use(i), e.const(tables.READ))
            with b.if_then(b.and_(written, b.icmp_unsigned("!=", new, self.null))):
                b.store(self.array(i), e.at(self.holds, i))
                b.store(new, e.pointer(self.row(i), tables.CELL_SLOT))

        def leave(i: Any) -> None:
            given, nothing, ready = (b.append_basic_block(n) for n in ("given", "nothing", "ready"))
            b.cbranch(b.icmp_signed("<", i, self.kept), given, nothing)
            b.position_at_end(given)
            output = e.pointer(self.holds, b.add(self.cells, i))
            b.branch(ready)
            b.position_at_end(nothing)
            none = e.pointer(self.table, tables.WORD["None"])
            b.branch(ready)
            b.position_at_end(ready)
            new = b.phi(e.ptr)
            new.add_incoming(output, given)
            new.add_incoming(none, nothing)
            self.python("vp", "Py_IncRef", new)
            slot = e.pointer(self.left_row(i), tables.LEFT_SLOT)
            b.store(b.load(slot, typ=e.ptr), e.at(self.holds, b.add(b.add(self.cells, self.kept), i)))
            b.store(new, slot)

        e.loop(self.cells, cell)
        e.loop(self.left, leave)

    def drop(self) -> None:
        """Let go of everything held: the last thing, for a finaliser may run Python code."""
        e, b = self.e, self.e.b

        def let_go(i: Any) -> None:
            held = e.pointer(self.holds, i)
            with b.if_then(b.icmp_unsigned("!=", held, self.null)):
                self.python("vp", "Py_DecRef", held)

        e.loop(self.objects, let_go)
