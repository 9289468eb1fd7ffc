"""Access to the name server, stock or embedded. Runs in callers and in the host."""

from __future__ import annotations

import builtins
import dataclasses
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from Pyro5 import core
from Pyro5.errors import CommunicationError, ConnectionClosedError, NamingError, PyroError

from pyrokernel.errors import (
    AccessRefusedError,
    KernelNotFoundError,
    KernelUnreachableError,
    NameServerError,
    NameServerNotFoundError,
    NameTakenError,
    ProtocolError,
    SettingsError,
)
from pyrokernel.settings import machine_key
from pyrokernel.wire import endpoints
from pyrokernel.wire.proxy import Proxy
from pyrokernel.wire.remote import NOTHING, Credentials
from pyrokernel.wire.trust import check_socket_path, is_loopback

__all__ = [
    "Directory",
    "Entry",
    "answers",
    "location_of",
    "name_server_uri",
    "public_uri",
    "reachable_uri",
    "socket_words",
]

T = TypeVar("T")

_REFUSED = "AccessRefusedError: "
"""Begins what a daemon of ours tells a stock client whose role is too low."""

_TAKEN = "name already registered"
"""Begins what Pyro5's name server says of a name that exists; what else it says, only ours does."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A name as the name server holds it.

    Attributes:
        name: As registered.
        uri: The way to it: on this machine its unix socket.
        metadata: Words such as "class:pyrokernel.kernel" or "instance:0123456789abcdef".
    """

    name: str
    uri: str
    metadata: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, uri: str, metadata: Iterable[str] | None) -> Entry:
        """Return an entry as a name server gave it; what is on this machine is reached without a detour."""
        found = cls(name, uri, frozenset(metadata or ()))
        path = found.value(_SOCKET)
        here = bool(path) and not found.is_elsewhere and _is_here(path)
        return dataclasses.replace(found, uri=found.uri_here) if here else found

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is on another machine, whatever may be at the path of its socket on this one."""
        return self.value(_MACHINE) not in ("", machine_key())

    @property
    def uri_here(self) -> str:
        """The way to it on its own machine: by its unix socket, if it has named it."""
        path = self.value(_SOCKET)
        return f"{self.uri.partition('@')[0].partition('/')[0]}@./u:{path}" if path else self.uri

    def value(self, key: str) -> str:
        """Return what follows `key:` in the metadata, "" if nothing does."""
        return next((word[len(key) + 1 :] for word in self.metadata if word.startswith(key + ":")), "")

    def values(self, key: str) -> tuple[str, ...]:
        """Return everything that follows `key:` in the metadata, sorted."""
        return tuple(sorted(word[len(key) + 1 :] for word in self.metadata if word.startswith(key + ":")))


_SOCKET = "socket"
"""Key of the unix socket of what is registered with an address for other machines."""
_MACHINE = "machine"
"""Key of the machine on which that is."""


def public_uri(uri: str, address: str) -> str:
    """Return the URI by which other machines reach an object: the gateway at an address knows its socket.

    Args:
        uri: `PYRO:object@./u:/path/to/WORD.sock`.
        address: "HOST:PORT" of the gateway.
    """
    target, _, path = uri.partition("@./u:")
    return f"{target}/{Path(path).stem}@{address}"


def socket_words(uri: str) -> set[str]:
    """Return the words of metadata that name the unix socket of a URI, for those on the same machine."""
    return {f"{_SOCKET}:{uri.partition('@./u:')[2]}", f"{_MACHINE}:{machine_key()}"}


def reachable_uri(uri: str, address: str) -> str:
    """Return the URI of an object by its unix socket if that is on this machine, else by the gateway of its own."""
    return public_uri(uri, address) if address and not _is_here(uri.partition("@./u:")[2]) else uri


def _is_here(path: str) -> bool:
    """Whether a unix socket is on this machine, and this user's."""
    try:
        check_socket_path(path).lstat()
    except (OSError, ValueError):  # an AccessRefusedError is an OSError too
        return False
    return True


def location_of(address: str) -> tuple[str, int]:
    """Return host and port of a name server at "HOST:PORT", or "HOST".

    Raises:
        SettingsError: The address is none.
    """
    found = core.URI(name_server_uri(address))
    if found.sockname:
        raise SettingsError(f"name server address {address!r}: other machines are joined at HOST:PORT")
    return str(found.host), int(found.port)


def name_server_uri(address: str) -> str:
    """Return the Pyro URI of the name server at "./u:PATH" or "HOST:PORT".

    Raises:
        SettingsError: The address is neither.
    """
    location = address if address.startswith("./u:") or ":" in address else f"{address}:9090"
    try:
        return str(core.URI(f"PYRO:{core.NAMESERVER_NAME}@{location}"))
    except PyroError as error:
        raise SettingsError(f"name server address {address!r}: use ./u:PATH or HOST:PORT") from error


