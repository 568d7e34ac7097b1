"""What is installed: the packages that are on the disk, no other name, types, data and one version."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import dualgraph

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = ROOT / "dualgraph" / "cli" / "__init__.py"  # leads to cli/ in a checkout; cli/ takes its place in a wheel
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def packages_on_disk() -> dict[str, Path]:
    """Package name -> folder, for every folder of Python files."""
    folders = {file.parent for top in ("dualgraph", "cli") for file in (ROOT / top).rglob("*.py")} - {STAND_IN.parent}
    names = {folder: folder.relative_to(ROOT).parts for folder in folders}
    return {".".join(("dualgraph", *parts) if parts[0] == "cli" else parts): folder for folder, parts in names.items()}


def test_package_list_is_that_of_the_disk():
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert listed == sorted(listed)
    assert listed == sorted(packages_on_disk())


def test_every_package_has_an_init():
    assert [name for name, folder in packages_on_disk().items() if not (folder / "__init__.py").exists()] == []


def test_package_data_is_on_disk():
    folders = packages_on_disk()
    for package, names in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        for name in names:
            assert (folders[package] / name).is_file()


def test_the_stand_in_leaves_nothing_out():
    """It stands in for the `__init__` of cli, which must therefore do nothing."""
    assert [type(node) for node in ast.parse((ROOT / "cli" / "__init__.py").read_text("utf-8")).body] == [ast.Expr]
    assert list(STAND_IN.parent.glob("*.py")) == [STAND_IN]


@pytest.mark.parametrize("arguments", [("-c", "from dualgraph.cli.main import main; main(['--version'])"),
                                       ("-m", "dualgraph", "--version"),
                                       ("-m", "pytest", "--version")], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("isolated", [(), ("-S",)], ids=["as it is", "without site"])
def test_in_the_checkout(isolated, arguments):
    """The current folder comes first; without `site` an editable installation is not there either."""
    path = [p for p in sys.path if Path(p).is_dir() and Path(p).resolve() not in (ROOT, ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path) if isolated else ""}
    code = [sys.executable, *isolated, *arguments]
    result = subprocess.run(code, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split()[0] in ("dualgraph", "pytest")


def test_the_current_folder_is_the_one_that_runs():
    code = "import dualgraph.cli.main as m, dualgraph; print(m.__file__); print(dualgraph.__file__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert list(map(Path, result.stdout.split())) == [ROOT / "cli" / "main.py", ROOT / "dualgraph" / "__init__.py"]


def installed(code: str, cwd: Path) -> str:
    """What `code` prints in an interpreter that sees the installed packages and not this tree."""
    code = f"import importlib.util as u, sys; u.find_spec('dualgraph') or sys.exit(77); {code}"
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode == 77:
        pytest.skip("dualgraph is not installed here (pip install -e '.[dev]')")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_cli_is_installed_inside_dualgraph_only(tmp_path):
    code = "import importlib.util as u; print(u.find_spec('cli'), u.find_spec('dualgraph.cli') is not None)"
    assert installed(code, tmp_path) == "None True"


def test_command_is_installed(tmp_path):
    code = "from importlib import metadata as m; (e,) = m.entry_points(group='console_scripts', name='dualgraph')"
    assert installed(f"{code}; print(callable(e.load()))", tmp_path) == "True"


def test_types_and_data_are_installed(tmp_path):
    for package, names in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        code = f"from importlib import resources as r; print(*[(r.files({package!r}) / n).is_file() for n in {names}])"
        assert set(installed(code, tmp_path).split()) == {"True"}
    assert resources.files("dualgraph").joinpath("py.typed").is_file()


def test_one_version(tmp_path):
    version = PYPROJECT["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert (version, version) == (dualgraph.__version__, newest[1])
    assert installed("from importlib import metadata; print(metadata.version('dualgraph'))", tmp_path) == version


def test_commands_of_the_readme_are_those_of_ci():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "pip install . && dualgraph compare" in readme
    assert "pip install '.[test]' && pytest" in readme
