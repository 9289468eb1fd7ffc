"""An ear at a host: one long request that is answered when a kernel there dies. Runs in the caller's process.

Sockets do not tell of every death: a child that C code forked can hold one open. So whoever
waits long listens to the hosts too. An ear is kept from one wait to the next with its
request under way; else each wait would leave a thread of the host waiting behind it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

from pyrokernel.client.links import LONG_POLL_SECONDS, Link, ask
from pyrokernel.messages import HOST_OBJECT, Death
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.fanout import Fanout, Request


def obituary(host: Link, instance: str, wait: float, timeout: float = 2.0) -> Death | None:
    """Ask a host for the death of an instance; None if it does not notice one within `wait` seconds.

    Raises:
        KernelUnreachableError: The host did not answer within `timeout` seconds.
    """
    found = ask(host, Request(HOST_OBJECT, "obituary", [instance, wait]), timeout)
    return Death.from_wire(found) if found else None


class Ear:
    """Listens to one host; belongs to one wait at a time.

    Args:
        host: The way to it.
    """

    def __init__(self, host: Link) -> None:
        self.host = host
        self.pid = os.getpid()
        self._connection: Connection | None = None
        self._seq = 0
        self._after = -1

    def listen(self, fanout: Fanout, token: Hashable) -> None:
        """Have a fanout wait for the next announcement.

        Raises:
            KernelUnreachableError: The host does not listen any more.
        """
        if self._connection is not None and self._connection.sock.fileno() >= 0:
            fanout.adopt(self._connection, self._seq, token)
            return
        self._connection = self.host.take("control")
        self._ask(fanout, token)

    def hear(self, fanout: Fanout, token: Hashable, answer: dict[str, Any]) -> list[Death]:
        """Take an announcement, ask for the next, and return who died."""
        self._after = int(answer["next"])
        self._ask(fanout, token)
        return [Death.from_wire(wire) for wire in answer["deaths"]]

    def leave(self, fanout: Fanout) -> bool:
        """Keep the request under way for the next wait; False if the connection is gone."""
        return self._connection is not None and fanout.detach(self._connection)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, fanout: Fanout, token: Hashable) -> None:
        assert self._connection is not None
        timeout = LONG_POLL_SECONDS if self._after >= 0 else 0.0  # first, where its count stands
        request = Request(HOST_OBJECT, "deaths", [self._after, timeout])
        self._seq = request.seq
        fanout.send(self._connection, request, token)
