"""Machines on a network of their own: namespaces with addresses, cables and a name each. Runs in the test process.

Each machine is a process that holds its namespaces (network, mounts, host name, processes). It lives as long as the
pipe to its standard input is open, so a test that is killed leaves nothing behind; whoever kills it has switched the
machine off, with all that ran there. What a machine writes is on a disk of its own; programs are those of this system.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from waiting import wait_until

_HOLD = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what is orphaned here is collected by the system
print("held", flush=True)
sys.stdin.read()
"""
_NAMESPACES = ("--net", "--mount", "--uts", "--pid")
_SUBNET = "10.77.0"


@functools.cache
def why_not() -> str:
    """Say why machines cannot be made here, "" if they can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount", "pkill") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} are missing (packages util-linux, iproute2 and procps)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    tried = subprocess.run(["unshare", *_NAMESPACES, "--fork", "true"], capture_output=True, text=True)
    return f"namespaces cannot be made: {tried.stderr.strip()}" if tried.returncode else ""


class _Holder:
    """A process that keeps namespaces open."""

    def __init__(self, *namespaces: str) -> None:
        self.process = subprocess.Popen(
            ["unshare", *namespaces, "--fork", "--kill-child=KILL", sys.executable, "-ISc", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.pid = int(children)

    def enter(self, *flags: str) -> list[str]:
        """Return the beginning of a command that runs in here."""
        return ["nsenter", f"--target={self.pid}", *flags, "--"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()  # and with it the child, and with that whatever ran in its namespace of processes
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


class Machine:
    """One machine; its home directory, and everything pyrokernel writes, is on a disk of its own.

    Args:
        network: Where it is plugged in.
        name: Its host name.
        number: Last part of its address.

    Attributes:
        address: Its address.
        home: Its home directory, at the same path on all machines.
        environ: Variables of what runs here.
    """

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.number, self.address = name, number, f"{_SUBNET}.{number}"
        self.home = network.directory / "home"
        self._network = network
        self._holder = _Holder(*_NAMESPACES, "--mount-proc")
        self._on = True
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYRO", "XDG_"))},
            "HOME": str(self.home),
            "PYROKERNEL_RUNTIME_DIR": str(self.home / "run"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        for command in (
            ["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(self.home)],
            ["mount", "--bind", str(network.directory / "passwd"), "/etc/passwd"],  # ssh takes no word for it but this
            ["hostname", name],
            ["ip", "link", "set", "lo", "up"],
        ):
            self.run(*command)
        network.plug_in(self)

    @property
    def pid(self) -> int:
        """The process that is this machine, as seen from outside."""
        return self._holder.pid

    @property
    def cable(self) -> str:
        """Name of the network's end of its cable."""
        return f"port{self.number}"

    def command(self, *words: str) -> list[str]:
        """Return a command as it is given outside to run in here."""
        return [*self._holder.enter("--net", "--mount", "--uts", "--pid"), *words]

    def run(
        self, *words: str, check: bool = True, timeout: float = 40, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        done = subprocess.run(
            self.command(*words),
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd="/",
        )
        assert not (check and done.returncode), f"{self.name}: {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line of pyrokernel."""
        return self.run(sys.executable, "-m", "pyrokernel", *words, **options)

    def python(self, code: str, **options: Any) -> Any:
        """Run a program, and return what it has left in `result`, by way of JSON."""
        program = f"{textwrap.dedent(code)}\nimport json as _json\nprint(_json.dumps(result))"
        return json.loads(self.run(sys.executable, "-c", program, **options).stdout.splitlines()[-1])

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command with pipes to it; it ends with the machine."""
        started = subprocess.Popen(
            self.command(*words),
            env={**self.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        self._network.started.append(started)
        return started

    def start_python(self, code: str) -> subprocess.Popen[str]:
        """Start a program with pipes to it."""
        return self.start(sys.executable, "-uc", textwrap.dedent(code))

    def take(self, source: Path, target: Path) -> None:
        """Copy a directory of this system to this machine's own disk."""
        self.run("mkdir", "-p", str(target.parent))
        packed = subprocess.run(["tar", "-C", str(source), "-cf", "-", "."], capture_output=True, check=True).stdout
        self.run("mkdir", "-m", "700", str(target))
        subprocess.run(self.command("tar", "-C", str(target), "-xpf", "-"), input=packed, check=True)

    def take_from(self, other: Machine, source: Path, target: str) -> None:
        """Copy a directory of another machine to a place below this one's home directory."""
        packed = subprocess.run(
            other.command("tar", "-C", str(source), "-cf", "-", "."), capture_output=True, check=True
        )
        self.run("mkdir", "-p", "-m", "700", str(self.home / target))
        unpack = self.command("tar", "-C", str(self.home / target), "-xpf", "-")
        subprocess.run(unpack, input=packed.stdout, check=True)

    def unplug(self) -> None:
        """Pull its cable: nobody is told."""
        self._network.ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """Put its cable back."""
        self._network.ip("link", "set", self.cable, "up")

    def switch_off(self) -> None:
        """Take the power away: everything here is gone at once, and nobody is told."""
        if self._on:
            self._on = False
            # Its end would go with the namespace, which connections without an owner keep for minutes.
            self._network.ip("link", "delete", self.cable)
            self._holder.close()


class Network:
    """A switch, and the machines that are plugged into it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pk-net-", dir="/tmp"))
        (self.directory / "home").mkdir()
        (self.directory / "passwd").write_text(_passwd_with_home(self.directory / "home"))
        self.machines: dict[str, Machine] = {}
        self.started: list[subprocess.Popen[str]] = []
        self._holder = _Holder("--net")
        self.ip("link", "add", "switch", "type", "bridge")
        self.ip("link", "set", "switch", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for machine in self.machines.values():
            machine.switch_off()
        self._holder.close()
        for process in self.started:
            process.wait(10)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not written to it has nowhere to go
                        stream.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def machine(self, name: str) -> Machine:
        """Add a machine."""
        found = self.machines[name] = Machine(self, name, len(self.machines) + 1)
        return found

    def switch_on(self, machine: Machine) -> Machine:
        """Start a machine again that was switched off; its disk is empty."""
        found = self.machines[machine.name] = Machine(self, machine.name, machine.number)
        return found

    def ip(self, *words: str) -> None:
        """Run `ip` at the switch."""
        subprocess.run([*self._holder.enter("--net"), "ip", *words], check=True, capture_output=True, timeout=10)

    def plug_in(self, machine: Machine) -> None:
        """Connect a machine to the switch."""
        port = machine.cable
        self.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        self.ip("link", "set", port, "master", "switch", "up")
        machine.run("ip", "addr", "add", f"{machine.address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")


def _passwd_with_home(home: Path) -> str:
    """Return the accounts of this system, with another home directory for this one."""
    lines = []
    for line in Path("/etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[2] == str(os.getuid()):
            fields[5] = str(home)
        lines.append(":".join(fields))
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Make machines of these names; they can reach each other when this begins."""
    with Network() as found:
        for name in names:
            found.machine(name)
        first = next(iter(found.machines.values()))
        for machine in found.machines.values():
            wait_until(lambda machine=machine: reaches(machine, first.address))
        yield found


def reaches(machine: Machine, address: str) -> bool:
    """Tell whether packets come through: who listens at no port there says so at once."""
    probe = (
        "import socket, sys\n"
        "s = socket.socket(); s.settimeout(1)\n"
        f"sys.exit(s.connect_ex(({address!r}, 9)) not in (0, 111))"
    )
    return machine.run(sys.executable, "-ISc", probe, check=False).returncode == 0
