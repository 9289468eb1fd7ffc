"""What the main thread of a kernel does about connections, without a kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import types
from typing import cast

import pytest

from pyrokernel.kernel.workloop import WorkLoop
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.trust import Peer


@pytest.mark.parametrize("first", ["client", "gateway"])
def test_a_connection_on_which_client_and_gateway_have_both_hung_up_is_lost_once(first: str) -> None:
    """Such as while a cell runs: after it both ends are found in one look, in the order in which they came."""
    ours, client = socket.socketpair()
    inner, gateway = socket.socketpair()
    connection = Connection(ours, Peer(uid=os.getuid()))
    connection.inner = inner
    lost: list[Connection] = []

    def lose(found: Connection, error: Exception) -> None:
        lost.append(found)
        found.close()

    loop = WorkLoop(lambda: None, lambda: False, lambda: float(len(lost)), idle_stop=1.0)
    with contextlib.closing(loop._selector), loop._wake_out, loop._wake_in:
        loop.adopt(connection)
        loop._take_arrivals()  # both are watched from here on
        for end in (client, gateway) if first == "client" else (gateway, client):
            end.close()
        assert loop.run(cast(Daemon, types.SimpleNamespace(lose=lose))) == "idle for 1 s"
    assert lost == [connection]
    assert not loop.connections
