"""Our messages over TCP on loopback: connection and codec as between client and kernel, without the kernel.

Kernels listen on unix sockets only, in this version. This is what carries their messages, on another socket, by the
path that is taken where the peer is not on this machine.
"""

from __future__ import annotations

import os
from typing import Any, Self

import functions
from floor import tcp_pair
from measuring import OURS
from peers.forking import end, fork

from pyrokernel.roles import Role
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import MSG_INVOKE, MSG_RESULT, Connection, frame
from pyrokernel.wire.trust import Peer


def serve(sock: Any, other: Any) -> None:
    """Answer ("push", array) with its checksum, ("keep", array) with None, ("pull", None) with the array."""
    other.close()
    connection = _connection(sock)
    kept: Any = None
    while True:
        message = connection.recv_message()
        word, packed = codec.decode(message.payload)
        array = packed.load()
        if word == "push":
            answer: Any = functions.checksum(array)
        elif word == "keep":
            answer = None
            kept = array
        else:
            answer = Packed.dump(kept)
        connection.send(frame(MSG_RESULT, codec.encode(answer), seq=message.seq))


def _connection(sock: Any) -> Connection:
    return Connection(sock, Peer(uid=os.getuid(), role=Role.ADMIN))


class Worker:
    """A process at the other end of a TCP connection."""

    name = OURS

    def __enter__(self) -> Self:
        ours, theirs = tcp_pair()
        self._process = fork(serve, theirs, ours)
        theirs.close()
        self._connection = _connection(ours)
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        end(self._process)

    def _ask(self, word: str, array: Any) -> Any:
        self._connection.send(frame(MSG_INVOKE, codec.encode((word, Packed.dump(array)))))
        return codec.decode(self._connection.recv_message().payload)

    def push(self, array: Any) -> int:
        return int(self._ask("push", array))

    def prepare(self, array: Any) -> None:
        self._ask("keep", array)

    def pull(self) -> Any:
        return self._ask("pull", None).load()
