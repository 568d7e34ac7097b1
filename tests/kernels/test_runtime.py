"""The native launch: arguments, results, failures, threads, products. Most kernels here are the tests' own."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from dualgraph.errors import KernelError
from dualgraph.kernels import blas, expr
from dualgraph.kernels.cpu import pool
from dualgraph.kernels.kinds import CheckIndex, External, Loop, MatMul
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.command import Command, Variant
from dualgraph.kernels.llvm.loading import loaded as loader
from dualgraph.kernels.llvm.loading.machine import check_objects, machine
from dualgraph.kernels.llvm.products.selection import product_command
from dualgraph.kernels.llvm.runtime import tables
from dualgraph.kernels.nan import has_other
from dualgraph.kernels.program import Program, Step, View
from dualgraph.spec import Spec
from native import emitted

ADD = Loop((), (), (), ())
FAIL = CheckIndex("int64", 0, 1, "test")


@emitted
@dataclass(frozen=True)
class Add(Variant):
    """float32 vectors x + y; args: slot and byte offset of x, y, out; a unit is an element. `loops`: how often."""

    loops: int = 1

    def emit(self, module: Any, name: str) -> None:
        from llvmlite import ir

        i8, i32, i64, ptr, f32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType(), ir.FloatType()
        function = ir.Function(module, ir.FunctionType(i32, [ptr, ptr, i64, i64]), name)
        slots, args, begin, end = function.args
        b = ir.IRBuilder(function.append_basic_block())

        def word(i: int) -> Any:
            return b.load(b.gep(args, [i64(i)], source_etype=i64), typ=i64)

        x, y, out = (
            b.gep(b.load(b.gep(slots, [word(2 * i)], source_etype=i64), typ=ptr), [word(2 * i + 1)], source_etype=i8)
            for i in range(3)
        )
        entry, head, body, after = b.block, *(b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(i64)
        i.add_incoming(begin, entry)
        b.cbranch(b.icmp_signed("<", i, end), body, after)
        b.position_at_end(body)
        total = b.load(b.gep(x, [i], source_etype=f32), typ=f32)
        for _ in range(self.loops):
            total = b.fadd(total, b.load(b.gep(y, [i], source_etype=f32), typ=f32))
        b.store(total, b.gep(out, [i], source_etype=f32))
        i.add_incoming(b.add(i, i64(1)), body)
        b.branch(head)
        b.position_at_end(after)
        b.ret(i32(0))


@emitted
@dataclass(frozen=True)
class Fail(Variant):
    """Fails if the unit 5 is among its units."""

    def emit(self, module: Any, name: str) -> None:
        from llvmlite import ir

        i32, i64, ptr = ir.IntType(32), ir.IntType(64), ir.PointerType()
        function = ir.Function(module, ir.FunctionType(i32, [ptr, ptr, i64, i64]), name)
        _, _, begin, end = function.args
        b = ir.IRBuilder(function.append_basic_block())
        b.ret(b.zext(b.and_(b.icmp_signed("<=", begin, i64(5)), b.icmp_signed(">", end, i64(5))), i32))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Binds `ADD` and `FAIL` to the kernels of this file; `work["each"]`: operations that a unit claims to take."""
    facts = {"each": 1, "fail_units": 6}

    def command(step: Step, locate: Any) -> Command:
        if isinstance(step.kernel, MatMul):
            return product_command(step, locate)
        if isinstance(step.kernel, CheckIndex):
            return Command(Fail(), (), facts["fail_units"], facts["fail_units"] * facts["each"])
        args: list[int] = []
        for view in (*step.ins, *step.outs):
            slot, offset = locate(view.buffer)
            args += slot, offset + 4 * view.offset
        units = step.outs[0].spec.size
        return Command(Add(), tuple(args), units, units * facts["each"])

    monkeypatch.setattr(loader, "command", command)
    return facts


def chain(size: int, length: int = 1, outputs: int = 1) -> Program:
    """x + y + y ... ; each of the last `outputs` sums is an output."""
    program = Program()
    spec = Spec((size,), "float32")
    x, y = program.input(spec), program.input(spec)
    for number in range(length):
        out = program.new(spec)
        program.add(ADD, [out], [x, y])
        x = out
        if number >= length - outputs:
            program.outputs.append(out.buffer)
    return program


