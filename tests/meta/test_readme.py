"""The README keeps its word: its commands are there to be run, and its tour runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TOUR = "## A tour in ten lines"


def blocks(section: str, language: str) -> list[str]:
    """Return the fenced blocks of one language in one section of the README."""
    _, heading, rest = README.partition(section + "\n")
    assert heading, f"README.md has no section {section!r}"
    body = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)


def promised(code: str) -> list[str]:
    """Return what the tour says it prints: the text after `# ->`."""
    return re.findall(r"print\(.*# -> (.*)$", code, re.MULTILINE)


@pytest.mark.slow
def test_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    code = "\n".join(blocks(TOUR, "python"))
    mine = {"PYROKERNEL_RUNTIME_DIR": str(tmp_path / "run"), "PYROKERNEL_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, **mine, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == promised(code)


def test_the_tour_is_short_and_says_what_it_prints() -> None:
    code = "\n".join(blocks(TOUR, "python"))
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith(("#", "import "))]
    assert len(lines) <= 10
    assert promised(code)
    compile(code, "README.md", "exec")


def test_two_commands_are_all_there_is_to_do() -> None:
    demo, tests = (line for block in blocks("## Try it", "sh") for line in block.splitlines())
    assert demo.startswith("python3 -m venv")
    assert demo.endswith("pyrokernel demo")
    assert tests.startswith("python3 -m venv")
    assert tests.endswith("-m pytest")


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    """`.ci/run` takes the line out of the README by a pattern; it must find exactly one."""
    script = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -m1 -E '([^']+)' \"\$repo/README.md\"", script)
    assert pattern
    assert len(re.findall(pattern[1], README, re.MULTILINE)) == 1


def test_the_readme_claims_the_python_versions_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r":: (3\.\d+)", " ".join(project["classifiers"]))
    assert project["requires-python"] == f">={versions[0]}"
    assert f"{versions[0]} to {versions[-1]}" in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
