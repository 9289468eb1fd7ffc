"""The tutorial keeps its word: its blocks are those of the package, and its test runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "plugins" / "pyrokernel-hello"
TUTORIAL = (PACKAGE / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


def run_pytest(package: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=package,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{package}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_and_the_test_on_the_page_run(tmp_path: Path) -> None:
    command, test = blocks("python")
    head = "from pyrokernel import hookimpl\nfrom pyrokernel.commands import Context\n"
    head += "from pyrokernel.hookspecs import RegisterCommand\n"
    package = tmp_path / "pyrokernel-hello"
    (package / "tests").mkdir(parents=True)
    shutil.copy(PACKAGE / "pyproject.toml", package)
    (package / "pyrokernel_hello.py").write_text(head + command)
    (package / "tests" / "test_hello.py").write_text(test.replace(', language="en"', ""))
    assert "1 passed" in run_pytest(package)
    shutil.copy(PACKAGE / "pyrokernel_hello.py", package)
    (package / "tests" / "test_hello.py").write_text(test)
    assert "1 passed" in run_pytest(package)


def test_the_entry_point_on_the_page_is_that_of_the_package() -> None:
    shown = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]
    assert tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"] == shown


def test_what_the_page_names_is_in_the_module() -> None:
    module = (PACKAGE / "pyrokernel_hello.py").read_text()
    named = set(re.findall(r"`((?:pyrokernel_(?!mesh|fresh|options|plugins)|hello_)\w+)`", TUTORIAL))
    assert {"hello_count", "hello_here", "pyrokernel_add_names"} <= named
    assert not {name for name in named if name not in module}


def test_every_package_is_in_the_list_of_the_page_of_plugins() -> None:
    listed = re.findall(
        r"^\| \[(pyrokernel-\w+)\]\(\1/README.md\)", (PACKAGE.parent / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(path.parent.name for path in PACKAGE.parent.glob("*/pyproject.toml"))
