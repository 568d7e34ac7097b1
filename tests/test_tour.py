"""The pages tell the truth: the tour runs and prints what it says, files that are named exist, the diff was made."""

import os
import re
import runpy
from pathlib import Path

import pytest

import dualgraph as dg

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("dualgraph", "cli", "tests", "benchmarks", "docs")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_tour_prints_what_it_says(tmp_path, capsys):
    tour = ROOT / "docs" / "tour.md"
    script = tmp_path / "tour.py"
    script.write_text("\n".join(blocks(tour, "python")), "utf-8")
    runpy.run_path(str(script), run_name="__main__")
    (output,) = blocks(tour, "text")
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_on_a_page_exist(page):
    files = [file.relative_to(ROOT) for top in TOPS for file in (ROOT / top).rglob("*")]
    known = [file for file in (*files, *map(Path, os.listdir(ROOT))) if file.suffix in (".py", ".md")]
    named = set(re.findall(r"`([\w/*]+\.(?:py|md))`", page.read_text("utf-8")))
    assert {name for name in named if not any(file.match(name) for file in known)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_what_the_readme_says_is_missing_is_missing():
    (names,) = re.findall(
        r"^- Names .* not there yet: (.*?)(?=^- )", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    missing = set(re.findall(r"`(\w+)`", names))
    assert len(missing) > 10
    assert {name for name in missing if hasattr(dg, name)} == set()


def test_every_module_is_on_the_layout_page():
    """By its own name, or by a pattern such as `loop_*.py`."""
    text = (ROOT / "docs" / "layout.md").read_text("utf-8")
    named = re.findall(r"[\w/*]+\.py", text)
    modules = [file.relative_to(ROOT) for top in ("dualgraph", "cli") for file in (ROOT / top).rglob("*.py")]
    assert [str(m) for m in modules if m.name != "__init__.py" and not any(m.match(n) for n in named)] == []


def test_the_diffs_of_contributing_were_made():
    """Each hunk stands in its file as it is shown."""
    diffs = blocks(ROOT / "CONTRIBUTING.md", "diff")
    parts = [part for diff in diffs for part in re.split(r"^--- .*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]]
    assert [len(diffs), len(parts)] == [5, 17]
    for part in parts:
        name, *hunks = re.split(r"^@@.*\n|(?<=py)\n", part, flags=re.MULTILINE)
        text = (ROOT / name).read_text("utf-8")
        for hunk in filter(None, hunks):
            assert "\n".join(line[1:] for line in hunk.splitlines() if line[0] != "-") in text, f"{name}: {hunk}"
