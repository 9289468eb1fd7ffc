"""Real daemons on unix sockets, in threads of the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.errors import CellNotFoundError
from pyrokernel.wire.daemon import Daemon, current_peer, expose

OBJECT = "test.object"


class Service:
    """What the tests call."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    @expose
    def echo(self, value: Any) -> Any:
        return value

    @expose
    def fail(self) -> None:
        raise CellNotFoundError(kernel="k", cell="c")

    @expose
    def wait(self) -> str:
        self.gate.wait(10)
        return "done"

    @expose
    def who(self) -> int:
        return current_peer().uid

    def hidden(self) -> str:
        return "not exposed"


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def private_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # pytest's own paths can be longer than a unix socket's address may be.
    path = tmp_path_factory.mktemp("w", numbered=True)
    path.chmod(0o700)
    return path


@pytest.fixture
def daemon(private_dir: Path, service: Service) -> Iterator[Daemon]:
    served = Daemon(private_dir / "d.sock", identity={"kernel": "k", "instance": "i"})
    served.register(service, OBJECT)
    served.start()
    try:
        yield served
    finally:
        service.gate.set()
        served.close()
