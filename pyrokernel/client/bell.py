"""Bell: another thread ends a wait for answers, so that more can be sent meanwhile. Runs in the caller's process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import Exchange
from pyrokernel.errors import PyrokernelError
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_RESULT, Connection, frame
from pyrokernel.wire.fanout import Answer, Fanout
from pyrokernel.wire.trust import Peer

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh


class Bell:
    """Can be rung from any thread; belongs to the exchange that hears it.

    It is a connection to nobody, so that the one loop that waits for kernels waits for it too.
    """

    def __init__(self) -> None:
        near, self._button = socket.socketpair()
        near.setblocking(False)
        self._connection = Connection(near, Peer(uid=os.getuid(), pid=os.getpid()))
        self._sound = b"".join(bytes(part) for part in frame(MSG_RESULT, codec.encode(None)))
        self._rung = False

    def ring(self) -> None:
        """Wake whoever listens. The caller holds the lock under which `hear` is called too."""
        if not self._rung:
            self._rung = True
            self._button.sendall(self._sound)

    def hear(self) -> None:
        """Note that it was heard; it can be rung again."""
        self._rung = False

    def hang(self, fanout: Fanout) -> None:
        """Have a fanout wait for the next ring."""
        fanout.adopt(self._connection, 0, self)

    def take_down(self, fanout: Fanout) -> None:
        """Leave a fanout; a ring that was not heard is kept for the next."""
        fanout.detach(self._connection)

    def close(self) -> None:
        """Let go of the sockets."""
        self._connection.close()
        self._button.close()


class OpenExchange(Exchange):
    """An exchange on the work connections whose `answers` also yield (name "", token None) when a bell rings.

    Args:
        mesh: Knows hosts and links.
        bell: Rung when there is more to send.
    """

    def __init__(self, mesh: Mesh, bell: Bell) -> None:
        super().__init__(mesh, "work", blocking=False)
        self._bell = bell
        bell.hang(self._fanout)

    def close(self) -> None:
        """Return the connections on which nothing is due, drop the others; the bell can go to another exchange."""
        self._bell.take_down(self._fanout)
        super().close()

    def _take(self, answer: Answer) -> Iterator[tuple[str, Any, Any, PyrokernelError | None]]:
        if answer.token is not self._bell:
            yield from super()._take(answer)
            return
        self._bell.take_down(self._fanout)
        self._bell.hang(self._fanout)
        yield "", None, None, None
