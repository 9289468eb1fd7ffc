"""One request to many kernels: encoded once, written to all, gathered by one loop. Runs in the caller's process.

Whatever is large goes through here, and whatever is not answered in a moment: one way to send,
one way to wait, one deadline. (`direct` is for the rest.) A `Fanout` belongs to one thread;
connections it still waits on when it is closed are dropped, because their replies
would reach the next caller.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import selectors
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from Pyro5.errors import ConnectionClosedError

from pyrokernel.errors import (
    AccessRefusedError,
    KernelConnectionError,
    MachineLostError,
    ProtocolError,
    VersionMismatchError,
    error_from_wire,
)
from pyrokernel.wire import codec
from pyrokernel.wire.alertness import HEED_SECONDS
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
from pyrokernel.wire.proofs import Unproven
from pyrokernel.wire.proxy import read_greeting
from pyrokernel.wire.segments import Freight
from pyrokernel.wire.silence import is_silence
from pyrokernel.wire.tls import TlsSocket

__all__ = ["Answer", "ConnectionLost", "Fanout", "Request", "open_answer"]

_sequence = itertools.count(1)

_LISTEN_SECONDS = 0.25
"""How often to look whether other machines acknowledge what they were sent."""


class ConnectionLost(Exception):
    """A connection ended while a reply was due; the caller finds out why."""


class Request:
    """A call, encoded once and sent to any number of connections.

    Args:
        object_id, method: What to call.
        args, kwargs: Plain data and `Packed` values.
        cell: Id that identifies the request wherever it is sent, "" for none.
        freight: What its large buffers share a segment with; None for nothing.
        attach: Send that segment in any case: the other side writes to it.

    Attributes:
        bulky: Whether it has so large buffers that they go beside it, in a segment, where that can be.
        is_short: Whether a socket on which nothing is under way takes it at once.

    Raises:
        NotSerializableError, MessageTooLargeError: As `codec.encode`.
    """

    __slots__ = ("_beside", "_encoded", "_freight", "_place", "buffers", "bulky", "cell", "is_short", "method", "seq")

    def __init__(
        self,
        object_id: str,
        method: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        cell: str = "",
        freight: Freight | None = None,
        attach: bool = False,
    ) -> None:
        self.seq = next(_sequence) & 0xFFFF
        self.method = method
        self.cell = cell
        stream, views = codec.dump_envelope((object_id, method, tuple(args), kwargs or {}))
        self.buffers = frame(MSG_INVOKE, codec.inline(stream, views), seq=self.seq, cell=cell)
        self.bulky = attach or (bool(views) and codec.is_bulky(views))
        self.is_short = len(self.buffers) == 1 and not self.bulky
        if self.bulky:
            self._encoded, self._freight = codec.Encoded(stream, views), freight or Freight()
            self._place = self._freight.reserve(self._encoded.room)
            self._beside: list[codec.Buffer] | None = None

    def buffers_for(self, connection: Connection) -> list[codec.Buffer]:
        """Return what is to be written to a connection; the segment is filled once, for all of them."""
        if not self.bulky or not connection.segments:
            return self.buffers
        if self._beside is None:
            payload = codec.in_segment(self._encoded, self._freight, self._place)
            if payload is None:
                return self.buffers
            self._beside = frame(MSG_INVOKE, payload, seq=self.seq, cell=self.cell)
        return self._beside


class Answer(NamedTuple):
    """What came back for one request on one connection.

    Attributes:
        token: What the sender gave to recognise it by.
        connection: Where it came from.
        value: The decoded envelope, when `error` is None.
        error: What the other side raised, or `ConnectionLost`.
    """

    token: Hashable
    connection: Connection
    value: Any = None
    error: Exception | None = None

    @property
    def lost(self) -> bool:
        """Whether the connection ended instead of answering."""
        return isinstance(self.error, ConnectionLost)

    @property
    def machine_lost(self) -> bool:
        """Whether that was because nothing is heard of the other machine."""
        error = self.error
        return isinstance(error, MachineLostError) or (error is not None and is_silence(error.__cause__))


def open_answer(message: IncomingMessage, seq: int) -> tuple[Any, Exception | None]:
    """Return what came back for the request of this number: a value, or what the other side raised.

    Raises:
        ProtocolError: It is no answer, or not to that request.
    """
    if message.seq != seq or message.type != MSG_RESULT or message.serializer_id != codec.SERIALIZER_ID:
        raise ProtocolError("the answer does not belong to the request")
    value = message.decode()
    if message.flags & FLAGS_EXCEPTION and not isinstance(value, dict):
        raise ProtocolError("the answer says that something failed, and not what")
    return (None, error_from_wire(value)) if message.flags & FLAGS_EXCEPTION else (value, None)


class _Lane:
    """What is under way on one connection: bytes still to write, requests still to be answered."""

    __slots__ = ("connection", "due", "held", "unsent", "writing")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.held: list[Request] = []
        self.unsent: list[codec.Buffer] = []
        self.due: deque[tuple[int, Hashable]] = deque()
        self.writing = False


class Fanout:
    """Sends requests and yields answers as they arrive, over one selector.

    Several requests may be under way on one connection; they are answered in order.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lanes: dict[Connection, _Lane] = {}
        self._ready: deque[Answer] = deque()
        self._waiting: set[_Lane] = set()
        self._together: set[_Lane] | None = None
        self._remote: set[_Lane] = set()
        self._listened = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """How many requests have no answer yet."""
        return sum(len(lane.due) for lane in self._lanes.values()) + len(self._ready)

    def send(self, connection: Connection, request: Request, token: Hashable) -> None:
        """Send a request; what the socket does not take at once is written by `answers`."""
        lane = self._lanes.get(connection)
        if lane is None:
            lane = self._lanes[connection] = _Lane(connection)
            try:
                self._register(lane)
            except (ValueError, KeyError, OSError):
                self._ready.append(Answer(token, connection, error=ConnectionLost("the connection is closed")))
                del self._lanes[connection]
                return
        lane.due.append((request.seq, token))
        self._waiting.add(lane)
        if lane.held or (request.bulky and connection.wants_segments and not connection.greeted):
            lane.held.append(request)  # how it travels is settled by the greeting
            return
        lane.unsent.extend(request.buffers_for(connection) if request.bulky else request.buffers)
        if self._together is None:
            self._write(lane)
        else:
            self._together.add(lane)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write what is sent meanwhile at the end, with one system call a connection where that is enough."""
        self._together = lanes = set[_Lane]()
        try:
            yield
        finally:
            self._together = None
            for lane in lanes:
                if self._lanes.get(lane.connection) is lane:
                    self._write(lane)

    def answers(self, deadline: float | None = None) -> Iterator[Answer]:
        """Yield answers as they arrive, until none is due or the deadline has passed.

        Requests may be sent between two answers.

        Args:
            deadline: Monotonic moment at which to stop; None for no limit. What is still
                pending then can be seen from `pending`.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            if not self._waiting:
                return
            timeout = None if deadline is None else deadline - time.monotonic()
            longest = _LISTEN_SECONDS if self._remote else HEED_SECONDS
            self._poll(longest if timeout is None else min(max(timeout, 0), longest))
            if self._remote:
                self._listen_for_silence()
            if timeout is not None and timeout <= 0 and not self._ready:
                return

    def adopt(self, connection: Connection, seq: int, token: Hashable) -> None:
        """Wait for the answer to a request that another `Fanout` sent and left with `detach`, or `wire.direct` sent."""
        lane = self._lanes[connection] = _Lane(connection)
        lane.due.append((seq, token))
        self._waiting.add(lane)
        self._register(lane)

    def detach(self, connection: Connection) -> bool:
        """Leave a connection with its one request under way, for another `Fanout`; False if it is gone."""
        lane = self._lanes.pop(connection, None)
        if lane is None:
            return False
        self._waiting.discard(lane)
        self._remote.discard(lane)
        self._selector.unregister(connection.sock)
        return True

    def has_more(self, connection: Connection) -> bool:
        """Whether something of a connection is here that `answers` have not yielded yet."""
        if any(answer.connection is connection for answer in self._ready):
            return True
        return connection in self._lanes and connection.has_input

    def release(self, connection: Connection) -> None:
        """Take an idle connection out of the loop, so that another `Fanout` can use it."""
        lane = self._lanes.pop(connection, None)
        if lane is not None:
            self._waiting.discard(lane)
            self._remote.discard(lane)
            with contextlib.suppress(KeyError, ValueError):  # Ctrl-C came before it was registered
                self._selector.unregister(connection.sock)
            if lane.due:
                connection.close()

    def close(self) -> None:
        """Leave the loop; connections with answers still due are closed."""
        for lane in self._lanes.values():
            if lane.due:
                lane.connection.close()
        self._lanes.clear()
        self._waiting.clear()
        self._remote.clear()
        self._selector.close()  # and with it what it was told of each

    def _register(self, lane: _Lane) -> None:
        sock = lane.connection.sock
        if sock.gettimeout() is None:  # `wire.direct` has used it
            sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, lane)
        if isinstance(sock, TlsSocket):
            self._remote.add(lane)

    def _listen_for_silence(self) -> None:
        """Lose the connections to machines that do not acknowledge anything any more."""
        now = time.monotonic()
        if now - self._listened < _LISTEN_SECONDS:
            return
        self._listened = now
        for lane in list(self._remote):
            try:
                lane.connection.sock.check_heard()
            except OSError as error:
                self._lose(lane, error)

    def _poll(self, timeout: float) -> bool:
        """Move bytes once; say whether anything happened."""
        events = self._selector.select(timeout)
        for key, mask in events:
            lane: _Lane = key.data
            if mask & selectors.EVENT_WRITE:
                self._write(lane)
            if mask & selectors.EVENT_READ and lane.connection in self._lanes:
                self._read(lane)
        return bool(events)

    def _send_held(self, lane: _Lane) -> None:
        """Send what waited for the greeting."""
        if lane.held:
            held, lane.held = lane.held, []
            for request in held:
                lane.unsent.extend(request.buffers_for(lane.connection))
            self._write(lane)

    def _write(self, lane: _Lane) -> None:
        try:
            lane.unsent = send_now(lane.connection.sock, lane.unsent)
        except OSError as error:
            # The kernel may have answered before it went: read what is there first.
            lane.unsent = []
            if lane.connection.sock.fileno() < 0:
                self._lose(lane, error)
                return
        # One that has not proved itself yet takes no more than it did; `_read` goes on when it has.
        wanted = bool(lane.unsent) and not isinstance(lane.connection.sock, Unproven)
        if wanted != lane.writing:
            lane.writing = wanted
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            self._selector.modify(lane.connection.sock, events, lane)

    def _read(self, lane: _Lane) -> None:
        connection, reader = lane.connection, lane.connection.reader
        try:
            message = reader.read(connection.sock)
            while message is not None:
                # What came together with it: an eager reader has it already, and tells nobody again.
                follows = reader.next if isinstance(reader, EagerReader) else None
                if connection.greeted:
                    self._take(lane, message)
                else:
                    read_greeting(connection, message)
                    self._send_held(lane)
                    follows = follows or functools.partial(reader.read, connection.sock)
                message = None if follows is None else follows()
            if lane.unsent and not lane.writing:
                self._write(lane)
        except (KernelConnectionError, VersionMismatchError, AccessRefusedError) as error:
            self._end(lane, error)
        except (OSError, ConnectionClosedError, ProtocolError) as error:
            self._lose(lane, error)

    def _take(self, lane: _Lane, message: IncomingMessage) -> None:
        """Put an answer where `answers` finds it."""
        if not lane.due:
            raise ProtocolError("an answer that nobody asked for")
        seq, token = lane.due[0]
        value, error = open_answer(message, seq)
        lane.due.popleft()
        if not lane.due:
            self._waiting.discard(lane)
        self._ready.append(Answer(token, lane.connection, value, error))

    def _lose(self, lane: _Lane, cause: BaseException) -> None:
        """Report every answer still due on a connection as lost."""
        lost = ConnectionLost(str(cause) or type(cause).__name__)
        lost.__cause__ = cause
        self._end(lane, lost)

    def _end(self, lane: _Lane, error: Exception) -> None:
        """Close a connection; everything still due on it gets this error."""
        connection = lane.connection
        del self._lanes[connection]
        self._remote.discard(lane)
        self._selector.unregister(connection.sock)
        connection.close()
        for _, token in lane.due:
            self._ready.append(Answer(token, connection, error=error))
        lane.due.clear()
        self._waiting.discard(lane)
