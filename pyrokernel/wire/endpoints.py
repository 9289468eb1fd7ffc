"""Where the processes of one machine reach each other, and the proof that both ends are of one account.

Runs in every process. There are two kinds, told apart by the type of the file at the path of an address:

- a unix socket. The system says who is at the other end (`trust`).
- in portable mode, a file that names a TCP port on 127.0.0.1 and holds a random key. Anybody may connect to the port,
  and anybody may have it once its owner is gone; so each end proves that it can read the file, which only its account
  can, before anything else is said (`proofs`).

A kernel in a C call proves nothing before that ends. Whoever dials does not wait for it: what is sent is held back, a
little of it, until the proof has come (`Unproven`).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
from pathlib import Path

from pyrokernel.errors import AccessRefusedError
from pyrokernel.roles import Role
from pyrokernel.settings import MAX_SOCKET_PATH_BYTES
from pyrokernel.systems import OWN, own_uid
from pyrokernel.wire import sockets
from pyrokernel.wire.proofs import Address, Dialled, Unproven, be_proved
from pyrokernel.wire.trust import Peer, account, check_peer, check_socket_path

__all__ = ["Endpoint", "answers", "dial", "is_unix", "listen", "prove"]

_USUAL_SECONDS = 0.01
"""A process that is not in a C call has proved itself by then."""

_BACKLOG = 1024
_HOST = "127.0.0.1"
_KEY_BYTES = 32
_FILE = re.compile(rb"127\.0\.0\.1:(\d{1,5}) ([0-9a-f]{64})\n")
_FILE_BYTES = 128


class Endpoint:
    """A place to listen at.

    Attributes:
        path: The file by which it is found.
        sock: The listening socket.
    """

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self.sock = sock

    def admit(self, client: socket.socket) -> Peer:
        """Return who is at the other end of an accepted connection. May take seconds: not for the thread that accepts.

        Raises:
            AccessRefusedError: It is not of this account.
            OSError: It has gone, or says nothing.
        """
        return check_peer(client)

    def close(self) -> None:
        """Listen no longer, wake who waits in `accept`, and remove the file."""
        # Closing alone would leave accept() waiting; shutdown wakes it.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class _KeyedEndpoint(Endpoint):
    """A port of 127.0.0.1 whose number and key are in a file."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        super().__init__(path, sock)
        self._address = Address(sock.getsockname()[1], os.urandom(_KEY_BYTES))
        _write(path, self._address)

    def admit(self, client: socket.socket) -> Peer:
        """Prove this end, and have the other one prove itself."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pid = be_proved(client, self._address)
        client.settimeout(None)
        if pid is None:
            raise AccessRefusedError(f"a process that cannot read {self.path} has connected to its port; refused")
        return _own_peer(pid)

    def close(self) -> None:
        """Listen no longer."""
        # Only Linux wakes accept() by shutdown of a listening TCP socket.
        with contextlib.suppress(OSError):
            socket.create_connection((_HOST, self._address.port), timeout=1.0).close()
        super().close()


def listen(path: str | Path, *, portable: bool) -> Endpoint:
    """Begin to listen.

    Args:
        path: Where; an old file there is replaced, so the caller must own the name.
        portable: At a port of 127.0.0.1, not at a unix socket.

    Raises:
        AccessRefusedError: The directory is not private.
        OSError: It cannot be had.
    """
    found = check_socket_path(path)
    if portable:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform == "win32":
                # There another account could otherwise listen at the same port.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            sock.bind((_HOST, 0))
            sock.listen(_BACKLOG)
            return _KeyedEndpoint(found, sock)
        except BaseException:
            sock.close()
            raise
    if len(os.fsencode(found)) > MAX_SOCKET_PATH_BYTES:
        raise OSError(f"the socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; set runtime_dir")
    with contextlib.suppress(FileNotFoundError):
        found.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(found))
        found.chmod(0o600)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Endpoint(found, sock)


def dial(path: str | Path, timeout: float) -> tuple[socket.socket, Peer]:
    """Connect to who listens at a path; return the socket, and who that is.

    Only the connection is waited for. Where the other end has to prove itself and has not yet, the socket is one
    that does not pass on what is sent before it has.

    Args:
        path: Of the endpoint.
        timeout: Seconds to wait where hundreds wait to be accepted; 0 for not at all.

    Raises:
        AccessRefusedError: The directory, or who listens, is not this user's.
        BlockingIOError: So many wait, and this was not to.
        OSError: Nobody listens there.
    """
    os.lstat(path)  # where nothing is, nobody listens, whoever may enter the directory
    found = check_socket_path(path)
    info = found.lstat()
    if stat.S_ISREG(info.st_mode):
        keyed = _dial_keyed(_read(found, info), timeout)
        return keyed, _own_peer(keyed.pid)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # With a timeout of Python's own, a unix socket whose queue is full would fail at once instead of waiting.
        sock.setblocking(timeout > 0)
        sockets.set_send_patience(sock, int(timeout) + 1)
        sock.connect(str(found))
        sockets.set_send_patience(sock, 0)
        sock.setblocking(True)
        return sock, check_peer(sock)
    except BaseException:
        sock.close()
        raise


def is_unix(sock: socket.socket) -> bool:
    """Whether a connection is by a unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def answers(path: str | Path, timeout: float = 1.0) -> bool:
    """Whether somebody listens at a path; True also where that cannot be said from here."""
    try:
        prove(path, timeout)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return False
    except OSError:
        return True
    return True


def prove(path: str | Path, timeout: float) -> Peer:
    """Return who listens at a path, once that is certain.

    Raises:
        AccessRefusedError, OSError: As `dial`.
        TimeoutError: It does not react.
    """
    sock, peer = dial(path, timeout)
    with sock:
        return _own_peer(sock.prove(timeout)) if isinstance(sock, Unproven) else peer


def _dial_keyed(address: Address, timeout: float) -> Dialled:
    sock = Unproven(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(max(timeout, _USUAL_SECONDS))
        sock.connect((_HOST, address.port))
        sock.settimeout(None)
        sock.begin(address)
        with contextlib.suppress(TimeoutError):
            sock.prove(min(timeout, _USUAL_SECONDS))
        return sock
    except BaseException:
        sock.close()
        raise


def _own_peer(pid: int) -> Peer:
    """Return what a process of this account is."""
    return Peer(uid=own_uid(), pid=pid, role=Role.ADMIN, user=account(own_uid()))


def _write(path: Path, address: Address) -> None:
    """Write the file of an endpoint: whoever finds it finds all of it."""
    whole = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OWN, 0o600)
    try:
        os.write(descriptor, b"%s:%d %s\n" % (_HOST.encode(), address.port, address.key.hex().encode()))
    finally:
        os.close(descriptor)
    whole.replace(path)


def _read(path: Path, info: os.stat_result) -> Address:
    """Return what the file of an endpoint says.

    Raises:
        AccessRefusedError: It is another user's, or others may read it.
        ConnectionRefusedError: It is no such file.
    """
    if hasattr(os, "getuid") and (info.st_uid != own_uid() or info.st_mode & 0o077):
        raise AccessRefusedError(f"{path} can be read by others than you, or is not yours; remove it")
    with path.open("rb") as file:
        found = _FILE.fullmatch(file.read(_FILE_BYTES))
    if found is None or not 0 < int(found[1]) < 1 << 16:
        raise ConnectionRefusedError(f"{path} is not where a process listens")
    return Address(int(found[1]), bytes.fromhex(found[2].decode()))
