"""Layouts: which elements of a storage a value or a view has."""

from __future__ import annotations

import numpy as np
import pytest

import dualgraph as dg
from dualgraph.core.layout import Window, array_of, layout_of, view_of
from dualgraph.kernels.program import View
from dualgraph.spec import Spec

LAYOUTS = [
    Spec((2, 3), "float32"),
    Window((3, 2), "float32", (1, 3), 0),
    Window((3,), "float32", (-1,), 5),
    Window((2, 0), "float32", (3, 1), 6),
    Window((), "float32", (), 4),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_and_its_view_are_the_same_elements(layout):
    storage = np.arange(6, dtype=np.float32)
    view = view_of(layout)
    np.testing.assert_array_equal(array_of(storage, layout), array_of(storage, view))
    assert layout_of(view, 6) == layout


@pytest.mark.parametrize("buffer", [np.arange(12.0)[::2], np.arange(6.0)[::-1], np.arange(6.0).reshape(3, 2).T])
def test_views_count_the_elements_of_a_strided_buffer_in_row_major_order(buffer):
    flat = np.ascontiguousarray(buffer).reshape(-1)
    np.testing.assert_array_equal(array_of(buffer, View(0, (3,), (2,), 1, "float64")), flat[1::2])


@pytest.mark.parametrize("step", [2, -1])
def test_a_failed_check_of_a_strided_constant_names_the_value_that_is_there(step):
    indices = dg.tensor([7, 0, 1, 0])[::step]

    @dg.static.jit
    def pick(x):
        return dg.take(x, indices)

    with pytest.raises(IndexError, match="7"):
        pick(dg.tensor([1.0, 2.0]))
