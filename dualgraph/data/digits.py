"""The handwritten digits on which the `mlp` workload trains: 1,797 images of 8 x 8 pixels, shipped with the package.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0. This is its test set; more in `DIGITS.md` beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualgraph.core.arguments import integer
from dualgraph.errors import ArgumentError, shown

COUNT = 1797
PIXELS = 64


class Digits(NamedTuple):
    """Images as rows of 64 pixels in [0, 1], float32, and their labels 0 to 9, int64."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_digits() -> Digits:
    """All images and labels, in the order of the original file. Each call makes new arrays.

    >>> images, labels = load_digits()
    >>> images.shape, images.dtype.name, labels.shape, labels.dtype.name
    ((1797, 64), 'float32', (1797,), 'int64')
    >>> labels[:10].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    # Not importlib.resources: its import alone costs as much as reading the file.
    table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), dtype=np.int64, delimiter=",")
    # A sixteenth is exact in float32, so the images have the same bits everywhere.
    return Digits(images=(table[:, :PIXELS] / 16).astype(np.float32), labels=table[:, PIXELS].copy())


def digits_split(seed: int = 0, held_out: int = 360) -> tuple[Digits, Digits]:
    """Training images and `held_out` others, drawn by `seed`; the same on every machine and with every NumPy.

    The writers are not kept apart: held-out images come from people whose other digits are trained on.

    >>> train, test = digits_split()
    >>> len(train.labels), len(test.labels)
    (1437, 360)
    """
    held_out, seed = integer("digits_split", "held_out", held_out), integer("digits_split", "seed", seed, 0)
    if not 0 < held_out < COUNT:
        raise ArgumentError(
            f"digits_split: got held_out = {shown(held_out)}; there are {COUNT} images, and both parts need at least one; "
            f"give a number from 1 to {COUNT - 1}"
        )
    if seed >= 2**128:
        raise ArgumentError(f"digits_split: got seed = {shown(seed)}; a seed has 128 bits; take it modulo 2**128")
    # Ranks of raw bits: NumPy fixes the bits of Philox for ever, but not how `Generator.permutation` uses them.
    order = np.argsort(np.random.Philox(seed).random_raw(COUNT), kind="stable")
    images, labels = load_digits()
    test, train = order[:held_out], order[held_out:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])
