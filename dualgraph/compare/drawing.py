"""A computation graph as nodes and edges, the same form for the recorded tape, the defined DAG and the fused kernels.

Operations are vertices, operands are edges in, results are edges out. Nodes are numbered by kind in program order, not
by the process, so that two drawings can be put side by side.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dualgraph import models, static
from dualgraph.compare import workloads
from dualgraph.compare.arms import Arm, eager_arm, specs
from dualgraph.compare.recording import Listening
from dualgraph.compare.workloads import Batch, Instance, Workload
from dualgraph.core.mode import within
from dualgraph.core.op import Op, Part
from dualgraph.eager import Tape
from dualgraph.errors import ArgumentError, Where
from dualgraph.kernels.program import Program
from dualgraph.ops.symbol import CONSTANT, PLACEHOLDER
from dualgraph.spec import Spec
from dualgraph.static import dag as dags
from dualgraph.static.dag import GRADIENT, VARIABLE
from dualgraph.static.report import kernel_name

SCHEMA_VERSION = 1
_MODELS = os.path.dirname(models.__file__)
STAGES = ("defined", "optimised", "fused")
MODES = ("eager", "static")
PARTS = ("forward", "step")


@dataclass(frozen=True)
class Node:
    """A value that comes from outside (`input`, `parameter`, `state`, `constant`), an `operation`, or a `kernel`."""

    name: str
    kind: str
    op: str
    operands: tuple[str, ...]  # names of the values it takes, in order
    results: tuple[str, ...]  # specs
    where: str = ""  # the user's line
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A graph in program order."""

    title: str
    nodes: tuple[Node, ...]
    results: tuple[str, ...]  # names of the values wanted from it
    schema: int = field(default=SCHEMA_VERSION)


class _Builder:
    """Names nodes in the order in which they are added; values are found again by any hashable key."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.names: dict[Any, str] = {}
        self._taken: Counter[str] = Counter()

    def leaf(self, key: Any, name: str, kind: str, spec: Any) -> str:
        self._taken[name] += 1
        if self._taken[name] > 1:
            name = f"{name}_{self._taken[name]}"
        self.names[key] = name
        self.nodes.append(Node(name, kind, kind, (), (_spec(spec),)))
        return name

    def node(
        self, op: str, operands: Iterable[str], results: Sequence[Any], kind: str, where: Where | None, note: str = ""
    ) -> str:
        self._taken[op] += 1
        name = f"{op.replace(' ', '_')}_{self._taken[op]}"
        self.nodes.append(Node(name, kind, op, tuple(operands), tuple(map(_spec, results)), _place(where), note))
        return name

    def results(self, name: str, keys: Sequence[Any]) -> None:
        """The results of a node get names: the node's own, with a number where there are several."""
        for number, key in enumerate(keys):
            self.names[key] = name if len(keys) == 1 else f"{name}.{number}"


def _spec(layout: Any) -> str:
    return str(Spec(tuple(layout.shape), layout.dtype))


def _place(where: Where | None) -> str:
    """The line of the model or of the step; empty where an operation has none of its own, as in the reverse sweep."""
    own = where is not None and (where.file == workloads.__file__ or os.path.dirname(where.file) == _MODELS)
    return f"{os.path.basename(where.file)}:{where.line}" if where is not None and own else ""


def draw(workload: Workload, mode: str = "static", stage: str = "defined", what: str = "forward") -> Drawing:
    """The graph of a workload's model (`forward`) or of its whole training step (`step`)."""
    for given, known in ((mode, MODES), (stage, STAGES), (what, PARTS)):
        if given not in known:
            raise ArgumentError(f"draw: got {given!r}; choose one of {', '.join(known)}")
    title = f"{workload.name}, {what}, {mode}"
    if mode == "eager":
        if stage != "defined":
            raise ArgumentError(
                f"graph: got the stage {stage!r} in eager mode; a tape is run as it is recorded and has no further "
                "stages; use --mode static"
            )
        arm = eager_arm(workload)
        return _tape(arm, f"{title} (recorded tape)") if what == "forward" else _eager_step(arm, f"{title} (as it ran)")
    instance = workload.build()
    function = instance.forward if what == "forward" else instance.step
    batch = instance.batches[0][:1] if what == "forward" else instance.batches[0]
    executable = static.compile(function, *specs(batch)).executable
    title = f"{title} ({stage})"
    names = {id(v): (name.rpartition(" ")[2], name.partition(" ")[0]) for name, v in instance.variables()}
    if stage == "fused":
        return _kernels(title, executable, names)
    compilation = executable.compilation
    return _calls(title, compilation.differentiated if stage == "defined" else compilation.optimised, names)


