"""The ways to other machines: TLS with an identity of one's own, or the gateway of this machine. Runs in every process.

Clients have an identity directory and speak TLS themselves. Processes of a mesh hold no key: they ask the gateway
of their machine, on its unix socket, to be let through to an address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import time
from pathlib import Path

from pyrokernel.errors import AccessRefusedError, KernelUnreachableError
from pyrokernel.settings import GATEWAY_SOCKET, Settings
from pyrokernel.wire import silence
from pyrokernel.wire.identity import Identity, check_kind
from pyrokernel.wire.introduction import acts_for
from pyrokernel.wire.refusals import explain, explain_dial
from pyrokernel.wire.socks import connect_by
from pyrokernel.wire.tls import AnySocket, TlsSocket, keep_watch
from pyrokernel.wire.trust import Peer, check_loopback, is_loopback

__all__ = ["DIAL_SECONDS", "NOTHING", "Credentials", "dial", "written"]

DIAL_SECONDS = 3.0
"""How long another machine may take to answer: enough for half a second there and back, and for a lost packet."""

_NOWHERE = Path("/nonexistent")


@dataclasses.dataclass(frozen=True)
class Credentials:
    """What a process shows to other machines.

    Attributes:
        identity: Its identity directory; there may be none.
        gateway: Unix socket of this machine's gateway, which shows its own; "" for none.
        via: "HOST:PORT" of a SOCKS5 proxy to dial by; "" for none.
        host_identity: Identity directory of the host of this machine, which a user does not show; there may be none.
    """

    identity: Path
    gateway: str = ""
    via: str = ""
    host_identity: Path = _NOWHERE

    @classmethod
    def of(cls, settings: Settings) -> Credentials:
        """Return those of a user: a certificate, or else the gateway of this account's own host, if it has one."""
        # Who names a directory means that, and is not to come in as somebody else where it is misspelt.
        gateway = settings.gateway
        if not gateway and (acts_for() or not (settings.certs or settings.certs_dir.is_dir())):
            way_out = settings.mesh_runtime_dir / GATEWAY_SOCKET
            gateway = str(way_out) if way_out.exists() else ""
        return cls(settings.certs_dir, gateway, settings.via, settings.host_certs_dir)

    @classmethod
    def of_process(cls, gateway: str) -> Credentials:
        """Return those of a process of the mesh: none of its own."""
        return cls(_NOWHERE, gateway)

    @classmethod
    def of_host(cls, settings: Settings) -> Credentials:
        """Return those of a host, or of its gateway."""
        return cls(settings.host_certs_dir, via=settings.via)

    def load(self) -> Identity | None:
        """Return the identity; None when there is no such directory."""
        return Identity.load(self.identity) if self.identity.is_dir() else None

    @property
    def remedy(self) -> str:
        """What to do where there is no identity, for people."""
        place = "~/.config/pyrokernel/certs" if self.identity == _NOWHERE else self.identity
        text = (
            f"TLS needs a certificate of yours in {place}: who runs that mesh makes one "
            "(`pyrokernel certs issue USER`); or go through ssh"
        )
        if not self.host_identity.is_dir():
            return text
        return (
            f"{text}. What is in {self.host_identity} is this machine's, and shown by its host once that runs "
            "(`pyrokernel serve --join NS:PORT`)"
        )


NOTHING = Credentials(_NOWHERE)
"""Of a process that has no business with other machines."""


