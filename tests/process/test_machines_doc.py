"""docs/machines.md keeps its word: each of its commands is run, in order, on machines of those names and addresses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import labs
import machines
import openssh
import pytest
from labs import TOOLS
from machines import Network
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    openssh.needs_server,
    pytest.mark.timeout(240),
]

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
LINE = re.compile(r"(lab\d)\$ (.*)")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three machines with nothing but programs, and ssh between them."""
    key = openssh.make_key(tmp_path_factory.mktemp("keys") / "key")
    with machines.network(["lab1", "lab2", "lab3"]) as found:
        for machine in found.machines.values():
            labs.start_sshd(machine, key)
            labs.configure_ssh(machine, key, list(found.machines.values()))
            machine.environ["PATH"] = f"{TOOLS}:{machine.environ['PATH']}"
        yield found


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the commands of the page by heading, each with its machine."""
    found = {}
    for part in PAGE.read_text().split("\n## ")[1:]:
        blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
        found[part.splitlines()[0]] = [LINE.fullmatch(line).groups() for block in blocks for line in block.splitlines()]
    return {heading: lines for heading, lines in found.items() if lines}


def test_every_command_of_the_page_works_where_it_says(net: Network) -> None:
    said: dict[str, str] = {}
    assert sum(map(len, sections().values())) > 15  # nobody has changed how they are marked
    for heading, lines in sections().items():
        if heading == "Behind a router or a firewall":
            certs = Path(".config/pyrokernel/certs")
            net.machines["lab3"].take_from(net.machines["lab1"], net.machines["lab1"].home / certs, str(certs))
        for name, line in lines:
            machine = net.machines[name]
            if line.endswith("&"):
                machine.start("sh", "-c", f"exec {line[:-1]}" if line.startswith("ssh") else line[:-1])
                address = "10.77.0.1:9090" if "pyro5-ns" in line else ""
                wait_until(lambda address=address, machine=machine: is_there(machine, address))
                continue
            try:
                said[f"{heading}: {line}"] = machine.run("sh", "-c", line, timeout=90).stdout
            except (AssertionError, subprocess.TimeoutExpired) as error:
                raise AssertionError(f"{heading}: {name}$ {line}") from error
    assert "lab2-0" in said["Two machines in five minutes: pyrokernel ps"]
    assert "lab3-1" in said["Without ssh: pyrokernel ps"]
    assert "camera" in said["A name server that outlives hosts: pyrokernel --ns 10.77.0.1:9090 ps"]
    last = "Behind a router or a firewall: PYROKERNEL_VIA=127.0.0.1:1080 pyrokernel --ns 10.77.0.1:9191 ps"
    assert "k0" in said[last]


def is_there(machine: machines.Machine, name_server: str) -> bool:
    """Tell whether what was started beside the others is ready."""
    if name_server:
        return machine.cli("--ns", name_server, "nameserver", "status", check=False).returncode == 0
    listening = machine.run("cat", "/proc/net/tcp").stdout
    return "0100007F:0438" in listening  # 127.0.0.1:1080
