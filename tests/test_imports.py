"""`import dualgraph` is light: heavy packages load when they are first needed."""

import subprocess
import sys

import pytest

HEAVY = ("click", "cupy", "llvmlite", "networkx", "platformdirs", "rich", "safetensors", "threadpoolctl")
PUBLIC = (
    "dualgraph",
    "dualgraph.nn",
    "dualgraph.nn.functional",
    "dualgraph.optim",
    "dualgraph.data",
    "dualgraph.static",
)


@pytest.mark.parametrize("module", PUBLIC)
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.strip() == "[]"
