"""Machines that vanish: cables pulled, power gone, name server or host killed. Callers are told, kernels live on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import machines
import pytest
from labs import Lab, lab
from machines import Machine
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(bool(machines.why_not()), reason=machines.why_not() or "machines can be made"),
    pytest.mark.timeout(150),
]

RELEASED_SECONDS = 5.0
"""By then whoever waits for a machine that has vanished has been told."""

_CALLER = """
import faulthandler, json, sys, threading, time
faulthandler.dump_traceback_later(40)  # what a caller that hangs is in
import pyrokernel as pk

def report(what, value):
    # In one piece: print() writes the end of the line apart, and another thread's line gets between the two.
    sys.stdout.write(json.dumps([what, time.monotonic(), value]) + "\\n")
    sys.stdout.flush()

def attempt(what, function):
    try:
        report(what, ["ok", function()])
    except Exception as error:
        report(what, [type(error).__name__, str(error)])

def at_once(**functions):
    threads = [threading.Thread(target=attempt, args=one) for one in functions.items()]
    for thread in threads:
        thread.start()
    return threads

def pause(what, value=None):
    report(what, value)
    sys.stdin.readline()

"""


class Caller:
    """A program on a machine that says what becomes of its calls, and when."""

    def __init__(self, machine: Machine, program: str) -> None:
        self._process: subprocess.Popen[str] = machine.start_python(_CALLER + program)

    def hear(self, what: str) -> tuple[float, Any]:
        """Return when something was reported, and what; both clocks are one."""
        return self.hear_all(what)[what]

    def hear_all(self, *names: str) -> dict[str, tuple[float, Any]]:
        """Return what was reported of each, in whatever order."""
        assert self._process.stdout is not None
        found: dict[str, tuple[float, Any]] = {}
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            print(line, end="")  # for whoever reads why the test failed
            with contextlib.suppress(ValueError):
                name, at, value = json.loads(line)
                found[name] = at, value
            if set(names) <= set(found):
                return found
        raise AssertionError("".join(lines))

    def go_on(self) -> None:
        """Let it continue behind its `pause`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@pytest.fixture(scope="module")
def lasting() -> Iterator[Lab]:
    """Two machines: the name server and a0 on the first, b0, b1 and b2 and the shared state on the second."""
    with lab(["lab1", "lab2"]) as found:
        for machine in found.machines:
            machine.environ["PYROKERNEL_STATE_HOST"] = "lab2"
        found.serve(found.machines[0], "--name", "a0")
        found.serve(found.machines[1], *(word for name in ("b0", "b1", "b2") for word in ("--name", name)))
        yield found


@pytest.fixture
def labs(lasting: Lab) -> Iterator[Lab]:
    """The same, with all cables in at the end."""
    yield lasting
    for machine in lasting.machines:
        machine.plug()
        wait_until(lambda machine=machine: lasting.answers(machine), 30)
    wait_until(lambda: {status(lasting.machines[0], name) for name in ("a0", "b0", "b1", "b2")} <= {"idle", "busy"}, 30)


def status(machine: Machine, kernel: str) -> str:
    """Return what `ps` says on a machine that a kernel does."""
    infos = {info["name"]: info for info in json.loads(machine.cli("ps", "--json", check=False).stdout or "[]")}
    return str(infos[kernel]["status"]) if kernel in infos else "absent"


def check_released(cut: float, found: dict[str, tuple[float, Any]], *names: str) -> None:
    """Check that calls failed within the time promised, with an error that names the machine."""
    late = {name: (round(found[name][0] - cut, 2), found[name][1]) for name in names}
    for name in names:
        at, (outcome, text) = found[name]
        assert outcome in ("MachineLostError", "StateUnavailableError", "GatherError"), late
        assert "lab2" in text, late
        assert at - cut < RELEASED_SECONDS, late


