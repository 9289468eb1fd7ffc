"""Lock: one owner at a time in a mesh, with a number that tells old owners from new. Runs in the caller's process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyrokernel.client.links import LONG_POLL_SECONDS
from pyrokernel.errors import LockLostError, PyrokernelError, ReplyTimeoutError

if TYPE_CHECKING:
    from pyrokernel.client.leases import Leases
    from pyrokernel.client.state_link import StateLink


class Lock:
    """A lock of the shared state; as a context manager it gives the fencing token.

    The token grows from owner to owner. Whatever the lock protects should refuse a token that is lower than
    one it has seen: an owner that was asleep for longer than the lock's time does not know that it lost it.

    Args:
        link, leases: The way to the service, and who renews.
        space, name: Which lock.
        ttl: Seconds it lasts when it is not renewed.
        timeout: Seconds to wait for it; None waits for ever.

    Attributes:
        name: As given.
        token: The fencing token while it is held, 0 otherwise.
    """

    def __init__(
        self, link: StateLink, leases: Leases, space: str, name: str, ttl: float, timeout: float | None
    ) -> None:
        self._link, self._leases = link, leases
        self._space, self.name = space, name
        self._ttl, self._timeout = ttl, timeout
        self._lease = ""
        self._released = False
        self.token = 0

    def acquire(self, timeout: float | None = None) -> int:
        """Wait for the lock, first come first; return the fencing token.

        Args:
            timeout: Seconds; None for what `Shared.lock` was told.

        Raises:
            ReplyTimeoutError: Somebody else held it all the time.
            LockLostError: This one holds it already.
        """
        if self._lease:
            raise LockLostError(f"the lock {self.name!r} is held already, by this very object", name=self.name)
        self._released = False
        seconds = self._timeout if timeout is None else timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        self._lease = lease = self._leases.grant(self._ttl, keep=True, on_lost=self._lose)
        try:
            while True:
                left = LONG_POLL_SECONDS if deadline is None else min(LONG_POLL_SECONDS, deadline - time.monotonic())
                options = self._link.write_options()
                arguments = (self._space, self.name, lease, max(0.0, left), options)
                token = self._link.ask("lock", *arguments, wait=max(0.0, left), changes=True)
                if token is not None:
                    self.token = int(token)
                    return self.token
                if deadline is not None and time.monotonic() >= deadline:
                    message = (
                        f"the lock {self.name!r} was held by somebody else for {seconds:g} s; locks() says by whom"
                    )
                    raise ReplyTimeoutError(message, seconds=seconds, missing=())
        except BaseException:
            # Also a Ctrl-C: the request may have got the lock since.
            self._end_lease()
            raise

    def release(self) -> None:
        """Give the lock back.

        Raises:
            LockLostError: It was lost before.
        """
        if not self._lease:
            if self._released:
                raise LockLostError(f"the lock {self.name!r} was released before", name=self.name)
            raise LockLostError(name=self.name)
        self._released = True
        lease, self._lease, self.token = self._lease, "", 0
        self._leases.forget(lease)
        held = self._link.ask("unlock", self._space, self.name, lease, self._link.write_options(), changes=True)
        self._leases.revoke(lease)
        if not held:
            raise LockLostError(name=self.name)

    def check(self) -> int:
        """Return the fencing token, after asking whether the lock is still held.

        Raises:
            LockLostError: It is not.
        """
        held = {lock["name"]: lock["token"] for lock in self._link.ask("locks", self._space)}
        if not self.token or held.get(self.name) != self.token:
            raise LockLostError(name=self.name)
        return self.token

    def locked(self) -> bool:
        """Whether it is held here, as `threading.Lock` says it."""
        return self.held

    @property
    def held(self) -> bool:
        """Whether it is held, as far as is known here."""
        return bool(self.token)

    def __enter__(self) -> int:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except PyrokernelError:
            if kind is None:  # else the error of the block is the one to tell
                raise

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} {f'held, token {self.token}' if self.token else 'not held'}>"

    def _lose(self, lease: str) -> None:
        # It may be told late, of a lease that was given up since.
        if lease == self._lease:
            self._lease, self.token = "", 0

    def _end_lease(self) -> None:
        lease, self._lease, self.token = self._lease, "", 0
        if lease:
            self._leases.forget(lease)
            try:
                self._leases.revoke(lease)
            except PyrokernelError:
                return  # it ends by itself when its time is over
