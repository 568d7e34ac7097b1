"""Devices: the records are what users may name, and a name that is none of them is refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import nn
from dualgraph.device import CPU, DEVICES, device_named
from dualgraph.errors import ArgumentError
from dualgraph.types import DeviceName


def test_the_names_for_type_checkers_are_those_of_the_records():
    assert get_args(DeviceName) == tuple(DEVICES)
    assert all(device_named("to", name) is device for name, device in DEVICES.items())


def test_tensors_say_where_they_are():
    x = dg.tensor([1.0, 2.0])
    assert x.device == CPU.name
    assert x.__dlpack_device__() == np.zeros(1).__dlpack_device__()


@pytest.mark.parametrize("name", ["cuda", "CPU", 0, None])
def test_an_unknown_device_is_refused_with_those_there_are(name):
    for to in (dg.tensor(1.0).to, nn.Linear(1, 1).to):
        with pytest.raises(ArgumentError, match="'cpu'") as caught:
            to(name)
        assert caught.value.where.file == __file__


def test_a_copy_is_its_own_and_in_row_major_order():
    array = np.arange(6.0).reshape(2, 3).T
    copy = CPU.copy(array)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, array)
    np.testing.assert_array_equal(copy, array)
