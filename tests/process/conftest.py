"""Real processes: private meshes, and meshes that `serve` would keep running."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


class Served:
    """A mesh that `pyrokernel serve --detach` keeps running, until the test stops it.

    Args:
        places: runtime_dir and state_dir.
        arguments: Further arguments of `serve`.
        environ: Further variables.
    """

    def __init__(self, places: dict[str, str], *arguments: str, **environ: str) -> None:
        variables = {f"PYROKERNEL_{name.upper()}": value for name, value in places.items()}
        self.environ = {**os.environ, **variables, **environ}
        self.places = places
        self.serve(*arguments)

    def cli(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the command line in this mesh."""
        return subprocess.run(
            [sys.executable, "-m", "pyrokernel", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def serve(self, *arguments: str) -> None:
        """Start the host, or start it again."""
        done = self.cli("serve", "--detach", *arguments, check=False)
        assert done.returncode == 0, done.stderr

    def connect(self, **options: Any) -> pk.Mesh:
        """Reach the mesh from this process."""
        return pk.connect(**{**self.places, **options})

    def host_pid(self) -> int:
        """Return the process id of the host."""
        with self.connect() as mesh:
            (host,) = mesh.hosts()
            return int(mesh.ask_host(host, "describe")["pid"])

    def stop(self) -> None:
        """End everything, what is protected too."""
        self.cli("stop", "--force", check=False)


@pytest.fixture(scope="module")
def served_to_all() -> Iterator[Served]:
    """A detached mesh of two kernels, shared by the tests of a module."""
    directory = tempfile.mkdtemp(prefix="pk-", dir="/tmp")
    os.chmod(directory, 0o700)
    found = Served({"runtime_dir": f"{directory}/r", "state_dir": f"{directory}/s"}, "-n", "2")
    yield found
    found.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def served(places: dict[str, str]) -> Iterator[Served]:
    """A detached mesh of two kernels."""
    found = Served(places, "-n", "2")
    yield found
    found.stop()


@pytest.fixture
def served_at(places: dict[str, str]) -> Iterator[Callable[..., Served]]:
    """Start detached meshes with given settings; all are stopped."""
    started: list[Served] = []

    def start(places: dict[str, str], *arguments: str) -> Served:
        started.append(Served(places, *arguments))
        return started[-1]

    yield start
    for found in started:
        found.stop()
