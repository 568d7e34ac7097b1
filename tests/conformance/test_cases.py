"""The kinds of fault that other projects' compiled modes fell into, each in a small program of our own.

After each name stands where the fault was seen. Gradients are compared even where forward results agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from conformance.modes import (
    assert_bits,
    assert_modes_agree,
    differentiated,
    leaves,
    random_state,
    run_eager,
    same_bits,
)
from dualgraph import nn, optim, static, tree
from dualgraph.kernels.nan import one_nan

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
LEVELS = ("none", "exact")


def copies(xs: Any) -> list[Any]:
    return [np.array(x.numpy()) for x in xs]


# ------------------------------------------------------------------------------------------------- calls and buffers


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_many_calls_then_backwards_in_any_order(order: tuple[int, ...]) -> None:
    """Paddle #43645: saved values of one call were overwritten by the next."""
    w = dg.tensor(X, requires_grad=True)
    inputs = [dg.tensor(X * k) for k in (1.0, 2.0, 3.0)]
    expected = [copies(dg.grad(dg.sum(dg.tanh(w * x)), [w])) for x in inputs]
    losses = [dg.sum(dg.tanh(w * x)) for x in inputs]
    for k in order:
        assert_bits(copies(dg.grad(losses[k], [w])), expected[k], f"backward {k}")
    run = static.compile(lambda x: dg.grad(dg.sum(dg.tanh(w * x)), [w]), static.spec((3, 4)))
    held = [run(x) for x in inputs]
    for k in order:
        assert_bits(copies(held[k]), expected[k], f"held {k}")


def test_accumulation_over_calls() -> None:
    """tinygrad #16191: `.grad +=` captured as a constant; the first call differs from the later ones."""

    def steps(compiled: bool) -> list[Any]:
        w = dg.Variable(X, requires_grad=True)

        def step(x: Any) -> Any:
            loss = dg.sum(dg.exp(w * x) * w)
            loss.backward()
            return loss

        run = static.jit(step) if compiled else step
        found = []
        for k in range(4):
            found += [run(dg.tensor(X * k)), w.grad]
            if k == 2:
                w.grad = None
        return copies(found)

    assert_bits(steps(True), steps(False), "accumulated gradients")


def test_accumulation_switches_modes() -> None:
    w = dg.Variable(X, requires_grad=True)

    def step() -> None:
        dg.sum(dg.sin(w) * w).backward()

    step()
    single = w.grad.numpy().copy()
    static.jit(step)()
    assert_bits([w.grad.numpy()], [single + single], "eager, then static")
    step()
    assert_bits([w.grad.numpy()], [single + single + single], "and eager again")


@pytest.mark.parametrize("level", LEVELS)
def test_results_of_many_calls_are_kept(level: str) -> None:
    """tinygrad #7020, #6803: the output buffer was reused by the next call."""
    run = static.compile(lambda x: [x * 2.0, dg.sum(x, axis=0), x], static.spec((3, 4)), optimize=level)
    inputs = [X + k for k in range(5)]
    held = [run(x) for x in inputs]
    arrays = [[y.numpy() for y in ys] for ys in held]
    for x, ys, early in zip(inputs, held, arrays, strict=True):
        assert_bits([ys[0].numpy(), ys[2].numpy()], [x * 2, x], "tensors")
        assert_bits([early[0], early[2]], [x * 2, x], "their arrays")
    assert len({a.ctypes.data for ys in arrays for a in ys}) == 15


def test_a_fed_array_may_change_afterwards() -> None:
    run = static.compile(lambda x: [x, x.T, x * 1.0, x + 1.0], static.spec((3, 4)))
    x = X.copy()
    held = run(x)
    x[:] = 7
    assert_bits([held[0].numpy(), held[2].numpy()], [X, X], "results after the fed array changed")
    y = dg.tensor(X)
    (same, *_) = run(y)
    assert same is y


