"""The arrays that tensors give out: read-only for good, and their copies ordinary."""

from __future__ import annotations

import copy
from pickle import dumps, loads  # noqa: TID251 - what users do with arrays

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn, static
from dualgraph.dtypes import NAMES

X = dg.tensor(np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3))


def arrays():
    model = nn.Linear(3, 2)

    def step(x):
        model.zero_grad()
        loss = dg.sum(model(x))
        loss.backward()
        return loss

    loss = static.jit(step)(X)
    window = dg.tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    yield "parameter", model.weight.numpy()
    yield "gradient", model.weight.grad.numpy()
    yield "result", loss.numpy()
    yield "__array__", np.asarray(X)
    yield "__array__ of a parameter", model.weight.__array__()
    yield "state", next(iter(model.state_dict().values())).numpy()
    yield "eager result", (X + 1.0).numpy()
    yield "made of an array", dg.tensor(np.ones(3)).numpy()
    yield "constant", dg.asarray(2.0).numpy()
    yield "empty", dg.zeros((0, 3)).numpy()
    for name, view in {
        "transposed": window.T if window.ndim == 2 else window.mT,
        "part": window[:, 1:, ::2],
        "backwards": window[::-1],
        "broadcast": dg.broadcast_to(X[0], (5, 3)),
        "empty part": window[:, 1:1],
    }.items():
        yield name, view.numpy()
    for dtype in NAMES:
        yield dtype, dg.zeros((2, 2), dtype=dtype).numpy()


@pytest.mark.parametrize(("name", "array"), [pytest.param(n, a, id=n) for n, a in arrays()])
def test_arrays_are_read_only_for_good(name, array):
    views = [array, array.view(), array[...], array.T, np.asarray(array), array.reshape(array.shape)]
    for view in views:
        assert type(view) is np.ndarray
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.setflags(write=True)
        owner = view
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
            with pytest.raises(ValueError, match="WRITEABLE"):
                owner.flags.writeable = True
        if array.size:
            with pytest.raises(ValueError, match="read-only"):
                view[...] = 0
    if array.dtype.kind != "V":  # which no buffer describes
        assert memoryview(array).readonly


@pytest.mark.parametrize(("name", "array"), [pytest.param(n, a, id=n) for n, a in arrays()])
def test_copies_of_arrays_are_ordinary(name, array):
    was = array.tobytes()
    made = [array.copy(), np.array(array), copy.copy(array), copy.deepcopy(array), array + array]
    made += [loads(dumps(array, protocol)) for protocol in (2, 4)]  # noqa: S301
    for other in made:
        other = np.asarray(other)
        assert other.dtype == array.dtype
        assert other.flags.writeable
        other[...] = 1
    assert loads(dumps(array, 5)).tobytes() == was  # noqa: S301 - NumPy keeps the flag there
    assert array.tobytes() == was


def test_the_array_protocol():
    x = dg.tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.shares_memory(np.asarray(x, dtype=np.float32), x.numpy())
    assert np.shares_memory(np.asarray(x, copy=False), x.numpy())
    assert np.array(x).flags.writeable
    assert np.asarray(x, dtype=np.int64).tolist() == [1, 2]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.int64, copy=False)