def operands(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.arange(size, dtype=np.float32), np.ones(size, np.float32)


# ---- arguments and results ---------------------------------------------------------------------------------------


def test_one_output(work: Any) -> None:
    x, y = operands(8)
    loaded = loader.load(chain(8))
    first, second = loaded.launch(x, y), loaded.launch(y, y)
    assert type(first) is np.ndarray
    assert first.dtype == np.float32
    assert first.flags.carray
    assert first.flags.owndata
    np.testing.assert_array_equal(first, x + y)
    np.testing.assert_array_equal(second, y + y)


def test_several_outputs_and_scratch(work: Any) -> None:
    x, y = operands(100)
    result = loader.load(chain(100, length=6, outputs=3)).launch(x, y)
    assert type(result) is tuple
    assert len(result) == 3
    for number, out in enumerate(result):
        np.testing.assert_array_equal(out, x + 4 + number)


def test_no_output_writes_into_an_input(work: Any) -> None:
    program = Program()
    x, y = (program.input(Spec((4,), "float32")) for _ in range(2))
    program.add(ADD, [x], [x, y])
    a, b = operands(4)
    assert loader.load(program).launch(a, b) is None
    np.testing.assert_array_equal(a, [1, 2, 3, 4])


def test_constants_are_kept_alive(work: Any) -> None:
    program = Program()
    x, y = program.input(Spec((6,), "float32")), program.constant(np.full(6, 3, np.float32))
    out = program.new(x.spec)
    program.add(ADD, [out], [x, y])
    program.outputs.append(out.buffer)
    launch = loader.load(program).launch
    del program, y
    gc.collect()
    np.testing.assert_array_equal(launch(np.zeros(6, np.float32)), np.full(6, 3))


def test_views_are_relative_to_the_data_pointer(work: Any) -> None:
    program = Program()
    x, y = (program.input(Spec((4,), "float32")) for _ in range(2))
    out = program.new(Spec((2,), "float32"))
    program.add(ADD, [out], [x.with_layout((2,), (1,), 2), y.with_layout((2,), (1,), -1)])
    program.outputs.append(out.buffer)
    a = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(loader.load(program).launch(a, a[1:]), [2, 4])


@pytest.mark.parametrize(("shape", "dtype"), [((), "float64"), ((0, 3), "int32"), ((2, 3, 4, 5, 6), "bool")])
def test_output_specs(work: Any, shape: tuple[int, ...], dtype: str) -> None:
    program = Program()
    program.outputs.append(program.new(Spec(shape, dtype)).buffer)
    out = loader.load(program).launch()
    assert isinstance(out, np.ndarray)
    assert out.shape == shape
    assert out.dtype == dtype


class Sub(np.ndarray[Any, Any]):
    pass


def test_wrong_arguments_raise(work: Any) -> None:
    x, y = operands(8)
    launch = loader.load(chain(8)).launch
    for bad in [(), (x,), (x, y, x)]:
        with pytest.raises(TypeError, match=rf"got {len(bad)} arrays; the program takes 2"):
            launch(*bad)
    for thing in (None, 1, [1.0], np.float32(1), x.view(Sub), "x"):
        with pytest.raises(TypeError, match=r"not a numpy.ndarray as input 1"):
            launch(x, thing)
    with pytest.raises(TypeError):
        launch(x, y=y)
    np.testing.assert_array_equal(launch(x, y), x + y)  # still usable


def test_a_failed_check_is_the_int_of_its_step(work: Any) -> None:
    program = chain(8, length=3)
    program.steps.insert(2, Step(FAIL, (), ()))
    loaded = loader.load(program)
    x, y = operands(8)
    before = sys.getrefcount(np.dtype("float32"))
    for _ in range(100):
        failed = loaded.launch(x, y)
        assert type(failed) is int
        assert failed == 2
    assert abs(sys.getrefcount(np.dtype("float32")) - before) < 50
    assert loaded.stepwise([x, y]) == 2


def test_no_leaks(work: Any) -> None:
    x, y = operands(8)
    for outputs in (0, 1, 3):
        launch = loader.load(chain(8, length=4, outputs=outputs)).launch
        launch(x, y)
        counts = sys.getrefcount(x), sys.getrefcount(None), sys.getrefcount(np.dtype("float32"))
        for _ in range(1000):
            launch(x, y)
        now = sys.getrefcount(x), sys.getrefcount(None), sys.getrefcount(np.dtype("float32"))
        assert all(abs(a - b) < 100 for a, b in zip(counts, now, strict=True))
    result = launch(x, y)
    seen = weakref.ref(result[0])
    del result
    assert seen() is None


@pytest.mark.parametrize("count", [1, 2])
def test_too_large_a_result_is_an_error(work: Any, count: int) -> None:
    program = Program()
    program.outputs += [program.new(Spec((1 << n,), "float64")).buffer for n in (3, 57)[-count:]]
    launch = loader.load(program).launch
    for _ in range(3):  # the plan is free again each time
        with pytest.raises((MemoryError, ValueError)):
            launch()
        assert launch.__self__[tables.PLAN_BUSY] == 0


def test_a_finaliser_may_launch_the_same_program(work: Any) -> None:
    """CPython may collect garbage while a launch allocates its results."""
    launch = loader.load(chain(16, length=4, outputs=3)).launch
    x, y = operands(16)

    class Garbage:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            np.testing.assert_array_equal(launch(y, y)[2], y + 4)

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(200):
            Garbage()
            np.testing.assert_array_equal(launch(x, y)[2], x + 4)
    finally:
        gc.set_threshold(*before)


def test_a_busy_plan_works_on_copies(work: Any) -> None:
    launch = loader.load(chain(16, length=4, outputs=2)).launch
    x, y = operands(16)
    launch.__self__[tables.PLAN_BUSY] = 1
    for _ in range(3):
        np.testing.assert_array_equal(launch(x, y)[1], x + 4)
    assert launch.__self__[tables.PLAN_BUSY] == 1


def test_programs_are_freed(work: Any) -> None:
    program = chain(1000, length=4)
    launch = loader.load(program).launch
    plan, arena = weakref.ref(launch.__self__), weakref.ref(launch.__self__.keep[0])
    del launch
    gc.collect()
    assert plan() is None
    assert arena() is None


def test_a_buffer_has_one_role(work: Any) -> None:
    program = chain(8)
    program.outputs.append(program.inputs[0])
    with pytest.raises(KernelError, match="a buffer is one of these"):
        loader.load(program)


def test_stepwise_shows_what_each_step_wrote(work: Any) -> None:
    x, y = operands(5)
    seen: list[tuple[int, dict[int, Any]]] = []
    program = chain(5, length=3)
    result = loader.load(program).stepwise([x, y], lambda n, m: seen.append((n, {k: v.copy() for k, v in m.items()})))
    np.testing.assert_array_equal(result, x + 3)
    assert [number for number, _ in seen] == [0, 1, 2]
    for number, memory in seen:
        assert list(memory) == [number + 2]
        np.testing.assert_array_equal(memory[number + 2], x + number + 1)


def test_commands_are_open_to_inspection(work: Any) -> None:
    (command,) = loader.load(chain(8)).commands
    assert command is not None
    assert command.variant == Add()
    assert isinstance(command.variant, Variant)
    assert "fadd float" in engine.llvm_ir(Add(), optimised=False)
    assert "addss" in engine.assembly(Add()) or "fadd" in engine.assembly(Add())


# ---- Python steps ------------------------------------------------------------------------------------------------


def twice(x: np.ndarray[Any, Any], plus: float = 0.0) -> tuple[np.ndarray[Any, Any]]:
    return (x * np.float32(2) + np.float32(plus),)


def test_external_steps_between_native_ones(work: Any) -> None:
    program = Program()
    spec = Spec((7,), "float32")
    x, y = program.input(spec), program.constant(np.arange(7, dtype=np.float32))
    a, b, c, d = (program.new(spec) for _ in range(4))
    program.add(ADD, [a], [x, y])
    program.add(External("twice", twice, (("plus", 1.0),)), [b], [a])
    program.add(ADD, [c], [b, y])
    program.add(External("twice", twice), [d], [c])
    program.outputs += [c.buffer, d.buffer]
    loaded = loader.load(program)
    x_ = np.linspace(0, 1, 7, dtype=np.float32)
    for run in (loaded.launch(x_), loaded.stepwise([x_])):
        assert isinstance(run, tuple)
        expected = (x_ + program.constants[1]) * np.float32(2) + np.float32(1) + program.constants[1]
        np.testing.assert_array_equal(run[0], expected)
        np.testing.assert_array_equal(run[1], expected * 2)
    assert [command is None for command in loaded.commands] == [False, True, False, True]
    with pytest.raises(TypeError, match="got 0 arrays"):
        loaded.launch()
    with pytest.raises(TypeError, match=r"not a numpy\.ndarray"):
        loaded.launch([1])


def test_a_check_fails_after_an_external_step(work: Any) -> None:
    program = Program()
    x = program.input(Spec((7,), "float32"))
    out = program.new(x.spec)
    program.add(External("twice", twice), [out], [x])
    program.steps.append(Step(FAIL, (), ()))
    program.outputs.append(out.buffer)
    assert loader.load(program).launch(np.zeros(7, np.float32)) == 1


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Any:
    before = pool.get_num_threads()
    yield pool.set_num_threads
    pool.set_num_threads(before)


def test_parallel_launch_gives_the_same(work: Any, threads: Any) -> None:
    work["each"] = 1000
    size = 10_007
    x, y = operands(size)
    results = set()
    for count in (1, 2, 5):
        threads(count)
        assert pool.get_num_threads() == count
        launch = loader.load(chain(size, length=5)).launch
        results.update(launch(x, y).tobytes() for _ in range(50))
    assert results == {(x + 5).tobytes()}


@pytest.mark.parametrize("folds", ["row", "column", "none"])
def test_real_kernels_do_not_depend_on_threads(folds: str, threads: Any) -> None:
    shape = (640, 517)
    axes = {"row": (1,), "column": (0,), "none": ()}[folds]
    x = expr.input(0, "float32")
    shifted = expr.call("exp", x - expr.fold("max", x)) if axes else expr.call("tanh", expr.call("exp", x))
    code, results = expr.linearise([shifted / expr.fold("sum", shifted) if axes else shifted])
    program = Program()
    source = program.input(Spec(shape, "float32"))
    out = program.new(source.spec)
    program.add(Loop(code, results, ("float32",), (False,)), [out], [source], shape, axes)
    program.outputs.append(out.buffer)
    x_ = np.random.default_rng(5).standard_normal(shape).astype("float32")
    found = set()
    for count in (1, 2, 3):
        threads(count)
        loaded = loader.load(program)
        found.update(loaded.launch(x_).tobytes() for _ in range(10))
    assert len(found) == 1


def test_a_check_fails_in_a_piece(work: Any, threads: Any) -> None:
    threads(3)
    work.update(each=1 << 20, fail_units=64)
    program = Program()
    program.steps.append(Step(FAIL, (), ()))
    launch = loader.load(program).launch
    assert {launch() for _ in range(50)} == {0}


def test_many_python_threads_launch_one_program(work: Any, threads: Any) -> None:
    """The plan is busy, the pool is busy, the GIL is released: every result must be right all the same."""
    threads(3)
    work["each"] = 2000
    size = 4096
    loaded = loader.load(chain(size, length=6, outputs=2))
    wrong: list[Any] = []

    def run(number: int) -> None:
        x = np.full(size, number, np.float32)
        for _ in range(100):
            a, b = loaded.launch(x, np.ones(size, np.float32))
            if not ((a == number + 5).all() and (b == number + 6).all()):
                wrong.append((number, a, b))

    workers = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_threads_stop_and_start_while_launching(work: Any, threads: Any) -> None:
    work["each"] = 2000
    x, y = operands(4096)
    launch = loader.load(chain(4096, length=4)).launch
    done = threading.Event()

    def switch() -> None:
        for count in (1, 2, 4, 1, 3, 2) * 3:
            threads(count)
        done.set()

    other = threading.Thread(target=switch)
    other.start()
    while not done.is_set():
        np.testing.assert_array_equal(launch(x, y), x + 4)
    other.join()


def test_wrong_number_of_threads() -> None:
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="number of threads is an integer from 1 to"):
            pool.set_num_threads(bad)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_the_pool_started(work: Any, threads: Any) -> None:
    threads(3)
    work["each"] = 2000
    x, y = operands(4096)
    program = chain(4096, length=4)
    loaded = loader.load(program)
    loaded.launch(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer CPythons warn of fork with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            good = (loaded.launch(x, y) == x + 4).all()
            good &= (loader.load(chain(4096, length=5)).launch(x, y) == x + 5).all()  # starts threads of its own
            work["each"] = 2001
            code = 0 if good else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(loaded.launch(x, y), x + 4)


def test_workers_take_over_the_floating_point_environment(work: Any, threads: Any, monkeypatch: Any) -> None:
    """Set flush-to-zero (or another rounding) in the calling thread alone: all pieces must compute alike."""
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "fesetround"):
        pytest.skip("no fesetround")
    threads(3)
    size = 64
    program = Program()
    x = program.input(Spec((size,), "float32"))
    out = program.new(x.spec)
    program.add(ADD, [out], [x])
    program.outputs.append(out.buffer)
    monkeypatch.setattr(loader, "command", lambda step, locate: Command(Rounding(), (), size, size * pool.GRAIN))
    launch = loader.load(program).launch
    ones = np.ones(size, np.float32)
    nearest = {launch(ones).tobytes() for _ in range(20)}
    upward = 0x800 if sys.platform != "win32" and os.uname().machine in ("x86_64", "AMD64") else 0x400000
    libc.fesetround(upward)
    try:
        raised = {launch(ones).tobytes() for _ in range(20)}
    finally:
        libc.fesetround(0)
    assert len(nearest) == len(raised) == 1
    assert len(set(np.frombuffer(raised.pop(), np.float32))) == 1
    assert nearest == {launch(ones).tobytes()}


