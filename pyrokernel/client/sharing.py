"""Sharing: which kernel gets which items of a job, and what is taken back of whom. Runs in the caller's process.

Decides, and does no I/O; whoever calls it holds the lock of the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from pyrokernel.client.backlog import Backlog, Span
from pyrokernel.client.chunks import Chunk, Line
from pyrokernel.client.links import Link
from pyrokernel.client.pace import Pace

LONG_SECONDS = 0.05
"""What a chunk has not begun after so long it gives back: its results are waited for, and others may be idle."""

WORTH_SECONDS = 0.002
"""A kernel that has so much to do gives something of it to one that has nothing."""


class Sharing:
    """The items of a job that have no result: what waits, and what each kernel has.

    Args:
        links: The ways to the kernels.
        pace: What calls have taken.
        whole: Whether chunks stay as they were cut.
        make: Makes the chunk of a span.

    Attributes:
        backlog: What waits.
        lines: What each life of a kernel has, also of those that are lost.
        alive: The lines of those that get more, by kernel name.
        look: When to ask `level` again, as a monotonic moment.
    """

    def __init__(self, links: Iterable[Link], pace: Pace, *, whole: bool, make: Callable[[Span], Chunk]) -> None:
        self.backlog = Backlog()
        self.lines: list[Line] = []
        self.alive: dict[str, Line] = {}
        self.look = math.inf
        self._pace, self._whole, self._make = pace, whole, make
        self._lost: set[str] = set()
        self._flying = 0
        for link in links:
            self.welcome(link)

    def welcome(self, link: Link) -> None:
        """Share with another life of a kernel, unless it was lost before."""
        if link.instance not in self._lost:
            self.alive[link.name] = line = Line(link)
            self.lines.append(line)

    def lose(self, line: Line) -> None:
        """Do without one."""
        self._lost.add(line.link.instance)
        if self.alive.get(line.link.name) is line:
            del self.alive[line.link.name]

    def lacking(self, line: Line) -> int:
        """Return how many chunks to send to a kernel, should there be as many."""
        count, ahead = len(line.chunks), self._pace.ahead(line)
        # One that has not read yet what was taken back of it is at something else, for who knows how long. And of many
        # small chunks it gets several at a time: while it has half of them, it is not idle.
        if line.withdrawn or (count and count > ahead // 2):
            return 0
        return ahead - count

    def deal(self, line: Line, most: int, now: float) -> list[Chunk]:
        """Give a kernel its next chunks, at most so many, as long as there is something left for it."""
        found: list[Chunk] = []
        while len(found) < most and (chunk := self._next(line, now)):
            found.append(chunk)
        return found

    def _next(self, line: Line, now: float) -> Chunk | None:
        left = len(self.backlog)
        if not left:
            if not line.chunks:
                self.look = now  # others may have something for it
            return None
        # Its share of all that has no result, of which it may have some already.
        share = left if self._whole else -(-(self._flying + left) // max(1, len(self.alive))) - line.items
        if share < 1 and line.chunks:
            return None
        chunk = self._make(self.backlog.take(self._pace.size(line, share, left)))
        self._flying += len(chunk.items)
        if not line.chunks:
            self._come_first(chunk, now)
        line.append(chunk)
        return chunk

    def leave(self, chunk: Chunk, now: float) -> bool:
        """Strike a chunk off what its kernel has; False when it was taken back whole before."""
        chunks = chunk.line.chunks
        first = chunks[0] if chunks else None
        if not chunk.line.remove(chunk):
            return False
        self._flying -= len(chunk.items)
        if first is chunk and chunks:
            self._come_first(chunks[0], now)
        return True

    def level(self, now: float) -> list[Chunk]:
        """Return the chunks whose kernels are to give back what they have not begun; from now on they are asked.

        Those that are long at work, so that their results come and the rest is free; and as many as there are kernels
        that have nothing.
        """
        if now < self.look:
            return []
        self.look = math.inf
        found = []
        for first in [line.chunks[0] for line in self.lines if line.chunks]:
            if not first.asked and self._may_shorten(first):
                if now - first.since >= LONG_SECONDS:
                    first.asked = True
                    found.append(first)
                else:
                    self.look = min(self.look, first.since + LONG_SECONDS)
        idle = 0 if self.backlog else sum(line.idle for line in self.alive.values())
        idle -= sum(chunk.asked for line in self.lines for chunk in line.chunks)
        while idle > 0 and (chunk := self._richest(now)) is not None:
            chunk.asked = True
            found.append(chunk)
            idle -= 1
        return found

    def regain(self, chunk: Chunk, kept: int, asked: float, now: float) -> None:
        """Take what a kernel has given back of a chunk.

        Args:
            chunk: Which.
            kept: How many items it keeps; -1 where the kernel could not say.
            asked: When it was asked, as a monotonic moment.
            now: The moment.
        """
        chunk.asked = False
        line = chunk.line
        if chunk not in line.chunks:
            return  # its results were here first
        if kept < 0:
            self._come_first(chunk, now)
            return
        chunk.begun = kept > 0
        if kept and asked > chunk.since:
            self._pace.note(line, kept, asked - chunk.since, chunk.size_bytes)
        if kept < len(chunk.items):
            self.backlog.put_back(chunk.span(kept))
            if kept:
                self._flying -= len(chunk.items) - kept
                line.items -= len(chunk.items) - kept
                del chunk.items[kept:]
            else:
                self.leave(chunk, now)
                line.withdrawn += 1

    def _richest(self, now: float) -> Chunk | None:
        """Return the chunk to take something back of: the last one of the kernel that has most to do."""
        most, found = 0.0, None
        for line in self.lines:
            last = line.chunks[-1] if line.chunks else None
            if last is None or last.asked or last.begun:
                continue
            expected, lasts = self._pace.seconds(line, line.items), now - line.chunks[0].since
            if last is line.chunks[0] and max(lasts, expected) < WORTH_SECONDS:
                self.look = min(self.look, last.since + WORTH_SECONDS)
            elif max(expected - lasts, lasts) > most:
                most, found = max(expected - lasts, lasts), last
        return found

    def _come_first(self, chunk: Chunk, now: float) -> None:
        """Note that nothing of the job is before a chunk in its kernel."""
        chunk.since = now
        if self._may_shorten(chunk):
            self.look = min(self.look, now + LONG_SECONDS)

    def _may_shorten(self, chunk: Chunk) -> bool:
        return not self._whole and len(chunk.items) > 1 and not chunk.begun
