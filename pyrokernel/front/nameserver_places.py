"""Where a name server is, by the options that `pyro5-ns` has too. Runs in the caller's process."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from pyrokernel.errors import SettingsError
from pyrokernel.settings import Settings, split_address
from pyrokernel.wire.trust import is_loopback

_PORT = 9090
"""Pyro5's own."""

SOCKET = "ns.sock"
"""How the gateway finds a name server in the folder that it serves."""


def listen_of(args: argparse.Namespace) -> str:
    """Return where to listen for other machines, as `pyro5-ns` is told it; "" for nowhere."""
    if args.host is None and args.port is None:
        return ""
    host = args.host or "localhost"
    port = args.port if args.port is not None else int(os.environ.get("PYRO_NS_PORT") or _PORT)
    if not 0 < port < 65536:
        raise SettingsError(f"-p {port}: use a port from 1 to 65535; clients have to know it")
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
    return settings.mesh_runtime_dir / "nameserver" / SOCKET


def command_that_serves(address: str) -> str:
    """Return the command that runs a name server at an address."""
    host, port = split_address(address)
    where = ["-u", address[4:]] if address.startswith("./u:") else ["-n", host or address, "-p", port]
    return shlex.join(["pyrokernel", "nameserver", *where])


def ways_to_serve(address: str) -> str:
    """Return what has a name server at an address again, whichever it was, and on whichever machine."""
    command = command_that_serves(address)
    if address.startswith("./u:"):
        return command
    host, _ = split_address(address)
    ways = f"{command}, or pyro5-ns if it was that"
    return ways if is_loopback(host or address) else f"on {host or address}: {ways}, or the host that has it"
