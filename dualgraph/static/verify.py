"""`verify=True`: every stage of a compilation run on the same inputs, and all bits compared.

After each pass both versions run, kernel by kernel; results must agree in every bit, and where a value of an earlier
stage is still there its bits must agree too, so that the first difference names the pass and the call. Scratch memory is
filled with NaN before the compiled program runs, so that reading freed or unwritten memory shows. The passes' graphs are
checked with networkx: acyclic, and every operand defined before its use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgraph.errors import GraphError
from dualgraph.kernels import memory, provider
from dualgraph.kernels.program import Program
from dualgraph.static.dataflow import Dataflow
from dualgraph.static.lowering import lower

if TYPE_CHECKING:
    from dualgraph.static.executable import Executable

Array = np.ndarray[Any, Any]


def verify(executable: Executable, inputs: Sequence[Array]) -> None:
    """Compare all stages of `executable` on the given inputs, which stay as they are."""
    compilation = executable.compilation
    before: tuple[str, list[Array], dict[int, Array]] | None = None
    for name, flow in compilation.stages:
        check_order(name, flow)
        results, values = _run_stage(executable, flow, inputs)
        if before is not None and compilation.exact:
            _compare_values(executable, name, before[2], values)
            _compare(name, before[1], results)
        before = name, results, values
    assert before is not None
    count = compilation.results
    compiled = _run_poisoned(executable.program, executable.compilation.arena, inputs)
    if compilation.exact:
        _compare("fusion and memory plan", before[1][:count], compiled)


def ulp_distance(executable: Executable, inputs: Sequence[Array]) -> int:
    """The largest distance, in units in the last place, between the results as defined and as compiled.

    Counted as the number of floats of the result's dtype between the two; a NaN against a number counts as the whole
    range. What level "fast" costs on these inputs.
    """
    defined, _ = _run_stage(executable, executable.compilation.defined, inputs)
    compiled = _run_poisoned(executable.program, executable.compilation.arena, inputs)
    pairs = zip(defined[: executable.compilation.results], compiled, strict=True)
    return max((_ulps(x, y.reshape(x.shape)) for x, y in pairs), default=0)


def _ulps(x: Array, y: Array) -> int:
    if x.dtype.kind != "f" or not x.size:
        return int(np.any(x != y))
    x, y = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(y).reshape(-1)
    either, both = np.isnan(x) | np.isnan(y), np.isnan(x) & np.isnan(y)
    bits = np.int32 if x.dtype.itemsize == 4 else np.int64
    lowest = int(np.iinfo(bits).min)
    a, b = (v.view(bits).astype(object) for v in (x, y))
    ordered = [np.where(v >= 0, v, lowest - v) for v in (a, b)]  # two's complement order: neighbours differ by 1
    distance = np.abs(ordered[0] - ordered[1])
    distance[either] = -2 * lowest
    distance[both] = 0
    return int(distance.max())


def check_order(name: str, flow: Dataflow) -> None:
    """Every operand comes before its use, and networkx finds no cycle."""
    import networkx

    defined: set[int] = set()
    for call in flow.calls:
        for x in call.inputs:
            if id(x.node) not in defined:
                raise GraphError(f"verify: after {name}, {call.name} uses {x.node.name} before it is computed").at(
                    call.where
                )
        defined.add(id(call))
    missing = [x.node.name for x in flow.results if id(x.node) not in defined]
    if missing or not networkx.is_directed_acyclic_graph(flow.dag):
        raise GraphError(f"verify: after {name} the graph has no order ({', '.join(missing) or 'it has a cycle'})")


def _run_stage(executable: Executable, flow: Dataflow, inputs: Sequence[Array]) -> tuple[list[Array], dict[int, Array]]:
    """Results of a stage, unfused, and the values of its calls by serial number."""
    lowered = lower(flow, executable.compilation.leaves, len(flow.results), ())
    program = lowered.program
    loaded = provider.load(program)
    values: dict[int, Array] = {}

    def observe(number: int, buffers: Any) -> None:
        step = program.steps[number]
        if step.origins and step.outs:
            values[step.origins[0]] = np.array(buffers[step.outs[0].buffer])

    results = loaded.stepwise([np.array(a) for a in inputs], observe)
    if results.__class__ is int:
        raise executable.failure(program, results, inputs)
    found = list(results) if isinstance(results, tuple) else [] if results is None else [results]
    return found, values


def _run_poisoned(program: Program, arena: memory.Arena, inputs: Sequence[Array]) -> list[Array]:
    """The compiled program on copies of its inputs, its scratch memory full of NaN."""
    loaded: Any = provider.load(program, arena)
    poison = getattr(loaded, "poison", None)
    if poison is not None:
        poison()
    results = loaded.launch(*(np.array(a) for a in inputs))
    return list(results) if isinstance(results, tuple) else [] if results is None else [results]


def same_bits(x: Array, y: Array) -> bool:
    """Equal dtype, shape and bits; all NaNs count as one."""
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if x.tobytes() == y.tobytes():
        return True
    if x.dtype.kind != "f":
        return False
    bits = np.uint32 if x.dtype.itemsize == 4 else np.uint64
    same = np.ascontiguousarray(x).view(bits) == np.ascontiguousarray(y).view(bits)
    return bool(np.all(same | (np.isnan(x) & np.isnan(y))))


def _compare(name: str, before: Sequence[Array], after: Sequence[Array]) -> None:
    for number, (x, y) in enumerate(zip(before, after, strict=True)):
        if not same_bits(x, y.reshape(x.shape)):
            raise GraphError(
                f"verify: {name} changed the bits of result {number}; this is a fault of dualgraph, please report it"
            )


def _compare_values(executable: Executable, name: str, before: dict[int, Array], after: dict[int, Array]) -> None:
    calls = {c.serial: c for c in executable.compilation.defined.calls}
    for serial in sorted(before.keys() & after.keys()):
        x, y = before[serial], after[serial]
        if x.size == y.size and x.dtype == y.dtype and not same_bits(x.reshape(-1), y.reshape(-1)):
            call = calls.get(serial)
            what = call.name if call is not None else f"call {serial}"
            raise GraphError(
                f"verify: {name} changed the bits of {what}; this is a fault of dualgraph, please report it"
            ).at(call.where if call is not None else None)
