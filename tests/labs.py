"""A laboratory: machines with certificates of one authority, and a stock name server under TLS. In the test process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import machines
from machines import Machine, Network
from openssh import account
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
            made.issue("user", account())
        for machine in self.machines:
            self.certify(machine)

    def certify(self, machine: Machine) -> None:
        """Give a machine an identity as a host, and its account one as a user."""
        configuration = machine.home / ".config" / "pyrokernel"
        if not (self.ca / "issued" / machine.name).exists():
            with authority.opened(self.ca) as made:
                made.issue("host", machine.name, [machine.address])
        for place, name in (("certs", account()), ("host", machine.name)):
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
