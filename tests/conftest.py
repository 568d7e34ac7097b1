"""What holds for all tests: a kernel cache of their own, and reproducible examples.

`HYPOTHESIS_PROFILE=explore pytest` draws new examples at each run, ten times as many.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import hypothesis
import pytest

# Time limits and their health check measure the machine, not the code.
SETTINGS = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow], "print_blob": True}
hypothesis.settings.register_profile("default", derandomize=True, database=None, **SETTINGS)
hypothesis.settings.register_profile("explore", max_examples=1000, **SETTINGS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

CACHE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """One kernel cache for the run, cold at its start; workers of pytest-xdist and subprocesses share it."""
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = tempfile.mkdtemp(prefix="dualgraph-tests-")
        os.environ["DUALGRAPH_CACHE_DIR"] = config.stash[CACHE]


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)