def dial(
    host: str, port: int, timeout: float, credentials: Credentials, *, stock: bool = False, machine: str = ""
) -> tuple[AnySocket, Peer]:
    """Connect to another machine, or by TCP to this one, and check who listens there.

    Args:
        host, port: Where.
        timeout: Seconds for all of it; after `DIAL_SECONDS` it has failed in any case.
        credentials: What to show.
        stock: It may be a stock name server on loopback, which has no TLS: what it says is checked all the same.
        machine: Name of the host that it must be by its certificate; "" for any of this mesh.

    Raises:
        AccessRefusedError: There is nothing to show; or who listens there is no host of this mesh, or another one.
        MachineLostError: Nothing is heard of the machine.
        KernelUnreachableError: Nobody answers there.
    """
    address = f"{host}:{port}"
    timeout = silence.patience(address, min(timeout, DIAL_SECONDS))
    deadline = time.monotonic() + timeout
    identity = credentials.load()
    if identity is None:
        if not stock:
            raise AccessRefusedError(
                f"{address} is neither a unix socket nor yours to reach by TLS: who listens there cannot be told "
                f"apart from you. An identity belongs into {credentials.identity} (pyrokernel certs issue)"
            )
        check_loopback(host, credentials.remedy)
        return _connect(host, port, timeout), Peer(uid=-1)
    try:
        sock, peer = _shake_hands(_connect(host, port, timeout, credentials.via), host, port, deadline, identity)
    except (ssl.SSLError, ConnectionError) as error:
        told = AccessRefusedError if isinstance(error, ssl.SSLError) else KernelUnreachableError
        if isinstance(error, ssl.SSLCertVerificationError) or not (stock and is_loopback(host)):
            raise told(explain_dial(error, address, identity, deadline, credentials.via)) from error
        # It may be a stock name server without TLS.
        return _connect(host, port, max(0.1, deadline - time.monotonic())), Peer(uid=-1)
    except TimeoutError as error:
        if credentials.via:  # a proxy takes connections to machines that it does not reach
            raise silence.note_dial(address, error) from error
        raise KernelUnreachableError(explain(error, address, identity)) from error
    if machine and peer.user != machine:
        sock.close()
        raise AccessRefusedError(
            f"{address} is host {peer.user} by its certificate, and not {machine}, where the name server says "
            f"that this is; look at what {peer.user} registers; the setting `host` of {machine} and its "
            "certificate have one name"
        )
    return sock, peer


_contexts: dict[tuple[Path, tuple[int, ...]], ssl.SSLContext] = {}
"""By identity directory and when its files were written: a renewed certificate is taken without a restart."""


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return what TLS connections of this identity are made with."""
    key = (identity.directory, written(identity))
    found = _contexts.get(key)
    if found is None:
        found = _contexts[key] = identity.client_context()
    return found


def written(identity: Identity) -> tuple[int, ...]:
    """Return when the files of an identity were written: when one has changed, it is to be read anew."""
    found = []
    for file in (identity.key_file, identity.ca_file, identity.crl_file):
        try:
            found.append(file.stat().st_mtime_ns)
        except FileNotFoundError:
            found.append(0)
    return tuple(found)


def _connect(host: str, port: int, timeout: float, via: str = "") -> socket.socket:
    try:
        name = host.strip("[]")
        sock = connect_by(via, name, port, timeout) if via else socket.create_connection((name, port), timeout)
    except (UnicodeError, OverflowError) as error:
        raise KernelUnreachableError(f"{host[:300]}:{port} is no address: {error}") from error
    except OSError as error:
        if silence.is_silence(error):
            raise silence.note_dial(f"{host}:{port}", error) from error
        if isinstance(error, socket.gaierror):  # nobody was asked
            raise KernelUnreachableError(
                f"nobody is reached at {host}:{port}: this machine knows no address for that name ({error.strerror}); "
                "add it to /etc/hosts or the DNS, or have it reached by an address (serve --advertise HOST:PORT there)"
            ) from error
        raise KernelUnreachableError(f"nobody answers at {host}:{port}: {error}") from error
    if not via:
        silence.heard(f"{host}:{port}")
    sock.settimeout(None)
    keep_watch(sock)
    return sock


def _shake_hands(
    sock: socket.socket, host: str, port: int, deadline: float, identity: Identity
) -> tuple[TlsSocket, Peer]:
    try:
        secured = TlsSocket(sock, client_context(identity), server_hostname=host.strip("[]"))
        secured.address = f"{host}:{port}"
        secured.shake_hands(deadline)
        silence.heard(secured.address)
        secured.explain = lambda error: explain(error, f"{host}:{port}", identity)
        _, name = check_kind(secured.getpeercert(), "host", where=host)
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return secured, Peer(uid=-1, user=name, address=host)
