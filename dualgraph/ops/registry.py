"""`OPS`: every operation of the package by its name, the internal ones, too.

From it the conformance tests are generated: an op that is registered has samples, and one of the package that is not
registered is found by a test. Gradient ops that are derived from another one are no entries: they are tested with it.
"""

from __future__ import annotations

from dualgraph.core.op import Op

OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an op under its name, which is its own."""
    assert op.name not in OPS, f"two operations are named {op.name}"
    OPS[op.name] = op
    return op


__all__ = ["OPS", "register"]
