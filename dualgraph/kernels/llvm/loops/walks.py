"""When scalar code is computed in a fold kernel: what once a row, what in which walk over the row.

A fold of depth d needs the folds of smaller depth first: walk p over the row computes the folds of depth p + 1. Full
values are recomputed in each walk, which is cheaper than memory; expensive ones may be kept in scratch.
"""

from __future__ import annotations

from typing import NamedTuple

from dualgraph.kernels.expr import FOLD, INDEX, INSTRUCTIONS, POSITION, Code
from dualgraph.kernels.kinds import Loop

EXPENSIVE = 20  # cost from which a value is rather kept than computed again
MOST_KEPT = 8  # values: scratch lies on the stack, and that of a thread may be small


class Walk(NamedTuple):
    """One walk over a row: computes `full` (in order), of which some come from or go to scratch."""

    folds: tuple[int, ...]
    stores: tuple[int, ...]  # numbers of the full outputs written
    full: tuple[int, ...]
    from_scratch: tuple[int, ...]
    to_scratch: tuple[int, ...]


def walks(kernel: Loop, *, early: bool, keep: bool) -> tuple[Walk, ...]:
    """The walks of a fold kernel. `early`: outputs share no memory with inputs, so they may be written before the last
    walk; `keep`: there is scratch for expensive values."""
    code, row, depth = kernel.code, kernel.is_row(), depths(kernel.code)
    full_outputs = [n for n, r in enumerate(kernel.results) if not row[r]]
    last = max([depth[f] - 1 for f in kernel.folds] + [depth[kernel.results[n]] for n in full_outputs], default=0)
    found: list[tuple[tuple[int, ...], tuple[int, ...], list[int], list[int]]] = []
    known: set[int] = set()
    kept: set[int] = set()
    for number in range(last + 1):
        folds = tuple(f for f in kernel.folds if depth[f] - 1 == number)
        stores = tuple(n for n in full_outputs if (depth[kernel.results[n]] if early else last) == number)
        full, reused = set[int](), set[int]()
        stack = [code[f].args[0] for f in folds] + [kernel.results[n] for n in stores]
        while stack:
            i = stack.pop()
            if row[i] or i in full:
                continue
            if keep and i in known and _cost(code[i].op) >= EXPENSIVE and (i in kept or len(kept) < MOST_KEPT):
                kept.add(i)
                reused.add(i)
                continue
            full.add(i)
            stack.extend(code[i].args)
        known |= full
        found.append((folds, stores, sorted(full), sorted(reused)))
    saved: set[int] = set()
    result = []
    for folds, stores, now, again in found:
        new = tuple(i for i in now if i in kept and i not in saved)
        saved.update(new)
        result.append(Walk(folds, stores, tuple(now), tuple(again), new))
    return tuple(result)


def depths(code: Code) -> list[int]:
    """How many folds lie one above the other below each instruction."""
    depth: list[int] = []
    for instr in code:
        depth.append(max((depth[a] for a in instr.args), default=0) + (instr.op == FOLD))
    return depth


def _cost(op: str) -> int:
    return INSTRUCTIONS[op].cost if op in INSTRUCTIONS else 0


def work(code: Code) -> int:
    """Rough number of scalar operations for one element."""
    return 1 + sum(_cost(instr.op) for instr in code)


def counters(code: Code) -> tuple[int, ...]:
    return tuple(i for i, instr in enumerate(code) if instr.op in (INDEX, POSITION))
