"""What a function reads, by its bytecode: names of globals, of closure variables and of attributes.

A trace runs a function once. So what the function read then must still be so when the graph is run in its stead. A name that
is only written to (`calls += 1`, `losses.append(loss)`, `table["a"] = x`) is not read: nothing in the graph depends on it.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Sequence
from types import CodeType
from typing import NamedTuple

MUTATORS = frozenset("append appendleft extend extendleft insert add update clear write".split())
_SIMPLE = ("LOAD_CONST", "LOAD_SMALL_INT", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK")
_SUBSCRIPT = ("BINARY_SUBSCR", "BINARY_OP")
_FREE = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")


class Reads(NamedTuple):
    """Names that a code object and those inside of it read."""

    globals: tuple[str, ...]
    free: tuple[str, ...]
    attributes: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def reads(code: CodeType) -> Reads:
    """The names that `code` reads, and the functions, lambdas and comprehensions written inside of it."""
    found: tuple[dict[str, None], ...] = ({}, {}, {})
    _collect(code, found)
    return Reads(*(tuple(names) for names in found))


def _collect(code: CodeType, found: tuple[dict[str, None], ...]) -> None:
    instructions = _instructions(code)
    for number, instruction in enumerate(instructions):
        for names, loads in zip(found, (_GLOBAL, _FREE, _ATTRIBUTE), strict=True):
            if instruction.opname in loads and not _only_written(instructions, number):
                names[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, found)


@functools.lru_cache(maxsize=1024)
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG", "PUSH_NULL", "NOP")]


@functools.lru_cache(maxsize=4096)
def only_written(code: CodeType, offset: int) -> bool:
    """Whether what the instruction at `offset` loads is only written to."""
    instructions = _instructions(code)
    return any(i.offset == offset and _only_written(instructions, n) for n, i in enumerate(instructions))


def _only_written(instructions: Sequence[dis.Instruction], number: int) -> bool:
    load, after = instructions[number], instructions[number + 1 : number + 10]
    names = [i.opname for i in after]
    if after and names[0] in ("LOAD_ATTR", "LOAD_METHOD") and after[0].argval in MUTATORS:
        return True  # x.append(…)
    if _match(names, _SIMPLE, "STORE_SUBSCR"):
        return True  # x[0] = …
    if _match(names, _SIMPLE, "COPY", "COPY", _SUBSCRIPT, _SIMPLE, "BINARY_OP", "SWAP", "SWAP", "STORE_SUBSCR"):
        return True  # x[0] += 1
    if _match(names, _SIMPLE, "BINARY_OP", ("STORE_GLOBAL", "STORE_DEREF", "STORE_NAME")):
        return bool(after[2].argval == load.argval)  # x += 1
    if _match(names, _SIMPLE, "BINARY_OP", "SWAP", "STORE_ATTR"):
        return bool(after[3].argval == load.argval)  # self.x += 1
    return False


def _match(names: Sequence[str], *pattern: str | tuple[str, ...]) -> bool:
    pairs = zip(names, pattern, strict=False)
    return len(names) >= len(pattern) and all(n == p if isinstance(p, str) else n in p for n, p in pairs)
