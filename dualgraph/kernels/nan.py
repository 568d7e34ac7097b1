"""One NaN: every float that is computed holds the same positive quiet NaN, and copies keep the bits that they find.

Which NaN an operation gives differs between processors, depends on the order of operands, which a compiler may swap,
and on what it folds; bits that fusion must not be able to change. So a NaN that was computed is replaced by the one NaN
before anybody can see its bits. What computes and what copies is said once: for scalar instructions by `copies` and
`observes` in `expr.INSTRUCTIONS`, for kernels here. Both lowerings and the rewrite rules ask these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dualgraph.dtypes import DTYPES, DType
from dualgraph.kernels.expr import INPUT, INSTRUCTIONS, LITERAL, Code, Instr
from dualgraph.kernels.kinds import OTHER, Kernel, Loop, MatMul
from dualgraph.kernels.program import Program
from dualgraph.spec import is_float

Array = np.ndarray[Any, Any]


def one_nan(x: Array) -> Array:
    """x with every NaN made the one NaN; x itself where it has none."""
    record = DTYPES[x.dtype.name]
    if record.kind != "float":
        return x
    bits = _unsigned(x)
    bad = _is_nan(bits, record)
    if not bad.any():
        return x
    return np.where(bad, bits.dtype.type(record.one_nan), bits).view(x.dtype)


def has_other(x: Array) -> bool:
    """Holds x a NaN that is not the one NaN?"""
    record = DTYPES[x.dtype.name]
    if record.kind != "float":
        return False
    bits = _unsigned(x)
    return bool((_is_nan(bits, record) & (bits != record.one_nan)).any())


def _is_nan(bits: Any, record: DType) -> Any:
    """By the bits, of an array or a number: nothing then looks at a float, which could change it."""
    magnitude = bits & ((1 << (record.bits - 1)) - 1)
    return magnitude > record.infinity


def _unsigned(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(x.shape).view(f"u{x.dtype.itemsize}")


# ------------------------------------------------------------------------------------------------- scalar instructions


def copies(instr: Instr) -> tuple[int, ...]:
    """The instructions of which this one's value is a copy."""
    row = INSTRUCTIONS.get(instr.op)
    return tuple(instr.args[n] for n in row.copies) if row is not None else ()


def computes(instr: Instr) -> bool:
    """Is the value a computed float? (Operands, literals and copies are not.)"""
    return is_float(instr.dtype) and instr.op not in (INPUT, LITERAL) and not copies(instr)


def to_normalise(code: Code, results: Iterable[int]) -> frozenset[int]:
    """The instructions behind which a NaN must become the one NaN, because somebody may see its bits.

    Seen are results, what an instruction observes, and what a copy that is seen may copy.
    """
    return frozenset(i for i in _seen(code, results) if computes(code[i]))


def _seen(code: Code, results: Iterable[int]) -> set[int]:
    stack = [*results]
    for instr in code:
        row = INSTRUCTIONS.get(instr.op)
        stack += [instr.args[n] for n in row.observes] if row is not None else ()
    seen: set[int] = set()
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack.extend(copies(code[i]))
    return seen


# ------------------------------------------------------------------------------------------------------------- kernels


def _of_loop(kernel: Loop, result: int) -> frozenset[int]:
    found, stack = set[int](), [kernel.results[result]]
    while stack:
        instr = kernel.code[stack.pop()]
        if instr.op == INPUT:
            found.add(instr.attr)
        elif instr.op == LITERAL and _other_bits(instr.attr, instr.dtype):
            found.add(OTHER)
        stack.extend(copies(instr))
    return frozenset(found)


def _other_bits(bits: int, dtype: str) -> bool:
    record = DTYPES[dtype]
    return record.kind == "float" and _is_nan(bits, record) and bits != record.one_nan


def copied_operands(kernel: Kernel, result: int) -> frozenset[int]:
    """The operands of which a result may hold copies, and `OTHER` if it may hold other NaNs of its own."""
    return _of_loop(kernel, result) if isinstance(kernel, Loop) else kernel.copies


def origins(program: Program, buffers: Sequence[int]) -> list[set[int]]:
    """For each of `buffers`: the inputs of the program (as buffers) of which it may hold copies, and `OTHER`."""
    known: dict[int, set[int]] = {b: {b} for b in program.inputs}
    known.update((b, {OTHER}) for b, array in program.constants.items() if has_other(array))
    for step in program.steps:
        for number, out in enumerate(step.outs):
            if is_float(out.dtype):
                of = copied_operands(step.kernel, number)
                found = known.setdefault(out.buffer, set())
                found |= {OTHER} & of
                found.update(*(known.get(step.ins[n].buffer, ()) for n in of if n != OTHER))
    return [known.get(b, set()) for b in buffers]


def unseen_products(program: Program) -> frozenset[int]:
    """The steps that are products of which nobody sees the bits of a NaN: all that read them compute."""
    seen = {*program.inputs, *program.outputs}
    for step in program.steps:
        if isinstance(step.kernel, Loop):
            code = step.kernel.code
            operands = {code[i].attr for i in _seen(code, step.kernel.results) if code[i].op == INPUT}
            seen.update(step.ins[n].buffer for n in operands)
        elif not isinstance(step.kernel, MatMul):
            seen.update(view.buffer for view in step.ins)
    return frozenset(
        number
        for number, step in enumerate(program.steps)
        if isinstance(step.kernel, MatMul) and step.outs[0].buffer not in seen
    )
