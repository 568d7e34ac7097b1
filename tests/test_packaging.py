"""What is installed: the packages that are on the disk, no other name, types, data and one version."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import dualgraph

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def packages_on_disk() -> dict[str, Path]:
    """Package name -> folder, for every folder of Python files."""
    folders = {file.parent for top in ("dualgraph", "cli") for file in (ROOT / top).rglob("*.py")}
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


def installed(code: str, cwd: Path) -> str:
    """What `code` prints in an interpreter that sees the installed packages and not this tree."""
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"is dualgraph installed? (pip install -e '.[dev]')\n{result.stderr}"
    return result.stdout.strip()


def test_cli_is_installed_inside_dualgraph_only(tmp_path):
    code = "import importlib.util as u; print(u.find_spec('cli'), u.find_spec('dualgraph.cli') is not None)"
    assert installed(code, tmp_path) == "None True"


def test_command_is_installed():
    (command,) = [entry for entry in metadata.entry_points(group="console_scripts") if entry.name == "dualgraph"]
    assert callable(command.load())


def test_types_and_data_are_installed(tmp_path):
    for package, names in PYPROJECT["tool"]["setuptools"]["package-data"].items():
        code = f"from importlib import resources as r; print(*[(r.files({package!r}) / n).is_file() for n in {names}])"
        assert set(installed(code, tmp_path).split()) == {"True"}
    assert resources.files("dualgraph").joinpath("py.typed").is_file()


def test_one_version():
    version = PYPROJECT["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert (version, version, version) == (dualgraph.__version__, metadata.version("dualgraph"), newest[1])


def test_commands_of_the_readme_are_those_of_ci():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "pip install . && dualgraph compare" in readme
    assert "pip install '.[test]' && pytest" in readme
