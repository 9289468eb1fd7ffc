"""One connection: a socket that carries Pyro messages, vectored and read piece by piece. Runs in every process.

`MessageReader` never waits for more than has arrived, so one slow peer cannot hold up a
selector loop; `Connection` adds what a Pyro daemon expects of a connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from Pyro5.errors import ConnectionClosedError
from Pyro5.protocol import (
    FLAGS_COMPRESSED,
    FLAGS_CORR_ID,
    FLAGS_EXCEPTION,
    MSG_INVOKE,
    MSG_RESULT,
    PROTOCOL_VERSION,
)
from Pyro5.socketutil import SocketConnection

from pyrokernel.errors import ProtocolError, SettingsError
from pyrokernel.wire import codec, sockets
from pyrokernel.wire.alertness import Alertness
from pyrokernel.wire.arrivals import Arrival, receive
from pyrokernel.wire.codec import MAX_PAYLOAD_BYTES, SERIALIZER_ID, Buffer
from pyrokernel.wire.memory import own_memory
from pyrokernel.wire.proofs import Unproven
from pyrokernel.wire.segments import Attached, Freight
from pyrokernel.wire.tls import AnySocket, TlsSocket
from pyrokernel.wire.trust import Peer

__all__ = [
    "FLAGS_COMPRESSED",
    "FLAGS_EXCEPTION",
    "HEADER_BYTES",
    "MSG_INVOKE",
    "MSG_RESULT",
    "Connection",
    "EagerReader",
    "IncomingMessage",
    "MessageReader",
    "frame",
    "peek",
    "peek_cell",
    "send_now",
]

# The 40 bytes that open each Pyro 5 message: Pyro5/protocol.py, _header_format.
_HEADER = struct.Struct("!4sHBBHHII16sHH")
HEADER_BYTES = _HEADER.size
_MAGIC = 0x4DC5
_NO_ID = bytes(16)

_FLAGS_SEGMENT = 1 << 12
"""A segment comes with the first bytes of the body. None of Pyro's own flags; only in our codec."""

_MMAP_FROM_BYTES = 256 * 1024
"""Above this a body is received into memory of `wire.memory`: page-aligned, and not zeroed first as a bytearray is."""

_EAGER_BYTES = 64 * 1024
"""Taken with one call where a whole message may have arrived."""

_UNREAD_ANSWERS = 8
"""Segments of a process that wait unread in sockets; further answers go through the sockets, which are bounded."""

_NOTHING = memoryview(b"")

_JOINED_BYTES = 4096
"""A payload up to this is copied behind its header, so that one buffer is all there is to send."""

PIECE_BYTES = 1 << 30
"""Larger messages are cut: Pyro's own default for one message. A segment is never cut."""

_IOV_MAX = 512
"""Buffers handed to one sendmsg; the system's limit is 1024."""

_STALL_SECONDS = 60.0
"""A receiver that takes nothing for so long is given up."""


