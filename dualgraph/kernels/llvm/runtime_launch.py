"""One launch of a program: check the arguments, allocate the results, run the commands.

A call checks its arguments, takes their data pointers, allocates the results through NumPy's C API, runs the command
table and returns. Slots (data pointers) live in the plan itself, and it has an arena of scratch buffers. A call that
finds the plan busy (another thread while the GIL is released, or a finaliser run by an allocation) works on copies.

Programs with state are read and changed by the code of `runtime_state`, before and after the commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualgraph.kernels.cpu import pool
from dualgraph.kernels.llvm import plan_layout as layout
from dualgraph.kernels.llvm.runtime_emitter import Emitter
from dualgraph.kernels.llvm.runtime_pool import parallel
from dualgraph.kernels.llvm.runtime_state import StateCode

if TYPE_CHECKING:
    from llvmlite import ir


def _run(module: ir.Module, name: str) -> Any:
    """`i64 run(machine, plan, slots)`: the command loop; -1, or the step of the first command that failed."""
    shared_run = parallel(module, f"{name}.parallel")
    e = Emitter(module, name, "l", "ppp", internal=True)
    table, plan, slots = e.function.args
    b = e.b
    commands, rows = e.word(plan, layout.PLAN_COMMANDS), e.pointer(plan, layout.PLAN_COMMAND_TABLE)
    the_pool = e.pointer(table, layout.WORD["pool"])
    failed = b.append_basic_block("failed")
    b.position_at_end(failed)
    failure = b.phi(e.i64)
    b.ret(failure)
    b.position_at_end(e.function.entry_basic_block)

    def command(i: Any) -> None:
        row = e.at(rows, b.mul(i, e.const(layout.COMMAND_WORDS)))
        fn, args = e.pointer(row, layout.COMMAND_FUNCTION), e.pointer(row, layout.COMMAND_ARGS)
        units, pieces = e.word(row, layout.COMMAND_UNITS), e.word(row, layout.COMMAND_PIECES)
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
        step = e.word(row, layout.COMMAND_STEP)
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
    e = Emitter(module, name, "v", "p", internal=True)
    (table,) = e.function.args
    b = e.b
    lock = e.at(table, layout.WORD["blas_lock"])
    get, held, change, unlock = (b.append_basic_block(n) for n in ("get", "held", "change", "unlock"))
    b.branch(get)
    b.position_at_end(get)
    claimed = b.cmpxchg(lock, e.const(0), e.const(1), "acquire", "monotonic")
    b.cbranch(b.extract_value(claimed, 1), held, get)
    b.position_at_end(held)
    depth = e.at(table, layout.WORD["blas_depth"])
    before = e.word(table, layout.WORD["blas_depth"])
    after = b.add(before, e.const(1 if entering else -1))
    b.store(after, depth)
    saved = e.at(table, layout.WORD["blas_saved"])
    b.cbranch(b.icmp_signed("==", before if entering else after, e.const(0)), change, unlock)
    b.position_at_end(change)
    count = (
        e.call("i", e.pointer(table, layout.WORD["blas_get_threads"]))
        if entering
        else b.trunc(e.word(table, layout.WORD["blas_saved"]), e.i32)
    )
    if entering:
        b.store(b.sext(count, e.i64), saved)
    with b.if_then(b.icmp_signed("!=", count, e.i32(1))):
        e.call("vi", e.pointer(table, layout.WORD["blas_set_threads"]), e.i32(1) if entering else count)
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
        e = Emitter(module, name, "p", "ppl")
        this, args, count = e.function.args
        b, null = e.b, e.ptr(None)
        plan = b.load(e.bytes_at(this, layout.DATA), typ=e.ptr)
        table = e.pointer(plan, layout.PLAN_MACHINE)

        def python(signature: str, function: str, *operands: Any) -> Any:
            return e.call(signature, e.pointer(table, layout.WORD[function]), *operands)

        def refuse(message: str, *operands: Any) -> None:
            """End the block: raise TypeError."""
            error = e.pointer(table, layout.WORD["TypeError"])
            kind = e.type("p", "pp", var_arg=True)
            e.ir_call(kind, e.pointer(table, layout.WORD["PyErr_Format"]), [error, e.text(message), *operands])
            b.ret(null)

        arguments, outputs = e.word(plan, layout.PLAN_ARGUMENTS), e.word(plan, layout.PLAN_OUTPUTS)
        state = StateCode(e, plan, table)
        inputs = b.add(arguments, state.cells)
        number_of_slots = e.word(plan, layout.PLAN_SLOTS)
        with b.if_then(b.icmp_signed("!=", count, arguments), likely=False):
            refuse("got %zd arrays; the program takes %zd; pass one array for each of its inputs", count, arguments)

        def check(i: Any) -> None:
            kind = b.load(e.bytes_at(e.pointer(args, i), layout.TYPE), typ=e.ptr)
            right = b.icmp_unsigned("==", kind, e.pointer(table, layout.WORD["ndarray"]))
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

        def check_cell(i: Any) -> None:
            array = state.array(i)
            wrong, held, good = (b.append_basic_block(n) for n in ("wrong", "held", "good"))
            b.cbranch(b.icmp_unsigned("==", array, null), wrong, held)
            b.position_at_end(held)
            kind = b.load(e.bytes_at(array, layout.TYPE), typ=e.ptr)
            b.cbranch(b.icmp_unsigned("==", kind, e.pointer(table, layout.WORD["ndarray"])), good, wrong)
            b.position_at_end(wrong)
            refuse("got a variable (number %zd of the program) that holds no numpy.ndarray; assign a value to it", i)
            b.position_at_end(good)

        e.loop(state.cells, check_cell)

        # The plan's own slots and arena, or copies where another call is using them.
        own_slots = e.pointer(plan, layout.PLAN_SLOT_TABLE)
        busy = b.icmp_signed("!=", e.word(plan, layout.PLAN_BUSY), e.const(0))
        claim, copy, ready = (b.append_basic_block(n) for n in ("claim", "copy", "ready"))
        b.cbranch(busy, copy, claim)
        b.position_at_end(claim)
        b.store(e.const(1), e.at(plan, layout.PLAN_BUSY))
        b.branch(ready)
        b.position_at_end(copy)
        arena_bytes = e.word(plan, layout.PLAN_ARENA_BYTES)
        slot_bytes = b.shl(number_of_slots, e.const(3))
        total = b.add(b.add(slot_bytes, arena_bytes), e.const(layout.ARENA_ALIGNMENT))
        memory = e.call("pl", e.pointer(table, layout.WORD["malloc"]), total)
        with b.if_then(b.icmp_unsigned("==", memory, null), likely=False):
            b.ret(python("p", "PyErr_NoMemory"))
        aligned = b.and_(
            b.add(b.ptrtoint(memory, e.i64), e.const(layout.ARENA_ALIGNMENT - 1)), e.const(-layout.ARENA_ALIGNMENT)
        )
        own_arena = e.bytes_at(memory, b.sub(aligned, b.ptrtoint(memory, e.i64)))
        new_slots = e.bytes_at(own_arena, arena_bytes)  # arena sizes are multiples of the alignment
        e.loop(number_of_slots, lambda i: b.store(e.word(own_slots, i), e.at(new_slots, i)) and None)
        b.store(own_arena, e.at(new_slots, b.add(inputs, outputs)))
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
            b.store(e.const(0), e.at(plan, layout.PLAN_BUSY))
            b.branch(after)
            b.position_at_end(theirs)
            e.call("vp", e.pointer(table, layout.WORD["free"]), block)
            b.branch(after)
            b.position_at_end(after)

        e.loop(arguments, lambda i: self._take(e, e.pointer(args, i), slots, state.place(i)))
        state.begin(slots, number_of_slots, outputs)

        # Results.
        rows = e.pointer(plan, layout.PLAN_OUTPUT_TABLE)
        no_memory = b.append_basic_block("no_memory")
        compute = b.append_basic_block("compute")
        none, one, tuple_, fill = (b.append_basic_block(n) for n in ("none", "one", "tuple", "fill"))
        kinds = b.switch(state.returned, tuple_)
        kinds.add_case(e.const(0), none)
        kinds.add_case(e.const(1), one)

        def allocate(i: Any) -> Any:
            row = e.at(rows, b.mul(i, e.const(layout.OUTPUT_WORDS)))
            dtype = e.pointer(row, layout.OUTPUT_DTYPE)
            python("vp", "Py_IncRef", dtype)  # PyArray_Empty steals one
            rank = b.trunc(e.word(row, layout.OUTPUT_RANK), e.i32)
            return python("pippi", "PyArray_Empty", rank, e.pointer(row, layout.OUTPUT_DIMS), dtype, e.i32(0))

        b.position_at_end(none)
        nothing = e.pointer(table, layout.WORD["None"])
        python("vp", "Py_IncRef", nothing)
        b.branch(compute)

        b.position_at_end(one)
        array = allocate(e.const(0))
        usable = b.append_basic_block("usable")
        b.cbranch(b.icmp_unsigned("==", array, null), no_memory, usable)
        b.position_at_end(usable)
        self._take(e, array, slots, inputs)
        b.branch(compute)

        b.position_at_end(tuple_)
        several = python("pl", "PyTuple_New", state.returned)
        b.cbranch(b.icmp_unsigned("==", several, null), no_memory, fill)
        b.position_at_end(fill)
        no_item = b.append_basic_block("no_item")

        def item(i: Any) -> None:
            array = allocate(i)
            good = b.append_basic_block("item")
            b.cbranch(b.icmp_unsigned("==", array, null), no_item, good)
            b.position_at_end(good)
            self._take(e, array, slots, b.add(inputs, i))
            python("ipl" + "p", "PyTuple_SetItem", several, i, array)

        e.loop(state.returned, item)
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
        undo = b.append_basic_block("undo")
        flags = state.mode()
        state.take_outputs(inputs, allocate, undo)
        state.take_cells(undo)
        plain, special, finish = (b.append_basic_block(n) for n in ("plain", "special", "finish"))
        b.cbranch(b.icmp_signed("==", flags, e.const(0)), plain, special)
        b.position_at_end(plain)
        plain_step = b.call(run, [table, plan, slots])
        b.branch(finish)
        b.position_at_end(special)
        special_step = self._special(e, flags, run, (blas_enter, blas_leave), (table, plan, slots))
        special_end = b.block
        b.branch(finish)

        b.position_at_end(undo)
        state.drop()
        python("vp", "Py_DecRef", result)
        b.branch(no_memory)

        b.position_at_end(finish)
        step = b.phi(e.i64)
        step.add_incoming(plain_step, plain)
        step.add_incoming(special_step, special_end)
        with b.if_then(b.icmp_signed("<", step, e.const(0)), likely=True):
            state.commit()
        state.drop()
        leave()
        with b.if_then(b.icmp_signed(">=", step, e.const(0)), likely=False):
            python("vp", "Py_DecRef", result)
            b.ret(python("pl", "PyLong_FromLong", step))
        b.ret(result)

    @staticmethod
    def _take(e: Emitter, array: Any, slots: Any, slot: Any) -> None:
        e.b.store(e.b.load(e.bytes_at(array, layout.DATA), typ=e.ptr), e.at(slots, slot))

    @staticmethod
    def _special(e: Emitter, flags: Any, run: Any, blas: tuple[Any, Any], operands: tuple[Any, Any, Any]) -> Any:
        """Run without the GIL, or with BLAS held to one thread, or both."""
        b, table = e.b, operands[0]
        releases = b.icmp_signed("!=", b.and_(flags, e.const(layout.RELEASE_GIL)), e.const(0))
        multiplies = b.icmp_signed("!=", b.and_(flags, e.const(layout.USES_BLAS)), e.const(0))
        state = b.alloca(e.ptr)
        with b.if_then(releases):
            b.store(e.call("p", e.pointer(table, layout.WORD["PyEval_SaveThread"])), state)
        with b.if_then(multiplies):
            b.call(blas[0], [table])
        step = b.call(run, list(operands))
        with b.if_then(multiplies):
            b.call(blas[1], [table])
        with b.if_then(releases):
            e.call("vp", e.pointer(table, layout.WORD["PyEval_RestoreThread"]), b.load(state, typ=e.ptr))
        return step
