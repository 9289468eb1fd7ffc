"""One call to many kernels, gathered under one deadline, failures explained. Runs in the caller's process.

Everything that waits for kernels waits here. A lost connection is not taken for a death:
the host is asked; if the kernel lives, the request is sent again, which its cell id makes
harmless. Long waits also listen to the hosts, which announce deaths that no socket shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from pyrokernel.client import inside
from pyrokernel.client.ears import Ear, obituary
from pyrokernel.client.links import Link, ask
from pyrokernel.errors import (
    KernelConnectionError,
    KernelRestartedError,
    KernelUnreachableError,
    MachineLostError,
    PyrokernelError,
    ReplyTimeoutError,
    WouldDeadlockError,
)
from pyrokernel.messages import KERNEL_OBJECT, Death
from pyrokernel.wire.direct import answer_at_once, send_short
from pyrokernel.wire.fanout import Answer, Fanout, Request

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh
    from pyrokernel.wire.connection import Connection

_LISTEN_AFTER_SECONDS = 0.25
"""Quick calls need no ear at the host; a closed socket tells of nearly every death."""

_AT_ONCE_SECONDS = 0.05
"""How long one kernel is waited for before all of them are, side by side."""

USUAL = -1.0
"""As a timeout: the `timeout` of the settings."""

_OBITUARY_SECONDS = 1.0

_DRAIN_SECONDS = 0.01
"""How soon to look again whether all was read that a kernel had sent before it died."""


_Taken: TypeAlias = "tuple[str, Any, Any, PyrokernelError | None]"


class _Due(NamedTuple):
    """A request without an answer, and when it was sent first (Unix time): what had died by then never began it."""

    token: Any
    request: Request
    sent: float


class Exchange:
    """Requests under way to some kernels of a mesh.

    Args:
        mesh: Knows hosts and links.
        kind: "work" or "control".
        blocking: Whether the caller's cell, if it runs in a kernel, waits for this.
    """

    def __init__(self, mesh: Mesh, kind: str, *, blocking: bool = True) -> None:
        self._mesh = mesh
        self._kind = kind
        self._blocking = blocking
        self._fanout = Fanout()
        self._links: dict[str, Link] = {}
        self._connections: dict[str, Connection] = {}
        self._due: dict[str, list[_Due]] = {}
        self._failed: list[tuple[str, Any, PyrokernelError]] = []
        self._ears: dict[str, Ear] = {}
        self._retried: set[str] = set()
        self._looked = False
        self._listening_from = math.inf
        self._deaths: list[Death] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pending(self) -> Mapping[str, int]:
        """Requests without an answer, by kernel name."""
        return {name: len(due) for name, due in self._due.items() if due}

    @property
    def idle(self) -> bool:
        """Whether `answers` have nothing more to yield."""
        return not self._failed and not self._due

    def send(self, link: Link, request: Request, token: Any = None) -> None:
        """Send a request to one kernel; a failure to do so comes out of `answers`."""
        self._send(link, _Due(token, request, time.time()))

    def _send(self, link: Link, due: _Due) -> None:
        name = link.name
        self._links[name] = link
        try:
            if self._kind == "work" and self._blocking:
                inside.check_wait(name, link.instance)
            connection = self._connections.get(name)
            if connection is None:
                # Large arguments go beside their message, which the way without a hand-over is too short for.
                kind = "control" if due.request.bulky else self._kind
                connection = self._connections[name] = link.take(kind)
        except KernelUnreachableError as error:
            death = self._obituary(link)
            self._failed.append((name, due.token, self._explained(link, death, due.sent) if death else error))
            return
        except PyrokernelError as error:
            self._failed.append((name, due.token, error))
            return
        self._due.setdefault(name, []).append(due)
        self._fanout.send(connection, due.request, name)

    def answers(self, deadline: float | None = None) -> Iterator[_Taken]:
        """Yield (kernel name, token, value, error) as answers arrive, until none is due or the deadline passes.

        It can be called again to wait on.
        """
        self._listening_from = min(self._listening_from, time.monotonic() + _LISTEN_AFTER_SECONDS)
        while True:
            self._bury_silent()
            while self._failed:
                name, token, error = self._failed.pop(0)
                yield name, token, None, error
            if not self._due:
                return
            now = time.monotonic()
            late = deadline is not None and now >= deadline
            if now >= self._listening_from and not late:
                self._look_for_ring()
                self._listen()
                if self._failed:
                    continue
                step = deadline
            else:
                step = self._listening_from if deadline is None else min(deadline, self._listening_from)
            if self._deaths:
                step = now + _DRAIN_SECONDS if step is None else min(step, now + _DRAIN_SECONDS)
            for answer in self._fanout.answers(step):
                taken = self._take(answer)
                if taken is not None:
                    yield taken
                if self._failed or self._deaths or not self._due:
                    break
            # What had arrived by the deadline counts, also when sending to one of the others took all of the time.
            if late and not self._failed:
                return

    def go_on(self, link: Link, connection: Connection | None, request: Request, sent: float) -> None:
        """Wait on for the answer to a request that was sent by the short way at a moment (Unix time), or send it.

        Args:
            link: The way to the kernel.
            connection: On which it was sent, closed if it has ended since; None where it was not sent.
            request: Which.
            sent: When.
        """
        if connection is None:
            self.send(link, request)
            return
        name = link.name
        self._links[name] = link
        self._due[name] = [_Due(None, request, sent)]  # first: `close` must not take the connection for an idle one
        if connection.sock.fileno() < 0:
            self._recover(name)
            return
        self._connections[name] = connection
        self._fanout.adopt(connection, request.seq, name)

    def close(self) -> None:
        """Return the connections on which nothing is due, drop the others."""
        idle = []
        for name, connection in self._connections.items():
            if name not in self._due and connection.sock.fileno() >= 0:
                idle.append((self._links[name], connection))
            else:  # also where the answer has come but nobody took it
                connection.close()
        self._connections.clear()
        for ear in self._ears.values():
            if ear.leave(self._fanout):
                self._mesh.return_ear(ear)
            else:
                ear.close()
        self._fanout.close()
        for link, connection in idle:  # whoever takes them has a loop of its own
            link.give(connection)
        if self._looked:
            inside.waits_for(())

    def _take(self, answer: Answer) -> _Taken | None:
        """Return what `answers` are to yield of an answer, if anything."""
        if isinstance(answer.token, tuple):
            self._hear(answer)
            return None
        name = str(answer.token)
        due = self._due.get(name)
        if not due or answer.connection is not self._connections.get(name):
            return None  # of a connection that was given up already; what was due on it has its error
        error = answer.error
        if error is not None and answer.lost:
            self._recover(name)
            return None
        token = due.pop(0).token
        if not due:
            del self._due[name]  # whether anything is due is asked after each answer
        if answer.connection.sock.fileno() < 0:
            self._connections.pop(name, None)  # it ended with this answer
        self._retried.discard(name)
        if isinstance(error, MachineLostError):  # as the gateway of this machine says, which does not know of whom
            error = self._links[name].lost(error)
        return name, token, answer.value, None if error is None else _as_ours(name, error)

    def _recover(self, name: str) -> None:
        """A connection was lost: explain it by a death, or send again what was due."""
        link = self._links[name]
        due = self._due.pop(name, [])
        self._connections.pop(name, None)
        link.close()
        death = self._obituary(link)
        if death is not None:
            self._failed.extend((name, lost.token, self._explained(link, death, lost.sent)) for lost in due)
        elif name not in self._retried:
            self._retried.add(name)
            for lost in due:
                self._send(link, lost)
        else:
            error = KernelUnreachableError(
                f"kernel {name!r} closed the connection twice, and no host reports its death; try `pyrokernel doctor`",
                kernel=name,
                instance=link.instance,
            )
            self._failed.extend((name, lost.token, error) for lost in due)

    def _obituary(self, link: Link) -> Death | None:
        """Ask the host of a kernel whether it has died."""
        host = self._mesh.host_of(link.name)
        if host is None:
            return None
        try:
            death = obituary(host, link.instance, _OBITUARY_SECONDS, _OBITUARY_SECONDS + 1.0)
        except KernelUnreachableError:
            return None  # no host to ask; the kernel itself may still answer
        if death is not None:
            self._mesh.note_death(link.instance)
        return death

    def _explained(self, link: Link, death: Death, sent: float) -> KernelConnectionError:
        """Return what a death means for a request that was sent at a moment (Unix time)."""
        if death.successor and death.at < sent:
            # It was gone before: the call never began, and the name has passed to another instance.
            restarted = KernelRestartedError(kernel=link.name, instance=link.instance, new_instance=death.successor)
            restarted.__cause__ = death.to_error()
            return restarted
        return death.to_error()

    def _look_for_ring(self) -> None:
        """Once, when a wait has become long: does whom we wait for wait for us, directly or through others?

        Whoever completes a ring starts to wait last, so its look finds the others waiting.
        """
        if self._looked or self._kind != "work" or not self._blocking:
            return
        self._looked = True
        targets = [(name, self._links[name].instance) for name in self.pending]
        if not inside.waits_for(targets):
            return
        us = inside.waiters()[-1]
        for name, instance in targets:
            ring = self._ring_to(us, (name, instance))
            if ring:
                error = WouldDeadlockError(ring=ring)
                self._failed.extend((name, lost.token, error) for lost in self._due.pop(name))

    def _ring_to(self, us: tuple[str, str], start: tuple[str, str]) -> tuple[str, ...]:
        """Follow who waits for whom from a kernel; return the names of the ring if it leads to us."""
        ways: list[tuple[str, ...]] = [(us[0], start[0])]
        trail, seen = [start], {start}
        while trail:
            (name, _), way = trail.pop(), ways.pop()
            link = self._links.get(name) or self._mesh.link_to(name)
            try:
                awaited = ask(link, kernel_request("describe"), _OBITUARY_SECONDS)["awaited"]
            except PyrokernelError:
                continue  # it cannot say; a ring through it shows when it can
            for other in map(tuple, awaited):
                if other == us:
                    return (*way, us[0])
                if other not in seen:
                    seen.add(other)
                    trail.append(other)
                    ways.append((*way, other[0]))
        return ()

    def _listen(self) -> None:
        """Have the hosts of the kernels we wait for tell of deaths."""
        for name in self.pending:
            host = self._mesh.host_of(name)
            if host is None or host.name in self._ears:
                continue
            ear = self._mesh.lend_ear(host)
            try:
                ear.listen(self._fanout, ("deaths", host.name))
            except PyrokernelError as error:
                ear.close()
                if isinstance(error, MachineLostError):
                    self._lose_machine(host)
                continue  # without a host the closed socket has to do
            self._ears[host.name] = ear
            # What died before the ear was at the host would never be announced: ask once about each.
            for other in [pending for pending in self.pending if self._mesh.host_of(pending) is host]:
                try:
                    death = obituary(host, self._links[other].instance, 0.0)
                except PyrokernelError:
                    break
                if death is not None:
                    self._deaths.append(death)

    def _hear(self, answer: Answer) -> None:
        """Take a host's announcement."""
        assert isinstance(answer.token, tuple)
        ear = self._ears[answer.token[1]]
        if answer.error is not None:
            # Gone, or too old to tell; a host that comes back is listened to at the next look.
            del self._ears[answer.token[1]]
            ear.close()
            if answer.machine_lost or _is_lost(ear.host):
                self._lose_machine(ear.host)
            return
        for death in ear.hear(self._fanout, answer.token, answer.value):
            link = self._links.get(death.kernel)
            if link is not None and link.instance == death.instance:
                self._deaths.append(death)

    def _lose_machine(self, host: Link) -> None:
        """Give up the connections to the kernels of a machine of which nothing is heard: they need not notice that.

        Those on which was sent again meanwhile are of after that, and have an answer of their own.
        """
        pending = [name for name in self.pending if name not in self._retried]
        for name in [name for name in pending if self._mesh.host_of(name) is host]:
            connection = self._connections.get(name)
            if connection is not None:
                self._fanout.release(connection)
                connection.close()
            self._recover(name)

    def _bury_silent(self) -> None:
        """Give up waiting for those that have died, once everything is read that they had still answered."""
        for death in self._deaths[:]:
            connection = self._connections.get(death.kernel)
            if connection is None or not self._fanout.has_more(connection):
                self._deaths.remove(death)
                self._bury(death)

    def _bury(self, death: Death) -> None:
        due = self._due.pop(death.kernel, [])
        connection = self._connections.pop(death.kernel, None)
        if connection is not None:
            self._fanout.release(connection)
            connection.close()
        self._mesh.note_death(death.instance)
        error = death.to_error()
        self._failed.extend((death.kernel, lost.token, error) for lost in due)


