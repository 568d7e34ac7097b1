"""`command`: the native form of a step. One row per kernel kind."""

from __future__ import annotations

from collections.abc import Callable

from dualgraph.errors import KernelError
from dualgraph.kernels.kinds import CheckIndex, Gather, GatherAlong, Loop, MatMul, ScatterAdd, ScatterAddAlong, Sort
from dualgraph.kernels.llvm.command import Command, Locate
from dualgraph.kernels.llvm.indexing.selection import check_command, gather_command, scatter_command
from dualgraph.kernels.llvm.loops.selection import loop_command
from dualgraph.kernels.llvm.products.selection import product_command
from dualgraph.kernels.llvm.sorting.selection import sort_command
from dualgraph.kernels.program import Step

COMMANDS: dict[type, Callable[[Step, Locate], Command]] = {
    Loop: loop_command,
    MatMul: product_command,
    Gather: gather_command,
    GatherAlong: gather_command,
    ScatterAdd: scatter_command,
    ScatterAddAlong: scatter_command,
    Sort: sort_command,
    CheckIndex: check_command,
}


def command(step: Step, locate: Locate) -> Command:
    """The command that runs `step`; `locate(buffer)` is the buffer's slot and byte offset in it."""
    select = COMMANDS.get(type(step.kernel))
    if select is None:
        known = ", ".join(kind.__name__ for kind in COMMANDS)
        raise KernelError(
            f"got a step of kind {type(step.kernel).__name__}; native code exists for {known}; run it as a Python step"
        )
    return select(step, locate)
