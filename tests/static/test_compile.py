"""Compiling and calling: signatures, state, guards, ownership of results, errors that leave everything as it was."""

from __future__ import annotations

import collections
import functools
import threading
import types
from typing import Any

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import nn, optim, static
from dualgraph.errors import ArgumentError, FeedError, GraphError, RangeError, SymbolError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 8)


def trainer(seed: int = 0, dropout: float = 0.0):
    dg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3))
    opt = optim.Adam(model.parameters(), lr=0.01)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return model, opt, step


def state(model, opt) -> list[bytes]:
    values = [p.numpy().tobytes() for p in model.parameters()]
    values += [b"" if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]
    return values + [v.numpy().tobytes() for _, v in opt.named_variables()]


SPECS = (static.spec((8, 6)), static.spec((8,), "int64"))


@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_traced_training_step_gives_the_same_bits(level, dropout):
    model, opt, step = trainer(dropout=dropout)
    losses = [step(dg.tensor(X), dg.tensor(Y)).item() for _ in range(20)]
    expected = state(model, opt)
    model, opt, step = trainer(dropout=dropout)
    fast = static.compile(step, *SPECS, optimize=level)
    assert [fast(X, Y).item() for _ in range(20)] == losses
    assert state(model, opt) == expected


def test_modes_can_be_switched_at_any_step():
    model, opt, step = trainer(dropout=0.3)
    for _ in range(12):
        step(dg.tensor(X), dg.tensor(Y))
    expected = state(model, opt)
    model, opt, step = trainer(dropout=0.3)
    fast = static.compile(step, *SPECS)
    for number in range(12):
        fast(X, Y) if number % 3 else step(dg.tensor(X), dg.tensor(Y))
    assert state(model, opt) == expected


def test_defined_by_hand_with_gradients():
    model, _, _ = trainer()
    g = static.Graph()
    with g:
        x, t = static.placeholder("x", (8, 6)), static.placeholder("t", (8,), "int64")
        loss = F.cross_entropy(model(x), t)
        grads = static.gradients(loss, model.parameters())
    exe = static.compile(g, outputs=[loss, *grads], verify=True)
    got = exe(x=X, t=Y)
    eager = F.cross_entropy(model(dg.tensor(X)), dg.tensor(Y))
    want = [eager, *dg.grad(eager, list(model.parameters()))]
    assert [a.numpy().tobytes() for a in got] == [b.numpy().tobytes() for b in want]
    with pytest.raises(GraphError, match="the graph is compiled"):
        x + 1.0
    with pytest.raises(GraphError), g:
        pass


def test_results_of_many_calls_are_kept():
    fast = static.compile(lambda x: (x * 2.0, x * 2.0, x), static.spec((3,)))
    held = [fast(np.full(3, i, np.float32)) for i in range(5)]
    for i, (a, b, c) in enumerate(held):
        assert a.tolist() == b.tolist() == [2.0 * i] * 3
        assert c.tolist() == [float(i)] * 3
        assert not np.shares_memory(a.numpy(), b.numpy())


def test_what_is_held_of_a_parameter_is_never_overwritten():
    model, _, step = trainer()
    fast = static.compile(step, *SPECS)
    weight = next(iter(model.parameters()))
    before, copy = weight.numpy(), weight.numpy().copy()
    snapshot = model.state_dict()
    fast(X, Y)
    gradient, kept = weight.grad, weight.grad.numpy().copy()
    fast(X, Y)
    assert before.tobytes() == copy.tobytes() == snapshot["0.weight"].numpy().tobytes()
    assert weight.numpy().tobytes() != copy.tobytes()
    assert gradient.numpy().tobytes() == kept.tobytes()


def test_updates_happen_in_place_when_nobody_looks():
    model, _, step = trainer()
    fast = static.compile(step, *SPECS)
    fast(X, Y)
    weight = next(iter(model.parameters()))
    address = weight.storage.ctypes.data
    fast(X, Y)
    assert weight.storage.ctypes.data == address