# ---- eager -----------------------------------------------------------------------------------------------------------


def _leaves(builder: _Builder, instance: Instance, batch: Batch, forward: bool) -> None:
    for name, x in zip(_argument_names(instance), batch, strict=False):
        builder.leaf(id(x), name, "input", x.layout)
    for name, variable in instance.variables():
        kind, _, short = name.partition(" ")
        if not forward or kind in ("parameter", "buffer"):
            builder.leaf(id(variable), short, _KINDS.get(kind, "state"), variable.layout)


_KINDS = {"parameter": "parameter", "buffer": "state", "optimiser": "state", "random": "state"}


def _argument_names(instance: Instance) -> tuple[str, ...]:
    code = instance.step.__code__
    return code.co_varnames[: code.co_argcount]


def _tape(arm: Arm, title: str) -> Drawing:
    instance, batch = arm.instance, arm.batch()[:1]
    builder = _Builder()
    _leaves(builder, instance, batch, forward=True)
    with arm.turn(), Tape() as tape:
        output = instance.forward(*batch)
    for call in tape.calls:
        operands = [_operand(builder, x) for x in call.inputs]
        name = builder.node(call.op.name, operands, call.specs, "operation", call.where)
        builder.results(name, [(id(call), n) for n in range(len(call.specs))])
    return _used(title, builder, [_operand(builder, output)])


def _operand(builder: _Builder, x: Any) -> str:
    key = id(x) if x.call is None else (id(x.call), x.index)
    if key not in builder.names:
        _constant(builder, key, x)
    return builder.names[key]


def _constant(builder: _Builder, key: Any, x: Any) -> str:
    return builder.leaf(key, repr(x.item()) if x.size == 1 else "constant", "constant", x.layout)


def _eager_step(arm: Arm, title: str) -> Drawing:
    """Every operation that eager mode applied: forward, backward and update.

    A value is known by its storage and layout: gradients and updates have no place on the tape.
    """
    builder = _Builder()
    kept: list[Any] = []  # what is alive keeps its identity
    with arm.turn():
        instance, batch = arm.instance, arm.batch()
        named = dict(zip(map(id, batch), _argument_names(instance), strict=False))
        variables = {id(v): name for name, v in instance.variables()}

        def key(x: Any) -> Any:
            return id(x.storage), tuple(x.layout)

        def operand(x: Any) -> str:
            if key(x) in builder.names:
                return builder.names[key(x)]
            if id(x) in named:
                return builder.leaf(key(x), named[id(x)], "input", x.layout)
            if id(x) in variables:
                kind, _, short = variables[id(x)].partition(" ")
                return builder.leaf(key(x), short, _KINDS.get(kind, "state"), x.layout)
            return _constant(builder, key(x), x)

        def heard(op: Op, inputs: tuple[Any, ...], params: dict[str, Any], results: Any) -> None:
            found = results if isinstance(results, tuple) else (results,)
            lifted = [front.lift(x) for x in inputs]
            kept.append((lifted, [x.storage for x in (*lifted, *found)]))
            where = found[0].call.where if found[0].call is not None else None
            name = builder.node(op.name, map(operand, lifted), [x.layout for x in found], "operation", where)
            builder.results(name, [key(x) for x in found])

        front = Listening(heard)
        output = within(front, arm.step)
        results = [operand(output)]
        results += [operand(p.grad) for p in instance.model.parameters() if p.grad is not None]
        changed = [key(v) for _, v in instance.variables()]
    leaves = {node.name for node in builder.nodes if node.kind != "operation"}
    results += [builder.names[k] for k in changed if builder.names.get(k, "") not in {"", *leaves}]
    return _used(title, builder, results)


