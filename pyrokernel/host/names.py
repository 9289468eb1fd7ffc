"""Keeps the host's names at the name server true. Runs in the host process, on a thread of its own.

The thread may wait for a name server that is slow or gone; the supervisor never does.
What is wanted is remembered here, and announced again whenever the connection to the
name server was lost, or somebody has removed a name.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from pyrokernel.errors import AccessRefusedError, KernelNotFoundError, NameServerError, NameTakenError, PyrokernelError
from pyrokernel.loop import resolve
from pyrokernel.messages import (
    HOST_PREFIX,
    KERNEL_PREFIX,
    PROTOCOL_VERSION,
    PUBLISHED_CLASS,
    STATE_OBJECT,
    KernelInfo,
)
from pyrokernel.wire.naming import Directory, Entry, answers, public_uri, socket_words

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the connection to a name server outside this process is looked at."""
RETRY_SECONDS = 0.5
MISSING_SECONDS = 5.0
"""How often names are looked for that others have removed: whoever may do so need not tell this host."""


class Name(NamedTuple):
    """A name that this host wants to hold.

    Attributes:
        name: With its prefix.
        uri, metadata: What it points to.
        instance: Id of the life behind it.
    """

    name: str
    uri: str
    instance: str
    metadata: frozenset[str]


class Announcer:
    """Registers, removes and re-announces names.

    Args:
        directory: The name server.
        host: Name of this machine; entries with it are this host's to prune.
        outside: Whether the name server is another process, whose connection must be looked at.
        address: "HOST:PORT" at which other machines reach this one, "" where they do not.
    """

    def __init__(self, directory: Directory, host: str, *, outside: bool, address: str = "") -> None:
        self._address = address
        self._own_uri = ""
        self._directory = directory
        self._host = host
        self._outside = outside
        self._wanted: dict[str, Name] = {}
        self._owed: set[str] = set()
        self._lost: set[str] = set()
        self._prune_due = True
        self._orphans_due = False
        self._missing_due = time.monotonic() + MISSING_SECONDS
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pyrokernel-names", daemon=True)

    def start(self) -> None:
        """Begin to carry out what was asked."""
        self._thread.start()

    def announce(self, kernel: KernelInfo, role: str = "kernel") -> Future[None]:
        """Register the name of a kernel, or of the shared state; see `announce_name`."""
        words = {
            f"class:pyrokernel.{role}",
            f"host:{self._host}",
            f"instance:{kernel.instance}",
            f"version:{PROTOCOL_VERSION}",
            f"pid:{kernel.pid}",
            *(f"tag:{tag}" for tag in kernel.tags),
        }
        if kernel.protected:
            words.add("protected")
        return self._announce(registered_name(kernel.name, role), kernel.uri, kernel.instance, words)

    def announce_host(self, uri: str, instance: str) -> Future[None]:
        """Register the name of this host; see `announce_name`."""
        words = {
            "class:pyrokernel.host",
            f"host:{self._host}",
            f"instance:{instance}",
            f"version:{PROTOCOL_VERSION}",
            f"pid:{os.getpid()}",
        }
        self._own_uri = uri  # who holds the lock of this host listens here, and nobody else
        return self._announce(HOST_PREFIX + self._host, uri, instance, words)

    def _announce(self, name: str, uri: str, instance: str, words: set[str]) -> Future[None]:
        if self._address:
            words |= socket_words(uri)
            uri = public_uri(uri, self._address)
        return self.announce_name(Name(name, uri, instance, frozenset(words)))

    def announce_name(self, name: Name) -> Future[None]:
        """Register a name.

        The future fails with NameTakenError when a living instance holds it, with another
        NameServerError when it could not be registered yet: then it will be, and with any
        other error when asking again would not help: then it will not.
        """
        outcome: Future[None] = Future()

        def job() -> None:
            before = self._wanted.get(name.name)
            self._orphans_due = self._orphans_due or before is None or before.instance != name.instance
            self._wanted[name.name] = name
            self._owed.discard(name.name)
            try:
                self._register(name)
            except PyrokernelError as error:
                if isinstance(error, NameServerError) and not isinstance(error, NameTakenError):
                    self._owed.add(name.name)
                else:
                    del self._wanted[name.name]
                resolve(outcome, error)
            else:
                resolve(outcome, None)

        self._jobs.put((job, outcome))
        return outcome

    def withdraw(self, kernel: str, instance: str, role: str = "kernel") -> Future[None]:
        """Remove the name of a kernel, and what it had published, or of the shared state.

        Nothing is removed that points to another instance by now.
        """
        return self._withdraw_name(registered_name(kernel, role), instance)

    def withdraw_host(self, instance: str) -> Future[None]:
        """Remove the name of this host."""
        return self._withdraw_name(HOST_PREFIX + self._host, instance)

    def _withdraw_name(self, name: str, instance: str) -> Future[None]:
        """Remove a name; the future is done when that was tried; a name server that is away is asked again later."""
        outcome: Future[None] = Future()

        def job() -> None:
            wanted = self._wanted.get(name)
            if wanted is not None and wanted.instance == instance:
                del self._wanted[name]
                self._owed.discard(name)
            try:
                if self._directory.lookup(name).value("instance") == instance:
                    self._directory.remove(name)
            except KernelNotFoundError:
                log.debug("the name %s was gone already", name)
            except PyrokernelError:
                self._prune_due = True  # when it answers again
            finally:
                self._orphans_due = True
                resolve(outcome, None)

        self._jobs.put((job, outcome))
        return outcome

    def close(self, timeout: float = 2.0) -> None:
        """Finish what was asked, and end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout)
        self._directory.close()

    def _run(self) -> None:
        while True:
            try:
                asked = self._jobs.get(timeout=self._pause())
            except queue.Empty:
                self._guard(self._keep_true)
                continue
            if asked is None:
                return
            self._guard(*asked)
            if self._prune_due:
                self._guard(self._keep_true)
            elif self._orphans_due and self._jobs.empty():
                self._guard(self._prune_orphans)

    def _guard(self, job: Callable[[], None], outcome: Future[None] | None = None) -> None:
        try:
            job()
        except Exception as error:
            # Every kernel waits for its name from this thread; a mistake in one job must neither end it nor hide.
            log.exception("a job at the name server failed")
            if outcome is not None:
                resolve(outcome, error)

    def _pause(self) -> float:
        if self._owed:
            return RETRY_SECONDS
        return LOOK_SECONDS if self._outside else MISSING_SECONDS

    def _keep_true(self) -> None:
        """Announce what is owed or missing, everything after a lost connection; remove what dead instances left."""
        if self._outside and not self._directory.connected():
            self._owed = set(self._wanted)
            self._prune_due = True
        is_look_due = time.monotonic() >= self._missing_due
        if not self._owed and not self._prune_due and not is_look_due:
            return
        try:
            if is_look_due:
                self._owed |= self._missing()
            for name in sorted(self._owed):
                try:
                    self._register(self._wanted[name])
                except NameTakenError as error:
                    self._warn_once(name, f"a name was lost: {error}")
                except AccessRefusedError as error:
                    if not self._directory.connected():
                        raise
                    self._warn_once(name, str(error))  # this one is refused, and the others need not be
                else:
                    self._lost.discard(name)
                self._owed.discard(name)
            if self._prune_due:
                self._prune()
        except PyrokernelError as error:
            # Also where dialling is refused: these names were registered once, and who answers there may change.
            log.info("%s; trying again", error)
            self._owed = self._owed or set(self._wanted)

    def _missing(self) -> set[str]:
        """Return the names of this host that the name server does not have, also those that it refused before."""
        found = {entry.name for entry in self._directory.having(f"host:{self._host}")}
        missing = self._wanted.keys() - found
        for name in sorted(missing - self._lost):
            log.warning("somebody has removed the name %s; registering it again", name)
        self._missing_due = time.monotonic() + MISSING_SECONDS
        return missing

    def _warn_once(self, name: str, why: str) -> None:
        """Tell why a name is not this host's, which is tried for again and again."""
        if name not in self._lost:
            self._lost.add(name)
            log.warning("%s", why)

    def _register(self, name: Name) -> None:
        """Register one name; replace the entry of a dead instance, or an earlier one of ours."""
        try:
            self._directory.register(name.name, name.uri, name.metadata)
        except NameTakenError as error:
            holder = self._directory.lookup(name.name)
            if holder.value("instance") != name.instance and not self._is_stale(holder):
                raise NameTakenError(name=name.name, holder=describe_holder(holder)) from error
            self._directory.register(name.name, name.uri, name.metadata, replace=True)

    def _prune(self) -> None:
        for prefix in (KERNEL_PREFIX, HOST_PREFIX, STATE_OBJECT):
            for entry in self._directory.list(prefix):
                if entry.name not in self._wanted and self._is_stale(entry):
                    log.info("removing the name %s of an instance that is gone", entry.name)
                    self._remove(entry.name)
        self._prune_orphans()
        self._prune_due = False

    def _remove(self, name: str) -> None:
        """Remove a name, unless that is refused: the others need not be."""
        try:
            self._directory.remove(name)
        except AccessRefusedError as error:
            if not self._directory.connected():
                raise
            log.info("%s", error)

    def _prune_orphans(self) -> None:
        """Remove the names that instances of this machine have published that are gone."""
        try:
            for entry in self._directory.having(PUBLISHED_CLASS):
                if entry.value("host") == self._host and self._is_orphaned(entry):
                    log.info("removing the name %s, published by an instance that is gone", entry.name)
                    self._remove(entry.name)
        except NameServerError:
            self._prune_due = True  # when it answers again
        self._orphans_due = False

    def _is_orphaned(self, entry: Entry) -> bool:
        """Tell whether the instance behind a published name is gone: another has its name, or nobody answers there."""
        kernel = self._wanted.get(KERNEL_PREFIX + entry.value("kernel"))
        if kernel is not None:
            return kernel.instance != entry.value("instance")
        return not answers(entry.uri_here)

    def _is_stale(self, entry: Entry) -> bool:
        """Tell whether an entry is of this machine and nobody answers there, or this very process by now."""
        if entry.value("host") != self._host:
            return False
        if entry.is_elsewhere and not entry.uri.endswith(f"@{self._address}"):
            # Another machine of the same name; or this one, before it was started again with another address.
            return not self._directory.leads_to_somebody(entry)
        return entry.uri_here == self._own_uri or not answers(entry.uri_here)


def registered_name(name: str, role: str) -> str:
    """Return the name under which a process is registered; of the shared state there is one in a mesh."""
    return KERNEL_PREFIX + name if role == "kernel" else STATE_OBJECT


def describe_holder(entry: Entry) -> str:
    """Say who holds a name."""
    return f"instance {entry.value('instance') or 'unknown'} on host {entry.value('host') or 'unknown'} ({entry.uri})"
