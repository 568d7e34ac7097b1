"""The command of a `Sort`: a unit is a row. `code` writes it."""

from __future__ import annotations

from dataclasses import dataclass

from dualgraph.errors import KernelError
from dualgraph.kernels.kinds import Sort
from dualgraph.kernels.llvm.command import Command, Locate, Variant
from dualgraph.kernels.llvm.loops.variants import WIDTH
from dualgraph.kernels.program import Step
from dualgraph.spec import ITEMSIZE

WORK = 128  # scalar operations of a loop that take as long as one element has to be moved about


@dataclass(frozen=True)
class Order(Variant):
    """Arguments: length of a row; of x, the order and the spare each slot, offset, bytes from row to row."""

    dtype: str
    descending: bool
    width: int

    @property
    def halves(self) -> int:
        """Of a key, each of 32 bits."""
        return 2 if ITEMSIZE[self.dtype] == 8 else 1


def sort_command(step: Step, locate: Locate) -> Command:
    kernel, (x,) = step.kernel, step.ins
    assert isinstance(kernel, Sort)
    rows, n = x.shape
    if not all(view.row_major and view.shape == x.shape for view in (x, *step.outs)):
        raise KernelError(
            f"got rows of {x.spec} with strides {list(x.strides)} to put in order; they and the results lie one after the "
            "other; copy the operand first"
        )
    args = [n]
    for view in (x, *step.outs):
        (slot, start), size = locate(view.buffer), ITEMSIZE[view.dtype]
        args += slot, start + view.offset * size, n * size
    variant = Order(kernel.dtype, kernel.descending, WIDTH)
    return Command(variant, tuple(args), rows if n else 0, rows * n * WORK * variant.halves)
