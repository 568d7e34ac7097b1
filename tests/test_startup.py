"""Interpreters that cannot run dualgraph are refused when it is imported, in words that say what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNFIT = {
    "sys.version = '3.14.0 free-threading build (main)'": "run it with the ordinary build",
    "sys.version_info = (3, 10, 9, 'final', 0)": "dualgraph needs Python 3.11 or newer",
    "sys.implementation.name = 'pypy'": "run it with CPython",
}


@pytest.mark.parametrize(("change", "words"), UNFIT.items(), ids=lambda x: x.split()[0])
def test_unfit_interpreters_are_refused(change, words):
    code = (
        f"import sys; {change}\ntry:\n  import dualgraph\nexcept ImportError as e:\n  print(e, 'numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert words in result.stdout
    assert result.stdout.startswith("got ")
    assert result.stdout.endswith(" False\n")  # nothing else was imported


@pytest.mark.parametrize(("change", "words"), UNFIT.items(), ids=lambda x: x.split()[0])
def test_the_command_says_so_in_one_line(change, words):
    code = f"import sys; sys.argv[0] = '/bin/dualgraph'; {change}\nfrom dualgraph.cli.main import main"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_free_threading_is_known_by_its_official_mark():
    """`sys.version` of a free-threaded build says so, as `Py_GIL_DISABLED` does; this build must be consistent in it."""
    import sysconfig

    assert ("free-threading build" in sys.version) == bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def test_without_posix_threads_kernels_run_on_the_calling_thread(tmp_path):
    """As on Windows."""
    code = """if True:
        import ctypes
        whole, ctypes.PyDLL = ctypes.PyDLL, lambda name: object()
        import numpy as np, dualgraph as dg
        from dualgraph.kernels.cpu import pool
        ctypes.PyDLL = whole
        dg.set_num_threads(4)
        x = np.linspace(-2, 2, 3_000_000, dtype=np.float32)
        print(dg.get_num_threads(), pool.workers(), hash(dg.exp(dg.asarray(x)).numpy().tobytes()))
    """
    environment = {"PYTHONHASHSEED": "0", "DUALGRAPH_NUM_THREADS": "3", "DUALGRAPH_CACHE_DIR": str(tmp_path)}
    results = [
        subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, env=environment | {"PATH": "/usr/bin:/bin"}, capture_output=True,
            text=True, check=True,
        ).stdout.split()
        for text in (code, code.replace("lambda name: object()", "ctypes.PyDLL"))
    ]  # fmt: skip
    (single, workers, bits), (all_, _, same) = results
    assert (single, workers, bits, all_) == ("1", "0", same, "4")
