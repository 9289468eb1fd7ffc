"""What all sessions of a server share. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from pyrokernel.controls import harmless
from pyrokernel.errors import HostError, SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings, private_directory
from pyrokernel.texts import plural

from pyrokernel_terminal.accounts import User, read_users
from pyrokernel_terminal.connections import Waiting
from pyrokernel_terminal.keys import public_keys
from pyrokernel_terminal.options import Options
from pyrokernel_terminal.sessions import Record, Session, Sessions
from pyrokernel_terminal.who import socket_of

_MOST_BANNER_BYTES = 4096
_MOST_STRANGERS, _STRANGERS_EACH = 64, 32
"""All who log in may come from one address, such as this machine when they come through a tunnel."""
_MOST_IDLE = 32


class House:
    """What all sessions share.

    Args:
        settings: Of the mesh.
        options: How to serve.

    Attributes:
        record: What happened, a line each.
        sessions: Those that there are.
        strangers: Connections of whom it is not known yet, by address.
        idle: Connections of users that have no session, by user.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self.settings, self.options = settings, options
        self.record = Record(folder(settings) / "sessions.log")
        self.sessions = Sessions(options.sessions, options.per_user, self.record)
        self.strangers = Waiting(_MOST_STRANGERS, _STRANGERS_EACH)
        self.idle = Waiting(_MOST_IDLE, options.per_user)
        self._banner = _read_banner(options.banner)

    def users(self) -> dict[str, User]:
        """Return who may come in by SSH, as the file is now."""
        return read_users(self.options.users_file)

    def greeting(self, session: Session) -> bytes:
        """Return what is shown before the shell of a session: the operator's words, and who else is there."""
        others = sorted({other.user.name for other in self.sessions if other is not session})
        told = []
        if session.user.role is not Role.OBSERVER:  # whom the shell itself tells, and what that means
            told.append(f"you are {session.user.name}, {_article(session.user.role.word)}")
        if others:
            told.append(f"connected: {', '.join(others[:8])}{', ...' if len(others) > 8 else ''} (`users` tells more)")
        text = f"{self._banner}{'; '.join(told)}\n" if told else self._banner
        return text.replace("\n", "\r\n").encode()

    def still_admits(self, user: User, key: bytes) -> bool:
        """Whether who came in as this user, by this key, could do so now.

        Raises:
            PyrokernelError: The file cannot be read.
        """
        return _admits(self.users(), user, key)

    def check_users(self) -> None:
        """End the sessions of whoever may no longer come in as what they are, or by the key they have.

        Raises:
            PyrokernelError: The file cannot be read; nobody is thrown out for that.
        """
        users = self.users()
        for session in self.sessions:
            if session.protocol == "ssh" and not _admits(users, session.user, session.key):
                session.end("you may no longer be here as you were: this session ends")


class Reception:
    """Tells who is connected, to whoever may enter the directory of the mesh's sockets.

    Args:
        house: Whose sessions.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._path = socket_of(house.settings)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to tell.

        Raises:
            HostError: Another terminal server serves this mesh.
        """
        private_directory(self._path.parent)
        try:
            _, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:
            self._path.unlink(missing_ok=True)
        else:
            writer.close()
            raise HostError(
                f"another terminal server of mesh {self._house.settings.mesh!r} runs on this machine, and a mesh has "
                "one there: stop that one first"
            )
        self._server = await asyncio.start_unix_server(self._tell, str(self._path))
        self._path.chmod(0o600)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = {"now": time.time(), "sessions": [session.describe() for session in self._house.sessions]}
        writer.write(json.dumps(told).encode())
        writer.close()

    async def close(self) -> None:
        """Tell no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)


def folder(settings: Settings) -> Path:
    """Return where a server keeps the key of the host, and the record of sessions."""
    return private_directory(settings.mesh_state_dir / "terminal")


def describe_users(users: dict[str, User]) -> str:
    """Say how many may come in."""
    return plural(len(users), "user") if users else "no user yet; `pyrokernel terminal add NAME KEYFILE` adds one"


def _admits(users: dict[str, User], user: User, key: bytes) -> bool:
    now = users.get(user.name)
    return now is not None and now.role == user.role and key in public_keys(now)


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"


def _read_banner(path: str) -> str:
    """Return the words of the operator, without what would give orders to a terminal."""
    if not path:
        return ""
    try:
        with Path(path).expanduser().open("rb") as stream:
            text = stream.read(_MOST_BANNER_BYTES).decode()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"cannot read the banner {path}: {error}") from error
    return harmless(text).rstrip("\n") + "\n"
