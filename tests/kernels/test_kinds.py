"""Every kind of kernel says all that the rest of the house has to know of it, and has its row in each lowering."""

from __future__ import annotations

import typing

import numpy as np
import pytest

import dualgraph as dg
from dualgraph import static
from dualgraph.kernels import kinds
from dualgraph.kernels.failure import check_of
from dualgraph.kernels.llvm import selection
from dualgraph.kernels.reference import steps

KINDS = typing.get_args(kinds.Kernel)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_complete(kind: type[kinds.Kind]) -> None:
    assert issubclass(kind, kinds.Kind)
    for fact in kinds.Kind.__annotations__:
        assert hasattr(kind, fact), fact
    assert (kind.copies is None) == kind.composes
    for method in ("flops", "check"):
        assert getattr(kind, method) is not getattr(kinds.Kind, method), method
    assert kind in steps.RUN
    assert kind in selection.COMMANDS or kind.outside


def test_all_kinds_are_in_the_union() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert {k for k in below(kinds.Kind) if not k.__name__.startswith("_") and k is not kinds.Kind} == set(KINDS)


def test_work_is_counted_by_kinds() -> None:
    def function(x, i):  # type: ignore[no-untyped-def]
        return dg.take(x @ x.T, i, axis=0), dg.grad(dg.sum(dg.take(x, i, axis=0) * 2.0), [x])[0]

    executable = static.compile(function, static.spec((4, 3), requires_grad=True), static.spec((5,), "int64"))
    work = {type(step.kernel).__name__: 0 for step in executable.program.steps}
    for step in executable.program.steps:
        work[type(step.kernel).__name__] += step.kernel.flops(step)
    assert work["MatMul"] == 2 * 4 * 4 * 3
    assert work["Gather"] == 0
    assert work["ScatterAdd"] == 5 * 3
    assert executable.cost.flops == sum(work.values())


def test_what_cannot_fail_has_no_check() -> None:
    executable = static.compile(lambda x: x * 2.0, static.spec((3,)))
    executable(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="Loop has no check"):
        check_of(executable.program.steps[0])
