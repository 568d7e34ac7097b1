"""The tape as an object."""

from __future__ import annotations

import gc

import dualgraph as dg


def test_a_tape_leaves_no_cycle():
    x = dg.tensor([1.0], requires_grad=True)

    def once():
        with dg.eager.Tape() as tape:
            y = dg.sum(x * x)
            with dg.no_grad():
                x * 2.0
        tape.gradient(y, [x])

    once()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            once()
        assert len(gc.get_objects()) - before < 50
    finally:
        gc.enable()
