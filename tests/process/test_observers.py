"""What an observer gets of every front end: answers to questions, and refusals that say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Served = Any  # tests/process/conftest.py
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def looked_at(served_to_all: Served) -> Served:
    """A mesh with something to look at; its command line is that of the account."""
    served_to_all.cli("run", "-k", "k0", "-c", "x = 41; print('hello')")
    served_to_all.cli("state", "set", "a", "[1, 2]")
    return served_to_all


@pytest.fixture
def eve(looked_at: Served) -> Cli:
    """Runs a command line as an observer."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pyrokernel", *words],
            env={**looked_at.environ, "PYROKERNEL_ACT_FOR": "eve:observer"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("ps",), "k1"),
        (("cells",), "x = 41"),
        (("logs", "k0"), "hello"),
        (("state", "ls"), "list"),
        (("state", "get", "a"), "[1, 2]"),
        (("shell", "-c", "x?"), "41"),
        (("shell", "-c", "who"), "41"),
        (("shell", "-c", "shared"), "[1, 2]"),
    ],
)
def test_an_observer_looks(eve: Cli, words: tuple[str, ...], shown: str) -> None:
    done = eve(*words)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.parametrize(
    ("words", "takes"),
    [
        (("run", "-k", "k0", "-c", "1"), "a user"),
        (("state", "set", "a", "3"), "a user"),
        (("interrupt", "k0"), "a user"),
        (("shell", "-c", "1 + 1"), "a user"),
        (("shell", "-c", "push y=1"), "a user"),
        (("stop", "k0"), "an admin"),
        (("restart", "k0"), "an admin"),
        (("audit",), "an admin"),
    ],
)
def test_an_observer_is_told_in_one_line_what_it_may_not(eve: Cli, words: tuple[str, ...], takes: str) -> None:
    done = eve(*words)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "eve is an observer here" in line]
    assert f"takes {takes}" in line
    assert "where eve was let in" in line


def test_the_shell_says_that_one_is_an_observer(looked_at: Served) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({**looked_at.environ, "PYROKERNEL_ACT_FOR": "eve:observer", "TERM": "dumb"})
        os.execv(sys.executable, [sys.executable, "-m", "pyrokernel", "shell"])
    seen = b""
    try:
        while b"you are eve, an observer" not in seen:
            seen += os.read(terminal, 4096)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
