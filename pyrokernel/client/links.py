"""Connections to one process of the mesh, shared by the threads of a client. Runs in the caller's process."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.errors import AccessRefusedError, KernelUnreachableError, MachineLostError, PyrokernelError
from pyrokernel.wire import silence
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.endpoints import is_unix
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.remote import NOTHING, Credentials
from pyrokernel.wire.tls import TlsSocket

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

_IDLE_KEPT = 4
"""Idle connections kept per kind; each costs the other side a thread or a descriptor."""


_OFTEN = 8
"""Uses of a connection through a gateway after which one is asked for that goes without."""
_FAILED_SECONDS, _DECLINED_SECONDS = 10.0, 600.0
"""For so long none is asked for after one could not be had, or was pumped as before."""
_DIALLED_AT_ONCE = 32
"""Other machines that are dialled side by side; each takes a thread until it answers, or is known not to."""

LONG_POLL_SECONDS = 25.0
"""How long a request waits at the other side for something to happen, before it is asked again."""


class Link:
    """The way to one process: its address, and idle connections to it.

    A connection in use belongs to one thread. After a fork the child starts with none:
    two processes on one connection would read each other's replies.

    Args:
        name, uri: What is there, and where.
        instance: Which life of it is meant; "" accepts any.
        credentials: What to show where it is on another machine.
        machine: Name of the machine that it is on, "" where that is not known.
        certified: Another machine must be that one by its certificate.
        what: "kernel" or "host": one that says of itself that it has another name is not taken for it; "" for neither.
        files, segments: As for `wire.proxy.connect`; segments on control connections only: a reader that may get
            them has to ask the system for more, which takes the short way of a call longer.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        instance: str = "",
        *,
        files: bool = False,
        segments: bool = False,
        credentials: Credentials = NOTHING,
        machine: str = "",
        certified: bool = False,
        what: str = "",
    ) -> None:
        self.name, self.uri, self.instance, self.machine = name, uri, instance, machine
        self._credentials, self._what = credentials, what
        self._certified = machine if certified else ""
        self._files, self._segments = files, segments
        self._idle: dict[str, list[Connection]] = {}
        self._is_handing, self._not_before = False, 0.0
        self.keeps_answers = False
        """Whether an answer that its process has written arrives, though the process dies: known once it was dialled.

        By TCP it may not: of one that dies with something unread, the system throws away what it has not sent yet.
        """
        self._ended = False
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether it leads to a process on this machine."""
        return "@./u:" in self.uri

    def take(self, kind: str) -> Connection:
        """Return a connection for this thread's use.

        Raises:
            KernelUnreachableError: Nobody listens there.
        """
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            idle = self._idle.get(kind)
            while idle:
                connection = idle.pop()
                connection.uses += 1
                # Of a machine of which nothing is heard each connection would find that out anew; to dial tells sooner.
                if not (isinstance(connection.sock, TlsSocket) and silence.is_silent(connection.sock.address)):
                    return connection
                connection.close()
        try:
            return self._connect(kind)
        except MachineLostError as error:
            raise self.lost(error) from error
        except KernelUnreachableError as error:
            raise KernelUnreachableError(f"{self.name!r}: {error}", kernel=self.name, instance=self.instance) from error

    def _connect(self, kind: str, *, handed: bool = False) -> Connection:
        connection = connect(
            self.uri,
            kind=kind,
            instance=self.instance,
            name=(self._what, self.name if self._what else ""),
            files=self._files,
            segments=self._segments and kind == "control",
            credentials=self._credentials,
            machine=self._certified,
            handed=handed,
        )
        self.keeps_answers = is_unix(connection.sock)
        return connection

    def _is_to_be_handed(self, connection: Connection) -> bool:
        """Whether a connection is used so often that it pays to have one without a gateway in between."""
        if connection.uses < _OFTEN or connection.kind != "work" or connection.is_handed or self._is_handing:
            return False
        connection.uses = 0  # where that fails, it is tried again after as many
        return isinstance(connection.sock, TlsSocket) and time.monotonic() >= self._not_before

    def _have_handed(self) -> None:
        """Open a connection that is handed on, beside those that there are; without it, all goes on as it does."""
        try:
            connection = self._connect("work", handed=True)
            if not connection.is_handed:
                self._not_before = time.monotonic() + _DECLINED_SECONDS
            self.give(connection)
        except (PyrokernelError, OSError) as error:
            log.debug("no connection to %s was handed on: %s", self.name, error)
            self._not_before = time.monotonic() + _FAILED_SECONDS
        finally:
            self._is_handing = False

    def lost(self, error: MachineLostError) -> MachineLostError:
        """Return the error of a machine that is lost, for what was to be reached there."""
        machine = f"{self.machine} at {error.machine}" if self.machine and not error.kernel else error.machine
        return MachineLostError(kernel=self.name, instance=self.instance, machine=machine, reason=error.reason)

    def give(self, connection: Connection) -> None:
        """Return a connection on which nothing is due."""
        with self._lock:
            idle = self._idle.setdefault(connection.kind, [])
            if (
                not self._ended
                and len(idle) < _IDLE_KEPT
                and connection.greeted
                and connection.reader.idle
                and connection.sock.fileno() >= 0
            ):
                idle.append(connection)
                if len(idle) > 1:
                    idle.sort(key=_is_handed)  # which are taken first
                if self._is_to_be_handed(connection):
                    self._is_handing = True
                    _errands.put(self._have_handed)
                return
        connection.close()

    def close(self, *, for_good: bool = False) -> None:
        """Close what is idle; with `for_good`, what is in use is closed when it is returned, too."""
        with self._lock:
            self._ended = self._ended or for_good
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


class _Errands:
    """What is done beside the calls, one after the other, on a thread that ends when there is nothing to do."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._due: deque[Callable[[], None]] = deque()
        self._is_running = False

    def put(self, errand: Callable[[], None]) -> None:
        """Have something done soon."""
        if self._pid != os.getpid():
            self._begin()  # a forked child has no such thread, and what was due is its parent's
        with self._lock:
            self._due.append(errand)
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="pyrokernel-errands", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._is_running = False
                    return
                errand = self._due.popleft()
            try:
                errand()
            except Exception:  # whatever one raises, those behind it are done, and those of later
                log.debug("an errand failed in an unexpected way", exc_info=True)


