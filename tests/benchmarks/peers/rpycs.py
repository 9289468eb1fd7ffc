"""rpyc: classic connections over unix sockets to forked servers."""

from __future__ import annotations

import socket
from typing import Any, Self

from peers.forking import end, fork


def serve(sock: socket.socket, others: tuple[socket.socket, ...]) -> None:
    """Serve one classic connection."""
    import rpyc

    for other in others:
        other.close()
    rpyc.classic.connect_stream(rpyc.core.SocketStream(sock)).serve_all()


class Servers:
    """Some servers, a connection to each."""

    name = "rpyc"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        import rpyc

        pairs: list[socket.socket] = []
        self._processes = []
        for _ in range(self._workers):
            ours, theirs = socket.socketpair()
            pairs.append(ours)
            self._processes.append(fork(serve, theirs, tuple(pairs)))
            theirs.close()
        self._connections = [rpyc.classic.connect_stream(rpyc.core.SocketStream(sock)) for sock in pairs]
        self._steps = [connection.modules["functions"].step for connection in self._connections]
        self._asyncs = [rpyc.async_(one) for one in self._steps]
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            end(process)

    def call(self, number: int) -> int:
        return int(self._steps[0](number))

    def call_all(self, number: int) -> list[int]:
        results = [one(number) for one in self._asyncs]
        return [result.value for result in results]

    def execute(self, source: str) -> None:
        self._connections[0].execute(source)

    def evaluate(self, expression: str) -> Any:
        return self._connections[0].eval(expression)
