"""Who is connected, asked of the terminal server of this machine. Runs in whatever process asks."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from pyrokernel.settings import Settings
from pyrokernel.texts import span, table
from pyrokernel.wire.trust import check_peer, check_socket_path

_SECONDS = 3.0
_MOST_BYTES = 4 << 20


def socket_of(settings: Settings) -> Path:
    """Return where a server tells who is connected."""
    return settings.mesh_runtime_dir / "terminal.sock"


def ask(settings: Settings) -> list[dict[str, Any]] | None:
    """Return what is known of each session; None when no server runs here.

    Raises:
        AccessRefusedError: It is another account's.
    """
    try:
        path = check_socket_path(socket_of(settings))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(str(path))
            check_peer(sock)
            told = b""
            while len(told) < _MOST_BYTES and (data := sock.recv(65536)):
                told += data
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return None
    found: list[dict[str, Any]] = json.loads(told)["sessions"]
    return found


def describe(sessions: list[dict[str, Any]] | None) -> str:
    """Return a table of sessions, for people."""
    if sessions is None:
        return "no terminal server runs on this machine for this mesh; `pyrokernel terminal` starts one"
    if not sessions:
        return "nobody is connected"
    rows = [
        (
            one["user"],
            one["role"],
            one["by"],
            one["from"],
            time.strftime("%m-%d %H:%M", time.localtime(one["since"])),
            span(one["idle"]),
            str(one["pid"]),
        )
        for one in sessions
    ]
    return table(("USER", "ROLE", "BY", "FROM", "SINCE", "IDLE", "PID"), rows)
