"""The door for SSH: public keys only, a shell and nothing else. Runs in the terminal server."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
from pathlib import Path
from typing import Any

import asyncssh
from pyrokernel.errors import AccessRefusedError, PyrokernelError

from pyrokernel_terminal.accounts import User
from pyrokernel_terminal.house import House
from pyrokernel_terminal.keys import public_keys
from pyrokernel_terminal.options import split
from pyrokernel_terminal.process import BUFFER_BYTES, CHUNK_BYTES, ShellProcess, command_for, environment_for
from pyrokernel_terminal.serving import serve
from pyrokernel_terminal.sessions import TooManyError

log = logging.getLogger(__name__)

_KEEPALIVE_SECONDS = 30
"""A client whose machine is switched off is noticed after four of these."""


async def listen(house: House, address: str, key_file: Path) -> asyncssh.SSHAcceptor:
    """Serve SSH; the first sessions may come before this returns.

    Args:
        house: What sessions share.
        address: "HOST:PORT".
        key_file: Of the private key of the host; it is made if it is not there.

    Raises:
        AccessRefusedError: Others can read the key.
        OSError: The port is taken.
    """
    host, port = split(address)
    return await asyncssh.listen(
        host,
        port,
        server_factory=lambda: _Door(house),
        server_host_keys=[host_key(key_file)],
        process_factory=lambda process: _session(house, process),
        config=None,  # nothing of what ~/.ssh has for other purposes
        encoding=None,
        line_editor=False,
        sftp_factory=None,
        allow_scp=False,
        agent_forwarding=False,
        x11_forwarding=False,
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        # A megabyte of zeros from a stranger would be a gigabyte here.
        compression_algs=["none"],
        login_timeout=0,  # the list of strangers has one, and another for who has logged in
        keepalive_interval=_KEEPALIVE_SECONDS,
        server_version="pyrokernel",
    )


def host_key(path: Path) -> asyncssh.SSHKey:
    """Return the key of the host, by which clients know it again; make it the first time.

    Raises:
        AccessRefusedError: Others can read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        key = asyncssh.generate_private_key("ssh-ed25519")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            stream.write(key.export_private_key())
        return key
    with open(descriptor, "rb") as stream:
        info = os.fstat(descriptor)
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise AccessRefusedError(f"others can read {path}, and then pass for this server; remove it for a new one")
        return asyncssh.import_private_key(stream.read())


