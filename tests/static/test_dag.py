"""The DAG is the program: rebuilt in any order it runs with the same bits and the same first error; what breaks it is named."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle  # noqa: TID251 - what users do with functions
import random
from collections.abc import Callable
from typing import Any

import networkx
import numpy as np
import pytest

import dualgraph as dg
from conformance.modes import define
from conformance.programs import program_of
from conformance.runs import assert_same, bound
from dualgraph import extend, nn, optim, static
from dualgraph.bits import same_bits
from dualgraph.core.op import Call
from dualgraph.errors import ArgumentError, DualgraphError, GraphError
from dualgraph.kernels import fusion, memory, provider
from dualgraph.kernels.program import Step
from dualgraph.nn import functional as F
from dualgraph.ops.registry import OPS
from dualgraph.static import dag as dags
from dualgraph.static import export, kernel_dag, schedule

X = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)
Y = np.array([0, 3, 1, 1, 2, 0])


def shuffled(dag: Any, seed: int) -> Any:
    """The same nodes and edges, put in in another order."""
    rng = random.Random(seed)
    nodes, edges = list(dag.nodes(data=True)), list(dag.edges(keys=True, data=True))
    rng.shuffle(nodes)
    rng.shuffle(edges)
    found = networkx.MultiDiGraph(**dag.graph)
    found.add_nodes_from(nodes)
    found.add_edges_from(edges)
    return found


def any_order(dag: Any, seed: int) -> list[Any]:
    """A topological order drawn at random."""
    rng = random.Random(seed)
    return list(networkx.lexicographical_topological_sort(shuffled(dag, seed), key=lambda _: rng.random()))


class Model(nn.Module):
    """Products, a row kernel, dropout, a buffer that changes, and an optimiser: every kind of effect but one."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)
        self.dropout = nn.Dropout(0.25)
        self.seen = dg.Variable(dg.zeros(16))

    def forward(self, x: Any) -> Any:
        y = F.relu(self.hidden(x))
        self.seen.assign(self.seen * 0.9 + dg.mean(y, axis=0))
        return self.out(self.dropout(y) - self.seen)


def training() -> tuple[Callable[..., Any], Callable[[], list[Any]]]:
    dg.manual_seed(5)
    model = Model()
    opt = optim.Adam(model.parameters(), lr=1e-2)

    def step(x: Any, y: Any, i: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y) + dg.sum(dg.take(model.out.weight, i, axis=0))
        loss.backward()
        opt.step()
        return loss, dg.take(x, i, axis=0)

    def state() -> list[Any]:
        return [*model.state_dict().values(), *(p.grad for p in model.parameters())]

    return step, state


def arrays(values: list[Any]) -> list[np.ndarray[Any, Any]]:
    return [np.array(v.numpy()) for v in values if v is not None]


def ran(order: Callable[[static.Executable], Any], i: Any = (1, 3)) -> list[np.ndarray[Any, Any]] | str:
    """Three steps of training; `order` may put other programs into the executable's place."""
    step, state = training()
    given = (X, Y, np.array(i))
    compiled = static.compile(step, *(static.spec(a.shape, a.dtype.name) for a in given)).executable
    order(compiled)
    try:
        results = [r for _ in range(3) for r in compiled(*given)]
    except DualgraphError as error:
        return f"{error} {arrays(state())}"
    return arrays([*results, *state()])


def with_steps(executable: static.Executable, steps: list[Step]) -> None:
    """Run these steps in this order instead."""
    program = kernel_dag.program_of(executable.stages["fused"], steps)
    executable.compilation.program, executable.compilation.arena = program, memory.plan(program)
    executable._loaded = provider.load(program, executable.compilation.arena, executable._state())
    executable._launch = executable._loaded.launch


