"""A terminal server of the plugin, its users and its clients. Runs in the test process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openssh
from terminals import Terminal
from waiting import wait_until

import pyrokernel as pk

PLUGIN = Path(__file__).parents[1] / "plugins" / "pyrokernel-terminal"
COMMAND = [sys.executable, "-m", "pyrokernel", "terminal"]
TELNET = shutil.which("telnet") or ""


class Server:
    """A terminal server, its users, and its clients.

    Args:
        mesh: Whose shell it serves.
        folder: Of its files, and of its users' keys.
    """

    def __init__(self, mesh: pk.Mesh, folder: Path) -> None:
        self.mesh, self.folder = mesh, folder
        self.environ = {**os.environ, **mesh.settings.to_env(), "XDG_CONFIG_HOME": str(folder / "config")}
        self.ssh_port = self.telnet_port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.said = folder / "said"
        self._opened: list[Terminal] = []

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `pyrokernel terminal` to its end."""
        return subprocess.run(
            [*COMMAND, *words], env=self.environ, capture_output=True, text=True, timeout=40, check=False
        )

    def start(self, *options: str) -> None:
        """Start it on ports that are free, and return when it serves."""
        address = [] if "--ssh" in options else ["--ssh", "127.0.0.1:0"]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [*COMMAND, *address, *options],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        wanted = {"ssh"} | ({"telnet"} if "--telnet" in options else set())

        def serves() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.said.read_text()
            ports = dict(re.findall(r"^terminal: (\w+) on [\d.]+:(\d+)", self.said.read_text(), re.MULTILINE))
            self.ssh_port, self.telnet_port = int(ports.get("ssh", 0)), int(ports.get("telnet", 0))
            return wanted <= ports.keys()

        wait_until(serves, 20)

    def stop(self) -> int:
        """Have it end, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        """End it and all clients."""
        for terminal in self._opened:
            terminal.close()
        if self.process is not None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def add(self, name: str, role: str = "user") -> Path:
        """Let somebody in; return their private key."""
        path = self.folder / f"key-{name}"
        key = path if path.exists() else openssh.make_key(path)
        done = self.run("add", name, f"{key}.pub", "--role", role)
        assert done.returncode == 0, done.stderr
        return key

    def command(self, user: str, *words: str, options: tuple[str, ...] = (), key: Path | None = None) -> list[str]:
        """Return the command line of somebody's client."""
        return openssh.command(self.ssh_port, user, key or self.folder / f"key-{user}", *words, options=options)

    def ssh(self, user: str, *words: str, options: tuple[str, ...] = ("-t",), **more: Any) -> Terminal:
        """Open a session of somebody, in a terminal."""
        terminal = openssh.terminal(self.command(user, *words, options=options), **more)
        self._opened.append(terminal)
        return terminal

    def at_prompt(self, user: str, **more: Any) -> Terminal:
        """Open a session of somebody on k0, and wait for its prompt."""
        terminal = self.ssh(user, **more)
        terminal.expect("kernels>", 20)
        terminal.enter("use k0")
        terminal.expect("k0>")
        terminal.enter("")
        return terminal

    def telnet(self) -> Terminal:
        """Open a session by Telnet."""
        terminal = openssh.terminal([TELNET, "127.0.0.1", str(self.telnet_port)])
        self._opened.append(terminal)
        return terminal

    def once(self, user: str, *words: str, text: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a client without a terminal to its end."""
        line = self.command(user, *words, **more)
        return subprocess.run(line, input=text, capture_output=True, text=True, timeout=40, check=False)

    def who(self) -> list[dict[str, Any]]:
        """Return who is connected."""
        found: list[dict[str, Any]] = json.loads(self.run("who", "--json").stdout)
        return found

    def record(self) -> list[dict[str, Any]]:
        """Return what is written down."""
        path = self.mesh.settings.mesh_state_dir / "terminal" / "sessions.log"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def children(self) -> set[int]:
        """Return the processes of sessions."""
        assert self.process is not None
        return set(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def memory(self) -> int:
        """Return the bytes that the server has of its own."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]

    @staticmethod
    def size_of(pid: int) -> tuple[int, int]:
        """Return lines and columns of the terminal of a process."""
        found = os.open(os.readlink(f"/proc/{pid}/fd/0"), os.O_RDONLY | os.O_NOCTTY)
        try:
            size = os.get_terminal_size(found)
        finally:
            os.close(found)
        return size.lines, size.columns


Serve = Callable[..., Server]
