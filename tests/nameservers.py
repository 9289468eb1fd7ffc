"""Name servers as processes of their own: ours, and Pyro5's. Runs in the test process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from waiting import wait_until

from pyrokernel.errors import NameServerNotFoundError
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.remote import NOTHING, Credentials


class NameServerProcess:
    """A name server until the test ends it.

    Args:
        words: Command line behind `python`.
        address: At which it will answer.
        log: File for what it says.
        environ: Variables, beside those of this process.
        credentials: What to show it.
    """

    def __init__(
        self,
        words: list[str],
        address: str,
        log: Path,
        environ: Mapping[str, str] | None = None,
        credentials: Credentials = NOTHING,
    ) -> None:
        self.words, self.address, self.log = words, address, log
        self.environ = {**os.environ, **(environ or {})}
        self.credentials = credentials
        self.start()

    def start(self) -> None:
        """Begin, or begin again."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.words],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self.answers, timeout=20)

    def answers(self) -> bool:
        """Whether it does; fail if it has ended."""
        assert self.process.poll() is None, self.log.read_text()
        directory = Directory(self.address, timeout=2, credentials=self.credentials)
        try:
            directory.ping()
        except NameServerNotFoundError:
            return False
        finally:
            directory.close()
        return True

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(10)


def nsc(*words: str, environ: Mapping[str, str] | None = None, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run Pyro5's own tool."""
    return subprocess.run(
        [sys.executable, "-m", "Pyro5.nsc", *words],
        env={**os.environ, **(environ or {})},
        input="y\n",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stock_environ(identity: Path) -> dict[str, str]:
    """Return what stock Pyro5 programs need for mutual TLS, as certs/env has it."""
    return {
        "PYRO_SSL": "1",
        "PYRO_SSL_REQUIRECLIENTCERT": "1",
        "PYRO_SSL_CACERTS": str(identity / "ca.pem"),
        "PYRO_SSL_SERVERCERT": str(identity / "cert.pem"),
        "PYRO_SSL_SERVERKEY": str(identity / "key.pem"),
        "PYRO_SSL_CLIENTCERT": str(identity / "cert.pem"),
        "PYRO_SSL_CLIENTKEY": str(identity / "key.pem"),
    }
