"""The command line: outputs, exit codes, messages."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

import dualgraph
from dualgraph.cli import check, compare, console, doctor
from dualgraph.cli.main import main
from dualgraph.compare import identity
from dualgraph.compare.arms import static_arm
from dualgraph.compare.measure import measure_workload
from dualgraph.compare.report import WorkloadRecord
from dualgraph.errors import KernelError

COMMANDS = ("compare", "check", "graph", "doctor")


def run(*arguments, **named):
    return CliRunner().invoke(main, arguments, prog_name="dualgraph", **named)


def shifted(workload, *args, **named):
    """A static arm whose loss is off by a rounding."""
    arm = static_arm(workload, *args, **named)
    step = arm.run
    arm.run = lambda *batch: step(*batch) * 1.0000001
    return arm


def test_version_and_help():
    assert run("--version").stdout == f"dualgraph {dualgraph.__version__}\n"
    text = run("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert "_DUALGRAPH_COMPLETE" in text
    assert "NO_COLOR" in text
    for command in COMMANDS:
        assert run(command, "-h").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "mpl"), "did you mean 'mlp'?"),
        (("check", "affin"), "did you mean 'affine'?"),
        (("graph",), "Missing argument"),
        (("graph", "affine", "--stage", "late"), "'late' is not one of"),
        (("compare", "--rounds", "1"), "1 is not in the range"),
        (("compare", "--fast"), "No such option"),
        (("rave",), "No such command"),
    ],
)
def test_wrong_usage(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_option_that_does_not_fit_the_others():
    result = run("graph", "affine", "--mode", "eager", "--stage", "fused")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "needs --mode static" in result.stderr


def test_check():
    result = run("check", "affine", "--steps", "4")
    assert result.exit_code == 0
    header, *rows = [line.split() for line in result.stdout.splitlines()[1:5]]
    assert header == ["workload", "execution", "steps", "arrays", "sha256", "same", "bits"]
    assert [row[-1] for row in rows] == ["yes"] * 3
    assert len({row[-2] for row in rows}) == 1
    assert result.stdout.endswith("All bits were equal.\n")


@pytest.mark.parametrize("command", ["check", "compare"])
def test_a_difference_ends_with_3(command, monkeypatch):
    monkeypatch.setattr(identity, "static_arm", shifted)
    result = run(command, "affine")
    assert result.exit_code == 3
    assert "DIFFERENT: affine, eager against static none: step 1, output: 1 of 1 elements differ" in result.stdout
    assert "faster" not in result.stdout


class Compared(NamedTuple):
    result: Result
    report: dict[str, Any]
    record: WorkloadRecord


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One comparison for all tests of what is shown of it."""
    file, records = tmp_path_factory.mktemp("compare") / "report.json", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "measure_workload", lambda *x: records.append(measure_workload(*x)) or records[-1])
        result = run("compare", "affine", "--quick", "--rounds", "3", "--json", str(file))
    return Compared(result, json.loads(file.read_text()), records[0])


@pytest.mark.slow
def test_compare_writes_json(compared):
    assert compared.result.exit_code == 0
    report = compared.report
    assert (report["schema"], report["identical"], report["quick"]) == (1, True, True)
    assert report["workloads"]["affine"]["rounds"] == 3
    assert report["seconds"] < 60


@pytest.mark.slow
def test_compare_writes_json_alone_to_stdout(compared, monkeypatch):
    monkeypatch.setattr(compare, "measure_workload", lambda *_: compared.record)
    result = run("compare", "affine", "--quick", "--rounds", "3", "--json", "-")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["workloads"] == compared.report["workloads"]