# ---- static ----------------------------------------------------------------------------------------------------------


def _calls(title: str, dag: Any, names: dict[int, tuple[str, str]]) -> Drawing:
    builder = _Builder()
    for call in dags.calculations(dag):
        keys = [(id(call), n) for n in range(len(call.specs))]
        leaf = _leaf_of(call, names)
        if leaf is not None:
            builder.leaf(keys[0], *leaf, call.specs[0])
            continue
        operands = [builder.names[id(x.node), x.index] for x in call.inputs]
        note = call.whole.op.name if isinstance(call, Part) else ""
        builder.results(builder.node(call.op.name, operands, call.specs, "operation", call.where, note), keys)
    wanted = [*dags.results(dag), *(x for _, x in dags.updates(dag))]
    return _used(title, builder, [builder.names[id(x.node), x.index] for x in wanted])


def _leaf_of(call: Any, names: dict[int, tuple[str, str]]) -> tuple[str, str] | None:
    """Name and kind of a call that is no operation."""
    if call.op is PLACEHOLDER:
        return call.params["name"], "input"
    if call.op in (VARIABLE, GRADIENT):
        name, kind = names.get(call.params["key"], (call.params["name"], "state"))
        return (f"grad of {name}", "state") if call.op is GRADIENT else (name, _KINDS.get(kind, "state"))
    if call.op is CONSTANT:
        array = call.params["value"].array
        return repr(array.item()) if array.size == 1 else "constant", "constant"
    return None


def _kernels(title: str, executable: Any, names: dict[int, tuple[str, str]]) -> Drawing:
    """Kernels as nodes. A buffer is named by the kernel that wrote it last."""
    program: Program = executable.program
    builder = _Builder()
    for buffer, call in zip(program.inputs, executable.compilation.leaves, strict=True):
        leaf = _leaf_of(call, names)
        assert leaf is not None
        builder.leaf(buffer, *leaf, program.buffers[buffer])
    for buffer, array in program.constants.items():
        builder.leaf(buffer, repr(array.item()) if array.size == 1 else "constant", "constant", program.buffers[buffer])
    calls = {c.serial: c for c in executable.compilation.differentiated}
    for step in program.steps:
        operands = [builder.names[b] for b in dict.fromkeys(v.buffer for v in step.ins)]
        written = list(dict.fromkeys(v.buffer for v in step.outs))
        origins = [calls[s] for s in step.origins if s in calls]
        note = ", ".join(f"{n} {name}" if n > 1 else name for name, n in Counter(c.op.name for c in origins).items())
        where = origins[0].where if origins else None
        name = builder.node(kernel_name(step), operands, [program.buffers[b] for b in written], "kernel", where, note)
        builder.results(name, written)
    changed = [b for b in program.inputs if builder.names[b] not in {n.name for n in builder.nodes if not n.operands}]
    return _used(title, builder, [builder.names[b] for b in (*program.outputs, *changed)])


def _used(title: str, builder: _Builder, results: list[str]) -> Drawing:
    """Leaves that nothing reads are left out; inputs, parameters, state and constants come first."""
    read = {name.partition(".")[0] for node in builder.nodes for name in node.operands}
    read |= {name for node in builder.nodes for name in node.operands} | set(results)
    order = {kind: n for n, kind in enumerate(("input", "parameter", "state", "constant"))}
    leaves = sorted((n for n in builder.nodes if n.kind in order and n.name in read), key=lambda n: order[n.kind])
    operations = [n for n in builder.nodes if n.kind not in order]
    return Drawing(title, (*leaves, *operations), tuple(dict.fromkeys(results)))


# ---- formats ---------------------------------------------------------------------------------------------------------


def edges(drawing: Drawing) -> list[tuple[str, str, int]]:
    """(source node, target node, position among the target's operands)."""
    owner = _owners(drawing)
    return [(owner[x], node.name, n) for node in drawing.nodes for n, x in enumerate(node.operands)]


