"""All benchmarks: tables in Markdown on stdout, or written into their places in a page.

    python benchmarks/run.py --python PYTHON_WITH_TORCH_AND_JAX
    python benchmarks/run.py --only op-overhead,kernels --rounds 5
    python benchmarks/run.py --write docs/performance.md

A place is everything between `<!-- begin NAME -->` and `<!-- end NAME -->`; NAME is that of a table or `machine`.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import compile_time
import op_overhead
import options
import training_steps
from processes import Settings, say

import kernels

SCRIPTS: dict[str, Callable[[Settings], dict[str, str]]] = {
    "training-steps": training_steps.report,
    "op-overhead": op_overhead.report,
    "kernels": kernels.report,
    "compile-time": compile_time.report,
}
VERSIONS = "import torch, jax; print('PyTorch', torch.__version__ + ', JAX', jax.__version__)"


def machine(settings: Settings) -> str:
    """The processor, the versions, and how busy the machine was."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        processor = names[0] if names else processor
    own = "import numpy, llvmlite; print('NumPy', numpy.__version__ + ', llvmlite', llvmlite.__version__)"
    versions = [f"Python {platform.python_version()}"]
    for python, code in ((sys.executable, own), (settings.python, VERSIONS)):
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        versions += [found.stdout.strip()] if not found.returncode else []
    return (
        f"{datetime.date.today()}: {processor}, {len(os.sched_getaffinity(0))} processors, {settings.threads} threads; "
        f"{', '.join(versions)}; {settings.rounds} rounds; load when the run began {os.getloadavg()[0]:.1f}."
    )


def write(page: Path, tables: dict[str, str]) -> None:
    """Replace the contents of the places that tables were made for."""
    text = page.read_text()
    for name, content in tables.items():
        found = re.search(rf"<!-- begin {name} -->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
        if found is None:
            say(f"{page} has no place for {name}")
        else:
            text = f"{text[: found.start(1)]}\n{content}\n\n{text[found.end(1) :]}"
    page.write_text(text)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--only", default=",".join(SCRIPTS), help=f"some of {', '.join(SCRIPTS)}")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into this page")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    unknown = [name for name in chosen if name not in SCRIPTS]
    if unknown:
        parser.error(f"got {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    settings = options.settings_of(arguments)
    tables = {"machine": machine(settings)}
    for name in chosen:
        tables.update(SCRIPTS[name](settings))
        if arguments.write:
            write(arguments.write, tables)  # after each, so that an interrupted run leaves what it has
    if not arguments.write:
        print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main()
