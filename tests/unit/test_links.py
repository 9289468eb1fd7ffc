"""Links: connections that are returned late are closed, not kept."""

from __future__ import annotations

import os
import socket

from pyrokernel.client.links import Link
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.trust import Peer


def test_what_is_returned_to_a_closed_link_is_closed() -> None:
    link = Link("k0", "PYRO:k0", "instance")
    for for_good in (False, True):
        near, far = socket.socketpair()
        with far:
            connection = Connection(near, Peer(uid=os.getuid(), pid=os.getpid()))
            link.close(for_good=for_good)
            link.give(connection)
            assert (connection.sock.fileno() < 0) == for_good
    link.close()
