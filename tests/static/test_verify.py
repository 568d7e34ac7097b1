"""`verify=True` runs every stage, on memory full of NaN and in another layout: each kind of fault is noticed and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, optim, static
from dualgraph.dtypes import DTYPES, FLOATS, INTEGERS
from dualgraph.errors import GraphError
from dualgraph.kernels import memory, provider, reference
from dualgraph.kernels.kinds import MatMul
from dualgraph.kernels.program import Program, View
from dualgraph.ops.shape import copy_loop
from dualgraph.spec import Spec
from dualgraph.static import algebra, passes
from dualgraph.static.executable import Executable

X = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)


def compiled(function, *specs) -> Executable:
    return static.compile(function, *(specs or (static.spec(X.shape),)), verify=True).executable


def test_a_pass_that_changes_bits(monkeypatch):
    wrong = passes.Pass("wrong", "graph", "exact", "x + 0 → x is not exact", passes._algebra((algebra.plus_zero,)))
    monkeypatch.setattr(passes, "PASSES", (wrong, *passes.PASSES))
    executable = compiled(lambda x: (x + 0.0) * 2.0, static.spec((1,)))
    with pytest.raises(GraphError, match="wrong changed the bits"):
        executable(np.array([-0.0], np.float32))
    compiled(lambda x: (x + 0.0) * 2.0, static.spec((1,)))(np.array([1.0], np.float32))


def test_an_identity_that_keeps_a_foreign_nan(monkeypatch):
    """All bits count: those of a NaN, too."""
    monkeypatch.setattr(algebra, "_computed", lambda rw, call, x: x)
    executable = compiled(lambda x: x * 1.0, static.spec((2,)))
    with pytest.raises(GraphError, match="exact_algebra changed the bits"):
        executable(np.array([1.0, -np.nan], np.float32))


def test_what_nobody_uses():
    """Random results, inputs, variables and gradients that no later stage needs."""
    unused, kept = nn.Parameter(np.ones(3, np.float32)), dg.Variable(np.ones(3, np.float32))
    unused.grad = dg.ones(3)

    def function(x, y):
        dg.rand((3,))
        unused * x
        unused.grad * 2.0
        kept.assign(kept + 1.0)
        return x + 1.0

    run = static.compile(function, static.spec((3,)), static.spec((3,)), verify=True)
    assert run(np.ones(3, np.float32), np.zeros(3, np.float32)).tolist() == [2.0] * 3
    assert kept.tolist() == [2.0] * 3


def test_equal_checks_are_one():
    """Also where the first was of another's result: what was checked once need not be checked again."""

    def twice(x, i):
        return [dg.take(dg.take(x, i, axis=1), i, axis=1) for _ in range(2)]

    x, i = dg.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), dg.tensor([1, 0])
    first, second = static.jit(twice, verify=True)(x, i)
    assert first.tolist() == second.tolist() == twice(x, i)[0].tolist()


def test_a_training_step_passes():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    opt = optim.Adam(model.parameters(), lr=1e-2)

    def step(x):
        opt.zero_grad()
        loss = dg.mean(model(x) ** 2)
        loss.backward()
        opt.step()
        return loss

    run = static.compile(step, static.spec((10, 4)), verify=True)
    losses = [float(run(X.reshape(50, 4)[:10])) for _ in range(3)]
    assert len(set(losses)) == 3


def test_a_kernel_that_depends_on_the_layout(monkeypatch):
    """What once made products differ between the modes: operands handed to BLAS as they lie."""
    monkeypatch.setattr(View, "row_major", property(lambda self: True))
    monkeypatch.setattr(MatMul, "factors", _as_they_lie)
    executable = compiled(lambda x, y: x @ y, static.spec((5, 40)), static.spec((40, 33)))
    with pytest.raises(GraphError, match="another memory layout of the inputs changed the bits"):
        executable(X, np.resize(X, (40, 33)))


_FACTORS = MatMul.factors


def _as_they_lie(self, ins):
    return _FACTORS(self, [v.with_layout(v.shape, (v.shape[-1], 1)) for v in ins])


def softmax_of_product(x):
    y = dg.softmax(x @ x.mT, axis=-1)
    return dg.exp(y) @ x


def swap_steps(program: Program) -> None:
    """A consumer runs before its producer: it reads what nobody wrote."""
    program.steps[:2] = program.steps[1::-1]


def forget_a_step(program: Program) -> None:
    del program.steps[1]


def forget_the_last_step(program: Program) -> None:
    """The result itself is never written."""
    del program.steps[-1]


def write_half(program: Program) -> None:
    """A loop leaves out the last row of its result."""
    number, step = next((n, s) for n, s in enumerate(program.steps) if s.domain and s.domain[0] > 1)
    shape = (step.domain[0] - 1, *step.domain[1:])
    outs, ins = (tuple(v.with_layout(shape, v.strides) for v in views) for views in (step.outs, step.ins))
    program.steps[number] = dataclasses.replace(step, outs=outs, ins=ins, domain=shape)


@pytest.mark.parametrize("broken", [swap_steps, forget_a_step, forget_the_last_step, write_half])
def test_reading_what_was_not_written(broken):
    executable = compiled(softmax_of_product)
    broken(executable.program)
    with pytest.raises(GraphError, match=r"order of kernels changed the bits of result 0"):
        executable(X)


def test_a_memory_plan_with_an_overlap():
    executable = compiled(softmax_of_product)
    arena = executable.compilation.arena
    executable.compilation.arena = arena._replace(offsets=dict.fromkeys(arena.offsets, 0))
    with pytest.raises(GraphError, match=r"verify: memory plan: buffers .* overlap"):
        executable(X)


@pytest.mark.parametrize("load", [provider.load, reference.load])
def test_scratch_memory_is_poisoned_before_each_run(load):
    """In every dtype: a buffer that nobody writes holds what no computation leaves."""
    program = Program()
    for dtype in (*FLOATS, *INTEGERS, "bool"):
        unwritten, out = program.new(Spec((70,), dtype)), program.new(Spec((70,), dtype))
        program.add(copy_loop(dtype, dtype), [out], [unwritten], (70,))
        program.outputs.append(out.buffer)
    loaded = load(program, poisoned=True)
    for run in (loaded.launch, loaded.launch, lambda: loaded.stepwise([])):
        for value in run():
            found = set(value.view(f"u{value.itemsize}").tolist())
            assert found <= {DTYPES[value.dtype.name].poison, *([1] if value.dtype == bool else [])}
    planned = load(program, memory.plan(program), poisoned=True)
    assert all(np.isnan(x).all() for x in planned.launch() if x.dtype.kind == "f")  # places are shared by dtypes