class Directory:
    """Access to the name server, for any thread; connects when needed, again after a failure.

    Args:
        address: "./u:PATH" or "HOST:PORT".
        timeout: Seconds for each operation.
        credentials: What to show to a name server on another machine.
    """

    def __init__(self, address: str, *, timeout: float = 3.0, credentials: Credentials = NOTHING) -> None:
        self.address = address
        self._uri = name_server_uri(address)
        self._timeout = timeout
        self._credentials = credentials
        self._lock = threading.Lock()
        self._proxy: Proxy | None = None
        self._state_host: str | None = None
        self._pid = os.getpid()

    def register(self, name: str, uri: str, metadata: Iterable[str], *, replace: bool = False) -> None:
        """Register a name.

        Raises:
            NameTakenError: The name exists and `replace` is False.
            AccessRefusedError: The name is for others, or the entry is not one that this name server takes.
            NameServerNotFoundError: Nobody answers.
        """
        words = sorted(metadata)
        try:
            self._ask(lambda proxy: proxy.register(name, uri, safe=not replace, metadata=words))
        except NamingError as error:
            if not str(error).startswith(_TAKEN):
                raise AccessRefusedError(f"the name server at {self.address} refused: {error}") from error
            raise NameTakenError(name=name, holder=self.lookup(name).uri) from error

    def remove(self, name: str) -> bool:
        """Remove a name; say whether it existed.

        Raises:
            AccessRefusedError: It is somebody else's.
            NameServerNotFoundError: Nobody answers.
        """
        try:
            return bool(self._ask(lambda proxy: proxy.remove(name)))
        except NamingError as error:
            raise AccessRefusedError(f"the name server at {self.address} refused: {error}") from error

    def lookup(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            KernelNotFoundError: There is none.
            NameServerNotFoundError: Nobody answers.
        """
        try:
            uri, metadata = self._ask(lambda proxy: proxy.lookup(name, return_metadata=True))
        except NamingError as error:
            raise KernelNotFoundError(f"the name server at {self.address} has no entry {name!r}") from error
        return Entry.of(name, str(uri), metadata)

    def list(self, prefix: str) -> list[Entry]:
        """Return the entries whose names begin with `prefix`, sorted by name."""
        found = self._ask(lambda proxy: proxy.list(prefix=prefix, return_metadata=True))
        return [Entry.of(name, str(uri), metadata) for name, (uri, metadata) in sorted(found.items())]

    def having(self, word: str) -> builtins.list[Entry]:
        """Return the entries that have a word in their metadata, sorted by name."""
        found = self._ask(lambda proxy: proxy.yplookup(meta_all={word}, return_metadata=True))
        return [Entry.of(name, str(uri), metadata) for name, (uri, metadata) in sorted(found.items())]

    def state_host(self) -> str:
        """Return which host keeps the shared state, as the name server says it; "" where it says nothing."""
        if self._state_host is None:
            self.ping()
        return self._state_host or ""

    def count(self) -> int:
        """Return how many names there are."""
        return int(self._ask(lambda proxy: proxy.count()))

    def leads_to_somebody(self, entry: Entry) -> bool:
        """Tell whether who is registered answers; whoever refuses to talk is there, too."""
        try:
            Proxy(entry.uri, self._timeout, self._credentials).close()
        except KernelUnreachableError:
            return False
        except AccessRefusedError:
            return True
        return True

    def take_revoked(self, crl: str) -> bool:
        """Hand on the authority's list of revoked certificates (PEM); say whether it was news.

        Raises:
            AccessRefusedError: It is older than what is known there, or that takes another role.
            AttributeError: It is a stock one, which heeds no lists.
            NameServerNotFoundError: Nobody answers.
        """
        try:
            return bool(self._ask(lambda proxy: proxy.take_revoked(crl)))
        except NamingError as error:
            raise AccessRefusedError(f"the name server at {self.address} refused: {error}") from error

    def ping(self) -> None:
        """Raise NameServerNotFoundError unless the name server answers."""
        self._ask(lambda proxy: proxy.ping())

    def connected(self) -> bool:
        """Whether the connection used last still stands; looks, does not wait."""
        proxy = self._proxy
        return proxy is not None and proxy.still_connected()

    def close(self) -> None:
        """Close the connection; a later operation opens a new one."""
        with self._lock:
            self._drop()

    def _ask(self, operation: Callable[[Any], T]) -> T:
        """Run an operation, once more on a fresh connection if the old one has gone stale."""
        if self._pid != os.getpid():
            # A forked child: the lock may be held for ever by a thread of the parent, and the connection is its own.
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._drop()
        with self._lock:
            if self._proxy is not None:
                try:
                    return self._use(operation)
                except AccessRefusedError:
                    raise  # an OSError too, but nothing is wrong with the connection
                except (CommunicationError, ConnectionClosedError, ProtocolError, OSError):
                    self._drop()
            try:
                self._proxy = Proxy(self._uri, self._timeout, self._credentials)
                self._state_host = self._proxy.greeting("state_host")
                return self._use(operation)
            except (NamingError, AccessRefusedError):
                raise  # an AccessRefusedError is an OSError too, but trying again would not help
            except (KernelUnreachableError, ProtocolError, PyroError, OSError) as error:
                self._drop()
                raise NameServerNotFoundError(
                    f"no name server answers at {self.address} ({error}); {self._remedy}"
                ) from error

    @property
    def _remedy(self) -> str:
        """What to do where nobody answers, for people."""
        if self.address.startswith("./u:"):
            return (
                "start one with `pyrokernel serve`, or run `pyrokernel nameserver` and name it with --ns or "
                "PYROKERNEL_NS"
            )
        if is_loopback(location_of(self.address)[0]):
            return "check the address, and whether the name server runs: `pyrokernel nameserver`, or Pyro5's `pyro5-ns`"
        return (
            "check the address, and whether the name server runs there (that of a host is at the port at which that "
            "listens)"
        )

    def _use(self, operation: Callable[[Any], T]) -> T:
        proxy = self._proxy
        assert proxy is not None
        proxy._pyroClaimOwnership()
        try:
            return operation(proxy)
        except RuntimeError as error:
            if str(error).startswith(_REFUSED):
                raise AccessRefusedError(str(error).removeprefix(_REFUSED)) from error
            raise
        except (TypeError, ValueError) as error:
            raise NameServerError(f"the name server at {self.address} refused: {error}") from error

    def _drop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None


def answers(uri: str) -> bool:
    """Tell whether somebody listens on the unix socket of a URI; True where that cannot be said from here."""
    _, found, path = uri.partition("@./u:")
    return endpoints.answers(path) if found else True
