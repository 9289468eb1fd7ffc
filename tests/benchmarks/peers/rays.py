"""Ray: actors on this machine, its object store between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Self

import functions

STORE_BYTES = 3_000_000_000


class Worker:
    """What an actor does."""

    def __init__(self) -> None:
        self._kept: Any = None

    def step(self, number: int) -> int:
        return functions.step(number)

    def checksum(self, array: Any) -> int:
        return functions.checksum(array)

    def keep(self, array: Any) -> None:
        self._kept = array.copy()

    def kept(self) -> Any:
        return self._kept


class Actors:
    """Some actors."""

    name = "Ray"

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_DEDUP_LOGS"] = "0"
        import ray

        self._ray = ray
        ray.init(
            num_cpus=self._workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=STORE_BYTES,
        )
        actor = ray.remote(num_cpus=0)(Worker)
        self._actors = [actor.remote() for _ in range(self._workers)]
        self._identity = ray.remote(functions.identity)
        ray.get([one.step.remote(0) for one in self._actors])
        return self

    def __exit__(self, *exception: object) -> None:
        self._ray.shutdown()

    def call(self, number: int) -> int:
        return int(self._ray.get(self._actors[0].step.remote(number)))

    def call_all(self, number: int) -> list[int]:
        return list(self._ray.get([one.step.remote(number) for one in self._actors]))

    def map(self, items: Sequence[Any]) -> list[Any]:
        return list(self._ray.get([self._identity.remote(item) for item in items]))

    def push(self, array: Any) -> int:
        return int(self._ray.get(self._actors[0].checksum.remote(self._ray.put(array))))

    def prepare(self, array: Any) -> None:
        self._ray.get(self._actors[0].keep.remote(array))

    def prepare_parts(self, array: Any) -> None:
        self._ray.get([one.keep.remote(part) for one, part in zip(self._actors, self._cut(array), strict=True)])

    def pull(self) -> Any:
        return self._ray.get(self._actors[0].kept.remote())

    def broadcast(self, array: Any) -> list[int]:
        there = self._ray.put(array)
        return list(self._ray.get([one.checksum.remote(there) for one in self._actors]))

    def scatter(self, array: Any) -> list[int]:
        parts = [self._ray.put(part) for part in self._cut(array)]
        return list(self._ray.get([one.checksum.remote(part) for one, part in zip(self._actors, parts, strict=True)]))

    def _cut(self, array: Any) -> list[Any]:
        size = len(array) // len(self._actors)
        return [array[number * size : (number + 1) * size] for number in range(len(self._actors))]

    def gather(self) -> Any:
        import numpy as np

        return np.concatenate(self._ray.get([one.kept.remote() for one in self._actors]))
