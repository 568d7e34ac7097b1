"""What a compiled graph is made of: kernels, memory, cost, and the whole explained in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualgraph.kernels import provider, show
from dualgraph.kernels.kinds import External, Loop
from dualgraph.kernels.program import Program, Step, View
from dualgraph.spec import ITEMSIZE
from dualgraph.static import dag as dags

if TYPE_CHECKING:
    from dualgraph.static.executable import Executable


@dataclass(frozen=True)
class Kernel:
    """One kernel launch of a compiled graph."""

    number: int
    name: str
    calls: tuple[str, ...]  # names of the calls it computes
    step: Step
    variant: Any = None  # the native kernel, None for Python functions and the reference provider

    @property
    def code(self) -> str:
        """Readable loop pseudo-code."""
        return show.format_loop(self.step) if isinstance(self.step.kernel, Loop) else self.name

    @property
    def llvm_ir(self) -> str:
        """LLVM IR after optimisation; empty where the kernel is not native."""
        return self._inspect("llvm_ir")

    @property
    def assembly(self) -> str:
        """Machine code in assembly language; empty where the kernel is not native."""
        return self._inspect("assembly")

    def _inspect(self, what: str) -> str:
        if self.variant is None:
            return ""
        from dualgraph.kernels.llvm import engine

        return str(getattr(engine, what)(self.variant))


@dataclass(frozen=True)
class Memory:
    """Bytes of one run."""

    arena: int
    lower_bound: int  # the most scratch alive at one kernel, in the order that runs: no plan for it could do with less
    program_order: int  # the same in program order
    unplanned: int  # scratch without reuse
    state: int  # variables read or written
    results: int
    constants: int

    @property
    def peak(self) -> int:
        """Scratch, results and constants together: what a run needs besides the state."""
        return self.arena + self.results + self.constants


@dataclass(frozen=True)
class Cost:
    """Work of one run, counted from the kernels: arithmetic on floats, bytes of operands and results, launches."""

    flops: int
    bytes: int
    launches: int


def kernels(executable: Executable) -> list[Kernel]:
    names = {c.serial: c.name for c in executable.compilation.differentiated}
    commands = getattr(executable._loaded, "commands", (None,) * len(executable.program.steps))
    return [
        Kernel(
            number,
            kernel_name(step),
            tuple(names.get(s, f"#{s}") for s in step.origins),
            step,
            command.variant if command is not None else None,
        )
        for number, (step, command) in enumerate(zip(executable.program.steps, commands, strict=True))
    ]


def kernel_name(step: Step) -> str:
    """What kind of kernel a step is."""
    kernel = step.kernel
    if isinstance(kernel, Loop):
        folds = len(kernel.folds)
        return "elementwise" if not folds else "reduce" if folds == 1 else "row kernel"
    return kernel.name if isinstance(kernel, External) else type(kernel).__name__.lower()


def memory_report(executable: Executable) -> Memory:
    program, arena = executable.program, executable.compilation.arena
    scratch = [spec.nbytes for buffer, spec in enumerate(program.buffers) if buffer in arena.offsets]
    first = executable.compilation.feeds
    last = first + len(executable.compilation.variables)
    return Memory(
        arena.size,
        arena.lower_bound,
        executable.compilation.schedule.program_peak,
        sum(scratch),
        sum(program.buffers[b].nbytes for b in program.inputs[first:last]),
        sum(program.buffers[b].nbytes for b in program.outputs),
        sum(a.nbytes for a in program.constants.values()),
    )


def cost(executable: Executable) -> Cost:
    return program_cost(executable.program)


def program_cost(program: Program) -> Cost:
    """Count one run of a program. Every instruction of a float counts as one operation, whatever it costs."""
    flops = moved = 0
    for step in program.steps:
        flops += step.kernel.flops(step)
        moved += sum(_touched(v) for v in (*step.ins, *step.outs))
    return Cost(flops, moved, len(program.steps))


def _touched(view: View) -> int:
    """Bytes of the distinct elements a view covers."""
    distinct = math.prod(n for n, s in zip(view.shape, view.strides, strict=True) if s != 0)
    return distinct * ITEMSIZE[view.dtype]


def explain(executable: Executable) -> str:
    """What was compiled and why, in words."""
    memory, work = memory_report(executable), cost(executable)
    defined = dags.calculations(executable.compilation.differentiated)
    lines = [
        f"{len(defined)} calls defined → {work.launches} kernels ({provider.name()})",
        "",
        "passes",
    ]
    for p in executable.passes:
        lines.append(f"  {p.name:24s}{p.before:>6} → {p.after:<6} {p.seconds * 1e3:8.2f} ms  {p.numerics}: {p.reason}")
    lines += ["", "kernels"]
    for k in kernels(executable):
        calls = ", ".join(k.calls[:6]) + (f" and {len(k.calls) - 6} more" if len(k.calls) > 6 else "")
        shape = "×".join(map(str, k.step.domain or (k.step.outs[0].shape if k.step.outs else k.step.ins[0].shape)))
        lines.append(f"  {k.number:>3} {k.name:14s}{shape or 'scalar':>14}  {calls}")
    notes = dict.fromkeys(n for p in executable.passes for n in p.notes if n.startswith("not fused"))
    refusals = [n for n in notes if not n.endswith("is not a loop")]  # products never fuse: no news
    if refusals:
        lines += ["", f"not fused ({len(refusals)})"] + [f"  {n.removeprefix('not fused: ')}" for n in refusals[:20]]
        if len(refusals) > 20:
            lines.append(f"  … {len(refusals) - 20} more in executable.passes")
    lines += [
        "",
        f"memory   {memory.arena:,} bytes of scratch (without reuse {memory.unplanned:,}; at least {memory.lower_bound:,} in "
        f"the order that runs, {memory.program_order:,} in program order), "
        f"{memory.results:,} of results, {memory.state:,} of state",
        f"work     {work.flops:,} floating-point operations, {work.bytes:,} bytes touched",
        "compile  " + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in executable.times.items()),
    ]
    if executable.ulp_distance is not None:
        lines.append(f"bits     results up to {executable.ulp_distance:,} ULP from those of the graph as defined")
    return "\n".join(lines)


__all__ = ["Cost", "Kernel", "Memory", "cost", "explain", "kernels", "memory_report", "program_cost"]
