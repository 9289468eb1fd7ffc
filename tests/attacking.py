"""A mesh behind a gateway on loopback, and those who attack it. Runs in the test process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from certificates import Authority
from ports import free_port
from Pyro5.protocol import MSG_CONNECT
from Pyro5.serializers import SerpentSerializer
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.wire import naming
from pyrokernel.wire.connection import Connection, IncomingMessage, frame
from pyrokernel.wire.introduction import pack
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.remote import Credentials
from pyrokernel.wire.tls import TlsSocket

ATTACKER = "127.0.0.2"
"""Where attackers come from; whoever means well comes from 127.0.0.1, so that the two are not of one address."""

POLICY = """
default = "nobody"
[users]
boss = "admin"
ana = "user"
olga = "observer"
[hosts]
lab1 = "user"
lab2 = "user"
"""

_SERPENT = SerpentSerializer()


class Fortress:
    """A mesh of two kernels behind a gateway, with identities for those who have business with it.

    Attributes:
        address: "HOST:PORT" of the gateway.
        folder: Its directory; `certs/` in it has identities by name.
    """

    def __init__(self, *serve: str, **environ: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp"))
        self.authority = Authority(self.folder / "certs")
        self.authority.identity("host", "lab1", ["127.0.0.1", "localhost"])
        self.authority.identity("host", "lab2", ["127.0.0.1"])
        for name in ("boss", "ana", "olga", "nick"):
            self.authority.identity("user", name)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        policy = self.folder / "policy.toml"
        policy.write_text(POLICY)
        self.environ = {
            **os.environ,
            "PYROKERNEL_RUNTIME_DIR": str(self.folder / "r"),
            "PYROKERNEL_STATE_DIR": str(self.folder / "s"),
            "PYROKERNEL_HOST_CERTS": str(self.certs("lab1")),
            "PYROKERNEL_CERTS": str(self.certs("boss")),
            "PYROKERNEL_HOST": "lab1",
            "PYROKERNEL_POLICY": str(policy),
            **environ,
        }
        self.cli("serve", "--detach", "-n", "2", "--listen", self.address, *serve)

    def certs(self, name: str) -> Path:
        """Return the identity directory of somebody."""
        return self.folder / "certs" / name

    def cli(self, *words: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on the machine of the mesh."""
        done = subprocess.run(
            [sys.executable, "-m", "pyrokernel", *words],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    @property
    def runtime(self) -> Path:
        """Directory of its sockets."""
        return next((self.folder / "r").iterdir())

    @property
    def log(self) -> Path:
        """What the gateway has to say."""
        return next((self.folder / "s").rglob("gateway.log"))

    def logged(self, since: int = 0) -> str:
        """Return what the gateway has said since it had said so much."""
        return self.log.read_text()[since:]

    def log_of(self, attack: Callable[[], object], words: str) -> str:
        """Attack until the gateway has said something of a pattern; return the line.

        It says a few things a second, and others of this second may have been before.
        """
        since = len(self.logged())

        def is_logged() -> bool:
            attack()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: re.search(words, self.logged(since)), timeout=1.0)
            return re.search(words, self.logged(since)) is not None

        wait_until(is_logged, timeout=15)
        (line, *_) = [line for line in self.logged(since).splitlines() if re.search(words, line)]
        return line

    def gateway_pid(self) -> int:
        """Return the process of the gateway."""
        for record in (self.runtime / "kernels").glob("*.json"):
            if '"role": "gateway"' in record.read_text():
                found = re.search(r'"pid": (\d+)', record.read_text())
                assert found is not None
                return int(found[1])
        raise AssertionError("there is no gateway")

    def descriptors(self) -> int:
        """Return how many descriptors the gateway has open."""
        return len(os.listdir(f"/proc/{self.gateway_pid()}/fd"))

    def memory(self) -> int:
        """Return how many bytes of memory the gateway takes."""
        return int(Path(f"/proc/{self.gateway_pid()}/statm").read_text().split()[1]) * 4096

    def threads(self) -> int:
        """Return how many threads the gateway has."""
        return len(os.listdir(f"/proc/{self.gateway_pid()}/task"))

    def instance_of(self, kernel: str) -> str:
        """Return the instance of a kernel, as the records of the host name it."""
        for file in (self.runtime / "kernels").glob("*.json"):
            record = json.loads(file.read_text())
            if record["spec"]["name"] == kernel:
                return str(record["instance"])
        raise AssertionError(f"there is no kernel {kernel}")

    def state_instance(self) -> str:
        """Return the instance of the shared state, once it has been used."""
        for file in (self.runtime / "kernels").glob("*.json"):
            record = json.loads(file.read_text())
            if record["role"] == "state":
                return str(record["instance"])
        raise AssertionError("there is no shared state")

    def uri_of(self, what: str) -> str:
        """Return the way from another machine to a kernel, or to "host"."""
        if what == "host":
            return f"PYRO:pyrokernel.host/host@{self.address}"
        return f"PYRO:pyrokernel.kernel/{self.instance_of(what)}@{self.address}"

    @contextlib.contextmanager
    def connected(self, name: str = "ana", **options: Any) -> Iterator[pk.Mesh]:
        """Reach the mesh as somebody on another machine does."""
        here, naming._is_here = naming._is_here, lambda path: False
        try:
            with pk.connect(ns=self.address, certs=str(self.certs(name)), runtime_dir=str(self.folder / "away"),
                            **options) as mesh:  # fmt: skip
                yield mesh
        finally:
            naming._is_here = here

    def open(self, name: str, what: str = "k0", kind: str = "control") -> Connection:
        """Open a connection as a client of ours does."""
        return connect(self.uri_of(what), kind=kind, credentials=Credentials(self.certs(name)))

    def secured(self, name: str, source: str = ATTACKER, **how: Any) -> ssl.SSLSocket:
        """Shake hands as somebody, from the address of an attacker, and say nothing."""
        return secured(self.port, self.certs(name), source, **how)

    def close(self) -> None:
        """End it, and leave nothing behind."""
        self.cli("stop", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def plain(port: int, source: str = ATTACKER) -> socket.socket:
    """Connect by TCP, and say nothing."""
    sock = socket.socket()
    sock.settimeout(20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def context_of(certs: Path | None) -> ssl.SSLContext:
    """Return a context that shows an identity, if any, and does not care who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certs is not None:
        context.load_cert_chain(certs / "key.pem", certs / "key.pem")
    return context


def secured(port: int, certs: Path | None, source: str = ATTACKER) -> ssl.SSLSocket:
    """Shake hands with a gateway, and say nothing."""
    sock = plain(port, source)
    try:
        return context_of(certs).wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


def hello(
    object_id: str, *, annotations: Mapping[bytes, bytes] | None = None, serializer_id: int = 1, flags: int = 0,
    payload: bytes | None = None, msgtype: int = MSG_CONNECT, **words: Any,
) -> bytes:  # fmt: skip
    """Return a first message."""
    greeting = {"pyrokernel": PROTOCOL_VERSION, "kind": "control", "codec": "pickle5", "instance": "", **words}
    data = _SERPENT.dumps({"handshake": greeting, "object": object_id}) if payload is None else payload
    said = pack(annotations or {})
    return b"".join(frame(msgtype, [data], serializer_id=serializer_id, flags=flags, annotations=said))


def answer_to(sock: socket.socket | ssl.SSLSocket | TlsSocket) -> tuple[int, Any]:
    """Return type and value of the answer to a first message; type 0 for the end of the connection."""
    data = b""
    try:
        while len(data) < 40 and (more := sock.recv(40 - len(data))):
            data += more
        if len(data) < 40:
            return 0, None
        message = IncomingMessage(data)
        body = b""
        while len(body) < message.size and (more := sock.recv(message.size - len(body))):
            body += more
    except (ConnectionError, ssl.SSLError):
        return 0, None
    return message.type, _SERPENT.loads(body[message.annotations_size :])


def object_in(uri: str) -> str:
    """Return the object id of a URI."""
    return uri.partition(":")[2].partition("@")[0]


def is_closed(sock: socket.socket | ssl.SSLSocket) -> bool:
    """Whether the other side has hung up."""
    sock.settimeout(0.0)
    try:
        while True:
            if not sock.recv(65536):
                return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def slow_down(calm: list[float], attacked: list[float]) -> float:
    """Return the ratio of two medians."""
    return sorted(attacked)[len(attacked) // 2] / sorted(calm)[len(calm) // 2]


def timed(what: Any) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun
