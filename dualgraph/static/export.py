"""The DAG of a stage as a file: node-link JSON, GraphML or Graphviz's DOT, of strings and numbers only.

Nodes are named after their calls (or numbered kernels), and say what they are: `kind`, `op` or kernel, `results` (specs),
`where` (the user's line), `serial`. Edges say what they are for: `operand` and `result`, `buffer`, or `effect`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualgraph.core.op import Call
from dualgraph.errors import ArgumentError, here, shown
from dualgraph.kernels.program import Step
from dualgraph.static.dag import SINKS, in_order
from dualgraph.static.report import kernel_name

if TYPE_CHECKING:
    import networkx

MOST_REDUCED = 1000  # nodes: the transitive reduction of a drawing takes time in proportion to nodes times edges


def plain(dag: networkx.MultiDiGraph[Any]) -> networkx.MultiDiGraph[str]:
    """The same graph with names as nodes and plain data as attributes, in order."""
    import networkx

    found: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
    names: dict[Any, str] = {}
    taken: Counter[str] = Counter()
    for node in in_order(dag):
        attributes = _call(node) if isinstance(node, Call) else _step(node)
        name = node.name if isinstance(node, Call) else f"{attributes['op'].replace(' ', '_')}_{node.serial}"
        name = _printable(name)
        attributes = {key: _printable(x) if isinstance(x, str) else x for key, x in attributes.items()}
        taken[name] += 1
        names[node] = name if taken[name] == 1 else f"{name}.{taken[name]}"
        found.add_node(names[node], **attributes)
    for source, target, key, attributes in dag.edges(keys=True, data=True):
        found.add_edge(names[source], names[target], str(key), **attributes)
    return found


def _printable(text: str) -> str:
    """XML has no control characters, and UTF-8 no halves of surrogate pairs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _call(call: Call) -> dict[str, Any]:
    return {
        "kind": call.op.name if call.op in SINKS or not call.inputs else "operation",
        "op": call.op.name,
        "results": ", ".join(map(str, call.specs)),
        "where": f"{call.where.file}:{call.where.line}" if call.where is not None else "",
        "serial": call.serial,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "kind": "kernel",
        "op": kernel_name(step),
        "results": ", ".join(str(view.spec) for view in step.outs),
        "calls": ", ".join(map(str, step.origins)),
        "serial": step.serial,
    }


def as_json(dag: networkx.MultiDiGraph[str]) -> str:
    """networkx's node-link form."""
    import networkx

    return json.dumps(networkx.node_link_data(dag, edges="edges"), indent=1) + "\n"


def as_graphml(dag: networkx.MultiDiGraph[str]) -> str:
    """GraphML, as yEd, Gephi and networkx read it."""
    import networkx

    return "\n".join(networkx.generate_graphml(dag)) + "\n"


def as_dot(dag: networkx.MultiDiGraph[str]) -> str:
    """Graphviz: operands as lines, effects dashed, those left out that follow from others."""
    lines = ["digraph {", '  node [shape=box, fontname="sans-serif"];']
    for name, attributes in dag.nodes(data=True):
        lines.append(f"  {_quoted(name)} [label={_quoted(name, attributes['results'])}];")
    needed = _not_implied(dag)
    for source, target, attributes in dag.edges(data=True):
        if "effect" not in attributes:
            lines.append(f"  {_quoted(source)} -> {_quoted(target)};")
        elif (source, target) in needed:
            lines.append(f"  {_quoted(source)} -> {_quoted(target)} [style=dashed];")
    return "\n".join([*lines, "}"]) + "\n"


def _not_implied(dag: networkx.MultiDiGraph[str]) -> set[tuple[str, str]]:
    """The pairs between which there is no longer way."""
    import networkx

    simple = networkx.DiGraph(dag)
    return set((networkx.transitive_reduction(simple) if len(dag) <= MOST_REDUCED else simple).edges)


def _quoted(*lines: str) -> str:
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line]
    return '"' + "\\n".join(escaped) + '"'


FORMATS: dict[str, Callable[[Any], str]] = {".json": as_json, ".graphml": as_graphml, ".dot": as_dot}


def save(path: Any, stage: str, stages: Mapping[str, networkx.MultiDiGraph[Any]]) -> None:
    """Write the DAG of a stage; the end of the name says in which form."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"save_graph: got {shown(path)}; give the path of a file").at(here(3))
    path = Path(os.fspath(path))
    if path.suffix not in FORMATS:
        raise ArgumentError(
            f"save_graph: got {str(path)!r}; the end of the name says the form: {', '.join(FORMATS)}; give one of these"
        ).at(here(3))
    text = FORMATS[path.suffix](plain(stages[stage_named("save_graph", stage, stages)]))
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"save_graph: {str(path)!r} cannot be written ({reason}); give a path that can").at(
            here(3)
        ) from None


def stage_named(what: str, stage: Any, stages: Mapping[str, Any]) -> str:
    """The stage, if there is one of this name."""
    if isinstance(stage, str) and stage in stages:
        return stage
    near = difflib.get_close_matches(stage, stages, 1) if isinstance(stage, str) else []
    hint = f"did you mean {near[0]!r}? There are" if near else "the stages are"
    raise ArgumentError(f"{what}: got the stage {shown(stage)}; {hint} {', '.join(stages)}; name one").at(here(4))


__all__ = ["FORMATS", "as_dot", "as_graphml", "as_json", "plain", "save"]