class IncomingMessage:
    """A message as received; the payload is not decoded.

    Attributes:
        type, flags, seq, serializer_id: As in the Pyro header.
        corr_id: The correlation id as bytes, b"" for none.
        header: The 40 bytes themselves.
        size: Bytes of `body`, or of the first piece of it.
        pieces: How many messages follow that are further pieces of this one.
        body: Annotations and payload, writable.
        annotations_size: Bytes of `body` that are annotations.
        arrival: The segment that came with it.
    """

    __slots__ = ("annotations_size", "arrival", "body", "corr_id", "flags", "header", "pieces", "seq", "serializer_id",
                 "size", "type")  # fmt: skip

    def __init__(self, header: bytes | bytearray, *, empty: bool = False) -> None:
        (
            tag,
            version,
            self.type,
            self.serializer_id,
            self.flags,
            self.seq,
            size,
            annotations,
            cell,
            self.pieces,
            magic,
        ) = _HEADER.unpack(header)
        if tag != b"PYRO" or magic != _MAGIC or version != PROTOCOL_VERSION:
            raise ProtocolError("these bytes are not a Pyro 5 message")
        if size + annotations > PIECE_BYTES + 4096:
            raise ProtocolError(f"a message of {size + annotations} bytes is above the limit of {PIECE_BYTES}")
        if self.pieces and (size != PIECE_BYTES or annotations or self.serializer_id != SERIALIZER_ID):
            raise ProtocolError("only what is in our codec comes in pieces, and each is whole but the last")
        self.header = header if type(header) is bytes else bytes(header)
        self.annotations_size = annotations
        self.corr_id = cell if self.flags & FLAGS_CORR_ID else b""
        self.size = size + annotations
        self.body = _NOTHING
        self.arrival: Arrival | None = None
        if not empty:
            self.allocate()

    @property
    def cell(self) -> str:
        """The correlation id as 32 hexadecimal digits, "" for none."""
        return self.corr_id.hex()

    def allocate(self) -> None:
        """Make room for the body; what does not arrive takes no memory, whatever was promised."""
        size = self.size + self.pieces * PIECE_BYTES
        self.body = own_memory(size) if size >= _MMAP_FROM_BYTES else memoryview(bytearray(size))

    @property
    def awaits_segment(self) -> bool:
        """Whether a segment comes with the body, and has not come yet."""
        return bool(self.flags & _FLAGS_SEGMENT) and self.arrival is None

    def check_segment(self, taken: bool) -> None:
        """Refuse a message with a segment where none is taken.

        Raises:
            ProtocolError: So it is.
        """
        if self.flags & _FLAGS_SEGMENT and not (taken and self.serializer_id == SERIALIZER_ID and self.size):
            raise ProtocolError("a segment comes on a connection that did not ask for any")

    def decode(self) -> Any:
        """Read the envelope; as `codec.decode`."""
        return codec.decode(self.payload if self.annotations_size else self.body, self.arrival)

    @property
    def payload(self) -> memoryview:
        """The body without annotations."""
        return self.body[self.annotations_size :] if self.annotations_size else self.body


class _Body:
    """The body of a message that is under way, in one piece or several.

    Args:
        message: What its header says.
        begun: The bytes of it that came with the header.
    """

    __slots__ = ("_end", "_have", "_header", "_left", "message")

    def __init__(self, message: IncomingMessage, begun: bytes = b"") -> None:
        message.allocate()
        self.message = message
        self._have = len(begun)
        self._end = message.size
        self._left = message.pieces
        self._header = b""
        message.body[: self._have] = begun

    def fill(self, sock: AnySocket) -> bool:
        """Take what has arrived; say whether the body is whole.

        Raises:
            ConnectionClosedError, ProtocolError, OSError: As `MessageReader.read`.
        """
        message = self.message
        while True:
            try:
                while self._have < self._end:
                    wanted = self._end - self._have
                    if message.awaits_segment:
                        # The header was read alone: plain recv() would drop a descriptor whose bytes it takes.
                        assert isinstance(sock, socket.socket)  # others bring none
                        count, message.arrival = receive(sock, message.body)
                        wanted = count
                    else:
                        # Where the socket is one that waits, the system does so until all is here, or its time is up.
                        count = sock.recv_into(message.body[self._have : self._end], 0, sockets.WAIT_ALL)
                    if count == 0:
                        raise ConnectionClosedError("the peer closed the connection")
                    self._have += count
                    if count < wanted:
                        return False
                if not self._left:
                    if message.pieces:
                        message.body = message.body[: self._end]
                    return True
                self._header += (more := sock.recv(HEADER_BYTES - len(self._header)))
            except (BlockingIOError, InterruptedError):
                return False
            if not more:
                raise ConnectionClosedError("the peer closed the connection")
            if len(self._header) == HEADER_BYTES:
                self._begin_piece()

    def _begin_piece(self) -> None:
        piece, message = IncomingMessage(self._header, empty=True), self.message
        self._left -= 1
        expected = (message.type, message.seq, message.serializer_id, self._left)
        if (piece.type, piece.seq, piece.serializer_id, piece.pieces) != expected:
            raise ProtocolError("another message came in place of the next piece of one")
        self._header = b""
        self._end += piece.size


