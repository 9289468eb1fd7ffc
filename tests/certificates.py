"""Authorities and identities as tests need them: also expired, and of tomorrow. Runs in the test process."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pyrokernel.certs.making import DAYS, certificate_pem, key_pem, make_ca, make_identity


class Authority:
    """A certificate authority in memory.

    Args:
        directory: Where identities are written.
        name: Its name.
    """

    def __init__(self, directory: Path, name: str = "lab") -> None:
        self.directory = directory
        self.key, self.cert = make_ca(name, days=10 * DAYS["ca"], now=_now() - datetime.timedelta(days=1000))

    def identity(
        self, kind: str, name: str, names: Sequence[str] = (), *, days: float = 10, begun: float = 0, at: str = ""
    ) -> Path:
        """Write an identity that is valid from `begun` days ago on, for `days` days."""
        key, cert = make_identity(
            kind,
            name,
            names,
            ca_key=self.key,
            ca=self.cert,
            days=days,
            now=_now() - datetime.timedelta(days=begun),
        )
        made = self.directory / (at or name)
        made.mkdir(mode=0o700, parents=True)
        for file, data in (
            ("ca.pem", certificate_pem(self.cert)),
            ("cert.pem", certificate_pem(cert)),
            ("key.pem", key_pem(key) + certificate_pem(cert)),
        ):
            (made / file).touch(0o600)
            (made / file).write_bytes(data)
        return made


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def shaking_hands() -> Iterator[Callable[[ssl.SSLContext], str]]:
    """Serve handshakes with a context at a port of loopback, as often as somebody comes.

    Yields:
        What serves a context, and returns the address.
    """
    listeners, threads = [], []

    def serve(context: ssl.SSLContext) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    try:
                        context.wrap_socket(sock, server_side=True).close()
                    except OSError:
                        continue

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()
