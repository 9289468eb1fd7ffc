"""Pyro5's own name server, embedded behind our daemon. Runs in the host process."""

from __future__ import annotations

from pathlib import Path

from Pyro5 import core
from Pyro5.nameserver import MemoryStorage, NameServer

from pyrokernel.wire.daemon import Daemon

__all__ = ["EmbeddedNameServer"]


class EmbeddedNameServer:
    """Pyro5's own name server, with its memory storage, behind our daemon on a unix socket.

    Args:
        unix_path: Where to listen. An old socket file there is replaced: hold the host's lock.
    """

    def __init__(self, unix_path: Path) -> None:
        self._daemon = Daemon(unix_path, identity={"name_server": True})
        server = NameServer(MemoryStorage())
        uri = self._daemon.register(server, core.NAMESERVER_NAME)
        # As NameServerDaemon does: tools such as pyro5-nsc expect the name server to list itself.
        server.register(core.NAMESERVER_NAME, uri, metadata={"class:Pyro5.nameserver.NameServer"})
        self.address = f"./u:{unix_path}"

    def start(self) -> None:
        """Begin to answer."""
        self._daemon.start()

    def close(self) -> None:
        """Stop answering and remove the socket's file."""
        self._daemon.close()
