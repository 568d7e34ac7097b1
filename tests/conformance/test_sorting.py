"""`argsort` and `sort` against NumPy by bits: every dtype, axis, layout and mode, their gradients, their place in a graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
from conformance.layouts import LAYOUTS
from conformance.modes import assert_bits, assert_modes_agree, run_eager
from conformance.programs import nans
from dualgraph import static
from dualgraph.dtypes import FLOATS, NAMES, NUMPY_DTYPES, STORED
from dualgraph.kernels import memory
from dualgraph.kernels.kinds import Sort

Array = np.ndarray[Any, Any]
SHAPES = ((7,), (1,), (0,), (3, 0), (0, 3), (5, 4), (4, 3, 6), (2, 1, 5), (2, 200), (200, 2))


def drawn(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Many ties; of floats zeros of both signs, NaNs of all kinds, infinities, subnormals."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in STORED:
        few = [0, 0x8000, 0x3F80, 0xBF80, 0x4020, 0x7F80, 0xFF80, 1, 0x8040, 0x7F7F, 0x7FC0, 0xFFC1, 0x7F81]
        return rng.choice(np.array(few, np.uint16), shape).view(NUMPY_DTYPES[dtype])
    if dtype.startswith("int"):
        info = np.iinfo(dtype)
        return rng.choice(np.array([info.min, info.max, 0, 1, -1, 2, 300, -300], dtype), shape)
    f = np.finfo(dtype)
    plain = np.array([0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, f.smallest_subnormal, -f.tiny / 2, f.max], dtype)
    return rng.choice(np.concatenate([plain, plain, nans(dtype)]), shape)


def order_of(x: Array, axis: int, descending: bool) -> Array:
    """Element by element: by what Python compares, NaN last, equal ones by position."""

    def row(values: Array) -> list[int]:
        comparable = [i for i, v in enumerate(values.tolist()) if v == v]
        comparable.sort(key=lambda i: values[i].item(), reverse=descending)  # stable, also in reverse
        return comparable + [i for i, v in enumerate(values.tolist()) if v != v]

    moved = np.moveaxis(x, axis, -1)
    found = np.array([row(values) for values in moved.reshape(-1, x.shape[axis])], np.int64) if x.size else []
    return np.ascontiguousarray(np.moveaxis(np.reshape(found, moved.shape).astype(np.int64), -1, axis))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", NAMES)
def test_every_axis(dtype: str, descending: bool) -> None:
    rng = np.random.default_rng(31)
    for shape in SHAPES:
        x = drawn(rng, dtype, shape)
        for axis in range(-len(shape), len(shape)):
            order = order_of(x, axis, descending)
            expected = [order, np.take_along_axis(x, order, axis)]

            def both(x: Any, axis: int = axis) -> list[Any]:
                return [f(x, axis=axis, descending=descending) for f in (dg.argsort, dg.sort)]

            assert_bits(run_eager(both, [x]), expected, f"{shape}, axis {axis}")
            if axis == len(shape) // 2:
                found = assert_modes_agree(both, [x], f"{shape}, axis {axis}", order=2)
                assert_bits(found[:2], expected, f"{shape}, axis {axis}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_every_layout(dtype: str, layout: str) -> None:
    x = drawn(np.random.default_rng(32), dtype, (5, 4, 6))
    base, view = LAYOUTS[layout](x)
    for axis in range(3):
        order = order_of(x, axis, True)

        def both(base: Any, axis: int = axis) -> list[Any]:
            return [view(base).argsort(axis, descending=True), view(base).sort(axis, descending=True)]

        found = assert_modes_agree(both, [base], layout)
        assert_bits(found[:2], [order, np.take_along_axis(x, order, axis)], f"{layout}, axis {axis}")


def test_thousands_of_rows() -> None:
    rng = np.random.default_rng(33)
    for _ in range(300):
        dtype = str(rng.choice(NAMES))
        shape, descending = (int(rng.integers(1, 40)), int(rng.integers(1, 90))), bool(rng.integers(2))
        x = drawn(rng, dtype, shape)
        if rng.integers(2) and dtype in FLOATS:
            x = np.where(rng.random(shape) < 0.7, rng.normal(size=shape).astype(NUMPY_DTYPES[dtype]), x)
        order = order_of(x, 1, descending)
        found = run_eager(lambda x, d=descending: [dg.argsort(x, descending=d), dg.sort(x, descending=d)], [x])
        assert_bits(found, [order, np.take_along_axis(x, order, 1)], f"{dtype}{shape}")


def test_stable_or_not_is_stable() -> None:
    x = np.array([1.0, 0.0, -0.0, 1.0, 0.0], np.float32)
    for stable in (True, False):
        assert dg.argsort(x, stable=stable).tolist() == [1, 2, 4, 0, 3]
        assert dg.argsort(x, descending=True, stable=stable).tolist() == [0, 3, 1, 2, 4]


def test_the_gradient_goes_back_to_where_elements_came_from() -> None:
    x = np.array([[3.0, 1.0, 2.0], [1.0, np.nan, 1.0]])
    g = np.array([[1.0, 10.0, 100.0], [1.0, 10.0, 100.0]])

    def gradient(x: Any) -> Any:
        (found,) = dg.grad(dg.sort(x), [x], dg.tensor(g), create_graph=True)
        return found

    (found,) = run_eager(gradient, [x])
    np.testing.assert_array_equal(found, [[100, 1, 10], [1, 100, 10]])
    assert_modes_agree(lambda x: dg.sort(dg.sort(x * x) ** 3, axis=0, descending=True), [x], "twice", order=3)


def test_positions_have_no_gradient() -> None:
    x = dg.tensor([2.0, 1.0], requires_grad=True)
    assert not dg.argsort(x).requires_grad
    (found,) = dg.grad(dg.sum(dg.sort(x) * dg.argsort(x)), [x])
    assert found.tolist() == [0.0, 1.0]


def compiled(function: Any, *specs: Any, **options: Any) -> Any:
    return static.compile(function, *specs, **options)


def test_it_is_a_kernel_of_its_own(tmp_path: Path) -> None:
    """Its neighbours fuse with one another, not with it; every report knows it."""
    run = compiled(lambda x: dg.argsort(dg.exp(x) * 2.0, axis=0) + 1, static.spec((30, 40)))
    kinds = [type(step.kernel).__name__ for step in run.program.steps]
    assert kinds == ["Loop", "Sort", "Loop"]
    (sort,) = (step for step in run.program.steps if isinstance(step.kernel, Sort))
    assert [view.shape for view in (*sort.ins, *sort.outs)] == [(40, 30)] * 3
    assert (sort.kernel.flops(sort), sort.kernel.check(sort)) == (0, None)
    kernel = run.kernels[1]
    assert kernel.name == kernel.code == "sort"
    assert kernel.calls[0].startswith("argsort")
    assert "sort" in run.explain()
    assert run.cost.bytes >= 30 * 40 * (4 + 8 + 8)
    assert run.cost.flops == 30 * 40 * 2
    assert {type(step.kernel).__name__ for step in run.stages["fused"]} == {"Loop", "Sort"}
    for stage in ("differentiated", "fused"):
        path = tmp_path / f"{stage}.dot"
        run.save_graph(path, stage=stage)
        assert "sort" in path.read_text()


def test_the_memory_to_work_in_is_planned() -> None:
    """It lies in the arena, beside what lives meanwhile; two sorts after one another share it."""
    run = compiled(
        lambda x: dg.sum(dg.sort(dg.sort(x * 2.0) + 1.0, descending=True)), static.spec((20, 500)), verify=True
    )
    x = np.random.default_rng(34).normal(size=(20, 500)).astype(np.float32)
    assert memory.check(run.program, run.compilation.arena) == []
    assert_bits(
        [run(x).numpy()], run_eager(lambda x: dg.sum(dg.sort(dg.sort(x * 2.0) + 1.0, descending=True)), [x]), "sum"
    )
    spares = [step.outs[1].buffer for step in run.program.steps if isinstance(step.kernel, Sort)]
    assert len(spares) == 2
    assert run.memory.arena < run.memory.unplanned
    assert run.memory.arena >= 20 * 500 * 16


def test_graph_passes_know_it() -> None:
    """Equal ones are one, unused ones none, those of constants are computed at once."""

    def sorts(function: Any, **options: Any) -> int:
        run = compiled(function, static.spec((6,)), **options)
        return sum(isinstance(step.kernel, Sort) for step in run.program.steps)

    assert sorts(lambda x: [dg.sort(x), dg.argsort(x)], optimize="none") == 2
    assert sorts(lambda x: [dg.sort(x), dg.argsort(x)]) == 1
    assert sorts(lambda x: [dg.argsort(x), dg.argsort(x, descending=True)]) == 2
    assert sorts(lambda x: x * (dg.argsort(x), 2.0)[1]) == 0
    assert sorts(lambda x: x * dg.sort(dg.tensor([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]))) == 0


def test_a_step_that_sorts_trains_in_both_modes() -> None:
    """A mean of the largest half of the losses, by which a parameter is updated."""
    rng = np.random.default_rng(35)
    xs, ys = rng.normal(size=(64, 8)).astype(np.float32), rng.normal(size=64).astype(np.float32)

    def trained(wrap: Any) -> Array:
        model = dg.nn.Linear(8, 1)
        model.load_state_dict({"weight": dg.ones((1, 8)), "bias": dg.zeros(1)})
        optimizer = dg.optim.Adam(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            losses = dg.square(dg.squeeze(model(x), 1) - y)
            loss = dg.mean(dg.sort(losses, descending=True)[:32])
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        return np.array([run(xs, ys).item() for _ in range(5)])

    eager, graph = trained(lambda step: step), trained(static.jit)
    assert_bits([graph], [eager], "losses")
    assert math.isfinite(eager[-1])
    assert eager[-1] < eager[0]
