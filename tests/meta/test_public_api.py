"""What users may rely on: the listed names exist and are documented, and importing only defines things."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyrokernel

ROOT = Path(__file__).parents[2]

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "pyrokernel").rglob("*.py")
)

HEAVY = {"cmd2", "rich", "prompt_toolkit", "numpy", "pandas", "IPython"}
"""What a kernel, or a script that imports pyrokernel, must not pay for."""

IMPORT_EACH = """
import gc, json, os, signal, sys, threading, traceback
def world():
    return {
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": threading.active_count(),
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "hooks": [id(sys.displayhook), id(sys.excepthook), id(threading.excepthook)],
        "path": list(sys.path),
        "switch": sys.getswitchinterval(),
    }
before = world()
def changed():
    return [key for key, value in world().items() if value != before[key]]
# What is not ours, which by itself is most of the time of an import.
import cloudpickle, cmd2, cryptography.x509, pluggy, prompt_toolkit, Pyro5.api, rich, serpent
report = {"": changed()}
gc.freeze()  # else each child copies what its collector looks at
for module in sys.argv[1:]:
    out, into = os.pipe()
    if os.fork() == 0:
        for stream in (1, 2):
            os.dup2(into, stream)
        try:
            __import__(module)
            os.write(into, json.dumps(changed()).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(into)
    with open(out) as told:
        report[module] = told.read()
    os.wait()
print(json.dumps(report))
"""


def run_alone(code: str, *arguments: str) -> Any:
    """Run code in a fresh interpreter and return what it prints, which is JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def changed_by() -> dict[str, Any]:
    """What each module changes when it is imported first; of one that prints or fails, what it printed."""
    found: dict[str, Any] = run_alone(IMPORT_EACH, *MODULES)
    return found


def loaded_by(module: str) -> set[str]:
    """Import one module in a fresh interpreter; return which packages came with it."""
    names = run_alone(f"import json, sys, {module}; print(json.dumps([*sys.modules]))")
    return {name.split(".")[0] for name in names}


def test_all_is_sorted_and_has_no_doubles() -> None:
    assert pyrokernel.__all__ == sorted(set(pyrokernel.__all__))


@pytest.mark.parametrize("name", pyrokernel.__all__)
def test_every_listed_name_can_be_imported_and_is_documented(name: str) -> None:
    member = getattr(pyrokernel, name)
    if name != "__version__":
        assert inspect.getdoc(member)


@pytest.mark.parametrize("name", [name for name in pyrokernel.__all__ if name[0].isupper()])
def test_every_public_method_is_documented(name: str) -> None:
    for method, member in inspect.getmembers(getattr(pyrokernel, name), inspect.isfunction):
        if not method.startswith("_"):
            assert inspect.getdoc(member), f"{name}.{method}"


def test_every_exception_is_at_the_front_door() -> None:
    errors = importlib.import_module("pyrokernel.errors")
    assert {name for name in errors.__all__ if name.endswith("Error")} <= set(pyrokernel.__all__)


def test_dir_lists_names_before_they_are_fetched() -> None:
    assert set(pyrokernel.__all__) <= set(dir(pyrokernel))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'kernle'"):
        _ = pyrokernel.kernle  # type: ignore[attr-defined]


def test_type_checkers_and_interpreter_see_the_same_rooms() -> None:
    """The lazy table and the `TYPE_CHECKING` imports say the same."""
    source = (ROOT / "pyrokernel" / "__init__.py").read_text()
    declared = {}
    for room, names in re.findall(r"^    from pyrokernel\.(\S+) import (\([^)]*\)|.*)$", source, re.MULTILINE):
        declared |= dict.fromkeys(re.findall(r"\w+", names), room)
    lazy = {name: pyrokernel._ROOMS.get(name, "errors") for name in pyrokernel.__all__}
    del lazy["__version__"], lazy["errors"]
    assert declared == lazy


@pytest.mark.timeout(240)  # the first of them imports all
@pytest.mark.parametrize("module", MODULES)
def test_importing_a_module_alone_only_defines_things(module: str, changed_by: dict[str, Any]) -> None:
    assert changed_by[""] == []
    assert changed_by[module] == "[]"


@pytest.mark.parametrize(
    "module", ["pyrokernel", "pyrokernel.client.mesh", "pyrokernel.kernel.process", "pyrokernel.host.process"]
)
def test_nothing_heavy_comes_along(module: str) -> None:
    assert not HEAVY & loaded_by(module)


def test_the_front_door_loads_no_pyro() -> None:
    assert not {"Pyro5", "serpent", "cloudpickle", "pluggy"} & loaded_by("pyrokernel")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_which_process_runs_it(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    assert re.search(r'^"""(?:(?!""").)*\bRuns in\b', source, re.DOTALL), "the docstring names no process"