def test_a_cable_pulled_in_the_middle_of_calls_releases_callers_and_loses_nothing(labs: Lab) -> None:
    first, second = labs.machines
    caller = Caller(
        first,
        """
parts = [bytes(130_000_000)] * 3  # one bytearray would be copied while it is cut, and nothing else runs meanwhile
with pk.connect() as mesh:
    cell = mesh["b1"].submit("import time; time.sleep(6); y = 7")
    mesh.shared.m["x"] = 1
    calls = at_once(
        execute=lambda: mesh["b0"].execute("import time; time.sleep(10)").status,
        reply=lambda: cell.reply().status,
        scatter=lambda: mesh["b*"].scatter("part", parts),
    )
    time.sleep(0.3)  # in the middle of it
    pause("begun")
    calls += at_once(
        call=lambda: mesh["b2"].call(max, [1, 2]),
        state=lambda: mesh.shared.m["x"],
        others=lambda: mesh["a0"].call(max, [1, 2]),
        ps=lambda: {info.name: info.status for info in mesh.ps()},
    )
    for call in calls:
        call.join()
    pause("over")
    attempt("again", lambda: [mesh[:].call(max, [1, 2]), mesh.shared.m["x"]])
    attempt("found", lambda: [mesh["b1"].cell(cell.id).reply().status, mesh["b1"].pull("y")])
""",
    )
    caller.hear("begun")
    cut = time.monotonic()
    second.unplug()
    caller.go_on()
    found = caller.hear_all("execute", "reply", "scatter", "call", "state", "others", "ps", "over")
    check_released(cut, found, "execute", "reply", "scatter", "call", "state")
    assert found["others"][1] == ["ok", 2]
    assert found["ps"][1] == ["ok", {"a0": "idle", "b0": "lost", "b1": "lost", "b2": "lost"}]
    assert found["ps"][0] - cut < RELEASED_SECONDS
    second.plug()
    wait_until(lambda: machines.reaches(first, second.address))
    time.sleep(2)  # what was found out by a dial holds so long
    caller.go_on()
    found = caller.hear_all("again", "found")
    assert found["found"][1] == ["ok", ["ok", 7]]
    assert found["again"][1][0] == "ok", found


def test_ps_on_a_machine_that_asks_for_the_first_time_tells_of_the_lost(labs: Lab) -> None:
    first, second = labs.machines
    second.unplug()
    begun = time.monotonic()
    listed = first.cli("ps", check=False)
    assert time.monotonic() - begun < RELEASED_SECONDS + 1  # it has to start, too
    assert listed.returncode != 0
    assert "host 'lab2' does not answer" in listed.stderr
    assert {"b0", "lost"} <= set(next(line for line in listed.stdout.splitlines() if line.startswith("b0")).split())


def test_a_kernel_that_waits_for_a_machine_that_vanishes_is_released_too(labs: Lab) -> None:
    first, second = labs.machines
    caller = Caller(
        first,
        """
with pk.connect() as mesh:
    mesh["a0"].execute("import pyrokernel as pk, time; mesh = pk.connect(); shared.m['x'] = 2")
    inside = '''
try:
    mesh["b0"].execute("import time; time.sleep(30)")
except Exception as error:
    told = type(error).__name__, str(error), time.monotonic()
try:
    shared.m["x"]
except Exception as error:
    state = type(error).__name__, str(error), time.monotonic()
'''
    cell = mesh["a0"].submit(inside)
    while not mesh["b0"].describe()["running"]:
        pass
    pause("begun")
    cell.reply()
    report("told", mesh["a0"].pull("told", "state"))
    pause("over")
    attempt("again", lambda: mesh["a0"].execute("mesh['b1'].call(max, [1, 2]); shared.m['x']").status)
""",
    )
    caller.hear("begun")
    cut = time.monotonic()
    second.unplug()
    caller.go_on()
    _, told = caller.hear("told")
    name, text, at = told[0]
    assert (name, at - cut < RELEASED_SECONDS, "lab2" in text) == ("MachineLostError", True, True), (told, cut)
    name, text, later = told[1]
    assert (name, later - cut < RELEASED_SECONDS, "lab2" in text) == ("StateUnavailableError", True, True), (told, cut)
    second.plug()
    wait_until(lambda: machines.reaches(first, second.address))
    time.sleep(2)  # as above
    caller.go_on()
    assert caller.hear("again")[1] == ["ok", "ok"]
    first.cli("interrupt", "b0")


def test_without_the_machine_of_the_name_server_known_kernels_are_reached_and_a_new_client_is_told(labs: Lab) -> None:
    first, second = labs.machines
    caller = Caller(
        second,
        """
with pk.connect() as mesh:
    mesh[:].call(max, [1, 2])
    known, lost = mesh["b0"], mesh["a0"]
    pause("begun")
    calls = at_once(
        known=lambda: known.call(max, [1, 2]),
        anew=lambda: mesh["b0"].call(max, [1, 2]),
        lost=lambda: lost.call(max, [1, 2]),
    )
    for call in calls:
        call.join()
    pause("over")
""",
    )
    caller.hear("begun")
    cut = time.monotonic()
    first.unplug()
    caller.go_on()
    found = caller.hear_all("known", "anew", "lost")
    assert found["known"][1] == found["anew"][1] == ["ok", 2]
    assert found["known"][0] - cut < 1
    assert found["anew"][0] - cut < RELEASED_SECONDS
    assert found["lost"][1][0] == "MachineLostError"
    assert found["lost"][0] - cut < RELEASED_SECONDS
    begun = time.monotonic()
    refused = second.cli("ps", check=False)
    assert refused.returncode != 0
    assert labs.ns in refused.stderr
    assert time.monotonic() - begun < RELEASED_SECONDS + 1


