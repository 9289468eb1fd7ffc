"""A small object for daemons under test to serve. Runs in the test process."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from pyrokernel import settings
from pyrokernel.errors import CellNotFoundError
from pyrokernel.wire import endpoints
from pyrokernel.wire.daemon import current_peer
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.proofs import Unproven

OBJECT = "test.object"

PORTABLE = settings.load().portable
"""Whether daemons under test do without unix sockets: the whole suite is to pass with PYROKERNEL_PORTABLE=1."""

stock_clients = pytest.mark.skipif(PORTABLE, reason="stock clients need unix sockets, which portable mode has not")
from_template = pytest.mark.skipif(PORTABLE, reason="portable mode has no template that kernels are forked from")


def reach(location: str) -> socket.socket:
    """Connect to where one of our own processes listens, as something else than one of our connections."""
    sock, _ = endpoints.dial(location.removeprefix("./u:"), 10)
    if isinstance(sock, Unproven):
        sock.prove(10)
    sock.settimeout(10)
    return sock


class Service:
    """What the tests call."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.marked = False

    @expose
    def mark(self) -> None:
        self.marked = True

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
