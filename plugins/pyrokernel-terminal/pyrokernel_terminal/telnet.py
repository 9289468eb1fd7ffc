"""The door for Telnet, which knows nobody: all who come are one user. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, ClassVar

import telnetlib3
from telnetlib3 import telopt

from pyrokernel_terminal.accounts import User
from pyrokernel_terminal.connections import Waiting
from pyrokernel_terminal.house import House
from pyrokernel_terminal.options import split
from pyrokernel_terminal.process import BUFFER_BYTES, CHUNK_BYTES, ShellProcess, command_for, environment_for
from pyrokernel_terminal.serving import serve
from pyrokernel_terminal.sessions import TooManyError

log = logging.getLogger(__name__)

_NEGOTIATION_SECONDS = 2.0
"""For a client that does not say what it can; it gets a terminal of 80 by 24 then."""


async def listen(house: House, address: str, user: User) -> telnetlib3.server.Server:
    """Serve Telnet.

    Args:
        house: What sessions share.
        address: "HOST:PORT".
        user: Who everybody is that comes.

    Raises:
        OSError: The port is taken.
    """
    host, port = split(address)

    class Protocol(_Protocol):  # telnetlib3 wants the class
        waiting = house.strangers

    async def serve_one(reader: Any, writer: Any) -> None:
        await _session(house, user, _Client(reader, writer))

    return await telnetlib3.create_server(
        host=host,
        port=port,
        protocol_factory=Protocol,
        shell=serve_one,
        encoding=False,
        compression=False,  # a megabyte of zeros would be a gigabyte here
        connect_maxwait=_NEGOTIATION_SECONDS,
        limit=BUFFER_BYTES,
        timeout=0,  # sessions have a limit of their own
    )


class _Protocol(telnetlib3.TelnetServer):
    """Asks a client for its terminal, and for nothing else.

    Attributes:
        waiting: Where it is listed until it has a session, or is refused one.
    """

    waiting: ClassVar[Waiting]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Without it all that comes while the shell does not read is kept.
        self.reader.set_transport(transport)  # type: ignore[union-attr]  # it was made just now
        transport.set_write_buffer_limits(BUFFER_BYTES)
        self.waiting.enter(self, (transport.get_extra_info("peername") or ("",))[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.leave(self)
        super().connection_lost(exc)

    def begin_shell(self, future: asyncio.Future[None]) -> None:
        self.waiting.leave(self)
        super().begin_shell(future)

    def turn_away(self) -> None:
        """Close the connection of somebody who does not say what their terminal is."""
        self._transport.abort()

    def on_request_environ(self) -> list[str | bytes]:
        """Ask for no variables."""
        return []


class _Client:
    """The other end of a connection.

    Args:
        reader, writer: As telnetlib3 makes them.
    """

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer = reader, writer
        self._gone = asyncio.Event()
        self.shell: ShellProcess | None = None
        writer.set_ext_callback(telopt.NAWS, self._resize)
        writer.set_iac_callback(telopt.IP, self._interrupt)

    @property
    def address(self) -> str:
        """Where it comes from."""
        peer = self._writer.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if peer else ""

    @property
    def term(self) -> str:
        """Its type of terminal, as it says."""
        return str(self._writer.get_extra_info("TERM") or self._writer.get_extra_info("term") or "").lower()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of its window, as it says."""
        return int(self._writer.get_extra_info("cols") or 80), int(self._writer.get_extra_info("rows") or 24)

    async def read(self) -> bytes:
        data: bytes = b""
        with contextlib.suppress(ConnectionError):
            data = await self._reader.read(CHUNK_BYTES)
        if not data:
            self._gone.set()
        # Enter is CR NUL, and a terminal has no use for the NUL.
        return data.replace(b"\r\0", b"\r")

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    write_error = write

    async def closed(self) -> None:
        await self._gone.wait()

    def close(self) -> None:
        """Close the connection; whoever has stopped reading misses the rest."""
        self._writer.close()

    def _resize(self, rows: int, columns: int) -> None:
        if self.shell is not None:
            self.shell.resize(columns, rows)

    def _interrupt(self, _: bytes) -> None:
        self._reader.feed_data(b"\x03")


async def _session(house: House, user: User, client: _Client) -> None:
    """Serve one connection."""
    try:
        session = house.sessions.begin(user, "telnet", client.address)
    except TooManyError as error:
        with contextlib.suppress(OSError):
            await client.write(f"{error}\r\n".encode())
        client.close()
        return
    code: int | None = None
    why = "it did not start"
    try:
        columns, rows = client.size
        environ = environment_for(house.settings, client.term)
        client.shell = shell = await ShellProcess.start_in_terminal(command_for(user), environ, columns, rows)
        session.pid = shell.pid
        await client.write(house.greeting(session))
        code, why = await serve(client, shell, session, house.options.idle)
    except OSError as error:
        why = str(error)
        log.warning("a session by telnet ended: %s", error)
    finally:
        house.sessions.finish(session, code, why)
        client.close()
