"""An ear at a host: one long request that is answered when a kernel there dies. Runs in the caller's process.

Sockets do not tell of every death: a child that C code forked can hold one open. So whoever
waits long listens to the hosts too. An ear is kept from one wait to the next with its
request under way; else each wait would leave a thread of the host waiting behind it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

from pyrokernel.client.links import Link, ask
from pyrokernel.messages import HOST_OBJECT, Death
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.fanout import Fanout, Request

_LONG_POLL_SECONDS = 25.0
_ASK_SECONDS = 2.0


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

    def ask_about(self, instance: str) -> Death | None:
        """Return the death of an instance if the host knows of it by now."""
        found = ask(self.host, Request(HOST_OBJECT, "obituary", [instance, 0.0]), _ASK_SECONDS)
        return Death.from_wire(found) if found else None

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
        timeout = _LONG_POLL_SECONDS if self._after >= 0 else 0.0  # first, where its count stands
        request = Request(HOST_OBJECT, "deaths", [self._after, timeout])
        self._seq = request.seq
        fanout.send(self._connection, request, token)
