"""Leases of the shared state that this process holds, and who renews them. Runs in the caller's process.

What lives by a lease ends when nobody renews it. This process renews its own from a thread, over a
connection of their own: when the process ends, the connection does, and the service ends the leases
at once, without waiting for their time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyrokernel.client.links import Link
from pyrokernel.errors import LockLostError, PyrokernelError
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.fanout import ConnectionLost, Request

if TYPE_CHECKING:
    from pyrokernel.client.state_link import StateLink
    from pyrokernel.wire.connection import Connection

log = logging.getLogger(__name__)

_RENEWALS = 3
"""How often a lease is renewed within its time: two may fail."""


class Leases:
    """The leases of one client.

    Args:
        link: The way to the service.
    """

    def __init__(self, link: StateLink) -> None:
        self._link = link
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._kept: dict[str, tuple[float, Callable[[], None]]] = {}
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._held: tuple[Link, Connection] | None = None
        self._closed = False
        self._pid = os.getpid()

    def grant(self, ttl: float, *, keep: bool, on_lost: Callable[[], None] = lambda: None) -> str:
        """Make a lease and return its id.

        Args:
            ttl: Seconds.
            keep: Renew it as long as this process lives.
            on_lost: Called, by the thread that renews, when it turns out to be over.
        """
        lease = str(self._link.ask("grant", float(ttl), False, self._link.write_options(), changes=True))
        if keep:
            self._keep(lease, ttl, on_lost)
        return lease

    def revoke(self, lease: str) -> None:
        """End a lease, with what lives by it."""
        self.forget(lease)
        self._link.ask("revoke", lease, changes=True)

    def forget(self, lease: str) -> None:
        """Renew a lease no longer."""
        with self._changed:
            self._kept.pop(lease, None)
            self._due.pop(lease, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Renew nothing any more, and let the service end what was kept."""
        with self._changed:
            self._closed = True
            self._kept.clear()
            self._due.clear()
            self._changed.notify_all()
        self._drop_connection()

    def _keep(self, lease: str, ttl: float, on_lost: Callable[[], None]) -> None:
        if self._pid != os.getpid():
            # A forked child: thread and leases are its parent's.
            self._changed, self._asking, self._pid = threading.Condition(), threading.Lock(), os.getpid()
            self._kept, self._due, self._thread, self._held = {}, {}, None, None
        # At once, so that the service knows by which connection this process lives.
        if lease in self._renew([lease]):
            raise LockLostError(name=lease)
        with self._changed:
            self._closed = False
            self._kept[lease] = (ttl, on_lost)
            self._due[lease] = time.monotonic() + ttl / _RENEWALS
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="pyrokernel-leases", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._thread = None
                    return
                moment = min(self._due.values())
                pause = moment - time.monotonic()
                if pause > 0:
                    self._changed.wait(pause)
                    continue
                now = time.monotonic()
                due = [lease for lease, at in self._due.items() if at <= now + 0.05]
                shortest = min(self._kept[lease][0] for lease in due)
                # Should the service be away, the next try comes while there is still time.
                for lease in due:
                    self._due[lease] = now + shortest / _RENEWALS / 4
            try:
                over = self._renew(due)
            except PyrokernelError as error:
                log.info("leases are not renewed for the moment: %s", error)
                continue
            self._note(due, over)

    def _note(self, renewed: list[str], over: list[str]) -> None:
        lost = []
        with self._changed:
            for lease in renewed:
                if lease not in self._kept:
                    continue
                ttl, on_lost = self._kept[lease]
                if lease in over:
                    del self._kept[lease], self._due[lease]
                    lost.append(on_lost)
                else:
                    self._due[lease] = time.monotonic() + ttl / _RENEWALS
        for tell in lost:
            tell()

    def _renew(self, leases: list[str]) -> list[str]:
        """Renew leases on the connection by which this process lives; return those that are over."""
        request = Request(STATE_OBJECT, "renew", (leases, leases))
        with self._asking:  # the thread that renews, and those that make leases, share the connection
            while True:
                _, connection = self._connection()
                try:
                    deadline = time.monotonic() + self._link.mesh.settings.timeout
                    over: list[str] = ask_directly(connection, request, deadline)
                except (ConnectionLost, TimeoutError):
                    self._drop_connection()
                    # Through the door that waits for a service that is away, finds where it is now, and gives up.
                    self._link.ask("ping")
                    continue
                except BaseException:
                    self._drop_connection()
                    raise
                return over

    def _connection(self) -> tuple[Link, Any]:
        if self._held is None:
            self._held = self._link.take_connection()
        return self._held

    def _drop_connection(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                held[1].close()
