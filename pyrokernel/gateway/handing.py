"""A connection that is handed on to the kernel it is for, and hung up on from here. Runs in the gateway process."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyrokernel.errors import ProtocolError
from pyrokernel.wire import sockets
from pyrokernel.wire.connection import IncomingMessage, MessageReader
from pyrokernel.wire.handed import HAND, hand_on
from pyrokernel.wire.introduction import unpack
from pyrokernel.wire.tls import TlsSocket

if TYPE_CHECKING:
    from pyrokernel.loop import Loop

log = logging.getLogger(__name__)

_ANSWER_BYTES = 64 * 1024
_ANSWER_SECONDS = 5.0


class Handing:
    """Two sockets as of a `Pump`, of which the first goes to the process that the second leads to.

    Args:
        loop: Whose sockets these are from now on.
        visitor: Who has come; it has said no more than its first message.
        inner: To the kernel, which was asked.
        on_end: Called once, when both are closed.
        on_declined: Called with the kernel's answer, in its own bytes, where it does not take the connection: what is
            said on the two is to be pumped then.
    """

    def __init__(
        self,
        loop: Loop,
        visitor: TlsSocket,
        inner: socket.socket,
        on_end: Callable[[Handing], None],
        on_declined: Callable[[Handing, bytes], None],
    ) -> None:
        self._loop = loop
        self.visitor, self.inner = visitor, inner
        self._on_end, self._on_declined = on_end, on_declined
        self._reader = MessageReader(_ANSWER_BYTES)
        self._since = time.monotonic()
        self._is_handed = self._closed = False
        loop.watch_for(inner, selectors.EVENT_READ, self._on_answer)

    def close(self) -> None:
        """Hang up, on whoever is at both ends."""
        if self._closed:
            return
        self._closed = True
        self._loop.watch_for(self.inner, 0, self.close)
        # Not by TLS: this side's is over, where the connection was handed on.
        for sock in (self.visitor.raw, self.inner):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._on_end(self)

    def check_heard(self) -> None:
        """Hang up if the other machine does not acknowledge any more what was sent to it."""
        try:
            self.visitor.check_heard()
        except OSError:
            self.close()

    def is_stuck(self, now: float) -> bool:
        """Whether the kernel has not answered for too long."""
        return not self._is_handed and now - self._since > _ANSWER_SECONDS

    def _on_answer(self) -> None:
        try:
            message = self._reader.read(self.inner)
            if message is None:
                return
            answer = message.header + bytes(message.body)
            if not _agrees(message):
                self._closed = True  # whatever is done with the two now, is done by somebody else
                self._loop.watch_for(self.inner, 0, self.close)
                self._on_declined(self, answer)
                return
            if self.visitor.send(answer, sockets.NOW) != len(answer):
                raise BlockingIOError("the visitor takes nothing")
            hand_on(self.visitor, self.inner)
        except (OSError, ProtocolError):
            self.close()
            return
        self._is_handed = True
        self._loop.watch_for(self.inner, selectors.EVENT_READ, self.close)  # it says nothing more: that is its end


class Paper:
    """Key and certificate for kernels to which connections are handed on, made while the gateway is at work already.

    Args:
        file: Where they are to lie.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.is_here = False
        threading.Thread(target=self._make, name="pyrokernel-paper", daemon=True).start()

    def _make(self) -> None:
        try:
            from pyrokernel.certs.ephemeral import make_paper  # loads `cryptography`, which takes a while
            from pyrokernel.certs.files import write_private

            write_private(self._file, make_paper("pyrokernel"))
        except (ImportError, OSError) as error:
            log.info("no connections are handed on, calls take longer: %s", error)
        else:
            self.is_here = True


def _agrees(message: IncomingMessage) -> bool:
    return bool(unpack(message.body[: message.annotations_size]).get(HAND))
