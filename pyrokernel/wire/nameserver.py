"""Pyro5's own name server behind our daemon, where names have owners. Runs in the host, or in a process of its own.

`GuardedNameServer` is Pyro's class with its methods, storage and answers; before each it asks `registration` whether
this peer may, and bounds what one client can cost the others.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from Pyro5 import core
from Pyro5.errors import NamingError
from Pyro5.nameserver import MemoryStorage, NameServer

from pyrokernel.errors import AccessRefusedError, ProtocolError, SettingsError
from pyrokernel.messages import HOST_PREFIX, STATE_OBJECT
from pyrokernel.roles import Role
from pyrokernel.wire import registration
from pyrokernel.wire.admission import OnRefused
from pyrokernel.wire.connection import Connection, MessageReader
from pyrokernel.wire.daemon import Daemon, current_peer
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.limits import Quota
from pyrokernel.wire.names_file import NamesFile
from pyrokernel.wire.patterns import BadPatternError, compile_bounded, matching
from pyrokernel.wire.registration import NAMES_OF_ONE, OWNER
from pyrokernel.wire.trust import Peer

__all__ = ["EmbeddedNameServer", "GuardedNameServer", "open_storage"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_NAMES = 100_000
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of a list: some 25,000 kernels. What is longer is asked for in parts."""

MAX_REQUEST_BYTES = 1024 * 1024

_ENTRY_BYTES = 24
"""Of an entry in an answer, beside its texts: quotes, brackets, commas."""

OnRevoked = Callable[[bytes], bool]

_Entries = Mapping[str, tuple[str, Iterable[str]]]


def open_storage(text: str) -> Any:
    """Open what names are kept in: "memory", or "sql:FILE" as pyro5-ns has it.

    Raises:
        SettingsError: It is neither.
        NameServerError: The file is damaged, or another name server has it.
    """
    kind, _, path = text.partition(":")
    if text == "memory":
        return MemoryStorage()
    if kind == "sql" and path:
        return NamesFile(Path(path).absolute())
    raise SettingsError(f"storage {text!r}: use memory, or sql:FILE")


