"""`serve --ssh`: hosts on other machines, started over the system's ssh, certificates brought along.

Runs in the caller's process.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import shlex
import socket
import subprocess
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pyrokernel.client.roster import split_words
from pyrokernel.errors import HostError, PyrokernelError, SettingsError
from pyrokernel.front.certs import as_name, ca_directory, load_room
from pyrokernel.front.exits import ExitCode, worst
from pyrokernel.front.joining import FIRST_PORT, is_free, own_gateway
from pyrokernel.front.terminal import complain, note, say
from pyrokernel.front.tunnel import SSH, Tunnel, close, find, open_tunnel
from pyrokernel.messages import START_SECONDS
from pyrokernel.settings import Settings, check_name, command_line, split_address
from pyrokernel.wire.naming import location_of
from pyrokernel.wire.revoked import SEEN

_AT_ONCE = 8
_LOOK_SECONDS = 30.0
_SERVE_SECONDS = 2 * START_SECONDS + 30.0

_OUT = "127.0.0.1:1080"
"""Where a machine behind a tunnel finds the proxy by which it dials others."""

_IDENTITY = '"${XDG_CONFIG_HOME:-$HOME/.config}/pyrokernel/host"'
"""Where a host looks for its identity, as a shell there writes it."""

_PASSED = ("tag", "env", "preload", "protected", "restart", "threads", "memory", "descriptors", "journal", "idle_stop")
_NOT_PASSED = (("file", "a mesh file"), ("init", "--init"), ("cwd", "--cwd"), ("path", "--path"),
               ("listen", "--listen"), ("advertise", "--advertise"))  # fmt: skip


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Start hosts on the machines of --ssh, side by side; say of each what became of it."""
    hosts = split_words([args.ssh])
    _check(args, hosts)
    ns = args.join or _name_server(settings)
    location_of(ns)
    authority = ca_directory(args)
    if not (authority / "ca.pem").exists():
        note(f"there is no authority in {authority}: the machines need identities of their own (pyrokernel certs)")
        authority = Path()
    tunnels = _tunnels(hosts, args, settings, ns) if args.tunnel else {}
    codes = []
    with ThreadPoolExecutor(_AT_ONCE, "pyrokernel-ssh") as pool:
        starting = {pool.submit(_serve, host, args, settings, ns, authority, tunnels.get(host)): host for host in hosts}
        for done in as_completed(starting):
            host, error = starting[done], done.exception()
            if error is None:
                say(f"{host}: {done.result()}")
                codes.append(ExitCode.OK)
            elif isinstance(error, (PyrokernelError, OSError)):
                complain(f"{host}: {error}")
                codes.append(ExitCode.FAILED)
            else:
                raise error
    there = dataclasses.replace(settings, ns=ns)
    for purpose, words in (("watch", "ps"), ("stop", "stop --all")):
        say(f"  {purpose + ' all:':<12} {command_line(there, words)}")
    return worst(codes)


class Distant:
    """A machine that ssh reaches.

    Args:
        host: As the user of this account names it to ssh: an alias, a name or an address, with `user@` or without.
    """

    def __init__(self, host: str) -> None:
        self.host = host

    @property
    def name(self) -> str:
        """What it is called in the mesh."""
        return check_name(as_name(self.host.rpartition("@")[2]), "host")

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = _LOOK_SECONDS) -> str:
        """Run a line of shell there, and return what it wrote.

        Raises:
            HostError: ssh does not get there, or the command fails.
        """
        try:
            done = subprocess.run([*SSH, self.host, command], input=stdin, capture_output=True, timeout=timeout)
        except FileNotFoundError as error:
            raise HostError("there is no ssh on this machine; install it (Debian: openssh-client)") from error
        except subprocess.TimeoutExpired as error:
            raise HostError(f"it did not answer within {timeout:g} s; try: ssh {self.host} true") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"code {done.returncode}"]
            raise HostError(self._explain(done.returncode, lines[-1]))
        return done.stdout.decode(errors="replace")

    def _explain(self, code: int, line: str) -> str:
        if code == 255:  # ssh's own
            return f"ssh does not get there ({line}); see that this works without asking anything: ssh {self.host} true"
        if code in (126, 127):
            return (
                f"pyrokernel does not run there ({line}); install it, or say how it is called: "
                "--remote-command /path/to/pyrokernel"
            )
        return line.removeprefix("pyrokernel: ")

    def names(self) -> list[str]:
        """Return by what names and addresses others may reach it, as far as this machine knows.

        What it says of itself is not asked: whoever signs that signs any address for whoever sits there. An address
        that only the other side knows is named by the user (`certs renew HOST --name ADDRESS`).
        """
        told = subprocess.run([*SSH, "-G", self.host], capture_output=True, text=True, timeout=_LOOK_SECONDS).stdout
        hostname = next((line.partition(" ")[2] for line in told.splitlines() if line.startswith("hostname ")), "")
        found = [self.name, hostname, *_addresses(hostname)]
        return [name for name in dict.fromkeys(found) if name]


