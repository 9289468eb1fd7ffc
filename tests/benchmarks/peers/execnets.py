"""execnet: popen gateways, a loop over a channel in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

CALLS = """
from functions import step
for number in channel:
    channel.send(step(number))
"""

CODE = """
space = {}
for kind, text in channel:
    channel.send(exec(text, space) if kind == "execute" else eval(text, space))
"""

IDENTITY = """
from functions import identity
for item in channel:
    channel.send(identity(item))
"""

CHECKSUM = """
from functions import checksum_of_bytes
for content in channel:
    channel.send(checksum_of_bytes(content))
"""

KEPT = """
import numpy as np
kept = np.frombuffer(channel.receive())
for _ in channel:
    channel.send(kept.tobytes())
"""

PRINTING = """
import contextlib
with contextlib.redirect_stdout(channel.makefile("w")):
    for source in channel:
        exec(source, {})
        channel.send(None)
"""


class Gateways:
    """Some gateways, and on each the channels that are needed, opened at first use."""

    name = "execnet"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        import execnet

        self._group = execnet.Group()
        self.gateways = [self._group.makegateway(f"popen//id=w{number}") for number in range(self._workers)]
        self._channels: dict[str, Any] = {}
        return self

    def __exit__(self, *exception: object) -> None:
        self._group.terminate(timeout=2.0)

    def _channel(self, source: str) -> Any:
        if source not in self._channels:
            self._channels[source] = self.gateways[0].remote_exec(source)
        return self._channels[source]

    def _all(self, source: str) -> Any:
        key = "all" + source
        if key not in self._channels:
            import execnet

            channels = execnet.MultiChannel([gateway.remote_exec(source) for gateway in self.gateways])
            self._channels[key] = channels, channels.make_receive_queue()
        return self._channels[key]

    def pids(self) -> list[int]:
        return [one.remote_exec("import os; channel.send(os.getpid())").receive() for one in self.gateways]

    def call(self, number: int) -> int:
        channel = self._channel(CALLS)
        channel.send(number)
        return int(channel.receive())

    def call_all(self, number: int) -> list[int]:
        channels, queue = self._all(CALLS)
        channels.send_each(number)
        return [queue.get()[1] for _ in self.gateways]

    def execute(self, source: str) -> None:
        channel = self._channel(CODE)
        channel.send(("execute", source))
        channel.receive()

    def evaluate(self, expression: str) -> Any:
        channel = self._channel(CODE)
        channel.send(("evaluate", expression))
        return channel.receive()

    def each(self, items: Sequence[Any]) -> list[Any]:
        """Hand each item to the next gateway in turn, a few hundred under way in each."""
        channels, queue = self._all(IDENTITY)
        each, workers = list(channels), len(self.gateways)
        found: list[list[Any]] = [[] for _ in each]
        place = {id(channel): number for number, channel in enumerate(each)}
        sent = min(len(items), 256 * workers)
        for number in range(sent):
            each[number % workers].send(items[number])
        for _ in range(len(items)):
            channel, value = queue.get()
            found[place[id(channel)]].append(value)
            if sent < len(items):
                each[sent % workers].send(items[sent])
                sent += 1
        return [found[number % workers][number // workers] for number in range(len(items))]

    def push(self, array: Any) -> int:
        channel = self._channel(CHECKSUM)
        channel.send(array.tobytes())
        return int(channel.receive())

    def prepare(self, array: Any) -> None:
        self._channel(KEPT).send(array.tobytes())

    def pull(self) -> Any:
        import numpy as np

        channel = self._channel(KEPT)
        channel.send(None)
        return np.frombuffer(channel.receive(), np.float64)

    def printed(self, source: str, started: Callable[[], None]) -> list[str]:
        """Run what prints; return the lines, `started` being called when the first is here."""
        channel = self._channel(PRINTING)
        channel.send(source)
        parts = []
        while (text := channel.receive()) is not None:
            if not parts:
                started()
            parts.append(text)
        return "".join(parts).splitlines()
