"""Real daemons on unix sockets, in threads of the test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import OBJECT, Service

from pyrokernel.wire.daemon import Daemon


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
