"""Who may do what: a file that an admin writes, read anew when it changes. Runs in the gateway, and in front ends.

    default = "observer"            # a certificate that no line names
    [users]
    ana = "admin"
    bob = "user"
    [kernels."camera*"]             # for these kernels alone
    bob = "observer"
    "*" = "nobody"                  # everybody else
    [hosts]
    lab2 = "user"                   # the most that anybody may who comes by that machine

The most specific line wins: first those of the kernels, an exact name before a pattern and a long pattern before a
short one, then `[users]`, then `default`. In a table of kernels, `"*"` is whoever the table does not name. Without a
file, whoever has the name of the account that runs the mesh is its admin, and everybody else may look. Whom a host
introduces has the host's role, or a lower one where a line says so of that user.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import PyrokernelError, SettingsError
from pyrokernel.plugins import Plugins, find
from pyrokernel.roles import Role
from pyrokernel.settings import Settings, check_name

__all__ = ["HOST", "USER", "Decider", "Policy", "PolicyFile", "Verdict"]

log = logging.getLogger(__name__)

USER, HOST = "user", "host"
"""Kinds of certificates that are given a role."""

ANYBODY = "*"
_HOOK = "pyrokernel_policy"
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]+")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What somebody may do.

    Attributes:
        role: It.
        line: Which line of the policy says so, for people.
    """

    role: Role
    line: str


@dataclasses.dataclass(frozen=True)
class Policy:
    """One state of the file.

    Attributes:
        owner: The account that runs the mesh: its user is an admin unless a line says otherwise.
        default: The role of whom no line names.
        users, hosts: Role by name.
        kernels: Role by user, by pattern of kernels; the most specific pattern first.
    """

    owner: str = ""
    default: Role = Role.OBSERVER
    users: Mapping[str, Role] = dataclasses.field(default_factory=dict)
    hosts: Mapping[str, Role] = dataclasses.field(default_factory=dict)
    kernels: tuple[tuple[str, Mapping[str, Role]], ...] = ()

    @classmethod
    def load(cls, path: Path, owner: str = "") -> Policy:
        """Read a file; where there is none, what holds without one.

        Raises:
            SettingsError: It cannot be read, or a line of it says nothing; the message names the line.
        """
        import tomllib  # only where a policy is read

        try:
            text = path.read_text("utf-8")
            if systems.may_be_written_by_all(path):
                raise SettingsError(f"the policy {path} may be written by everybody: chmod o-w {path}")
            data = tomllib.loads(text)
        except FileNotFoundError:
            return cls(owner=owner)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the policy {path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"the policy {path} is not valid TOML: {error}") from error
        return cls.parse(data, str(path), owner)

    @classmethod
    def parse(cls, data: Mapping[str, Any], shown: str, owner: str = "") -> Policy:
        """Return what a parsed file says.

        Args:
            data: As `tomllib` returns it.
            shown: How errors call the file.
            owner: The account that runs the mesh.

        Raises:
            SettingsError: There is something in it that is no line of a policy.
        """
        unknown = sorted(data.keys() - {"default", "users", "hosts", "kernels"})
        if unknown:
            raise SettingsError(f"the policy {shown} has {unknown[0]!r}; it takes default, users, kernels and hosts")
        patterns = _table(data.get("kernels", {}), f"{shown}: kernels")
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise SettingsError(
                    f'{shown}: kernels."{pattern}" is the name of no kernel; use a name, or a pattern such as camera*'
                )
        tables = [
            (pattern, _roles(table, f'{shown}: kernels."{pattern}"', "`*` is everybody else", anybody=True))
            for pattern, table in patterns.items()
        ]
        return cls(
            owner=owner,
            default=_role(data.get("default", Role.OBSERVER.word), f"{shown}: default"),
            users=_roles(data.get("users", {}), f"{shown}: users", "`default` is for everybody else"),
            hosts=_roles(data.get("hosts", {}), f"{shown}: hosts", "each host takes a line of its own"),
            kernels=tuple(sorted(tables, key=lambda one: _specificity(one[0]), reverse=True)),
        )

    def verdict(self, user: str, kind: str = USER, kernel: str = "") -> Verdict:
        """Return what somebody may do, and which line says so.

        Args:
            user: The name in the certificate.
            kind: Of the certificate, "user" or "host".
            kernel: With which kernel, "" for host, name server and shared state.
        """
        if kind == HOST:
            if user in self.hosts:
                return Verdict(self.hosts[user], f"[hosts] {user}")
            return Verdict(Role.USER, "a host that no line names")
        if kind != USER:
            return Verdict(Role.NOBODY, f"certificates of kind {kind!r} are given no role")
        named = self.line_of(user, kernel)
        if named is not None:
            return named
        if user == self.owner:
            return Verdict(Role.ADMIN, "the account that runs the mesh")
        return Verdict(self.default, "default")

    def weigh(
        self, said: Verdict | None, user: str, kind: str = USER, kernel: str = "", most: Verdict | None = None
    ) -> Verdict:
        """Return what somebody may do, where plugins have said something or nothing.

        Args:
            said: It, None where no plugin has an answer.
            user, kind, kernel: As those of `verdict`.
            most: What the host may do that introduces the user, who shows no certificate; None for who does. `default`
                is for certificates, and whose name is the owner's may be anybody there: so it is the most.
        """
        if most is None:
            return said or self.verdict(user, kind, kernel)
        named = said or self.line_of(user, kernel)
        return named if named is not None and named.role < most.role else most

    def line_of(self, user: str, kernel: str = "") -> Verdict | None:
        """Return what the line says that is for a user and a kernel; None where there is none but `default`."""
        for pattern, table in self.kernels:
            if kernel and fnmatch.fnmatchcase(kernel, pattern):
                for name in (user, ANYBODY):
                    if name in table:
                        return Verdict(table[name], f'[kernels."{pattern}"] {name}')
        if user in self.users:
            return Verdict(self.users[user], f"[users] {user}")
        return None


