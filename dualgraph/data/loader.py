"""Batches in a fixed order: the same on every machine, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from dualgraph.core.arguments import flag, integer
from dualgraph.data.dataset import Dataset, TensorDataset
from dualgraph.errors import ArgumentError, here, shown
from dualgraph.tree import flatten, unflatten

if TYPE_CHECKING:
    from dualgraph.types import Array

Batch = TypeVar("Batch")


def permutation(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of `count` examples in an epoch, the same on every machine and with every NumPy.

    >>> permutation(5, seed=0, epoch=0).tolist() == permutation(5, seed=0, epoch=0).tolist()
    True
    """
    # Ranks of raw bits: NumPy fixes the bits of Philox for ever, but not how `Generator.permutation` uses them.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)


class DataLoader(Generic[Batch]):
    """Iterates over a dataset in batches; each `for` loop is one epoch.

    With `shuffle` the order of an epoch follows from `seed` and the epoch's number alone. The last batch is shorter if
    the length is no multiple of `batch_size`, unless `drop_last`. Batches have the structure of an example, with NumPy
    arrays as leaves. A loop that is broken off ends its epoch, too. `state_dict` remembers epoch and position, and the
    first loop after `load_state_dict` goes on from there.

    >>> import numpy as np
    >>> loader = DataLoader(TensorDataset(np.arange(5)), batch_size=2)
    >>> [x.tolist() for (x,) in loader]
    [[0, 1], [2, 3], [4]]
    >>> len(loader), loader.epoch
    (3, 1)
    """

    dataset: Dataset[object]
    batch_size: int
    shuffle: bool
    seed: int
    drop_last: bool
    epoch: int

    @overload
    def __init__(
        self: DataLoader[tuple[Array, ...]],
        dataset: TensorDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ): ...
    @overload
    def __init__(
        self: DataLoader[Any],
        dataset: Dataset[object],
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ): ...
    def __init__(
        self,
        dataset: Dataset[object],
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ):
        batch_size, seed = integer("DataLoader", "batch_size", batch_size, 1), integer("DataLoader", "seed", seed, 0)
        shuffle, drop_last = flag("DataLoader", "shuffle", shuffle), flag("DataLoader", "drop_last", drop_last)
        if seed >= 2**64:
            raise ArgumentError(f"DataLoader: got seed = {shown(seed)}; it must be an integer in [0, 2**64)").at(here())
        if not isinstance(dataset, Dataset) or getattr(dataset, "shape", None) == ():
            raise ArgumentError(
                f"DataLoader: got a {type(dataset).__name__}; a dataset has a length and is indexed by numbers; put "
                "arrays into a TensorDataset"
            ).at(here())
        if len(dataset) == 0:
            raise ArgumentError("DataLoader: got a dataset of length 0; there is nothing to iterate over").at(here())
        if drop_last and len(dataset) < batch_size:
            raise ArgumentError(
                f"DataLoader: got batch_size = {batch_size} for {len(dataset)} examples with drop_last; no batch "
                "would be left; take smaller batches or keep the last"
            ).at(here())
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed, self.drop_last = seed, drop_last
        self.epoch = 0
        self._position = 0  # batches handed out in this epoch
        self._resumed = False

    def __len__(self) -> int:
        """Batches per epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The numbers of the examples in the order of the current epoch."""
        n = len(self.dataset)
        return permutation(n, self.seed, self.epoch) if self.shuffle else np.arange(n, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed and self._position:
            self.epoch += 1
        start = self._position if self._resumed else 0
        self._position, self._resumed = start, False
        return self._batches(start, self.order(), self.epoch)

    def _batches(self, start: int, order: np.ndarray[Any, Any], epoch: int) -> Iterator[Any]:
        for number in range(start, len(self)):
            batch = self._batch(order[number * self.batch_size : (number + 1) * self.batch_size])
            self._position = number + 1
            if number + 1 == len(self):
                # With the last batch the epoch is over: a state saved after it starts the next.
                self.epoch, self._position = epoch + 1, 0
            yield batch

    def _batch(self, numbers: np.ndarray[Any, Any]) -> Any:
        if isinstance(self.dataset, TensorDataset):
            return self.dataset[numbers]
        return _stacked([self.dataset[int(i)] for i in numbers])

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: epoch, batches handed out in it, seed."""
        return {"epoch": self.epoch, "position": self._position, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state made by `state_dict` of a loader with the same dataset and batch size."""
        if not isinstance(state, Mapping):
            raise ArgumentError(
                f"DataLoader.load_state_dict: got {shown(state)}; a state is a dictionary; use what state_dict() gave"
            ).at(here())
        epoch, position, seed = (state.get(key, -1) for key in ("epoch", "position", "seed"))
        whole = _whole(epoch) and _whole(position) and _whole(seed)
        if not whole or not 0 <= epoch < 2**64 or not 0 <= seed < 2**64 or not 0 <= position < len(self):
            raise ArgumentError(
                f"DataLoader.load_state_dict: got {shown(dict(state))}; it must hold epoch and seed in [0, 2**64), and a "
                f"position in [0, {len(self)}); use the state of a loader with the same dataset and batch size"
            ).at(here())
        self.epoch, self._position, self.seed, self._resumed = int(epoch), int(position), int(seed), True


def _whole(n: Any) -> bool:
    return isinstance(n, (int, np.integer)) and not isinstance(n, bool)


def _stacked(examples: list[Any]) -> Any:
    """Examples of one structure as one structure of arrays with a first axis more."""
    flat = [flatten(example) for example in examples]
    structure = flat[0][1]
    if any(other != structure for _, other in flat):
        raise ArgumentError("DataLoader: got examples of different structures; all must be built alike").at(here())
    return unflatten(structure, iter([_stack(row) for row in zip(*(x for x, _ in flat), strict=True)]))


def _stack(row: Sequence[Any]) -> np.ndarray[Any, Any]:
    arrays = [np.asarray(x) for x in row]
    shapes = dict.fromkeys(a.shape for a in arrays)
    if len(shapes) > 1:
        raise ArgumentError(
            f"DataLoader: got examples of shapes {' and '.join(map(str, [*shapes][:3]))}; those of a batch must be equal; pad "
            "them in the dataset, or take batches of one"
        ).at(here())
    return np.stack(arrays)
