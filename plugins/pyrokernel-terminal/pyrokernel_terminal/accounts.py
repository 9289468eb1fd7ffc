"""Who may come in: users of the mesh, their public keys, and what they may do. Runs in the terminal server.

They are in a TOML file that `pyrokernel terminal add` writes, and that may be edited by hand::

    [ana]
    role = "user"
    keys = ["ssh-ed25519 AAAA... ana@laptop"]
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import check_name

DEFAULT_ROLE = Role.OBSERVER
"""Of who is added without one: whoever is to run code, and with it to be this account, is said to."""

_MOST_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class User:
    """Somebody who may come in.

    Attributes:
        name: In the mesh, and at the login.
        role: What they may do.
        keys: Their public keys, as in a file of OpenSSH: kind, key, comment.
    """

    name: str
    role: Role
    keys: tuple[str, ...] = ()

    @property
    def act_for(self) -> str:
        """As the setting `act_for` has it."""
        return f"{self.name}:{self.role.word}"

    @classmethod
    def of(cls, text: str, role: Role = DEFAULT_ROLE) -> User:
        """Read NAME or NAME:ROLE.

        Raises:
            SettingsError: It is neither.
        """
        name, colon, word = text.partition(":")
        return cls(check_name(name, "user"), _role(word) if colon else role)


def read_users(path: Path) -> dict[str, User]:
    """Return the users by name; none when there is no file.

    Raises:
        AccessRefusedError: Others may change the file.
        SettingsError: It is not as it should be; the message says where.
    """
    try:
        with path.open("rb") as stream:
            info = os.fstat(stream.fileno())
            if info.st_uid not in (os.getuid(), 0) or stat.S_IMODE(info.st_mode) & 0o022:
                raise AccessRefusedError(
                    f"others may change {path}, and with it who comes in; run: chmod go-w {path}, and own it"
                )
            data = tomllib.loads(stream.read(_MOST_BYTES).decode())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        if isinstance(error, AccessRefusedError):
            raise
        raise SettingsError(f"cannot read {path}: {error}") from error
    return {name: _read_user(name, entry, path) for name, entry in data.items()}


def write_users(path: Path, users: Mapping[str, User]) -> None:
    """Put a file in place whole, readable by its owner alone.

    Raises:
        OSError: The disk is full, say; the file is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = ["# Who may come in by ssh; `pyrokernel terminal add` and `remove` change it, and so may you.\n"]
    for user in users.values():
        keys = ", ".join(map(_quoted, user.keys))
        # A name may have a dot, which TOML would take for a table in a table.
        lines.append(f'\n[{_quoted(user.name)}]\nrole = "{user.role.word}"\nkeys = [{keys}]\n')
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".users-")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.writelines(lines)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _read_user(name: str, entry: Any, path: Path) -> User:
    where = f"[{name}] in {path}"
    if not isinstance(entry, dict) or entry.keys() - {"role", "keys"}:
        raise SettingsError(f"{where}: has role and keys, and nothing else")
    keys = entry.get("keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise SettingsError(f"{where}: keys is a list of public keys, each a text")
    try:
        return User(check_name(name, "user"), _role(entry.get("role", DEFAULT_ROLE.word)), tuple(keys))
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _role(word: object) -> Role:
    role = Role.of(str(word))
    if role is Role.NOBODY:
        raise SettingsError("a user who may do nothing is removed instead; the roles are observer, user, admin")
    return role


def _quoted(text: str) -> str:
    # What JSON escapes, TOML escapes in the same way, but for one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
