"""Machines that cannot be dialled, and clients that cannot dial: ssh leads the way, and trust stays with TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import labs
import machines
import openssh
import pytest
from machines import Machine, Network
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    openssh.needs_server,
    pytest.mark.timeout(150),
]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that opens ssh on all machines."""
    return openssh.make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture(scope="module")
def net(key: Path) -> Iterator[Network]:
    """A mesh on two machines, and a third, far, in a network of its own: only the first machine is in both."""
    with machines.network(["lab1", "lab2", "far"]) as found:
        first, second, far = found.machines.values()
        move_behind(found, first, far)
        labs.start_sshd(far, key)
        labs.start_sshd(first, key)
        labs.configure_ssh(first, key, [far])
        labs.configure_ssh(far, key, [])
        first.cli("certs", "init", "--name", first.address)
        first.cli("certs", "issue-host", "lab2", "--name", second.address)
        first.cli("serve", "--detach", "--listen", f"{first.address}:9191", "--name", "a0")
        second.take_from(first, first.home / ".config/pyrokernel/ca/issued/lab2", ".config/pyrokernel/host")
        second.take_from(first, first.home / ".config/pyrokernel/certs", ".config/pyrokernel/certs")
        second.environ["PYROKERNEL_NS"] = f"{first.address}:9191"
        second.cli("serve", "--detach", "--join", f"{first.address}:9191", "--name", "b0")
        yield found


def move_behind(net: Network, door: Machine, far: Machine) -> None:
    """Put a machine into another network, to which only one of the others has a second cable."""
    net.ip("link", "add", "yard", "type", "bridge")
    net.ip("link", "set", "yard", "up")
    net.ip("link", "set", far.cable, "master", "yard")
    net.ip("link", "add", "door", "type", "veth", "peer", "name", "eth1", "netns", str(door.pid))
    net.ip("link", "set", "door", "master", "yard", "up")
    door.run("ip", "addr", "add", "10.78.0.1/24", "dev", "eth1")
    door.run("ip", "link", "set", "eth1", "up")
    far.run("ip", "addr", "flush", "dev", "eth0")
    far.run("ip", "addr", "add", "10.78.0.9/24", "dev", "eth0")
    far.address = "10.78.0.9"
    wait_until(lambda: machines.reaches(door, far.address))


def test_a_machine_that_cannot_be_dialled_nor_dial_takes_part_by_a_tunnel(net: Network) -> None:
    first, second, _ = net.machines.values()
    done = first.cli("serve", "--ssh", "far", "--tunnel", "both", "-n", "1", timeout=90)
    assert f"other machines reach it at {first.address}:9192" in done.stdout
    call = "import pyrokernel as pk; result = pk.connect()['far-0'].call(max, [1, 2])"
    assert second.python(call) == 2
    back = """
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["far-0"].execute("import pyrokernel as pk; n = pk.connect()['b0'].call(max, [3, 4])")
            result = mesh["far-0"].pull("n")
    """
    assert second.python(back) == 4
    # The tunnel ends: callers are told, and it comes back by itself.
    first.run("pkill", "-f", "ServerAliveInterval")
    wait_until(lambda: "far-0  idle" in second.cli("ps", check=False).stdout, 30)
    assert second.python(call) == 2
    names = {info["name"] for info in json.loads(second.cli("ps", "--json").stdout)}
    assert names == {"a0", "b0", "far-0"}
    first.cli("stop", "--all")
    wait_until(lambda: first.run("pgrep", "-f", "pyrokernel.front.tunnel", check=False).returncode == 1)
    assert first.run("pgrep", "-f", "ServerAliveInterval", check=False).returncode == 1


def test_a_client_that_only_ssh_lets_in_reaches_the_mesh_by_it(net: Network, key: Path) -> None:
    first, second, far = net.machines.values()
    first.cli("serve", "--detach", "--listen", f"{first.address}:9191", "--name", "a0")
    second.cli("serve", "--detach", "--join", f"{first.address}:9191", "--name", "b0")
    far.take_from(first, first.home / ".config/pyrokernel/certs", ".config/pyrokernel/certs")
    far.start("ssh", "-N", "-D", "127.0.0.1:1081", "10.78.0.1")
    far.environ |= {"PYROKERNEL_NS": f"{first.address}:9191", "PYROKERNEL_VIA": "127.0.0.1:1081"}
    wait_until(lambda: "b0" in far.cli("ps", check=False).stdout)
    assert far.python("import pyrokernel as pk; result = pk.connect()['b0'].call(max, [5, 6])") == 6
    refused = far.cli("ps", check=False, PYROKERNEL_VIA="127.0.0.1:1082")
    assert "no SOCKS proxy answers at 127.0.0.1:1082" in refused.stderr
    first.cli("stop", "--all")
