"""What somebody holds never changes, and a step happens whole or not at all: whoever looks or interrupts, and when.

A thread may run between any two bytecodes, and a signal arrive there: a trace function takes the place of both, so that
every such moment is tried, each time. Threads themselves are tried as well.
"""

from __future__ import annotations

import _thread
import contextlib
import inspect
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import extend, nn, optim, static
from dualgraph.core.observed import Observed
from dualgraph.kernels import provider
from dualgraph.ops.random import DRAW, SEED

native = pytest.mark.skipif(provider.name() != "llvm", reason="a matter of the native kernels")
X = dg.tensor(np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3))


class Model(nn.Module):
    """Parameters, a buffer, random numbers."""

    def __init__(self):
        super().__init__()
        dg.manual_seed(3)
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.register_buffer("mean", dg.zeros(5))

    def forward(self, x):
        hidden = dg.tanh(self.first(x))
        self.mean.assign(0.9 * self.mean + 0.1 * dg.mean(hidden.detach(), axis=0))
        return self.last(F.dropout(hidden, 0.5) - self.mean)


def trainer(extra=lambda x: x, single=True):
    """A model, its optimiser and a training step; `extra` is applied to the model's result."""
    model = Model()
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x):
        opt.zero_grad()
        loss = dg.mean(extra(model(x)) ** 2)
        loss.backward()
        opt.step()
        return loss if single else (loss, loss * 2.0)

    return model, opt, step


def variables(model, opt):
    """Everything that a step may change, but for gradients."""
    slots = [v for group in opt.param_groups for state in group.state for v in state.values()]
    return [*model.parameters(), *model.buffers(), *slots, SEED, DRAW]


def everything(model, opt):
    grads = [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]
    return [v.numpy().tobytes() for v in variables(model, opt)], grads


def modes(step):
    spec = static.spec(X.shape)
    return {
        "jit": lambda: static.jit(step),
        "compile": lambda: static.compile(step, spec),
    }


PACKAGE = os.path.dirname(os.path.abspath(dg.__file__)) + os.sep


def is_ours(code):
    """Whether code is of this package, wherever it is installed."""
    return code.co_filename.startswith(PACKAGE)


@contextlib.contextmanager
def at_each_bytecode(look):
    """Call `look()` before each bytecode of this package that this thread runs."""

    looking = []

    def trace(frame, event, arg):
        if looking or not is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            looking.append(1)
            try:
                look()
            finally:
                looking.clear()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 wants to know before
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


HOLDS = {
    "numpy": lambda p: p.numpy(),
    "asarray": np.asarray,
    "memoryview": lambda p: memoryview(p.numpy()),
    "part": lambda p: p.numpy()[1:],
    "reshaped": lambda p: p.numpy().reshape(-1)[::-1],
    "detached": lambda p: p.detach(),
    "transposed": lambda p: p.detach().T,
    "row": lambda p: p.detach()[1],
    "dlpack": lambda p: np.from_dlpack(p.numpy()),
}


def bits(held):
    return np.asarray(held).tobytes()


@pytest.mark.parametrize("single", [True, False], ids=["quick", "slow"])
@pytest.mark.parametrize("mode", ["jit", "compile"])
@pytest.mark.parametrize("take", HOLDS.values(), ids=HOLDS)
def test_what_is_taken_at_any_moment_of_a_step_stays(take, mode, single):
    model, _, step = trainer(single=single)
    fast = modes(step)[mode]()
    fast(X)
    fast(X)
    p, held = model.first.weight, []

    def look():
        held.append((thing := take(p), bits(thing)))
        held.append((thing := take(p.grad), bits(thing)))

    with at_each_bytecode(look):
        fast(X)
    assert len(held) > 10
    for _ in range(3):
        assert all(bits(thing) == was for thing, was in held)
        fast(X)

    # Nobody holds it but the one who came at the last moment.
    changed, held = [0], []

    def look_again():
        if held and bits(held[0][0]) != held[0][1]:
            changed[0] += 1
        held[:] = [(thing := take(p), bits(thing))]

    with at_each_bytecode(look_again):
        fast(X)
    assert changed == [0]


@pytest.mark.parametrize("single", [True, False], ids=["quick", "slow"])
def test_the_bits_do_not_depend_on_who_looks(single):
    (a, a_opt, a_step), (b, b_opt, b_step) = trainer(single=single), trainer(single=single)
    plain, watched = static.jit(a_step), static.jit(b_step)
    held = []
    dg.manual_seed(3)
    for _ in range(5):
        plain(X)
    dg.manual_seed(3)
    watched(X)
    with at_each_bytecode(lambda: held.append(b.first.weight.numpy()) if len(held) < 3000 else None):
        for _ in range(4):
            watched(X)
    assert held
    assert [v.numpy().tobytes() for v in variables(a, a_opt)] == [v.numpy().tobytes() for v in variables(b, b_opt)]


