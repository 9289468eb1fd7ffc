"""Stock Pyro5: a daemon on a unix socket, one exposed object."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, Self

import functions

from peers.forking import end, fork


def serve(path: str) -> None:
    """Run a daemon with one object."""
    import Pyro5.api

    space: dict[str, Any] = {}

    @Pyro5.api.expose
    class Worker:
        def step(self, number: int) -> int:
            return functions.step(number)

        def execute(self, source: str) -> None:
            exec(source, space)

        def evaluate(self, expression: str) -> Any:
            return eval(expression, space)

    daemon = Pyro5.api.Daemon(unixsocket=path)
    daemon.register(Worker(), "worker")
    daemon.requestLoop()


class Daemons:
    """Stock daemons in processes of their own, with stock proxies to them."""

    def __init__(self, serializer: str, workers: int = 1) -> None:
        self.name = f"Pyro5 ({serializer})"
        self._serializer, self._workers = serializer, workers

    def __enter__(self) -> Self:
        import Pyro5.api

        if self._serializer == "msgpack":
            import msgpack  # noqa: F401  an extra of Pyro5's
        self._folder = tempfile.TemporaryDirectory(prefix="pk-pyro-", dir="/tmp")
        self._processes, self._proxies = [], []
        for number in range(self._workers):
            path = f"{self._folder.name}/{number}"
            self._processes.append(fork(serve, path))
            while not os.path.exists(path):
                time.sleep(0.005)
            proxy = Pyro5.api.Proxy(f"PYRO:worker@./u:{path}")
            proxy._pyroSerializer = self._serializer
            while True:
                try:
                    proxy._pyroBind()
                    break
                except Pyro5.errors.CommunicationError:
                    time.sleep(0.005)  # bound already, not yet listening
            self._proxies.append(proxy)
        return self

    def __exit__(self, *exception: object) -> None:
        for proxy in self._proxies:
            proxy._pyroRelease()
        for process in self._processes:
            end(process)
        self._folder.cleanup()

    def call(self, number: int) -> int:
        return int(self._proxies[0].step(number))

    def call_all(self, number: int) -> list[int]:
        return [proxy.step(number) for proxy in self._proxies]

    def execute(self, source: str) -> None:
        self._proxies[0].execute(source)

    def evaluate(self, expression: str) -> Any:
        return self._proxies[0].evaluate(expression)
