"""Who is connected: what each session is, how many there may be, and a record of them. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import logging.handlers
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrokernel.settings import private_directory

from pyrokernel_terminal.accounts import User

LOG_BYTES = 1 << 20
_LOGS_KEPT = 4
_REFUSALS_A_MINUTE = 30
"""A flood of strangers must not push what is written of sessions out of the files."""

_LAST_SECONDS = 8.0
"""For all sessions to end; each is given 3 s before it is killed."""


class TooManyError(Exception):
    """There may be no further session; the message is for whoever wanted it."""


@dataclasses.dataclass(eq=False)
class Session:
    """One session.

    Attributes:
        user: Whose.
        protocol: "ssh" or "telnet".
        address: Where it comes from.
        key: The public key that they came in by, b"" for none.
        since: When it began, Unix time.
        last_key: When the last key came, monotonic.
        pid: Of its shell, 0 before there is one.
        ending: Why the server ends it, set once it does.
    """

    user: User
    protocol: str
    address: str
    key: bytes = b""
    since: float = dataclasses.field(default_factory=time.time)
    last_key: float = dataclasses.field(default_factory=time.monotonic)
    pid: int = 0
    ending: asyncio.Future[str] = dataclasses.field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def idle(self) -> float:
        """Seconds since the last key."""
        return time.monotonic() - self.last_key

    def touch(self) -> None:
        """Note that a key came."""
        self.last_key = time.monotonic()

    def end(self, why: str) -> None:
        """Have it ended, with a reason for its user."""
        if not self.ending.done():
            self.ending.set_result(why)

    def describe(self) -> dict[str, Any]:
        """Return what others are told of it."""
        return {
            "user": self.user.name,
            "role": self.user.role.word,
            "by": self.protocol,
            "from": self.address,
            "since": self.since,
            "idle": self.idle,
            "pid": self.pid,
        }


class Sessions:
    """All sessions of a server.

    Args:
        most, per_user: How many there may be.
        record: Where each is written down.
    """

    def __init__(self, most: int, per_user: int, record: Record) -> None:
        self._most, self._per_user, self._record = most, per_user, record
        self._open: list[Session] = []
        self._closed = ""
        self._emptied = asyncio.Event()

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, user: User, protocol: str, address: str, key: bytes = b"") -> Session:
        """Admit a session; the arguments are those of `Session`.

        Raises:
            TooManyError: There are too many already, or the server ends.
        """
        refused = self._closed
        if len(self._open) >= self._most:
            refused = f"there are {len(self._open)} sessions, and no more at once; try again later"
        elif sum(other.user.name == user.name for other in self._open) >= self._per_user:
            refused = f"you have {self._per_user} sessions, and no more at once; leave one of them"
        about = {"user": user.name, "role": user.role.word, "by": protocol, "from": address}
        if refused:
            self._record.write_refusal(**about, why=refused)
            raise TooManyError(refused)
        session = Session(user, protocol, address, key)
        self._open.append(session)
        self._record.write("begin", **about)
        return session

    def finish(self, session: Session, code: int | None, why: str = "") -> None:
        """Forget a session that has ended.

        Args:
            session: Which.
            code: The exit code of its shell, None when that was hung up.
            why: The reason, where the shell did not end by itself.
        """
        self._open.remove(session)
        about = session.describe()
        seconds = round(time.time() - about.pop("since"), 3)
        del about["idle"]
        self._record.write("end", **about, seconds=seconds, code=code, why=why)
        if self._closed and not self._open:
            self._emptied.set()

    async def close(self, why: str) -> None:
        """End all of them, and admit no more; return when they have ended.

        Raises:
            TimeoutError: Some have not.
        """
        self._closed = why
        for session in self:
            session.end(why)
        if self._open:
            await asyncio.wait_for(self._emptied.wait(), _LAST_SECONDS)


class Record:
    """What happened at the door, a line of JSON each; a file that is full makes way, and the last few are kept.

    Args:
        path: Of the file, which its owner alone can read.
    """

    def __init__(self, path: Path) -> None:
        private_directory(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._file = _PrivateFile(path, maxBytes=LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._minute, self._refusals = 0, 0

    def write(self, event: str, **about: Any) -> None:
        """Write a line; a full disk is told of on standard error, and keeps nobody out."""
        # ASCII: what a stranger calls itself cannot give orders to the terminal of whoever reads this.
        line = json.dumps({"at": round(time.time(), 3), "event": event, **about})
        self._file.emit(logging.LogRecord(__name__, logging.INFO, "", 0, line, None, None))

    def write_refusal(self, **about: Any) -> None:
        """Write down who was refused; of many in a minute the first, and in the next one how many more there were."""
        minute = int(time.monotonic() // 60)
        left_out = 0
        if minute != self._minute:
            left_out = max(0, self._refusals - _REFUSALS_A_MINUTE)
            self._minute, self._refusals = minute, 0
        self._refusals += 1
        if self._refusals <= _REFUSALS_A_MINUTE:
            self.write("refused", **about, **({"left_out": left_out} if left_out else {}))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _PrivateFile(logging.handlers.RotatingFileHandler):
    def _open(self) -> Any:
        return open(os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8")
