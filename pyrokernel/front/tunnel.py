"""A way through ssh to a machine that others cannot dial: one ssh process, started again whenever it ends.

Runs in the caller's process, and in a process of its own: `python -m pyrokernel.front.tunnel` with the record on its
standard input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from pyrokernel.again import python_with, start_python
from pyrokernel.errors import HostError
from pyrokernel.host.processes import ask_to_end, is_same, start_time
from pyrokernel.settings import Settings, private_directory, split_address
from pyrokernel.wire import sockets

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
"""Nothing is asked: there may be nobody at the keyboard."""

_KEEP = ("-N", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3",
         "-o", "ControlPath=none", "-o", "LogLevel=ERROR")  # fmt: skip
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_OPEN_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Tunnel:
    """One tunnel; its record is a file of the mesh on this machine.

    Attributes:
        name: Name of the machine in the mesh.
        host: As ssh names it.
        local: "HOST:PORT" here, which others dial.
        remote: "HOST:PORT" of the gateway there, on its loopback.
        out: "HOST:PORT" there, on its loopback, of a SOCKS proxy that dials from here; "" for none.
        pid, started: The process that keeps it; 0 before there is one.
    """

    name: str
    host: str
    local: str
    remote: str
    out: str = ""
    pid: int = 0
    started: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether it is kept."""
        return self.pid > 0 and is_same(self.pid, self.started)

    def command(self) -> list[str]:
        """Return the command line of ssh."""
        outward = ["-R", self.out] if self.out else []
        return [*SSH, *_KEEP, "-L", f"{self.local}:{self.remote}", *outward, self.host]


def find(settings: Settings, name: str) -> Tunnel | None:
    """Return the tunnel of this mesh to a machine, if one is kept here."""
    try:
        found = Tunnel(**json.loads(_record(settings, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.is_alive else None


def open_tunnel(settings: Settings, tunnel: Tunnel) -> Tunnel:
    """Start what keeps a tunnel, and wait until others can dial it.

    Raises:
        HostError: ssh does not get there, or may not forward.
    """
    record = _record(settings, tunnel.name)
    private_directory(settings.mesh_state_dir)
    private_directory(record.parent)
    log = os.open(record.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    read, write = os.pipe()
    try:
        pid = start_python(python_with("pyrokernel.front.tunnel"), os.environ, stdin=read, output=log)
        kept = dataclasses.replace(tunnel, pid=pid, started=start_time(pid))
        text = json.dumps(dataclasses.asdict(kept))
        record.write_text(text)
        os.write(write, text.encode())
    finally:
        for descriptor in (read, write, log):
            os.close(descriptor)
    deadline = time.monotonic() + _OPEN_SECONDS
    while not _is_open(kept.local):
        told = record.with_suffix(".log").read_text(errors="replace").strip().splitlines()
        if told or time.monotonic() > deadline or not kept.is_alive:
            close(settings, tunnel.name)
            raise HostError(f"no tunnel to it by ssh: {told[-1] if told else 'it does not open'}")
        time.sleep(0.05)
    return kept


def close(settings: Settings, name: str) -> bool:
    """End the tunnel to a machine; say whether there was one."""
    found = find(settings, name)
    if found is not None:
        ask_to_end(found.pid)
    _record(settings, name).unlink(missing_ok=True)
    return found is not None


def keep(tunnel: Tunnel) -> None:
    """Have ssh run until this process is asked to end."""
    process: subprocess.Popen[bytes] | None = None
    ended = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        # Nothing is raised: in the middle of starting ssh, nobody would know its number any more.
        ended.set()
        if process is not None:
            process.terminate()

    woken, wake = socket.socketpair()
    with woken, wake:
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGTERM, end)
        pause = _FIRST_PAUSE
        while not ended.is_set():
            begun = time.monotonic()
            process = subprocess.Popen(tunnel.command(), stdin=subprocess.DEVNULL)
            if ended.is_set():  # asked meanwhile
                process.terminate()
            process.wait()
            process = None
            pause = _FIRST_PAUSE if time.monotonic() - begun > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            sockets.is_ready(woken, pause)
        signal.set_wakeup_fd(-1)


def _record(settings: Settings, name: str) -> Path:
    return settings.mesh_state_dir / "tunnels" / f"{name}.json"


def _is_open(address: str) -> bool:
    host, port = split_address(address)
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    keep(Tunnel(**json.loads(sys.stdin.read())))
