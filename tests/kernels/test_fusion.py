"""Fused programs give the bits of unfused ones, and fuse what they should."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import numpy as np
import pytest

from dualgraph.kernels import expr as E
from dualgraph.kernels import fusion, memory
from dualgraph.kernels.fusion import Decision, Limits, fuse
from dualgraph.kernels.kinds import CheckIndex, Kernel, Loop, MatMul
from dualgraph.kernels.program import Program, Step, View, row_shape, row_view
from dualgraph.kernels.reference import load
from dualgraph.spec import Shape, Spec, contiguous_strides

F32 = "float32"
X, Y, Z = (E.input(number, F32) for number in range(3))
AXPY = X * 0.5 + Y


def loop(*results: E.Expr, rows: tuple[bool, ...] | None = None) -> Loop:
    code, places = E.linearise(results)
    dtypes = {i.attr: i.dtype for i in code if i.op == E.INPUT}
    names = tuple(dtypes[n] for n in range(len(dtypes)))
    return Loop(code, places, names, rows or (False,) * len(names))


ADD, MUL, AXPY_LOOP = loop(X + Y), loop(X * Y), loop(AXPY)
DOUBLE, TANH, SQUARE = loop(X * 2.0), loop(E.call("tanh", X)), loop(E.call("square", X))
SUM, MAX = loop(E.fold("sum", X)), loop(E.fold("max", X))
INDEX = loop(X + E.cast(E.index(), F32))
SOFTMAX_SHIFTED = E.call("exp", X - E.fold("max", X))
SOFTMAX = loop(SOFTMAX_SHIFTED / E.fold("sum", SOFTMAX_SHIFTED))


def elementwise(program: Program, kernel: Loop, *ins: View, domain: Shape | None = None) -> View:
    domain = np.broadcast_shapes(*(v.shape for v in ins)) if domain is None else domain
    out = program.new(Spec(domain, F32))
    program.add(kernel, [out], [v.broadcast_to(domain) for v in ins], domain)
    return out


def folded(program: Program, kernel: Loop, x: View, axes: tuple[int, ...], keepdims: bool = False) -> View:
    kept = program.new(Spec(row_shape(x.shape, axes), F32))
    program.add(kernel, [row_view(kept, x.shape, axes)], [x], x.shape, axes)
    shape = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    return kept if keepdims else kept.with_layout(shape, contiguous_strides(shape))


def whole_rows(program: Program, kernel: Loop, x: View, axes: tuple[int, ...]) -> View:
    out = program.new(Spec(x.shape, F32))
    program.add(kernel, [out], [x], x.shape, axes)
    return out


def bits(program: Program, seed: int = 0, arena: Any = None) -> list[bytes]:
    """Everything a run leaves behind: outputs, or which check failed, and inputs after it."""
    rng = np.random.default_rng(seed)
    specs = [program.buffers[b] for b in program.inputs]
    # np.array: arithmetic makes scalars, which own no memory, of arrays without axes
    arrays = [np.array(rng.integers(-4, 4, spec.shape) / (4 if spec.dtype == F32 else 1), spec.dtype) for spec in specs]
    result = load(program, arena).launch(*arrays)
    if isinstance(result, int):
        result = program.steps[result].kernel  # steps have other numbers after fusion
    results = result if isinstance(result, tuple) else (result,)
    return [r.tobytes() if isinstance(r, np.ndarray) else repr(r).encode() for r in (*results, *arrays)]


def fused(program: Program, *outputs: View, limits: Limits = Limits()) -> list[Step]:  # noqa: B008 (immutable)
    """The fused steps, after a check of bits and of the memory plan."""
    program.outputs = [view.buffer for view in outputs]
    result, _ = fuse(program, limits)
    assert bits(result) == bits(program)
    arena = memory.plan(result)
    assert memory.check(result, arena) == []
    assert bits(result, arena=arena) == bits(program)
    return result.steps


def refusals(program: Program) -> list[Decision]:
    return [d for d in fuse(program)[1] if d.kind == "refused"]


class TestWhatFuses:
    def test_chain_and_diamond(self) -> None:
        p = Program()
        x = p.input(Spec((6, 8), F32))
        y = elementwise(p, TANH, x)
        out = elementwise(p, ADD, elementwise(p, DOUBLE, y), elementwise(p, SQUARE, y))
        (step,) = fused(p, out)
        assert (len(step.ins), len(step.outs)) == (1, 1)

    def test_result_that_others_need_stays(self) -> None:
        p = Program()
        x = p.input(Spec((6, 8), F32))
        y = elementwise(p, TANH, x)
        (step,) = fused(p, y, elementwise(p, DOUBLE, y))
        assert len(step.outs) == 2

    def test_prologue_and_row_epilogue_of_a_fold(self) -> None:
        p = Program()
        x = p.input(Spec((6, 8), F32))
        rows = folded(p, SUM, elementwise(p, SQUARE, x), (1,))
        (step,) = fused(p, elementwise(p, DOUBLE, rows))
        assert step.domain == (6, 8)
        assert step.fold_axes == (1,)
        assert step.outs[0].strides[1] == 0

    @pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
    def test_softmax_written_as_steps(self, axes: tuple[int, ...]) -> None:
        p = Program()
        x = p.input(Spec((3, 4, 5), F32))
        top = folded(p, MAX, x, axes, keepdims=True)
        e = elementwise(p, loop(E.call("exp", X - Y)), x, top)
        total = folded(p, SUM, e, axes, keepdims=True)
        (step,) = fused(p, elementwise(p, loop(X / Y), e, total))
        assert isinstance(step.kernel, Loop)
        assert len(step.kernel.folds) == 2

    def test_row_values_before_a_row_kernel(self) -> None:
        p = Program()
        x, row = p.input(Spec((6, 8), F32)), p.input(Spec((6,), F32))
        scale = elementwise(p, loop(E.call("rsqrt", E.call("abs", X) + 1.0)), row)
        y = elementwise(p, MUL, x, scale.with_layout((6, 8), (1, 0)))
        assert len(fused(p, folded(p, SUM, y, (1,)))) == 2  # dear to compute per element, y may have no row
        p = Program()
        x, row = p.input(Spec((6, 8), F32)), p.input(Spec((6,), F32))
        scale = elementwise(p, loop(E.call("rsqrt", E.call("abs", X) + 1.0)), row)
        total = p.new(Spec((6,), F32))
        shifted = loop(E.fold("sum", X * Y), rows=(False, True))
        p.add(shifted, [total.with_layout((6, 8), (1, 0))], [x, scale.with_layout((6, 8), (1, 0))], (6, 8), (1,))
        assert len(fused(p, total)) == 1

    def test_cheap_broadcast(self) -> None:
        p = Program()
        x, bias = p.input(Spec((6, 8), F32)), p.input(Spec((8,), F32))
        assert len(fused(p, elementwise(p, ADD, x, elementwise(p, DOUBLE, bias)))) == 1
        p = Program()
        x, bias = p.input(Spec((6, 8), F32)), p.input(Spec((8,), F32))
        assert len(fused(p, elementwise(p, ADD, x, elementwise(p, TANH, bias)))) == 2

    def test_reshape_between(self) -> None:
        p = Program()
        x = p.input(Spec((6, 8), F32))
        y = elementwise(p, INDEX, x)
        z = elementwise(p, INDEX, y.with_layout((48,), (1,)))
        (step,) = fused(p, folded(p, SUM, z.with_layout((2, 3, 8), (24, 8, 1)), (2,)))
        assert len(step.ins) == 1

    def test_siblings_share_a_load(self) -> None:
        p = Program()
        x = p.input(Spec((6, 8), F32))
        (step,) = fused(p, elementwise(p, TANH, x), folded(p, SUM, x, (0,)))
        assert len(step.ins) == 1

    def test_parameter_updates(self) -> None:
        p = Program()
        pairs = [(p.input(Spec((8,), F32)), p.input(Spec((8,), F32))) for _ in range(4)]
        for parameter, g in pairs:
            elementwise_into(p, AXPY_LOOP, parameter, g, parameter)
        assert len(fused(p)) == 1

    def test_equal_pieces_share_one_kernel(self) -> None:
        p = Program()
        x = p.input(Spec((4,), F32))
        for _ in range(600):
            x = elementwise(p, TANH, elementwise(p, DOUBLE, x))
        steps = fused(p, x)
        assert len({step.kernel for step in steps}) <= 3


def elementwise_into(program: Program, kernel: Loop, out: View, *ins: View) -> None:
    program.add(kernel, [out], ins, out.shape)


class TestWhatDoesNot:
    def test_reader_through_a_view(self) -> None:
        p = Program()
        x = p.input(Spec((8, 8), F32))
        y = elementwise(p, TANH, x)
        assert len(fused(p, elementwise(p, DOUBLE, y.with_layout((8, 8), (1, 8))))) == 2
        assert [d.reason for d in refusals(p)] == [f"buffer {y.buffer} is written and read through different views"]

    def test_path_through_a_third_step(self) -> None:
        p = Program()
        x = p.input(Spec((8, 8), F32))
        y = elementwise(p, TANH, x)
        product = p.new(Spec((8, 8), F32))
        p.add(MatMul(F32), [product], [y, y])
        assert len(fused(p, elementwise(p, ADD, y, product))) == 3
        assert {d.reason for d in refusals(p)} == {"another step must run between them", "a MatMul is not a loop"}

    def test_old_value_is_read_before_it_is_overwritten(self) -> None:
        p = Program()
        x, g = p.input(Spec((8, 8), F32)), p.input(Spec((8, 8), F32))
        turned = elementwise(p, DOUBLE, x.with_layout((8, 8), (1, 8)))
        elementwise_into(p, ADD, x, x, g)
        elementwise_into(p, MUL, x, x, turned)
        assert len(fused(p, elementwise(p, TANH, x), turned)) == 2

    def test_row_kernel_overwrites_only_once(self) -> None:
        p = Program()
        x = p.input(Spec((8, 8), F32))
        elementwise_into(p, loop(X - Y), x, x, folded(p, SUM, x, (1,), keepdims=True).broadcast_to((8, 8)))
        elementwise_into(p, loop(X - Y), x, x, folded(p, MAX, x, (1,), keepdims=True).broadcast_to((8, 8)))
        assert len(fused(p)) == 2

    def test_expensive_row_value_over_a_whole_row(self) -> None:
        p = Program()
        x = p.input(Spec((8, 8), F32))
        total = folded(p, SUM, x, (1,), keepdims=True)
        assert len(fused(p, elementwise(p, DOUBLE, total.broadcast_to((8, 8))))) == 2

    def test_long_rows(self) -> None:
        p = Program()
        x = p.input(Spec((2, 64), F32))
        total = folded(p, SUM, x, (1,), keepdims=True)
        assert len(fused(p, elementwise(p, ADD, x, total), limits=Limits(row=32))) == 2

    def test_backward_values_are_not_computed_forward(self) -> None:
        p = Program()
        x, g = p.input(Spec((8, 8), F32)), p.input(Spec((8, 8), F32))
        y = out = elementwise(p, TANH, x)
        for _ in range(3):
            product = p.new(Spec((8, 8), F32))
            p.add(MatMul(F32), [product], [out, g])
            out = product
        factor = elementwise(p, SQUARE, y)
        p.add(MatMul(F32), [p.new(Spec((8, 8), F32))], [factor, g])
        assert len(fused(p, elementwise(p, MUL, factor, out))) == 6
        assert any("would lie in memory while 3 steps run" in d.reason for d in refusals(p))

    def test_room_is_made_where_no_path_is(self) -> None:
        p = Program()
        x = p.input(Spec((8, 8), F32))
        y = elementwise(p, TANH, x)
        other = x
        for operand in (y, x, None, None):
            product = p.new(Spec((8, 8), F32))
            p.add(MatMul(F32), [product], [other if operand is None else operand, x])
            other = product
        assert len(fused(p, elementwise(p, MUL, y, other), limits=Limits(distance=9))) == 5

    def test_limits(self) -> None:
        p = Program()
        x = p.input(Spec((8,), F32))
        for _ in range(20):
            x = elementwise(p, TANH, x)
        assert len(fused(p, x, limits=Limits(instructions=100))) == 5

    def test_failed_check_leaves_the_same_state(self) -> None:
        p = Program()
        parameter, labels = p.input(Spec((8,), F32)), p.input(Spec((8,), "int64"))
        y = elementwise(p, TANH, parameter)
        p.add(CheckIndex("int64", 0, 3, "label"), [], [labels])
        elementwise_into(p, ADD, parameter, y, parameter)
        result, _ = fuse(p)
        assert [type(step.kernel) for step in result.steps] == [CheckIndex, Loop]
        value = np.ones(8, F32)
        assert load(result).launch(value, np.full(8, 5)) == 0
        assert (value == 1).all()

    @pytest.mark.parametrize("good", [(False, False), (True, False), (False, True), (True, True)])
    def test_updates_wait_for_every_check_and_checks_for_each_other(self, good: tuple[bool, bool]) -> None:
        """loop, check, check, update, check, update: whatever fails first, the state is that of this order."""
        p = Program()
        parameter, first, second = p.input(Spec((8,), F32)), *(p.input(Spec((8,), "int64")) for _ in range(2))
        late = p.input(Spec((8,), "int64"))
        y = elementwise(p, TANH, parameter)  # early: the update that joins it wants to be early as well
        for number, labels in enumerate((first, second)):
            p.add(CheckIndex("int64", 0, 3, f"check {number}"), [], [labels])
        elementwise_into(p, ADD, parameter, y, parameter)
        p.add(CheckIndex("int64", 0, 3, "check 2"), [], [late])
        elementwise_into(p, ADD, parameter, elementwise(p, DOUBLE, parameter), parameter)
        fused = fuse(p)[0]
        for last in (0, 9):
            found = []
            for program in (p, fused):
                value = np.ones(8, F32)
                failed = load(program).launch(value, *(np.full(8, 0 if g else 9) for g in good), np.full(8, last))
                found.append((failed if failed is None else program.steps[failed].kernel.what, value.tobytes()))
            assert found[0] == found[1]
        assert found[0][0] == ("check 0" if not good[0] else "check 1" if not good[1] else "check 2")

    def test_parts_of_one_buffer(self) -> None:
        p = Program()
        x = p.input(Spec((4,), F32))
        both = p.new(Spec((8,), F32))
        elementwise_into(p, TANH, both.with_layout((4,), (1,), 0), x)
        elementwise_into(p, DOUBLE, both.with_layout((4,), (1,), 4), x)
        assert len(fused(p, elementwise(p, SQUARE, both))) == 3

    def test_decisions_name_steps_and_origins(self) -> None:
        p = Program(origin=(7,))
        y = elementwise(p, TANH, p.input(Spec((8,), F32)))
        p.origin = (9,)
        p.outputs = [elementwise(p, DOUBLE, y).buffer]
        result, decisions = fuse(p)
        assert decisions == [Decision("fused", 0, 1, "reads its result", (7,), (9,))]
        assert result.steps[0].origins == (7, 9)
        assert str(decisions[0]) == "fused: step 0 into step 1: reads its result"


# Random programs.

SHAPES: tuple[Shape, ...] = ((6, 8), (48,), (6,), (8,), (6, 1), (), (8, 6), (2, 3, 8), (1, 8), (6, 0), (0,), (1, 1))
UNARY = (DOUBLE, TANH, SQUARE, INDEX, loop(E.cast(E.index(), F32)), loop(E.literal(1.5, F32)))
BINARY = (ADD, MUL, AXPY_LOOP, loop(X - Y, X * Y))


class st:
    """What hypothesis calls strategies, as functions of a frozen stream: its own draws depend on the environment."""

    @staticmethod
    def integers(low: int, high: int) -> Callable[[Any], int]:
        return lambda rng: int(rng.randint(low, high + 1))

    @staticmethod
    def booleans() -> Callable[[Any], bool]:
        return lambda rng: bool(rng.randint(2))

    @staticmethod
    def sampled_from(choices: Sequence[Any]) -> Callable[[Any], Any]:
        return lambda rng: choices[rng.randint(len(choices))]

    @staticmethod
    def permutations(choices: Sequence[Any]) -> Callable[[Any], list[Any]]:
        return lambda rng: [choices[i] for i in rng.permutation(len(choices))]

    @staticmethod
    def lists(one: Callable[[Any], Any], max_size: int) -> Callable[[Any], list[Any]]:
        return lambda rng: [one(rng) for _ in range(rng.randint(max_size + 1))]


class Draw:
    """A program of random steps over few buffers, with all that makes fusion hard."""

    def __init__(self, draw: Any):
        self.draw, self.program = draw, Program()
        self.ready = [self.program.input(Spec(shape, F32)) for shape in draw(st.permutations(SHAPES))[:6]]
        self.variables = list(self.ready)
        self.labels = [self.program.input(Spec((3,), "int64")) for _ in range(3)]
        for _ in range(draw(st.integers(1, 14))):
            draw(
                st.sampled_from(
                    (
                        self.map,
                        self.map,
                        self.map,
                        self.fold,
                        self.rows,
                        self.update,
                        self.matmul,
                        self.part,
                        self.check,
                    )
                )
            )()
        chosen = draw(st.lists(st.sampled_from(self.ready), max_size=3))
        fresh = {v.buffer for v in chosen} - set(self.program.inputs)
        self.program.outputs = sorted(fresh | ({self.ready[-1].buffer} - set(self.program.inputs)))

    def pick(self) -> View:
        view: View = self.draw(st.sampled_from(self.ready[-8:]))
        change = self.draw(st.integers(0, 6))
        if change == 1 and len(view.shape) >= 2:
            view = view.with_layout(view.shape[::-1], view.strides[::-1])
        elif change == 2 and view.shape and view.shape[0] > 1:
            offset = view.offset + (view.shape[0] - 1) * view.strides[0]
            view = view.with_layout(view.shape, (-view.strides[0], *view.strides[1:]), offset)
        elif change >= 3 and view.contiguous:
            shape = self.draw(
                st.sampled_from([s for s in SHAPES if math.prod(s) == math.prod(view.shape)] or [view.shape])
            )
            view = view.with_layout(shape, contiguous_strides(shape))
        return view

    def new(self, view: View) -> None:
        self.ready.append(view)

    def map(self) -> None:
        x, y = self.pick(), self.pick()
        try:
            domain = np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            y, domain = x, x.shape
        ins = [x, y] if self.draw(st.booleans()) else [x]
        kernel: Loop = self.draw(st.sampled_from(BINARY if len(ins) == 2 else UNARY))
        domain = domain if len(ins) == 2 else x.shape
        ins = ins[: len(kernel.input_dtypes)]
        outs = [self.program.new(Spec(domain, F32)) for _ in kernel.results]
        self.program.add(kernel, outs, [v.broadcast_to(domain) for v in ins], domain)
        self.ready.extend(outs)

    def axes(self, x: View) -> tuple[int, ...]:
        first = self.draw(st.integers(0, len(x.shape) - 1))
        return tuple(range(first, self.draw(st.integers(first + 1, len(x.shape)))))

    def fold(self) -> None:
        x = self.pick()
        if x.shape and x.contiguous:
            kernel = self.draw(st.sampled_from((SUM, MAX, loop(E.fold("sum", X * E.cast(E.position(), F32))))))
            self.new(folded(self.program, kernel, x, self.axes(x), self.draw(st.booleans())))

    def rows(self) -> None:
        x = self.pick()
        if x.shape and x.contiguous:
            self.new(whole_rows(self.program, SOFTMAX, x, self.axes(x)))

    def update(self) -> None:
        target, y = self.draw(st.sampled_from(self.variables)), self.pick()
        if y.shape == target.shape:
            elementwise_into(self.program, ADD, target, target, y)

    def check(self) -> None:
        """One of two fails, more or less."""
        bound = self.draw(st.integers(2, 5))
        kernel = CheckIndex("int64", -bound, bound, f"check {len(self.program.steps)}")
        self.program.add(kernel, [], [self.draw(st.sampled_from(self.labels))])

    def matmul(self) -> None:
        x = self.pick()
        if len(x.shape) == 2 and x.contiguous:
            out = self.program.new(Spec((x.shape[0], x.shape[0]), F32))
            self.program.add(MatMul(F32, transpose_b=True), [out], [x, x])
            self.new(out)

    def part(self) -> None:
        x, y = self.pick(), self.pick()
        if len(x.shape) == len(y.shape) >= 1 and x.shape[1:] == y.shape[1:]:
            out = self.program.new(Spec((x.shape[0] + y.shape[0], *x.shape[1:]), F32))
            for source, offset in ((x, 0), (y, x.shape[0] * out.strides[0])):
                part = out.with_layout(source.shape, out.strides, offset)
                self.program.add(self.draw(st.sampled_from((DOUBLE, TANH))), [part], [source], source.shape)
                if self.draw(st.booleans()):
                    self.new(part)
            self.new(out)


def random_program(seed: int) -> tuple[Program, Limits]:
    rng = np.random.RandomState(seed)

    def draw(strategy: Callable[[Any], Any]) -> Any:
        return strategy(rng)

    return Draw(draw).program, draw(st.sampled_from(SOME_LIMITS))


SOME_LIMITS = (
    Limits(),
    Limits(broadcast=100, distance=2),
    Limits(operands=5, instructions=40),
    Limits(row=4, column=4),
)


@pytest.mark.parametrize("part", range(4))
def test_random_programs_keep_their_bits(part: int) -> None:
    """`HYPOTHESIS_PROFILE=explore` draws others, ten times as many."""
    count = hypothesis.settings().max_examples * 5
    first = 0 if hypothesis.settings().derandomize else secrets.randbits(31)
    for seed in range(first + part * count, first + (part + 1) * count):
        try:
            check_random_program(*random_program(seed))
        except Exception as e:
            e.add_note(f"random_program({seed})")
            raise


def check_random_program(program: Program, limits: Limits) -> None:
    result, _ = fuse(program, limits)
    expected = bits(program)
    assert bits(result) == expected
    arena = memory.plan(result)
    assert memory.check(result, arena) == []
    assert bits(result, arena=arena) == expected
    for step in result.steps:
        if isinstance(step.kernel, Loop) and step not in program.steps:
            within(step, limits)


def within(step: Step, limits: Limits) -> None:
    kernel = step.kernel
    assert isinstance(kernel, Loop)
    assert bool(kernel.folds) == bool(step.fold_axes)
    assert len(step.ins) + len(step.outs) <= limits.operands
    assert all(view.shape == step.domain for view in (*step.ins, *step.outs))
    assert [v.dtype for v in step.ins] == list(kernel.input_dtypes)
    assert [v.dtype for v in step.outs] == list(kernel.output_dtypes)
    row = kernel.is_row()
    for view, result in zip(step.outs, kernel.results, strict=True):
        along = [view.strides[a] for a in step.fold_axes if step.domain[a] != 1]
        assert not step.fold_axes or not along or row[result] == (not any(along))


@pytest.mark.parametrize(
    ("rule", "always"),
    [
        ("clash", lambda *_: None),
        ("_Fuser._place", lambda self, a, b, before, both: b.place),
    ],
)
def test_the_rules_are_needed(monkeypatch: pytest.MonkeyPatch, rule: str, always: Any) -> None:
    """A fuser without one of its rules changes bits somewhere: the random programs would notice."""
    monkeypatch.setattr(f"dualgraph.kernels.fusion.{rule}", always)

    def attempt() -> None:
        for seed in range(5000):  # to the first that does
            check_random_program(*random_program(seed))

    with pytest.raises((AssertionError, ValueError, IndexError)):
        attempt()


# Size.


def chain(length: int) -> Program:
    p = Program()
    x = p.input(Spec((64, 10), F32))
    kernels: list[Kernel] = [DOUBLE, TANH, SQUARE]
    for number in range(length):
        out = p.new(Spec((64, 10), F32))
        p.add(kernels[number % 3], [out], [x], (64, 10))
        x = out
    p.outputs = [x.buffer]
    return p


def mesh(levels: int, width: int) -> Program:
    p = Program()
    level = [p.input(Spec((4, 4), F32)) for _ in range(width)]
    for _ in range(levels):
        level = [elementwise(p, AXPY_LOOP, x, y) for x, y in zip(level, level[1:] + level[:1], strict=True)]
    p.outputs = [view.buffer for view in level]
    return p


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "steps", "kernels"),
    [(chain(10_000), 400, 3), (mesh(100, 50), 300, 100), (mesh(500, 10), 40, 8)],
    ids=["chain", "mesh", "narrow mesh"],
)
def test_large_programs(program: Program, steps: int, kernels: int) -> None:
    start = time.perf_counter()
    result, _ = fuse(program)
    seconds = time.perf_counter() - start
    assert len(result.steps) <= steps
    assert len({step.kernel for step in result.steps}) <= kernels
    assert seconds < 20, "near-linear: a tenth of this on a quiet machine"
    assert bits(result) == bits(program)


def test_fusion_is_linear() -> None:
    """Work counted, not timed: merges asked for grow with the program."""
    counts = []
    for length in (1000, 2000):
        program = chain(length)
        fuser = fusion._Fuser(program, fusion.dependences(program), Limits())
        fuser.merge_chains()
        fuser.merge_siblings()
        counts.append(len(fuser.decisions))
    assert counts[1] <= 2.1 * counts[0]