def test_outputs_share_no_memory_with_inputs_or_each_other() -> None:
    """MXNet #13967 and others: identity outputs, a parameter returned untouched. One tensor returned twice is one tensor."""
    w = dg.Variable(X)

    def run(x: Any) -> list[Any]:
        y = x + w
        return [x, x, y, y, w, w.T, y.T, y[0], dg.reshape(y, (12,))]

    for level in LEVELS:
        results = static.compile(run, static.spec((3, 4)), optimize=level)(X)
        expected = run(dg.tensor(X))
        assert_bits(copies(results), copies(expected), level)
        assert results[4] is w
        assert [[a is b for a in results] for b in results] == [[a is b for a in expected] for b in expected]
        addresses = {r.storage.__array_interface__["data"][0] for r in results}
        assert len(addresses) == len({id(r) for r in results})


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_held_is_never_overwritten(level: str) -> None:
    """Views, `numpy()` and results made before a static update of a variable keep their values."""
    w = dg.Variable(X)

    def update(x: Any) -> Any:
        w.assign(w * 2.0 + x)
        return w

    run = static.compile(update, static.spec((3, 4)), optimize=level)
    before = [w.numpy(), w.detach().numpy(), w.T.numpy(), w[1:].numpy(), (w * 1.0).numpy()]
    held, frozen = [w.detach(), w.T, w[1:]], [np.array(b) for b in before]
    for _ in range(3):
        run(X)
    assert_bits(before, frozen, "arrays")
    assert_bits(copies(held), frozen[1:4], "tensors")
    after, kept = w.numpy(), w.numpy().copy()
    run(X)
    assert_bits([after], [kept], "the value between two runs")


def test_a_variable_updated_in_place_is_read_before() -> None:
    """Two variables that exchange their values, and one that reads both."""
    a, b, c = dg.Variable(X), dg.Variable(X * 2), dg.Variable(X * 0)

    def swap() -> Any:
        old_a, old_b = a + 0.0, b + 0.0
        a.assign(old_b)
        b.assign(old_a)
        c.assign(a - b)
        return a, old_a

    run = static.compile(swap)
    for k in range(3):
        run()
        expected = [X * 2, X] if k % 2 == 0 else [X, X * 2]
        assert_bits([a.numpy(), b.numpy(), c.numpy()], [*expected, expected[0] - expected[1]], f"swap {k}")


def test_exchange_without_copies() -> None:
    a, b = dg.Variable(X), dg.Variable(X * 2)

    def swap() -> None:
        x, y = a.detach(), b.detach()
        a.assign(y)
        b.assign(x)

    static.compile(swap)()
    assert_bits([a.numpy(), b.numpy()], [X * 2, X], "static")
    swap()
    assert_bits([a.numpy(), b.numpy()], [X, X * 2], "eager")


def test_a_transposed_update() -> None:
    """The new value is a view of the old one."""
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    for level in LEVELS:
        w = dg.Variable(values)
        static.compile(lambda w=w: w.assign(w.T), optimize=level)()
        assert_bits([w.numpy()], [np.ascontiguousarray(values.T)], level)


def test_the_same_slice_updated_twice() -> None:
    """pytorch #136662: of two updates of one slice only one arrived."""
    state = dg.Variable(X)

    def bump() -> None:
        state.assign(dg.concat([state[:1] - 1.0, state[1:]], axis=0))

    def twice() -> Any:
        bump()
        bump()
        return state

    expected = X.copy()
    for run in (twice, static.compile(twice), static.compile(twice, optimize="none")):
        expected[0] = expected[0] - 1 - 1
        assert_bits([run().numpy(), state.numpy()], [expected, expected], "two updates")


# ------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("axis", [0, 1, None])
def test_ties_after_fusion(axis: int | None) -> None:
    """MLX #1234: `x == max(x)` was computed again with other bits, and the gradient became NaN."""

    def run(x: Any) -> list[Any]:
        y = dg.exp(dg.sin(x) * 0.1) / 3.0
        top = dg.max(y, axis=axis, keepdims=True)
        hit = y == top
        return [dg.astype(hit, "float32"), dg.sum(dg.astype(hit, "int64")), top, dg.where(hit, y, 0.0) / dg.sum(y)]

    values = np.tile(X[:, :2], 2)
    results = assert_modes_agree(run, [values])
    assert results[1] >= 1
    assert all(np.isfinite(r).all() for r in results)


