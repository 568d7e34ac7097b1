"""Where a report may be written: tried before anything is measured, and nothing but a regular file is ever replaced."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dualgraph.cli import compare, report_file
from dualgraph.cli.main import main


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    monkeypatch.setattr(compare, "measure_workload", lambda *_: pytest.fail("measured"))


def made(kind, folder):
    """A name of that kind in the folder."""
    path = folder / "report.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(path))
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "below a file":
        path.write_text("old")
        return path / "x.json"
    return path


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("", "the name is empty"),
        ("/dev/null", "is a device"),
        ("/dev/full", "is a device"),
        ("/proc/x.json", "cannot be written"),
        ("/no/such/folder/x.json", "make it first"),
        ("reports/", "directory"),
        ("x" * 300, "cannot be written (File name too long)"),
        ("a\0b", "cannot be written"),
    ],
)
def test_names_that_are_refused(file, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {name: os.stat(name) for name in ("/dev/null", "/dev/full")}
    result = CliRunner().invoke(main, ["compare", "affine", "--json", file])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert "or - for standard output" in result.stderr
    assert all(os.path.samestat(found, os.stat(name)) for name, found in before.items())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("directory", "is a directory"),
        ("pipe", "is a pipe"),
        ("socket", "is a socket"),
        ("link to a device", "is a device"),
        ("link to itself", "cannot be written"),
        ("below a file", "cannot be written"),
    ],
)
def test_kinds_that_are_refused(kind, words, tmp_path):
    path = made(kind, tmp_path)
    before = os.listdir(tmp_path)
    result = CliRunner().invoke(main, ["compare", "affine", "--json", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_place_without_permission_is_refused(what, tmp_path, monkeypatch):
    """As it is told by the system; the superuser, who may run this, writes everywhere."""

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    (file := tmp_path / "report.json").write_text("old")
    monkeypatch.setattr(
        *((report_file.os, "open") if what == "file" else (report_file.tempfile, "TemporaryFile")), refused
    )
    result = CliRunner().invoke(main, ["compare", "affine", "--json", str(file)])
    assert result.exit_code == 2
    assert "cannot be written (Permission denied)" in result.stderr
    assert file.read_text() == "old"


def test_the_file_of_standard_output_is_refused(tmp_path):
    """It would be replaced while the tables still go to the old one."""
    code = "from dualgraph.cli.main import main; main(['compare', 'affine', '--json', '/dev/stdout'])"
    with open(tmp_path / "out.txt", "w") as out:
        result = subprocess.run([sys.executable, "-P", "-c", code], stdout=out, stderr=subprocess.PIPE, check=False)
    assert result.returncode == 2
    assert b"is the file that standard output goes to" in result.stderr


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target, link, new = tmp_path / "report.json", tmp_path / "link.json", tmp_path / "new.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert report_file.unfit(str(link)) == report_file.unfit(str(new)) == ""
    report_file.replace(str(link), "µ")
    report_file.replace(str(new), "n")
    assert (link.is_symlink(), target.read_text("utf-8"), new.read_text()) == (True, "µ", "n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) & 0o600 == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {"report.json", "link.json", "new.json"}


def test_a_failure_at_the_end_leaves_the_old_file(tmp_path, monkeypatch):
    (file := tmp_path / "report.json").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        report_file.replace(str(file), "\ud800")
    monkeypatch.setattr(report_file.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(OSError, match="No space"):
        report_file.replace(str(file), "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]
