"""Which lowering of kernel records this process uses: machine code (`llvm`) or plain NumPy (`reference`)."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

from dualgraph import config
from dualgraph.errors import ArgumentError, KernelError
from dualgraph.kernels import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from dualgraph.kernels.memory import Arena
    from dualgraph.kernels.program import Program
    from dualgraph.kernels.state import State

PROVIDERS = ("llvm", "reference")


class Loaded(Protocol):
    """A program ready to run."""

    @property
    def launch(self) -> Callable[..., Any]:
        """Run on exact ndarrays, one per input: one array, a tuple, None, or the int of a step whose check failed.

        Loaded with state it takes the inputs, and returns the outputs, that are not part of the state.
        """

    def stepwise(
        self,
        arrays: Sequence[np.ndarray[Any, Any]],
        observe: Callable[[int, Mapping[int, np.ndarray[Any, Any]]], None] | None = None,
    ) -> Any:
        """Like `launch`, one step at a time; shows after each the buffers it wrote."""


@functools.cache
def name() -> str:
    """The provider of this process: `DUALGRAPH_KERNELS` if set, else `llvm` where it can run, else `reference`."""
    asked = config.kernels()
    if asked:
        if asked not in PROVIDERS:
            raise ArgumentError(
                f"got DUALGRAPH_KERNELS={asked!r}; the providers of kernels are {', '.join(PROVIDERS)}; set one of "
                "these, or unset the variable"
            )
        return asked
    return "reference" if why_not_llvm() else "llvm"


@functools.cache
def why_not_llvm() -> str:
    """Why native kernels cannot run here; empty where they can."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    from dualgraph.kernels.llvm.loading.machine import machine

    try:
        machine()
    except KernelError as error:
        return str(error)
    return ""


def load(program: Program, arena: Arena | None = None, state: State | None = None, *, poisoned: bool = False) -> Loaded:
    """A program as something to launch, by the provider of this process.

    `poisoned`: before each run all scratch memory is filled with what no computation leaves (`DType.poison`).
    """
    return _loader()(program, arena, state, poisoned=poisoned)


@functools.cache
def _loader() -> Callable[..., Loaded]:
    if name() == "llvm":
        from dualgraph.kernels.llvm.loading import loaded

        return loaded.load
    return reference.load
