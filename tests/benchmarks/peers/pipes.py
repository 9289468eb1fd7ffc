"""multiprocessing: a loop over a Pipe as one writes it by hand, Pool, Manager, shared_memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Self

import functions

from peers.forking import CONTEXT, end, fork


def serve(connection: Connection, others: Sequence[Connection]) -> None:
    """Answer (name, arguments) until the other side closes: the loop of a worker."""
    for other in others:
        other.close()
    space: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    segments: dict[str, SharedMemory] = {}

    def attach(name: str) -> Any:
        import numpy as np

        if name not in segments:
            segments[name] = SharedMemory(name)
        return np.frombuffer(segments[name].buf, np.float64)

    known = {
        "step": functions.step,
        "execute": lambda source: exec(source, space),
        "evaluate": lambda expression: eval(expression, space),
        "checksum": functions.checksum,
        "checksum_of_shared": lambda name, begin, end: functions.checksum(attach(name)[begin:end]),
        "keep": lambda array: kept.__setitem__("array", array),
        "kept": lambda: kept["array"],
        "kept_to_shared": lambda name, begin, end: attach(name).__setitem__(slice(begin, end), kept["array"]),
    }
    while True:
        name, args = connection.recv()
        connection.send(known[name](*args))


class Loops:
    """One worker or several, each behind a Pipe."""

    name = "multiprocessing Pipe"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        self._ours: list[Connection] = []
        self._processes = []
        for _ in range(self._workers):
            ours, theirs = CONTEXT.Pipe()
            self._ours.append(ours)
            self._processes.append(fork(serve, theirs, tuple(self._ours)))
            theirs.close()
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in self._ours:
            connection.close()
        for process in self._processes:
            end(process)

    def ask(self, name: str, *args: Any) -> Any:
        """Have the first worker do something."""
        self._ours[0].send((name, args))
        return self._ours[0].recv()

    def ask_all(self, name: str, *args: Any) -> list[Any]:
        """Have all workers do something."""
        for connection in self._ours:
            connection.send((name, args))
        return [connection.recv() for connection in self._ours]

    def pids(self) -> list[int]:
        return [process.pid or 0 for process in self._processes]

    def call(self, number: int) -> int:
        self._ours[0].send(("step", (number,)))
        return int(self._ours[0].recv())

    def call_all(self, number: int) -> list[int]:
        return self.ask_all("step", number)

    def execute(self, source: str) -> None:
        self.ask("execute", source)

    def evaluate(self, expression: str) -> Any:
        return self.ask("evaluate", expression)

    def push(self, array: Any) -> int:
        return int(self.ask("checksum", array))

    def prepare(self, array: Any) -> None:
        self.ask("keep", array)

    def pull(self) -> Any:
        return self.ask("kept")

    def broadcast(self, array: Any) -> list[int]:
        return self.ask_all("checksum", array)


class Shared(Loops):
    """Pipe loops that pass the names of shared memory, made once and used again, filled by hand."""

    name = "shared_memory by hand"

    def __init__(self, workers: int, size: int) -> None:
        super().__init__(workers)
        self._size = size

    def __enter__(self) -> Self:
        import numpy as np

        multiprocessing.resource_tracker.ensure_running()
        self._segment = SharedMemory(create=True, size=self._size)
        self._array = np.frombuffer(self._segment.buf, np.float64)
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        del self._array
        self._segment.close()
        self._segment.unlink()

    def push(self, array: Any) -> int:
        self._array[: len(array)] = array
        return int(self.ask("checksum_of_shared", self._segment.name, 0, len(array)))

    def pull(self) -> Any:
        self.ask("kept_to_shared", self._segment.name, 0, self._size // 8)
        return self._array.copy()

    def broadcast(self, array: Any) -> list[int]:
        self._array[: len(array)] = array
        return self.ask_all("checksum_of_shared", self._segment.name, 0, len(array))

    def scatter(self, array: Any) -> list[int]:
        self._array[: len(array)] = array
        size = len(array) // len(self._ours)
        for number, connection in enumerate(self._ours):
            begin = number * size
            connection.send(("checksum_of_shared", (self._segment.name, begin, begin + size)))
        return [connection.recv() for connection in self._ours]

    def prepare_parts(self, array: Any) -> None:
        size = len(array) // len(self._ours)
        for number, connection in enumerate(self._ours):
            connection.send(("keep", (array[number * size : (number + 1) * size],)))
            connection.recv()

    def gather(self) -> Any:
        size = self._size // 8 // len(self._ours)
        for number, connection in enumerate(self._ours):
            connection.send(("kept_to_shared", (self._segment.name, number * size, (number + 1) * size)))
        for connection in self._ours:
            connection.recv()
        return self._array.copy()


class Pool:
    """multiprocessing.Pool with forked workers."""

    name = "multiprocessing Pool"

    def __init__(self, workers: int = 4, chunk: int | None = None) -> None:
        self._workers, self._chunk = workers, chunk

    def __enter__(self) -> Self:
        self._pool = CONTEXT.Pool(self._workers)
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def call(self, number: int) -> int:
        return self._pool.apply(functions.step, (number,))

    def map(self, items: Sequence[Any], chunk: int | None = None) -> list[Any]:
        return self._pool.map(functions.identity, items, chunk)

    def each(self, items: Sequence[Any]) -> list[Any]:
        return self.map(items, 1)


class Served:
    """What the Manager's process serves."""

    def step(self, number: int) -> int:
        """Return the next number."""
        return functions.step(number)


class OwnManager(BaseManager):
    """A manager of our own class, as the manual has it."""


OwnManager.register("Served", Served)


class Manager:
    """A method of an object that a multiprocessing.Manager serves."""

    name = "multiprocessing Manager"

    def __enter__(self) -> Self:
        self._manager = OwnManager(ctx=CONTEXT)
        self._manager.start()
        self._served: Any = self._manager.Served()  # type: ignore[attr-defined]  # registered above
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.shutdown()

    def call(self, number: int) -> int:
        return int(self._served.step(number))