def _is_lost(host: Link) -> bool:
    """Whether nothing is heard of the machine of a host, whose connection has ended."""
    try:
        host.give(host.take("control"))
    except MachineLostError:
        return True
    except PyrokernelError:
        return False
    return False


def kernel_request(method: str, *args: Any, cell: str = "") -> Request:
    """Encode a call of the exposed object of kernels."""
    return Request(KERNEL_OBJECT, method, args, cell=cell)


def gather(
    mesh: Mesh, links: Sequence[Link], requests: Request | Mapping[str, Request], *, kind: str, timeout: float | None
) -> tuple[dict[str, Any], dict[str, PyrokernelError], tuple[str, ...]]:
    """Send to each kernel and wait for all.

    Args:
        requests: One request for all, or one per kernel name.
        timeout: Seconds for all of it; None waits for ever.

    Returns:
        Values and errors by kernel name, and the names that did not answer in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    values: dict[str, Any] = {}
    errors: dict[str, PyrokernelError] = {}
    sent = time.time()
    if kind == "work" and isinstance(requests, Request) and requests.is_short:
        left = _ask_at_once(links, requests, timeout, values, errors)
        if not left:
            return values, errors, ()
    else:
        left = [(link, None) for link in links]
    with Exchange(mesh, kind) as exchange:
        for link, connection in left:
            request = requests if isinstance(requests, Request) else requests[link.name]
            exchange.go_on(link, connection, request, sent)
        for name, _, value, error in exchange.answers(deadline):
            if error is None:
                values[name] = value
            else:
                errors[name] = error
    names = [link.name for link in links]
    missing = tuple([name for name in names if name not in values and name not in errors])
    return (
        {name: values[name] for name in names if name in values},
        {name: errors[name] for name in names if name in errors},
        missing,
    )


def _ask_at_once(
    links: Sequence[Link],
    request: Request,
    timeout: float | None,
    values: dict[str, Any],
    errors: dict[str, PyrokernelError],
) -> list[tuple[Link, Connection | None]]:
    """Ask kernels by the short way: write to each, then read from each in turn, as long as answers come at once.

    Args:
        links: The ways to them.
        request: A short one.
        timeout: Seconds that it may take.
        values, errors: Take the answers.

    Returns:
        Whose answers did not come: for `Exchange.go_on`.
    """
    until = math.inf if timeout is None else time.monotonic() + timeout
    patience = _AT_ONCE_SECONDS if timeout is None else min(timeout, _AT_ONCE_SECONDS)
    alert = len(links) == 1  # several kernels need the processors more than one who looks out
    asked: list[tuple[Link, Connection | None]] = []
    left: list[tuple[Link, Connection | None]] = []
    answered = 0
    try:
        waiters = inside.waiters()
        for link in links:
            asked.append((link, _begin(link, request, waiters)))  # noqa: PERF401  Ctrl-C finds those asked so far
        for link, connection in asked:
            answer = None
            if connection is not None and time.monotonic() < until:
                answer = answer_at_once(connection, request.seq, patience, alert=alert)
            answered += 1
            if connection is None or answer is None:
                left.append((link, connection))
                until = 0.0  # whoever takes longer is waited for together with the others
                continue
            link.give(connection)
            value, error = answer
            if error is None:
                values[link.name] = value
            else:
                errors[link.name] = _as_ours(link.name, error)
    except BaseException:
        for _, connection in (*asked[answered:], *left):
            if connection is not None:
                connection.close()
        raise
    return left


def _begin(link: Link, request: Request, waiters: Sequence[tuple[str, str]]) -> Connection | None:
    """Send a kernel a short request; return where its answer comes, None if it was not sent: an exchange sees why."""
    if waiters and link.instance in [instance for _, instance in waiters]:
        return None
    try:
        connection = link.take("work")
    except PyrokernelError:
        return None
    return connection if send_short(connection, request) else None


def _as_ours(kernel: str, error: Exception) -> PyrokernelError:
    if isinstance(error, PyrokernelError):
        return error
    return PyrokernelError(f"kernel {kernel!r}: {type(error).__name__}: {error}")


def ask_kernel(mesh: Mesh, link: Link, method: str, *args: Any, timeout: float | None = USUAL) -> Any:
    """Call a control method of one instance.

    Args:
        mesh: Where it is.
        link: The way to it.
        method, args: What to call.
        timeout: Seconds to wait; None for ever.

    Raises:
        ReplyTimeoutError: No answer in time.
        PyrokernelError: What the kernel raised, or why it could not be asked.
    """
    seconds = mesh.settings.timeout if timeout == USUAL else timeout
    values, errors, missing = gather(mesh, [link], kernel_request(method, *args), kind="control", timeout=seconds)
    if missing:
        message = f"kernel {link.name!r} did not answer {method} in {seconds:g} s"
        raise ReplyTimeoutError(message, seconds=seconds, missing=missing)
    if errors:
        raise errors.pop(link.name)  # which its traceback leads to by this frame
    return values[link.name]
