"""The rooms of the shared state in the test process: an engine on clocks of the test's, a desk that a test can ask."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrokernel.messages import STATE_OBJECT
from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.desk import Desk
from pyrokernel.state.engine import Author, Engine, Limits
from pyrokernel.state.files import Files
from pyrokernel.state.service import StateService
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Row
from pyrokernel.wire import limits as limiting
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.direct import ask_directly, await_answer
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.trust import Peer, peer_of
from pyrokernel.wire.values import encode_value

ME = Author("me")
_numbers = itertools.count(1)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def asked(name: str) -> Author:
    """Return an author whose request has a name."""
    return Author("me", request=name)


def open_store(directory: Path) -> WriteAhead:
    """Open the store as the service does."""
    return WriteAhead(SQLiteStore(directory / "state.db"), directory / "state.ahead")


class Room:
    """An engine on real files, with clocks that stand still until a test moves them.

    Args:
        directory: For the files.
        limits: As for `Engine`.
        monotonic: Another clock than one that stands still.
    """

    def __init__(
        self, directory: Path, limits: Limits | None = None, *, monotonic: Callable[[], float] | None = None
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.directory, self._limits = directory, limits
        self.clock, self.wall = Clock(), Clock(1_700_000_000.0)
        self._monotonic = monotonic or self.clock
        self.open()

    def open(self) -> None:
        """Start as a service does."""
        self.store = open_store(self.directory)
        self.files = Files(self.directory)
        self.engine = Engine(self.store, self.files, self._limits, monotonic=self._monotonic, wall=self.wall)
        self.files.clean(self.engine.files_in_use())

    def close(self) -> None:
        """End in order."""
        self.store.close()

    def restart(self) -> None:
        """End in order, and start again."""
        self.close()
        self.open()

    def set(self, key: str, value: Any, author: Author = ME, space: str = "", **more: Any) -> Row:
        """Set a key, committed."""
        (row,) = self.engine.write(space, [{**write_of(key, value), **more}], (), author)
        self.commit()
        return row

    def commit(self) -> None:
        """Commit as the desk does, once it has told who waits."""
        self.engine.written.clear()
        self.engine.commit()

    def write(self, *writes: Mapping[str, Any], conditions: Sequence[Mapping[str, Any]] = ()) -> list[Row]:
        """Write, committed."""
        rows = self.engine.write("", writes, conditions, ME)
        self.commit()
        return rows

    def text(self, key: str, space: str = "") -> str | None:
        """Return what a key holds as it is kept, None if it is not there."""
        row = self.engine.get(space, key)
        return None if row is None else (self.store.row(row.revision) or row).data.decode()

    def prune(self) -> None:
        """Prune until there is nothing to do."""
        while self.engine.prune(100):
            self.commit()


def write_of(key: str, value: Any) -> dict[str, Any]:
    """Return a write that sets a key, as it comes to the engine."""
    kind, name, summary, parts = encode_value(value)
    return {"op": "set", "key": key, "kind": kind, "type": name, "summary": summary, "parts": parts}


def wire_write(key: str, value: Any) -> dict[str, Any]:
    """Return a write that sets a key, as a client sends it."""
    kind, name, summary, parts = encode_value(value)
    return {"op": "set", "key": key, "kind": kind, "type": name, "summary": summary, "value": bytes(parts[0])}


class DeskRoom:
    """A desk in a thread, to be asked over socket pairs.

    Args:
        room: Its engine.
        quota: How much one user may ask for.
    """

    def __init__(self, room: Room, quota: limiting.Quota | None = None) -> None:
        self.room = room
        self.service = StateService(room.engine, {"instance": "i"}, room.directory / "backups")
        limits = limiting.Limits(quota or limiting.Quota())
        self.desk = Desk(room.engine, self.service, lambda connection: connection.close(), limits)
        self._connections: list[Connection] = []
        self._thread: threading.Thread | None = None

    def connect(self, pid: int = 1, *, nearby: bool = True, **whose: Any) -> Connection:
        """Return a client's end of a connection, of this account or of a peer with other fields."""
        ours, theirs = socket.socketpair()
        served = Connection(theirs, dataclasses.replace(peer_of(theirs), pid=pid, **whose))
        served.greeting = {"files": nearby}
        self.desk.adopt(served)
        self._connections += [Connection(ours, Peer(uid=0)), served]
        return self._connections[-2]

    @contextlib.contextmanager
    def running(self) -> Iterator[DeskRoom]:
        """Let the desk work for the length of a block."""
        self.desk._stopped = False
        self._thread = threading.Thread(target=self.desk.run)
        self._thread.start()
        try:
            yield self
        finally:
            self.desk.stop()
            self._thread.join(10)
            assert not self._thread.is_alive(), "the desk has not stopped"

    def is_alive(self) -> bool:
        """Whether the desk works."""
        return self._thread is not None and self._thread.is_alive()

    def clients(self) -> list[Any]:
        """Return what the desk knows of its connections, oldest first."""
        found = [key.data for key in list(self.desk._selector.get_map().values()) if key.data is not None]
        return sorted(found, key=lambda client: self._connections.index(client.connection))

    def close(self) -> None:
        """Close all sockets."""
        for connection in self._connections:
            connection.close()
        for sock in (self.desk._wake_in, self.desk._wake_out):
            sock.close()
        self.desk._selector.close()


def ask(connection: Connection, method: str, *args: Any, timeout: float = 10.0) -> Any:
    """Ask and wait for the answer."""
    return ask_directly(connection, STATE_OBJECT, method, args, timeout)


def send(connection: Connection, method: str, *args: Any) -> None:
    """Ask without waiting; `answer` waits."""
    request = Request(STATE_OBJECT, method, args)
    connection.send(request.buffers)
    connection.seq = request.seq


def answer(connection: Connection, timeout: float = 10.0) -> Any:
    """Return the answer to what was sent last."""
    return await_answer(connection, connection.seq, timeout)


def options(request: str = "") -> dict[str, str]:
    """Return what goes with a write."""
    return {"request": request or f"r{next(_numbers)}", "via": ""}
