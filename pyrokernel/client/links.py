"""Connections to one process of the mesh, shared by the threads of a client. Runs in the caller's process."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from pyrokernel.errors import KernelConnectionError, KernelUnreachableError
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.fanout import Answer, Fanout, Request
from pyrokernel.wire.proxy import connect

_IDLE_KEPT = 4
"""Idle connections kept per kind; each costs the other side a thread or a descriptor."""


LONG_POLL_SECONDS = 25.0
"""How long a request waits at the other side for something to happen, before it is asked again."""


class Link:
    """The way to one process: its address, and idle connections to it.

    A connection in use belongs to one thread. After a fork the child starts with none:
    two processes on one connection would read each other's replies.

    Args:
        name, uri: What is there, and where.
        instance: Which life of it is meant; "" accepts any.
    """

    def __init__(self, name: str, uri: str, instance: str = "") -> None:
        self.name, self.uri, self.instance = name, uri, instance
        self._idle: dict[str, list[Connection]] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def take(self, kind: str) -> Connection:
        """Return a connection for this thread's use.

        Raises:
            KernelUnreachableError: Nobody listens there.
        """
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            idle = self._idle.get(kind)
            if idle:
                return idle.pop()
        try:
            return connect(self.uri, kind=kind, instance=self.instance)
        except KernelUnreachableError as error:
            raise KernelUnreachableError(f"{self.name!r}: {error}", kernel=self.name, instance=self.instance) from error

    def give(self, connection: Connection) -> None:
        """Return a connection on which nothing is due."""
        with self._lock:
            idle = self._idle.setdefault(connection.kind, [])
            if (
                len(idle) < _IDLE_KEPT
                and connection.greeted
                and connection.reader.idle
                and connection.sock.fileno() >= 0
            ):
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; connections in use close when they are returned."""
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()

    def _start_over(self) -> None:
        # The lock may be held for ever by a thread that exists only in the parent.
        self._lock = threading.Lock()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle = {}
        self._pid = os.getpid()


def ask(link: Link, request: Request, timeout: float) -> Any:
    """Send one request to one process on a control connection and return what it answers.

    Raises:
        KernelUnreachableError: No answer in time, or the connection ended.
        PyrokernelError: What the other side raised.
    """
    # A kept connection may have been closed meanwhile; a fresh one tells for certain.
    for attempt in (1, 2):
        connection = link.take("control")
        with Fanout() as fanout:
            fanout.send(connection, request, None)
            answer: Answer | None = next(fanout.answers(time.monotonic() + timeout), None)
            if answer is not None and not answer.lost:
                fanout.release(connection)
                link.give(connection)
        if answer is None:
            raise KernelUnreachableError(
                f"{link.name!r} did not answer {request.method} in {timeout:g} s",
                kernel=link.name,
                instance=link.instance,
            )
        if answer.lost and attempt == 1:
            link.close()
            continue
        if answer.lost:
            raise KernelUnreachableError(f"{link.name!r}: {answer.error}", kernel=link.name, instance=link.instance)
        if answer.error is not None:
            raise answer.error
        return answer.value
    raise KernelConnectionError(kernel=link.name, instance=link.instance)
