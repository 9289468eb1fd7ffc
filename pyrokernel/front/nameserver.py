"""`nameserver`: serve names by themselves, outlasting hosts, with a storage. Runs in the caller's process.

In the foreground, as `pyro5-ns` does: what keeps it running is systemd, a container or a terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.nameserver_files import ACTIONS_ON_FILES
from pyrokernel.front.nameserver_status import status
from pyrokernel.front.reach import settings_of
from pyrokernel.front.terminal import note, say
from pyrokernel.settings import Settings, command_line, private_directory
from pyrokernel.texts import plural
from pyrokernel.wire.names_file import hold
from pyrokernel.wire.nameserver import EmbeddedNameServer

_PORT = 9090
"""Pyro5's own."""


def main(args: argparse.Namespace) -> int:
    """Serve, or do what is asked with a name server or its file."""
    if args.action in ACTIONS_ON_FILES:
        return ACTIONS_ON_FILES[args.action](args)
    if args.file:
        raise SettingsError(f"{args.action or 'nameserver'} takes no file; a storage is named with -s sql:FILE")
    settings = settings_of(args)
    if args.action == "status":
        return status(args, settings)
    return serve(settings, listen_of(args), socket_of(args, settings), args.storage, location_of(args))


def serve(settings: Settings, listen: str, unix: Path, storage: str, location: str = "") -> int:
    """Be a name server until SIGTERM or Ctrl-C.

    Args:
        settings: With the identity for TLS.
        listen: "HOST:PORT" for other machines and accounts, by mutual TLS; "" for this account alone.
        unix: Socket of this account.
        storage: "memory" or "sql:FILE".
        location: "HOST:PORT" by which clients find it; "" for what it listens at.

    Raises:
        SettingsError, AccessRefusedError, NameServerError: It cannot.
    """
    private_directory(unix.parent)
    held = hold(unix)
    try:
        with _told_to_end() as wait, _served(settings, listen, unix, storage, location) as names:
            _announce(settings, unix, names)
            notify("READY=1")
            wait()
            notify("STOPPING=1")
    finally:
        os.close(held)
    note("name server: ended")
    return ExitCode.OK


@contextlib.contextmanager
def _served(settings: Settings, listen: str, unix: Path, storage: str, location: str) -> Iterator[int]:
    """Answer on the socket, and through the gateway where one is asked for; tell how many names there are."""
    if listen:
        raise AccessRefusedError(
            f"{listen} is TCP, where anybody could come in: that takes mutual TLS, which this version does not have; "
            "use a unix socket (-u PATH), and ssh from elsewhere"
        )
    server = EmbeddedNameServer(unix, storage, location or listen)
    server.start()
    try:
        yield server.names
    finally:
        server.close()


def listen_of(args: argparse.Namespace) -> str:
    """Return where to listen for other machines, as `pyro5-ns` is told it; "" for nowhere."""
    if args.host is None and args.port is None:
        return ""
    host = args.host or "localhost"
    port = args.port if args.port is not None else int(os.environ.get("PYRO_NS_PORT") or _PORT)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def location_of(args: argparse.Namespace) -> str:
    """Return by which address clients behind a router find it, "" for that at which it listens."""
    if bool(args.nathost) != bool(args.natport):
        raise SettingsError("--nathost and --natport belong together: the address outside, and the port there")
    return f"{args.nathost}:{args.natport}" if args.nathost else ""


def socket_of(args: argparse.Namespace, settings: Settings) -> Path:
    """Return the path of the socket."""
    if args.unixsocket:
        return Path(os.path.abspath(os.path.expanduser(args.unixsocket)))
    # In a folder of its own: the sockets of a mesh are its host's to clear up.
    return settings.mesh_runtime_dir / "nameserver" / "ns.sock"


def _announce(settings: Settings, unix: Path, names: int) -> None:
    say(f"name server at {unix}: {plural(names, 'name')}")
    base = Settings(mesh=settings.mesh, ns=f"./u:{unix}")
    for purpose, words in (("start a mesh", "serve --detach"), ("look at it", "nameserver status")):
        say(f"  {purpose + ':':<14} {command_line(base, words)}")
    say(f"  {'list names:':<14} pyro5-nsc -u {unix} list")


@contextlib.contextmanager
def _told_to_end() -> Iterator[Callable[[], object]]:
    """Give a function that waits for SIGTERM or Ctrl-C."""
    ours, other = socket.socketpair()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    with ours, other:
        for number in numbers:
            # A second one, while this one ends, changes nothing.
            signal.signal(number, lambda *_: _tell(other))
        try:
            yield lambda: ours.recv(1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        sock.send(b".", socket.MSG_DONTWAIT)


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)); elsewhere nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
