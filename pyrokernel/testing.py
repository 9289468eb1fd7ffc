"""Fixtures for authors of plugins: a private mesh with the plugin beside the test. Runs in the test process.

A test module, or the topmost conftest.py, asks for them with one line::

    pytest_plugins = ["pyrokernel.testing"]

    def test_hello(pyrokernel_mesh):
        assert pyrokernel_mesh["k0"].call("hello", "Ada") == "hello Ada"

The plugin need not be installed. Other plugins that are installed are there as well, as they will be
for users; `pyrokernel_options` may return `{"no_plugin": "..."}`. No entry point makes pytest find this
module by itself: every run of pytest in the environment would import it.

PYTEST_DONT_REWRITE: a test module may import from here before it names this as its plugin.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.launch import local
from pyrokernel.client.mesh import Mesh
from pyrokernel.messages import PluginInfo

__all__ = ["assert_loaded", "pyrokernel_fresh_mesh", "pyrokernel_mesh", "pyrokernel_options", "pyrokernel_plugins"]

KERNELS = 2
"""How many kernels a mesh of the fixtures has: two are enough to see what is shared and what is not."""


@pytest.fixture(scope="module")
def pyrokernel_plugins(request: pytest.FixtureRequest) -> list[Path]:
    """The folders whose modules named `pyrokernel_*` are plugins of the meshes; override it to name others.

    Unless overridden: the folder of the nearest pyproject.toml above the test, or `src` in it.
    """
    return [package_folder(request.path)]


@pytest.fixture(scope="module")
def pyrokernel_options() -> dict[str, Any]:
    """Settings of the meshes; override it to set others, such as `{"plugins": {"hello": {"language": "fr"}}}`."""
    return {}


@pytest.fixture(scope="module")
def pyrokernel_mesh(pyrokernel_plugins: Iterable[Path], pyrokernel_options: Mapping[str, Any]) -> Iterator[Mesh]:
    """A private mesh of two kernels, k0 and k1, with the plugins; shared by the tests of a module."""
    with _local(pyrokernel_plugins, pyrokernel_options) as mesh:
        yield mesh


@pytest.fixture
def pyrokernel_fresh_mesh(pyrokernel_plugins: Iterable[Path], pyrokernel_options: Mapping[str, Any]) -> Iterator[Mesh]:
    """As `pyrokernel_mesh`, and this test's alone: for those that kill kernels, or count from the beginning."""
    with _local(pyrokernel_plugins, pyrokernel_options) as mesh:
        yield mesh


def package_folder(test: Path) -> Path:
    """Return the folder in which the package of a test keeps its modules.

    Args:
        test: Path of the test.

    Raises:
        FileNotFoundError: No pyproject.toml lies above it.
    """
    for folder in test.resolve().parents:
        if (folder / "pyproject.toml").is_file():
            source = folder / "src"
            return source if source.is_dir() else folder
    raise FileNotFoundError(f"no pyproject.toml lies above {test}; override the fixture pyrokernel_plugins")


def assert_loaded(where: Mesh | Group | Kernel, *names: str) -> None:
    """Fail, saying what went wrong, unless plugins are loaded in every kernel and nothing of them was refused.

    Args:
        where: Whose kernels.
        names: Of the plugins, such as "hello".

    Raises:
        AssertionError: A kernel lacks one, or one has problems; the message has them.
    """
    found = {where.name: where.plugins()} if isinstance(where, Kernel) else where[:].plugins()
    problems = [line for kernel, infos in found.items() for line in _problems(kernel, infos, names)]
    assert not problems, "\n".join(problems)


def _problems(kernel: str, infos: Iterable[PluginInfo], names: Iterable[str]) -> Iterator[str]:
    by_name = {info.name: info for info in infos}
    for name in names:
        info = by_name.get(name)
        if info is None:
            there = ", ".join(by_name) or "none"
            yield f"kernel {kernel}: plugin {name!r} was not found; found: {there}"
        elif info.problems or not info.loaded:
            yield f"kernel {kernel}: plugin {name!r} ({info.where}): {'; '.join(info.problems) or 'not loaded'}"


def _local(folders: Iterable[Path], options: Mapping[str, Any]) -> Mesh:
    return local(KERNELS, **{"plugins_dir": os.pathsep.join(map(str, folders)), **options})
