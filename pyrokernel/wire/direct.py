"""Requests written and awaited by the thread that asks, one process after the other. Runs in the caller's process.

For those that are many and short: no selector is built for them. `fanout` has whatever is large, or not answered in
a moment, and waits for several side by side.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from Pyro5.errors import ConnectionClosedError

from pyrokernel.errors import AccessRefusedError, KernelConnectionError, ProtocolError, VersionMismatchError
from pyrokernel.wire import codec, sockets
from pyrokernel.wire.alertness import ALERT_SECONDS, HEED_SECONDS
from pyrokernel.wire.connection import MSG_INVOKE, Connection, EagerReader, IncomingMessage, frame, send_now
from pyrokernel.wire.fanout import ConnectionLost, Request, open_answer
from pyrokernel.wire.proxy import read_greeting
from pyrokernel.wire.tls import TlsSocket

__all__ = ["answer_at_once", "ask_directly", "await_answer", "send_short"]


def ask_directly(
    connection: Connection,
    object_id: str,
    method: str,
    args: tuple[Any, ...],
    seconds: float | None,
    *,
    alert: bool = False,
) -> Any:
    """Send a request and return what comes back.

    Whatever this raises but an error of the other side leaves the connection in the middle of something: close it.

    Args:
        connection: Of this thread, with nothing due on it.
        object_id, method, args: What to call: plain data and `Packed` values.
        seconds: How long to wait for the answer; None for ever.
        alert: Whether the answer is due in a moment, so that it does not pay to go to sleep.

    Raises:
        NotSerializableError, MessageTooLargeError: As `codec.encode`; nothing was sent.
        ConnectionLost: The connection ended.
        TimeoutError: It did not come in time.
        PyrokernelError: What the other side raised; the connection is good for the next request.
    """
    connection.seq = seq = (connection.seq + 1) & 0xFFFF
    buffers = frame(MSG_INVOKE, codec.encode((object_id, method, args, {})), seq=seq)
    with contextlib.suppress(ConnectionClosedError):  # why the other side has gone may be there to be read
        connection.send(buffers)
    return await_answer(connection, seq, seconds, alert=alert)


def await_answer(connection: Connection, seq: int, seconds: float | None, *, alert: bool = False) -> Any:
    """Return what comes back for the request of this number; as `ask_directly` in all else."""
    try:
        value, error = open_answer(_receive(connection, seconds, alert), seq)
    except (ConnectionClosedError, ProtocolError, KernelConnectionError) as lost:
        raise ConnectionLost(str(lost)) from lost
    except AccessRefusedError:
        raise
    except OSError as failed:
        if _is_ours(failed):
            raise
        raise ConnectionLost(str(failed)) from failed
    if error is not None:
        raise error
    return value


def send_short(connection: Connection, request: Request) -> bool:
    """Send a short request, whose answer `answer_at_once` returns; False where the connection has ended.

    Args:
        connection: Of this thread, with nothing due on it.
        request: A short one, which a socket takes at once.
    """
    try:
        left = send_now(connection.sock, request.buffers)
        if left:
            connection.send(left)
    except (ConnectionClosedError, OSError):
        if not connection.greeted:
            return True  # it may have said why before it went: `answer_at_once` hears it, or finds nothing
        connection.close()
        return False
    return True


def answer_at_once(
    connection: Connection, seq: int, seconds: float, *, alert: bool
) -> tuple[Any, Exception | None] | None:
    """Return what comes back within a moment for the request of this number: a value, or what the other side raised.

    Args:
        connection: On which the request was sent, and nothing else is due.
        seq: Of the request.
        seconds: How long to wait.
        alert: As `ask_directly`.

    Returns:
        None when no answer came by then: the connection is for `Fanout.adopt`, which waits as long as it takes. One
        that has ended is closed, and so is one that leads to another instance or version, which is the error then.
    """
    try:
        return open_answer(_receive(connection, seconds, alert), seq)
    except (KernelConnectionError, VersionMismatchError, AccessRefusedError) as error:
        connection.close()
        return None, error
    except (ConnectionClosedError, ProtocolError, OSError) as error:
        if not _is_ours(error):
            connection.close()
        return None


def _is_ours(error: Exception) -> bool:
    """Whether an error is that of a deadline: a TimeoutError of the system is the end of a connection."""
    return isinstance(error, TimeoutError) and not error.errno


def _receive(connection: Connection, seconds: float | None, alert: bool) -> IncomingMessage:
    """Wait for a whole message; the greeting that comes before the first one is taken on the way."""
    reader, sock = connection.reader, connection.sock
    if not isinstance(reader, EagerReader):
        assert reader.idle
        reader = connection.reader = EagerReader()
    if (sock.gettimeout() is None) != sockets.HAS_PATIENCE:
        # Where the system keeps the time, to wait and to receive is one call.
        sock.setblocking(sockets.HAS_PATIENCE)
    sleep = HEED_SECONDS if seconds is None or seconds > HEED_SECONDS else seconds
    if connection.patience != sleep:
        _set_patience(connection, sleep)  # what begins to arrive is waited for, also while this looks out
    deadline = None if seconds is None else time.monotonic() + seconds
    message = _look_out(connection, reader) if alert and connection.alertness.is_due() else None
    if message is None:
        message = _await(connection, reader, sleep)
    while message is None or not connection.greeted:
        if message is not None:
            read_greeting(connection, message)
            message = reader.next()
            continue
        if isinstance(sock, TlsSocket):
            sock.check_heard()
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        sleep = HEED_SECONDS if left is None else min(left, HEED_SECONDS)
        _set_patience(connection, sleep)
        message = _await(connection, reader, sleep)
    return message


def _await(connection: Connection, reader: EagerReader, seconds: float) -> IncomingMessage | None:
    """Wait for some of a message, for as long as the system was told, or is told here; return it if it is whole."""
    if not sockets.HAS_PATIENCE and not sockets.is_ready(connection.sock, seconds):
        return None
    return reader.read(connection.sock)


def _look_out(connection: Connection, reader: EagerReader) -> IncomingMessage | None:
    """Look for a message for a moment without going to sleep."""
    until = time.perf_counter() + ALERT_SECONDS
    while time.perf_counter() < until:
        message = reader.read(connection.sock, sockets.NOW)
        if message is not None or not reader.idle:
            connection.alertness.paid()
            return message
    connection.alertness.failed()
    return None


def _set_patience(connection: Connection, seconds: float) -> None:
    """Have the system give up on receiving after so many seconds, or somewhat less."""
    now = connection.patience
    # What it was set to before will do where the loop only asks a little sooner again.
    if 0 < now <= seconds and seconds - now <= max(HEED_SECONDS, seconds / 2):
        return
    connection.patience = max(0.001, seconds)
    if sockets.HAS_PATIENCE:
        sockets.set_patience(connection.sock, connection.patience)
