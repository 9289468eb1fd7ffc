"""Real daemons, at both kinds of endpoints, in threads of the test process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import OBJECT, PORTABLE, Service

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


@pytest.fixture(params=["portable"] if PORTABLE else ["unix", "portable"])
def daemon(request: pytest.FixtureRequest, private_dir: Path, service: Service) -> Iterator[Daemon]:
    with _serving(private_dir, service, portable=request.param == "portable") as served:
        yield served


@pytest.fixture
def unix_daemon(private_dir: Path, service: Service) -> Iterator[Daemon]:
    """One on a unix socket: clients that are not ours reach no other, for they cannot prove anything."""
    if PORTABLE:
        pytest.skip("portable mode has no unix sockets, which stock clients need")
    with _serving(private_dir, service, portable=False) as served:
        yield served


@contextlib.contextmanager
def _serving(private_dir: Path, service: Service, *, portable: bool) -> Iterator[Daemon]:
    served = Daemon(private_dir / "d.sock", identity={"kernel": "k", "instance": "i"}, portable=portable)
    served.register(service, OBJECT)
    served.start()
    try:
        yield served
    finally:
        service.gate.set()
        served.close()