@pytest.mark.parametrize("i", [(1, 3), (1, 9), (-7, 0)])
@pytest.mark.parametrize("seed", range(5))
def test_every_topological_order_of_the_fused_dag_is_right(seed: int, i: tuple[int, int]) -> None:
    def other(executable: static.Executable) -> None:
        dag = executable.stages["fused"]
        steps = any_order(dag, seed)
        places = {step: number for number, step in enumerate(steps)}
        assert all(places[a] < places[b] for a, b in dag.edges())
        with_steps(executable, steps)

    expected, found = ran(lambda _: None, i), ran(other, i)
    if isinstance(expected, str):
        assert found == expected
    else:
        assert all(map(same_bits, found, expected))


@pytest.mark.parametrize("level", ["none", "exact"])
@pytest.mark.parametrize("seed", range(6))
def test_a_defined_dag_rebuilt_in_another_order_runs_the_same(seed: int, level: str) -> None:
    for i in ((1, 3), (9, 0)):
        outcomes = []
        for rebuilt in (False, True):
            step, state = training()
            graph = static.Graph()
            with graph:
                given = (("x", X), ("y", Y), ("i", np.array(i)))
                outputs = step(*(static.placeholder(name, a.shape, a.dtype.name) for name, a in given))
            if rebuilt:
                graph.dag = shuffled(graph.dag, seed)
            compiled = static.compile(graph, outputs=outputs, optimize=level)
            try:
                results = arrays(list(compiled(X, Y, np.array(i))))
            except DualgraphError as error:
                results = [np.array(str(error))]
            outcomes.append([*results, *arrays(state())])
        assert all(
            (a.dtype.kind == "U" and str(a) == str(b)) or same_bits(a, b) for a, b in zip(*outcomes, strict=True)
        )


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_run_the_same_in_any_order(seed: int) -> None:
    program = program_of(seed)
    given = bound(program)
    graph, outputs = define(given.function, given.arguments)
    expected = given.outcome(static.compile(graph, outputs=outputs))
    given = bound(program)
    graph, outputs = define(given.function, given.arguments)
    graph.dag = shuffled(graph.dag, seed)
    executable = static.compile(graph, outputs=outputs)
    with_steps(executable, any_order(executable.stages["fused"], seed))
    assert_same(given.outcome(executable), expected, "in another order")


def test_external_functions_run_in_the_order_in_which_they_were_written() -> None:
    said: list[str] = []

    def saying(name: str) -> Any:
        def function(x: Any) -> Any:
            said.append(name)
            return x

        return extend.external(name, function, lambda x: x)

    ops = [saying(name) for name in "abcd"]

    def function(x: Any) -> Any:
        last = ops[0](x * 2.0)
        for op in ops[1:]:
            op(x + 1.0)
        return last

    executable = static.compile(function, static.spec((3,))).executable
    for seed in range(5):
        with_steps(executable, any_order(executable.stages["fused"], seed))
        said.clear()
        executable(np.ones(3, np.float32))
        assert said == list("abcd")


def test_stages_are_dags_in_the_order_in_which_they_were_made() -> None:
    step, _ = training()
    specs = (static.spec((6, 8)), static.spec((6,), "int64"), static.spec((2,), "int64"))
    executable = static.compile(step, *specs).executable
    names = [p.name for p in static.PASSES if p.stage == "graph" and p.numerics == "exact"]
    assert list(executable.stages) == ["defined", "differentiated", *names, "lowered", "fusion", "fused"]
    assert executable.stages["fused"] is executable.stages["fusion"]
    for name, dag in executable.stages.items():
        assert type(dag) is networkx.MultiDiGraph
        assert networkx.is_directed_acyclic_graph(dag)
        assert all(isinstance(node, Step if name in ("lowered", "fusion", "fused") else Call) for node in dag)
    assert {*executable.program.steps} == {*executable.stages["fused"]}
    defined = executable.stages["defined"]
    written = [call.op.name for call in defined]
    assert "cross_entropy" in written
    assert not any("vjp" in name or "adam" in name for name in written)
    assert written.count("update") == 2  # of what was seen, and of the count of random draws
    assert len(dags.updates(executable.stages["differentiated"])) > 8  # of parameters and what Adam keeps as well
    assert static.compile(step, *specs, optimize="none").stages["fused"] is not None


