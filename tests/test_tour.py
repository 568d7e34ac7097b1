"""The tour is a script: its blocks run one after the other and print what it says."""

import re
import runpy
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tour.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_tour_prints_what_it_says(tmp_path, capsys):
    script = tmp_path / "tour.py"
    script.write_text("\n".join(blocks("python")), "utf-8")
    runpy.run_path(str(script), run_name="__main__")
    (output,) = blocks("text")
    assert capsys.readouterr().out == output
