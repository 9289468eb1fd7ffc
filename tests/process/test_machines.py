"""A mesh over three machines, by mutual TLS, named by stock pyro5-ns: what works on one works across."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import machines
import pytest
from labs import Lab, lab
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    pytest.mark.timeout(150),
]


@pytest.fixture(scope="module")
def labs() -> Iterator[Lab]:
    """Three machines; kernels a0 on the first, which keeps the shared state, b0 and b1 on the second, c0 on the third.

    Their user may do all there.
    """
    with lab() as found:
        for machine in found.machines:
            machine.environ["PYROKERNEL_STATE_HOST"] = "lab1"
        for machine, names in zip(found.machines, (["a0"], ["b0", "b1"], ["c0"]), strict=True):
            found.serve(machine, *(word for name in names for word in ("--name", name)))
        yield found


def test_every_machine_lists_the_kernels_of_all(labs: Lab) -> None:
    for machine in labs.machines:
        infos = json.loads(machine.cli("ps", "--json").stdout)
        assert [(info["name"], info["host"]) for info in infos] == [
            ("a0", "lab1"),
            ("b0", "lab2"),
            ("b1", "lab2"),
            ("c0", "lab3"),
        ]


def test_what_is_on_the_same_machine_is_reached_by_its_socket_and_the_rest_by_tls(labs: Lab) -> None:
    ways = labs.machines[1].python(
        """
        import pyrokernel as pk
        with pk.connect() as mesh:
            result = {link.name: link.uri for link in [*(kernel.link for kernel in mesh), *mesh.hosts()]}
        """
    )
    here = {name for name, uri in ways.items() if "@./u:" in uri}
    assert here == {"b0", "b1", "lab2"}, ways  # although the host of each machine has its socket at the same path


def test_code_and_data_go_to_kernels_of_all_machines(labs: Lab) -> None:
    result = labs.machines[2].python(
        """
        import numpy
        import pyrokernel as pk
        data = numpy.arange(1_000_000)
        with pk.connect() as mesh:
            group = mesh[:]
            group.execute("import socket; where = socket.gethostname()")
            where = group.pull("where")
            squares = list(group.map(lambda x: x * x, range(50)))
            called = group.call(max, [41, 42])
            group.scatter("part", data)
            group.execute("total = int(part.sum())")
            scattered = sum(group.pull("total").values()) == int(data.sum())
            gathered = bool((group.gather("part") == data).all())
            group.push(whole=data)
            group.execute("same = bool((whole == __import__('numpy').arange(1_000_000)).all())")
            pushed = all(group.pull("same").values())
            pulled = bool((mesh["b1"].pull("whole") == data).all())
        result = [where, called, squares, scattered, gathered, pushed, pulled]
        """
    )
    where, called, squares, *copied = result
    assert where == {"a0": "lab1", "b0": "lab2", "b1": "lab2", "c0": "lab3"}
    assert called == dict.fromkeys(where, 42)
    assert squares == [x * x for x in range(50)]
    assert copied == [True] * 4


def test_the_shared_state_is_one_for_clients_and_kernels_of_all_machines(labs: Lab) -> None:
    first, second, third = labs.machines
    second.python("import pyrokernel as pk; m = pk.connect(); m.shared.m['from_client'] = [1]; result = 1")
    program = """
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["c0"].execute("shared.m['from_client'].append(2); shared.m['big'] = bytes(30_000_000)")
            mesh["b0"].execute("found = list(shared.m['from_client']), len(shared.m['big'])")
            result = mesh["b0"].pull("found")
    """
    assert third.python(program) == [[1, 2], 30_000_000]
    assert first.python("import pyrokernel as pk; result = list(pk.connect().shared.m['from_client'])") == [1, 2]


def test_a_kernel_reaches_kernels_of_other_machines_through_its_gateway(labs: Lab) -> None:
    program = """
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["b0"].execute("import pyrokernel as pk; mesh = pk.connect()")
            mesh["b0"].execute("mesh['c0'].execute('import socket; name = socket.gethostname()')")
            mesh["b0"].execute("seen = mesh['c0'].pull('name'), mesh['a0'].call(max, [3, 1]), len(mesh.hosts())")
            result = mesh["b0"].pull("seen")
    """
    assert labs.machines[0].python(program) == ["lab3", 3, 3]


_CAMERA = """
from pyrokernel import expose, publish