@pytest.mark.parametrize("single", [True, False], ids=["quick", "slow"])
def test_a_step_interrupted_at_any_moment_happened_or_did_not(single):
    model, opt, step = trainer(single=single)
    fast = static.jit(step)
    fast(X)
    before, after = 0, 0
    for moment in range(10_000):
        old, count = everything(model, opt), [0]

        def interrupt(count=count, moment=moment):
            count[0] += 1
            if count[0] > moment:
                raise KeyboardInterrupt

        try:
            with at_each_bytecode(interrupt):
                fast(X)
        except KeyboardInterrupt:
            new = everything(model, opt)
            if new == old:
                before += 1
            else:  # all of it: seven parameters and their momenta, statistics, the draws, the gradients
                after += 1
                assert all(x != y for x, y in zip(old[1], new[1], strict=True))
                changed = [x != y for x, y in zip(old[0], new[0], strict=True)]
                assert changed.count(False) <= 1  # the seed
        else:
            break
    assert before > 5
    assert after > 1


def doubled(g):
    return g * 2.0


def tripled(g):
    return g * 3.0


class Apart:
    """A step that leaves more than values: gradients with a history, another `requires_grad`, other hooks."""

    def __init__(self):
        self.w, self.v = (dg.Variable(np.ones(4, np.float32), requires_grad=True) for _ in range(2))
        self.x, self.count = dg.ones(4).requires_grad_(), dg.Variable(0.0)
        self.w.register_hook(doubled)
        self.fast = static.jit(self.step)
        for _ in range(2):
            self.fast(*self.given())
            self.reset()

    def given(self):
        return ()

    def reset(self):
        self.count.assign(0.0)
        for t in (self.w, self.v, self.x):
            t.requires_grad_(True).grad = None
        del self.w.hooks[1:]

    def state(self):
        gradients = [None if t.grad is None else t.grad.numpy().tobytes() for t in (self.w, self.v, self.x)]
        flags = [t.requires_grad for t in (self.w, self.v, self.x)]
        return gradients, flags, len(self.w.hooks), self.count.numpy().item()


class History(Apart):
    def step(self):
        self.v.grad = self.w * 2.0
        dg.sum(self.w * self.w * self.w * self.count).backward(create_graph=True)
        dg.sum(self.v * self.count).backward()
        self.count.assign(self.count + 1.0)
        return self.count * 2.0


class HistoryWithPython(History):
    seen = staticmethod(extend.external("seen", lambda a: a.copy(), lambda s: s, vjp=(lambda g, out, x: g,)))

    def step(self):
        super().step()
        return self.seen(self.count)


class HistoryOfArgument(Apart):
    def given(self):
        return (self.x,)

    def step(self, x):
        dg.sum(self.w * x * x).backward(create_graph=True)
        dg.sum(self.v).backward()
        self.count.assign(self.count + 1.0)


class Flag(Apart):
    def step(self):
        self.w.requires_grad_(False)
        dg.sum(self.v * 2.0).backward()
        self.count.assign(self.count + 1.0)


class FlagOfArgument(Apart):
    def given(self):
        return (self.x,)

    def step(self, x):
        x.requires_grad_(False)
        self.count.assign(self.count + 1.0)


class Hook(Apart):
    def step(self):
        self.w.register_hook(tripled)
        self.w.grad = self.w * 2.0
        self.count.assign(self.count + 1.0)


