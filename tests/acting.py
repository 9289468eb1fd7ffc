"""Connections in the name of somebody, as the gateway and a terminal server open them. Runs in the test process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from Pyro5 import core
from Pyro5.protocol import FLAGS_EXCEPTION, MSG_CONNECT, MSG_CONNECTFAIL
from Pyro5.serializers import serializers, serializers_by_id

from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.roles import Role
from pyrokernel.wire.connection import MSG_INVOKE, Connection, IncomingMessage, frame
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.introduction import FOR, pack, words_for
from pyrokernel.wire.proxy import dial_unix


class Somebody:
    """One connection of a user.

    Args:
        uri: `PYRO:object@./u:PATH`.
        role, user, address, of, through: Whom it acts for; `of` is the kind, "user" or "host".
        kind: "work" or "control".
        codec: "pickle5", or the name of a serializer of Pyro's.
        greeting: More words of the handshake.
    """

    def __init__(
        self,
        uri: str,
        role: Role,
        user: str = "eve",
        address: str = "10.0.0.9:7",
        kind: str = "control",
        codec: str = "pickle5",
        of: str = "user",
        through: str = "",
        **greeting: Any,
    ) -> None:
        parsed = core.URI(uri)
        self.object_id, self.codec = parsed.object, codec
        sock, peer = dial_unix(parsed.sockname, 20.0)
        sock.settimeout(20)
        self.connection = Connection(sock, peer, parsed.object)
        self.connection.vectored, self.connection.greeted = True, False
        hello: Any = {"pyrokernel": PROTOCOL_VERSION, "kind": kind, "codec": codec, "instance": "", **greeting}
        serializer = serializers["serpent" if codec == "pickle5" else codec]
        payload = serializer.dumps({"handshake": hello if codec == "pickle5" else "hello", "object": parsed.object})
        said = pack({FOR: words_for(user, role, address, of, through)})
        self.connection.send(frame(MSG_CONNECT, [payload], serializer_id=serializer.serializer_id, annotations=said))
        if codec != "pickle5":
            try:
                self.greeting = self._receive()
            except BaseException:
                self.close()
                raise

    def ask(self, method: str, *args: Any, timeout: float = 20.0, object_id: str = "", **kwargs: Any) -> Any:
        """Call a method; raise what comes back as an error."""
        if self.codec == "pickle5":
            assert not kwargs
            return ask_directly(self.connection, object_id or self.object_id, method, args, timeout)
        serializer = serializers[self.codec]
        payload = serializer.dumpsCall(object_id or self.object_id, method, args, kwargs)
        self.send_stock(serializer.serializer_id, payload)
        return self._receive()

    def send_stock(self, serializer_id: int, payload: bytes, flags: int = 0) -> None:
        """Send a request in a serializer of Pyro's."""
        self.connection.send(frame(MSG_INVOKE, [payload], serializer_id=serializer_id, flags=flags))

    def _receive(self) -> Any:
        message: IncomingMessage = self.connection.recv_message()
        value = serializers_by_id[message.serializer_id].loads(bytes(message.payload))
        if message.type == MSG_CONNECTFAIL:
            raise ConnectionRefusedError(str(value))
        if message.flags & FLAGS_EXCEPTION:
            raise value
        return value

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


@contextlib.contextmanager
def acting(uri: str, role: Role, **how: Any) -> Iterator[Somebody]:
    """Open a connection for the length of a block."""
    found = Somebody(uri, role, **how)
    try:
        yield found
    finally:
        found.close()
