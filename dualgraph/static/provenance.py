"""Where the bits of a value come from: was it computed, or may it hold a NaN that somebody handed in?

Every NaN that is computed is the one NaN (`kernels.nan`). Identities such as x * 1 → x compute on one side and do not on
the other, so they are exact only where x holds no other NaN: not for inputs, variables, constants with such a NaN,
results of functions from outside, and copies of these. An op is asked by lowering it: what its kernels copy is known.
"""

from __future__ import annotations

from typing import Any

from dualgraph.core.op import Call, Operand
from dualgraph.kernels import nan
from dualgraph.kernels.kinds import OTHER
from dualgraph.kernels.program import Program, View
from dualgraph.ops.composite import lower_call
from dualgraph.ops.symbol import CONSTANT, Symbol, literal_of
from dualgraph.spec import is_float
from dualgraph.static.dag import LEAVES


class Provenance:
    """What is known of the values of one DAG."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}
        self._alive: list[Call] = []  # whose identities are keys

    def is_computed(self, x: Symbol) -> bool:
        """Is every NaN in x the one NaN?"""
        todo = [x]
        while todo:
            y = todo[-1]
            sources = self._copied(y)
            if sources is not None:
                waiting = [s for s in sources if _key(s) not in self._known]
                if waiting:
                    todo.extend(waiting)
                    continue
                self._known[_key(y)] = all(self._known[_key(s)] for s in sources)
            todo.pop()
        return self._known[_key(x)]

    def _copied(self, x: Symbol) -> list[Symbol] | None:
        """The operands of which x may hold copies; None where it is known by itself."""
        key, call = _key(x), x.node
        if key in self._known:
            return None
        self._alive.append(call)
        if not is_float(x.layout.dtype):
            self._known[key] = True
        elif call.op in LEAVES:
            self._known[key] = False
        elif call.op is CONSTANT:
            self._known[key] = not nan.has_other(call.params["value"].array)
        else:
            found = _origins(call)[x.index]
            if OTHER not in found:
                return [call.inputs[n] for n in sorted(found)]
            self._known[key] = False
        return None


def _key(x: Symbol) -> tuple[int, int]:
    return id(x.node), x.index


def _origins(call: Call) -> list[set[int]]:
    """For each result: the numbers of the inputs of which it may hold copies, and `OTHER`."""
    program = Program()
    operands: list[Operand] = []
    numbers: dict[int, int] = {OTHER: OTHER}
    for number, x in enumerate(call.inputs):
        literal: Any = literal_of(x.node)
        operand = literal if literal is not None else program.input(x.spec)
        if isinstance(operand, View):
            numbers[operand.buffer] = number
        operands.append(operand)
    results = lower_call(program, call.op, tuple(operands), call.specs, call.params)
    return [{numbers[o] for o in found} for found in nan.origins(program, [v.buffer for v in results])]