@pytest.mark.parametrize("kind", [History, HistoryWithPython, HistoryOfArgument, Flag, FlagOfArgument, Hook])
def test_a_step_that_leaves_more_than_values_is_one_piece(kind):
    it = kind()
    old = it.state()
    it.fast(*it.given())
    new = it.state()
    assert old != new
    it.reset()
    assert it.state() == old

    states = []
    with at_each_bytecode(lambda: states.append(it.state())):  # what another thread sees
        it.fast(*it.given())
    assert all(state in (old, new) for state in states)
    assert states == sorted(states, key=lambda state: state == new)

    outcomes, total = [], len(states)
    for moment in sorted({*range(0, total, 1 + total // 1000), *range(max(0, total - 1000), total)}):
        it.reset()
        count = [0]

        def interrupt(count=count, moment=moment):
            count[0] += 1
            if count[0] > moment:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt), at_each_bytecode(interrupt):
            it.fast(*it.given())
        outcomes.append(it.state())
    assert all(state in (old, new) for state in outcomes)
    assert outcomes.count(old) > 5
    assert outcomes.count(new) > 1
    assert len(it.fast.misses) == 1


@pytest.mark.parametrize("kind", [History, HistoryWithPython, HistoryOfArgument, Hook])
def test_who_is_told_that_something_is_dropped_sees_a_whole_step(kind):
    it, seen = kind(), []
    it.w.grad, it.v.grad = dg.ones(4), dg.ones(4)
    for t in (it.w, it.v, it.x):
        if t.grad is not None:
            weakref.finalize(t.grad, lambda: seen.append(it.state()))
    it.fast(*it.given())
    assert seen
    assert all(state == it.state() for state in seen)


@contextlib.contextmanager
def interrupted(moment):
    """Ctrl-C where the interpreter looks for it: at the start of a function, or when a call of C is over.

    The number of such moments in this package up to now is in the list that is given. A bytecode is no such moment: there
    a `finally` could not do anything safely.
    """
    count = [0]

    def profile(frame, event, arg):
        code = frame.f_code
        ours = is_ours(code)
        if ours and event in ("call", "c_return") and not code.co_flags & inspect.CO_GENERATOR:  # maybe being closed
            count[0] += 1
            if count[0] == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


class Switching(nn.Module):
    """Switches flags and hooks when it is called, and back never."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(np.ones(2, np.float32)), nn.Parameter(np.ones(2, np.float32))
        self.remove = self.first.register_hook(doubled)

    def forward(self):
        self.remove()
        self.first.requires_grad_(False)
        self.second.requires_grad_(False)
        return self.second.shape


def interrupted_traces():
    """A model, after each moment at which Ctrl-C may end a trace of it."""
    model = Switching()
    with interrupted(None) as count:
        static.trace(model)
    assert count[0] > 100
    for moment in range(1, count[0] + 1):
        with contextlib.suppress(KeyboardInterrupt), interrupted(moment):
            static.trace(model)
        yield model


def test_a_trace_interrupted_at_any_moment_leaves_flags_and_hooks():
    for model in interrupted_traces():
        assert [p.requires_grad for p in model.parameters()] == [True, True]
        assert [entry.hook for entry in model.first.hooks] == [doubled]
        assert dg.is_grad_enabled()


def test_a_trace_interrupted_at_any_moment_leaves_the_look_up_of_attributes():
    for model in interrupted_traces():
        assert model.training  # the first look-up tidies up
        assert "__getattribute__" not in vars(Observed)


def raises(error):
    switch = [False]

    def function(a):
        if switch[0]:
            raise error("told to")
        return a.copy()

    return switch, extend.external(f"raises_{error.__name__}", function, lambda s: s, vjp=(lambda g, out, x: g,))


@pytest.mark.parametrize("optimize", ["exact", "none"])
@pytest.mark.parametrize("first", [True, False], ids=["first run", "later"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_external_that_raises_leaves_everything(error, first, optimize):
    switch, op = raises(error)
    model, opt, step = trainer(op)
    twin, twin_opt, twin_step = trainer(op)
    dg.manual_seed(7)
    fast = static.jit(step, optimize=optimize)
    if not first:
        fast(X)
    switch[0] = True
    before = everything(model, opt)
    held = [p.grad for p in model.parameters()]
    for _ in range(2):
        with pytest.raises(error):
            fast(X)
        assert everything(model, opt) == before
        assert all(p.grad is g for p, g in zip(model.parameters(), held, strict=True))
    switch[0] = False
    fast(X)
    fast(X)
    dg.manual_seed(7)
    for _ in range(2 if first else 3):
        twin_step(X)
    assert everything(model, opt) == everything(twin, twin_opt)


def test_an_external_after_an_update_that_raises_leaves_everything():
    switch, op = raises(ValueError)
    w, n = dg.Variable([1.0, 2.0]), dg.Variable([0.0])

    def step(x):
        w.assign(w * 2.0)
        y = op(w + x)
        n.assign(n + 1.0)
        return y

    for optimize in ("exact", "none"):
        fast = static.jit(step, optimize=optimize)
        fast(dg.tensor([1.0, 1.0]))
        before = w.tolist(), n.tolist()
        switch[0] = True
        with pytest.raises(ValueError, match="told to"):
            fast(dg.tensor([1.0, 1.0]))
        switch[0] = False
        assert (w.tolist(), n.tolist()) == before


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("optimize", ["exact", "none"])
@pytest.mark.parametrize("gradients", ["new", "kept", "looked at", "accumulated"])
def test_a_failed_check_leaves_everything(optimize, gradients, verify):
    """Checks in the middle of a step: of an index that is computed, after updates, more than one."""
    dg.manual_seed(0)
    table, w = nn.Parameter(np.arange(12, dtype=np.float32).reshape(6, 2)), nn.Parameter([1.0, 2.0])
    n, seen = dg.Variable(np.zeros((), np.int64)), dg.Variable([0.0])

    def step(i, j):
        if gradients != "accumulated":
            table.grad = w.grad = None
        n.assign(n + 1)
        rows = dg.take(table, i + 0, axis=0) * dg.rand((2,))
        seen.assign(dg.sum(rows, keepdims=True)[0] + seen)
        loss = dg.sum(rows * w) + dg.sum(dg.take(table, j * 1, axis=0))
        loss.backward()
        w.assign(w - 0.1 * w.grad)
        table.assign(table * 0.5)
        return loss

    good, bad = dg.tensor([0, 5]), dg.tensor([0, 6])
    if gradients == "accumulated":
        table.grad, w.grad = dg.ones((6, 2)), dg.ones(2)
    fast = static.jit(step, optimize=optimize, verify=verify)

    def state():
        grads = [None if p.grad is None else p.grad.numpy().tobytes() for p in (table, w)]
        return [v.numpy().tobytes() for v in (table, w, n, seen, SEED, DRAW)], grads

    for _ in range(3):
        if gradients == "looked at":
            table.grad, w.grad  # noqa: B018 - they become tensors
        before = state()
        for pair in ((bad, good), (good, bad), (bad, bad)):
            with pytest.raises(dg.errors.RangeError):
                fast(*pair)
            assert state() == before
        fast(good, good)
        assert state() != before


def test_results_too_large_for_memory_leave_everything():
    w = nn.Parameter([1.0])

    def step(x):
        w.grad = None
        dg.sum(w * x).backward()
        w.assign(w * 2.0)
        return dg.broadcast_to(x, (1 << 22, 1 << 22)) + 0.0

    fast = static.jit(step)
    w.grad = dg.tensor([5.0])
    for _ in range(2):
        with pytest.raises(MemoryError):
            fast(dg.tensor([3.0]))
        assert (w.tolist(), w.grad.tolist()) == ([1.0], [5.0])


FEEDS = {
    "itself": lambda p: p,
    "detached": lambda p: p.detach(),
    "array": lambda p: p.numpy(),
    "part": lambda p: p.detach()[0:2],
}


@pytest.mark.parametrize("size", [4, 1 << 20], ids=["short", "long"])
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_an_argument_that_is_the_value_of_a_variable_keeps_it(feed, size):
    start = np.arange(2 * size, dtype=np.float32).reshape(2, size)
    a, b = dg.Variable(start), dg.Variable(start)

    def step(p):
        def run(x):
            x = dg.asarray(x).detach()
            old = x * 1.0
            p.assign(p + x + 1.0)
            return dg.sum(x - old) + dg.sum(p[0, 0:2] * x[1, 0:2])

        return run

    eager, fast = step(a), static.jit(step(b))
    for _ in range(3):
        assert eager(feed(a)).numpy().tobytes() == fast(feed(b)).numpy().tobytes()
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_variables_that_share_an_array():
    a, b = dg.Variable([1.0, 2.0]), dg.Variable([0.0, 0.0])
    b.assign(a)
    assert a.storage is b.storage
    static.jit(lambda: (a.assign(a * 2.0), None)[1])()
    assert (a.tolist(), b.tolist()) == ([2.0, 4.0], [1.0, 2.0])
    b.assign(a)
    static.jit(lambda: (a.assign(a * 2.0), b.assign(b + 1.0), None)[2])()
    assert (a.tolist(), b.tolist()) == ([4.0, 8.0], [3.0, 5.0])


def test_an_array_that_is_part_of_another_is_not_written_to():
    whole = np.arange(6, dtype=np.float32)
    v = dg.Variable([0.0, 0.0])
    v.assign(type(dg.tensor([0.0]))(whole[2:4], dg.tensor([0.0, 0.0]).layout))  # as something from outside might
    held = v.numpy()
    static.jit(lambda: (v.assign(v + 1.0), None)[1])()
    assert (v.tolist(), held.tolist()) == ([3.0, 4.0], [2.0, 3.0])
    assert whole.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_captured_leaf_that_is_a_window_on_its_storage():
    x = dg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3)).T
    for leaf in (x, x[1:], dg.broadcast_to(dg.tensor([[1.0], [2.0]]), (2, 3))):
        leaf = leaf.detach().requires_grad_()
        weights = dg.tensor(np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape))

        def step(leaf=leaf, weights=weights):
            leaf.grad = None
            dg.sum(leaf * weights).backward()
            return leaf * 1.0

        expected = step().tolist(), leaf.grad.tolist()
        fast = static.jit(step)
        for _ in range(2):
            assert (fast().tolist(), leaf.grad.tolist()) == expected


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.fixture
def restless():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def by_threading(function):
    threading.Thread(target=function, daemon=True).start()


def by_thread(function):
    _thread.start_new_thread(function, ())


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("start", [by_threading, by_thread])
@pytest.mark.parametrize("late", [False, True], ids=["before", "later"])
@pytest.mark.parametrize(("size", "seconds"), [(2, 0.5), (1 << 21, 1.0)], ids=["short", "long"])
def test_threads_that_read(size, seconds, start, late):
    """A long launch may release the interpreter: then others read while it runs."""
    p = nn.Parameter(np.zeros((2, size), np.float32))

    def step(x):
        p.grad = None
        loss = dg.sum(p * x)
        loss.backward()
        p.assign(p + 1.0)
        return loss

    fast, x = static.jit(step), dg.ones((2, size))
    fast(x)
    stop, wrong, reads, done = [], [], [], []

    def read():
        try:
            takes = list(HOLDS.values())
            while not stop:
                held = takes[len(reads) % len(takes)](p)
                array = np.asarray(held).reshape(-1)
                ends = array[0], array[array.size // 2], array[-1]
                time.sleep(0)
                if ends != (array[0], array[array.size // 2], array[-1]) or len({*ends}) > 1:
                    wrong.append(ends)
                reads.append(1)
        finally:
            done.append(1)

    if not late:
        start(read)
    begin, last = time.perf_counter(), time.perf_counter() + 30.0
    while time.perf_counter() < begin + seconds or (len(reads) < 10 and time.perf_counter() < last):
        fast(x)
        if late:
            start(read)
            late = False
    stop.append(1)
    while not done and time.perf_counter() < last:
        time.sleep(0.001)
    assert done
    assert len(reads) >= 10
    assert not wrong


@pytest.mark.usefixtures("restless")
def test_looking_at_a_gradient_never_puts_an_old_one_back():
    p = nn.Parameter(np.zeros(2, np.float32))

    def step(x):
        p.grad = None
        dg.sum(p * x).backward()

    fast, stop = static.jit(step), []

    def read():
        while not stop:
            p.grad.numpy()

    fast(dg.tensor([0.0, 0.0]))
    thread = threading.Thread(target=read)
    thread.start()
    stale = 0
    for number in range(20_000):
        fast(dg.tensor([float(number), 1.0]))
        stale += p.grad.tolist()[0] != number
    stop.append(1)
    thread.join()
    assert stale == 0


# ---- memory ------------------------------------------------------------------------------------------------------


@native
@pytest.mark.parametrize("size", [1 << 14, 1 << 22], ids=["short", "long"])
@pytest.mark.parametrize("looks", [False, True], ids=["", "looked at"])
def test_a_step_needs_no_second_copy_of_the_state(size, looks):
    """In a process of its own: where other threads are, a long launch lets them run, and writes into copies."""
    found = subprocess.run([sys.executable, "-c", MEMORY, str(size), str(int(looks))], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


MEMORY = """
import sys, tracemalloc
import numpy as np, dualgraph as dg
from dualgraph import nn, static

size, looks = map(int, sys.argv[1:])
p, m = nn.Parameter(np.zeros(size, np.float32)), dg.Variable(np.zeros(size, np.float32))

def step(x):
    p.grad = None
    loss = dg.sum(p * x)
    loss.backward()
    m.assign(m * 0.9 + p.grad)
    p.assign(p - m * 0.1)
    return loss

fast, x = static.jit(step), dg.ones(size)
tracemalloc.start()
addresses = []
for _ in range(3):
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    fast(x)
    more = tracemalloc.get_traced_memory()[1] - before
    addresses.append([t.storage.ctypes.data for t in ((p, m, p.grad) if looks else (p, m))])
assert more < 4000, more
assert addresses[0] == addresses[1] == addresses[2]
"""
