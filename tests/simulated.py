"""A thousand kernels, simulated by a few processes that answer as one did. Runs in the test process and in those.

The client's side is all real: a link, a connection and a handshake for each of them, requests and replies byte for
byte. Each of the processes below serves many of them on one unix socket. What it answers it was told by a real kernel,
to which it sent the first request that came.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from Pyro5.errors import ConnectionClosedError
from served import PORTABLE

from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import Link
from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.wire.connection import MSG_RESULT, Connection, IncomingMessage, MessageReader, frame
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.proxy import connect, read_greeting

PROCESSES = 4


class Simulated:
    """Some simulated kernels, which answer as a real one does.

    Args:
        kernel: The real one.
        count: How many.
    """

    def __init__(self, kernel: Kernel, count: int) -> None:
        self._kernel, self._count = kernel, count

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="pk-sim-", dir="/tmp")
        self._processes, paths = [], []
        for number in range(PROCESSES):
            paths.append(Path(self._folder.name) / str(number))
            command = [sys.executable, __file__, str(paths[-1]), self._kernel.link.uri]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
        self._kernels = [
            Kernel(self._kernel.mesh, Link(f"s{n}", _uri(paths[n % PROCESSES]), str(paths[n % PROCESSES])))
            for n in range(self._count)
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for kernel in self._kernels:
            kernel.link.close()
        for process in self._processes:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def group(self, count: int) -> Group:
        """Return a group of the first so many."""
        return Group(self._kernel.mesh, self._kernels[:count])


def _uri(path: Path) -> str:
    return f"PYRO:{KERNEL_OBJECT}@./u:{path}"


class _Control:
    """What is asked of kernels beside calls."""

    @expose
    def commands(self) -> list[Any]:
        """There are none."""
        return []


def serve(path: Path, real: str) -> None:
    """Be many kernels. Runs in a process of its own."""
    loop = selectors.EpollSelector()
    told: list[bytes] = []
    gate = threading.Lock()

    def answer(connection: Connection) -> None:
        request = connection.recv_message()
        with gate:
            if not told:
                told.append(_ask(real, request))
        for buffer in frame(MSG_RESULT, told, seq=request.seq, cell=request.cell):
            connection.sock.sendall(buffer)

    def adopt(connection: Connection) -> None:
        connection.sock.setblocking(True)
        connection.reader = MessageReader()
        loop.register(connection.sock, selectors.EVENT_READ, connection)

    daemon = Daemon(path, identity={"kernel": "simulated", "instance": str(path)}, on_work=adopt, portable=PORTABLE)
    daemon.offer(_Control(), KERNEL_OBJECT)
    daemon.start()
    print("listening", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        for key, _ in loop.select(1.0):
            try:
                answer(key.data)
            except ConnectionClosedError:
                loop.unregister(key.fileobj)
                key.data.close()


def _ask(real: str, request: IncomingMessage) -> bytes:
    """Have the real kernel answer a request, byte for byte as it came."""
    connection = connect(real, kind="work")
    connection.reader = MessageReader()  # takes no more than one message at a time
    connection.sock.setblocking(True)
    connection.sock.sendall(request.header + bytes(request.body))
    while True:
        message = connection.recv_message()
        if connection.greeted:
            return bytes(message.payload)
        read_greeting(connection, message)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
