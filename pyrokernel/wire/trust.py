"""Who may connect on one machine, and what is known of whoever does. Runs in every process.

Processes listen on unix sockets in directories that only their owner may enter; in addition each side asks the
kernel of the operating system for the other's uid. Other machines come in through the gateway, and are reached by
`remote`: by mutual TLS, or not at all.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import socket
import struct
import sys
from pathlib import Path

from pyrokernel.errors import AccessRefusedError
from pyrokernel.roles import Role
from pyrokernel.settings import check_private
from pyrokernel.systems import own_uid

_LINUX_UCRED = struct.Struct("3i")
_MACOS_XUCRED = struct.Struct("IIh2xi60x")
"""xucred of <sys/ucred.h>: version, uid, number of groups, groups."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """The other end of a connection.

    Attributes:
        uid: Its unix user id, as the operating system says; -1 where it is on another machine.
        pid: Its process id, 0 where the system does not say.
        role: What it may do here.
        user: Who it acts for: the name in a certificate, or of an account.
        kind: What `user` names: "account" of this machine, "user" (whom somebody else has let in) or "host".
        address: "HOST:PORT" of a peer on another machine; "" on this one.
        through: Name of the host that has let a user in and acts for them; "" where they showed a certificate
            themselves, or were let in on this machine.
    """

    uid: int
    pid: int = 0
    role: Role = Role.NOBODY
    user: str = ""
    kind: str = "account"
    address: str = ""
    through: str = ""

    @property
    def may_run_code(self) -> bool:
        """Whether pickles from it are loaded."""
        return self.role >= Role.USER

    @property
    def identity(self) -> str:
        """Who it is, where a right depends on it: "account:ana", "user:ana", "host:lab2"; by lab2, "user:ana@lab2"."""
        return f"{self.kind}:{self.user}@{self.through}" if self.through else f"{self.kind}:{self.user}"

    @property
    def author(self) -> str:
        """Who it is, as people read it; see `shown_identity`."""
        return shown_identity(self.identity)

    @property
    def described(self) -> str:
        """Who it is, with its kind, in logs and errors; see `described_identity`."""
        return described_identity(self.identity)

    @property
    def bearer(self) -> str:
        """Whose certificate, or account, it came by: that of the host which introduces a user, else its own identity.

        What is bounded is counted by this: a host can invent as many users as it likes.
        """
        return f"host:{self.through}" if self.through else self.identity


def shown_identity(identity: str) -> str:
    """Return an identity as it stands where people read who made something: "ana", "host:lab2", "ana@lab2"."""
    kind, _, name = identity.partition(":")
    return name if kind in ("account", "user") else identity


def described_identity(identity: str) -> str:
    """Return an identity with its kind as a word: "account ana", "host lab2", "user ana", "user ana@lab2"."""
    return identity.replace(":", " ", 1)


def peer_of(sock: socket.socket) -> Peer:
    """Ask the operating system who is at the other end of a unix socket.

    Raises:
        AccessRefusedError: The socket has no such information.
    """
    try:
        if sys.platform == "darwin":
            # SOL_LOCAL is 0 and LOCAL_PEERCRED 1 in <sys/un.h>; Python does not export them.
            _, uid, _, _ = _MACOS_XUCRED.unpack(sock.getsockopt(0, 1, _MACOS_XUCRED.size))
            pid = 0
        else:
            pid, uid, _ = _LINUX_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX_UCRED.size))
    except (OSError, AttributeError) as error:
        raise AccessRefusedError(f"cannot tell who is at the other end of {sock}: {error}") from error
    return Peer(uid=uid, pid=pid, role=Role.ADMIN if uid == own_uid() else Role.NOBODY, user=account(uid))


def is_own(peer: Peer) -> bool:
    """Whether a peer is a process of this account that speaks for itself, and nobody is introduced by it."""
    return peer.kind == "account" and not peer.address and peer.uid == own_uid()


@functools.cache
def account(uid: int) -> str:
    """Return the name of an account, its number when it has none."""
    try:
        import pwd
    except ImportError:  # Windows, where only this very account is ever asked about
        import getpass

        return getpass.getuser()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def account_of_process() -> str:
    """Return the name of the account that this process runs as."""
    return account(own_uid())


def check_peer(sock: socket.socket) -> Peer:
    """Return the peer of a unix socket if it is this user.

    Raises:
        AccessRefusedError: It runs under another account.
    """
    peer = peer_of(sock)
    if peer.uid != own_uid():
        raise AccessRefusedError(f"the peer runs as uid {peer.uid}, this process as {own_uid()}; connection refused")
    return peer


def check_socket_path(path: str | Path) -> Path:
    """Return the path of a unix socket if its directory is this user's alone.

    Raises:
        AccessRefusedError: The directory is not private.
        FileNotFoundError: It does not exist.
    """
    found = Path(path)
    if not found.root:
        raise AccessRefusedError(f"the socket path {path} is not absolute")
    check_private(found.parent)
    return found


def check_address(address: str, *, has_identity: bool) -> None:
    """Refuse a name server beyond this machine to whoever could not reach it by TLS.

    Args:
        address: "" for the host's own, "./u:PATH", or "HOST:PORT".
        has_identity: Whether there is a certificate to show there.

    Raises:
        AccessRefusedError: It is HOST:PORT, the host is not a loopback address, and there is nothing to show.
    """
    if address and not address.startswith("./u:") and not has_identity:
        host = address.partition("]")[0] if address.startswith("[") else address.partition(":")[0]
        remedy = (
            f"A host joins others by TLS: `pyrokernel serve --join {address}`, with an identity of this machine "
            "(`pyrokernel certs issue-host HOST` where the authority lies)"
        )
        check_loopback(host or address, remedy)


def check_loopback(host: str, remedy: str) -> None:
    """Refuse an address beyond this machine.

    Args:
        host: The address.
        remedy: What opens the way, for people.

    Raises:
        AccessRefusedError: It is not a loopback address.
    """
    if not is_loopback(host):
        raise AccessRefusedError(
            f"{host} is not this machine, and plain TCP beyond it is closed, as anybody on the way could run code. "
            f"{remedy}"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
