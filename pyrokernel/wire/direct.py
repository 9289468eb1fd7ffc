"""One request to one process, written and awaited by the thread that asks. Runs in the caller's process.

For requests that are many, short, and to one place: no selector is built for them. `fanout` has everything that
goes to several, and whatever is not answered in a moment.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from Pyro5.errors import ConnectionClosedError

from pyrokernel.errors import KernelConnectionError, ProtocolError
from pyrokernel.wire import codec
from pyrokernel.wire.alertness import ALERT_SECONDS
from pyrokernel.wire.connection import MSG_INVOKE, Connection, EagerReader, IncomingMessage, frame
from pyrokernel.wire.fanout import ConnectionLost, Request, open_answer
from pyrokernel.wire.proxy import read_greeting

__all__ = ["ask_at_once", "ask_directly", "await_answer"]

_NOW = int(socket.MSG_DONTWAIT)


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
    try:
        connection.send(buffers)
    except ConnectionClosedError as error:
        raise ConnectionLost(str(error)) from error
    return await_answer(connection, seq, seconds, alert=alert)


def await_answer(connection: Connection, seq: int, seconds: float | None, *, alert: bool = False) -> Any:
    """Return what comes back for the request of this number; as `ask_directly` in all else."""
    try:
        value, error = open_answer(_receive(connection, seconds, alert), seq)
    except (ConnectionClosedError, ProtocolError, KernelConnectionError) as lost:
        raise ConnectionLost(str(lost)) from lost
    except TimeoutError:
        raise
    except OSError as failed:
        raise ConnectionLost(str(failed)) from failed
    if error is not None:
        raise error
    return value


def ask_at_once(connection: Connection, request: Request, seconds: float) -> tuple[Any, Exception | None] | None:
    """Send a request and return what comes back within a moment: a value, or what the other side raised.

    Args:
        connection: Of this thread, with nothing due on it.
        request: A short one.
        seconds: How long to wait.

    Returns:
        None when no answer came by then: the connection is for `Fanout.adopt`, which waits as long as it takes.

    Raises:
        ConnectionLost: The connection ended; close it.
        KernelConnectionError, VersionMismatchError: It leads to another instance, or another version.
    """
    try:
        connection.send(request.buffers)
        return open_answer(_receive(connection, seconds, alert=True), request.seq)
    except TimeoutError:
        return None
    except (ConnectionClosedError, ProtocolError, OSError) as error:
        raise ConnectionLost(str(error)) from error


def _receive(connection: Connection, seconds: float | None, alert: bool) -> IncomingMessage:
    """Wait for a whole message; the greeting that comes before the first one is taken on the way."""
    reader = connection.reader
    if not isinstance(reader, EagerReader):
        assert reader.idle
        reader = connection.reader = EagerReader()
    if connection.sock.gettimeout() is not None:
        connection.sock.setblocking(True)  # the system keeps the time, so that to wait and to receive is one call
    _set_patience(connection, seconds)  # what begins to arrive is waited for, also while this looks out
    message = _look_out(connection, reader) if alert else None
    if message is not None and connection.greeted:
        return message
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        if message is not None and not connection.greeted:
            read_greeting(connection, message)
            message = reader.next()
        if message is not None:
            return message
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        _set_patience(connection, left)
        message = reader.read(connection.sock)


def _look_out(connection: Connection, reader: EagerReader) -> IncomingMessage | None:
    """Look for a message for a moment without going to sleep, unless that was in vain of late."""
    alertness = connection.alertness
    if not alertness.is_due():
        return None
    until = time.perf_counter() + ALERT_SECONDS
    while time.perf_counter() < until:
        message = reader.read(connection.sock, _NOW)
        if message is not None or not reader.idle:
            alertness.paid()
            return message
    alertness.failed()
    return None


def _set_patience(connection: Connection, seconds: float | None) -> None:
    """Have the system give up on receiving after so many seconds, or somewhat less."""
    now = connection.patience
    # What it was set to before will do where the loop only asks a little sooner again.
    if now >= 0 and (now == 0 if seconds is None else 0 < now <= seconds and seconds - now <= max(1.0, seconds / 2)):
        return
    connection.patience = 0.0 if seconds is None else max(0.001, seconds)
    value = struct.pack("ll", int(connection.patience), int(connection.patience % 1 * 1e6))
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