def test_discontinuities_after_fused_chains() -> None:
    """pytorch 2.13: sign(gelu(-5.53)) was -1 in one mode and 0 in the other."""
    values = np.concatenate([np.linspace(-6, 6, 501), [-0.0, 0.0, -5.53, 1e-30, -1e-30, -1e-45]]).astype(np.float32)

    def run(x: Any) -> list[Any]:
        y = dg.gelu(x) - dg.gelu(x * 1.0000001)
        z = dg.sin(x) * 1e-20 * 1e-20
        return [dg.sign(dg.gelu(x)), dg.sign(y), dg.floor(y * 1e7), y > 0, dg.argmax(y), dg.argmin(y), dg.signbit(z),
                dg.round(dg.exp(x) * 0.5), dg.astype(dg.tanh(x) * 1e6, "int32"), dg.copysign(1.0, y),
                dg.ceil(-dg.abs(z))]  # fmt: skip

    assert_modes_agree(run, [values])
    assert_modes_agree(run, [values.astype(np.float64)])


def test_no_contraction_and_no_exact_zero() -> None:
    """jax #22881: cos(x/2) + 0*sin(x/2) differed by an FMA; also x*0 of infinities and the sign of x+0."""

    def run(x: Any) -> list[Any]:
        half = x / 2.0
        return [
            dg.cos(half) + 0.0 * dg.sin(half),
            x * x - x * x,
            x * 0.0,
            x + 0.0,
            0.0 + x,
            x - x,
            x / x,
            0.0 - x,
            x * 1.1 + x,
        ]

    values = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, 1.0, 2 / 3, 1e30, 1e-40, -3.3], np.float32)
    found = assert_modes_agree(run, [values])
    with np.errstate(all="ignore"):
        numpy = [values * np.float32(0), values + np.float32(0), values + np.float32(0)]
        assert_bits(found[2:5], list(map(one_nan, numpy)), "NumPy's bits but for those of NaN")
        assert_bits(found[8:9], [values * np.float32(1.1) + values], "two roundings")
    assert_modes_agree(run, [values.astype(np.float64)])


def test_overflow_of_a_chain_that_ends_in_a_sum() -> None:
    """pytorch #150114: 3.7e7 against inf, an intermediate kept in a wider type."""
    values = np.full((4, 3), 2e38, np.float32)

    def run(x: Any) -> list[Any]:
        return [dg.sum(x * 2.0, axis=0), dg.mean(x, axis=0), dg.sum(x * 2.0 - x * 2.0), dg.sum(x * 1e-38 * 1e-8)]

    found = assert_modes_agree(run, [values])
    assert np.isinf(found[0]).all()
    assert np.isnan(found[2])


def test_delicate_formulas() -> None:
    """TensorFlow #55814: log-sum-exp, log1p, variance near zero after a reordering."""
    values = np.array([[1e4, 1e4 + 1e-3, 1e4 - 1], [1e-8, -1e-8, 0], [88.8, -104, 0.5], [-np.inf, 0, 1]], np.float32)

    def run(x: Any) -> list[Any]:
        m = dg.max(x, axis=1, keepdims=True)
        manual = dg.log(dg.sum(dg.exp(x - m), axis=1)) + m[:, 0]
        return [dg.logsumexp(x, axis=1), manual, dg.log1p(x * x), dg.expm1(x * 1e-8), dg.var(x[:3], axis=1),
                dg.std(x[:3] * 0.0 + 3.3, axis=1), dg.log_softmax(x, axis=1), dg.softplus(x), dg.log_sigmoid(x)]  # fmt: skip

    assert_modes_agree(run, [values], order=2)
    assert_modes_agree(run, [values.astype(np.float64)], order=2)


