"""Access to the name server, stock or embedded. Runs in callers and in the host."""

from __future__ import annotations

import builtins
import dataclasses
import os
import socket
import threading
from collections.abc import Callable, Iterable
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
    SettingsError,
)
from pyrokernel.wire.proxy import Proxy

__all__ = ["Directory", "Entry", "answers", "name_server_uri"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A name as the name server holds it.

    Attributes:
        name, uri: As registered.
        metadata: Words such as "class:pyrokernel.kernel" or "instance:0123456789abcdef".
    """

    name: str
    uri: str
    metadata: frozenset[str] = frozenset()

    def value(self, key: str) -> str:
        """Return what follows `key:` in the metadata, "" if nothing does."""
        return next((word[len(key) + 1 :] for word in self.metadata if word.startswith(key + ":")), "")

    def values(self, key: str) -> tuple[str, ...]:
        """Return everything that follows `key:` in the metadata, sorted."""
        return tuple(sorted(word[len(key) + 1 :] for word in self.metadata if word.startswith(key + ":")))


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
        address: "./u:PATH" or "HOST:PORT" on loopback.
        timeout: Seconds for each operation.
    """

    def __init__(self, address: str, *, timeout: float = 3.0) -> None:
        self.address = address
        self._uri = name_server_uri(address)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._proxy: Proxy | None = None
        self._pid = os.getpid()

    def register(self, name: str, uri: str, metadata: Iterable[str], *, replace: bool = False) -> None:
        """Register a name.

        Raises:
            NameTakenError: The name exists and `replace` is False.
            NameServerNotFoundError: Nobody answers.
        """
        words = sorted(metadata)
        try:
            self._ask(lambda proxy: proxy.register(name, uri, safe=not replace, metadata=words))
        except NamingError as error:
            raise NameTakenError(name=name, holder=self.lookup(name).uri) from error

    def remove(self, name: str) -> bool:
        """Remove a name; say whether it existed."""
        return bool(self._ask(lambda proxy: proxy.remove(name)))

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
        return Entry(name, str(uri), frozenset(metadata or ()))

    def list(self, prefix: str) -> list[Entry]:
        """Return the entries whose names begin with `prefix`, sorted by name."""
        found = self._ask(lambda proxy: proxy.list(prefix=prefix, return_metadata=True))
        return [Entry(name, str(uri), frozenset(metadata or ())) for name, (uri, metadata) in sorted(found.items())]

    def having(self, word: str) -> builtins.list[Entry]:
        """Return the entries that have a word in their metadata, sorted by name."""
        found = self._ask(lambda proxy: proxy.yplookup(meta_all={word}, return_metadata=True))
        return [Entry(name, str(uri), frozenset(metadata or ())) for name, (uri, metadata) in sorted(found.items())]

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
                except (CommunicationError, ConnectionClosedError, OSError):
                    self._drop()
            try:
                self._proxy = Proxy(self._uri, self._timeout)
                return self._use(operation)
            except (NamingError, AccessRefusedError):
                raise  # an AccessRefusedError is an OSError too, but trying again would not help
            except (KernelUnreachableError, PyroError, OSError) as error:
                self._drop()
                raise NameServerNotFoundError(
                    f"no name server answers at {self.address} ({error}); start one with `pyrokernel serve`, "
                    "or run pyro5-ns and name it with --ns or PYROKERNEL_NS"
                ) from error

    def _use(self, operation: Callable[[Any], T]) -> T:
        proxy = self._proxy
        assert proxy is not None
        proxy._pyroClaimOwnership()
        try:
            return operation(proxy)
        except (TypeError, ValueError) as error:
            raise NameServerError(f"the name server at {self.address} refused: {error}") from error

    def _drop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None


def answers(uri: str) -> bool:
    """Tell whether somebody listens on the unix socket of a URI; True where that cannot be said from here."""
    _, found, path = uri.partition("@./u:")
    if not found:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True
