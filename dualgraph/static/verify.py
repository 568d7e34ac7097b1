"""`verify=True`, at the first run: every stage of a compilation run on the same inputs, and all bits compared.

After each pass both versions run, kernel by kernel; results must agree in every bit, and where a value of an earlier
stage is still there its bits must agree too, so that the first difference names the pass and the call. The graph as
defined also runs on inputs that lie in another order in memory: eager mode computes on views as they are, so no bit may
depend on it. The compiled program runs with its scratch memory full of NaN, so that reading freed or unwritten memory
shows. The DAG that each pass returns is checked (`dag.check`): acyclic, edges that are what the calls say.

Functions from outside are called by the first stage only; the others get what it got from them, for the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dualgraph.bits import same_bits
from dualgraph.core.op import Call
from dualgraph.dtypes import DTYPES
from dualgraph.errors import GraphError
from dualgraph.kernels import memory, provider
from dualgraph.static import dag as dags
from dualgraph.static import kernel_dag
from dualgraph.static.lowering import lower

if TYPE_CHECKING:
    from dualgraph.kernels.program import Program
    from dualgraph.static.pipeline import Compilation

Array = np.ndarray[Any, Any]
Dag = Any  # networkx.MultiDiGraph of calls
Values = dict[tuple[int, int], Array]  # of calls, by their places
REPORT = "this is a fault of dualgraph, please report it"
MEND = 'keep every bit, or say numerics="reassociates"'


class Compiled(Protocol):
    """What is verified: an executable."""

    @property
    def compilation(self) -> Compilation: ...

    def state(
        self, feeds: Sequence[Array], passed: Mapping[int, Any] = ..., leaves: Sequence[Call] | None = None
    ) -> list[Array]: ...

    def failure(self, program: Program, failed: int, arrays: Sequence[Array]) -> Exception: ...


def verify(executable: Compiled, feeds: Sequence[Array], passed: Mapping[int, Any]) -> None:
    """Compare all stages of `executable` on the given inputs, which stay as they are."""
    compilation = executable.compilation
    leaves = compilation.every_leaf
    state = executable.state(feeds, passed, leaves)
    defined, values = _run_stage(executable, compilation.differentiated, leaves, state)
    if compilation.exact:
        again, _ = _run_stage(executable, compilation.differentiated, leaves, state, transposed=True)
        _compare("another memory layout of the inputs", defined, again)
    results, previous = defined, compilation.differentiated
    for name, dag in compilation.graph_stages.items():
        dags.check(name, dag, previous)
        before, earlier, previous = results, values, dag
        results, values = _run_stage(executable, dag, leaves, state)
        if compilation.exact:
            _compare_values(executable, name, earlier, values, _remedy(executable, name))
            _compare(name, before, results, _remedy(executable, name))
    faults = memory.check(executable.compilation.program, compilation.arena)
    if faults:
        raise GraphError(f"verify: memory plan: {'; '.join(faults)}; {REPORT}")
    loaded = provider.load(executable.compilation.program, compilation.arena, poisoned=True)
    arrays = executable.state(feeds, passed)
    kernels, steps = [], None
    for name, dag in compilation.kernel_stages.items():
        kernel_dag.check(name, dag, steps)
        kernels.append((name, _stepwise(provider.load(kernel_dag.program_of(dag)))))
        steps = dag
    for what, run in (*kernels, ("order of kernels", _stepwise(loaded)), ("memory plan", loaded.launch)):
        found = _listed(run(*(np.array(a) for a in arrays)))
        if compilation.exact:
            _compare(what, results[: compilation.results], found, _remedy(executable, what))


def _stepwise(loaded: provider.Loaded) -> Callable[..., Any]:
    """One step at a time, each buffer in memory of its own: also what nobody writes is poison."""
    return lambda *arrays: loaded.stepwise(arrays)


def ulp_distance(executable: Compiled, feeds: Sequence[Array], passed: Mapping[int, Any]) -> int:
    """The largest distance, in units in the last place, between the results as defined and as compiled.

    Counted as the number of floats of the result's dtype between the two; a NaN against a number counts as the whole
    range. What level "fast" costs on these inputs.
    """
    compilation = executable.compilation
    leaves = compilation.every_leaf
    loaded = provider.load(executable.compilation.program, compilation.arena)
    arrays = executable.state(feeds, passed)
    compiled = loaded.launch(*(np.array(a) for a in arrays))
    if compiled.__class__ is int:
        raise executable.failure(executable.compilation.program, compiled, arrays)
    compiled = _listed(compiled)
    defined, _ = _run_stage(executable, compilation.differentiated, leaves, executable.state(feeds, passed, leaves))
    pairs = zip(defined[: compilation.results], compiled, strict=True)
    return max((_ulps(x, y.reshape(x.shape)) for x, y in pairs), default=0)


def _ulps(x: Array, y: Array) -> int:
    record = DTYPES[x.dtype.name]
    if record.kind != "float" or not x.size:
        return int(np.any(x != y))
    x, y = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(y).reshape(-1)
    either, both = np.isnan(x) | np.isnan(y), np.isnan(x) & np.isnan(y)
    lowest = -(1 << (record.bits - 1))
    a, b = (v.view(f"i{record.itemsize}").astype(object) for v in (x, y))
    ordered = [np.where(v >= 0, v, lowest - v) for v in (a, b)]  # two's complement order: neighbours differ by 1
    distance = np.abs(ordered[0] - ordered[1])
    distance[either] = -2 * lowest
    distance[both] = 0
    return int(distance.max())


def _run_stage(
    executable: Compiled, dag: Dag, leaves: Sequence[Call], inputs: Sequence[Array], transposed: bool = False
) -> tuple[list[Array], Values]:
    """Results of a stage, unfused, and the values of its calls by their places.

    `transposed`: the inputs lie in memory with their axes in the reverse order.
    """
    wanted = [*dags.results(dag), *(x for _, x in dags.updates(dag))]
    lowered = lower(dags.in_order(dag), leaves, wanted, (), transposed)
    program, owners = lowered.program, lowered.owners
    loaded = provider.load(program)
    values: Values = {}

    def observe(number: int, buffers: Any) -> None:
        step = program.steps[number]
        if number < len(owners) and step.outs:
            values[owners[number].place] = np.array(buffers[step.outs[0].buffer])

    arrays = [np.array(a.T if transposed else a, order="C") for a in inputs]
    results = loaded.stepwise(arrays, observe)
    if results.__class__ is int:
        raise executable.failure(program, results, arrays)
    return _listed(results), values


def _listed(results: Any) -> list[Array]:
    """What a launch returned, as a list."""
    return list(results) if isinstance(results, tuple) else [] if results is None else [results]


def _remedy(executable: Compiled, name: str) -> str:
    """What to do about a stage that changed bits: it is the user's pass, or ours."""
    own = any(p.name == name and not p.built_in for p in executable.compilation.passes)
    return MEND if own else REPORT


def _compare(name: str, before: Sequence[Array], after: Sequence[Array], remedy: str = REPORT) -> None:
    for number, (x, y) in enumerate(zip(before, after, strict=True)):
        if not same_bits(x, y.reshape(x.shape)):
            raise GraphError(f"verify: {name} changed the bits of result {number}; {remedy}")


def _compare_values(executable: Compiled, name: str, before: Values, after: Values, remedy: str) -> None:
    for place in sorted(before.keys() & after.keys()):
        x, y = before[place], after[place]
        if x.size == y.size and x.dtype == y.dtype and not same_bits(x.reshape(-1), y.reshape(-1)):
            call = executable.compilation.call_of(place[0])
            what = call.name if call is not None else f"call {place[0]}"
            raise GraphError(f"verify: {name} changed the bits of {what}; {remedy}").at(
                call.where if call is not None else None
            )
