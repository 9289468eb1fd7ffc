"""A laboratory: machines with certificates of one authority, and a stock name server under TLS. In the test process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import machines
import openssh
from machines import Machine, Network
from waiting import wait_until

from pyrokernel.certs import authority

NS_PORT = 9090
GATEWAY_PORT = 9191
TOOLS = Path(sys.executable).parent


class Lab:
    """Machines that can make a mesh with each other.

    Args:
        net: Their network.

    Attributes:
        ns: Address of the name server, which is on the first machine.
        ca: Directory of the authority.
    """

    def __init__(self, net: Network) -> None:
        self.net = net
        self.machines = list(net.machines.values())
        self.ca = net.directory / "ca"
        self.ns = f"{self.machines[0].address}:{NS_PORT}"
        authority.create(self.ca, "lab")
        with authority.opened(self.ca) as made:
            made.issue("user", openssh.account())
        for machine in self.machines:
            self.certify(machine)

    def certify(self, machine: Machine) -> None:
        """Give a machine an identity as a host, and its account one as a user."""
        configuration = machine.home / ".config" / "pyrokernel"
        if not (self.ca / "issued" / machine.name).exists():
            with authority.opened(self.ca) as made:
                made.issue("host", machine.name, [machine.address])
        for place, name in (("certs", openssh.account()), ("host", machine.name)):
            machine.take(self.ca / "issued" / name, configuration / place)
        machine.environ["PYROKERNEL_NS"] = self.ns

    def start_name_server(self) -> None:
        """Start stock pyro5-ns, with TLS by its environment."""
        first = self.machines[0]
        identity = first.home / ".config" / "pyrokernel" / "host"
        tools = {"PATH": f"{TOOLS}:{first.environ['PATH']}"}
        line = f'eval "$(pyrokernel certs env {identity})"; exec pyro5-ns -n {first.address} -p {NS_PORT}'
        self.name_server = first.start("sh", "-c", line, **tools)
        wait_until(lambda: self.answers(first))

    def stop_name_server(self) -> None:
        """Kill it, with everything it knew."""
        self.machines[0].run("pkill", "-KILL", "-f", "pyro5-ns")
        self.name_server.wait(10)

    def answers(self, machine: Machine) -> bool:
        """Tell whether the name server answers a machine."""
        code = f"""
            from pyrokernel import settings
            from pyrokernel.errors import PyrokernelError
            from pyrokernel.wire.naming import Directory
            from pyrokernel.wire.remote import Credentials
            try:
                Directory({self.ns!r}, credentials=Credentials.of(settings.load())).ping()
                result = True
            except PyrokernelError as error:
                result = False
        """
        return bool(machine.python(code))

    def serve(self, machine: Machine, *words: str) -> str:
        """Start a host there that others can reach; return what it said."""
        return machine.cli("serve", "--detach", "--listen", f"{machine.address}:{GATEWAY_PORT}", *words).stdout


@contextlib.contextmanager
def lab(names: Sequence[str] = ("lab1", "lab2", "lab3")) -> Iterator[Lab]:
    """Make a laboratory, whose name server answers."""
    with machines.network(names) as net:
        found = Lab(net)
        found.start_name_server()
        yield found


def start_sshd(machine: Machine, key: Path) -> None:
    """Let whoever has a key into a machine; programs there find their settings as they would from a login."""
    folder = machine.home / "sshd"
    machine.run("mkdir", str(folder))
    machine.take(key.parent, folder / "keys")
    variables = {
        name: machine.environ[name] for name in ("PYROKERNEL_RUNTIME_DIR", "PYTHONPATH") if name in machine.environ
    }
    variables["PATH"] = f"{TOOLS}:{machine.environ['PATH']}"
    lines = [
        f"HostKey {folder}/host_key", f"AuthorizedKeysFile {folder}/keys/{key.name}.pub", "PidFile none", "UsePAM no",
        "Subsystem sftp internal-sftp",
        "StrictModes no", "PasswordAuthentication no", "PermitRootLogin prohibit-password",
        "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items()),
    ]  # fmt: skip
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/host_key")
    machine.run("sh", "-c", f"cat > {folder}/config", stdin="\n".join(lines) + "\n")
    machine.run("sh", "-c", f"mkdir -p /run/sshd; {openssh.SSHD} -f {folder}/config -E {folder}/log")
    wait_until(lambda: "000:0016" in machine.run("cat", "/proc/net/tcp").stdout)  # port 22


def configure_ssh(machine: Machine, key: Path, others: Sequence[Machine]) -> None:
    """Let a machine get into others by their names, without being asked for anything."""
    machine.take(key.parent, machine.home / "keys")
    lines = [f"Host {other.name}\n  HostName {other.address}" for other in others]
    lines.append("Host *\n  StrictHostKeyChecking accept-new\n  IdentitiesOnly yes")
    lines.append(f"  IdentityFile {machine.home}/keys/{key.name}\n")
    machine.run("mkdir", "-m", "700", str(machine.home / ".ssh"))
    machine.run("sh", "-c", f"umask 077; cat > {machine.home}/.ssh/config", stdin="\n".join(lines))
