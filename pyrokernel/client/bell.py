"""Bell: another thread ends a wait for answers, so that more can be sent meanwhile; and questions beside the wait.

Runs in the caller's process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import Exchange
from pyrokernel.client.links import Link
from pyrokernel.errors import PyrokernelError
from pyrokernel.systems import own_uid
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_RESULT, Connection, frame
from pyrokernel.wire.fanout import Answer, Fanout, Request
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
        self._connection = Connection(near, Peer(uid=own_uid(), pid=os.getpid()))
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

    Questions on control connections can be asked beside it, whose answers come likewise with the name "".

    Args:
        mesh: Knows hosts and links.
        bell: Rung when there is more to send.
    """

    def __init__(self, mesh: Mesh, bell: Bell) -> None:
        super().__init__(mesh, "work", blocking=False)
        self._bell = bell
        self._asked: set[Connection] = set()
        bell.hang(self._fanout)

    def close(self) -> None:
        """Return the connections on which nothing is due, drop the others; the bell can go to another exchange."""
        self._bell.take_down(self._fanout)
        for connection in self._asked:
            self._fanout.release(connection)
            connection.close()
        super().close()

    def send_all(self, link: Link, requests: Sequence[tuple[Request, Any]]) -> None:
        """Send requests to one kernel, each with its token, as `send` does but with one system call."""
        with self._fanout.together():
            for request, token in requests:
                self.send(link, request, token)

    def ask(self, link: Link, request: Request, token: Any) -> None:
        """Ask something on a control connection; where no answer can be had, none comes.

        Nobody waits for it: when no answer is due but this, `answers` end.
        """
        with contextlib.suppress(PyrokernelError):
            connection = link.take("control")
            self._asked.add(connection)
            self._fanout.send(connection, request, _Aside(link, token))

    def _take(self, answer: Answer) -> tuple[str, Any, Any, PyrokernelError | None] | None:
        if answer.token.__class__ is str:  # nearly all
            return super()._take(answer)
        if isinstance(answer.token, _Aside):
            self._asked.discard(answer.connection)
            if answer.connection.sock.fileno() >= 0:
                self._fanout.release(answer.connection)
                answer.token.link.give(answer.connection)
            return ("", answer.token.token, answer.value, None) if answer.error is None else None
        if answer.token is not self._bell:
            return super()._take(answer)
        self._bell.take_down(self._fanout)
        self._bell.hang(self._fanout)
        return "", None, None, None


@dataclasses.dataclass(frozen=True, eq=False)
class _Aside:
    """A question beside an exchange: whom it was asked, and its sender's token."""

    link: Link
    token: Any