def test_a_receiver_that_does_not_read_for_long_is_not_taken_for_one_that_has_vanished(labs: Lab) -> None:
    first, _ = labs.machines
    result = first.python(
        """
        import pyrokernel as pk
        with pk.connect() as mesh:
            cell = mesh["b0"].submit("import time; time.sleep(7); n = globals().get('n', 0) + 1")
            size = mesh["b0"].call(len, bytes(60_000_000))  # waits behind the cell, in sockets that are full
            cell.reply()
            result = [size, mesh["b0"].pull("n")]
        """
    )
    assert result == [60_000_000, 1]


def test_names_come_back_when_the_name_server_does(labs: Lab) -> None:
    second = labs.machines[1]
    labs.stop_name_server()
    labs.start_name_server()
    expected = {"a0": "idle", "b0": "idle", "b1": "idle", "b2": "idle"}
    wait_until(lambda: {name: status(second, name) for name in expected} == expected, 30)


def test_kernels_outlive_a_host_that_is_killed_and_the_next_one_takes_them_over(labs: Lab) -> None:
    first, second = labs.machines
    pid = first.python(
        """
        import pyrokernel as pk
        with pk.connect() as mesh:
            mesh["b0"].execute("kept = 5")
            result = mesh.ask_host({host.name: host for host in mesh.hosts()}["lab2"], "describe")["pid"]
        """
    )
    second.run("kill", "-KILL", str(pid))
    assert first.python("import pyrokernel as pk; result = pk.connect()['b0'].pull('kept')") == 5
    labs.serve(second)
    assert first.python("import pyrokernel as pk; result = pk.connect()['b0'].pull('kept')") == 5
    assert status(first, "b0") == "idle"


def test_a_machine_without_power_is_lost_and_is_back_when_it_is_switched_on() -> None:
    with lab(["lab1", "lab2"]) as labs:
        first, second = labs.machines
        labs.serve(first, "--name", "a0")
        labs.serve(second, "--name", "b0")
        caller = Caller(
            first,
            """
with pk.connect() as mesh:
    calls = at_once(execute=lambda: mesh["b0"].execute("import time; time.sleep(60)").status)
    while not mesh["b0"].describe()["running"]:
        pass
    pause("begun")
    for call in calls:
        call.join()
""",
        )
        caller.hear("begun")
        cut = time.monotonic()
        second.switch_off()
        caller.go_on()
        check_released(cut, {"execute": caller.hear("execute")}, "execute")
        assert status(first, "b0") == "lost"
        again = labs.net.switch_on(second)
        labs.machines[1] = again
        labs.certify(again)
        labs.serve(again, "--name", "b0")
        assert status(first, "b0") == "idle"
        assert first.python("import pyrokernel as pk; result = pk.connect()['b0'].call(max, [1, 2])") == 2


def test_several_machines_that_are_lost_at_once_cost_one_wait() -> None:
    with lab(("lab1", "lab2", "lab3", "lab4")) as found:
        first, *others = found.machines
        for machine in found.machines:
            found.serve(machine, "--name", f"{machine.name}-k")
        for machine in others:
            machine.unplug()
        begun = time.monotonic()
        listed = json.loads(first.cli("ps", "--json", check=False).stdout)
        assert time.monotonic() - begun < RELEASED_SECONDS + 1  # it has to start, too
        assert [info["status"] for info in listed] == ["idle", "lost", "lost", "lost"]
        begun = time.monotonic()
        findings = json.loads(first.cli("doctor", "--json", check=False).stdout)["findings"]
        assert time.monotonic() - begun < RELEASED_SECONDS + 1
        hosts = [(finding["level"], finding["text"].split()[0]) for finding in findings if finding["about"] == "host"]
        assert sorted(hosts) == [("ok", "lab1"), ("wrong", "lab2"), ("wrong", "lab3"), ("wrong", "lab4")]
