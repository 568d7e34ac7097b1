"""Where training examples come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeVar, overload, runtime_checkable

import numpy as np

from dualgraph.dtypes import NAMES
from dualgraph.errors import ArgumentError, DTypeError, RangeError, ShapeError, here, shown

if TYPE_CHECKING:
    from dualgraph.core.types import ArrayLike

Example = TypeVar("Example", covariant=True)
Array = np.ndarray[Any, Any]


@runtime_checkable
class Dataset(Protocol[Example]):
    """Examples by number: anything with a length that can be indexed by 0 … length - 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class TensorDataset:
    """Arrays of equal first length; example i is the tuple of their rows i. An array of indices gives many at once.

    Takes NumPy arrays, tensors and lists. They are not copied where they are arrays already.

    >>> import numpy as np
    >>> data = TensorDataset(np.array([[0.0], [1.0]], np.float32), np.array([7, 8]))
    >>> len(data), data[1]
    (2, (array([1.], dtype=float32), np.int64(8)))
    """

    def __init__(self, *arrays: ArrayLike):
        if not arrays:
            raise ArgumentError("TensorDataset: got no arrays; pass at least one").at(here())
        self.arrays: tuple[Array, ...] = tuple(_as_array(number, x) for number, x in enumerate(arrays))
        lengths = [len(x) for x in self.arrays]
        if len(set(lengths)) > 1:
            raise ShapeError(
                f"TensorDataset: got first lengths {', '.join(map(str, lengths))}; all must be equal, row i of each "
                "array belongs to example i; cut or complete the arrays"
            ).at(here())

    def __len__(self) -> int:
        return len(self.arrays[0])

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Array) -> tuple[Array, ...]: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Array | np.generic, ...]: ...
    def __getitem__(self, index: object) -> tuple[Array | np.generic, ...]:
        try:
            return tuple(x[index] for x in self.arrays)  # type: ignore[call-overload]
        except (IndexError, TypeError, ValueError, OverflowError, RecursionError):
            n = len(self)
            raise RangeError(
                f"TensorDataset: got index {shown(index)} of {n} examples; it must be an integer in [{-n}, {n}), a slice of "
                "them or an array"
            ).at(here()) from None


def _as_array(number: int, x: Any) -> Array:
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DTypeError(
            f"TensorDataset: array {number} is {shown(x)}, which NumPy cannot make an array of ({error}); convert it"
        ).at(here()) from None
    if array.ndim == 0:
        raise ShapeError(f"TensorDataset: array {number} has shape (); it needs a first axis, the examples").at(here())
    if array.dtype.name not in NAMES:
        raise DTypeError(
            f"TensorDataset: array {number} is {array.dtype}; supported are {', '.join(NAMES)}; convert it with astype"
        ).at(here())
    return array