class MessageReader:
    """Puts messages together from whatever bytes have arrived.

    Attributes:
        segments: Whether messages may come with segments.
    """

    def __init__(self, max_body_bytes: int = MAX_PAYLOAD_BYTES + 4096) -> None:
        self.segments = False
        self._max_body_bytes = max_body_bytes
        self._header = bytearray(HEADER_BYTES)
        self._have = 0
        self._body: _Body | None = None

    @property
    def idle(self) -> bool:
        """Whether no message is half read."""
        return self._body is None and self._have == 0

    def read(self, sock: AnySocket) -> IncomingMessage | None:
        """Take what has arrived; return a message once it is complete.

        Never reads beyond the message, so that later ones stay visible in the socket.

        Raises:
            ConnectionClosedError: The peer closed the connection.
            ProtocolError: The bytes are not a message.
            OSError: The connection failed, or its timeout passed.
        """
        body = self._body
        if body is None:
            if not self._read_header(sock):
                return None
            message = IncomingMessage(self._header, empty=True)
            self._have = 0
            size = message.size + message.pieces * PIECE_BYTES
            if size > self._max_body_bytes:
                raise ProtocolError(f"{size} bytes where at most {self._max_body_bytes} are taken")
            if message.flags & _FLAGS_SEGMENT:
                message.check_segment(self.segments)
            body = self._body = _Body(message)
        if not body.fill(sock):
            return None
        self._body = None
        return body.message

    def _read_header(self, sock: AnySocket) -> bool:
        """Receive the header from where the last call stopped; say whether it is whole."""
        target = memoryview(self._header)
        while self._have < HEADER_BYTES:
            try:
                count = sock.recv_into(target[self._have :])
            except (BlockingIOError, InterruptedError):
                return False
            if count == 0:
                raise ConnectionClosedError("the peer closed the connection")
            self._have += count
        return True


