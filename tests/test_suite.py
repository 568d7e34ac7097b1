"""How the suite itself runs: spread over the processors once, its cache of machine code its own and shared by all workers."""

import os
from pathlib import Path

import pytest


def test_workers_have_no_workers(pytestconfig):
    if not hasattr(pytestconfig, "workerinput"):
        pytest.skip("the suite runs in one process")
    assert pytestconfig.option.numprocesses is None
    assert pytestconfig.option.dist == "no"


def test_the_cache_is_that_of_this_run():
    assert Path(os.environ["DUALGRAPH_CACHE_DIR"]).name.startswith("dualgraph-tests-")