_errands = _Errands()


def _is_handed(connection: Connection) -> bool:
    return connection.is_handed


def ask(link: Link, request: Request, timeout: float) -> Any:
    """Send one request to one process on a control connection and return what it answers.

    Raises:
        KernelUnreachableError: No answer in time, or the connection ended.
        PyrokernelError: What the other side raised.
    """
    answer = ask_each({link: request}, timeout)[link.name]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _taken_side_by_side(links: Sequence[Link]) -> dict[Link, Future[Connection]]:
    """Take a control connection to each of several other machines at once: those that are silent cost one wait."""
    first = {link.uri.rpartition("@")[2]: link for link in reversed(links) if not link.is_here}
    if len(first) < 2:
        return {}
    from concurrent.futures import ThreadPoolExecutor  # only where there are several machines

    taken: dict[Link, Future[Connection]] = {}
    workers = min(len(first), _DIALLED_AT_ONCE)
    # While the interpreter ends it has no threads to give: then one is dialled after the other.
    with contextlib.suppress(RuntimeError), ThreadPoolExecutor(workers, "pyrokernel-dialling") as pool:
        for link in first.values():
            taken[link] = pool.submit(link.take, "control")
    return taken


def ask_each(requests: Mapping[Link, Request], timeout: float) -> dict[str, Any]:
    """Send each process its request on a control connection and wait for all answers at once.

    Args:
        requests: By the ways to the processes, whose names are distinct.
        timeout: Seconds for the answers. Before that, machines that nothing is heard of cost `remote.DIAL_SECONDS`,
            once for all: nothing of what the others may take is lost by that.

    Returns:
        By name: what was answered, or as an exception what the other side raised or why it did not answer.
    """
    deadline = 0.0
    found: dict[str, Any] = {}
    due = list(requests)
    # A kept connection may have been closed meanwhile; a fresh one tells for certain.
    for attempt in (1, 2):
        stale: list[Link] = []
        with Fanout() as fanout:
            taken = _taken_side_by_side(due)
            for link in due:
                try:
                    fanout.send(taken[link].result() if link in taken else link.take("control"), requests[link], link)
                except (KernelUnreachableError, AccessRefusedError) as error:
                    found[link.name] = error
            deadline = deadline or time.monotonic() + timeout
            for answer in fanout.answers(deadline):
                link = answer.token  # type: ignore[assignment]  # what it was sent with
                if answer.lost and attempt == 1:
                    link.close()
                    stale.append(link)
                    continue
                if answer.lost:
                    found[link.name] = _unreachable(link, str(answer.error))
                    continue
                fanout.release(answer.connection)
                link.give(answer.connection)
                found[link.name] = answer.value if answer.error is None else answer.error
        due = stale
    for link, request in requests.items():
        if link.name not in found:
            found[link.name] = _unreachable(link, f"did not answer {request.method} in {timeout:g} s")
    return found


def _unreachable(link: Link, why: str) -> KernelUnreachableError:
    return KernelUnreachableError(f"{link.name!r}: {why}", kernel=link.name, instance=link.instance)