class EagerReader:
    """Puts messages together as `MessageReader` does, and takes all that has arrived with one call.

    What waits unread behind a message can be seen by `peek`. Small messages are read-only. For connections without
    segments: one call takes bytes of several messages, and could not tell whose the descriptor is that came with them.
    """

    __slots__ = ("_body", "_max_body_bytes", "_waiting")

    def __init__(self, max_body_bytes: int = PIECE_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._waiting = b""
        self._body: _Body | None = None

    @property
    def idle(self) -> bool:
        """Whether no message is half read."""
        return self._body is None and not self._waiting

    def peek(self) -> bytes:
        """Return what was taken from the socket and belongs to messages that nobody has read (any thread)."""
        body = self._body
        return self._waiting if body is None else body.message.header

    def read(self, sock: AnySocket, flags: int = 0) -> IncomingMessage | None:
        """Take what has arrived; return a message once it is complete.

        Args:
            sock: Where to look.
            flags: Of the first call of `recv`.

        Raises:
            ConnectionClosedError, ProtocolError, OSError: As `MessageReader.read`.
        """
        if self._body is not None:
            return self._fill(sock, self._body)
        try:
            data = sock.recv(_EAGER_BYTES, flags)
        except (BlockingIOError, InterruptedError):
            return None
        if not data:
            raise ConnectionClosedError("the peer closed the connection")
        if isinstance(sock, TlsSocket):
            data += sock.read_pending()  # of which no selector will tell
        return self._begin(sock, self._waiting + data if self._waiting else data)

    @property
    def has_next(self) -> bool:
        """Whether `next` has something to return, or to raise."""
        waiting = self._waiting
        if len(waiting) < HEADER_BYTES:
            return False
        try:
            size: int = IncomingMessage(waiting[:HEADER_BYTES], empty=True).size
            return len(waiting) >= HEADER_BYTES + size
        except ProtocolError:
            return True

    def next(self) -> IncomingMessage | None:
        """Return a message that came together with the one before, None when there is none."""
        return self._begin(None, self._waiting) if len(self._waiting) >= HEADER_BYTES else None

    def _begin(self, sock: AnySocket | None, data: bytes) -> IncomingMessage | None:
        have = len(data)
        if have < HEADER_BYTES:
            self._waiting = data
            return None
        message = IncomingMessage(data[:HEADER_BYTES], empty=True)
        end = HEADER_BYTES + message.size
        if message.pieces and message.pieces * PIECE_BYTES >= self._max_body_bytes:
            raise ProtocolError(f"{message.pieces + 1} GiB where at most {self._max_body_bytes} bytes are taken")
        if message.size > self._max_body_bytes + 4096:
            raise ProtocolError(f"{message.size} bytes where at most {self._max_body_bytes} are taken")
        if message.flags & _FLAGS_SEGMENT:
            message.check_segment(taken=False)
        if have >= end:
            message.body = memoryview(data)[HEADER_BYTES:end]
            self._waiting = data[end:] if have > end else b""
            return message
        if sock is None:
            return None
        self._waiting = b""
        self._body = _Body(message, data[HEADER_BYTES:])
        return self._fill(sock, self._body)

    def _fill(self, sock: AnySocket, body: _Body) -> IncomingMessage | None:
        if not body.fill(sock):
            return None
        self._body = None
        if isinstance(sock, TlsSocket):
            self._waiting = sock.read_pending()
        return body.message


def frame(
    msgtype: int,
    payload: Sequence[Buffer],
    *,
    seq: int = 0,
    flags: int = 0,
    cell: str | bytes = "",
    serializer_id: int = SERIALIZER_ID,
    annotations: bytes = b"",
) -> list[Buffer]:
    """Put a Pyro header before a payload; return the buffers of the whole message."""
    size = sum(map(len, payload))
    beside = type(payload[0]) is Attached
    if beside:
        flags |= _FLAGS_SEGMENT
    corr_id = _NO_ID
    if cell:
        flags |= FLAGS_CORR_ID
        corr_id = cell if isinstance(cell, bytes) else _cell_bytes(cell)
    if size > PIECE_BYTES:
        return _in_pieces(payload, size, (msgtype, serializer_id, flags, seq & 0xFFFF), corr_id)
    header = _HEADER.pack(
        b"PYRO",
        PROTOCOL_VERSION,
        msgtype,
        serializer_id,
        flags,
        seq & 0xFFFF,
        size,
        len(annotations),
        corr_id,
        0,
        _MAGIC,
    )
    if annotations:
        return [header, annotations, *payload]
    if size <= _JOINED_BYTES and not beside:
        return [b"".join((header, *payload))]
    return [header, *payload]


def _in_pieces(payload: Sequence[Buffer], size: int, head: tuple[int, ...], corr_id: bytes) -> list[Buffer]:
    """Return the buffers of several messages that are the pieces of one."""
    left, buffers = list(payload), []  # type: list[Buffer], list[Buffer]
    for follow in range((size - 1) // PIECE_BYTES, -1, -1):
        piece = min(size, PIECE_BYTES)
        buffers.append(_HEADER.pack(b"PYRO", PROTOCOL_VERSION, *head, piece, 0, corr_id, follow, _MAGIC))
        buffers += _cut_off(left, piece)
        size -= piece
    return buffers


def _cut_off(left: list[Buffer], size: int) -> list[Buffer]:
    """Take so many bytes from the beginning of a list of buffers."""
    taken: list[Buffer] = []
    while size:
        first = memoryview(left.pop(0))
        taken.append(first[:size])
        if len(first) > size:
            left.insert(0, first[size:])
        size -= len(taken[-1])
    return taken


def _cell_bytes(cell: str) -> bytes:
    try:
        found = bytes.fromhex(cell)
    except ValueError:
        found = b""
    if len(found) != len(_NO_ID):
        raise SettingsError(f"a cell id is 32 hexadecimal digits, not {cell!r}")
    return found


def send_now(sock: AnySocket, buffers: list[Buffer]) -> list[Buffer]:
    """Write as much as a socket takes at once; return what is left.

    Raises:
        OSError: The connection failed.
    """
    while buffers:
        try:
            if len(buffers) == 1 and type(buffers[0]) is not Attached:  # the usual case, and half as much work
                sent = sockets.send_one(sock, buffers[0])
                if sent == len(buffers[0]):
                    return []
            else:
                sent = _send_some(sock, buffers)
        except (BlockingIOError, InterruptedError):
            return buffers
        buffers = _skip(buffers, sent)
    return []


def _send_some(sock: AnySocket, buffers: list[Buffer]) -> int:
    """Write some of the buffers; one with a segment begins a call of its own, which its receiver relies on."""
    several, ancillary = buffers[:_IOV_MAX], []
    for index, buffer in enumerate(several):
        if type(buffer) is Attached:
            if index:
                several = several[:index]
                break
            ancillary = buffer.ancillary
    return sockets.send_some(sock, several, ancillary)


def _skip(buffers: list[Buffer], count: int) -> list[Buffer]:
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]] if count else buffers[index:]
        count -= len(buffer)
    return []


