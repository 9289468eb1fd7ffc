"""What every package in plugins/ keeps to; a plugin of your own does well to keep to it too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.plugins import Found, Plugins
from pyrokernel.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir() and path.name != "__pycache__")

HEAVY = {"numpy", "scipy", "pandas", "matplotlib", "sage", "cmd2", "rich", "prompt_toolkit", "Pyro5", "cloudpickle"}
"""What nobody waits for because a plugin is installed: it is imported inside functions."""

MOST_MODULES = 40
"""How many modules a plugin may add, at its import, to those that every kernel has imported."""

IMPORT_ALONE = """
import json, sys, threading
import pyrokernel.kernel.process, pyrokernel.plugins, pyrokernel.hookspecs  # a kernel with plugins has these
had = set(sys.modules)
threads = threading.active_count()
module = __import__(sys.argv[1])
print(json.dumps({"added": sorted(set(sys.modules) - had), "threads": threading.active_count() - threads}))
"""

pytestmark = pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)


def manifest(package: Path) -> dict[str, Any]:
    return tomllib.loads((package / "pyproject.toml").read_text())


def plugin_name(package: Path) -> str:
    return package.name.removeprefix("pyrokernel-")


def module_name(package: Path) -> str:
    return package.name.replace("-", "_")


def module_path(package: Path) -> Path:
    """Return the module, or the folder of the package."""
    single = package / f"{module_name(package)}.py"
    return single if single.exists() else package / module_name(package)


def run(code: str, package: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{package}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_its_manifest_says_what_it_is(package: Path) -> None:
    project = manifest(package)["project"]
    assert project["name"] == package.name
    assert project["entry-points"]["pyrokernel"] == {plugin_name(package): module_name(package)}
    assert "pyrokernel" in [re.split(r"[^\w-]", one)[0] for one in project["dependencies"]]
    assert {"version", "description", "license", "readme", "requires-python"} <= set(project)
    assert manifest(package)["build-system"]["build-backend"] == "hatchling.build"


def test_it_has_a_readme_that_says_how_to_install_it(package: Path) -> None:
    readme = (package / "README.md").read_text()
    assert readme.startswith(f"# {package.name}\n")
    assert re.search(rf"pip install .*{package.name}", readme)


def test_it_has_tests(package: Path) -> None:
    assert list((package / "tests").glob("test_*.py"))


def test_its_module_says_which_process_runs_it(package: Path) -> None:
    path = module_path(package)
    for each in [path] if path.is_file() else path.rglob("*.py"):
        assert re.match(r'"""(?:(?!""").)*\bRuns in\b', each.read_text(), re.DOTALL), each


def test_it_is_typed(package: Path) -> None:
    """A package carries `py.typed`; a single module has no place for it, and is checked here all the same."""
    path = module_path(package)
    assert path.is_file() or (path / "py.typed").is_file()
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(path)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": os.pathsep.join([str(ROOT), str(package)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_importing_it_is_cheap_and_prints_nothing(package: Path) -> None:
    report = json.loads(run(IMPORT_ALONE, package, module_name(package)))
    assert not HEAVY & {name.partition(".")[0] for name in report["added"]}
    assert len(report["added"]) <= MOST_MODULES, report["added"]
    assert report["threads"] == 0


def test_its_hooks_keep_the_contract(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))
    found = Found(plugin_name(package), module_name(package), package.name, "", str(package))
    plugins = Plugins(Settings(), [found])
    plugins.load(lambda plugin: None)
    (info,) = plugins.infos()
    assert info.problems == ()
    assert info.loaded
    assert info.hooks


@pytest.mark.slow
def test_its_wheel_has_the_module_and_nothing_else(package: Path, tmp_path: Path) -> None:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds it, is not installed")
    run("import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])", package, str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    top = {name.partition("/")[0] for name in names}
    assert top == {module_path(package).name, wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert not [name for name in names if name.endswith(".pyc") or "test" in name]
    assert points == f"[pyrokernel]\n{plugin_name(package)} = {module_name(package)}\n"
