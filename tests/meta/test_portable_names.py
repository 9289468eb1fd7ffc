"""What Windows lacks is looked for before it is used, and never imported where a module begins."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pyrokernel"

NEVER_THERE = {
    "host/spawn.py",  # templates, from which kernels are forked
    "host/template.py",
    "wire/arrivals.py",  # segments
    "wire/segments.py",
}
"""Modules that nothing calls in portable mode."""

KEPT_AWAY_FROM = {
    ("again.py", "WNOHANG"): "of processes that `posix_spawn` has started",
    ("again.py", "memfd_create"): "where `CAN_FORK`",
    ("again.py", "pidfd_open"): "the AttributeError is caught",
    ("front/demo.py", "sched_getaffinity"): "the AttributeError is caught",
    ("front/nameserver.py", "AF_UNIX"): "only under systemd",
    ("host/launcher.py", "send_fds"): "to templates",
    ("host/processes.py", "kevent"): "macOS",
    ("host/processes.py", "kqueue"): "macOS",
    ("kernel/spool.py", "SIGURG"): "Linux",
    ("wire/endpoints.py", "AF_UNIX"): "where not portable",
    ("wire/handed.py", "recv_fds"): "where not portable",
    ("wire/handed.py", "send_fds"): "where not portable",
    ("wire/trust.py", "SO_PEERCRED"): "the AttributeError is caught",
}
"""What is used without a look, and why that is right."""


def lists() -> tuple[set[str], dict[str, set[str]]]:
    """Return the modules and names that `tests/lacking` takes away, without running it."""
    tree = ast.parse((ROOT / "tests" / "lacking" / "sitecustomize.py").read_text())
    modules: set[str] = set()
    names: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "MISSING_MODULES":
                modules = ast.literal_eval(node.value)
            elif node.targets[0].id == "MISSING":
                assert isinstance(node.value, ast.Dict)
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    assert isinstance(key, ast.Name)
                    names[key.id] = set(ast.literal_eval(value).split())
    return modules, names


MODULES, NAMES = lists()
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def used(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NAMES:
            yield node.value.id, node.attr, node.lineno


def looked_for(tree: ast.AST) -> set[Any]:
    """Return what is asked for with `hasattr` or `getattr`."""
    return {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr")
        and isinstance(node.args[1], ast.Constant)
    }


COMPANIONS = {
    "getpgrp": "killpg",
    "WEXITED": "waitid",
    "WNOHANG": "waitid",
    "WNOWAIT": "waitid",
    "P_ALL": "waitid",
    "WIFSIGNALED": "wait4",
    "WTERMSIG": "wait4",
    "WEXITSTATUS": "wait4",
    "MAP_ANONYMOUS": "MAP_PRIVATE",
    "ITIMER_REAL": "setitimer",
    "SIGALRM": "setitimer",
}
"""What is there wherever something else is."""


@pytest.mark.parametrize("file", [file for file in FILES if file not in NEVER_THERE])
def test_a_name_that_windows_lacks_is_looked_for_first(file: str) -> None:
    tree = ast.parse((PACKAGE / file).read_text())
    found = looked_for(tree)
    unasked = [
        f"{file}:{line}: {module}.{name}"
        for module, name, line in used(tree)
        if name in NAMES[module] and not {name, COMPANIONS.get(name)} & found and (file, name) not in KEPT_AWAY_FROM
    ]
    assert not unasked, f"see pyrokernel/systems.py: {', '.join(unasked)}"


@pytest.mark.parametrize("file", [file for file in FILES if file not in {*NEVER_THERE, "wire/connection.py"}])
def test_modules_that_windows_lacks_are_asked_of_systems_or_their_absence_is_caught(file: str) -> None:
    """Of `wire/connection.py` only connections with segments."""
    tree = ast.parse((PACKAGE / file).read_text())
    caught = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        for part in attempt.body
        for node in ast.walk(part)
    }
    plain = [node for node in ast.walk(tree) if isinstance(node, ast.Import) and id(node) not in caught]
    assert not MODULES.intersection(alias.name for node in plain for alias in node.names)
    names_of = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in caught]
    assert not MODULES.intersection(str(node.module) for node in names_of)


@pytest.mark.parametrize("file", sorted({*NEVER_THERE, "wire/connection.py"}))
def test_a_module_that_windows_loads_all_the_same_imports_them_where_they_are_used(file: str) -> None:
    tree = ast.parse((PACKAGE / file).read_text())
    plain = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert not MODULES.intersection(plain)


def test_the_lists_are_of_this_system() -> None:
    """A name that no system has would be looked for in vain."""
    for module, names in NAMES.items():
        if sys.platform == "linux":
            present = {name for name in names if hasattr(__import__(module), name)}
            assert len(present) >= len(names) / 3, "kqueue is of macOS, most of the rest of all unixes"
