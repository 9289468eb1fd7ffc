"""The shell of a session: a process of its own, in a pseudo-terminal of its own. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import signal
import struct
import sys
import termios
from collections.abc import Mapping
from typing import Any

from pyrokernel.settings import Settings

from pyrokernel_terminal.accounts import User

CHUNK_BYTES = 32 * 1024
BUFFER_BYTES = 64 * 1024
"""How much waits in each direction for a side that does not read; then the other side is not read either."""

_CTRL_C = b"\x03"
_PATIENCE_SECONDS = 3.0
"""After a hang-up; then it is killed."""

_MOST_COLUMNS, _MOST_ROWS = 1000, 500
"""A screen of 65,535 by 65,535 would be a screen to lay out for each key."""

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,31}")
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TZ", "TMPDIR", "PYTHONPATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
"""What the server's own environment gives to its sessions; all else is left outside."""


class ShellProcess:
    """A restricted shell that acts for a user.

    Attributes:
        pid: Of the process.
        has_terminal: Whether it is in a pseudo-terminal.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        keys: asyncio.StreamWriter,
        terminal: _Terminal | None = None,
    ) -> None:
        self._process, self._output, self._keys, self._terminal = process, output, keys, terminal
        self.pid = process.pid
        self.has_terminal = terminal is not None
        self.errors = process.stderr

    @classmethod
    async def start_in_terminal(
        cls, command: list[str], environ: Mapping[str, str], columns: int, rows: int
    ) -> ShellProcess:
        """Start it in a pseudo-terminal, which goes when the server does, and takes the process with it.

        Raises:
            OSError: There are no more pseudo-terminals, processes or descriptors.
        """
        terminal = _Terminal()
        try:
            terminal.resize(columns, rows)
            # Not start_new_session: login_tty makes the session, and the terminal its own.
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environ,
                cwd="/",
                stdin=terminal.slave,
                stdout=terminal.slave,
                stderr=terminal.slave,
                preexec_fn=functools.partial(os.login_tty, terminal.slave),
            )
        except BaseException:
            terminal.close()
            raise
        try:
            output, keys = await terminal.streams()
        except BaseException:
            # Nobody will know of it: who asked for the session is told that there is none.
            terminal.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return cls(process, output, keys, terminal)

    @classmethod
    async def start_with_pipes(cls, command: list[str], environ: Mapping[str, str]) -> ShellProcess:
        """Start it with standard input, output and error, as for a script.

        Raises:
            OSError: There are no more processes.
        """
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, cwd="/", stdin=pipe, stdout=pipe, stderr=pipe, limit=BUFFER_BYTES,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        return cls(process, process.stdout, process.stdin)

    async def read(self) -> bytes:
        """Return what it wrote, b"" when it will write no more."""
        return await self._output.read(CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        """Give it keys; wait while it does not take them. Ctrl-C does not wait in line behind those."""
        before, ctrl_c, after = data.rpartition(_CTRL_C)
        self._keys.write(before)
        waits = ctrl_c and self._keys.transport.get_write_buffer_size() > 0
        if waits and self._terminal is not None and self._terminal.interrupt():
            ctrl_c = b""
        self._keys.write(ctrl_c + after)
        await self._keys.drain()

    def end_input(self) -> None:
        """Say that no more keys will come."""
        if self._terminal is not None:
            self._keys.write(b"\x04")
        else:
            self._keys.close()

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its window."""
        if self._terminal is not None:
            self._terminal.resize(columns, rows)

    async def wait(self) -> int:
        """Return its exit code, or the number of the signal that ended it, negative."""
        return await self._process.wait()

    async def hang_up(self) -> None:
        """End it, as a terminal that is closed does; whatever holds on is killed. What runs on kernels goes on."""
        if self._terminal is not None:
            self._terminal.close()
        else:
            self._keys.close()
        self._signal(signal.SIGHUP)
        try:
            await asyncio.wait_for(self._process.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started, if it has not ended: it leads a group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


class _Output(asyncio.StreamReaderProtocol):
    """Reads a terminal; its end, EIO, is no failure that would hide what was read before."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


class _Terminal:
    """A pseudo-terminal, of which the server has one side."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self._transports: list[asyncio.BaseTransport] = []

    def resize(self, columns: int, rows: int) -> None:
        size = (min(max(rows, 1), _MOST_ROWS), min(max(columns, 1), _MOST_COLUMNS), 0, 0)
        with contextlib.suppress(OSError):  # the session has just ended
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size))

    def interrupt(self) -> bool:
        """Send what Ctrl-C sends, if it is a signal now; at a prompt it is a key like others."""
        try:
            if not termios.tcgetattr(self._master)[3] & termios.ISIG:
                return False
            os.killpg(os.tcgetpgrp(self._master), signal.SIGINT)
        except (OSError, termios.error):
            return False
        return True

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return both directions; the other side is the process's alone from now on."""
        os.close(self.slave)
        self.slave = -1
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=BUFFER_BYTES)
        incoming, _ = await loop.connect_read_pipe(lambda: _Output(reader), os.fdopen(os.dup(self._master), "rb", 0))
        self._transports.append(incoming)
        protocol = asyncio.streams.FlowControlMixin
        outgoing, flow = await loop.connect_write_pipe(protocol, os.fdopen(os.dup(self._master), "wb", 0))
        self._transports.append(outgoing)
        outgoing.set_write_buffer_limits(BUFFER_BYTES)
        return reader, asyncio.StreamWriter(outgoing, flow, None, loop)

    def close(self) -> None:
        """Close our side, by which the processes in it are hung up."""
        for transport in self._transports:
            # asyncio does not look: what is closed twice fails the second time, with a traceback.
            if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
                transport.abort()  # keys that nobody took are nobody's now
            else:
                transport.close()
        for descriptor in (self.slave, self._master):
            if descriptor >= 0:
                os.close(descriptor)
        self.slave = self._master = -1


def command_for(user: User, line: str | None = None) -> list[str]:
    """Return the command of a session.

    Args:
        user: Whom it is to act for.
        line: Run this and leave; None for a prompt.
    """
    # -P: nothing is imported from where the server happens to have been started. The line break keeps apart from the
    # option what would look like more of it: argparse takes "--" away, and a "=" at the beginning.
    command = [sys.executable, "-P", "-m", "pyrokernel", "shell", "--restricted", "--trust-environment"]
    return [*command, "--act-for", user.act_for, *([] if line is None else [f"-c\n{line}"])]


def environment_for(settings: Settings, term: str, colours: str = "") -> dict[str, str]:
    """Return the whole environment of a session: of what a client says, only which terminal it has.

    Args:
        settings: Of the mesh.
        term: The type of terminal, as the client says.
        colours: Its COLORTERM, likewise.
    """
    kept: dict[str, Any] = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    told = {"COLORTERM": colours} if colours in ("truecolor", "24bit") else {}
    # A shell for others runs no startup file; the one of whoever runs the server is not looked for either.
    return {
        **kept,
        **settings.to_env(),
        **told,
        "TERM": term if _TERM.fullmatch(term) else "xterm",
        "LANG": "C.UTF-8",
    }
