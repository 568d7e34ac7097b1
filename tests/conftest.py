"""What holds for all tests: a kernel cache of their own, reproducible examples, and all processors for long runs.

`HYPOTHESIS_PROFILE=explore pytest` draws new examples at each run, ten times as many.
`pytest` and `pytest tests/folder` are spread over the processors (pytest-xdist); single files, tests chosen by name, and
runs that a person looks into (`-s`, `--pdb`) stay in one process. `-n` decides otherwise.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

ROOT = str(Path(__file__).resolve().parents[1])
found = importlib.util.find_spec("dualgraph")
if found is None or str(found.origin).startswith(ROOT + os.sep):  # this checkout, then: in subprocesses as well
    sys.path.append(ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), ROOT])

# Time limits and their health check measure the machine, not the code.
SETTINGS = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow], "print_blob": True}
hypothesis.settings.register_profile("default", derandomize=True, database=None, **SETTINGS)
hypothesis.settings.register_profile("explore", max_examples=1000, **SETTINGS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

CHOSEN_OR_WATCHED = "keyword lf failedfirst stepwise usepdb trace collectonly setupplan setuponly setupshow".split()
CACHE = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks
def pytest_cmdline_main(config: pytest.Config) -> None:
    option = config.option
    if hasattr(config, "workerinput"):  # a worker has no workers of its own
        return
    if getattr(option, "numprocesses", 0) is None and is_long(config) and processors() > 1:
        option.numprocesses, option.dist = processors(), "worksteal" if option.dist == "no" else option.dist


def is_long(config: pytest.Config) -> bool:
    """Folders are run as a whole, and nobody wants to talk to a test."""
    given = [name for name in CHOSEN_OR_WATCHED if getattr(config.option, name, False)]
    return not given and config.option.capture != "no" and all(os.path.isdir(name) for name in config.args)


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: looking at them took most of every `gc.collect()` of a measurement."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """One kernel cache for the run, cold at its start; workers of pytest-xdist and subprocesses share it."""
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = tempfile.mkdtemp(prefix="dualgraph-tests-")
        os.environ["DUALGRAPH_CACHE_DIR"] = config.stash[CACHE]


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)