@pytest.mark.slow
def test_what_was_measured_is_shown_where_the_file_fails_at_the_end(compared, monkeypatch, tmp_path):
    def full(file, _):
        raise OSError(errno.ENOSPC, "No space left on device", file)

    monkeypatch.setattr(compare, "measure_workload", lambda *_: compared.record)
    monkeypatch.setattr(compare, "replace", full)
    result = run("compare", "affine", "--quick", "--json", str(tmp_path / "x.json"))
    assert result.exit_code == 1
    assert "summary" in result.stdout
    assert result.stderr.startswith("Error: No space left on device: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_compare_prints_tables(compared):
    text = compared.result.stdout
    for part in ("summary", "kernels alone", "static, cold cache", "pays from step", "equal bit for bit"):
        assert part in text
    assert "\x1b" not in text
    (row,) = re.findall(r"^  affine +yes .*$", text, re.MULTILINE)
    assert re.search(r"(static|eager) \d+\.\d+x faster \[\d+\.\d+, \d+\.\d+\]|same \[", row)


def test_graph_shows_figure_1_6_in_both_modes():
    tape, dag = (run("graph", "affine", "--mode", mode).stdout.splitlines()[1:] for mode in ("eager", "static"))
    assert tape == dag
    assert "multiply_1 = multiply(w, x)" in "\n".join(dag)
    assert "add_1      = add(multiply_1, b)" in "\n".join(dag)


@pytest.mark.parametrize(("form", "start"), [("dot", "digraph"), ("mermaid", "flowchart TD"), ("json", "{")])
def test_graph_formats(form, start):
    assert run("graph", "affine", "--format", form).stdout.startswith(start)


def test_doctor():
    result = run("doctor")
    assert result.exit_code == 0
    for what in ("dualgraph", "numpy", "kernels", "BLAS", "processor", "threads", "GPU"):
        assert re.search(rf"^  {what} ", result.stdout, re.MULTILINE)


def test_doctor_names_a_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUALGRAPH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("DUALGRAPH_NUM_THREADS", "4096")
    problems = {x.what: x.problem for x in doctor.findings() if x.problem}
    assert "set DUALGRAPH_NUM_THREADS=" in problems["threads"]
    if doctor.provider.name() == "llvm":
        assert "set DUALGRAPH_CACHE_DIR" in problems["cache holds"]
    assert "Problem: threads" in run("doctor").stdout


def test_doctor_says_where_there_are_no_threads(monkeypatch):
    monkeypatch.setattr(doctor.pool, "is_possible", lambda: False)
    (found,) = [x for x in doctor.findings() if x.what == "threads"]
    assert found.value.startswith("1 of ")
    assert "no POSIX threads" in found.problem


def test_doctor_uses_the_cache(monkeypatch, tmp_path):
    if doctor.provider.name() != "llvm" or os.name != "posix":
        pytest.skip("POSIX permissions of the cache of machine code")
    monkeypatch.setenv("DUALGRAPH_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o777)
    assert "chmod 700" in {x.what: x.problem for x in doctor.findings()}["cache holds"]
    tmp_path.chmod(0o700)
    assert not {x.what: x.problem for x in doctor.findings()}["cache holds"]
    assert list(tmp_path.iterdir()) == []


def test_doctor_reports_senseless_settings(monkeypatch):
    pytest.importorskip("llvmlite")
    values = {"DUALGRAPH_CPU": "nonsense", "DUALGRAPH_NUM_THREADS": "two", "DUALGRAPH_KERNELS": "fast"}
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    problems = {x.what: x.problem for x in doctor.findings() if x.problem}
    for variable, value in values.items():
        assert f"got {variable}='{value}'" in problems[variable]
        assert "unset the variable" in problems[variable]
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")


def test_errors_of_dualgraph_are_one_message(monkeypatch):
    def broken(*_, **__):
        raise KernelError("got nothing; something is needed; bring it")

    monkeypatch.setattr(check, "check_workload", broken)
    result = run("check", "affine")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: got nothing; something is needed; bring it\n"


def test_an_interrupt_ends_cleanly(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_workload", interrupted)
    result = run("check", "affine")
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


def test_completion():
    result = run(env={"_DUALGRAPH_COMPLETE": "bash_complete", "COMP_WORDS": "dualgraph check m", "COMP_CWORD": "2"})
    assert result.stdout == "plain,mlp\n"


def on_a_terminal(*arguments, columns=80, **environment):
    """What the command prints on a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    code = "from dualgraph.cli.main import main; main(prog_name='dualgraph')"
    environment = (
        {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")} | {"TERM": "xterm-256color"} | environment
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        stdout=follower,
        stderr=follower,
        stdin=follower,
        env=environment,
    ) as process:
        os.close(follower)
        text = b""
        while True:
            try:
                found = os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
            if not found:
                break
            text += found
    os.close(leader)
    return process.returncode, text.decode()


def test_no_color():
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m")
    code, text = on_a_terminal("check", "affine", "--steps", "2", NO_COLOR="1")
    assert code == 0
    assert "All bits were equal." in text
    assert not colour.search(text)
    assert colour.search(on_a_terminal("check", "affine", "--steps", "2")[1])


@pytest.mark.parametrize(
    ("columns", "environment"),
    [(20, {}), (20, {"TERM": "dumb"}), (80, {"PYTHONIOENCODING": "ascii"}),
     (20, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})],
)  # fmt: skip
def test_poor_terminals(columns, environment):
    code, text = on_a_terminal("check", "affine", "--steps", "2", columns=columns, **environment)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert code == 0
    assert "All bits were equal." in text
    assert len(re.findall(r"\b[0-9a-f]{16}\b", text)) == 3  # no column is squeezed to less than its words
    if "TERM" not in environment and columns == 80:
        assert text.isascii()


def test_what_cannot_be_encoded_is_written_alike():
    code = "from dualgraph.cli.console import prepare_output as p; p(); print('3.20 µs − 2×2 …\\N{SNOWMAN}')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=True)
    assert result.stdout == b"3.20 us - 2x2 ...?\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.00 s"), (0.9999, "1.00 s"), (9.996e-3, "10.0 ms"), (2.5e-9, "2.50 ns"), (-3e-6, "-3.00 µs")],
)
def test_seconds(value, text):
    assert console.seconds(value) == text