def test_fusion_contracts_the_lowered_dag() -> None:
    step, _ = training()
    stages = static.compile(
        step, static.spec((6, 8)), static.spec((6,), "int64"), static.spec((2,), "int64")
    ).executable.stages
    lowered, fused = stages["lowered"], stages["fused"]
    merged, _ = fusion.merge(kernel_dag.program_of(lowered), fusion.dependences(kernel_dag.program_of(lowered)))
    steps = dags.in_order(lowered)
    groups = [{steps[number] for number in m.numbers} for m in merged]
    assert any(len(group) > 1 for group in groups)
    quotient = networkx.quotient_graph(networkx.DiGraph(lowered), groups)
    assert networkx.is_isomorphic(quotient, networkx.DiGraph(fused))
    owner = {step: number for number, group in enumerate(groups) for step in group}
    kept = {(owner[a], owner[b], key) for a, b, key in lowered.edges(keys=True) if owner[a] != owner[b]}
    assert len(kept) == fused.number_of_edges()


def test_effects_are_edges() -> None:
    count = dg.Variable([0.0])
    with static.Graph() as g:
        i = static.placeholder("i", (2,), "int64")
        first = dg.take(count, i)
        dg.take(count * 2.0, i)
        count.assign(count + 1.0)
    static.compile(g, outputs=first)
    effects = {(a.op.name, b.op.name, kind) for a, b, kind in g.dag.edges(data="effect") if kind}
    assert effects == {
        ("take", "take", "order"),
        ("take", "update", "check"),
        ("take", "update", "read"),
        ("multiply", "update", "read"),
        ("add", "update", "read"),
    }


def test_the_order_of_execution_needs_no_more_memory_than_program_order() -> None:
    def function(x: Any) -> Any:
        wide = [x @ x for _ in range(6)]  # all at once, in program order
        return [w @ x[:, :1] for w in wide]

    executable = static.compile(function, static.spec((32, 32)), passes=["dead_code", "fusion"]).executable
    found = executable.compilation.schedule
    assert found.peak < found.program_peak
    assert memory.most_alive(memory.items(executable.program)) == found.peak == executable.memory.lower_bound
    assert f"{found.program_peak:,}" in executable.explain()
    for seed in range(40):
        program = program_of(seed)
        given = bound(program)
        graph, outputs = define(given.function, given.arguments)
        chosen = static.compile(graph, outputs=outputs).compilation.schedule
        assert chosen.peak <= chosen.program_peak


def test_the_greedy_order_does_not_depend_on_insertion() -> None:
    step, _ = training()
    dag = static.compile(step, static.spec((6, 8)), static.spec((6,), "int64"), static.spec((2,), "int64")).stages[
        "lowered"
    ]
    expected = schedule.scheduled(dag)
    for seed in range(5):
        assert schedule.scheduled(shuffled(dag, seed)) == expected


# Files


@pytest.mark.parametrize("stage", ["defined", "differentiated", "lowered", "fused"])
def test_files_hold_the_graph_in_plain_data(stage: str, tmp_path: Any) -> None:
    step, _ = training()
    executable = static.compile(
        step, static.spec((6, 8)), static.spec((6,), "int64"), static.spec((2,), "int64")
    ).executable
    dag = export.plain(executable.stages[stage])
    for form in export.FORMATS:
        executable.save_graph(tmp_path / f"graph{form}", stage=stage)
    linked = networkx.node_link_graph(json.loads((tmp_path / "graph.json").read_text()), edges="edges")
    assert networkx.utils.graphs_equal(linked, dag)
    read = networkx.MultiDiGraph(networkx.read_graphml(tmp_path / "graph.graphml"))
    assert dict(read.nodes(data=True)) == dict(dag.nodes(data=True))
    ends = [[(a, b, {k: v for k, v in d.items() if k != "id"}) for a, b, d in g.edges(data=True)] for g in (read, dag)]
    assert sorted(map(str, ends[0])) == sorted(map(str, ends[1]))
    assert networkx.is_isomorphic(read, executable.stages[stage])
    drawn = (tmp_path / "graph.dot").read_text()
    assert all(f'"{name}"' in drawn for name in dag)