def _serve(
    host: str, args: argparse.Namespace, settings: Settings, ns: str, authority: Path, tunnel: Tunnel | None
) -> str:
    """Start a host on one machine; return in a line what came of it."""
    machine = Distant(host)
    if authority != Path():
        _check_ours(machine, authority)
        identity = _identity(authority, machine, [] if tunnel is None else [split_address(tunnel.local)[0]])
        machine.run(
            f"umask 077; mkdir -p {_IDENTITY} && chmod 700 {_IDENTITY} && tar -xf - -C {_IDENTITY}",
            stdin=_packed(identity),
        )
        machine.run(f"{args.remote_command} certs env {_IDENTITY} > /dev/null")
        note(f"{host}: has the identity of host {machine.name}")
    words = ["--mesh", settings.mesh, "serve", "--join", ns, "--detach", *_passed(args)]
    variables = {"PYROKERNEL_STATE_HOST": settings.state_host}
    if tunnel is not None:
        words += ["--listen", tunnel.remote, "--advertise", tunnel.local]
        variables["PYROKERNEL_VIA"] = tunnel.out
    line = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items() if value)
    line += f" {args.remote_command} {shlex.join(words)}"
    if tunnel is None or tunnel.is_alive:
        told = machine.run(line, timeout=_SERVE_SECONDS).splitlines()
    else:
        open_tunnel(settings, tunnel)
        try:
            told = machine.run(line, timeout=_SERVE_SECONDS).splitlines()
        except BaseException:
            close(settings, tunnel.name)
            raise
    reached = next((line.strip().partition(";")[0] for line in told if "reach it at" in line), "")
    return f"{told[0] if told else 'runs'}{'; ' + reached if reached else ''}"


def _check_ours(machine: Distant, authority: Path) -> None:
    """See, before anything is signed, that ssh gets there, and that the machine is not of another mesh.

    Raises:
        HostError: It does not, or it has an identity of another authority.
    """
    there = machine.run(f"cat {_IDENTITY}/ca.pem 2>/dev/null || true").strip()
    if there and there != (authority / "ca.pem").read_text().strip():
        raise HostError(
            f"it has an identity of another authority in {_IDENTITY}, which would be lost; if that is to be, move it "
            f"away first: ssh {machine.host} mv {_IDENTITY} {_IDENTITY}.old"
        )


def _tunnels(hosts: Sequence[str], args: argparse.Namespace, settings: Settings, ns: str) -> dict[str, Tunnel]:
    """Return a tunnel for each machine: the one that is open, or a new one by a port of its own here."""
    here = _address_towards(*location_of(ns))
    shown = f"[{here}]" if ":" in here else here
    free = (port for port in range(FIRST_PORT + 1, 65536) if is_free(here, port))
    found = {}
    for host in hosts:
        name = Distant(host).name
        found[host] = find(settings, name) or Tunnel(
            name, host, f"{shown}:{next(free)}", f"127.0.0.1:{FIRST_PORT}", _OUT if args.tunnel == "both" else ""
        )
    return found


def _address_towards(host: str, port: int) -> str:
    """Return the address of this machine by which it reaches another; sends nothing."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _identity(authority: Path, machine: Distant, more: Sequence[str]) -> Path:
    """Return the directory of an identity for a machine, for all the names that it has, and more.

    Args:
        authority: Its directory.
        machine: Which.
        more: Addresses of this machine, by which a tunnel leads there.

    Raises:
        SettingsError: The machine was revoked, or another is reached by one of its names.
    """
    wanted = [*machine.names(), *more]
    with load_room("authority").opened(authority) as made:
        known = made.index.of(machine.name)
        if not known:
            record = made.issue("host", machine.name, wanted, shared=more)
        elif set(wanted) <= {machine.name, *known[-1].names} and known[-1].state(time.time()) == "valid":
            record = known[-1]
        else:
            record = made.renew(machine.name, wanted, shared=more)
        found: Path = made.directory_of(record)
    return found


def _packed(directory: Path) -> bytes:
    """Return the files of an identity as an archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(directory.iterdir()):
            if path.name == SEEN:  # what was seen here says nothing of what was seen there
                continue
            archive.add(path, path.name, filter=_without_owner)
    return packed.getvalue()


def _without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    # Root there would give the files to whoever has this number, and others could not use them.
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


def _addresses(hostname: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []  # an alias that only ssh knows


def _name_server(settings: Settings) -> str:
    """Return the address of the name server that other machines are to join.

    Raises:
        SettingsError: None can be reached from elsewhere.
    """
    if settings.ns and not settings.ns.startswith("./u:"):
        return settings.ns
    found = own_gateway(settings)
    if found:
        return dataclasses.replace(settings, listen=found).address
    raise SettingsError(
        "--ssh starts hosts that join a mesh, and there is none that other machines reach; say which, with --join "
        "NS:PORT, or begin one here: pyrokernel serve --detach --listen ADDRESS:9191"
    )


def _check(args: argparse.Namespace, hosts: Sequence[str]) -> None:
    for name, shown in _NOT_PASSED:
        if getattr(args, name, None):
            raise SettingsError(f"{shown} is of this machine; leave it out with --ssh, or run serve there")
    if args.name and len(hosts) > 1:
        raise SettingsError("--name is for one machine; with several, -n names kernels after their machines")
    bad = [host for host in hosts if host.startswith("-") or any(mark.isspace() for mark in host)]
    if bad or not hosts:
        raise SettingsError(f"--ssh {args.ssh}: use HOST or USER@HOST, with commas between")


def _passed(args: argparse.Namespace) -> list[str]:
    """Return the options for the kernels, to be given to `serve` there."""
    words = [] if args.number is None else ["-n", str(args.number)]
    for name in args.name or ():
        words += ["--name", name]
    for option in _PASSED:
        value = getattr(args, option)
        flag = f"--{option.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [word for one in value for word in (flag, str(one))]
        elif value:
            words += [flag, str(value)]
    return words
