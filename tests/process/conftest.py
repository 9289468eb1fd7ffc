"""Real processes: private meshes, and meshes that `serve` would keep running."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrokernel as pk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    """A private mesh of three kernels, shared by the tests of a module."""
    with pk.local(3) as found:
        yield found


@pytest.fixture
def kernel(mesh: pk.Mesh) -> pk.Kernel:
    """The first kernel of the shared mesh, as it is now."""
    found: pk.Kernel = mesh["k0"]
    return found


@pytest.fixture
def group(mesh: pk.Mesh) -> pk.Group:
    """All kernels of the shared mesh, as they are now."""
    found: pk.Group = mesh[:]
    return found


@pytest.fixture
def places() -> Iterator[dict[str, str]]:
    """Settings that keep a mesh's files in a short directory of their own."""
    directory = tempfile.mkdtemp(prefix="pk-", dir="/tmp")
    os.chmod(directory, 0o700)
    yield {"runtime_dir": os.path.join(directory, "r"), "state_dir": os.path.join(directory, "s")}
    shutil.rmtree(directory, ignore_errors=True)
