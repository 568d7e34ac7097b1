"""Batches: their order, which is the same everywhere, and going on where one left off."""

from itertools import islice

import numpy as np
import pytest

import dualgraph as dg
from dualgraph.data import DataLoader, Dataset, TensorDataset
from dualgraph.data.loader import permutation
from dualgraph.errors import ArgumentError, DTypeError, ShapeError


def loader(n=10, **options):
    return DataLoader(TensorDataset(np.arange(n)), **options)


def epoch(batches):
    return [x.tolist() for (x,) in batches]


def test_batches_in_order():
    assert epoch(loader(5, batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert epoch(loader(5, batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert epoch(loader(4, batch_size=9)) == [[0, 1, 2, 3]]
    assert [len(loader(n, batch_size=4)) for n in (4, 5, 8)] == [1, 2, 2]
    assert len(loader(5, batch_size=4, drop_last=True)) == 1


def test_the_order_is_fixed_for_ever():
    assert permutation(8, seed=0, epoch=0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert permutation(8, seed=0, epoch=1).tolist() == [5, 3, 7, 2, 4, 1, 0, 6]
    assert permutation(8, seed=1, epoch=0).tolist() == [3, 5, 2, 7, 0, 6, 1, 4]


def test_shuffling():
    shuffled = loader(100, batch_size=7, shuffle=True, seed=3)
    first, second = epoch(shuffled), epoch(shuffled)
    assert first != second
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch) == list(range(100))
    again = loader(100, batch_size=7, shuffle=True, seed=3)
    assert [epoch(again), epoch(again)] == [first, second]
    assert epoch(loader(100, batch_size=7, shuffle=True, seed=4)) != first


@pytest.mark.parametrize("done", range(11))
def test_resume(done):
    def run(batches):
        while True:
            yield from batches

    whole = loader(10, batch_size=3, shuffle=True)
    want = [x.tolist() for (x,) in islice(run(whole), 14)]
    first = loader(10, batch_size=3, shuffle=True)
    got = [x.tolist() for (x,) in islice(run(first), done)]
    second = loader(10, batch_size=3, shuffle=True, seed=9)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    got += [x.tolist() for (x,) in islice(run(second), 14 - done)]
    assert got == want


def test_a_loop_broken_off_ends_its_epoch():
    broken, whole = loader(batch_size=2, shuffle=True), loader(batch_size=2, shuffle=True)
    next(iter(broken))
    epoch(whole)
    assert epoch(broken) == epoch(whole)
    assert broken.epoch == whole.epoch == 2


def test_rows_belong_together():
    data = TensorDataset(dg.tensor([[0.0], [1.0], [2.0]]), np.array([0, 10, 20]), [5, 6, 7])
    assert len(data) == 3
    for x, y, z in DataLoader(data, batch_size=2, shuffle=True):
        assert isinstance(x, np.ndarray)
        assert (x[:, 0] * 10 == y).all()
        assert (x[:, 0] + 5 == z).all()


def test_datasets_of_ones_own():
    class Squares:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"x": np.full(2, index, np.float32), "square": index * index}

    assert isinstance(Squares(), Dataset)
    (batch,) = DataLoader(Squares(), batch_size=3)
    assert batch["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["square"].tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: loader(batch_size=0), ArgumentError, "batch_size = 0; it must be an integer of at least 1"),
        (lambda: loader(batch_size=2.0), ArgumentError, "batch_size = 2.0"),
        (lambda: loader(seed=-1), ArgumentError, "seed = -1"),
        (lambda: loader(0), ArgumentError, "dataset of length 0"),
        (lambda: loader(3, batch_size=4, drop_last=True), ArgumentError, "no batch would be left"),
        (lambda: DataLoader(iter([1])), ArgumentError, "put arrays into a TensorDataset"),
        (lambda: TensorDataset(), ArgumentError, "got no arrays"),
        (lambda: TensorDataset(np.ones(3), np.ones(2)), ShapeError, "first lengths 3, 2"),
        (lambda: TensorDataset(np.float32(1)), ShapeError, r"array 0 has shape \(\)"),
        (lambda: TensorDataset(np.array(["a"])), DTypeError, "array 0 is <U1"),
        (lambda: loader().load_state_dict({}), ArgumentError, "must hold epoch and seed"),
        (
            lambda: loader().load_state_dict({"epoch": 0, "position": 10, "seed": 0}),
            ArgumentError,
            r"position in \[0, 10",
        ),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert __file__ in str(caught.value)


class Failing:
    """Cannot read its third example, for now."""

    broken = True

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= 2 and self.broken:
            raise OSError("network")
        return np.float32(i)


def test_a_state_after_a_failed_load_knows_what_was_handed_out():
    loader = DataLoader(Failing(), batch_size=2)
    batches = iter(loader)
    assert next(batches).tolist() == [0.0, 1.0]
    with pytest.raises(OSError, match="network"):
        next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 0, "position": 1, "seed": 0}
    loader.dataset.broken = False
    loader.load_state_dict(state)
    assert [x.tolist() for x in loader] == [[2.0, 3.0]]


def test_examples_of_different_shapes():
    class Ragged:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return np.zeros(i + 1, np.float32)

    with pytest.raises(ArgumentError, match=r"got examples of shapes \(1,\) and \(2,\)"):
        list(DataLoader(Ragged(), 2))


@pytest.mark.parametrize("key", ["epoch", "seed"])
def test_states_with_numbers_that_are_too_large(key):
    loader = DataLoader(TensorDataset(np.arange(4)), shuffle=True)
    with pytest.raises(ArgumentError, match=r"in \[0, 2\*\*64\)"):
        loader.load_state_dict({"epoch": 0, "position": 0, "seed": 0, key: 2**64})
    assert loader.state_dict() == {"epoch": 0, "position": 0, "seed": 0}
