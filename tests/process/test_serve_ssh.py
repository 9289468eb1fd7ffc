"""`serve --ssh`: hosts are started on machines that only ssh reaches so far, and get their certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator

import labs
import machines
import openssh
import pytest
from machines import Network

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    openssh.needs_server,
    pytest.mark.timeout(150),
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three machines: the first has the authority, a mesh, and a key that opens the others to ssh."""
    key = openssh.make_key(tmp_path_factory.mktemp("keys") / "key")
    with machines.network(["lab1", "lab2", "lab3"]) as found:
        first, *others = found.machines.values()
        for machine in others:
            labs.start_sshd(machine, key)
        labs.configure_ssh(first, key, others)
        first.cli("certs", "init", "--name", first.address)
        first.cli("serve", "--detach", "--listen", f"{first.address}:9191", "--name", "a0")
        yield found


def test_hosts_start_with_certificates_and_the_one_that_fails_stops_no_other(net: Network) -> None:
    first, second, third = net.machines.values()
    done = first.cli("serve", "--ssh", "lab2,root@10.77.0.99,lab3", "-n", "2", check=False, timeout=90)
    assert done.returncode != 0
    assert "lab2: mesh 'default' on lab2: 2 kernels (lab2-[0-1])" in done.stdout, done
    assert f"other machines reach it at {third.address}:9191" in done.stdout
    assert "10.77.0.99: ssh does not get there" in done.stderr
    listed = {one["name"] for one in json.loads(first.cli("certs", "list", "--json").stdout)}
    assert listed == {"lab1", "root", "lab2", "lab3"}, "nothing is signed for what is not there"
    names = [info["name"] for info in json.loads(first.cli("ps", "--json").stdout)]
    assert names == ["a0", "lab2-0", "lab2-1", "lab3-0", "lab3-1"]
    result = first.python(
        """
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["lab2-0"].execute("import pyrokernel as pk; n = pk.connect()['lab3-1'].call(max, [1, 2])")
            result = mesh["lab2-0"].pull("n")
        """
    )
    assert result == 2
    assert second.run("stat", "-c", "%a", str(second.home / ".config/pyrokernel/host/key.pem")).stdout == "600\n"
    again = first.cli("serve", "--ssh", "lab2,lab3", "-n", "2")
    assert "started nothing" in again.stdout or "2 kernels" in again.stdout
    first.cli("stop", "--all")
    assert first.cli("ps", check=False).returncode != 0


def test_a_machine_without_pyrokernel_is_told_of_with_what_to_do(net: Network) -> None:
    first = net.machines["lab1"]
    first.cli("serve", "--detach", "--listen", f"{first.address}:9191", "--name", "a0")
    done = first.cli("serve", "--ssh", "lab2", "--remote-command", "/nowhere/pyrokernel", check=False)
    assert done.returncode != 0
    assert "lab2: pyrokernel does not run there" in done.stderr
    assert "--remote-command" in done.stderr


def test_without_a_mesh_that_others_reach_it_says_how_to_begin_one(net: Network) -> None:
    done = net.machines["lab3"].cli("serve", "--ssh", "lab2", check=False)
    assert done.returncode == 2
    assert "serve --detach --listen" in done.stderr


def test_what_is_of_this_machine_is_refused(net: Network) -> None:
    done = net.machines["lab1"].cli("serve", "--ssh", "lab2", "--cwd", "/tmp", check=False)
    assert done.returncode == 2
    assert "--cwd" in done.stderr


def test_an_identity_of_another_authority_is_not_replaced(net: Network) -> None:
    first, third = net.machines["lab1"], net.machines["lab3"]
    third.run("mv", str(third.home / ".config/pyrokernel/host"), str(third.home / "ours"))
    third.cli("certs", "init", "--ca", str(third.home / "other"))
    done = first.cli("serve", "--ssh", "lab3", check=False)
    assert done.returncode != 0
    assert "lab3: it has an identity of another authority" in done.stderr
    third.run("rm", "-r", str(third.home / ".config/pyrokernel"))
    third.run("mkdir", "-p", str(third.home / ".config/pyrokernel"))
    third.run("mv", str(third.home / "ours"), str(third.home / ".config/pyrokernel/host"))
