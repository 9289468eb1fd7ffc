"""ipyparallel: a controller and engines on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Self

import functions


class Engines:
    """A cluster of engines with a direct view of each and of all."""

    name = "ipyparallel"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        import ipyparallel

        self._cluster = ipyparallel.Cluster(n=self._workers, log_level=logging.ERROR)
        self._client = self._cluster.start_and_connect_sync(activate=False)
        self._one, self._all = self._client[0], self._client[:]
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._cluster.stop_cluster_sync()

    def pids(self) -> list[int]:
        return list(self._all.apply_sync(os.getpid))

    def call(self, number: int) -> int:
        return int(self._one.apply_sync(functions.step, number))

    def call_all(self, number: int) -> list[int]:
        return list(self._all.apply_sync(functions.step, number))

    def execute(self, source: str) -> None:
        self._one.execute(source, block=True)

    def evaluate(self, expression: str) -> Any:
        return self._one.pull(expression, block=True)

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self._all.map_sync(functions.identity, items))

    def push(self, array: Any) -> int:
        return int(self._one.apply_sync(functions.checksum, array))

    def prepare(self, array: Any) -> None:
        self._all.push({"kept": array}, block=True)

    def pull(self) -> Any:
        return self._one.pull("kept", block=True)

    def broadcast(self, array: Any) -> list[int]:
        return list(self._all.apply_sync(functions.checksum, array))

    def printed(self, source: str, started: Any) -> list[str]:
        """Run what prints; return the lines, `started` being called when the first is here."""
        result = self._one.execute(source, silent=False, block=False)
        told = False
        while not result.ready():
            result.wait(0.001)
            if not told and result.stdout:
                told = True
                started()
        result.wait_for_output()
        return result.stdout.splitlines()