def test_swapping_two_variables():
    a, b = dg.Variable([1.0, 2.0]), dg.Variable([3.0, 4.0])

    def swap():
        old = a + 0.0
        a.assign(b)
        b.assign(old)

    fast = static.compile(swap)
    fast()
    assert (a.tolist(), b.tolist()) == ([3.0, 4.0], [1.0, 2.0])
    rotate = static.compile(lambda: (a.assign(b), None)[1])
    rotate()
    assert a.tolist() == b.tolist()
    fast()
    assert a.tolist() == [1.0, 2.0]


def test_a_failed_check_leaves_all_state_as_it_was():
    model, opt, step = trainer(dropout=0.5)
    fast = static.compile(step, *SPECS)
    fast(X, Y)
    before = state(model, opt)
    bad = Y.copy()
    bad[3] = 3
    with pytest.raises(RangeError) as static_error:
        fast(X, bad)
    after = state(model, opt)
    count = len(list(model.parameters()))
    assert after[:count] == before[:count]
    assert after[2 * count :] == before[2 * count :]
    with pytest.raises(RangeError) as eager_error:
        step(dg.tensor(X), dg.tensor(bad))
    assert str(static_error.value) == str(eager_error.value)
    assert "label 3 at position (3,)" in str(static_error.value)
    assert __file__ in str(static_error.value)


def test_gradient_accumulation_first_call_and_later_calls():
    w = dg.Variable([1.0, 2.0], requires_grad=True)

    def accumulate(x):
        loss = dg.sum(w * w * x)
        loss.backward()
        return loss

    x = np.array([1.0, 3.0], np.float32)
    seen = []
    for _ in range(3):
        accumulate(dg.tensor(x))
        seen.append(w.grad.tolist())
    w.grad = None
    fast = static.compile(accumulate, static.spec((2,)))
    got = []
    for _ in range(3):
        fast(x)
        got.append(w.grad.tolist())
    assert got == seen
    assert fast.misses[0] == "first call"
    assert "None → a gradient" in fast.misses[1]


def test_jit_says_why_it_compiled():
    fast = static.jit(lambda x, scale=1.0: dg.sum(x * scale))
    fast(np.ones((2, 3), np.float32))
    fast(np.ones((4, 3), np.float32))
    fast(np.ones((4, 3), np.float64))
    fast(np.ones((4, 3), np.float64), 2.0)
    fast(np.ones((2, 3), np.float32))
    assert fast.misses == [
        "first call",
        "argument x: shape (2, 3) → (4, 3)",
        "argument x: dtype float32 → float64",
        "the structure of the arguments",
    ]
    assert fast(np.ones((4, 3), np.float64), 3.0).item() == 36.0
    assert fast.misses[-1] == "argument scale: 2.0 → 3.0"


def test_jit_keys_structure_none_and_kinds_of_numbers():
    def pick(x, options):
        return x * 2.0 if options is None else x * options["scale"]

    fast = static.jit(pick)
    x = np.ones(2, np.float32)
    assert fast(x, None).tolist() == [2.0, 2.0]
    assert fast(x, {"scale": 1}).tolist() == [1.0, 1.0]
    assert fast(x, {"scale": True}).tolist() == [1.0, 1.0]
    assert fast(x, {"scale": -0.0}).numpy().tobytes() == np.full(2, -0.0, np.float32).tobytes()
    assert fast(x, {"scale": 0.0}).numpy().tobytes() == np.zeros(2, np.float32).tobytes()
    assert len(fast.misses) == 5


def test_train_and_eval_are_two_variants():
    dg.manual_seed(0)
    layer = nn.Dropout(0.5)
    fast = static.jit(lambda x: layer(x))
    x = np.ones(1000, np.float32)
    assert fast(x).numpy().min() == 0.0
    layer.eval()
    assert fast(x).numpy().min() == 1.0
    layer.train()
    assert fast(x).numpy().min() == 0.0
    assert len(fast.misses) == 2
    assert "training: True → False" in fast.misses[1]


def test_a_frozen_parameter_is_noticed():
    w = dg.Variable([1.0], requires_grad=True)
    v = dg.Variable([2.0], requires_grad=True)
    fast = static.jit(lambda: dg.grad(dg.sum(w * v), [v])[0] if v.requires_grad else w * 0.0)
    assert fast().tolist() == [1.0]
    v.requires_grad_(False)
    assert fast().tolist() == [0.0]


