"""The record of who did what, over real hosts and kernels: kept through kills, joined, and told to admins."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from acting import acting
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.errors import AccessRefusedError
from pyrokernel.messages import HOST_OBJECT
from pyrokernel.roles import Role

Served = Any  # tests/process/conftest.py


def records(served: Served, *words: str) -> list[dict[str, Any]]:
    """Return what `pyrokernel audit --json` says."""
    return [json.loads(line) for line in served.cli("audit", "--json", *words).stdout.splitlines()]


def told(served: Served, what: str, *words: str) -> list[dict[str, Any]]:
    """Return those of one kind."""
    return [record for record in records(served, *words) if record["what"] == what]


def test_who_ran_what_where_is_on_record_whatever_is_killed(served: Served) -> None:
    me = os.environ.get("USER") or "root"
    with served.connect() as mesh:
        me = mesh["k0"].execute("import getpass; getpass.getuser()").result
        (info,) = [one for one in mesh.ps() if one.name == "k0"]
        with acting(info.uri, Role.USER, user="bob", address="10.0.0.9:7") as bob:
            bob.ask("execute", "x = 1\nprint('\x1b]0;owned\x07')")
        with acting(info.uri, Role.OBSERVER, user="eve") as eve, pytest.raises(AccessRefusedError):
            eve.ask("execute", "import os")
        mesh["k0"].submit("import time; time.sleep(60)")
        wait_until(lambda: mesh["k0"].describe()["running"])
        os.kill(info.pid, signal.SIGKILL)
        wait_until(lambda: info.instance not in {one.instance for one in mesh.ps()})
    cells = told(served, "cell", "--kernel", "k0")
    assert [one["user"] for one in cells] == [me, "bob", me]
    assert cells[1]["via"] == "10.0.0.9:7"
    assert cells[1]["status"] == "ok"
    assert cells[1]["instance"] == info.instance
    assert "status" not in cells[2]
    assert told(served, "refused")[0]["user"] == "eve"
    assert told(served, "refused")[0]["asked"] == "execute"
    (death,) = told(served, "death", "--kernel", "k0")
    assert death["cell"] == cells[2]["cell"]

    os.kill(served.host_pid(), signal.SIGKILL)
    without = served.cli("audit", "--json")
    assert [one for line in without.stdout.splitlines() if (one := json.loads(line)).get("user") == "bob"]
    assert "from the file of this machine" in without.stderr
    served.serve("-n", "2")
    with served.connect() as mesh:
        mesh["k1"].execute("'after'")
        mesh.restart(["k1"])
        mesh["k1"].ship("x = 1\n", name="lab")
        mesh["k1"].unship("lab")
    again = told(served, "cell")
    assert [one["source"] for one in again if one["user"] == "bob"] == [cells[1]["source"]], "it is told once"
    assert "'after'" in [one["source"] for one in again]
    assert told(served, "restart")[-1]["kernels"] == ["k1"]
    assert told(served, "restart")[-1]["user"] == me
    for what in ("keep", "drop"):
        (shipped,) = told(served, what)
        assert (shipped["user"], shipped["modules"], shipped["kernels"]) == (me, ["lab"], ["k1"])

    shown = served.cli("audit", "--user", "bob").stdout
    assert "bob (10.0.0.9:7)" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert served.cli("audit", "--user", "nobody-here").stdout == ""


def test_calls_by_the_thousand_are_a_few_lines(served: Served) -> None:
    with served.connect() as mesh:
        kernel = mesh["k0"]
        kernel.push(f=len)
        for _ in range(2000):
            kernel.call("len", [1])
    calls = [one for one in told(served, "cell") if one["source"] == "len(...)"]
    assert sum(one.get("count", 1) for one in calls) == 2000
    assert len(calls) < 50


def test_writes_to_the_shared_state_are_told_beside(served: Served) -> None:
    with served.connect() as mesh:
        mesh["k0"].execute("1")
        mesh.shared.m["calibration"] = 7
        mesh.shared["project"].m["x"] = 1
    found = records(served, "--state")
    assert [one["source"] for one in found if one["what"] == "state"] == ["set calibration", "set project: x"]
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    with served.connect() as mesh:
        (info,) = [one for one in mesh.ps() if one.name == "k0"]
        with acting(info.uri, Role.USER, user="bob") as bob:
            bob.ask("execute", "shared.m['by'] = 'bob'")
    (write,) = [one for one in records(served, "--state", "--user", "bob") if one["what"] == "state"]
    assert (write["source"], write["kernel"]) == ("set by", "k0")


def test_only_admins_read_it(served: Served) -> None:
    with served.connect() as mesh:
        uri = f"PYRO:{HOST_OBJECT}@./u:{mesh.settings.host_socket}"
        with acting(uri, Role.USER) as user, pytest.raises(AccessRefusedError, match="takes an admin"):
            user.ask("audit", {})
        assert list(mesh.audit(user="nobody")) == []


def test_a_flood_by_one_user_leaves_the_speed_of_the_others(served_at: Any, places: dict[str, str]) -> None:
    """Of two threads that ask as fast as they can the one that is limited makes room for the other."""
    served = served_at({**places, "user_requests": "50"}, "-n", "1")
    with served.connect() as mesh:
        (info,) = mesh.ps()

        def speed(seconds: float = 2.0) -> float:
            with acting(info.uri, Role.ADMIN, user="ana", address="") as ana:
                count, end = 0, time.perf_counter() + seconds
                while time.perf_counter() < end:
                    ana.ask("complete", "im", -1)
                    count += 1
            return count / seconds

        alone = speed()
        done, asked = threading.Event(), [0]

        def flood() -> None:
            with acting(info.uri, Role.USER, user="mallory") as mallory:
                while not done.is_set():
                    try:
                        mallory.ask("complete", "im", -1)
                    except AccessRefusedError as error:
                        assert "user_requests" in str(error)  # noqa: PT017  both are right
                    asked[0] += 1

        threads = [threading.Thread(target=flood) for _ in range(8)]
        for thread in threads:
            thread.start()
        beside = max(speed() for _ in range(3))  # what else the machine does only slows it down
        done.set()
        for thread in threads:
            thread.join()
    assert asked[0] > 0
    assert beside > 0.25 * alone, f"{beside:.0f} requests a second beside a flood, {alone:.0f} alone"


def test_a_user_with_too_many_connections_is_told(served_at: Any, places: dict[str, str]) -> None:
    served = served_at({**places, "user_connections": "3"}, "-n", "1")
    with served.connect() as mesh:
        (info,) = mesh.ps()
        with acting(info.uri, Role.USER) as one, acting(info.uri, Role.USER), acting(info.uri, Role.USER):
            one.ask("ping")
            with (
                pytest.raises(ConnectionRefusedError, match="user_connections"),
                acting(info.uri, Role.USER, codec="serpent"),
            ):
                pass
            with acting(info.uri, Role.USER, user="bob") as bob:
                assert bob.ask("ping") == info.instance
        assert isinstance(mesh["k0"], pk.Kernel)


def test_who_interrupts_what_another_runs_is_on_record(served: Served) -> None:
    with served.connect() as mesh:
        kernel = mesh["k0"]
        me = kernel.execute("import getpass; getpass.getuser()").result
        (info,) = [one for one in mesh.ps() if one.name == "k0"]
        for by_another in (False, True):
            cell = kernel.submit("import time; time.sleep(60)")
            wait_until(lambda: kernel.describe()["running"])
            if by_another:
                with acting(info.uri, Role.USER, user="bob") as bob:
                    assert bob.ask("interrupt", cell.id, 5.0)["outcome"] == "interrupted"
            else:
                assert cell.interrupt(wait=5.0).outcome == "interrupted"
    (interrupt,) = told(served, "interrupt")
    assert (interrupt["user"], interrupt["of"], interrupt["cell"]) == ("bob", me, cell.id)
