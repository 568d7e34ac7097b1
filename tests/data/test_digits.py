import gzip
import hashlib
from importlib import resources

import numpy as np
import pytest

from dualgraph.data.digits import COUNT, digits_split, load_digits
from dualgraph.errors import ArgumentError

TEXT_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
SPLIT_SHA256 = "f4928b11a62165888b60151ea85a729f97ac00a9504886f552b091926e157295"


def test_file_is_the_published_one():
    packed = resources.files("dualgraph.data").joinpath("digits.csv.gz").read_bytes()
    assert len(packed) < 60_000
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == TEXT_SHA256


def test_attribution_is_shipped_beside_the_file():
    text = resources.files("dualgraph.data").joinpath("DIGITS.md").read_text("utf-8")
    for part in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert part in text


def test_values():
    images, labels = load_digits()
    assert images.shape == (COUNT, 64)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert (images * 16 == np.round(images * 16)).all()
    assert images.flags.c_contiguous
    assert labels.dtype == np.int64
    assert labels.flags.c_contiguous
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_each_call_makes_new_arrays():
    load_digits().images[:] = 0
    assert load_digits().images.any()


def test_split_is_a_partition():
    parts = digits_split(seed=3, held_out=100)
    assert [len(part.labels) for part in parts] == [COUNT - 100, 100]
    rows = np.concatenate([np.column_stack(part) for part in parts])
    everything = np.column_stack(load_digits())
    assert sorted(map(tuple, rows)) == sorted(map(tuple, everything))


def test_split_is_fixed():
    labels = np.concatenate([part.labels for part in digits_split()]).astype(np.uint8)
    assert hashlib.sha256(labels.tobytes()).hexdigest() == SPLIT_SHA256
    assert not np.array_equal(digits_split(seed=1)[1].labels, digits_split()[1].labels)


@pytest.mark.parametrize("held_out", [0, -1, COUNT, COUNT + 1])
def test_split_needs_two_parts(held_out):
    with pytest.raises(ArgumentError, match=rf"got held_out = {held_out}; there are 1797 images.*give a number"):
        digits_split(held_out=held_out)


def test_split_refuses_negative_seed():
    with pytest.raises(ArgumentError, match=r"got seed = -1; it must be an integer of at least 0"):
        digits_split(seed=-1)