def test_threads_share_one_executable():
    fast = static.compile(lambda x: dg.tanh(dg.sum(x @ x, axis=0)), static.spec((64, 64)))
    inputs = [RNG.standard_normal((64, 64)).astype(np.float32) for _ in range(4)]
    expected = [fast(x).numpy().tobytes() for x in inputs]
    wrong = []

    def work(number):
        for _ in range(50):
            if fast(inputs[number]).numpy().tobytes() != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_watch_shows_values_without_changing_any_bit():
    def function(x):
        hidden = dg.tanh(x * 3.0)
        return dg.sum(hidden)

    fast = static.compile(function, static.spec((4,)))
    x = np.linspace(-1, 1, 4).astype(np.float32)
    name = next(c.name for c in fast.graph.calls if c.op.name == "tanh")
    result, seen = fast.watch(name)(x)
    assert result.item() == fast(x).item()
    assert seen[name].tolist() == dg.tanh(dg.tensor(x) * 3.0).tolist()
    with pytest.raises(FeedError, match="did you mean"):
        fast.watch("tanh_999999")


def test_explain_names_passes_kernels_and_memory():
    _, _, step = trainer()
    text = static.compile(step, *SPECS).explain()
    for word in ("passes", "fusion", "kernels", "matmul", "memory", "bytes of scratch", "compile"):
        assert word in text


def test_kernels_can_be_read():
    fast = static.compile(lambda x: dg.sum(dg.exp(x)), static.spec((100,)))
    (kernel,) = fast.kernels
    assert "exp" in kernel.code
    if kernel.variant is not None:
        assert "define" in kernel.llvm_ir
        assert kernel.assembly


FEEDS = [
    ({}, "got no feed for 'x', 'y'"),
    ({"x": [1.0, 2.0]}, "got no feed for 'y'"),
    ({"x": [1.0, 2.0], "y": [1.0, 2.0], "z": 1}, "extra feeds"),
    ({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0]}, r"feed 'x': got shape \(3,\)"),
    ({"x": np.ones(2), "y": [1.0, 2.0]}, "feed 'x': got float64"),
    ({"x": np.ones(2, np.int64), "y": [1.0, 2.0]}, "feed 'x': got int64"),
    ({"x": "text", "y": [1.0, 2.0]}, "feed 'x'"),
]


@pytest.mark.parametrize(("feeds", "message"), FEEDS)
def test_wrong_feeds(feeds, message):
    fast = static.compile(lambda x, y: x + y, static.spec((2,)), static.spec((2,)))
    with pytest.raises(FeedError, match=message) as raised:
        fast(**feeds)
    assert raised.value.where.file == __file__


def test_feed_given_twice():
    fast = static.compile(lambda x, y: x + y, static.spec((2,)), static.spec((2,)))
    with pytest.raises(FeedError, match="twice"):
        fast([1.0, 2.0], x=[1.0, 2.0])


def test_non_contiguous_feeds():
    fast = static.compile(lambda x: x * 1.5, static.spec((3, 2)))
    base = np.arange(12, dtype=np.float32).reshape(2, 6)
    x = base.T[::2]
    assert fast(x).numpy().tolist() == (x * 1.5).tolist()


def test_misuse_is_explained():
    with pytest.raises(ArgumentError, match="outputs"):
        static.compile(static.Graph())
    with pytest.raises(ArgumentError, match=r"static\.spec"):
        static.compile(lambda x: x, dg.tensor([1.0]))
    with pytest.raises(ArgumentError, match=r"static\.Graph or a function"):
        static.compile(3)
    with pytest.raises(GraphError, match=r"with static\.Graph"):
        static.placeholder("x", (2,))
    with pytest.raises(SymbolError, match=r"dg\.where"):
        static.compile(lambda x: x if x > 0 else -x, static.spec(()))
    history = dg.tensor([1.0], requires_grad=True) * 2.0
    with pytest.raises(GraphError, match="still has its history"):
        static.compile(lambda x: x * history, static.spec((1,)))