class PolicyFile:
    """A policy that follows its file.

    Args:
        path: The file; it need not be there.
        owner: The account that runs the mesh.

    Raises:
        SettingsError: It is there, and cannot be used. Later on, that is noted in the log, and the last good one holds.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner
        self._lock = threading.Lock()
        self._state = self._look()
        self._policy = Policy.load(path, owner)

    @property
    def current(self) -> Policy:
        """What holds now."""
        with self._lock:
            state = self._look()
            if state != self._state:
                self._state = state
                try:
                    self._policy = Policy.load(self._path, self._owner)
                    log.warning("the policy was read anew from %s", self._path)
                except SettingsError as error:
                    log.error("%s; what was read before goes on to hold: mend the file", error)
            return self._policy

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Decider:
    """Gives roles: what a plugin says, else what the policy's file says.

    Args:
        settings: Where the file is, and which plugins there are.
        owner: The account that runs the mesh.

    Raises:
        SettingsError: The file cannot be used.
    """

    def __init__(self, settings: Settings, owner: str) -> None:
        self._file = PolicyFile(settings.policy_file, owner)
        self._plugins = Plugins(settings, find(settings))
        self._plugins.load(lambda plugin: None)

    def verdict(self, user: str, kind: str, kernel: str = "", address: str = "", through: str = "") -> Verdict:
        """Return what somebody may do, and which line or plugin says so.

        Args:
            user, kind, kernel: As those of `Policy.verdict`.
            address: Where from; a file says nothing of that, a plugin may.
            through: Name of the host that introduces the user, who shows no certificate; "" for none.
        """
        most = self.verdict(through, HOST, kernel, address) if through else None
        return self.policy.weigh(self.ask_plugins(user, kind, kernel, address), user, kind, kernel, most)

    @property
    def policy(self) -> Policy:
        """What the file says now."""
        return self._file.current

    @property
    def has_plugins(self) -> bool:
        """Whether a plugin is asked before the file: that may take any time."""
        return self._plugins.implements(_HOOK)

    def ask_plugins(self, user: str, kind: str, kernel: str, address: str) -> Verdict | None:
        """Return what the first plugin says that has an answer, None without one; one that fails lets nobody in.

        Arguments are as for `verdict`; of a host that introduces somebody it is asked by itself.
        """
        for plugin in self._plugins.all:
            try:
                said = self._plugins.call(plugin, _HOOK, user=user, kind=kind, kernel=kernel, address=address)
                role = None if said is None else Role.of(str(getattr(said, "word", said)))
            except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin may raise anything; then nobody gets in
                plugin.note(f"{_HOOK} raised {type(error).__name__}: {error}", kind=_HOOK)
                return Verdict(Role.NOBODY, f"plugin {plugin.name} failed: {error}")
            if role is not None:
                return Verdict(role, f"plugin {plugin.name}")
        return None


def _specificity(pattern: str) -> tuple[bool, int, str]:
    """Order patterns: exact names last, then by how many characters are fixed."""
    wild = any(mark in pattern for mark in "*?[")
    return not wild, sum(mark not in "*?[]" for mark in pattern), pattern


def _table(value: Any, shown: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{shown} is a table, not {value!r:.80}")
    return value


def _roles(value: Any, shown: str, others: str, anybody: bool = False) -> dict[str, Role]:
    """Return the lines of a table: a line for a name that nobody can have would be taken for one that holds."""
    roles = {name: _role(word, f"{shown}: {name}") for name, word in _table(value, shown).items()}
    for name in roles:
        if anybody and name == ANYBODY:
            continue
        try:
            check_name(name, "user")
        except SettingsError as error:
            raise SettingsError(
                f"{shown}: {name!r} would hold for nobody: a line is for one name, as it is in a certificate; {others}"
            ) from error
    return roles


def _role(word: Any, shown: str) -> Role:
    try:
        return Role.of(str(word))
    except PyrokernelError as error:
        raise SettingsError(f"{shown}: {error}") from error
