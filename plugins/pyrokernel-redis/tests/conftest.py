"""A Redis of its own for each test, on a unix socket. Runs in the test process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

SERVER = shutil.which("redis-server") or shutil.which("valkey-server") or ""

redis = pytest.importorskip("redis", reason="the package redis is not installed")


class Server:
    """A redis-server in a folder.

    Args:
        folder: Where its socket and its files are.
        options: Of its configuration, as words of a command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.client = redis.Redis(unix_socket_path=str(self.socket), protocol=2)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it had kept; return when it answers."""
        command = [SERVER, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen(
            [*command, *self.options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.answers)

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """End it as a crash would, by its id."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def names(self) -> list[str]:
        """Return the names of all keys."""
        return sorted(key.decode() for key in self.client.keys("*"))


def make(*options: str) -> Iterator[Server]:
    if not SERVER:
        pytest.skip("redis-server is not installed")
    # Not in tmp_path: the path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="pk-redis-") as folder:
        server = Server(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
            server.client.close()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One that all tests may use which leave it running; each takes a prefix of its own."""
    yield from make("--appendonly", "yes")


@pytest.fixture
def server() -> Iterator[Server]:
    """One that keeps what it is told, for tests that kill it."""
    yield from make("--appendonly", "yes")


@pytest.fixture
def forgetful_server() -> Iterator[Server]:
    """One that keeps nothing."""
    yield from make("--appendonly", "no")


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Return a prefix that no other test has."""
    return f"{request.node.name}:"
