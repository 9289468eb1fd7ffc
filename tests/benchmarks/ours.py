"""pyrokernel, with the interface of the peers' adapters (see peers/). Runs in the process of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import functions
from measuring import OURS

import pyrokernel as pk


class Kernels:
    """A private mesh of some kernels, in which the functions are imported."""

    name = OURS

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        self.mesh = pk.local(self._workers)
        self.group = self.mesh[:]
        self.one = self.mesh[0]
        self.group.execute("from functions import *")
        return self

    def __exit__(self, *exception: object) -> None:
        self.mesh.close()

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [info.pid for info in self.mesh.ps()]

    def call(self, number: int) -> int:
        return int(self.one.call("step", number))

    def call_all(self, number: int) -> list[int]:
        return list(self.group.call("step", number).values())

    def execute(self, source: str) -> None:
        self.one.execute(source)

    def evaluate(self, expression: str) -> Any:
        return self.one.execute(expression).result

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self.group.map("identity", items))

    def each(self, items: Sequence[Any]) -> list[Any]:
        return list(self.group.map("identity", items, chunk=1))

    def push(self, array: Any) -> int:
        self.one.push(array=array)
        return int(self.one.execute("checksum(array)").result)

    def push_copied(self, array: Any) -> int:
        """Push an array, of which the kernel makes a copy of its own."""
        self.one.push(array=array)
        return int(self.one.execute("array = array.copy(); checksum(array)").result)

    def prepare(self, array: Any) -> None:
        self.one.push(kept=array)
        self.one.execute("kept = kept.copy()")

    def pull(self) -> Any:
        return self.one.pull("kept")

    def broadcast(self, array: Any) -> list[int]:
        self.group.push(array=array)
        return [reply.result for reply in self.group.execute("checksum(array)").values()]

    def scatter(self, array: Any) -> list[int]:
        self.group.scatter("part", array)
        return [reply.result for reply in self.group.execute("checksum(part)").values()]

    def prepare_parts(self, array: Any) -> None:
        self.group.scatter("kept", array)
        self.group.execute("kept = kept.copy()")

    def gather(self) -> Any:
        return self.group.gather("kept")

    def complete(self, code: str) -> list[str]:
        """Return the matches at the end of a text."""
        return list(self.one.complete(code).matches)

    def begin(self, source: str) -> pk.Cell:
        """Have something run, and return when it has begun."""
        cell = self.one.submit(source)
        while self.one.describe()["running"] is None:
            pass
        return cell

    def wait(self, cell: pk.Cell) -> None:
        """Wait for the end of what was begun."""
        cell.reply()

    def printed(self, source: str, started: Callable[[], None]) -> list[str]:
        """Run what prints; return the lines, `started` being called when the first is here."""
        parts: list[str] = []
        for event in self.one.submit(source).follow():
            if event.kind == "output":
                if not parts:
                    started()
                parts.append(event.data["text"])
        return "".join(parts).splitlines()


def right_sum(array: Any) -> Callable[[int, Any], bool]:
    """Return a check: whether a checksum is that of an array."""
    expected = functions.checksum(array)
    return lambda _, found: found == expected