@pytest.mark.parametrize("name", ["a b", 'ä"<&>', "a\x00\n\x07", "a\\", "\udc80"])
def test_files_hold_any_name(name: str, tmp_path: Any) -> None:
    op = extend.external(name, lambda x: x, lambda x: x)
    executable = static.compile(op, static.spec((2,))).executable
    for stage in ("defined", "fused"):
        for form in export.FORMATS:
            executable.save_graph(tmp_path / f"graph{form}", stage=stage)
        linked = networkx.node_link_graph(json.loads((tmp_path / "graph.json").read_text("utf-8")), edges="edges")
        read = networkx.read_graphml(tmp_path / "graph.graphml")
        assert dict(read.nodes(data=True)) == dict(linked.nodes(data=True))


@pytest.mark.parametrize(
    ("path", "stage", "words"),
    [
        ("missing/graph.json", "fused", "cannot be written"),
        ("graph.png", "fused", "the end of the name says the form"),
        ("graph.json", "fussed", "did you mean 'fused'"),
        ("graph.json", 3, "the stages are defined"),
        (3, "fused", "give the path of a file"),
        ("a\0.json", "fused", "cannot be written"),
    ],
)
def test_files_that_cannot_be(path: Any, stage: Any, words: str, tmp_path: Any) -> None:
    executable = static.compile(lambda x: x * 2.0, static.spec((3,))).executable
    with pytest.raises(ArgumentError, match=words) as raised:
        executable.save_graph(tmp_path / path if isinstance(path, str) else path, stage=stage)
    assert raised.value.where.file == __file__


# A DAG that was edited behind the graph's back


def edited(edit: Callable[[Any, dict[str, Call]], None]) -> Callable[[], Any]:
    def run() -> Any:
        with static.Graph() as g:
            x, i = static.placeholder("x", (3,)), static.placeholder("i", (2,), "int64")
            y = dg.tanh(x * 2.0 + 1.0)
            for _ in range(2):
                dg.take(x, i)
        edit(g.dag, {call.op.name: call for call in g.calls})
        return static.compile(g, outputs=y)

    return run


def effects(dag: Any) -> tuple[Call, Call]:
    return next((a, b) for a, b, kind in dag.edges(data="effect") if kind)


def exchanged(dag: Any, calls: dict[str, Call]) -> None:
    earlier, later = effects(dag)
    dag.remove_edge(earlier, later)
    dag.add_edge(later, earlier, "effect", effect="order")


def call_of_its_own() -> Call:
    with static.Graph() as g:
        static.placeholder("other", (3,))
    return g.calls[0]