@emitted
@dataclass(frozen=True)
class Rounding(Variant):
    """out = x / 3, whose last bit depends on the rounding mode; input in slot 0, output in slot 1."""

    def emit(self, module: Any, name: str) -> None:
        from llvmlite import ir

        i32, i64, ptr, f32 = ir.IntType(32), ir.IntType(64), ir.PointerType(), ir.FloatType()
        function = ir.Function(module, ir.FunctionType(i32, [ptr, ptr, i64, i64]), name)
        slots, _, begin, end = function.args
        b = ir.IRBuilder(function.append_basic_block())
        x, out = (b.load(b.gep(slots, [i64(i)], source_etype=i64), typ=ptr) for i in range(2))
        entry, head, body, after = b.block, *(b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(i64)
        i.add_incoming(begin, entry)
        b.cbranch(b.icmp_signed("<", i, end), body, after)
        b.position_at_end(body)
        value = b.load(b.gep(x, [i], source_etype=f32), typ=f32)
        b.store(b.fdiv(value, f32(3.0)), b.gep(out, [i], source_etype=f32))
        i.add_incoming(b.add(i, i64(1)), body)
        b.branch(head)
        b.position_at_end(after)
        b.ret(i32(0))


def test_exit_is_clean() -> None:
    """No crash and no hang at shutdown, with workers asleep, spinning or just started."""
    code = (
        "import numpy as np\n"
        "from dualgraph.kernels.cpu import pool\n"
        "from dualgraph.kernels.llvm.loading.builtin import worker\n"
        "from dualgraph.kernels.llvm.loading.machine import machine\n"
        "machine(); pool.set_num_threads(4); pool.start(worker)\n"
        "import time; time.sleep({})\n"
    )
    for pause in (0, 0.05):
        done = subprocess.run([sys.executable, "-c", code.format(pause)], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


# ---- products ----------------------------------------------------------------------------------------------------

Operand = tuple[
    Any, ...
]  # shape, strides, offset; "T" behind them: the matrices are transposed before they are multiplied


def product(a: Operand, b: Operand, dtype: str, room: int) -> Program:
    program = Program()
    views = [program.input(Spec((room,), dtype)).with_layout(*operand[:3]) for operand in (a, b)]
    kernel = MatMul(dtype, "T" in a, "T" in b)
    left, right = kernel.factors(views)
    out = program.new(Spec((*left.shape[:-1], right.shape[-1]), dtype))
    program.add(kernel, [out], views)
    program.outputs.append(out.buffer)
    return program


def seen(x: np.ndarray[Any, Any], operand: Operand) -> np.ndarray[Any, Any]:
    shape, strides, offset = operand[:3]
    matrices = np.lib.stride_tricks.as_strided(x[offset:], shape, [s * x.itemsize for s in strides])
    return np.swapaxes(matrices, -1, -2) if "T" in operand else matrices


PRODUCTS: dict[str, tuple[Operand, Operand]] = {
    "as they are": (((3, 4), (4, 1), 0), ((4, 5), (5, 1), 0)),
    "transposed": (((4, 3), (3, 1), 0, "T"), ((5, 4), (4, 1), 0, "T")),
    "left transposed": (((4, 3), (3, 1), 5, "T"), ((4, 5), (5, 1), 6)),
    "batch": (((6, 3, 4), (12, 4, 1), 0), ((6, 5, 4), (20, 4, 1), 0, "T")),
    "batch with gaps": (((6, 3, 4), (29, 4, 1), 3), ((6, 4, 5), (-20, 5, 1), 200)),
    "broadcast batch": (((2, 6, 3, 4), (0, 12, 4, 1), 0), ((2, 6, 4, 5), (120, 20, 5, 1), 0)),
    "row vector": (((1, 4), (99, 1), 1), ((4, 7), (7, 1), 0)),
    "row vector, transposed": (((4, 1), (1, 99), 1, "T"), ((7, 4), (4, 1), 0, "T")),
    "column vector": (((5, 4), (4, 1), 0), ((4, 1), (1, 77), 0)),
    "column vector, transposed": (((4, 5), (5, 1), 0, "T"), ((1, 4), (9, 1), 2, "T")),
    "batch of vectors": (((3, 1, 4), (4, 4, 1), 0), ((3, 4, 5), (0, 5, 1), 0)),
    "dot": (((1, 9), (9, 1), 0), ((9, 1), (1, 1), 0)),
    "one": (((1, 1), (7, 7), 3), ((1, 1), (5, 5), 2)),
    "outer": (((4, 1), (1, 9), 0), ((1, 5), (1, 1), 0)),
    "empty sum": (((3, 0), (1, 1), 0), ((0, 5), (5, 1), 0)),
    "empty result": (((0, 3), (3, 1), 0), ((3, 5), (5, 1), 0)),
    "empty batch": (((0, 2, 3), (6, 3, 1), 0), ((0, 3, 5), (15, 5, 1), 0)),
    "blocks": (((190, 330), (330, 1), 0), ((330, 200), (200, 1), 0)),
    "blocks, transposed": (((330, 190), (190, 1), 0, "T"), ((200, 330), (330, 1), 0, "T")),
    "blocks of a vector": (((1300, 1000), (1000, 1), 0), ((1000, 1), (1, 1), 0)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name: str, dtype: str, work: Any) -> None:
    a, b = PRODUCTS[name]
    room = 1_300_000 if "blocks" in name else 4096
    rng = np.random.default_rng(7)
    x, y = (rng.standard_normal(room).astype(dtype) for _ in range(2))
    loaded = loader.load(product(a, b, dtype, room))
    expected = seen(x, a).astype("float64") @ seen(y, b).astype("float64")
    scale = np.abs(seen(x, a)).astype("float64") @ np.abs(seen(y, b)).astype("float64")
    rubbish = [np.full(expected.shape, np.nan, dtype) for _ in range(4)]
    del rubbish  # results are likely to be made of its memory
    out = loaded.launch(x, y)
    assert isinstance(out, np.ndarray)
    assert out.shape == expected.shape
    bound = max(seen(x, a).shape[-1], 1) * np.finfo(dtype).eps
    assert (np.abs(out - expected) <= bound * scale).all()


def test_products_do_not_depend_on_threads_or_alignment(work: Any, threads: Any) -> None:
    rng = np.random.default_rng(3)
    for m, k, n in ((190, 330, 200), (1300, 1000, 1), (1, 1000, 1300), (33, 65, 17)):
        a: Operand = ((m, k), (k, 1), 0)
        b: Operand = ((k, n), (n, 1), 0)
        x, y = rng.standard_normal(m * k + 16).astype("float32"), rng.standard_normal(k * n + 16).astype("float32")
        results = set()
        for count in (1, 2, 3):
            threads(count)
            launch = loader.load(product(a, b, "float32", m * k)).launch
            for shift in (0, 1, 3):
                left, right = np.empty(m * k + 16, "float32"), np.empty(k * n + 16, "float32")
                left[shift : shift + m * k], right[shift + 1 : shift + 1 + k * n] = x[: m * k], y[: k * n]
                for _ in range(3):
                    results.add(launch(left[shift:], right[shift + 1 :]).tobytes())
        assert len(results) == 1


def test_blas_threads_are_as_before(work: Any) -> None:
    import threadpoolctl

    def count() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

    before = count()
    launch = loader.load(product(*PRODUCTS["as they are"], "float32", 64)).launch
    launch(np.ones(64, "float32"), np.ones(64, "float32"))
    assert count() == before


def test_blas_threads_are_as_before_when_launches_overlap(work: Any, threads: Any) -> None:
    """The first launch sets one thread, the last one restores; these are long enough to release the GIL."""
    import threadpoolctl

    threads(2)
    operand: Operand = ((300, 300), (300, 1), 0)
    launch = loader.load(product(operand, operand, "float32", 90_000)).launch
    assert launch.__self__[tables.PLAN_FLAGS] == tables.RELEASE_GIL | tables.USES_BLAS
    before = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    x = np.random.default_rng(0).standard_normal(90_000).astype("float32")
    found: set[bytes] = set()

    def run() -> None:
        for _ in range(15):
            found.add(launch(x, x).tobytes())

    workers = [threading.Thread(target=run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 1
    assert [library["num_threads"] for library in threadpoolctl.threadpool_info()] == before
    assert machine()[tables.WORD["blas_depth"]] == 0


def test_integer_products(work: Any) -> None:
    a, b = PRODUCTS["batch"]
    x, y = np.arange(200, dtype="int64"), np.arange(200, dtype="int64")[::-1].copy()
    loaded = loader.load(product(a, b, "int64", 200))
    assert loaded.commands == (None,)
    np.testing.assert_array_equal(loaded.launch(x, y), seen(x, a) @ seen(y, b))


def test_products_without_blas(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "info", lambda: None)
    a, b = PRODUCTS["batch"]
    x = np.arange(200, dtype="float32")
    loaded = loader.load(product(a, b, "float32", 200))
    assert loaded.commands == (None,)
    np.testing.assert_array_equal(loaded.launch(x, x), seen(x, a) @ seen(x, b))


def view(shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    return View(0, shape, strides, 0, "float32")


def test_products_read_row_major_matrices() -> None:
    """Strides along axes of length 1 mean nothing; what is transposed is said by the kernel, never by strides."""
    for shape, strides in (((3, 4), (4, 1)), ((1, 4), (99, 1)), ((4, 1), (1, 99)), ((1, 1), (5, 7)), ((0, 4), (0, 0))):
        assert view(shape, strides).row_major, (shape, strides)
    for strides in ((0, 1), (1, 0), (-4, 1), (4, -1), (8, 2), (3, 1), (0, 0), (1, 3), (7, 1)):
        step = Step(MatMul("float32"), (view((3, 3), (3, 1)),), (view((3, 4), strides), view((4, 3), (3, 1))))
        assert not step.ins[0].row_major, strides
        with pytest.raises(KernelError, match="copy the operand first"):
            product_command(step, lambda buffer: (buffer, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [n for n in PRODUCTS if "empty" not in n])
def test_nans_of_products_are_the_one_nan(name: str, dtype: str, work: Any) -> None:
    """Also where rows of the result lie apart (blocks), and in the last elements of a row."""
    room = 1_300_000 if "blocks" in name else 4096
    rng = np.random.default_rng(7)
    x = rng.standard_normal(room).astype(dtype)
    y = np.where(rng.random(room) < 0.02, -np.array(np.inf, dtype), np.array(-np.nan, dtype))
    x[rng.random(room) < 0.2] = np.inf
    for left, right in ((x, np.where(rng.random(room) < 0.98, x, y)), (x, y)):
        out = loader.load(product(*PRODUCTS[name], dtype, room)).launch(left, right)
        assert not has_other(out)
    assert np.isnan(out).any()


def test_blocks_depend_on_the_shape_alone() -> None:
    assert blas.blocks(64, 64, 64) == (64, 64)
    for m, k, n in ((1024, 1024, 1024), (300, 2000, 17), (5, 100_000, 5), (0, 5, 3), (4096, 4096, 64)):
        rows, columns = blas.blocks(m, k, n)
        assert 0 <= rows <= m
        assert 0 <= columns <= n
        if m:
            assert -(-m // rows) * -(-n // columns) <= 2 * blas._MANY
    assert blas.blocks(1024, 1024, 1024) == (256, 512)
    assert blas.vector_block(10, 10) == 10
    assert blas.vector_block(4096, 4096) == 256


def test_blas_is_known() -> None:
    found = blas.info()
    if found is None:
        pytest.skip("no BLAS with known names")
    assert found.gemms["float32"].symbol.endswith(("sgemm64_", "sgemm"))


def test_layout_check_passes_here() -> None:
    check_objects()