def test_gradients_with_respect_to_arguments():
    def slope(x):
        return dg.grad(dg.sum(x * x * x), [x])[0]

    x = dg.tensor([1.0, -2.0], requires_grad=True)
    fast = static.jit(slope)
    assert fast(x).tolist() == slope(x).tolist() == [3.0, 12.0]
    given = static.compile(slope, static.spec((2,), requires_grad=True))
    assert given(x).tolist() == [3.0, 12.0]
    both = static.jit(lambda x: x * 2.0)
    both(x)
    both(x.detach())
    assert both.misses[1] == "argument x: requires_grad True → False"
    static.jit(lambda x: dg.sum(x).backward())(x)
    assert x.grad.tolist() == [1.0, 1.0]


def test_changed_attributes_of_a_module_are_noticed():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.calls = 2.0, 0

        def forward(self, x):
            self.calls += 1
            return x * self.scale

    model = Scaled()
    fast = static.jit(model)
    assert fast(np.ones(1, np.float32)).tolist() == [2.0]
    assert fast(np.ones(1, np.float32)).tolist() == [2.0]
    assert fast.misses == ["first call"]
    model.scale = 7.0
    assert fast(np.ones(1, np.float32)).tolist() == [7.0]
    assert len(fast.misses) == 2


def test_compiled_functions_nest():
    inner = static.compile(lambda x: dg.tanh(x), static.spec((3,)))
    outer = static.compile(lambda x: inner(x) * 2.0, static.spec((3,)))
    x = np.array([0.1, 0.2, 0.3], np.float32)
    assert outer(x).tolist() == (dg.tanh(dg.tensor(x)) * 2.0).tolist()


def test_a_method_is_compiled_for_each_object():
    class Scale:
        def __init__(self, by):
            self.by = by

        @static.jit
        def apply(self, x):
            return x * self.by

    x = np.ones(2, np.float32)
    two, three = Scale(2.0), Scale(3.0)
    assert (two.apply(x).tolist(), three.apply(x).tolist()) == ([2.0, 2.0], [3.0, 3.0])
    two.apply(x)
    assert two.apply.misses == ["first call"]


class Output(dict[str, Any]):
    """Whose items are attributes, too, as many models' results are."""

    def __init__(self, **items: Any):
        super().__init__(**items)
        self.__dict__.update(items)


LEAKS: dict[str, Any] = {
    "zip": lambda y: zip([y], [1.0], strict=True),
    "map": lambda y: map(float, [1.0, 2.0]),
    "iterator": lambda y: iter([y]),
    "deque": lambda y: collections.deque([y]),
    "closure": lambda y: lambda x: x + y,
    "partial": lambda y: functools.partial(dg.add, y),
    "method": lambda y: y.sum,
    "attributes": lambda y: Output(y=y),
    "a view of a dictionary": lambda y: types.MappingProxyType({"y": y}),
}


@pytest.mark.parametrize("what", LEAKS)
def test_results_that_hold_symbols_are_refused(what):
    with pytest.raises(GraphError, match="as a result of a traced function"):
        static.jit(lambda x: LEAKS[what](x * 2.0))(dg.ones(2))
    with static.Graph() as graph:
        y = static.placeholder("x", (2,)) * 2.0
    with pytest.raises(GraphError, match="as a result of a traced function"):
        static.compile(graph, outputs=[LEAKS[what](y)])


def test_a_queue_that_is_returned_is_each_callers_own():
    made = static.jit(lambda x: [x * 2.0, collections.deque([1])])
    made(dg.ones(2))[1].append(2)
    assert made(dg.ones(2))[1] == collections.deque([1])


def test_too_many_and_too_few_arguments_at_any_call():
    x = dg.ones(2)
    f = static.compile(lambda x, y: x + y, static.spec((2,)), static.spec((2,)))
    for _ in range(3):
        for args, words in (((x,), "got no feed for 'y'"), ((), "got no feed for"), ((x, x, x), "got extra feeds")):
            with pytest.raises(FeedError, match=words):
                f(*args)
        assert f(x, x).tolist() == [2.0, 2.0]
