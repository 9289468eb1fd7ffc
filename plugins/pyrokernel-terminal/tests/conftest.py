"""A terminal server of its own for each test that asks for one, on loopback. Runs in the test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyrokernel as pk
import pytest
from terminal_serving import PLUGIN, Serve, Server

pytest.importorskip("asyncssh", reason="the package asyncssh is not installed")
pytest.importorskip("telnetlib3", reason="the package telnetlib3 is not installed")


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    with pk.local(2, plugins_dir=str(PLUGIN)) as found:
        yield found


@pytest.fixture
def kernel(mesh: pk.Mesh) -> pk.Kernel:
    found: pk.Kernel = mesh["k0"]
    return found


@pytest.fixture
def serve(mesh: pk.Mesh, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with users, each NAME or NAME:ROLE, and options."""
    servers: list[Server] = []

    def begin(*users: str, options: tuple[str, ...] = ()) -> Server:
        server = Server(mesh, tmp_path)
        servers.append(server)
        for user in users:
            name, _, role = user.partition(":")
            server.add(name, role or "user")
        server.start(*options)
        return server

    yield begin
    for server in servers:
        server.close()
    (mesh.settings.mesh_state_dir / "terminal" / "sessions.log").unlink(missing_ok=True)