# ------------------------------------------------------------------------------------------------- what a trace depends on


def test_structures_none_and_constants() -> None:
    """MLX #2632, #2647: the cache key was too weak."""
    calls = 0

    def run(x: Any, options: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if options is None:
            return {"plain": x * 1.0, "none": None}
        if isinstance(options, dict):
            return (x * options["a"], [x + options.get("b", 0.0)])
        return x * options

    fast = static.jit(run)
    y = dg.tensor(X)
    arguments: list[Any] = [
        None,
        2,
        2.0,
        True,
        1,
        1.0,
        0.0,
        -0.0,
        {"a": y},
        {"a": 2.0},
        {"a": y, "b": y},
        {"b": y, "a": 1},
    ]
    for options in arguments:
        expected, got = run(y, options), fast(y, options)
        assert type(expected) is type(got)
        assert_bits(copies(leaves(got)), copies(leaves(expected)), f"options {options!r}")
        assert tree.flatten(expected)[1] == tree.flatten(got)[1]
    traced, misses = calls, len(fast.misses)
    for options in arguments:
        fast(y, options)
    assert (calls, len(fast.misses)) == (traced, misses)


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "float64": lambda x: [x * np.float64(2.0), np.float64(2.0) * x, dg.exp(np.float64(2.0)) * x[0, 0]],
    "int64": lambda x: [x + np.int64(3), dg.maximum(x, np.int32(1)), dg.argmax(x) + np.int32(3), x - dg.tensor(0)],
    "bool": lambda x: [x + np.bool_(True), x * True, (x > 0) + 1, dg.where(True, x, np.int64(4))],
    "vectors": lambda x: [x * np.ones(4), np.ones(4) * x, dg.add([1.0, 2.0, 3.0, 4.0], x)],
    "integers": lambda x: [dg.astype(x, "int32") * 2.5, dg.argmax(x) // 0, dg.astype(x * 1e30, "int32")],
    "special": lambda x: [x * 1e300, x * -1e300, x * 1e-46, x * float("nan"), x + float("inf"), x * 2**70, x + -0.0],
    "fills": lambda x: [
        x + dg.full((4,), 1e300),
        dg.full_like(x, -1e300),
        dg.full((2,), True),
        dg.ones_like(x, "int64"),
    ],
    "made": lambda x: [x @ dg.eye(4), dg.linspace(0, 1, 5) * 2.0, dg.arange(3)[:, None] * x, dg.outer(x[0], x[1])],
    "powers": lambda x: [x**2, x**0.5, x**-1, x**0, 2.0**x, x**x, dg.argmax(x, axis=0) ** 2],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_beside_tensors(name: str) -> None:
    """Python's and NumPy's numbers mean the same in both modes; what float32 cannot hold is infinite."""
    assert_modes_agree(NUMBERS[name], [X], name)


def test_the_order_of_arguments_is_kept() -> None:
    fast = static.jit(lambda a, b: a - b)
    a, b = dg.tensor(X), dg.tensor(X * 3)
    assert_bits([fast(a, b).numpy(), fast(b, a).numpy(), fast(a, a).numpy(), fast(b=a, a=b).numpy()],
                [X - X * 3, X * 3 - X, X - X, X * 3 - X], "order")  # fmt: skip


def test_two_functions_of_one_name() -> None:
    def make(k: float) -> Any:
        def scaled(x: Any) -> Any:
            return x * k

        return static.jit(scaled)

    assert_bits([make(2.0)(X).numpy(), make(3.0)(X).numpy()], [X * 2, X * 3], "closures")


def test_train_and_eval() -> None:
    """TensorFlow #29762, #34221: the train flag did not arrive; here dropout, switched between the calls."""

    def losses(compiled: bool) -> list[Any]:
        dg.manual_seed(11)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        run = static.jit(model) if compiled else model
        found = []
        for training in (True, False, True, True, False):
            model.train(training)
            found.append(run(dg.tensor(X)))
        return copies(found)

    eager = losses(False)
    assert_bits(losses(True), eager, "dropout")
    assert not same_bits(eager[2], eager[3])
    assert same_bits(eager[1], eager[4])


def test_gradients_switched_off() -> None:
    w = dg.Variable(X, requires_grad=True)
    fast = static.jit(lambda x: [w * x, dg.is_grad_enabled()])
    assert fast(X)[1] is True
    with dg.no_grad():
        assert fast(X)[1] is False
    assert fast(X)[1] is True


# ------------------------------------------------------------------------------------------------- random numbers


def draws() -> list[Any]:
    return [
        dg.rand((5,)),
        dg.randn((2, 3), dtype="float64"),
        dg.bernoulli((9,), 0.3),
        dg.randint((4,), -5, 6),
        dg.rand((5,)),
    ]


def test_random_numbers() -> None:
    """TensorFlow #59635: op seeds mean other things per mode; also an op that is called twice."""
    compiled = {level: static.compile(draws, optimize=level) for level in LEVELS}
    dg.manual_seed(7)
    expected = [copies(draws()) for _ in range(4)]
    after = random_state()
    assert not same_bits(expected[0][0], expected[0][4])
    for pattern in itertools.product(("eager", *LEVELS), repeat=4):
        if len(set(pattern)) < 2 and pattern[0] == "eager":
            continue
        dg.manual_seed(7)
        for k, mode in enumerate(pattern):
            assert_bits(copies((draws if mode == "eager" else compiled[mode])()), expected[k], f"{pattern}, call {k}")
        assert random_state() == after


def test_seeding_inside() -> None:
    def seeded() -> list[Any]:
        first = dg.rand((3,))
        dg.manual_seed(5)
        return [first, dg.rand((3,))]

    dg.manual_seed(1)
    expected = copies(seeded())
    state = random_state()
    run = static.compile(seeded)
    dg.manual_seed(1)
    assert_bits(copies(run()), expected, "seeded inside")
    assert random_state() == state


# ------------------------------------------------------------------------------------------------- trajectories

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}


def trajectory(optimizer: str, mode: str, dtype: str = "float32", steps: int = 20) -> list[Any]:
    """Losses, weights and state of a run; `mixed` changes the mode at every step."""
    dg.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    if dtype == "float64":
        wide = [dg.Variable(p.numpy().astype(dtype), requires_grad=True) for p in model.parameters()]

        def forward(x: Any) -> Any:
            return F.linear(dg.tanh(F.linear(x, wide[0], wide[1])), wide[2], wide[3])
    else:
        wide, forward = list(model.parameters()), model
    opt = OPTIMIZERS[optimizer](wide)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        opt.step()
        return loss

    specs = (static.spec((6, 4), dtype), static.spec((6,), "int64"))
    arms = {
        "eager": [step],
        "mixed": [step, static.compile(step, *specs), static.compile(step, *specs, optimize="none")],
    }
    runs = arms.get(mode) or [static.compile(step, *specs, optimize=mode)]
    rng = np.random.default_rng(4)
    found = []
    for k in range(steps):
        x, y = rng.normal(size=(6, 4)).astype(dtype), rng.integers(0, 3, 6)
        found.append(runs[k % len(runs)](dg.tensor(x), dg.tensor(y)).item())
    return [np.array(found), *copies(wide), *copies(v for _, v in opt.named_variables()), *copies(p.grad for p in wide)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trajectories(optimizer: str, dtype: str) -> None:
    """TensorFlow #120996, pytorch #187445: equal at first, apart after 20 steps of the optimiser."""
    expected = trajectory(optimizer, "eager", dtype)
    assert np.isfinite(expected[0]).all()
    for mode in ("none", "exact", "mixed"):
        assert_bits(trajectory(optimizer, mode, dtype), expected, f"{optimizer} {mode}")


def test_a_rounding_that_grows() -> None:
    """jax #8022, #3827: a chaotic map, where one flipped bit is everything after 60 steps."""

    def run(x: Any) -> Any:
        for _ in range(60):
            x = x * 3.9 * (1.0 - x)
        return x

    for dtype in ("float32", "float64"):
        assert_modes_agree(run, [np.linspace(0.1, 0.9, 7).astype(dtype)])


def test_a_particle_simulation() -> None:
    """jax #8022: a cutoff is crossed or not."""

    def run(x: Any, v: Any) -> list[Any]:
        for _ in range(5):
            d = x[:, None] - x[None, :]
            r2 = dg.sum(d * d, axis=-1) + 0.01
            near = dg.astype(r2 < 0.5, x.dtype)
            force = dg.sum((near / (r2 * dg.sqrt(r2)))[..., None] * d, axis=1)
            v = v * 0.99 + force * 0.01
            x = x + v * 0.01
        return [x, v]

    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0, 1, (6, 2)).astype(np.float32), np.zeros((6, 2), np.float32)]
    assert_modes_agree(run, arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wide_program_keeps_every_buffer_apart(dtype: str) -> None:
    """MXNet #13445: gradients wrong with static memory. Many values alive at once, freed at different times."""

    def run(x: Any) -> list[Any]:
        values = [x * (0.1 * k) for k in range(1, 9)]
        rows = [dg.sum(v, axis=k % 2, keepdims=True) for k, v in enumerate(values)]
        mixed = [dg.tanh(a + b.T if b.shape[0] != a.shape[0] and b.shape[1] == a.shape[0] else a * 0.5) for a, b in
                 zip(values, reversed(rows), strict=True)]  # fmt: skip
        product = mixed[0] @ mixed[1].T @ mixed[2]
        return [product, *rows[::3], dg.softmax(product + mixed[5], axis=0), mixed[7] - values[0]]

    assert_modes_agree(run, [X.astype(dtype)], order=2)


def test_differentiated_names_every_gradient() -> None:
    """The helper itself: gradients of all outputs, for all inputs, follow the outputs."""
    found = run_eager(differentiated(lambda x, y: [x * y, x + 1.0]), [X, X])
    assert len(found) == 4


LAID: dict[str, Callable[[Any, Any], Any]] = {
    "constant": lambda x, c: [dg.tensor(c).T @ x, x.T @ dg.tensor(c), dg.tensor(c)[:, ::-1].T @ x],
    "constant-scaled": lambda x, c: (dg.tensor(c).T * 2.0) @ x,
    "times-one": lambda x, c: [(x.T * 1.0) @ dg.tensor(c), (x.T - 0.0) @ x, (x.T / 1.0) @ x],
    "negated-twice": lambda x, c: dg.negative(-x.T) @ dg.tensor(c),
    "chosen": lambda x, c: [dg.maximum(x.T, x.T) @ x, dg.where(x.T > 0, x.T, x.T) @ x],
    "reshaped": lambda x, c: dg.reshape(dg.reshape(x.T, (-1,)), x.T.shape) @ dg.tensor(c),
    "through-views": lambda x, c: [dg.expand_dims(x.T * 1.0, 0) @ x, (x.T * 1.0).T.T @ x, (x * 1.0).T @ (x.T * 1.0).T],
    "linear": lambda x, c: F.linear(x.T * 1.0, dg.tensor(c).T),
    "vectors": lambda x, c: [(x.T * 1.0) @ dg.tensor(c)[:, 0], dg.tensor(c).T[0] @ x],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 4), (33, 5), (64, 40)], ids=str)
@pytest.mark.parametrize("name", LAID)
def test_passes_may_change_the_layout_of_products(name: str, shape: tuple[int, int], dtype: str) -> None:
    """BLAS gives other bits for another layout: `x.T * 1 → x.T` and a folded transpose changed it, so operands are copied."""
    rng = np.random.default_rng(5)
    x, c = rng.normal(size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    assert_modes_agree(lambda x: LAID[name](x, c), [x], name, order=2)
