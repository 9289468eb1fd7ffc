"""`serve --join`: one line makes a machine part of a mesh, or says what it lacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import machines
import pytest
from labs import TOOLS, Lab
from machines import Machine
from waiting import wait_until

from pyrokernel.front.exits import ExitCode

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def labs() -> Iterator[Lab]:
    """Three machines; the host of the first is its own name server."""
    with machines.network(["lab1", "lab2", "lab3"]) as net:
        found = Lab(net)
        found.ns = f"{found.machines[0].address}:9191"
        for machine in found.machines:
            del machine.environ["PYROKERNEL_NS"]
        told = found.serve(found.machines[0], "--name", "a0")
        assert f"pyrokernel serve --join {found.ns}" in told
        yield found


def refused(machine: Machine, *words: str) -> str:
    """Return the one line that `serve` ends with."""
    done = machine.cli("serve", "--detach", *words, check=False)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_machine_joins_and_says_how_it_is_reached(labs: Lab) -> None:
    first, second, _ = labs.machines
    told = second.cli("serve", "--detach", "--join", labs.ns, "-n", "2").stdout
    assert f"other machines reach it at {second.address}:9191" in told
    listed = json.loads(second.cli("--ns", labs.ns, "ps", "--json").stdout)
    assert [info["name"] for info in listed] == ["a0", "lab2-0", "lab2-1"]
    assert first.python("import pyrokernel as pk; result = pk.connect()['lab2-0'].call(max, [1, 2])") == 2
    elsewhere = refused(labs.machines[2], "--join", f"{second.address}:9191")
    assert f"this machine has no name server; that of its mesh is at {labs.ns}" in elsewhere
    again = second.cli("serve", "--detach", "--join", labs.ns, "--name", "b1")
    assert "joined it" in again.stderr
    assert "b1" in first.cli("ps").stdout
    moved = refused(second, "--advertise", f"{second.address}:9999")  # not said to be so, where it is not
    assert f"runs here at {second.address}:9191, and not {second.address}:9999; to change that, end it alone" in moved
    second.cli("--ns", labs.ns, "stop")
    assert [info["name"] for info in json.loads(first.cli("ps", "--json").stdout)] == ["a0"]


def test_the_next_free_port_is_taken_and_said(labs: Lab) -> None:
    third = labs.machines[2]
    holder = third.start_python("import socket; s = socket.create_server(('', 9191)); print('held'); input()")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told = third.cli("serve", "--detach", "--join", labs.ns, "--name", "c0").stdout
    assert f"other machines reach it at {third.address}:9192" in told
    assert labs.machines[0].python("import pyrokernel as pk; result = pk.connect()['c0'].call(max, [1, 2])") == 2
    third.cli("--ns", labs.ns, "stop")


def test_without_an_identity_it_says_how_to_get_one(labs: Lab) -> None:
    third = labs.machines[2]
    done = third.cli("serve", "--detach", "--join", labs.ns, check=False, PYROKERNEL_HOST_CERTS="/nowhere")
    line = done.stderr.strip()
    assert done.returncode != 0
    assert "there is no identity /nowhere" in line
    assert "pyrokernel certs issue-host" in line


def test_a_name_server_that_is_not_there_is_named(labs: Lab) -> None:
    third = labs.machines[2]
    nobody = f"{labs.machines[1].address}:9999"
    assert f"no name server is reached at {nobody}" in refused(third, "--join", nobody)
    nowhere = "10.77.0.99:9090"
    line = refused(third, "--join", nowhere)
    assert f"no name server is reached at {nowhere}" in line
    assert "firewall" in line


def test_a_name_server_without_tls_is_refused(labs: Lab) -> None:
    first, _, third = labs.machines
    plain = first.start(str(TOOLS / "pyro5-ns"), "-n", first.address, "-p", "9095")
    assert plain.stdout is not None
    while "NS running" not in plain.stdout.readline():
        pass
    line = refused(third, "--join", f"{first.address}:9095")
    assert "TLS" in line
    assert "pyrokernel certs env" in line


def test_a_certificate_for_other_addresses_is_refused_with_the_command_that_mends_it(labs: Lab) -> None:
    third = labs.machines[2]
    third.run("ip", "addr", "add", "10.77.0.77/24", "dev", "eth0")
    line = refused(third, "--join", labs.ns, "--listen", "10.77.0.77:9191")
    assert "not for 10.77.0.77" in line
    assert "pyrokernel certs renew lab3 --name 10.77.0.77" in line
    third.run("ip", "addr", "del", "10.77.0.77/24", "dev", "eth0")


def test_an_address_that_nobody_would_believe_is_refused_without_a_name_server_too(labs: Lab) -> None:
    line = refused(labs.machines[2], "--listen", f"{labs.machines[0].address}:9191")
    assert f"not for {labs.machines[0].address}" in line


def test_a_host_of_another_mesh_that_runs_already_is_not_taken_for_one_of_this(labs: Lab) -> None:
    third = labs.machines[2]
    third.cli("serve", "--detach", "--name", "alone")
    line = third.cli("serve", "--detach", "--join", labs.ns, "--name", "c0", check=False).stderr
    assert "is in the mesh of the name server" in line
    assert "end it first" in line
    assert "c0" not in labs.machines[0].cli("ps").stdout
    third.cli("stop")


def test_the_mesh_of_a_machine_is_the_one_that_its_host_has_joined(labs: Lab) -> None:
    """Commands said that nothing ran, or to end the host; and the next host took its kernels out of the mesh."""
    first, third = labs.machines[0], labs.machines[2]
    third.cli("serve", "--detach", "--join", labs.ns, "-n", "2")
    third.cli("run", "-k", "lab3-0", "-c", "big = 42")
    assert "lab3-1" in third.cli("ps").stdout
    assert "lab3-0" in third.python("import pyrokernel as pk; result = pk.connect().names")
    assert third.run("sh", "-c", f"echo 'on lab3-0 big' | {sys.executable} -m pyrokernel shell").stdout.endswith("42\n")
    assert "started: more" in third.cli("serve", "--detach", "--name", "more").stdout
    assert labs.ns in third.cli("nameserver", "status").stdout
    third.run("pkill", "-KILL", "-o", "-f", "pyrokernel.host")
    wait_until(lambda: "lab3" in first.cli("ps", check=False).stderr)
    assert "lab3-[0-1], more" in third.cli("serve", "--detach").stdout
    assert first.cli("run", "-k", "lab3-0", "-c", "big").stdout == "42\n"
    third.cli("stop")
    assert third.cli("ps", check=False).returncode == ExitCode.NO_MESH


def test_who_has_an_identity_of_a_host_and_names_a_name_server_joins_it(labs: Lab) -> None:
    first, third = labs.machines[0], labs.machines[2]
    third.cli("--ns", labs.ns, "serve", "--detach", "-n", "1")
    assert first.cli("run", "-k", "lab3-0", "-c", "6 * 7").stdout == "42\n"
    third.cli("stop")


def test_what_a_host_has_left_is_ended_and_its_names_go(labs: Lab) -> None:
    first, third = labs.machines[0], labs.machines[2]
    third.cli("serve", "--detach", "--join", labs.ns, "-n", "1")
    third.run("pkill", "-KILL", "-o", "-f", "pyrokernel.host")
    assert "lab3-0" in third.cli("stop").stdout
    assert "lab3" not in first.cli("ps").stdout
    assert third.cli("ps", check=False).returncode == ExitCode.NO_MESH
