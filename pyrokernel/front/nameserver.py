"""`nameserver`: serve names by themselves, outlasting hosts, with a storage. Runs in the caller's process.

In the foreground, as `pyro5-ns` does: what keeps it running is systemd, a container or a terminal.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import signal
import socket
from pathlib import Path

from pyrokernel.certs.bundles import take_revoked
from pyrokernel.errors import SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.joining import name_lacking
from pyrokernel.front.nameserver_files import ACTIONS_ON_FILES
from pyrokernel.front.nameserver_forget import forget
from pyrokernel.front.nameserver_places import SOCKET, listen_of, location_of, socket_of
from pyrokernel.front.nameserver_status import status
from pyrokernel.front.reach import settings_of
from pyrokernel.front.terminal import note, say
from pyrokernel.gateway.gateway import Gateway
from pyrokernel.loop import Loop
from pyrokernel.settings import Settings, command_line, place_of, private_directory
from pyrokernel.texts import plural
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.limits import Quota
from pyrokernel.wire.names_file import hold
from pyrokernel.wire.nameserver import EmbeddedNameServer


def main(args: argparse.Namespace) -> int:
    """Serve, or do what is asked with a name server or its file."""
    if args.action == "forget":
        return forget(args, settings_of(args))
    if args.force:
        raise SettingsError(f"{args.action or 'nameserver'} takes no --force; it goes with forget HOST")
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
    if listen and unix.name != SOCKET:
        raise SettingsError(
            f"{unix}: beside -n and -p the socket is called {SOCKET}; name its folder, -u FOLDER/{SOCKET}"
        )
    settings = dataclasses.replace(settings, listen=listen)
    if listen:
        _look_at_name(settings, location)
    private_directory(unix.parent)
    held = hold(unix)
    try:
        server = EmbeddedNameServer(
            unix,
            storage,
            location or settings.address,
            state_host=settings.state_host,
            quota=Quota.of(settings),
            portable=settings.portable,
            on_revoked=functools.partial(take_revoked, settings.host_certs_dir),
        )
        server.start()
        try:
            _be_there(settings, unix, server)
        finally:
            server.close()
    finally:
        os.close(held)
    note("name server: ended")
    return ExitCode.OK


def _look_at_name(settings: Settings, location: str) -> None:
    """Note a name that the certificate is not for; others may have one by which they come, so it is not refused."""
    host, _ = place_of(location or settings.address, "listen")
    lacking = name_lacking(host, Identity.load(settings.host_certs_dir, "host"))
    if lacking:
        note(f"{lacking}; or have them go by one of its names")


def _be_there(settings: Settings, unix: Path, server: EmbeddedNameServer) -> None:
    """Let others in, if that is asked for, and wait for the end."""
    # Its socket for ways out is of no use here, but for who would look after this name server from a script.
    gateway = Gateway(settings, unix.parent, unix.with_name("gateway")) if settings.listen else None
    loop = gateway.loop if gateway is not None else Loop()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        _announce(settings, unix, server)
        notify("READY=1")
        (gateway or loop).run()
        notify("STOPPING=1")
    finally:
        loop.close()


def _announce(settings: Settings, unix: Path, server: EmbeddedNameServer) -> None:
    say(f"name server at {server.address}: {plural(server.names, 'name')}")
    to = command_line(dataclasses.replace(settings, ns=server.address), "")
    say(f"  start a mesh:  {to}serve --detach" + (" --listen HOST:PORT" if settings.listen else ""))
    say(f"  look at it:    {to}nameserver status")
    say(f"  list names:    pyro5-nsc -u {unix} list")


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)); elsewhere nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
