"""Backlog: the items of a job that no kernel has now, as spans in order. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque


@dataclasses.dataclass(slots=True)
class Span:
    """Consecutive items of a job, by their indices.

    Attributes:
        first, stop: The first of them, and the one behind the last.
        retries: How often they may be sent again when their kernel has died.
    """

    first: int
    stop: int
    retries: int = 0

    def __len__(self) -> int:
        return self.stop - self.first


class Backlog:
    """What waits to be sent, the earliest items first; its length is how many items that is."""

    def __init__(self) -> None:
        self._spans: deque[Span] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, span: Span, *, join: bool) -> None:
        """Take the newest items of a job.

        Args:
            span: Which.
            join: Whether they may travel together with those that came before them.
        """
        last = self._spans[-1] if self._spans else None
        if join and last is not None and last.stop == span.first and last.retries == span.retries:
            last.stop = span.stop
        else:
            self._spans.append(span)
        self._count += len(span)

    def take(self, size: int) -> Span:
        """Return at most so many of the first items, all from one span; there are some."""
        found = self._spans[0]
        stop = found.first + size
        if found.stop <= stop:
            self._spans.popleft()
            size = len(found)
        else:
            found, rest = Span(found.first, stop, found.retries), found
            rest.first = stop
        self._count -= size
        return found

    def put_back(self, span: Span) -> None:
        """Take items back that were taken; they stay a span of their own, before those that follow them."""
        before = itertools.takewhile(lambda other: other.first < span.first, self._spans)
        self._spans.insert(sum(1 for _ in before), span)
        self._count += len(span)

    def clear(self) -> None:
        """Forget all of it."""
        self._spans.clear()
        self._count = 0