def peek_cell(connection: Connection) -> str:
    """Return the cell id of a request that waits unread in a connection, "" if there is none."""
    try:
        header = peek(connection, HEADER_BYTES)
        return IncomingMessage(header, empty=True).cell if len(header) == HEADER_BYTES else ""
    except (OSError, ProtocolError):
        return ""


def peek(connection: Connection, size: int) -> bytes:
    """Return the beginning of what waits unread in a connection (any thread; looks, does not take).

    Raises:
        OSError: Nothing waits, or the connection failed.
    """
    reader = connection.reader
    data = reader.peek()[:size] if isinstance(reader, EagerReader) else b""
    return data or sockets.look(connection.sock, size)


_unread: list[Connection] = []
_unread_guard = threading.Lock()
_COUNT = struct.Struct("i")


class Connection(SocketConnection):  # type: ignore[misc]  # Pyro5 has no type information
    """A socket with a known peer, as Pyro's daemon and proxy expect it.

    Attributes:
        peer: Who is at the other end.
        kind: "work" or "control", settled by the handshake.
        vectored: Whether the peer speaks our codec.
        greeting: What the other side said of itself in the handshake.
        greeted: Whether the handshake is over.
        instance: Which life of the peer the client meant, "" for any.
        name: "kernel" or "host", and which one the client meant, "" for any.
        counted: Whether it counts among those of its user.
        dismissed: Whether its user was sent away: nothing that came on it is begun any more.
        kept: What a kernel keeps of the job whose chunks come on it.
        afterwards: What a service wants done once its answer has been sent.
        seq: Number of the last request that was sent (`wire.direct`).
        alertness: Whether to wait for its messages without going to sleep (`wire.direct`).
        segments: Whether large data goes beside the messages, both ways; settled by the handshake.
        wants_segments: Whether this side asked for that.
        leads_to: Where the gateway of this machine is to let it through to; "" where it goes there itself.
        arrival: The segment that came with the request which is being answered.
        kept_back: Where what is to be sent is kept instead, None for nowhere.
        patience: Seconds after which the system gives up on receiving, -1 where that was never set (`wire.direct`).
        shown: Certificate of who is at the other end and asks to be handed on, in DER; b"" for nobody (`wire.handed`).
        inner: The connection over which this one was handed on, and with which it ends.
        uses: How often a client has used it.
        is_handed: Whether no gateway is in between.
    """

    def __init__(self, sock: AnySocket, peer: Peer, object_id: str = "") -> None:
        super().__init__(sock, object_id)
        self.peer = peer
        self.kind = "control"
        self.vectored = False
        self.greeting: dict[str, Any] = {}
        self.greeted = True
        self.instance = ""
        self.name = ("", "")
        self.counted = False
        self.dismissed = False
        self.kept: Any = None
        self.afterwards: list[Callable[[], None]] = []
        self.patience = -1.0
        self.shown = b""
        self.inner: socket.socket | None = None
        self.uses = 0
        self.is_handed = False
        self.seq = 0
        self.segments = False
        self.wants_segments = False
        self.leads_to = ""
        self.kept_back: list[list[Buffer]] | None = None
        self.arrival: Arrival | None = None
        self.alertness = Alertness()
        self.reader: MessageReader | EagerReader = MessageReader()
        self._pushed_back = bytearray()
        self._owner = os.getpid()

    def take_segments(self) -> None:
        """From now on messages may come with segments, and go with them."""
        assert isinstance(self.reader, MessageReader)
        self.segments = self.reader.segments = True

    def freight(self) -> Freight | None:
        """Return room in a segment for an answer, None where it is to go through the socket.

        What waits in a socket is bounded, but not the segments whose descriptors wait there: a receiver that stops
        reading gets few of them.
        """
        if not self.segments:
            return None
        with _unread_guard:
            _unread[:] = [one for one in _unread if one.has_unread()]
            if self in _unread or len(_unread) >= _UNREAD_ANSWERS:
                return None
            _unread.append(self)
        return Freight()

    def has_unread(self) -> bool:
        """Whether the other side has not read all that was sent; only of a connection with segments."""
        import fcntl  # not on every system that has this module
        import termios

        try:
            return bool(_COUNT.unpack(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(_COUNT.size)))[0])
        except (OSError, ValueError):  # closed
            return False

    def recv_message(self, *, max_body_bytes: int | None = None, deadline: float | None = None) -> IncomingMessage:
        """Wait for one whole message on a blocking socket.

        Args:
            max_body_bytes: Refuse a larger one after its header; None for the usual limit.
            deadline: Monotonic moment by which all of it must be here; None for none.

        Raises:
            TimeoutError: The deadline passed.
            ProtocolError, ConnectionClosedError, OSError: As `MessageReader.read`.
        """
        reader = self.reader if max_body_bytes is None else MessageReader(max_body_bytes)
        while True:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not _wait(self.sock, left):
                    raise TimeoutError("the peer did not finish its message in time")
                self.sock.setblocking(False)
            try:
                message = reader.read(self.sock)
            finally:
                if deadline is not None:
                    self.sock.setblocking(True)
            if message is not None:
                return message

    @property
    def has_input(self) -> bool:
        """Whether something can be read at once, the end of the connection included."""
        return self.sock.fileno() >= 0 and _wait(self.sock, 0.0)

    def push_back(self, message: IncomingMessage) -> None:
        """Let Pyro's own code read a message that was already received."""
        self._pushed_back = bytearray(message.header)
        self._pushed_back += message.body

    def recv(self, size: int) -> bytes:
        """Receive exactly `size` bytes, those that were pushed back first (called by Pyro)."""
        if self._pushed_back:
            data = bytes(self._pushed_back[:size])
            del self._pushed_back[:size]
            return data
        return bytes(super().recv(size))

    def send(self, data: bytes | list[Buffer]) -> None:
        """Send bytes or a list of buffers whole, on a blocking or non-blocking socket.

        Raises:
            ConnectionClosedError: The peer is gone, or took nothing for a minute.
        """
        left: list[Buffer] = data if isinstance(data, list) else [data]
        if self.kept_back is not None:
            self.kept_back.append(left)
            return
        try:
            while True:
                left = send_now(self.sock, left)
                if not left:
                    return
                if isinstance(self.sock, Unproven):
                    self.sock.prove(_STALL_SECONDS)
                elif not _wait(self.sock, _STALL_SECONDS, to_write=True):
                    raise ConnectionClosedError(f"the peer took nothing for {_STALL_SECONDS:g} s")
        except OSError as error:
            raise ConnectionClosedError(f"sending: {error}") from error

    def close(self) -> None:
        """Close the connection; in a forked child only this process's descriptor of it."""
        if os.getpid() != getattr(self, "_owner", 0):
            # shutdown() would end the connection for the parent too.
            for sock in (self.sock, self.inner):
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.close()
            return
        super().close()
        inner = getattr(self, "inner", None)  # Pyro closes also what was never quite made
        if inner is not None:
            inner.close()


def _wait(sock: AnySocket, seconds: float, *, to_write: bool = False) -> bool:
    if sock.fileno() < 0:
        raise ConnectionClosedError("this side closed the connection")
    return sockets.is_ready(sock, seconds, to_write=to_write)
