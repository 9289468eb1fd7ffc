"""Debian's OpenSSH: keys, its client, and a server of one's own on loopback. Runs in the test process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from ports import free_port
from terminals import Terminal
from waiting import wait_until

SSH = shutil.which("ssh") or ""
KEYGEN = shutil.which("ssh-keygen") or ""
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or ""

needs_client = pytest.mark.skipif(not (SSH and KEYGEN), reason="ssh is not installed (Debian: openssh-client)")
needs_server = pytest.mark.skipif(
    not (SSHD and SSH and KEYGEN), reason="sshd is not installed (Debian: openssh-server)"
)


def make_key(path: Path) -> Path:
    """Make a pair of keys; the public one is beside it, with .pub."""
    command = [KEYGEN, "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return path


def command(port: int, user: str, key: Path | None, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command line of the client; nothing of the user's own configuration takes part.

    Args:
        port: Of a server on loopback.
        user: Who to be.
        key: The private key; None for none.
        words: What stands behind the name of the host.
        options: What stands before it.
    """
    chosen = ["-i", str(key)] if key else ["-o", "PubkeyAuthentication=no"]
    fixed = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "IdentitiesOnly=yes", "IdentityAgent=none",
             "BatchMode=yes", "LogLevel=ERROR", "ConnectTimeout=20"]  # fmt: skip
    told = [part for option in fixed for part in ("-o", option)]
    return [SSH, "-F", "none", *told, *chosen, "-p", str(port), "-l", user, *options, "127.0.0.1", *words]


def terminal(line: Sequence[str], size: tuple[int, int] = (30, 100), **environ: str) -> Terminal:
    """Run a client in a pseudo-terminal that says where its cursor is: who asks has not our environment."""

    def answer(shown: bytes) -> None:
        for _ in range(shown.count(b"\x1b[6n")):
            opened.send(b"\x1b[1;1R")

    opened = Terminal(line, {**os.environ, "LANG": "C.UTF-8", **environ}, size=size, feed=answer)
    return opened


def account() -> str:
    """Return the name of this account."""
    return pwd.getpwuid(os.getuid()).pw_name


@contextlib.contextmanager
def serving(key: Path, configuration: str) -> Iterator[int]:
    """Run sshd for this account on a port of loopback, which is the value.

    Args:
        key: Whoever has it may come in.
        configuration: Further lines of sshd_config.
    """
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it empties its privileges; made at boot
    # Not below tmp_path: sshd wants no group to write on the way there.
    with tempfile.TemporaryDirectory(prefix="pk-sshd-") as folder:
        here = Path(folder)
        port = free_port()  # sshd does not say which it took, if it was asked for any
        lines = [
            f"ListenAddress 127.0.0.1:{port}",
            f"HostKey {make_key(here / 'host_key')}",
            f"AuthorizedKeysFile {key}.pub",
            "PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "PrintMotd no",
            "PermitRootLogin prohibit-password", "PrintLastLog no", configuration,
        ]  # fmt: skip
        (here / "sshd_config").write_text("\n".join(lines) + "\n")
        with (here / "log").open("wb") as log:
            server = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(here / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                wait_until(lambda: server.poll() is not None or answers(port))
                assert server.poll() is None, (here / "log").read_text()
                yield port
            finally:
                server.terminate()
                server.wait()


def answers(port: int) -> bool:
    """Whether somebody listens at a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def configured(path: Path, settings: Mapping[str, object]) -> Path:
    """Write a configuration file for a mesh: a server of ssh starts its commands without variables."""
    names = ("mesh", "ns", "runtime_dir", "state_dir", "host", "plugins_dir")
    path.write_text("".join(f'{name} = "{settings[name]}"\n' for name in names))
    return path
