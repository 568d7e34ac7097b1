"""One launch of a program: check the arguments, allocate the results, run the commands.

A call checks its arguments, takes their data pointers, allocates the results through NumPy's C API, runs the command
table and returns. Slots (data pointers) live in the plan itself, and it has an arena of scratch buffers. A call that
finds the plan busy (another thread while the GIL is released, or a finaliser run by an allocation) works on copies.

Programs with state are read and changed by the code of `cells`, before and after the commands.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.llvm.runtime.cells import StateCode
from dualgraph.kernels.llvm.runtime.command_loop import command_loop, hold_blas
from dualgraph.kernels.llvm.runtime.emitter import Emitter
from dualgraph.kernels.llvm.runtime.variants import Launch


def emit(_: Launch, module: ir.Module, name: str) -> None:
    run = command_loop(module, f"{name}.run")
    blas_enter = hold_blas(module, f"{name}.blas_enter", entering=True)
    blas_leave = hold_blas(module, f"{name}.blas_leave", entering=False)
    code = _LaunchCode(module, name)
    code.check_arguments()
    code.check_cells()
    code.claim_slots()
    code.take_arguments()
    code.allocate_results()
    code.take_memory()
    step = code.run_commands(run, blas_enter, blas_leave)
    code.undo()
    code.finish(step)


class _LaunchCode:
    """The phases of a launch in the order in which they are emitted; what a later one needs, an earlier one leaves here."""

    def __init__(self, module: ir.Module, name: str):
        e = self.e = Emitter(module, name, "p", "ppl")
        self.b, self.null = e.b, e.ptr(None)
        this, self.args, self.count = e.function.args
        self.plan = self.b.load(e.bytes_at(this, tables.DATA), typ=e.ptr)
        self.table = e.pointer(self.plan, tables.PLAN_MACHINE)
        self.arguments, self.outputs = e.word(self.plan, tables.PLAN_ARGUMENTS), e.word(self.plan, tables.PLAN_OUTPUTS)
        self.state = StateCode(e, self.plan, self.table)
        self.inputs = self.b.add(self.arguments, self.state.cells)
        self.number_of_slots = e.word(self.plan, tables.PLAN_SLOTS)

    # ---- idioms ----------------------------------------------------------------------------------------------------

    def python(self, signature: str, function: str, *operands: Any) -> Any:
        return self.e.call(signature, self.e.pointer(self.table, tables.WORD[function]), *operands)

    def refuse(self, message: str, *operands: Any) -> None:
        """End the block: raise TypeError."""
        e = self.e
        error = e.pointer(self.table, tables.WORD["TypeError"])
        kind = e.type("p", "pp", var_arg=True)
        e.ir_call(kind, e.pointer(self.table, tables.WORD["PyErr_Format"]), [error, e.text(message), *operands])
        self.b.ret(self.null)

    def blocks(self, *names: str) -> list[Any]:
        return [self.b.append_basic_block(name) for name in names]

    def is_array(self, thing: Any) -> Any:
        kind = self.b.load(self.e.bytes_at(thing, tables.TYPE), typ=self.e.ptr)
        return self.b.icmp_unsigned("==", kind, self.e.pointer(self.table, tables.WORD["ndarray"]))

    def is_null(self, thing: Any) -> Any:
        return self.b.icmp_unsigned("==", thing, self.null)

    def take(self, array: Any, slot: Any) -> None:
        self.b.store(self.b.load(self.e.bytes_at(array, tables.DATA), typ=self.e.ptr), self.e.at(self.slots, slot))

    # ---- what comes in ---------------------------------------------------------------------------------------------

    def check_arguments(self) -> None:
        b = self.b
        with b.if_then(b.icmp_signed("!=", self.count, self.arguments), likely=False):
            self.refuse(
                "got %zd arrays; the program takes %zd; pass one array for each of its inputs",
                self.count,
                self.arguments,
            )

        def check(i: Any) -> None:
            right = self.is_array(self.e.pointer(self.args, i))
            wrong, good = self.blocks("wrong", "good")
            b.cbranch(right, good, wrong)
            b.position_at_end(wrong)
            self.refuse(
                "got an object that is not a numpy.ndarray as input %zd; a launch takes exact ndarrays only; convert "
                "it with numpy.asarray",
                i,
            )
            b.position_at_end(good)

        self.e.loop(self.arguments, check)

    def check_cells(self) -> None:
        b = self.b

        def check(i: Any) -> None:
            array = self.state.array(i)
            wrong, held, good = self.blocks("wrong", "held", "good")
            b.cbranch(self.is_null(array), wrong, held)
            b.position_at_end(held)
            b.cbranch(self.is_array(array), good, wrong)
            b.position_at_end(wrong)
            self.refuse(
                "got a variable (number %zd of the program) that holds no numpy.ndarray; assign a value to it", i
            )
            b.position_at_end(good)

        self.e.loop(self.state.cells, check)

    def claim_slots(self) -> None:
        """The plan's own slots and arena, or copies where another call is using them."""
        e, b = self.e, self.b
        own_slots = e.pointer(self.plan, tables.PLAN_SLOT_TABLE)
        busy = b.icmp_signed("!=", e.word(self.plan, tables.PLAN_BUSY), e.const(0))
        claim, copy, ready = self.blocks("claim", "copy", "ready")
        b.cbranch(busy, copy, claim)
        b.position_at_end(claim)
        b.store(e.const(1), e.at(self.plan, tables.PLAN_BUSY))
        b.branch(ready)
        b.position_at_end(copy)
        memory, new_slots = self._copy_slots(own_slots)
        copied = b.block
        b.branch(ready)
        b.position_at_end(ready)
        self.slots = b.phi(e.ptr)
        self.slots.add_incoming(own_slots, claim)
        self.slots.add_incoming(new_slots, copied)
        self.block = b.phi(e.ptr)  # what to free in the end
        self.block.add_incoming(self.null, claim)
        self.block.add_incoming(memory, copied)

    def _copy_slots(self, own_slots: Any) -> tuple[Any, Any]:
        """New memory, in it an arena, and behind that the slots."""
        e, b = self.e, self.b
        arena_bytes = e.word(self.plan, tables.PLAN_ARENA_BYTES)
        slot_bytes = b.shl(self.number_of_slots, e.const(3))
        total = b.add(b.add(slot_bytes, arena_bytes), e.const(tables.ARENA_ALIGNMENT))
        memory = e.call("pl", e.pointer(self.table, tables.WORD["malloc"]), total)
        with b.if_then(self.is_null(memory), likely=False):
            b.ret(self.python("p", "PyErr_NoMemory"))
        aligned = b.and_(
            b.add(b.ptrtoint(memory, e.i64), e.const(tables.ARENA_ALIGNMENT - 1)), e.const(-tables.ARENA_ALIGNMENT)
        )
        own_arena = e.bytes_at(memory, b.sub(aligned, b.ptrtoint(memory, e.i64)))
        new_slots = e.bytes_at(own_arena, arena_bytes)  # arena sizes are multiples of the alignment
        e.loop(self.number_of_slots, lambda i: b.store(e.word(own_slots, i), e.at(new_slots, i)) and None)
        b.store(own_arena, e.at(new_slots, b.add(self.inputs, self.outputs)))
        return memory, new_slots

    def leave_slots(self) -> None:
        """The plan is free again, or the copies are."""
        e, b = self.e, self.b
        mine, theirs, after = self.blocks("mine", "theirs", "left")
        b.cbranch(self.is_null(self.block), mine, theirs)
        b.position_at_end(mine)
        b.store(e.const(0), e.at(self.plan, tables.PLAN_BUSY))
        b.branch(after)
        b.position_at_end(theirs)
        e.call("vp", e.pointer(self.table, tables.WORD["free"]), self.block)
        b.branch(after)
        b.position_at_end(after)

    def take_arguments(self) -> None:
        self.e.loop(self.arguments, lambda i: self.take(self.e.pointer(self.args, i), self.state.place(i)))
        self.state.begin(self.slots, self.number_of_slots, self.outputs)

    # ---- what goes out ---------------------------------------------------------------------------------------------

    def allocate_results(self) -> None:
        """None, an array or a tuple of new arrays; their memory is in the slots."""
        e, b = self.e, self.b
        self.rows = e.pointer(self.plan, tables.PLAN_OUTPUT_TABLE)
        self.no_memory, compute = self.blocks("no_memory", "compute")
        none, one, tuple_, fill = self.blocks("none", "one", "tuple", "fill")
        kinds = b.switch(self.state.returned, tuple_)
        kinds.add_case(e.const(0), none)
        kinds.add_case(e.const(1), one)

        b.position_at_end(none)
        nothing = e.pointer(self.table, tables.WORD["None"])
        self.python("vp", "Py_IncRef", nothing)
        b.branch(compute)

        b.position_at_end(one)
        array = self.allocate(e.const(0))
        (usable,) = self.blocks("usable")
        b.cbranch(self.is_null(array), self.no_memory, usable)
        b.position_at_end(usable)
        self.take(array, self.inputs)
        b.branch(compute)

        b.position_at_end(tuple_)
        several, filled, no_item = self._allocate_tuple(fill)
        b.branch(compute)

        b.position_at_end(no_item)
        self.python("vp", "Py_DecRef", several)
        b.branch(self.no_memory)
        b.position_at_end(self.no_memory)  # the error is set already
        self.leave_slots()
        b.ret(self.null)

        b.position_at_end(compute)
        self.result = b.phi(e.ptr)
        for value, origin in ((nothing, none), (array, usable), (several, filled)):
            self.result.add_incoming(value, origin)

    def allocate(self, i: Any) -> Any:
        """A new array for output i; null where there is no memory."""
        e, b = self.e, self.b
        row = e.at(self.rows, b.mul(i, e.const(tables.OUTPUT_WORDS)))
        dtype = e.pointer(row, tables.OUTPUT_DTYPE)
        self.python("vp", "Py_IncRef", dtype)  # PyArray_Empty steals one
        rank = b.trunc(e.word(row, tables.OUTPUT_RANK), e.i32)
        return self.python("pippi", "PyArray_Empty", rank, e.pointer(row, tables.OUTPUT_DIMS), dtype, e.i32(0))

    def _allocate_tuple(self, fill: Any) -> tuple[Any, Any, Any]:
        """The tuple, the block in which it is full, and one to go to where an item found no memory."""
        e, b = self.e, self.b
        several = self.python("pl", "PyTuple_New", self.state.returned)
        b.cbranch(self.is_null(several), self.no_memory, fill)
        b.position_at_end(fill)
        (no_item,) = self.blocks("no_item")

        def item(i: Any) -> None:
            array = self.allocate(i)
            (good,) = self.blocks("item")
            b.cbranch(self.is_null(array), no_item, good)
            b.position_at_end(good)
            self.take(array, b.add(self.inputs, i))
            self.python("ipl" + "p", "PyTuple_SetItem", several, i, array)

        e.loop(self.state.returned, item)
        return several, b.block, no_item

    def take_memory(self) -> None:
        """For what is left in objects and for cells; from here on a failure has to be undone."""
        (self.undoing,) = self.blocks("undo")
        self.flags = self.state.mode()
        self.state.take_outputs(self.inputs, self.allocate, self.undoing)
        self.state.take_cells(self.undoing)

    # ---- the run ---------------------------------------------------------------------------------------------------

    def run_commands(self, run: Any, blas_enter: Any, blas_leave: Any) -> list[tuple[Any, Any]]:
        """What the command loop gave, and where; the builder then stands nowhere."""
        e, b = self.e, self.b
        plain, special, self.finishing = self.blocks("plain", "special", "finish")
        b.cbranch(b.icmp_signed("==", self.flags, e.const(0)), plain, special)
        b.position_at_end(plain)
        plain_step = b.call(run, [self.table, self.plan, self.slots])
        b.branch(self.finishing)
        b.position_at_end(special)
        special_step = self._special(run, blas_enter, blas_leave)
        special_end = b.block
        b.branch(self.finishing)
        return [(plain_step, plain), (special_step, special_end)]

    def _special(self, run: Any, blas_enter: Any, blas_leave: Any) -> Any:
        """Run without the GIL, or with BLAS held to one thread, or both."""
        e, b, table = self.e, self.b, self.table
        releases = b.icmp_signed("!=", b.and_(self.flags, e.const(tables.RELEASE_GIL)), e.const(0))
        multiplies = b.icmp_signed("!=", b.and_(self.flags, e.const(tables.USES_BLAS)), e.const(0))
        thread = b.alloca(e.ptr)
        with b.if_then(releases):
            b.store(e.call("p", e.pointer(table, tables.WORD["PyEval_SaveThread"])), thread)
        with b.if_then(multiplies):
            b.call(blas_enter, [table])
        step = b.call(run, [table, self.plan, self.slots])
        with b.if_then(multiplies):
            b.call(blas_leave, [table])
        with b.if_then(releases):
            e.call("vp", e.pointer(table, tables.WORD["PyEval_RestoreThread"]), b.load(thread, typ=e.ptr))
        return step

    def undo(self) -> None:
        self.b.position_at_end(self.undoing)
        self.state.drop()
        self.python("vp", "Py_DecRef", self.result)
        self.b.branch(self.no_memory)

    def finish(self, steps: list[tuple[Any, Any]]) -> None:
        """Commit the state and return the result, or the number of the step that failed."""
        e, b = self.e, self.b
        b.position_at_end(self.finishing)
        step = b.phi(e.i64)
        for value, origin in steps:
            step.add_incoming(value, origin)
        with b.if_then(b.icmp_signed("<", step, e.const(0)), likely=True):
            self.state.commit()
        self.state.drop()
        self.leave_slots()
        with b.if_then(b.icmp_signed(">=", step, e.const(0)), likely=False):
            self.python("vp", "Py_DecRef", self.result)
            b.ret(self.python("pl", "PyLong_FromLong", step))
        b.ret(self.result)
