"""`serve --join`: what a machine needs to be reached in the mesh of a name server. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import socket
from contextlib import closing

from pyrokernel.errors import KernelUnreachableError, MachineLostError, NameServerNotFoundError, SettingsError
from pyrokernel.front.terminal import note
from pyrokernel.host.places import Places
from pyrokernel.host.processes import is_same
from pyrokernel.host.registry import Registry
from pyrokernel.settings import Settings, place_of
from pyrokernel.wire.identity import Identity, names_in, plain_name
from pyrokernel.wire.naming import Directory, location_of
from pyrokernel.wire.remote import DIAL_SECONDS, Credentials, dial
from pyrokernel.wire.trust import is_loopback

FIRST_PORT = 9191
"""Where a gateway listens unless something else does."""
_PORTS = 64


def joining(settings: Settings, ns: str) -> Settings:
    """Return the settings of a host that joins the mesh of a name server.

    Args:
        settings: Without a name server; what `listen` says, holds.
        ns: "HOST:PORT" of the name server.

    Raises:
        SettingsError: There is no identity of a host, or none for the address.
        AccessRefusedError: What listens there has no TLS, or is of another mesh.
        NameServerNotFoundError: Nobody answers there.
    """
    identity = Identity.load(settings.host_certs_dir, "host")
    address, port = location_of(ns)
    try:
        here = _reached_from(address, port, Credentials.of_host(settings))
    except NameServerNotFoundError as error:
        if ns.rpartition(":")[2].isdigit():
            raise
        raise NameServerNotFoundError(
            f"{error}; {ns} without a port is {port}, and that of a host is where it listens: {ns}:{FIRST_PORT}, say"
        ) from error
    settings = dataclasses.replace(settings, ns=f"{address}:{port}", host=settings.host or identity.name)
    if not settings.listen:
        if is_loopback(here):
            raise SettingsError(
                f"--join {ns}: that address is on this machine alone; use the one by which others reach the name "
                "server, or say with --listen HOST:PORT how they reach this machine"
            )
        host = _name_of(here, identity)
        settings = dataclasses.replace(settings, listen=f"{host}:{_free_port(settings, host, here)}")
    check_covered(settings, identity)
    return settings


def meant(settings: Settings, join: str) -> Settings:
    """Return the settings of a host by which it is in the mesh that is meant.

    Args:
        settings: As the user has them.
        join: What `--join` says, "" for nothing.

    Raises:
        SettingsError, AccessRefusedError, NameServerNotFoundError: As `joining`.
    """
    # A name server on another machine is of no use to a host that is not reached from there.
    if not join and settings.host_certs_dir.is_dir() and not settings.listen and _is_elsewhere(settings.ns):
        join = settings.ns
    if join:
        return joining(settings, join)
    settings = _as_before(settings)
    if settings.listen:  # wherever that is said
        check_covered(settings, Identity.load(settings.host_certs_dir, "host"))
    return settings


def _is_elsewhere(ns: str) -> bool:
    return bool(ns) and not ns.startswith("./u:") and not is_loopback(location_of(ns)[0])


def _as_before(settings: Settings) -> Settings:
    """Return the settings of a host that goes back to the mesh in which the one before it on this machine was.

    Args:
        settings: What they say holds; those that name a name server are returned as they are.
    """
    before = {} if settings.ns else settings.joined
    if not before:
        return settings
    return dataclasses.replace(
        settings,
        ns=before["ns"],
        listen=settings.listen or before.get("listen", ""),
        advertise=settings.advertise or before.get("advertise", ""),
        host=settings.host or before.get("host", ""),
    )


def check_covered(settings: Settings, identity: Identity) -> None:
    """Refuse an address that the certificate of the host is not for: nobody would believe who listens there.

    A name that is not that of the certificate is noted: others come to its kernels, and not to a shared state there.

    Raises:
        SettingsError: It is not for it, or it is no address.
    """
    place_of(settings.listen, "listen")
    lacking = name_lacking(place_of(settings.address, "advertise")[0], identity)
    if lacking:
        option = "--advertise" if settings.listens_everywhere else "--listen"
        raise SettingsError(f"{lacking}; or choose one of its names with {option} HOST:PORT")
    if settings.host_name != identity.name:
        note(
            f"this machine is host {settings.host_name} of the mesh, and {identity.name} in its certificate: others "
            f"take no shared state of it; set host = {identity.name!r}, or make a certificate of that name"
        )


def name_lacking(host: str, identity: Identity) -> str:
    """Say that others would reach this machine by a name that its certificate is not for; "" where it is."""
    names = names_in(identity.cert)
    if plain_name(host) in map(plain_name, names):
        return ""
    return (
        f"the certificate in {identity.directory} is for {', '.join(names)}, and not for {host}, by which others "
        f"would reach this machine; where its authority lies: pyrokernel certs renew {identity.name} --name {host}"
        ", and copy it here"
    )


def _reached_from(host: str, port: int, credentials: Credentials) -> str:
    """Return the address of this machine by which it reaches a name server, having seen that one answers there."""
    where = f"{host}:{port}"
    try:
        sock, _ = dial(host, port, DIAL_SECONDS, credentials)
        here: str = sock.getsockname()[0]
        sock.close()
    except KernelUnreachableError as error:
        # Of a machine that was lost it would be said what becomes of its cells, which nobody has here.
        why = f"nothing is heard of it: {error.reason}" if isinstance(error, MachineLostError) else error
        raise NameServerNotFoundError(
            f"no name server is reached at {where} ({why}); see there whether it runs, which address it has, and "
            "whether a firewall is in between"
        ) from error
    with closing(Directory(where, credentials=credentials)) as directory:
        directory.ping()
    return here


def _name_of(address: str, identity: Identity) -> str:
    """Return by what name others reach an address of this machine: itself, or one that the certificate is for."""
    names = names_in(identity.cert)
    known = plain_name(address) in map(plain_name, names)
    found = address if known else next((name for name in names if _leads_to(name, address)), address)
    return f"[{found}]" if ":" in found else found


def _leads_to(name: str, address: str) -> bool:
    try:
        return address in {found[4][0] for found in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return False


def own_gateway(settings: Settings) -> str:
    """Return where the gateway listens that runs on this machine, "" without one."""
    for record in Registry(Places.of(settings).records).read_all():
        if record.role == "gateway" and is_same(record.pid, record.start_time):
            return record.uri.rpartition("@")[2]
    return ""


def _free_port(settings: Settings, host: str, address: str) -> int:
    """Return the port of the gateway that runs already, else the first that is free."""
    before, _, own = own_gateway(settings).rpartition(":")
    if before == host and own.isdecimal():
        return int(own)
    free = next((port for port in range(FIRST_PORT, FIRST_PORT + _PORTS) if is_free(address, port)), None)
    if free is not None:
        return free
    raise SettingsError(
        f"all ports of {address} from {FIRST_PORT} to {FIRST_PORT + _PORTS - 1} are in use; name one with --listen"
    )


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens at a port of an address of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
