"""Graphs as text: figure 1.6, the same graph in both modes, and labels that cannot break out of their format."""

from __future__ import annotations

import json
import re

import pytest

from dualgraph.compare.drawing import FORMATS, Drawing, Node, as_dot, as_json, as_mermaid, as_text, draw, edges
from dualgraph.compare.workloads import WORKLOADS, find
from dualgraph.errors import ArgumentError

FIGURE = [  # y = wx + b: z = wx, then y = z + b
    ("x", "input", ()),
    ("w", "parameter", ()),
    ("b", "parameter", ()),
    ("multiply_1", "operation", ("w", "x")),
    ("add_1", "operation", ("multiply_1", "b")),
]


@pytest.mark.parametrize("mode", ["eager", "static"])
def test_figure_1_6(mode):
    drawing = draw(find("affine"), mode)
    assert [(n.name, n.kind, n.operands) for n in drawing.nodes] == FIGURE
    assert drawing.results == ("add_1",)
    assert [n.where.partition(":")[0] for n in drawing.nodes[3:]] == ["affine.py"] * 2
    assert edges(drawing) == [
        ("w", "multiply_1", 0),
        ("x", "multiply_1", 1),
        ("multiply_1", "add_1", 0),
        ("b", "add_1", 1),
    ]


@pytest.mark.parametrize("what", ["forward", "step"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_both_modes_have_the_same_graph(name, what):
    tape, dag = (draw(find(name), mode, what=what) for mode in ("eager", "static"))
    shape = lambda d: [(n.name, n.op, n.operands, n.results) for n in d.nodes if n.kind == "operation"]  # noqa: E731
    assert shape(tape) == shape(dag)
    assert tape.results == dag.results


def test_stages():
    sizes = [len(draw(find("mlp"), stage=stage, what="step").nodes) for stage in ("defined", "optimised", "fused")]
    assert sizes[0] < sizes[1] > sizes[2]  # composites are opened, then kernels fused
    opened = draw(find("mlp"), stage="optimised", what="step")
    assert {n.note for n in opened.nodes if n.op == "log"} == {"cross_entropy"}
    fused = draw(find("affine"), stage="fused")
    (kernel,) = [n for n in fused.nodes if n.kind == "kernel"]
    assert (kernel.note, kernel.operands) == ("multiply, add", ("w", "x", "b"))
    assert fused.results == (kernel.name,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("eager", "fused"), "use --mode static"), (("lazy",), "got 'lazy'"), (("static", "late"), "got 'late'")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        draw(find("affine"), *arguments)


@pytest.mark.parametrize("what", ["forward", "step"])
@pytest.mark.parametrize("stage", ["defined", "optimised", "fused"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_drawing_is_whole(name, stage, what):
    drawing = draw(find(name), stage=stage, what=what)
    names = [n.name for n in drawing.nodes]
    assert len(set(names)) == len(names)
    written = json.loads(json.dumps(as_json(drawing)))
    assert written["schema"] == 1
    assert {e["source"] for e in written["edges"]} | {e["target"] for e in written["edges"]} <= set(names)
    assert as_dot(drawing).count(" -> ") == len(written["edges"]) + len(drawing.results)
    assert as_mermaid(drawing).count(" --> ") == len(written["edges"]) + len(drawing.results)
    assert all(re.search(rf"^  {re.escape(name)} +[=:] ", as_text(drawing), re.MULTILINE) for name in names)


def test_labels_are_escaped():
    evil = 'a"] <script>alert(1)</script>; \\ click n0 "x'
    drawing = Drawing(evil, (Node(evil, "input", "input", (), ("float32[2]",)),), (evil,))
    dot = as_dot(drawing)
    quoted = re.findall(r'"(?:[^"\\]|\\.)*"', dot)
    assert len(quoted) == 4  # title, font, label, "result"
    assert re.sub(r'"(?:[^"\\]|\\.)*"', "", dot).count('"') == 0
    mermaid = as_mermaid(drawing)
    assert "<script" not in mermaid
    assert mermaid.splitlines()[1].count('"') == 2


def test_formats():
    assert list(FORMATS) == ["text", "dot", "mermaid", "json"]