def _owners(drawing: Drawing) -> dict[str, str]:
    owner = {}
    for node in drawing.nodes:
        owner[node.name] = node.name
        owner.update((f"{node.name}.{n}", node.name) for n in range(len(node.results)))
    return owner


def as_text(drawing: Drawing) -> str:
    """One line per node: name, what it is, result, the user's line."""
    made = ("operation", "kernel")
    rows = []
    for node in drawing.nodes:
        what = f"{node.op}({', '.join(node.operands)})" if node.kind in made else node.kind
        what += f": {node.note}" if node.note else ""
        rows.append((node.name, "=" if node.kind in made else ":", what, ", ".join(node.results), node.where))
    widths = [min(max((len(row[n]) for row in rows), default=0), 60) for n in range(5)]
    lines = [drawing.title, ""]
    for name, sign, what, result, where in rows:
        lines.append(f"  {name:{widths[0]}} {sign} {what:{widths[2]}}  {result:{widths[3]}}  {where}".rstrip())
    count = sum(node.kind in made for node in drawing.nodes)
    kind = "kernel" if any(node.kind == "kernel" for node in drawing.nodes) else "operation"
    lines += ["", f"  {count} {kind}{'' if count == 1 else 's'}"]
    lines[-1] += f"; result{'s' if len(drawing.results) > 1 else ''}: {', '.join(drawing.results)}"
    return "\n".join(lines)


def as_dot(drawing: Drawing) -> str:
    """Graphviz: `dualgraph graph affine --format dot | dot -Tsvg`."""
    ids = {node.name: f"n{number}" for number, node in enumerate(drawing.nodes)}
    owner = _owners(drawing)
    lines = [f"digraph {_quoted(drawing.title)} {{", "  rankdir=TB;", '  node [fontname="sans-serif"];']
    for node in drawing.nodes:
        shape = "ellipse" if node.kind in ("operation", "kernel") else "plaintext"
        lines.append(f"  {ids[node.name]} [label={_quoted(_label(node))}, shape={shape}];")
    for source, target, _ in edges(drawing):
        lines.append(f"  {ids[source]} -> {ids[target]};")
    for number, result in enumerate(drawing.results):
        lines.append(f"  r{number} [label={_quoted('result')}, shape=plaintext];")
        lines.append(f"  {ids[owner[result]]} -> r{number};")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def as_mermaid(drawing: Drawing) -> str:
    """Mermaid, as GitHub and many editors show it."""
    ids = {node.name: f"n{number}" for number, node in enumerate(drawing.nodes)}
    owner = _owners(drawing)
    lines = ["flowchart TD"]
    for node in drawing.nodes:
        left, right = ("([", "])") if node.kind in ("operation", "kernel") else ("[", "]")
        lines.append(f"  {ids[node.name]}{left}{_entities(_label(node))}{right}")
    lines += [f"  {ids[source]} --> {ids[target]}" for source, target, _ in edges(drawing)]
    for number, result in enumerate(drawing.results):
        lines.append(f"  {ids[owner[result]]} --> r{number}[result]")
    return "\n".join(lines)


def _entities(text: str) -> str:
    """Text as a Mermaid label: everything but letters, digits and the plainest signs as a character code."""
    shown = "".join(c if c.isalnum() or c in " .,_-=" else "<br/>" if c == "\n" else f"#{ord(c)};" for c in text)
    return f'"{shown}"'


def _label(node: Node) -> str:
    if node.kind in ("operation", "kernel"):
        return "\n".join(filter(None, (f"{node.name}", node.note, ", ".join(node.results))))
    return f"{node.name}\n{', '.join(node.results)}"


def as_json(drawing: Drawing) -> dict[str, Any]:
    """Nodes as they are, and edges with the position of the operand."""
    return {
        **asdict(drawing),
        "edges": [{"source": s, "target": t, "operand": n} for s, t, n in edges(drawing)],
    }


FORMATS: dict[str, Callable[[Drawing], Any]] = {"text": as_text, "dot": as_dot, "mermaid": as_mermaid, "json": as_json}
