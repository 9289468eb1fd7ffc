"""pyrokernel as from another machine: kernels behind a gateway, over TLS on loopback; and the floor of it.

Runs in the process of an experiment.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import selectors
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from floor import MESSAGE_BYTES, tcp_pair
from ours import Kernels

import pyrokernel as pk
from pyrokernel import settings
from pyrokernel.gateway.newcomers import MAX_NEWCOMERS
from pyrokernel.wire import naming
from pyrokernel.wire.identity import Identity


class Laboratory:
    """A configuration of its own, with an authority and the identities of this machine and this user."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pk-far-", dir="/tmp"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYRO_", "PYROKERNEL_"))}
        self.environ = {
            **kept,
            "XDG_CONFIG_HOME": str(self.folder / "c"),
            "PYROKERNEL_RUNTIME_DIR": str(self.folder / "r"),
            "PYROKERNEL_STATE_DIR": str(self.folder / "s"),
        }
        self.run("certs", "init")

    def run(self, *words: str) -> None:
        """Run the command line on that machine."""
        subprocess.run([sys.executable, "-m", "pyrokernel", *words], env=self.environ, check=True, capture_output=True)

    def identity(self, which: str) -> Identity:
        """Return an identity: "certs" or "host"."""
        return Identity(self.folder / "c" / "pyrokernel" / which)

    def close(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class FarKernels(Kernels):
    """Kernels of another machine, or so it seems: their sockets are not believed to be of this one."""

    def __enter__(self) -> Self:
        self._laboratory = Laboratory()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._laboratory.run("serve", "-n", str(self._workers), "--detach", "--listen", self.address)
        naming.machine_key = lambda: "elsewhere"
        self.options = {"ns": self.address, "certs": str(self._laboratory.identity("certs").directory)}
        self.mesh = self.connect()
        self.group = self.mesh[:]
        self.one = self.mesh[0]
        self.group.execute("from functions import *")
        return self

    def __exit__(self, *exception: object) -> None:
        naming.machine_key = settings.machine_key
        self.mesh.close()
        self._laboratory.run("stop")
        self._laboratory.close()

    def connect(self) -> pk.Mesh:
        """Return the mesh, by connections that are not there yet."""
        return pk.connect(**self.options)

    def first(self, number: int) -> int:
        """Call over a connection that is made for it, the one to the name server too."""
        with self.connect() as mesh:
            return int(mesh["k0"].call("step", number))


class Calm(FarKernels):
    """A second machine, which nobody attacks."""

    name = "one that nobody attacks"


class Besieged(FarKernels):
    """One that strangers flood: twice as many as its gateway takes, and each comes again when it is shown the door.

    One half says nothing, the other half a part of a TLS greeting.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        host, _, port = self.address.rpartition(":")
        ready, told = multiprocessing.Pipe(duplex=False)
        self._attacker = multiprocessing.get_context("fork").Process(
            target=_besiege, args=((host, int(port)), told), daemon=True
        )
        self._attacker.start()
        ready.recv()
        return self

    def __exit__(self, *exception: object) -> None:
        self._attacker.kill()
        self._attacker.join(5)
        super().__exit__(*exception)


def _besiege(address: tuple[str, int], told: Connection) -> None:
    """Connect for ever; tell once that there have been so many."""
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=address[0]).do_handshake()
    said = hello.read()
    selector = selectors.DefaultSelector()
    for number in itertools.count():
        with contextlib.suppress(OSError):  # it was shown the door at once
            sock = socket.create_connection(address)
            selector.register(sock, selectors.EVENT_READ)
            sock.send(said[: number % len(said)] if number % 2 else b"")
        if number == 2 * MAX_NEWCOMERS:
            told.send(None)
        for key, _ in selector.select(0 if len(selector.get_map()) < 2 * MAX_NEWCOMERS else None):
            selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]  # they are all sockets


class RawTls:
    """A byte string to another process and back under TLS, by Python's own sockets, nothing encoded."""

    name = "raw TLS"

    def __enter__(self) -> Self:
        laboratory = Laboratory()
        server, client = laboratory.identity("host").server_context(), laboratory.identity("certs").client_context()
        laboratory.close()
        ours, other = tcp_pair()
        self._process = multiprocessing.get_context("fork").Process(
            target=self._echo, args=(ours, other, server), daemon=True
        )
        self._process.start()
        other.close()
        self._sock = client.wrap_socket(ours, server_hostname="localhost")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sock.close()
        self._process.join(5)

    @staticmethod
    def _echo(ours: socket.socket, other: socket.socket, context: object) -> None:
        ours.close()
        sock = context.wrap_socket(other, server_side=True)  # type: ignore[attr-defined]
        while content := sock.recv(MESSAGE_BYTES):
            number = int.from_bytes(content, "little")
            sock.sendall((number + 1).to_bytes(MESSAGE_BYTES, "little"))

    def call(self, number: int) -> int:
        """Send a number; return what comes back."""
        self._sock.sendall(number.to_bytes(MESSAGE_BYTES, "little"))
        return int.from_bytes(self._sock.recv(MESSAGE_BYTES), "little")
