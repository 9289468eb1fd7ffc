"""One session, from its banner to its exit code, whatever it comes by. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from pyrokernel.texts import span

from pyrokernel_terminal.process import ShellProcess
from pyrokernel_terminal.sessions import Session

log = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0
"""For a last sentence to a client that may have stopped reading."""


class Client(Protocol):
    """Who is at the other end."""

    async def read(self) -> bytes:
        """Return keys, b"" when no more will come."""

    async def write(self, data: bytes) -> None:
        """Show something; wait while the client does not take it."""

    async def write_error(self, data: bytes) -> None:
        """Write to its standard error, where it has one apart."""

    async def closed(self) -> None:
        """Wait until the connection has gone."""


async def serve(client: Client, shell: ShellProcess, session: Session, idle: float) -> tuple[int | None, str]:
    """Carry keys to a shell and its output back, until either has gone; then there is no process left of it.

    Args:
        client: Who types.
        shell: Just started.
        session: What is known of it.
        idle: Seconds without a key after which it ends, 0 for never.

    Returns:
        The exit code, None if the shell was ended; and why it was.
    """
    output = asyncio.ensure_future(_output(client, shell))
    works: list[asyncio.Future[Any]] = [
        output,
        asyncio.ensure_future(client.closed()),
        asyncio.ensure_future(_idle(session, idle)),
        session.ending,
    ]
    keys = asyncio.ensure_future(_keys(client, shell, session))
    try:
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        if output.done() and not output.exception():
            return await shell.wait(), ""
        why = next((work.result() for work in works[2:] if work.done()), "")
        if why:
            text = f"\r\n{why}\r\n" if shell.has_terminal else f"{why}\n"
            output.cancel()
            await _in_time(client.write_error(text.encode()))
        return None, why or "the client has gone"
    finally:
        for work in (*works, keys):
            work.cancel()
        await asyncio.gather(*works, keys, return_exceptions=True)
        await shell.hang_up()


async def _keys(client: Client, shell: ShellProcess, session: Session) -> None:
    with contextlib.suppress(OSError):  # the shell has ended, or the client has gone: the others notice
        while data := await client.read():
            session.touch()
            await shell.write(data)
        shell.end_input()


async def _output(client: Client, shell: ShellProcess) -> None:
    streams = [_carry(shell.read, client.write)]
    if shell.errors is not None:
        errors = shell.errors
        streams.append(_carry(lambda: errors.read(32 * 1024), client.write_error))
    await asyncio.gather(*streams)


async def _carry(read: Any, write: Any) -> None:
    while data := await read():
        await write(data)


async def _idle(session: Session, limit: float) -> str:
    if not limit:
        await asyncio.get_running_loop().create_future()  # for ever
    while (left := limit - session.idle) > 0:
        await asyncio.sleep(left)
    return f"no key was pressed for {span(limit)}: this session ends; what runs on kernels goes on"


async def _in_time(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(work, _GRACE_SECONDS)