EDITS: dict[str, tuple[Callable[[Any, dict[str, Call]], Any], str]] = {
    "no edge": (lambda d, c: d.remove_edge(c["multiply"], c["add"]), "operand 0 of add_.* comes from nothing"),
    "no node": (lambda d, c: d.remove_node(c["multiply"]), "operand 0 of add_.* comes from nothing"),
    "another operand": (
        lambda d, c: (d.remove_edge(c["add"], c["tanh"]), d.add_edge(c["multiply"], c["tanh"], 0, operand=0, result=0)),
        "operand 0 of tanh_.* is result 0 of add_.*, and its edge comes from result 0 of multiply",
    ),
    "a third operand": (
        lambda d, c: d.add_edge(c["placeholder"], c["add"], 2, operand=2, result=0),
        "operand 2 of add_",
    ),
    "a cycle": (lambda d, c: d.add_edge(c["tanh"], c["multiply"], "effect", effect="order"), "the graph has a cycle"),
    "effects in another order": (exchanged, "was defined before take_.*, and edges put it behind"),
    "a lost effect": (lambda d, c: d.remove_edge(*effects(d)), 'take_.* must run after take_.*effect="order"'),
    "one more call": (lambda d, c: d.add_node(call_of_its_own()), "a DAG of 10 calls, not the 9 that were defined"),
    "one call less": (
        lambda d, c: d.remove_node(max(d, key=lambda call: call.serial)),
        "of 8 calls, not the 9 that were",
    ),
    "a string": (lambda d, c: d.add_node("tanh"), "a node that is str; nodes are calls"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_dag_is_caught_before_it_runs(edit: str) -> None:
    change, words = EDITS[edit]
    with pytest.raises(GraphError, match=words):
        edited(change)()


def test_an_untouched_dag_compiles_again_with_other_outputs() -> None:
    with static.Graph() as g:
        x = static.placeholder("x", (3,))
        y, z = x * 2.0, dg.exp(x)
    first = static.compile(g, outputs=y)
    second = static.compile(g, outputs=[z, y])
    assert first([1.0, 2.0, 3.0]).tolist() == second([1.0, 2.0, 3.0])[1].tolist() == [2.0, 4.0, 6.0]
    assert [call.op.name for call in first.stages["differentiated"]].count("result") == 1


def test_a_graph_that_failed_to_compile_can_be_defined_further() -> None:
    def failing(dag: Any) -> Any:
        raise ZeroDivisionError

    with static.Graph() as g:
        x = static.placeholder("x", (3,))
    for outputs in ([], [x]):
        with pytest.raises(ZeroDivisionError):
            static.compile(g, outputs=outputs, passes=[a_pass(failing)])
    with g:
        y = x * 2.0
    assert static.compile(g, outputs=y)([1.0, 2.0, 3.0]).tolist() == [2.0, 4.0, 6.0]


# Passes of the user's own


def a_pass(run: Any, name: str = "mine", stage: str = "graph", numerics: str = "exact", **place: str) -> static.Pass:
    return static.Pass(name, stage, numerics, "a test", run, **place)


def model(x: Any) -> Any:
    return dg.sum(dg.tanh(x * 2.0) @ dg.ones((3, 2)))


def compiled(*passes: Any, **options: Any) -> static.Executable:
    return static.compile(model, static.spec((4, 3)), passes=[*static.PASSES, *passes], **options).executable


def without(name: str) -> Callable[[Any], Any]:
    def run(dag: Any) -> Any:
        found = dag.copy()
        found.remove_node(next(call for call in dag if call.op.name == name))
        return found

    return run


def cyclic(dag: Any) -> Any:
    found = dag.copy()
    calls = dags.calculations(dag)
    found.add_edge(calls[-1], calls[1], "effect", effect="order")
    return found


def other_spec(dag: Any) -> Any:
    def rule(rw: Any, call: Any, inputs: Any) -> Any:
        return [rw.emit(call, call.op, inputs, static.spec((9, 9)))] if call.op.name == "tanh" else None

    return static.Rewriter(dag).run(rule)


def other_result(dag: Any) -> Any:
    def rule(rw: Any, call: Any, inputs: Any) -> Any:
        return [inputs[0]] if call.op.name == "sum" else None

    return static.Rewriter(dag).run(rule)


def no_result(dag: Any) -> Any:
    return dags.of(dags.calculations(dag))


def edgeless(dag: Any) -> Any:
    found = networkx.MultiDiGraph(**dag.graph)
    found.add_nodes_from(dag)
    return found


def knotted(dag: Any) -> Any:
    found = dag.copy()
    steps = dags.in_order(dag)
    found.add_edge(steps[-1], steps[0], "effect")
    return found


def lessened(dag: Any) -> Any:
    found = dag.copy()
    found.remove_node(dags.in_order(dag)[0])
    return found


def foreign(dag: Any) -> Any:
    with static.Graph():
        other = static.placeholder("other", (4, 3))

    def rule(rw: Any, call: Any, inputs: Any) -> Any:
        return [rw.emit(call, call.op, (other,), call.specs[0])] if call.op.name == "tanh" else None

    return static.Rewriter(dag).run(rule)


def of_other_operands(name: str, operands: Any, **params: Any) -> Any:
    def rule(rw: Any, call: Any, inputs: Any) -> Any:
        return [rw.emit(call, OPS[name], operands(inputs), call.specs[0], **params)] if call.op.name == "tanh" else None

    return lambda dag: static.Rewriter(dag).run(rule)


def astray(dag: Any) -> Any:
    program = kernel_dag.program_of(dag)
    first = program.steps[0]
    outs = tuple(dataclasses.replace(view, offset=view.offset + 1) for view in first.outs)
    program.steps = [dataclasses.replace(first, outs=outs), *program.steps[1:]]
    return kernel_dag.of(program)


def reversed_results(dag: Any) -> Any:
    found = dag.copy()
    found.graph["program"].outputs.append(found.graph["program"].outputs[0])
    return found


BROKEN = {
    "a number": ("graph", lambda dag: 3, "got int; a graph pass returns"),
    "a digraph": ("graph", lambda dag: networkx.DiGraph(dag), "got DiGraph"),
    "a missing operand": ("graph", without("tanh"), "its edge comes from nothing"),
    "a cycle": ("graph", cyclic, "the graph has a cycle"),
    "a wrong spec": ("graph", other_spec, r"is said to give float32\[9, 9\]; it gives float32\[4, 3\]"),
    "another result": ("graph", other_result, "the results are .*; they were"),
    "no result": ("graph", no_result, "the results are nothing"),
    "notes": ("graph", lambda dag: (dag, "a note"), "they are a list of strings"),
    "an input": ("graph", foreign, "is an input that the graph has not"),
    "too few operands": (
        "graph",
        of_other_operands("add", tuple),
        r"got operands of float32\[4, 3\] and parameters {}",
    ),
    "no operands": ("graph", of_other_operands("add", lambda x: ()), "got operands of nothing"),
    "other parameters": ("graph", of_other_operands("sum", tuple, axis=0), "which sum does not take"),
    "other results": ("kernel", reversed_results, "has other inputs or results than before"),
    "a view": ("kernel", astray, "which does not lie in a buffer"),
    "a kernel number": ("kernel", lambda dag: None, "got NoneType; a kernel pass returns"),
    "no edges": ("kernel", edgeless, "must run after step"),
    "a kernel cycle": ("kernel", knotted, "the graph has a cycle"),
    "a missing kernel": ("kernel", lessened, "which no step before it writes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_pass_that_breaks_the_graph_is_named(what: str) -> None:
    stage, run, words = BROKEN[what]
    with pytest.raises(GraphError, match=f"pass mine: .*{words}"):
        compiled(a_pass(run, stage=stage))


def test_a_pass_that_changes_bits_is_named() -> None:
    def rule(rw: Any, call: Any, inputs: Any) -> Any:
        return [rw.emit(call, OPS["sin"], inputs, call.specs[0])] if call.op.name == "tanh" else None

    wrong = a_pass(lambda dag: static.Rewriter(dag).run(rule))
    with pytest.raises(GraphError, match=r'verify: mine changed the bits of .*; keep every bit, or say numerics="re'):
        compiled(wrong, verify=True)(X[:4, :3])
    compiled(wrong)(X[:4, :3])


def test_a_kernel_pass_that_changes_bits_is_named() -> None:
    def doubled(dag: Any) -> Any:
        steps = dags.in_order(dag)
        program = kernel_dag.program_of(dag)
        last = steps[-1]
        repeated = Step(last.kernel, last.outs, tuple(reversed(last.ins)), last.domain, last.fold_axes, (), last.serial)
        program.steps = [*steps[:-1], repeated]
        return kernel_dag.of(program)

    wrong = a_pass(doubled, stage="kernel", after="fusion")
    executable = static.compile(
        lambda x, y: dg.subtract(x, y), *[static.spec((3,))] * 2, passes=[wrong, "fusion"], verify=True
    )
    with pytest.raises(GraphError, match="verify: mine changed the bits of result 0"):
        executable(np.ones(3, np.float32), np.zeros(3, np.float32))


def test_an_update_and_a_check_must_stay() -> None:
    count = dg.Variable([0.0])

    def function(i: Any) -> Any:
        count.assign(count + 1.0)
        return dg.take(count, i)

    for name, words in (("update", "other variables are updated"), ("take", "its edge comes from nothing")):
        with pytest.raises(GraphError, match=f"pass mine: .*{words}"):
            static.compile(function, static.spec((1,), "int64"), passes=[a_pass(without(name))])


def test_where_passes_run() -> None:
    def nothing(dag: Any) -> Any:
        return dag

    names = [p.name for p in static.PASSES if p.numerics == "exact"]
    for place, expected in (
        ({}, [*names[:-1], "mine", "fusion"]),
        ({"before": "inlining"}, ["mine", *names]),
        ({"after": "inlining"}, [names[0], "mine", *names[1:]]),
        ({"before": "fusion"}, [*names[:-1], "mine", "fusion"]),
        ({"stage": "kernel"}, [*names, "mine"]),
        ({"stage": "kernel", "after": "fusion"}, [*names, "mine"]),
        ({"stage": "kernel", "before": "fusion"}, [*names[:-1], "mine", "fusion"]),
        ({"stage": "kernel", "after": "inlining"}, [*names[:-1], "mine", "fusion"]),
    ):
        assert [p.name for p in compiled(a_pass(nothing, **place)).passes] == expected
    two = (a_pass(nothing, "b", after="a"), a_pass(nothing, "a", before="fusion"))
    assert [p.name for p in compiled(*two).passes] == [*names[:-1], "a", "b", "fusion"]
    assert "a test" in compiled(a_pass(nothing)).explain()
    beside = a_pass(nothing, after="real_algebra")  # which the level leaves out
    assert [p.name for p in compiled(beside).passes] == [*names[:4], "mine", *names[4:]]
    loose = a_pass(nothing, numerics="reassociates")
    assert [p.name for p in compiled(loose).passes] == names
    assert [p.name for p in compiled(loose, optimize="fast").passes] == [
        *(p.name for p in static.PASSES[:-1]),
        "mine",
        "fusion",
    ]


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        (["fusoin"], "did you mean 'fusion'"),
        (["real_algebra"], 'say optimize="fast"'),
        ("fusion", "they are a list of passes"),
        ([a_pass(lambda d: d, stage="graf")], "did you mean 'graph'"),
        ([a_pass(lambda d: d, numerics="exactly")], "did you mean 'exact'"),
        ([a_pass(3)], "give a function from DAG to DAG"),
        ([a_pass(lambda d: d), a_pass(lambda d: d)], "a name of its own"),
        ([a_pass(lambda d: d, "fused")], "a name of its own, other than defined"),
        (["fusion", "fusion"], "a name of its own"),
        (["fusion", a_pass(lambda d: d, after="fusion")], "graph passes run before kernel passes"),
        (
            ["dead_code", a_pass(lambda d: d, stage="kernel", before="dead_code")],
            "graph passes run before kernel passes",
        ),
        ([a_pass(lambda d: d, before="a", after="b")], "give one of them"),
        (["fusion", a_pass(lambda d: d, before="fusoin")], "did you mean 'fusion'"),
        ([a_pass(lambda d: d, "a", before="b"), a_pass(lambda d: d, "b", before="a")], "wait for one another"),
    ],
)
def test_passes_that_cannot_be(passes: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        static.compile(model, static.spec((4, 3)), passes=passes)


BEHIND: dict[str, Any] = {
    "cleared": lambda g: g.dag.clear(),
    "without an input": lambda g: g.dag.remove_node(g.placeholders[0].node),
    "another": lambda g: setattr(g, "dag", networkx.MultiDiGraph()),
}


@pytest.mark.parametrize("what", BEHIND)
def test_a_graph_that_was_changed_behind_its_back(what: str) -> None:
    with static.Graph() as graph:
        y = dg.exp(static.placeholder("x", (2,)))
    BEHIND[what](graph)
    with pytest.raises(GraphError, match="not behind its back"):
        static.compile(graph, outputs=[y])


def test_an_error_in_a_pass_says_which() -> None:
    def run(dag: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as raised:
        compiled(a_pass(run))
    assert raised.value.__notes__ == ["in the pass 'mine'"]


@pytest.mark.parametrize("stage", ["graph", "kernel"])
def test_a_pass_cannot_change_what_it_is_given(stage: str) -> None:
    def run(dag: Any) -> Any:
        dag.remove_node(next(iter(dag)))
        return dag

    with pytest.raises(networkx.NetworkXError, match=r"[Ff]rozen") as raised:
        compiled(a_pass(run, stage=stage))
    assert raised.value.__notes__ == ["in the pass 'mine'"]


def test_a_changed_edge_of_what_a_pass_is_given_is_named() -> None:
    def run(dag: Any) -> Any:
        next(d for _, _, d in dag.edges(data=True) if "operand" in d)["result"] = 3
        return dag

    with pytest.raises(GraphError, match="pass mine: operand"):
        compiled(a_pass(run))


def test_kernel_effects_must_stay() -> None:
    count = dg.Variable([0.0])

    def function(i: Any) -> Any:
        count.assign(count + 1.0)
        dg.take(count, i)  # for its check alone
        return count * 2.0

    def dropping(kind: str) -> Callable[[Any], Any]:
        def run(dag: Any) -> Any:
            program = kernel_dag.program_of(dag)
            given = {*program.inputs}
            for step in program.steps:
                updates = any(view.buffer in given for view in step.outs)
                if type(step.kernel).__name__ == kind or (kind == "update" and updates):
                    program.steps = [s for s in program.steps if s is not step]
                    return kernel_dag.of(program)
            raise AssertionError("nothing to drop")

        return run

    specs = static.spec((1,), "int64")
    for kind, words in (("update", "other variables are written"), ("Gather", "are gone")):
        with pytest.raises(GraphError, match=f"pass mine: .*{words}"):
            static.compile(function, specs, passes=[a_pass(dropping(kind), stage="kernel")])


def counting(dag: Any) -> Any:
    return dag, [f"{len(dag)} nodes"]


COUNTING = (a_pass(counting, "last", after="dead_code"), a_pass(counting, "first", after="dead_code"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_copies_have_the_same_passes(copied: Any) -> None:
    passes = [*static.PASSES, *COUNTING]
    names = [p.name for p in static.compile(model, static.spec((4, 3)), passes=passes).passes]
    again = copied(static.compile(model, static.spec((4, 3)), passes=passes))
    assert again(X[:4, :3]).item() == model(dg.tensor(X[:4, :3])).item()
    assert [p.name for p in again.passes] == names
    auto = copied(static.jit(model, passes=passes))
    assert auto(X[:4, :3]).item() == model(dg.tensor(X[:4, :3])).item()
    assert [p.name for p in auto.executables[0].passes] == names
    assert copied(static.PASSES) == static.PASSES


def test_random_draws_are_ordered_by_the_edges_of_their_counter() -> None:
    def function() -> Any:
        return [dg.rand(3), dg.rand(3) + 0.0, dg.randn(3)]

    dg.manual_seed(3)
    expected = arrays(function())
    for seed in range(8):
        graph = static.Graph()
        with graph:
            outputs = function()
        graph.dag = shuffled(graph.dag, seed)
        executable = static.compile(graph, outputs=outputs)
        draws = [call for call in graph.calls if call.op.name in ("rand", "uniform", "normal")]
        before = [networkx.ancestors(graph.dag, call) for call in draws]
        assert [[c.op.name for c in calls].count("add") for calls in before] == [
            1,
            2,
            3,
        ]  # the count is read, then moved
        assert {kind for _, _, kind in graph.dag.edges(data="effect") if kind} == {"read"}
        with_steps(executable, any_order(executable.stages["fused"], seed))
        dg.manual_seed(3)
        assert all(map(same_bits, arrays(executable()), expected))
