"""Watch: the writes to some keys, in order, none missing. Runs in the caller's process."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any

from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.errors import StateCompactedError, StateKeyError, StateTypeError
from pyrokernel.messages import StateChange

if TYPE_CHECKING:
    from pyrokernel.client.state_link import StateLink


class Change(StateChange):
    """One write to a key, with the way to its value."""

    def of(self, link: StateLink, space: str) -> Change:
        """Say where it comes from; returns itself."""
        # Not a field: it never travels.
        object.__setattr__(self, "_way", (link, space))
        return self

    @property
    def value(self) -> Any:
        """The value that was written.

        Raises:
            StateKeyError: The key was deleted, or the value is forgotten.
            StateValueError: It cannot be loaded here, or its author is not trusted.
        """
        if self.op != "set":
            raise StateKeyError(f"{self.key!r} was deleted at revision {self.revision}", key=self.key)
        link, space = self.__dict__["_way"]
        found: Any = [self.revision, self.kind, self.type, self.author, self.packed]
        parts: Any = link.fetch(found) if self.packed is not None else None
        if parts is None:
            found = link.ask("get_at", space, self.key, self.revision)
            parts = link.fetch(found) if found is not None else None
        if found is None or parts is None:
            raise StateKeyError(f"version {self.revision} of {self.key!r} is forgotten", key=self.key)
        return link.decode(self.key, found, parts)

    def __repr__(self) -> str:
        what = f"= {self.summary}" if self.op == "set" else self.op + "d"
        by = f"{self.author} ({self.via})" if self.via else self.author
        return f"<Change {self.revision} {self.key!r} {what}{' by ' + by if by else ''}>"


class Watch:
    """The writes to keys with a prefix; iterate for them, as they come.

    The next batch is asked for when the last one has been taken: who is slow costs the service nothing, and
    finds everything there, as long as the service keeps it.

    Args:
        link: The way to the service.
        space, prefix: Which keys.
        since: Revision after which to begin; None for now.

    Attributes:
        revision: That of the last write that was handed out, or before which there was none: to go on from later.
    """

    def __init__(self, link: StateLink, space: str, prefix: str, since: int | None) -> None:
        self._link, self._space, self._prefix = link, space, prefix
        self._ready: collections.deque[Change] = collections.deque()
        self._next = 0
        start = link.ask("watch", space, prefix)
        self._store = start["store"]
        if since is not None and not (type(since) is int and 0 <= since <= start["next"]):
            raise StateTypeError(f"since={since!r} is no revision that there has been; the newest is {start['next']}")
        self.revision = self._next = start["next"] if since is None else since
        self._closed = False

    def get(self, timeout: float | None = None) -> Change | None:
        """Return the next write; wait for it.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            None when there was none in time, or the watch was closed.

        Raises:
            StateCompactedError: Writes that were not handed out yet are forgotten.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready and not self._closed:
            left = LONG_POLL_SECONDS if deadline is None else min(LONG_POLL_SECONDS, deadline - time.monotonic())
            left = max(0.0, left)
            answer = self._link.ask("watch", self._space, self._prefix, self._next, left, wait=left)
            if answer["store"] != self._store:
                # Another file, such as a backup that was restored: its numbers mean something else.
                raise StateCompactedError(
                    f"the shared state was replaced by another one (now at revision {answer['next']}): "
                    "read what there is, and watch anew",
                    since=self._next,
                    floor=answer["next"],
                )
            self._ready.extend(Change.from_wire(one).of(self._link, self._space) for one in answer["changes"])
            self._next = answer["next"]
            if not self._ready:
                self.revision = self._next
            if deadline is not None and time.monotonic() >= deadline:
                break
        if not self._ready:
            return None
        change = self._ready.popleft()
        self.revision = change.revision if self._ready else self._next
        return change

    def close(self) -> None:
        """End an iteration that goes on in another thread, at its next turn."""
        self._closed = True

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Change:
        change = self.get()
        if change is None:
            raise StopIteration
        return change

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watch {self._prefix!r}... after revision {self.revision}>"