class _Door(asyncssh.SSHServer):
    """One connection, from the first byte to the last.

    Args:
        house: What sessions share.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._conn: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._users: dict[str, User] = {}
        self._name = ""
        self._sessions = 0
        self._user: User | None = None
        self._key = b""

    @property
    def user(self) -> User:
        """Who has logged in."""
        assert self._user is not None  # there is no channel before
        return self._user

    @property
    def key(self) -> bytes:
        """The public key that they did it by."""
        return self._key

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._address = _address(conn)
        self._house.strangers.enter(self, self._address.rpartition(":")[0])

    def turn_away(self) -> None:
        """Close the connection of somebody who does not use it."""
        if self._conn is not None:
            self._conn.abort()
        self._note_refusal()

    def begin_auth(self, username: str) -> bool:
        self._name = username
        try:
            self._users = self._house.users()
        except PyrokernelError as error:
            log.error("nobody comes in by ssh: %s", error)
            self._users = {}
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        user = self._users.get(username)
        if user is None or key.public_data not in public_keys(user):
            return False
        # Asked for each key that is offered, and last for the one that it is proved to have.
        self._user, self._key = user, key.public_data
        return True

    def auth_completed(self) -> None:
        self._house.strangers.leave(self)
        self._name = ""
        self._house.idle.enter(self, self.user.name)

    def begin_session(self) -> None:
        """Count a session."""
        self._sessions += 1
        self._house.idle.leave(self)

    def end_session(self) -> None:
        """Count one less; without any, the connection is one that waits."""
        self._sessions -= 1
        if self._conn is not None and not self._sessions:
            self._house.idle.enter(self, self.user.name)

    def connection_lost(self, exc: Exception | None) -> None:
        self._conn = None
        self._house.idle.leave(self)
        if self._house.strangers.leave(self):
            self._note_refusal()

    def _note_refusal(self) -> None:
        """Write down who has said a name, and did not show that it is theirs."""
        if self._name:
            self._house.record.write_refusal(user=self._name[:64], by="ssh", **{"from": self._address}, why="no key")


def _address(place: Any) -> str:
    """Return where a connection, or a channel of one, comes from."""
    peer = place.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else ""


class _Client:
    """The other end of a channel.

    Args:
        process: As asyncssh calls the channel.
        shell: Set once it runs; told of the size of the window.
    """

    def __init__(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self._process = process
        self.shell: ShellProcess | None = None
        process.channel.set_write_buffer_limits(BUFFER_BYTES)

    async def read(self) -> bytes:
        while True:
            try:
                return await self._process.stdin.read(CHUNK_BYTES)
            except asyncssh.TerminalSizeChanged as change:
                if self.shell is not None:
                    self.shell.resize(change.width, change.height)
            except (asyncssh.BreakReceived, asyncssh.SignalReceived):
                continue  # Ctrl-C comes as a key
            except asyncssh.misc.SoftEOFReceived:
                return b""

    async def write(self, data: bytes) -> None:
        self._process.stdout.write(data)
        await self._process.stdout.drain()

    async def write_error(self, data: bytes) -> None:
        self._process.stderr.write(data)
        await self._process.stderr.drain()

    async def closed(self) -> None:
        await self._process.channel.wait_closed()


async def _session(house: House, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Serve one channel."""
    door = process.channel.get_connection().get_owner()
    assert isinstance(door, _Door)
    user = door.user
    client = _Client(process)
    code, killed_by = 1, ""
    try:
        if process.subsystem:
            raise TooManyError("this is a shell of pyrokernel, which copies no files")
        if not house.still_admits(user, door.key):  # of a connection that is older than the file
            raise TooManyError("what you may do has changed; log in again")
        session = house.sessions.begin(user, "ssh", _address(process), door.key)
    except (TooManyError, PyrokernelError) as error:
        with contextlib.suppress(OSError):
            await client.write_error(f"{error}\r\n".encode())
        process.exit(1)
        return
    door.begin_session()
    ended: int | None = None
    why = "it did not start"
    try:
        try:
            client.shell = shell = await _start(house, process, user)
        except (OSError, ValueError) as error:  # too many processes; a command with a null byte
            log.warning("a session of %s did not start: %s", user.name, error)
            await client.write_error(f"the shell does not start: {error}\r\n".encode())
            return
        session.pid = shell.pid
        if shell.has_terminal:
            await client.write(house.greeting(session))
        ended, why = await serve(client, shell, session, house.options.idle)
        if ended is not None:
            code, killed_by = (ended, "") if ended >= 0 else (1, _signal_name(-ended))
    except OSError as error:
        why = f"the client has gone: {error}"
    finally:
        house.sessions.finish(session, ended, why)
        door.end_session()
        with contextlib.suppress(OSError):
            if killed_by:
                process.exit_with_signal(killed_by)
            else:
                process.exit(code)


async def _start(house: House, process: asyncssh.SSHServerProcess[bytes], user: User) -> ShellProcess:
    command = command_for(user, process.command or None)
    if process.term_type is None:
        return await ShellProcess.start_with_pipes(command, environment_for(house.settings, "dumb"))
    colours = str(process.env.get("COLORTERM", ""))
    environ = environment_for(house.settings, process.term_type, colours)
    columns, rows, _, _ = process.term_size
    return await ShellProcess.start_in_terminal(command, environ, columns or 80, rows or 24)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name.removeprefix("SIG")
