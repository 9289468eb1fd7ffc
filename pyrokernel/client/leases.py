"""Leases of the shared state that this process holds. Runs in the caller's process.

What lives by a lease ends when nobody renews it. The keeper renews those of this process, over a
connection of their own: when the process ends, the connection does, and the service ends the leases
at once, without waiting for their time.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyrokernel import systems
from pyrokernel.client import keeper
from pyrokernel.errors import KernelConnectionError, LockLostError, NameServerError, StateUnavailableError
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.fanout import ConnectionLost

if TYPE_CHECKING:
    from pyrokernel.client.state_link import StateLink
    from pyrokernel.wire.connection import Connection

log = logging.getLogger(__name__)

_RENEWALS = 3
"""How often a lease is renewed within its time: two may fail."""
_PATIENCE_SECONDS = 2.0
"""How long a renewal waits; there is other work for the thread that does it."""


class Leases:
    """The leases of one client.

    Args:
        link: The way to the service.
    """

    def __init__(self, link: StateLink) -> None:
        self._link = link
        self._asking = threading.Lock()
        self._kept: set[str] = set()
        self._holding: dict[tuple[str, str], str] = {}
        self._connection: Connection | None = None
        self._turn = 0
        self._silent: list[Connection] = []
        _all.add(self)

    def grant(self, ttl: float, *, keep: bool, on_lost: Callable[[str], None] = lambda lease: None) -> str:
        """Make a lease and return its id.

        Args:
            ttl: Seconds.
            keep: Renew it as long as this process lives.
            on_lost: Called with the lease, by the thread that renews, when it turns out to be over.

        Raises:
            LockLostError: It was over before it could be renewed for the first time.
        """
        lease = str(self._link.ask("grant", float(ttl), False, self._link.write_options(), changes=True))
        if keep:
            _mind_forks()
            # At once, so that the service knows by which connection this process lives.
            if not self._renew(lease):
                raise LockLostError(name=lease)
            self._kept.add(lease)
            keeper.keep(("lease", lease), lambda: self._renew_again(lease, on_lost), ttl / _RENEWALS)
        return lease

    def revoke(self, lease: str) -> None:
        """End a lease, with what lives by it."""
        self.forget(lease)
        self._link.ask("revoke", lease, changes=True)

    def hold(self, key: tuple[str, str], lease: str) -> None:
        """Note by which kept lease a key lives now, "" for none, and end the one before: nothing lives by it."""
        before = self._holding.pop(key, "")
        if lease:
            self._holding[key] = lease
        if before:
            self.revoke(before)

    def forget(self, lease: str) -> None:
        """Renew a lease no longer."""
        self._kept.discard(lease)
        keeper.drop(("lease", lease))

    def close(self) -> None:
        """Renew nothing any more, and let the service end what was kept."""
        for lease in list(self._kept):
            self.forget(lease)
        self._drop(self._connection, *self._silent)
        self._connection, self._silent = None, []

    def _renew_again(self, lease: str, on_lost: Callable[[str], None]) -> bool:
        """Renew a lease that is kept; False when there is nothing to renew any more."""
        if lease not in self._kept:
            return False
        if self._renew(lease):
            return lease in self._kept
        if lease in self._kept:  # else it was given up meanwhile
            self._kept.discard(lease)
            on_lost(lease)
        return False

    def _renew(self, lease: str) -> bool:
        """Renew a lease on the connection by which this process lives; False when it is over.

        Raises:
            StateUnavailableError: The service is away, or does not answer.
        """
        # All of them live by this connection from now on: one that goes silent is closed, and would end the others.
        bound = [lease, *list(self._kept)]
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._asking:  # the thread that renews, and those that make leases, share the connection
            while True:
                try:
                    if self._connection is None:
                        self._connection = self._link.take_connection()
                        self._turn += 1
                    asked = ([lease], bound, self._turn)
                    over = ask_directly(self._connection, STATE_OBJECT, "renew", asked, _PATIENCE_SECONDS)
                except (ConnectionLost, KernelConnectionError, NameServerError) as error:
                    self._drop(self._connection)
                    self._connection = None
                    log.info("leases are not renewed for the moment: %s", error)
                except BaseException as error:
                    # What is about to come on it is nobody's; but until another connection has taken its place, the
                    # leases would end with it.
                    if self._connection is not None:
                        self._silent.append(self._connection)
                    self._connection = None
                    if not isinstance(error, TimeoutError):
                        raise
                else:
                    self._drop(*self._silent)
                    self._silent.clear()
                    return not over
                if time.monotonic() >= deadline:
                    raise StateUnavailableError(reason=f"leases were not renewed in {_PATIENCE_SECONDS:g} s")
                # Through the door that waits for a service that is away, and finds where it is now.
                self._link.ask("ping", patience=_PATIENCE_SECONDS)

    @staticmethod
    def _drop(*connections: Connection | None) -> None:
        for connection in connections:
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.close()

    def start_over(self) -> None:
        """Begin anew in a forked child: what is kept is its parent's, and must not live by its child."""
        self._asking = threading.Lock()
        self._kept, self._holding = set(), {}
        self._drop(self._connection, *self._silent)
        self._connection, self._silent = None, []


_all: weakref.WeakSet[Leases] = weakref.WeakSet()


@functools.cache
def _mind_forks() -> None:
    """Have forked children let go of their parent's connections; once in a process."""
    systems.at_fork(after_in_child=_start_over)


def _start_over() -> None:
    for leases in list(_all):
        leases.start_over()
