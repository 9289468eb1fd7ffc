"""Dask distributed: a scheduler and workers on this machine, one thread each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Self

import functions


class Workers:
    """A local cluster."""

    name = "Dask"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        import distributed

        self._cluster = distributed.LocalCluster(
            n_workers=self._workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            memory_limit=0,
        )
        self._client = distributed.Client(self._cluster)
        self._names = list(self._client.scheduler_info(n_workers=-1)["workers"])
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._cluster.close()

    def call(self, number: int) -> int:
        return int(self._client.submit(functions.step, number, pure=False, workers=self._names[:1]).result())

    def call_all(self, number: int) -> list[int]:
        return list(self._client.run(functions.step, number).values())

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self._client.gather(self._client.map(functions.identity, items, pure=False)))

    def push(self, array: Any) -> int:
        there = self._client.scatter(array, workers=self._names[:1], direct=True, hash=False)
        return int(self._client.submit(functions.checksum, there, pure=False).result())

    def prepare(self, array: Any) -> None:
        self._kept = self._client.scatter(array, workers=self._names[:1], direct=True, hash=False)

    def prepare_parts(self, array: Any) -> None:
        size = len(array) // len(self._names)
        self._parts = [
            self._client.scatter(array[n * size : (n + 1) * size], workers=[name], direct=True, hash=False)
            for n, name in enumerate(self._names)
        ]

    def pull(self) -> Any:
        return self._client.gather(self._kept, direct=True)

    def broadcast(self, array: Any) -> list[int]:
        there = self._client.scatter(array, broadcast=True, direct=True, hash=False)
        sums = [
            self._client.submit(functions.checksum, there, pure=False, workers=[name], allow_other_workers=False)
            for name in self._names
        ]
        return list(self._client.gather(sums))

    def scatter(self, array: Any) -> list[int]:
        size = len(array) // len(self._names)
        sums = []
        for number, name in enumerate(self._names):
            part = array[number * size : (number + 1) * size]
            there = self._client.scatter(part, workers=[name], direct=True, hash=False)
            sums.append(self._client.submit(functions.checksum, there, pure=False, workers=[name]))
        return list(self._client.gather(sums))

    def gather(self) -> Any:
        import numpy as np

        return np.concatenate(self._client.gather(self._parts, direct=True))
