"""Machine code on disk: warm starts, and every way in which the directory or a file can be bad."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llvmlite")

from dualgraph.errors import CacheWarning, KernelError
from dualgraph.kernels.llvm import cache, engine
from dualgraph.kernels.llvm.command import Variant
from native import emitted

ROOT = hasattr(os, "getuid") and os.getuid() == 0


@emitted
@dataclass(frozen=True)
class Constant(Variant):
    """Returns a number."""

    value: int

    def emit(self, module: Any, name: str) -> None:
        from llvmlite import ir

        i32, i64, ptr = ir.IntType(32), ir.IntType(64), ir.PointerType()
        function = ir.Function(module, ir.FunctionType(i32, [ptr, ptr, i64, i64]), name)
        ir.IRBuilder(function.append_basic_block()).ret(i32(self.value))


@emitted
@dataclass(frozen=True)
class Broken(Variant):
    def emit(self, module: Any, name: str) -> None:
        from llvmlite import ir

        ir.Function(module, ir.FunctionType(ir.IntType(32), []), name).append_basic_block()  # no terminator


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and an engine that has forgotten what it knew."""
    monkeypatch.setenv("DUALGRAPH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "_addresses", {})
    monkeypatch.setattr(cache, "_said_unwritable", False)
    monkeypatch.setattr(cache, "_said_unfit", False)
    monkeypatch.setattr(cache, "_trimmed", False)
    return tmp_path / "cache"


def run(variant: Constant) -> int:
    import ctypes

    kernel = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
    return int(kernel(engine.addresses([variant])[0])(None, None, 0, 0))


def forget() -> None:
    engine._addresses.clear()


def files(place: Path) -> list[Path]:
    return sorted(place.glob("*.o"))


def test_compile_store_and_load(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(Constant(41)) == 41
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [path.name for path in files(place)] == [f"{engine.key(Constant(41))}.o"]
    forget()
    monkeypatch.setattr(engine, "_object", lambda *_: pytest.fail("compiled although cached"))
    assert run(Constant(41)) == 41


def test_many_at_once_and_repeats(place: Path) -> None:
    variants = [Constant(1), Constant(2), Constant(1), Constant(3)]
    addresses = engine.addresses(variants)
    assert addresses[0] == addresses[2]
    assert len(set(addresses)) == 3
    assert engine.addresses(variants[::-1]) == addresses[::-1]
    assert len(files(place)) == 3


def test_keys_tell_kinds_apart() -> None:
    """Two classes of one name and equal fields are two variants."""

    def make() -> type:
        @dataclass(frozen=True)
        class Twin:
            value: int

        return Twin

    first, second = make(), make()
    second.__module__ = "elsewhere"
    assert repr(first(1)) == repr(second(1))
    assert len({engine.key(first(1)), engine.key(second(1)), engine.key(first(2))}) == 3


def test_a_key_without_meaning_is_refused() -> None:
    """An address may be that of something else in another process."""
    with pytest.raises(KernelError, match="not where it lies in memory"):
        engine.addresses([Constant(object())])  # type: ignore[arg-type]


DAMAGES = {
    "truncated": lambda data: data[:-1],
    "header only": lambda data: data[: cache._HEADER],
    "empty": lambda data: b"",
    "garbage": lambda data: os.urandom(len(data)),
    "one bit": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "other magic": lambda data: b"X" + data[1:],
    "bare object": lambda data: data[cache._HEADER :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced(damage: str, place: Path) -> None:
    assert run(Constant(5)) == 5
    (path,) = files(place)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    forget()
    with pytest.warns(CacheWarning, match="checksum does not fit") as caught:
        assert run(Constant(5)) == 5
    assert len(caught) == 1
    assert path.read_bytes() == whole
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(Constant(5)) == 5


def test_a_file_under_the_wrong_name_is_not_used(place: Path) -> None:
    """The checksum covers the key: swapping two whole files cannot swap two kernels."""
    run(Constant(5)), run(Constant(6))
    first, second = files(place)
    first.write_bytes(second.read_bytes())
    forget()
    with pytest.warns(CacheWarning):
        assert (run(Constant(5)), run(Constant(6))) == (5, 6)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_file_that_others_may_write_is_not_used(place: Path) -> None:
    run(Constant(5))
    (path,) = files(place)
    path.chmod(0o666)
    forget()
    with pytest.warns(CacheWarning, match="others may write it"):
        assert run(Constant(5)) == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="POSIX links")
def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    run(Constant(5))
    (path,) = files(place)
    path.rename(tmp_path / "elsewhere.o")
    path.symlink_to(tmp_path / "elsewhere.o")
    forget()
    with pytest.warns(CacheWarning, match="cannot be opened"):
        assert run(Constant(5)) == 5
    assert not path.is_symlink()


@pytest.mark.parametrize("kind", ["a file", "others may write", "cannot be made", "read-only"])
def test_an_unusable_directory_is_reported_once(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "a file":
        place.write_text("in the way")
    elif kind == "others may write":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "cannot be made":
        (place.parent / "file").write_text("in the way")
        monkeypatch.setenv("DUALGRAPH_CACHE_DIR", str(place.parent / "file" / "cache"))
    else:
        if ROOT or os.name != "posix":
            pytest.skip("the superuser writes everywhere")
        place.mkdir()
        place.chmod(0o500)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [run(Constant(n)) for n in (5, 6)] == [5, 6]
    (warning,) = caught
    assert warning.category is CacheWarning
    assert warning.filename == __file__
    said = {"a file": "which is not a directory; ", "others may write": "chmod 700", "cannot be made": "cannot be made"}
    assert said.get(kind, "cannot be used") in str(warning.message)
    assert str(cache.directory()) in str(warning.message)
    assert "set DUALGRAPH_CACHE_DIR" in str(warning.message)
    assert cache.probe() == str(warning.message)


@pytest.mark.skipif(os.name != "posix", reason="POSIX file types")
@pytest.mark.parametrize("kind", ["directory", "full directory", "pipe"])
def test_what_is_not_a_file_is_corrupted(kind: str, place: Path) -> None:
    run(Constant(5))
    (path,) = files(place)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        if kind == "full directory":
            (path / "of-the-user.txt").write_text("not ours")
    forget()
    with pytest.warns(CacheWarning, match="not a regular file") as caught:
        assert run(Constant(5)) == 5
    assert len(caught) == 1
    assert path.is_file() == (kind != "full directory")
    assert ("delete it" in str(caught[0].message)) == (kind == "full directory")


def test_several_damaged_files_are_one_warning(place: Path) -> None:
    run(Constant(5)), run(Constant(6))
    for path in files(place):
        path.write_bytes(b"")
    forget()
    with pytest.warns(CacheWarning) as caught:
        assert (run(Constant(5)), run(Constant(6))) == (5, 6)
    assert len(caught) == 1
    assert cache.probe() == ""
    assert len(list(place.iterdir())) == 2


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("DUALGRAPH_CPU", "nonsense", "code can be made for .*unset the variable"),
        ("DUALGRAPH_NUM_THREADS", "two", "an integer of at least 1; .*unset the variable"),
        ("DUALGRAPH_NUM_THREADS", "0", "an integer of at least 1; .*unset the variable"),
    ],
)
def test_senseless_settings_are_errors_of_the_first_kernel(variable: str, value: str, remedy: str) -> None:
    code = "import dualgraph as dg\ntry: dg.tensor([1.0]) + 1\nexcept dg.errors.ArgumentError as error: print(error)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.match(f"got {variable}='{value}'; .*{remedy}", done.stdout)


def test_a_full_disk_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert run(Constant(5)) == 5
    assert list(place.iterdir()) == []


def test_info_and_clear(place: Path) -> None:
    assert cache.cache_info().files == 0
    run(Constant(5)), run(Constant(6))
    (place / "of-the-user.txt").write_text("not ours")
    info = cache.cache_info()
    assert (info.directory, info.files, info.limit) == (str(place), 2, cache.LIMIT)
    assert info.nbytes > 0
    assert cache.clear_cache() == 2
    assert [path.name for path in place.iterdir()] == ["of-the-user.txt"]
    assert cache.clear_cache() == 0


def test_the_oldest_go_first(place: Path) -> None:
    for n in range(8):
        run(Constant(n))
    now = time.time()
    for age, n in enumerate((7, 6, 5, 4, 3, 2, 1, 0)):
        path = place / f"{engine.key(Constant(n))}.o"
        os.utime(path, (now - 1e6 * age, now - 1e6 * age))
    size = cache.cache_info().nbytes
    cache.trim(size)
    assert len(files(place)) == 8
    cache.trim(size // 2)
    left = {path.stem for path in files(place)}
    assert 1 <= len(left) <= 4
    assert left == {engine.key(Constant(n)) for n in range(8 - len(left), 8)}


def test_use_makes_a_file_young(place: Path) -> None:
    run(Constant(5))
    (path,) = files(place)
    os.utime(path, (1e9, 1e9))
    forget()
    run(Constant(5))
    assert path.stat().st_mtime > 1e9 + 1


def test_other_processors_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from dualgraph.kernels.llvm import engine\nfrom dualgraph.kernels.llvm.runtime.variants import Launch, Worker\n"
        "print(engine.target()[0], engine.key(Worker()), 'zmm' in engine.assembly(Launch()))"
    )
    outputs = set()
    for cpu in ("x86-64", "x86-64-v3"):
        if "x86_64" not in engine._llvm().get_process_triple():
            pytest.skip("names of x86 processors")
        environment = {**os.environ, "DUALGRAPH_CPU": cpu}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith(cpu + " ")
        assert done.stdout.endswith("False\n")
        outputs.add(done.stdout.split()[1])
    assert len(outputs) == 2


EDIT = """
import sys
from pathlib import Path
from dualgraph.kernels.llvm import engine
from dualgraph.kernels.llvm.runtime.variants import Worker

def key():
    engine._environment.cache_clear()
    return engine.key(Worker())

before, package = key(), Path(engine.__file__).parents[2]
assert package.is_relative_to(sys.argv[1]), package
for name in sys.argv[2:]:
    source = (package / name).read_bytes()
    (package / name).write_bytes(source + b"# edited\\n")
    print(name, key() != before)
    (package / name).write_bytes(source)
    assert key() == before
"""


def test_an_edited_emitter_has_other_keys(tmp_path: Path) -> None:
    """Each file of each room, and what emitters import besides, in a copy of the package."""
    package = Path(engine.__file__).parents[2]
    copy = shutil.copytree(package, tmp_path / "dualgraph", ignore=shutil.ignore_patterns("__pycache__"))
    emitters = sorted(path.relative_to(package).as_posix() for path in Path(engine.__file__).parent.rglob("*.py"))
    assert len({name.rpartition("/")[0] for name in emitters}) >= 7  # the rooms
    edited = [*emitters, "spec.py", "kernels/expr.py", "kernels/kinds.py", "kernels/nan.py", "kernels/cpu/pool.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", EDIT, str(copy), *edited], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [f"{name} True" for name in edited]


def test_invalid_code_is_an_error_of_ours() -> None:
    with pytest.raises(KernelError, match="DUALGRAPH_KERNELS=reference"):
        engine.addresses([Broken()])
    assert run(Constant(9)) == 9


def test_concurrent_processes(place: Path) -> None:
    """Several processes fill one empty cache at the same time; nobody warns, and all files are whole."""
    code = (
        "from dualgraph.kernels.llvm import engine\n"
        "from dualgraph.kernels.llvm.products.selection import Gemm, Zero\n"
        "from dualgraph.kernels.llvm.runtime.variants import Launch, Worker\n"
        "engine.addresses([Launch(), Worker(), Gemm('float32', True, True), Zero()])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE) for _ in range(4)
    ]
    for process in processes:
        assert (process.communicate(timeout=60)[1], process.returncode) == (b"", 0)
    assert len(files(place)) == len(list(place.iterdir())) == 4
    for path in files(place):
        assert cache.load(path.stem) is not None


def test_a_warm_start_imports_no_emitter(place: Path) -> None:
    code = "import dualgraph as dg, sys; dg.softmax(dg.ones((3, 4)) @ dg.ones((4, 2))).sum(axis=0); print('%s' in sys.modules)"
    for imported in ("True", "False"):
        command = [sys.executable, "-c", code % "dualgraph.kernels.llvm.codegen"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{imported}\n"


def test_import_is_light() -> None:
    code = "import dualgraph.kernels.provider, dualgraph.kernels.blas, sys; assert 'llvmlite' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_describe() -> None:
    facts = engine.describe()
    assert set(facts) == {"llvmlite", "llvm", "cpu", "features"}
    assert all(facts.values())


def test_threads_ask_for_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    original = engine._object
    monkeypatch.setattr(engine, "_object", lambda variant, name: compiled.append(variant) or original(variant, name))
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(engine.addresses([Constant(77)]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == len(compiled) == 1
