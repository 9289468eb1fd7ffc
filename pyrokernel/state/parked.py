"""Requests that wait for something to be written: watches, locks, queues. Runs in the state process."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from pyrokernel.stores import Row


@dataclasses.dataclass(eq=False)
class Wait:
    """A request that could not be answered yet.

    Attributes:
        space, prefix: A write to such a key may change that.
        attempt: Returns the answer, or None to wait on; given the revision before the writes that may have changed
            that, of which this wait has missed none.
        give_up: Returns the answer for when the time is over.
        deadline: On the monotonic clock.
    """

    space: str
    prefix: str
    attempt: Callable[[int], Any]
    give_up: Callable[[], Any]
    deadline: float
    number: int = 0


class Parked:
    """Everybody who waits, in the order in which they came."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_space: dict[str, dict[Wait, Any]] = {}
        self._next = float("inf")

    def add(self, wait: Wait, token: Any) -> None:
        """Let a request wait; `token` says whose it is."""
        wait.number = wait.number or next(self._numbers)
        self._by_space.setdefault(wait.space, {})[wait] = token
        self._next = min(self._next, wait.deadline)

    def remove(self, wait: Wait) -> None:
        """Let a request wait no longer: it is answered, or nobody is there to be."""
        waiting = self._by_space.get(wait.space, {})
        waiting.pop(wait, None)
        if not waiting:
            self._by_space.pop(wait.space, None)

    def concerned(self, rows: Iterable[Row]) -> list[tuple[Wait, Any]]:
        """Return who may be answered after these writes, first come first."""
        keys: dict[str, set[str]] = {}
        for row in rows:
            if row.space in self._by_space:
                keys.setdefault(row.space, set()).add(row.key)
        found = [
            (wait, token)
            for space, written in keys.items()
            for wait, token in self._by_space[space].items()
            if any(key.startswith(wait.prefix) for key in written)
        ]
        return sorted(found, key=lambda pair: pair[0].number)

    def next_deadline(self) -> float:
        """Return a moment before which nobody's time is over; infinity when nobody waits."""
        return self._next

    def late(self, now: float) -> list[tuple[Wait, Any]]:
        """Take out those whose time is over."""
        over = [pair for waiting in self._by_space.values() for pair in waiting.items() if pair[0].deadline <= now]
        for wait, _ in over:
            self.remove(wait)
        left = (wait.deadline for waiting in self._by_space.values() for wait in waiting)
        self._next = min(left, default=float("inf"))
        return over

    def __len__(self) -> int:
        return sum(map(len, self._by_space.values()))
