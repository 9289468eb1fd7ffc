"""A gateway, put together: who comes in, who is let out, and when they have to go. Runs in the gateway process."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import KernelUnreachableError, PyrokernelError, SettingsError
from pyrokernel.gateway.handing import Handing, Paper
from pyrokernel.gateway.newcomers import Newcomer, Newcomers
from pyrokernel.gateway.pump import Pump
from pyrokernel.gateway.routes import Routes
from pyrokernel.gateway.visitors import Visitor, Visitors, shown_name
from pyrokernel.loglimit import LogLimit
from pyrokernel.loop import Loop
from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.settings import PAPER, Settings, place_of
from pyrokernel.wire import endpoints, silence, sockets
from pyrokernel.wire.connection import IncomingMessage
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.greeting import heed_no_warnings, object_of, refusal, with_annotations
from pyrokernel.wire.handed import HAND
from pyrokernel.wire.introduction import FOR, introduced, unpack, way_in, words_for
from pyrokernel.wire.proxy import connect, dial_unix
from pyrokernel.wire.remote import DIAL_SECONDS, Credentials, dial
from pyrokernel.wire.tls import AnySocket, TlsSocket, keep_watch
from pyrokernel.wire.trust import Peer

log = logging.getLogger(__name__)

_DIALLING = 16
_ADMITTING = 64
_LOOK_SECONDS = 1.0
_SHUT_SECONDS = 0.2
_TELL_SECONDS = 60.0
"""A kernel in a long C call reads it after that, if somebody is still there."""
_MAX_CONNECTIONS = 4096
_SHARE = 4
"""No certificate has more than this part of them."""
_KEPT_DESCRIPTORS = 128
"""Descriptors that connections leave for all else."""


class Gateway:
    """Lets other machines in, and processes of this machine out.

    Args:
        settings: Where to listen, and what to show.
        runtime: Directory of the sockets of this mesh.
        way_out: Unix socket for processes of this machine.

    Raises:
        SettingsError: The address or the identity cannot be used.
        OSError: The address cannot be had.
    """

    def __init__(self, settings: Settings, runtime: Path, way_out: Path) -> None:
        heed_no_warnings()
        self.loop = Loop()
        self._settings = settings
        self._credentials = Credentials.of_host(settings)
        self._routes = Routes(runtime, settings.ns)
        self._most = _most_connections()
        self._visitors = Visitors(self.loop, settings, max(1, self._most // _SHARE), self._dismiss)
        self._dismissed: set[str] = set()
        """Those of whom the kernels are about to be told."""
        self._newcomers = Newcomers(self.loop, lambda: self._visitors.identity, self._visitors.note_failure)
        self._undecided: set[Newcomer] = set()
        """Those of whom the policy has not said yet what they may do."""
        self._pumps: set[Pump | Handing] = set()
        self._paper = None if settings.portable else Paper(runtime / PAPER)
        self._ways: dict[Pump, str] = {}
        self._dialling = ThreadPoolExecutor(_DIALLING, "pyrokernel-dial")
        self._admitting = ThreadPoolExecutor(_ADMITTING, "pyrokernel-admit")
        self._telling = ThreadPoolExecutor(_DIALLING, "pyrokernel-tell")
        self._listener = _listen_tcp(settings.listen)
        self._inner = endpoints.listen(way_out, portable=settings.portable)
        self._inner.sock.setblocking(False)
        for listener, accept in ((self._listener, self._admit_stranger), (self._inner.sock, self._admit_neighbour)):
            self._open_door(listener, accept)
        self._look_around()

    def run(self) -> None:
        """Serve until the loop is stopped."""
        try:
            self.loop.run()
        finally:
            for threads in (self._dialling, self._admitting, self._telling):
                threads.shutdown(wait=False, cancel_futures=True)
            self._listener.close()
            self._inner.close()
            self._newcomers.close()
            for newcomer in self._undecided:
                newcomer.sock.close()
            for pump in list(self._pumps):
                pump.close()
            self._visitors.close()
            self.loop.close()

    def _open_door(self, listener: socket.socket, accept: Callable[[socket.socket, Any], None]) -> None:
        """Accept whoever comes to a listener, one at a time."""
        trouble = LogLimit(log, "that happened %d more times in that second", most=1)

        def take() -> None:
            try:
                sock, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors
                trouble.warning("no connection can be taken: %s", error)
                # Others come in again when there are some; who is in does not wait for that.
                self.loop.watch_for(listener, 0, take)
                self.loop.after(_SHUT_SECONDS, lambda: self.loop.watch(listener, take))
                return
            accept(sock, address)

        self.loop.watch(listener, take)

    # In

    def _admit_stranger(self, sock: socket.socket, address: Any) -> None:
        if len(self._pumps) + len(self._newcomers) + len(self._undecided) >= self._most:
            self._newcomers.refusals.warning("refused %s: this machine has %d connections", _shown(address), self._most)
            sock.close()
            return
        sock.setblocking(False)
        keep_watch(sock)
        secured = TlsSocket(sock, self._visitors.context, server_side=True)
        self._newcomers.add(Newcomer(secured, _shown(address), self._on_stranger))

    def _on_stranger(self, newcomer: Newcomer, message: IncomingMessage) -> None:
        assert isinstance(newcomer.sock, TlsSocket)
        try:
            target, kernel = self._routes.find(object_of(message))
            annotations = message.body[: message.annotations_size]
            visitor = self._visitors.recognise(newcomer.sock, newcomer.address, kernel, annotations)
        except (PyrokernelError, OSError) as error:
            self._refuse(newcomer, message, error, shown_name(newcomer.sock))
            return
        self._undecided.add(newcomer)
        self._visitors.admit(visitor, functools.partial(self._on_decided, newcomer, message, target))

    def _on_decided(
        self, newcomer: Newcomer, message: IncomingMessage, target: Path, visitor: Visitor | PyrokernelError
    ) -> None:
        assert isinstance(newcomer.sock, TlsSocket)
        self._undecided.discard(newcomer)
        try:
            if isinstance(visitor, PyrokernelError):
                raise visitor
            asks = bool(visitor.kernel) and HAND in unpack(message.body[: message.annotations_size])
            inner, _ = dial_unix(str(target), 0)  # for a kernel that does not accept, all the others would wait
        except (PyrokernelError, OSError) as error:
            self._refuse(newcomer, message, error, shown_name(newcomer.sock))
            return
        peer = visitor.peer
        said = {FOR: words_for(peer.user, peer.role, newcomer.address, peer.kind, peer.through)}
        if asks and self._paper is not None and self._paper.is_here:
            said[HAND] = newcomer.sock.certificate()
            self._hand_on(newcomer.sock, inner, with_annotations(message, said), visitor)
            return
        pump = self._join(newcomer.sock, inner, with_annotations(message, said), self._visitors.forget)
        if pump is not None:
            self._visitors.note(pump, visitor)

    def _hand_on(self, near: TlsSocket, inner: socket.socket, greeting: bytes, visitor: Visitor) -> None:
        """Ask a kernel whether it takes a connection, and pump what is said on it where it does not."""

        def ended(handing: Handing) -> None:
            self._pumps.discard(handing)
            self._visitors.forget(handing)

        def declined(handing: Handing, answer: bytes) -> None:
            ended(handing)
            pump = self._join(inner, near, answer, self._visitors.forget)
            if pump is not None:
                self._visitors.note(pump, visitor)

        if not self._greet(near, inner, greeting):
            return
        handing = Handing(self.loop, near, inner, ended, declined)
        self._pumps.add(handing)
        self._visitors.note(handing, visitor)

    def _dismiss(self, peer: Peer) -> None:
        """Have no kernel begin anything more that somebody has asked for."""
        who = peer.identity
        if who in self._dismissed:  # by another connection
            return
        self._dismissed.add(who)
        told = [self._telling.submit(_tell_dismissed, path, who) for path in self._routes.kernels()]
        self.loop.call(functools.partial(self._dismissed.discard, who))  # after all that are sent away with this one
        for future in told:
            future.add_done_callback(_note_untold)

    # Out

    def _admit_neighbour(self, sock: socket.socket, _: Any) -> None:
        # On threads of its own: where it has to prove itself, that takes as long as the other end likes.
        admitted = self._admitting.submit(self._inner.admit, sock)
        admitted.add_done_callback(lambda _: self.loop.call(lambda: self._on_admitted(sock, admitted)))

    def _on_admitted(self, sock: socket.socket, admitted: Future[Peer]) -> None:
        error = admitted.exception()
        if error is not None:
            if not isinstance(error, OSError):
                raise error
            self._newcomers.refusals.warning("refused a process of this machine: %s", error)
            sock.close()
            return
        sock.setblocking(False)
        self._newcomers.add(Newcomer(sock, "", functools.partial(self._on_neighbour, admitted.result())))

    def _on_neighbour(self, neighbour: Peer, newcomer: Newcomer, message: IncomingMessage) -> None:
        try:
            annotations = unpack(message.body[: message.annotations_size])
            way = way_in(annotations)
            peer = introduced(neighbour, annotations)
        except (PyrokernelError, OSError) as error:
            self._refuse(newcomer, message, error)
            return
        dialled = self._dialling.submit(
            dial, way.host, way.port, DIAL_SECONDS, self._credentials, stock=way.stock, machine=way.machine
        )

        def done(_: object) -> None:
            found = dialled.exception() or dialled.result()
            self.loop.call(lambda: self._on_dialled(newcomer, message, peer, found))

        dialled.add_done_callback(done)

    def _on_dialled(
        self, newcomer: Newcomer, message: IncomingMessage, peer: Peer, found: BaseException | tuple[AnySocket, Peer]
    ) -> None:
        if isinstance(found, BaseException):
            ours = not isinstance(found, (PyrokernelError, OSError))
            told = KernelUnreachableError("a mistake in the gateway: see gateway.log") if ours else found
            self._refuse(newcomer, message, told)
            if ours:
                raise found
            return
        sock, _ = found
        address = sock.address if isinstance(sock, TlsSocket) else ""
        # Who says nothing of others goes as this host: the name of an account means nothing elsewhere.
        said = {FOR: words_for(peer.user, peer.role)} if address and peer.kind != "account" else {}
        pump = self._join(newcomer.sock, sock, with_annotations(message, said), self._forget_way)
        if pump is not None and address:
            self._ways[pump] = address

    def _forget_way(self, pump: Pump) -> None:
        """It has ended; if that is because nothing is heard of a machine, so do all the others that lead there."""
        address = self._ways.pop(pump, "")
        if silence.is_silent(address):
            for other in [other for other, leads_to in self._ways.items() if leads_to == address]:
                other.close()

    # Both

    def _join(self, near: AnySocket, far: AnySocket, greeting: bytes, on_end: Callable[[Pump], None]) -> Pump | None:
        """Let two sockets talk to each other, the second one hearing the greeting first."""

        def ended(pump: Pump) -> None:
            self._pumps.discard(pump)
            on_end(pump)

        if not self._greet(near, far, greeting):
            return None
        pump = Pump(self.loop, near, far, ended)
        self._pumps.add(pump)
        pump.begin()
        return pump if pump in self._pumps else None

    def _greet(self, near: AnySocket, far: AnySocket, greeting: bytes) -> bool:
        """Send the first message to the second one of two sockets; where it does not take it, hang up on both."""
        try:
            far.setblocking(False)
            sent = far.send(greeting, sockets.NOW)
            if sent != len(greeting):  # a few hundred bytes, the first on this socket
                raise BlockingIOError("the socket takes nothing")
        except OSError as error:
            self._newcomers.refusals.warning("a connection was lost in its first moment: %s", error)
            near.close()
            far.close()
            return False
        return True

    def _refuse(self, newcomer: Newcomer, message: IncomingMessage, error: BaseException, who: str = "") -> None:
        """Say why, and hang up."""
        with contextlib.suppress(OSError):
            newcomer.sock.send(refusal(message, error), sockets.NOW)
            newcomer.sock.shutdown(socket.SHUT_RDWR)
        self._newcomers.refuse(newcomer, str(error), who)

    def _look_around(self) -> None:
        """See what has changed on disk, and who has to go."""
        self.loop.after(_LOOK_SECONDS, self._look_around)
        self._newcomers.refusals.settle()
        now = time.monotonic()
        self._visitors.look_around()
        for pump in [pump for pump in self._pumps if pump.is_stuck(now)]:
            pump.close()
        for pump in list(self._pumps):
            pump.check_heard()


def _tell_dismissed(path: Path, identity: str) -> None:
    """Have one kernel begin nothing more of what somebody has asked for."""
    connection = connect(f"PYRO:{KERNEL_OBJECT}@./u:{path}", kind="control")
    try:
        ask_directly(connection, KERNEL_OBJECT, "dismiss", (identity,), _TELL_SECONDS)
    finally:
        connection.close()


def _note_untold(told: Future[None]) -> None:
    if not told.cancelled() and (error := told.exception()) is not None:
        log.warning("a kernel was not told of whom it is to begin nothing more: %s", error)


def _most_connections() -> int:
    """Return how many connections there are descriptors for: each takes two."""
    resource = systems.limits()
    if resource is None:
        return _MAX_CONNECTIONS
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, (limit - _KEPT_DESCRIPTORS) // 2))


def _listen_tcp(address: str) -> socket.socket:
    host, port = place_of(address, "listen")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let another account listen at the same port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} of {host} is in use; name another one (--listen HOST:PORT; of `nameserver` -p PORT), or "
                "end what listens there (`ss -ltnp` names it)"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(
                f"{host} is no address of this machine; use one of its own, and name what leads there from elsewhere "
                "with --advertise HOST:PORT (of `nameserver`: --nathost, --natport)"
            ) from error
        if isinstance(error, socket.gaierror):
            raise SettingsError(
                f"this machine knows no address for the name {host} ({error.strerror}); listen at an address, or add "
                "the name to /etc/hosts or the DNS"
            ) from error
        raise OSError(error.errno, f"cannot listen at {address}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
