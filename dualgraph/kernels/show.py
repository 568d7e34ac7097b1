"""Programs and loops as text that can be read: for teaching, for bug reports, for `Executable.kernels`.

x: float32[64, 10], softmax as one Loop:

for i in 64:
    v1 = max(x0[i, j] for j in 10)
    v4 = sum over j in 10:
        v3 = exp(x0[i, j] - v1)
        v3
    …
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from dualgraph.dtypes import widened
from dualgraph.kernels import expr as E
from dualgraph.kernels.fusion_layout import tidy
from dualgraph.kernels.kinds import Loop
from dualgraph.kernels.program import Program, Step, View
from dualgraph.spec import contiguous_strides

AXES = "ijklmnpqrstuvw"
SIGNS: dict[str, tuple[str, int]] = {  # instruction -> (sign, how tightly it binds)
    "select": ("if", 0),
    "eq": ("==", 1),
    "ne": ("!=", 1),
    "lt": ("<", 1),
    "le": ("<=", 1),
    "gt": (">", 1),
    "ge": (">=", 1),
    "bitwise_or": ("|", 2),
    "bitwise_xor": ("^", 3),
    "bitwise_and": ("&", 4),
    "left_shift": ("<<", 5),
    "right_shift": (">>", 5),
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "floor_divide": ("//", 7),
    "remainder": ("%", 7),
    "neg": ("-", 8),
    "bitwise_not": ("~", 8),
}
ATOM = 9


def names(program: Program) -> dict[int, str]:
    """A stable name for each buffer: inputs x0 x1 …, constants c0 …, outputs y0 …, scratch t and its number."""
    result = {buffer: f"t{buffer}" for buffer in range(len(program.buffers))}
    for letter, buffers in (("y", program.outputs), ("c", sorted(program.constants)), ("x", program.inputs)):
        result.update((buffer, f"{letter}{number}") for number, buffer in enumerate(buffers))
    return result


def format_program(program: Program) -> str:
    """One line per step.

    >>> from dualgraph.spec import Spec
    >>> program = Program()
    >>> x = program.input(Spec((64, 10), "float32"))
    >>> y = program.new(Spec((64, 10), "float32"))
    >>> code, results = E.linearise([E.input(0, "float32") * 2.0])
    >>> program.add(Loop(code, results, ("float32",), (False,)), [y], [x], (64, 10))
    >>> program.outputs = [y.buffer]
    >>> print(format_program(program))
    program(x0: float32[64, 10]) -> y0: float32[64, 10]
      0  y0 = loop(x0)  # over [64, 10]: x0 * 2.0
    """
    called = names(program)
    inputs = ", ".join(f"{called[b]}: {program.buffers[b]}" for b in program.inputs)
    outputs = ", ".join(f"{called[b]}: {program.buffers[b]}" for b in program.outputs)
    lines = [f"program({inputs}) -> {outputs or 'nothing'}"]
    lines += [f"  {called[b]}: {program.buffers[b]} = constant" for b in sorted(program.constants)]
    width = len(str(max(len(program.steps) - 1, 0)))
    lines += [f"  {number:>{width}}  {_step(program, step, called)}" for number, step in enumerate(program.steps)]
    return "\n".join(lines)


def _step(program: Program, step: Step, called: Mapping[int, str]) -> str:
    ins = ", ".join(_whole(program, view, called) for view in step.ins)
    outs = ", ".join(_whole(program, view, called) for view in step.outs)
    kind = "loop" if isinstance(step.kernel, Loop) else type(step.kernel).__name__
    left = f"{outs} = " if outs else ""
    return f"{left}{kind}({ins}){_remark(step, called)}"


def _remark(step: Step, called: Mapping[int, str]) -> str:
    if not isinstance(step.kernel, Loop):
        shapes = ", ".join(map(str, (view.spec for view in step.outs)))
        return f"  # {shapes}" if shapes else ""
    over = f"  # over {list(step.domain)}" + (f", folding {list(step.fold_axes)}" if step.fold_axes else "")
    if len(step.kernel.code) > 8:
        return f"{over}: {len(step.kernel.code)} instructions"
    text = _Text(step, step.kernel, called, with_index=False)
    return f"{over}: " + ", ".join(text.expression(r, inline=True) for r in step.kernel.results)


def _whole(program: Program, view: View, called: Mapping[int, str]) -> str:
    """The name alone where the view shows the whole buffer in order, repeated or not."""
    spec = program.buffers[view.buffer]
    shown = [(n, s) for n, s in zip(view.shape, view.strides, strict=True) if n != 1 and s != 0]
    size = math.prod(n for n, _ in shown)
    order = tuple(n for n, _ in shown)
    if view.offset == 0 and size == spec.size and tuple(s for _, s in shown) == contiguous_strides(order):
        return called[view.buffer]
    start = f" from {view.offset}" if view.offset else ""
    return f"{called[view.buffer]}{list(view.shape)} by {list(view.strides)}{start}"


def format_loop(step: Step, called: Mapping[int, str] | None = None) -> str:
    """A Loop step as pseudo-code. `called`: names of buffers; else operands are x0 x1 … and results y0 y1 …

    An element is named by the axes along which the operand varies, the slowest first.
    """
    if not isinstance(step.kernel, Loop):
        raise TypeError(f"got a step of kind {type(step.kernel).__name__}; only Loop steps have loops to show")
    if called is None:
        called = {view.buffer: f"y{n}" for n, view in enumerate(step.outs)}
        called |= {view.buffer: f"x{n}" for n, view in enumerate(step.ins)}
    return "\n".join(_Text(step, step.kernel, called).lines())


class _Text:
    """The text of one Loop: values used twice get a name, folds are statements, everything else is written out."""

    def __init__(self, step: Step, kernel: Loop, called: Mapping[int, str], with_index: bool = True):
        self.step, self.kernel, self.called, self.with_index = step, kernel, called, with_index
        self.row = kernel.is_row() if step.fold_axes else (False,) * len(kernel.code)
        uses = Counter(a for instr in kernel.code for a in instr.args)
        uses.update(kernel.results)
        self.named = {n for n, instr in enumerate(kernel.code) if instr.op == E.FOLD or (uses[n] > 1 and instr.args)}

    def lines(self) -> list[str]:
        kernel, step = self.kernel, self.step
        kept = [axis for axis in range(len(step.domain)) if axis not in step.fold_axes]
        lines = [f"for {self._ranges(kept)}:"] if self._ranges(kept) else ["once:"]
        for n, instr in enumerate(kernel.code):
            if instr.op == E.FOLD:
                lines += _indent(self._fold(n))
            elif n in self.named and self.row[n]:
                lines += _indent([f"v{n} = {self.expression(n, whole=True)}"])
        outs = list(zip(step.outs, kernel.results, strict=True))
        lines += _indent([f"{self._element(v)} = {self.expression(r)}" for v, r in outs if self.row[r]])
        full = [(v, r) for v, r in outs if not self.row[r]]
        if full:
            body = self._definitions([r for _, r in full])
            body += [f"{self._element(v)} = {self.expression(r)}" for v, r in full]
            lines += _indent([f"for {self._ranges(step.fold_axes)}:", *_indent(body)] if step.fold_axes else body)
        return lines

    def _fold(self, n: int) -> list[str]:
        instr = self.kernel.code[n]
        ranges = self._ranges(self.step.fold_axes) or "1"
        before = self._definitions([instr.args[0]])
        value = self.expression(instr.args[0])
        if before:
            return [f"v{n} = {instr.attr} over {ranges}:", *_indent([*before, value])]
        return [f"v{n} = {instr.attr}({value} for {ranges})"]

    def _definitions(self, roots: list[int]) -> list[str]:
        """The named values, one per element, that the roots need."""
        needed: set[int] = set()
        stack = list(roots)
        while stack:
            n = stack.pop()
            if n not in needed and not self.row[n]:
                needed.add(n)
                stack.extend(self.kernel.code[n].args)
        return [f"v{n} = {self.expression(n, whole=True)}" for n in sorted(needed & self.named)]

    def expression(self, n: int, bind: int = 0, whole: bool = False, inline: bool = False) -> str:
        """Value `n`; its name if it has one, unless `whole` asks for what it stands for."""
        instr = self.kernel.code[n]
        if n in self.named and not whole and not inline:
            return f"v{n}"
        if instr.op == E.INPUT:
            return self._element(self.step.ins[instr.attr])
        if instr.op == E.LITERAL:
            return str(widened(E.literal_array(instr.attr, instr.dtype))[()])
        if not instr.args:
            return instr.op
        sign, binds = SIGNS.get(instr.op, ("", ATOM))
        if not sign:
            function = {"cast": instr.dtype, "widen": instr.dtype, E.FOLD: str(instr.attr)}.get(instr.op, instr.op)
            return f"{function}({', '.join(self.expression(a, inline=inline) for a in instr.args)})"
        first, *rest = (self.expression(a, binds + (k > 0), inline=inline) for k, a in enumerate(instr.args))
        if instr.op == "select":
            text = f"{rest[0]} if {first} else {rest[1]}"
        else:
            text = f"{first} {sign} {rest[0]}" if rest else f"{sign}{first}"
        return f"({text})" if binds < bind else text

    def _ranges(self, axes: tuple[int, ...] | list[int]) -> str:
        return ", ".join(f"{_axis(axis)} in {self.step.domain[axis]}" for axis in axes if self.step.domain[axis] != 1)

    def _element(self, view: View) -> str:
        """`x0[i, j]`: the axes along which the view moves, the slowest first."""
        name = self.called[view.buffer]
        axes = [axis for axis, stride in enumerate(tidy(view).strides) if stride]
        if not self.with_index or not axes:
            return name
        axes.sort(key=lambda axis: -abs(view.strides[axis]))
        return f"{name}[{', '.join('-' * (view.strides[axis] < 0) + _axis(axis) for axis in axes)}]"


def _axis(axis: int) -> str:
    return AXES[axis] if axis < len(AXES) else f"i{axis}"


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
