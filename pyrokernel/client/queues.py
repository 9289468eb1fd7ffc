"""Queue: what one process puts, one other gets, in order. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.client.space import seconds_of
from pyrokernel.errors import LockLostError, PyrokernelError, ReplyTimeoutError, StateValueError

if TYPE_CHECKING:
    from pyrokernel.client.leases import Leases
    from pyrokernel.client.state_link import StateLink


class Queue:
    """A queue of the shared state; its length is how many values wait or are being worked on.

    Args:
        link, leases: The way to the service, and who renews.
        space, name: Which queue.
    """

    def __init__(self, link: StateLink, leases: Leases, space: str, name: str) -> None:
        self._link, self._leases = link, leases
        self._space, self.name = space, name

    def put(self, value: Any) -> int:
        """Append a value; return its number."""
        write = {"op": "set", **self._link.encode(value, self.name)}
        options = self._link.write_options()
        return int(self._link.ask("put", self._space, self.name, write, options, changes=True))

    def get(self, timeout: float | None = None) -> Any:
        """Take the oldest value, for good; wait for one.

        Args:
            timeout: Seconds; 0 does not wait, None waits for ever.

        Raises:
            ReplyTimeoutError: None came in time.
            StateValueError: It cannot be loaded here; it stays in the queue, and `drop` removes it.
        """
        with self.take(timeout) as value:
            return value

    def drop(self, number: int) -> bool:
        """Remove a value that nobody can load, by the number that its error names; False when it is not there."""
        arguments = (self._space, self.name, f"{number:020d}", "", self._link.write_options())
        return bool(self._link.ask("done", *arguments, changes=True))

    @contextlib.contextmanager
    def take(self, timeout: float | None = None, *, ttl: float | str = 60.0) -> Iterator[Any]:
        """Take the oldest value for the length of a block; if the block raises or its process ends, others get it.

        Args:
            timeout: Seconds to wait for one; None waits for ever.
            ttl: Seconds after which others get it when this process can no longer say that it lives.

        Raises:
            ReplyTimeoutError: None came in time.
            LockLostError: At the end of the block: it has been given to somebody else meanwhile.
        """
        lease = self._leases.grant(seconds_of(ttl), keep=True)
        try:
            number, value = self._take(lease, timeout)
            yield value
            arguments = (self._space, self.name, number, lease, self._link.write_options())
            if not self._link.ask("done", *arguments, changes=True):
                raise LockLostError(name=f"{self.name} number {int(number)}")
        except BaseException:
            with contextlib.suppress(PyrokernelError):  # the error of the block is the one to tell; it ends by itself
                self._leases.revoke(lease)
            raise
        self._leases.revoke(lease)

    def _take(self, lease: str, timeout: float | None) -> tuple[str, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL_SECONDS if deadline is None else min(LONG_POLL_SECONDS, deadline - time.monotonic())
            left = max(0.0, left)
            arguments = (self._space, self.name, lease, left, self._link.write_options())
            found = self._link.ask("take", *arguments, wait=left, changes=True)
            if found is not None:
                number, answer = found
                return number, self._load(number, answer)
            if deadline is not None and time.monotonic() >= deadline:
                message = f"the queue {self.name!r} was empty for {timeout:g} s"
                raise ReplyTimeoutError(message, seconds=timeout, missing=())

    def _load(self, number: str, answer: list[Any]) -> Any:
        parts = self._link.fetch(answer)
        reason = "its file is gone"
        if parts is not None:
            try:
                return self._link.decode(self.name, answer, parts)
            except StateValueError as error:
                reason = error.reason
        reason += f"; it stays in the queue, and drop({int(number)}) removes it"
        raise StateValueError(key=f"{self.name} number {int(number)}", type=answer[2], author=answer[3], reason=reason)

    def __len__(self) -> int:
        return int(self._link.ask("length", self._space, self.name))

    def __bool__(self) -> bool:
        return True  # a queue that is empty is one, too

    def __iter__(self) -> Iterator[Any]:
        """Take values for ever."""
        while True:
            yield self.get()

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"
