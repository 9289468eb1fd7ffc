"""Head and tail of a text of any length. Runs in the kernel process."""

from __future__ import annotations

import collections


class Excerpt:
    """Keeps the first and the last half of what may be kept.

    Args:
        limit: Most characters to keep.

    Attributes:
        dropped: Characters that `text` left out.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._half = max(limit // 2, 1)
        self._head: list[str] = []
        self._head_room = self._half
        self._tail: collections.deque[str] = collections.deque()
        self._tail_used = 0
        self._forgotten = 0

    def add(self, text: str) -> None:
        """Append text."""
        if self._head_room:
            self._head.append(text[: self._head_room])
            text = text[self._head_room :]
            self._head_room -= len(self._head[-1])
        if text:
            self._tail.append(text)
            self._tail_used += len(text)
            while self._tail_used - len(self._tail[0]) >= self._half:
                self._forgotten += len(self._tail[0])
                self._tail_used -= len(self._tail.popleft())

    def text(self) -> str:
        """Return what was kept, with a marker where something is missing."""
        tail = "".join(self._tail)
        excess = max(len(tail) - self._half, 0)
        self.dropped = self._forgotten + excess
        marker = f"\n... {self.dropped} characters left out ...\n" if self.dropped else ""
        return "".join(self._head) + marker + tail[excess:]