def _noted(method: Callable[P, T]) -> Callable[P, T]:
    """Note in the log what is refused, and to whom."""

    @functools.wraps(method)
    def noting(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except NamingError as error:
            peer = current_peer()
            log.info("refused %s %s: %s", peer.described, peer.address or "of this machine", error)
            raise

    return noting


class GuardedNameServer(NameServer):  # type: ignore[misc]  # Pyro5 has no type information
    """Pyro's name server, where a name is its owner's.

    Args:
        storage: One of Pyro's, or ours.
        uri: Under which it lists itself, as stock tools expect it.
        state_host: Name of the host that keeps the shared state; "" for the only one there is.
        on_revoked: Takes a list of revoked certificates, and says whether it was news.
    """

    def __init__(self, storage: Any, uri: str, state_host: str = "", on_revoked: OnRevoked = lambda crl: False) -> None:
        super().__init__(storage)
        self._state_host, self._on_revoked = state_host, on_revoked
        self.storage[core.NAMESERVER_NAME] = uri, {"class:Pyro5.nameserver.NameServer"}
        self._held = Counter(owner for _, metadata in storage.values() for owner in _owner_words(metadata))

    @expose(Role.OBSERVER)
    def count(self) -> int:
        """Return how many names there are."""
        return len(self.storage)

    @expose(Role.OBSERVER)
    def ping(self) -> None:
        """Answer."""

    @expose(Role.OBSERVER)
    def lookup(self, name: str, return_metadata: bool = False) -> Any:
        """Return the URI of a name, with its metadata if asked."""
        return super().lookup(name, return_metadata)

    @expose(Role.USER)
    @_noted
    def register(self, name: str, uri: Any, safe: bool = False, metadata: Iterable[str] | None = None) -> None:
        """Register a name; replace what it led to, if that was the same owner's."""
        peer = current_peer()
        registration.check_name(name)
        registration.check_claim(peer, name)
        if not isinstance(uri, (str, core.URI)):
            raise TypeError("only URIs or strings can be registered")
        registration.check_location(peer, str(uri), name)
        words = registration.check_metadata(peer, metadata or ())
        if name == STATE_OBJECT:
            hosts = [found.removeprefix(HOST_PREFIX) for found in self._matching(HOST_PREFIX, None)]
            registration.check_keeper(words, self._state_host, hosts)
        with self.lock:
            before = self.storage.get(name)
            if before is not None and safe:
                raise NamingError("name already registered: " + name)
            if before is not None:
                registration.check_change(peer, name, before[1])
            self._check_room(peer, replaced=before)
            self._put(name, str(uri), words | {OWNER + peer.identity})
        log.info("%s registered %s for %s", peer.described, name, uri)

    @expose(Role.USER)
    @_noted
    def set_metadata(self, name: str, metadata: Iterable[str] | None) -> None:
        """Give a name other metadata; whose it is stays."""
        peer = current_peer()
        words = registration.check_metadata(peer, metadata or ())
        with self.lock:
            before = self.storage.get(name)
            if before is None:
                raise NamingError(f"unknown name: {name}")
            registration.check_change(peer, name, before[1])
            self._put(name, before[0], words | {word for word in before[1] if word.startswith(OWNER)})

    @expose(Role.USER)
    @_noted
    def remove(self, name: str | None = None, prefix: str | None = None, regex: str | None = None) -> int:
        """Remove names and return how many; of those that match a prefix or a pattern, the caller's own."""
        peer = current_peer()
        if name:
            with self.lock:
                if name not in self.storage:
                    return 0
                registration.check_change(peer, name, self.storage[name][1])
                self._drop([name])
            log.info("%s removed %s", peer.described, name)
            return 1
        if not prefix and not regex:
            return 0
        found = self._matching(prefix, None if prefix else regex)  # patterns take time: not under the lock
        with self.lock:
            mine = [each for each in found if each in self.storage and self._may_change(peer, each)]
            self._drop(mine)
        others = len(found) - len(mine)
        if others and not mine:
            raise NamingError(f"{others} names match, and all are held by others; an admin may remove them")
        log.info("%s removed %d names", peer.described, len(mine))
        return len(mine)

    @expose(Role.OBSERVER)
    def list(
        self, prefix: str | None = None, regex: str | None = None, return_metadata: bool = False
    ) -> dict[str, Any]:
        """Return names and their URIs, all or those that match."""
        if prefix and regex:
            raise ValueError("you can only filter on one thing at a time")
        return _answer(self._matching(prefix, regex), return_metadata)

    @expose(Role.OBSERVER)
    def yplookup(self, meta_all: Any = None, meta_any: Any = None, return_metadata: bool = True) -> dict[str, Any]:
        """Return the names that have all, or any, of some words in their metadata."""
        if meta_all and meta_any:
            raise ValueError("you can't use meta_all or meta_any at the same time")
        if isinstance(meta_all or meta_any, str):
            raise TypeError("metadata should not be a str, but another iterable (set, list, etc)")
        wanted = frozenset(meta_all or meta_any or ())
        if not wanted:
            return {}
        entries = self._everything()
        found = {
            name: entry
            for name, entry in entries.items()
            if (wanted.issubset(entry[1]) if meta_all else not wanted.isdisjoint(entry[1]))
        }
        return _answer(found, return_metadata)

    @expose(Role.ADMIN)
    def take_revoked(self, crl: str) -> bool:
        """Take up the authority's list of revoked certificates (PEM), as a host does; say whether it was news."""
        try:
            return self._on_revoked(crl.encode())
        except (AccessRefusedError, SettingsError) as error:
            raise NamingError(str(error)) from error

    def _may_change(self, peer: Peer, name: str) -> bool:
        try:
            registration.check_change(peer, name, self.storage[name][1])
        except NamingError:
            return False
        return True

    def _everything(self) -> _Entries:
        # A copy, so that nobody waits while it is gone through.
        with self.lock:
            found: _Entries = self.storage.everything(return_metadata=True)
        return found

    def _matching(self, prefix: str | None, regex: str | None) -> _Entries:
        """Return entries by the beginning of their names, by a pattern, or all."""
        entries = self._everything()
        if prefix:
            return {name: entry for name, entry in entries.items() if name.startswith(prefix)}
        if not regex:
            return entries
        try:
            return {name: entries[name] for name in matching(compile_bounded(regex), entries)}
        except BadPatternError as error:
            raise NamingError(str(error)) from error

    def _check_room(self, peer: Peer, replaced: object) -> None:
        """Refuse a name too many."""
        if replaced is not None:
            return
        if self._held[peer.identity] >= NAMES_OF_ONE:
            raise NamingError(f"{peer.described} holds {NAMES_OF_ONE} names, which is the limit; remove some first")
        if len(self.storage) >= MAX_NAMES:
            raise NamingError(f"there are {MAX_NAMES} names here, which is the limit; an admin may remove some")

    def _put(self, name: str, uri: str, words: frozenset[str] | set[str]) -> None:
        before = self.storage.get(name)
        self.storage[name] = uri, frozenset(words)
        if before is not None:
            self._held.subtract(_owner_words(before[1]))
        self._held.update(_owner_words(words))

    def _drop(self, names: Iterable[str]) -> None:
        gone = [(name, self.storage[name][1]) for name in names]
        self.storage.remove_items([name for name, _ in gone])
        for _, metadata in gone:
            self._held.subtract(_owner_words(metadata))


def _owner_words(metadata: Iterable[str]) -> tuple[str, ...]:
    return tuple(word.removeprefix(OWNER) for word in metadata if word.startswith(OWNER))


def _answer(entries: _Entries, return_metadata: bool) -> dict[str, Any]:
    """Return entries as a client gets them.

    Raises:
        NamingError: They are too many for one answer.
    """
    size = sum(len(name) + len(uri) + _ENTRY_BYTES for name, (uri, _) in entries.items())
    if return_metadata:
        size += sum(len(word) + 4 for _, metadata in entries.values() for word in metadata)
    if size > MAX_ANSWER_BYTES:
        raise NamingError(
            f"{len(entries)} names are more than one answer holds; ask for a part: a longer prefix, or without metadata"
        )
    return {name: (uri, set(words)) if return_metadata else uri for name, (uri, words) in entries.items()}


class _NameServerDaemon(Daemon):
    def validateHandshake(self, conn: Connection, data: Any) -> Any:
        if conn.peer.may_run_code:  # who may only look has a shorter reader already
            conn.reader = MessageReader(MAX_REQUEST_BYTES)
        return super().validateHandshake(conn, data)

    def log_lost(self, conn: Connection, error: Exception) -> None:
        """Note why a connection ended; what was refused is for whoever keeps this name server."""
        if isinstance(error, ProtocolError):
            log.warning("a connection of %s was ended: %s", conn.peer.described, error)
        else:
            super().log_lost(conn, error)


class EmbeddedNameServer:
    """Pyro5's own name server behind our daemon on a unix socket.

    Args:
        unix_path: Where to listen. An old socket file there is replaced: hold a lock.
        storage: "memory" or "sql:FILE".
        location: Where clients find it, "HOST:PORT", if that is not the socket.
        state_host: Name of the host that keeps the shared state, which clients are told; "" for the only one there is.
        on_refused: As for `Daemon`.
        quota: How much one user may ask for.
        portable: As of `Daemon`; Pyro's own tools cannot reach it then.
        on_revoked: As for `GuardedNameServer`.

    Raises:
        SettingsError, NameServerError: As `open_storage`.
    """

    def __init__(
        self,
        unix_path: Path,
        storage: str = "memory",
        location: str = "",
        *,
        state_host: str = "",
        quota: Quota = Quota(),  # noqa: B008  frozen
        portable: bool = False,
        on_refused: OnRefused = lambda peer, what, role: None,
        on_revoked: OnRevoked = lambda crl: False,
    ) -> None:
        self._storage = open_storage(storage)
        self.address = location or f"./u:{unix_path}"
        try:
            identity = {"name_server": True, "state_host": state_host}
            self._daemon = _NameServerDaemon(
                unix_path, identity=identity, portable=portable, quota=quota, on_refused=on_refused
            )
            uri = f"PYRO:{core.NAMESERVER_NAME}@{self.address}"
            served = GuardedNameServer(self._storage, uri, state_host, on_revoked)
            self._daemon.register(served, core.NAMESERVER_NAME)
        except BaseException:
            self._storage.close()
            raise

    @property
    def names(self) -> int:
        """How many names there are, its own included."""
        return len(self._storage)

    def start(self) -> None:
        """Begin to answer."""
        self._daemon.start()

    def close(self) -> None:
        """Stop answering, remove the socket's file, and let go of the storage."""
        self._daemon.close()
        self._storage.close()
