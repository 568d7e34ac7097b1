"""How the command ends when its output or its user goes away: a word at most, no traceback, the conventional code."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from dualgraph import signals

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LONG = ("check", "affine", "--steps", "20000")


@pytest.fixture(autouse=True, scope="module")
def usual_signals():
    """Programs are started with the signals of a terminal, also where this one was started to ignore some (nohup, `&`)."""
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL, "SIGTERM": signal.SIG_DFL}
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in usual.items()}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def shell(line, **named):
    """Run a line of bash in which `dualgraph` is the command."""
    define = f'dualgraph() {{ "{sys.executable}" -m dualgraph "$@"; }}; set -o pipefail; '
    return subprocess.run(["bash", "-c", define + line], cwd=ROOT, capture_output=True, text=True, check=False, **named)


@pytest.mark.parametrize("arguments", ["check affine --steps 2", "graph affine", "doctor", "--help", "compare --help"])
@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        (">&-", 1, "Error: standard output is closed; the results are written to it; redirect it to a file\n"),
        (
            "> /dev/full",
            1,
            "Error: No space left on device, on writing the output; redirect it to where it can be written\n",
        ),
        (
            "1< /dev/null",
            1,
            "Error: Bad file descriptor, on writing the output; redirect it to where it can be written\n",
        ),
        ("| true", 141, ""),
        ("2>&1 | head -c 1 > /dev/null", None, ""),
    ],
)
def test_output_that_cannot_be_written(arguments, where, code, words):
    result = shell(f"dualgraph {arguments} {where}")
    assert (result.stdout, result.stderr) == ("", words)
    assert result.returncode == code or (code is None and result.returncode in (0, 141))  # a pipe may hold it all


def test_completion_into_a_full_device():
    code = "from dualgraph.cli.main import main; main(prog_name='dualgraph')"
    result = shell(f'_DUALGRAPH_COMPLETE=bash_source "{sys.executable}" -c "{code}" > /dev/full')
    assert result.returncode == 1
    assert result.stderr.startswith("Error: No space left on device")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("dualgraph check affine --steps 2 2>&-", 0),
        ("dualgraph check affine --steps 2 <&- 2>&-", 0),
        ("dualgraph check nothing 2>&-", 2),
        ("dualgraph check nothing 2> /dev/full", 2),
        ("dualgraph check nothing <&- >&- 2>&-", 1),
    ],
)
def test_standard_error_that_cannot_be_written(line, code):
    result = shell(line)
    assert result.returncode == code
    assert result.stderr == ""
    assert ("All bits were equal." in result.stdout) == (code == 0)


def test_errors_of_the_system_are_one_line():
    code = (
        "from dualgraph.cli import check, main\n"
        "def f(*_, **__): open('/no/such')\n"
        "check.check_workload = f\n"
        "main.main(['check', 'affine'])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: No such file or directory: '/no/such'; mend that and run the command again\n"


STAGES = (
    "numpy._core.multiarray",
    "numpy",
    "dualgraph.spec",
    "dualgraph.core.op",
    "dualgraph.nn",
    "click",
    "llvmlite.ir",
)


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_during_imports(stage):
    """Sent when that module has been imported, while the next ones are."""
    command = [sys.executable, "-X", "importtime", "-m", "dualgraph", *LONG]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.rstrip().endswith(f" {stage}"):
                break
        else:
            pytest.fail(f"{stage} was never imported")
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate()
    words = re.sub(r"^import time:.*\n", "", rest, flags=re.MULTILINE)
    assert (process.returncode, out, words) == (130, "", "interrupted\n")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_at_any_moment(name, code):
    """From the moment on at which dualgraph begins; before that Python itself is starting."""
    draw = random.Random(name)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "dualgraph", *LONG],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            for line in process.stderr:
                if line.rstrip().endswith(" dualgraph.startup"):
                    break
            time.sleep(draw.uniform(0, 0.6))
            process.send_signal(getattr(signal, name))
            out, rest = process.communicate()
        words = re.sub(r"^import time:.*\n", "", rest, flags=re.MULTILINE)
        assert (process.returncode, out, words) == (code, "", signals.WORDS[name] + "\n")


def test_a_signal_that_is_ignored_stays_ignored():
    """As by `nohup`, and for a job in the background of a script."""
    result = shell("trap '' INT; dualgraph check affine --steps 500 & sleep 0.3; kill -INT $!; wait $!")
    assert (result.returncode, result.stderr) == (0, "")


def test_other_programs_keep_their_signals():
    code = "import signal, dualgraph; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    for script in (code, code.replace("dualgraph;", "dualgraph, dualgraph.cli.main;")):
        result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert result.stdout == "True\n"


def test_a_signal_in_a_finaliser_is_not_lost():
    code = (
        "import os, signal\nfrom dualgraph import signals\n"
        "class A:\n  def __del__(self): os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]\n"
        "with signals.stopping():\n  A()\n  print('lost')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_handlers_are_given_back():
    numbers = [getattr(signal, name) for name in signals.WORDS]
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with pytest.raises(signals.Stopped), signals.stopping():
        signal.raise_signal(signal.SIGTERM)
    assert ([signal.getsignal(number) for number in numbers], sys.unraisablehook) == before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers of signals")
def test_a_signal_that_a_library_drops_ends_the_command_all_the_same():
    program = """
import os, signal, sys, time
from dualgraph import signals
signals.PATIENCE = 0.3
with signals.stopping():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    except BaseException:
        pass
    time.sleep(20)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "terminated\n")