@expose
class Camera:
    def snap(self):
        return "click"

camera = Camera()
publish("camera", camera)
"""


def test_references_are_opened_by_url_and_published_objects_by_name(labs: Lab) -> None:
    first, second, third = labs.machines
    url = second.python(
        f"""
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["b0"].execute({_CAMERA!r})
            result = mesh["b0"].ref("camera").url()
        """
    )
    for machine in (first, second, third):
        opened = f"""
            import pyrokernel as pk
            with pk.connect() as mesh:
                result = [mesh.open({url!r}).snap(), mesh.open("camera").snap()]
        """
        assert machine.python(opened) == ["click", "click"]


def test_the_death_of_a_kernel_reaches_a_caller_on_another_machine(labs: Lab) -> None:
    program = """
        import time
        import pyrokernel as pk
        from pyrokernel.errors import KernelDiedError
        with pk.connect() as mesh:
            begun = time.monotonic()
            try:
                mesh["b1"].execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            except KernelDiedError as error:
                result = [error.kernel, error.signal, time.monotonic() - begun < 5]
            mesh["b1"].execute("again = 1")
    """
    assert labs.machines[0].python(program) == ["b1", int(signal.SIGKILL), True]


def test_kernels_are_started_restarted_and_stopped_from_another_machine(labs: Lab) -> None:
    first, second, third = labs.machines
    second.cli("serve", "--detach", "--listen", f"{second.address}:9191", "--name", "b2")
    third.python("import pyrokernel as pk; pk.connect()['b2'].execute('x = 1'); result = 0")
    third.cli("restart", "b2")
    gone = "import pyrokernel as pk; result = 'x' in [v['name'] for v in pk.connect()['b2'].variables()]"
    assert first.python(gone) is False
    third.cli("stop", "b2")
    assert "b2" not in {info["name"] for info in json.loads(first.cli("ps", "--json").stdout)}


def test_a_second_machine_of_the_same_name_takes_nothing_from_the_first(labs: Lab) -> None:
    first, _, third = labs.machines
    twin = ("--mesh", "twin", "serve", "--detach", "--listen", f"{third.address}:9292", "--name", "twin")
    refused = third.cli(*twin, check=False, PYROKERNEL_HOST="lab2")
    assert refused.returncode != 0
    assert "held by" in refused.stderr
    assert "host lab2 of the mesh, and lab3 in its certificate" in refused.stderr
    assert first.python("import pyrokernel as pk; result = pk.connect()['b0'].call(max, [1, 2])") == 2


def test_a_machine_that_joins_later_is_seen_by_meshes_that_are_open(labs: Lab) -> None:
    late = labs.net.machine("lab4")
    labs.certify(late)
    wait_until(lambda: machines.reaches(late, labs.machines[0].address))
    watcher = labs.machines[1].start_python(
        """
        import sys
        import pyrokernel as pk
        with pk.connect() as mesh:
            print(mesh.names, flush=True)
            sys.stdin.readline()
            print(mesh["d0"].call(max, [1, 4]), len(mesh.hosts()), flush=True)
        """
    )
    assert watcher.stdout is not None
    assert watcher.stdin is not None
    assert "d0" not in watcher.stdout.readline()
    labs.serve(late, "--name", "d0")
    watcher.stdin.write("\n")
    watcher.stdin.flush()
    assert watcher.stdout.readline().split() == ["4", "4"]
    late.cli("stop")
