"""One thread that reads requests, has them carried out, and answers. Runs in the main thread of the state process.

Requests that have arrived together are carried out together and made durable by one commit, before
any of them is answered: many clients cost little more than one. A request that waits for something
is parked, and answered from the write that it waited for. Nobody holds up anybody: what a socket
does not take at once is kept, at most one answer for each connection, until it takes more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pyrokernel.errors import ProtocolError, PyrokernelError, StateStorageError, error_to_wire
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.state.engine import Engine
from pyrokernel.state.parked import Parked, Wait
from pyrokernel.state.service import Caller, StateService
from pyrokernel.wire import codec
from pyrokernel.wire.admission import OnRefused, request_in
from pyrokernel.wire.alertness import Alertness
from pyrokernel.wire.connection import (
    FLAGS_EXCEPTION,
    MSG_INVOKE,
    MSG_RESULT,
    Connection,
    EagerReader,
    IncomingMessage,
    frame,
    send_now,
)
from pyrokernel.wire.exposing import refusal
from pyrokernel.wire.limits import HARDLY_ANYTHING_SECONDS, HARDLY_SECONDS, PATIENCE_SECONDS, Limits, Quota
from pyrokernel.wire.opcodes import MAX_REQUEST_BYTES, SmallRequest
from pyrokernel.wire.trust import Peer, is_own

log = logging.getLogger(__name__)

T = TypeVar("T")

_IDLE_SECONDS = 0.2
"""After so long without a request there is time for upkeep."""
_PRUNED_AT_ONCE = 500
"""Rows looked at between two requests, when there are too many."""
_KNOWN_TURNS = 1000
_NOWHERE = "~early"
"""A space in which nothing is ever written."""
_STORAGE_SECONDS = 0.5
"""When the disk was full for what nobody asked for (expiry, upkeep), it is tried again after so long."""


class _Halfway(Exception):
    """A request failed after some of it was written."""

    def __init__(self, error: PyrokernelError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclasses.dataclass(eq=False)
class _Later(Wait):
    """A request of somebody who may only look, whose turn has not come."""

    message: IncomingMessage | None = None


class _Client:
    """A connection, and where it stands: reading, waiting for an answer, or taking one."""

    __slots__ = ("caller", "connection", "seq", "unsent", "wait")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.reader = EagerReader()
        peer = connection.peer
        if not peer.may_run_code:
            connection.reader = EagerReader(MAX_REQUEST_BYTES)
        # Names of files are for this very account: what a terminal server or a gateway speaks for is nowhere near.
        nearby = bool(connection.greeting.get("files")) and is_own(peer)
        self.caller = Caller(user=peer.author, role=peer.role, pid=peer.pid, nearby=nearby)
        self.seq = 0
        self.wait: Wait | None = None
        self.unsent: list[codec.Buffer] = []


class Desk:
    """Serves connections until it is stopped.

    Args:
        engine, service: What it has carried out.
        on_close: Called with each connection that has ended.
        limits: How much one user may ask for.
        on_refused: Told who asked for what, and which role that takes.
    """

    def __init__(
        self,
        engine: Engine,
        service: StateService,
        on_close: Callable[[Connection], None],
        limits: Limits | None = None,
        on_refused: OnRefused = lambda peer, what, role: None,
    ) -> None:
        self._engine, self._service = engine, service
        self._on_close = on_close
        self._limits = limits or Limits(Quota())
        self._on_refused = on_refused
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._arrivals: deque[Connection] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._parked = Parked()
        self._answers: list[tuple[_Client, Any]] = []
        self._woken: list[tuple[Wait, _Client]] = []
        self._newly_parked: list[tuple[Wait, _Client]] = []
        self._turns: dict[str, float] = {}
        """By whose certificate it is, when they who may only look are served next: a quarter of the time is theirs."""
        self._stopped = False
        self._upkeep_due = False
        self._is_alert = False
        self._alertness = Alertness()
        self._not_before = 0.0

    # Other threads

    def adopt(self, connection: Connection) -> None:
        """Take over a connection after its handshake (any thread)."""
        connection.sock.setblocking(False)
        self._arrivals.append(connection)
        self._wake()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have something done between requests, and made durable (any thread)."""
        future: Future[T] = Future()
        self._jobs.append((job, future))
        self._wake()
        return future

    def stop(self) -> None:
        """Let `run` return (any thread, or a signal handler)."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            self._wake_in.send(b"\0")

    # The loop

    def run(self) -> None:
        """Serve until stopped."""
        while not self._stopped:
            self._round()

    def _round(self) -> None:
        events = self._look() or self._selector.select(self._pause())
        requests: list[tuple[_Client, IncomingMessage]] = []
        for key, mask in events:
            if key.fileobj is self._wake_out:
                self._take_arrivals()
                continue
            client: _Client = key.data
            if mask & selectors.EVENT_WRITE:
                self._flush(client)
            if mask & selectors.EVENT_READ:
                message = self._read(client)
                if message is not None:
                    requests.append((client, message))
        if requests:
            self._carry_out(requests)
            self._upkeep_due = True
            self._is_alert = True
        while self._jobs:
            self._do_job(*self._jobs.popleft())
        now = time.monotonic()
        if now >= max(self._engine.next_expiry(), self._not_before):
            self._settle(self._engine.expire)
        if now >= self._parked.next_deadline():
            self._answer_late(now)
        if not events and self._upkeep_due and now >= self._not_before:
            self._keep_up()

    def _answer_late(self, now: float) -> None:
        """Answer those whose time is over, and carry out what somebody has asked whose turn has come."""
        for wait, client in self._parked.late(now):
            client.wait = None
            if isinstance(wait, _Later) and wait.message is not None:
                self._carry_out([(client, wait.message)])
            else:
                self._reply(client, wait.give_up())

    def _look(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what has come, or comes in a moment; [] when it is time to sleep."""
        if not self._is_alert:
            return []
        self._is_alert = False
        return self._alertness.look_out(functools.partial(self._selector.select, 0))

    def _pause(self) -> float | None:
        """Return how long to wait for the next event, None for ever."""
        moment = min(max(self._engine.next_expiry(), self._not_before), self._parked.next_deadline())
        pause = moment - time.monotonic() if moment != float("inf") else None
        if self._upkeep_due:
            pause = _IDLE_SECONDS if pause is None else min(pause, _IDLE_SECONDS)
        return None if pause is None else max(0.0, pause)

    def _take_arrivals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        while self._arrivals:
            connection = self._arrivals.popleft()
            client = _Client(connection)
            with contextlib.suppress(ValueError, OSError):  # closed again meanwhile
                self._selector.register(connection.sock, selectors.EVENT_READ, client)
                self._service.arrive(client.caller)

    def _read(self, client: _Client) -> IncomingMessage | None:
        """Take what has arrived; a connection that breaks the rules, or has ended, is left."""
        try:
            message = client.connection.reader.read(client.connection.sock)
            if message is None:
                return None
            if client.wait is not None or client.unsent or not client.connection.reader.idle:
                raise ProtocolError("a second request before the answer to the first")
            if message.serializer_id != codec.SERIALIZER_ID or message.type != MSG_INVOKE:
                raise ProtocolError("this connection speaks our codec only")
        except Exception as error:  # noqa: BLE001  whatever a peer sends or breaks ends its connection, never the service
            self._leave(client, error)
            return None
        return message

    def _carry_out(self, requests: list[tuple[_Client, IncomingMessage]]) -> None:
        """Carry out requests with one commit; if that fails, one by one, so that each fails for itself."""
        try:
            for client, message in requests:
                self._handle(client, message)
            self._commit()
        except (StateStorageError, _Halfway) as error:
            self._undo()
            if len(requests) == 1:
                self._reply_error(requests[0][0], error.error if isinstance(error, _Halfway) else error)
                return
            for request in requests:
                self._carry_out([request])

    def _handle(self, client: _Client, message: IncomingMessage) -> None:
        """Carry out one request; its answer waits for the commit.

        Raises:
            StateStorageError: It cannot be kept.
            _Halfway: It failed, and not at the beginning.
        """
        client.seq = message.seq
        mark, begun = self._engine.mark(), time.monotonic()
        try:
            answer = self._later(client, message) or self._ask(client, message)
        except StateStorageError:
            raise
        except PyrokernelError as error:
            if self._engine.mark() != mark:
                raise _Halfway(error) from error
            self._answers.append((client, error))
            return
        finally:
            self._note_turn(client, begun)
        if isinstance(answer, Wait):
            self._park(answer, client)
            self._newly_parked.append((answer, client))
            return
        self._answers.append((client, answer))

    def _later(self, client: _Client, message: IncomingMessage) -> Wait | None:
        """Return what waits for the turn of somebody who may only look, None if that has come."""
        peer = client.connection.peer
        if peer.may_run_code:
            return None
        turn = self._turns.get(peer.bearer, 0.0)
        if turn <= time.monotonic():
            return None
        return _Later(_NOWHERE, "", lambda _: None, lambda: None, turn, message=message)

    def _note_turn(self, client: _Client, begun: float) -> None:
        """Note how long was worked for somebody who may only look."""
        peer = client.connection.peer
        if peer.may_run_code:
            return
        now = time.monotonic()
        if now - begun > HARDLY_ANYTHING_SECONDS:
            if len(self._turns) > _KNOWN_TURNS:
                self._turns = {whose: turn for whose, turn in self._turns.items() if turn > now}
            turn = max(now, self._turns.get(peer.bearer, 0.0)) + 3 * (now - begun)
            self._turns[peer.bearer] = min(turn, now + PATIENCE_SECONDS)

    def _ask(self, client: _Client, message: IncomingMessage) -> Any:
        """Return what the service answers to a message.

        Raises:
            PyrokernelError: Whatever is wrong with it.
        """
        peer = client.connection.peer
        early = self._limits.early(peer)
        if 0 < early <= HARDLY_SECONDS:
            time.sleep(early)
        elif early > 0:
            # Told after a moment, in which it cannot ask for more: the others have this thread meanwhile.
            refused = self._limits.refusal(peer)
            return Wait(_NOWHERE, "", lambda _: None, lambda: refused, time.monotonic() + PATIENCE_SECONDS)
        name, method, args, kwargs = self._open(peer, message)
        try:
            return method(client.caller, *args, **kwargs)
        except PyrokernelError:
            raise
        except Exception as error:  # whatever arguments that do not fit lead to is their sender's, and nobody else's
            log.info("a request %s that does not fit: %r", name, error)
            raise ProtocolError(f"{name} was asked in a way it cannot be: {error!r:.200}") from error

    def _open(self, peer: Peer, message: IncomingMessage) -> tuple[str, Callable[..., Any], Any, Any]:
        """Return the name of a method, it, and its arguments, which are read only from whoever may call it.

        Raises:
            PyrokernelError: Whatever is wrong with the request.
        """
        request = None
        if peer.may_run_code:
            object_id, name, args, kwargs = request_in(message)
        else:
            request = SmallRequest(message.payload)
            object_id, name = request.object_id, request.method
        if object_id != STATE_OBJECT:
            raise ProtocolError(f"no object {object_id!r:.80} is served here")
        method, role = self._service.find(name)
        if peer.role < role:
            self._on_refused(peer, f"shared.{name}", role)
            raise refusal(peer, f"`{name}` of the shared state", role)
        if request is not None:
            args, kwargs = request.arguments()
        return name, method, args, kwargs

    def _commit(self) -> None:
        """Answer those who waited for what was written, make all of it last, then send the answers."""
        rows = self._engine.written
        while rows:
            self._engine.written = []
            self._service.forget_batch()  # what was answered before these rows were there
            before = rows[0].revision - 1
            for wait, client in self._parked.concerned(rows):
                try:
                    answer = wait.attempt(before)
                except StateStorageError:
                    raise
                except Exception as error:  # noqa: BLE001  as in `_ask`; they checked what they could when they came
                    answer = error if isinstance(error, PyrokernelError) else ProtocolError(f"{error!r:.200}")
                if answer is not None:
                    self._unpark(wait, client)
                    self._woken.append((wait, client))
                    self._answers.append((client, answer))
            rows = self._engine.written  # a lock that passed on is a write too
        self._service.forget_batch()
        self._engine.commit()
        self._woken.clear()
        self._newly_parked.clear()
        answers, self._answers = self._answers, []
        for client, answer in answers:
            self._reply(client, answer)

    def _undo(self) -> None:
        """Undo what could not be made durable; whoever was about to be told of it waits on."""
        self._answers.clear()
        for wait, client in self._newly_parked:
            self._unpark(wait, client)
        for wait, client in self._woken:
            self._park(wait, client)
        self._woken.clear()
        self._newly_parked.clear()
        self._service.forget_batch()
        self._engine.rollback()

    def _settle(self, change: Callable[[], Any]) -> None:
        """Make a change that nobody asked for."""
        try:
            change()
            self._commit()
        except StateStorageError as error:
            log.warning("%s", error)
            self._undo()
            self._not_before = time.monotonic() + _STORAGE_SECONDS

    def _do_job(self, job: Callable[[], Any], future: Future[Any]) -> None:
        try:
            value = job()
            self._commit()
        except Exception as error:  # noqa: BLE001  it is told to whoever waits
            self._undo()
            future.set_exception(error)
        else:
            future.set_result(value)

    def _park(self, wait: Wait, client: _Client) -> None:
        client.wait = wait
        self._parked.add(wait, client)

    def _unpark(self, wait: Wait, client: _Client) -> None:
        client.wait = None
        self._parked.remove(wait)

    # Answers

    def _reply(self, client: _Client, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._reply_error(client, answer)
            return
        begun = time.monotonic()
        try:
            payload = codec.encode(answer)
        except PyrokernelError as error:  # too large for one message
            self._reply_error(client, error)
            return
        finally:
            self._note_turn(client, begun)
        self._send(client, frame(MSG_RESULT, payload, seq=client.seq))

    def _reply_error(self, client: _Client, error: Exception) -> None:
        payload = codec.encode(error_to_wire(error))
        self._send(client, frame(MSG_RESULT, payload, seq=client.seq, flags=FLAGS_EXCEPTION))

    def _send(self, client: _Client, buffers: list[codec.Buffer]) -> None:
        client.unsent = buffers
        self._flush(client, fresh=True)

    def _flush(self, client: _Client, *, fresh: bool = False) -> None:
        """Send what the socket takes; the rest when it takes more."""
        try:
            client.unsent = send_now(client.connection.sock, client.unsent)
        except OSError as error:
            client.unsent = []
            self._leave(client, error)
            return
        if client.unsent or not fresh:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            self._selector.modify(client.connection.sock, wanted, client)

    def _leave(self, client: _Client, error: Exception) -> None:
        """Forget a connection, with what it waited for and what was to end with it."""
        try:
            self._selector.unregister(client.connection.sock)
        except (KeyError, ValueError):  # it is forgotten already
            return
        log.debug("connection of pid %s ended: %r", client.connection.peer.pid, error)
        if client.wait is not None:
            self._unpark(client.wait, client)
        self._on_close(client.connection)
        caller = client.caller
        self._jobs.append((lambda: self._service.leave(caller), Future()))
        self._wake()

    # Upkeep

    def _keep_up(self) -> None:
        """Do a piece of what nobody waits for; the next when nobody has come meanwhile."""
        pruned = 0

        def prune() -> None:
            nonlocal pruned
            pruned = self._engine.prune(_PRUNED_AT_ONCE)

        self._settle(prune)
        if pruned < _PRUNED_AT_ONCE:
            self._engine.store.idle()
            self._upkeep_due = False
