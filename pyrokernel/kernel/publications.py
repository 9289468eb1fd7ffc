"""What a kernel has published: served to stock proxies, named at the name server. Runs in the kernel process."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import Any

from pyrokernel.client import keeper
from pyrokernel.errors import KernelNotFoundError, NameServerError, NameTakenError, SettingsError
from pyrokernel.kernel.references import References
from pyrokernel.messages import KERNEL_PREFIX, PUBLISHED_CLASS, PUBLISHED_OBJECT, KernelBirth, KernelSpec
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.naming import Directory, Entry, answers, public_uri, socket_words
from pyrokernel.wire.remote import Credentials

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
"""How often it is seen to that the names are still there: a name server may have been started anew, and empty."""

_GOODBYE_SECONDS = 1.0


class Publications:
    """Publishes objects of this kernel.

    Args:
        birth: Who this kernel is, and where the name server is.
        daemon: Serves the objects.
        references: Where they are reached by `Mesh.open`.
    """

    def __init__(self, birth: KernelBirth, daemon: Daemon, references: References) -> None:
        self._birth, self._daemon, self._references = birth, daemon, references
        self._kernel = KernelSpec.from_wire(birth.spec).name
        self._metadata = {
            PUBLISHED_CLASS,
            f"kernel:{self._kernel}",
            f"instance:{birth.instance}",
            f"host:{birth.host}",
        }
        self._lock = threading.RLock()
        self._names: dict[str, str] = {}

    def publish(self, name: str, value: Any) -> str:
        """Serve an object under a name; see `pyrokernel.publish`."""
        reserved = ("pyrokernel.", "Pyro.")
        if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,199}", name, re.ASCII) or name.startswith(reserved):
            raise SettingsError(
                f"cannot publish {name!r}: use letters, digits, '.', '_' and '-', and none of {reserved}"
            )
        if not self._birth.ns:
            raise SettingsError("this kernel knows of no name server at which an object could be published")
        with self._lock:
            self._references.publish(name, value)
            uri = self._daemon.offer(value, PUBLISHED_OBJECT + name)
            try:
                self._register(self._name_server(), name, uri)
            except BaseException:
                self._forget(name)
                raise
            self._names[name] = uri
        keeper.keep(("published", self._birth.instance), self._look, _LOOK_SECONDS)
        return uri

    def unpublish(self, name: str) -> bool:
        """Serve an object no longer; see `pyrokernel.unpublish`."""
        with self._lock:
            if self._names.pop(name, None) is None:
                return False
            self._forget(name)
            self._remove(self._name_server(), name)
        return True

    def close(self) -> None:
        """Take all names back, if the name server answers at once: the kernel ends."""
        if not self._names:
            return
        directory = self._name_server(_GOODBYE_SECONDS)
        with contextlib.suppress(NameServerError):  # its host removes what is left behind
            for name in self._names:
                self._remove(directory, name)

    def _name_server(self, timeout: float = 3.0) -> Directory:
        return Directory(self._birth.ns, timeout=timeout, credentials=Credentials.of_process(self._birth.gateway))

    def _forget(self, name: str) -> None:
        self._references.revoke(PUBLISHED_OBJECT + name, "it is published no longer")
        self._daemon.withdraw(PUBLISHED_OBJECT + name)

    def _remove(self, directory: Directory, name: str) -> None:
        """Remove a name, unless it leads to another by now."""
        with contextlib.closing(directory), contextlib.suppress(KernelNotFoundError):
            if directory.lookup(name).value("instance") == self._birth.instance:
                directory.remove(name)

    def _register(self, directory: Directory, name: str, uri: str) -> None:
        """Register a name; replace what a kernel left behind that is gone."""
        words = self._metadata
        if self._birth.address:
            uri, words = public_uri(uri, self._birth.address), {*words, *socket_words(uri)}
        with contextlib.closing(directory):
            try:
                directory.register(name, uri, words)
            except NameTakenError:
                if not self._is_left_behind(directory, directory.lookup(name)):
                    raise
                directory.register(name, uri, words, replace=True)

    def _is_left_behind(self, directory: Directory, entry: Entry) -> bool:
        """Whether an entry is of an instance that is gone, or of this one."""
        if PUBLISHED_CLASS not in entry.metadata:
            return False
        kernel, instance = entry.value("kernel"), entry.value("instance")
        if kernel == self._kernel:
            return True
        try:
            return directory.lookup(KERNEL_PREFIX + kernel).value("instance") != instance
        except KernelNotFoundError:
            return not answers(entry.uri)

    def _look(self) -> bool:
        """See to it that the names are there; the keeper calls this."""
        with self._lock:
            names = list(self._names)
        directory = self._name_server()
        with contextlib.closing(directory):
            for name in names:
                try:
                    if directory.lookup(name).value("instance") == self._birth.instance:
                        continue
                except KernelNotFoundError:
                    log.info("announcing the published name %s again", name)
                try:
                    with self._lock:
                        if name in self._names:  # nobody has taken it back meanwhile
                            self._register(self._name_server(), name, self._names[name])
                except NameTakenError as error:
                    log.warning("a published name was lost: %s", error)
        return bool(self._names)
