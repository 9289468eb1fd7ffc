"""From start to end of a terminal server. Runs in the terminal server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import asyncssh
from pyrokernel.errors import PyrokernelError, SettingsError
from pyrokernel.front.reach import open_mesh
from pyrokernel.settings import Settings

from pyrokernel_terminal import ssh, telnet
from pyrokernel_terminal.accounts import User
from pyrokernel_terminal.house import House, Reception, describe_users, folder
from pyrokernel_terminal.options import Options, is_loopback

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""How often the file of users is looked at for who is to go."""


async def run_server(settings: Settings, options: Options) -> int:
    """Serve until SIGINT or SIGTERM; then all sessions are told, and ended.

    Raises:
        SettingsError: There is nothing to serve, or not at that address.
        HostError: Another server serves this mesh here.
    """
    if not (options.ssh or options.telnet):
        raise SettingsError("neither SSH nor Telnet is to be served; give --ssh or --telnet an address")
    logging.getLogger("asyncssh").setLevel(logging.ERROR)  # what strangers do wrong is in our own record
    logging.getLogger("telnetlib3").setLevel(logging.ERROR)
    house = House(settings, options)
    reception = Reception(house)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await reception.open()
    doors: list[Any] = []
    watch = asyncio.ensure_future(_watch_users(house))
    try:
        await _open_doors(house, doors)
        await asyncio.to_thread(_warn_without_mesh, settings)
        await stop.wait()
    finally:
        watch.cancel()
        try:
            await house.sessions.close(
                "the terminal server ends, and this session with it; what runs on kernels goes on"
            )
        except TimeoutError:
            log.warning("%d sessions have not ended", len(house.sessions))
        for door in doors:
            door.close()
        await reception.close()
        house.record.close()
    return 0


async def _open_doors(house: House, doors: list[Any]) -> None:
    options = house.options
    if options.ssh:
        key_file = folder(house.settings) / "ssh_host_ed25519_key"
        with _at("--ssh", options.ssh):
            door = await ssh.listen(house, options.ssh, key_file)
        doors.append(door)
        fingerprint = asyncssh.SSHKey.get_fingerprint(ssh.host_key(key_file))
        _say(f"ssh on {_where(door.sockets)}, host key {fingerprint}; {describe_users(house.users())}")
    if options.telnet:
        user = User.of(options.telnet_as)
        with _at("--telnet", options.telnet):
            server = await telnet.listen(house, options.telnet, user)
        doors.append(server)
        _say(f"telnet on {_where(server.sockets)}: whoever connects is {user.act_for}, without being asked for more")
        if not is_loopback(options.telnet):
            _say("WARNING: Telnet beyond this machine: all is read, and can be changed, on the way; anybody is let in")
        elif user.role > user.role.OBSERVER:
            _say(f"WARNING: every account of this machine may run code as yours, by telnet, being {user.act_for}")


@contextlib.contextmanager
def _at(option: str, address: str) -> Iterator[None]:
    """Say of which option it is that nobody can listen there."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PyrokernelError) or error.filename is not None:  # it is about the key of the host
            raise
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror  # a name that is not known has a negative one
        raise SettingsError(
            f"{option} {address}: {why}; give an address of this machine, and a port that is free"
        ) from error


def _warn_without_mesh(settings: Settings) -> None:
    """Say that sessions have nothing to look at, if that is so; a mesh that starts later is found by them."""
    try:
        open_mesh(settings).close()
    except PyrokernelError as error:
        _say(f"WARNING: {error}; until then whoever logs in is told that there is none")


async def _watch_users(house: House) -> None:
    """End the sessions of whoever, or whose key, is taken off the list."""
    last: object = None
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            info = house.options.users_file.stat()
            now: object = (info.st_mtime_ns, info.st_ino)
        except OSError:
            now = None
        if now == last:
            continue
        try:
            house.check_users()
        except PyrokernelError as error:
            log.error("%s", error)
            continue
        last = now


def _where(sockets: Any) -> str:
    names = [sock.getsockname() for sock in sockets or ()]
    return ", ".join(f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names)


def _say(text: str) -> None:
    print(f"terminal: {text}", file=sys.stderr, flush=True)
