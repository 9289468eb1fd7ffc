"""The supervisor, without a process: what it does about births, deaths, requests, and what earlier hosts left."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import types
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.errors import (
    AccessRefusedError,
    HostError,
    KernelNotFoundError,
    NameServerNotFoundError,
    NameTakenError,
    SettingsError,
)
from pyrokernel.host import lifecycle, supervisor
from pyrokernel.host.deaths import DeathLog
from pyrokernel.host.launch import Launch
from pyrokernel.host.lifecycle import Situation
from pyrokernel.host.places import Places
from pyrokernel.host.policy import MAX_DEATHS, PAUSES_SECONDS, Ending
from pyrokernel.host.supervisor import Supervisor
from pyrokernel.loop import Timer
from pyrokernel.messages import START_SECONDS, Death, KernelInfo, KernelSpec
from pyrokernel.settings import Settings

KILLED = Ending(signal=signal.SIGKILL, peak_memory_bytes=1)
DONE = Ending(exit_code=0, peak_memory_bytes=1)


class FakeLoop:
    """Time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Timer]] = []

    def watch(self, source: object, callback: Callable[[], object]) -> None: ...

    def unwatch(self, source: object) -> None: ...

    def call(self, callback: Callable[[], object]) -> None:
        callback()

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(callback)
        self.timers.append((self.now + seconds, timer))
        return timer

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for at, timer in self.timers if at <= self.now]
        self.timers = [(at, timer) for at, timer in self.timers if at > self.now]
        for timer in due:
            if timer.callback is not None:
                timer.callback()


class FakeProcesses:
    """The operating system: remembers who was signalled; `endings` says how processes end."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.endings: dict[int, Ending] = {}
        self.signals: list[tuple[int, int]] = []
        self.swept: list[int] = []
        self.listeners: dict[str, int] = {}
        self.foreign: set[int] = set()

    def ProcessWatch(self, pid: int) -> Any:  # stands for the class
        if pid not in self.alive:
            raise ProcessLookupError(pid)
        return types.SimpleNamespace(close=lambda: None)

    def send_signal(self, pid: int, number: int) -> None:
        self.signals.append((pid, int(number)))

    def interrupt(self, pid: int) -> None:
        self.signals.append((pid, int(signal.SIGINT)))

    def ask_to_end(self, pid: int) -> None:
        self.signals.append((pid, int(signal.SIGTERM)))

    def collect(self, pid: int) -> Ending:
        return self.endings.pop(pid, Ending())

    def kill_sessions(self, leaders: dict[int, int]) -> None:
        self.swept += leaders

    def kill_unknown_births(self, except_pids: Collection[int] = ()) -> None:
        self.alive.clear()

    def start_time(self, pid: int) -> int:
        return pid * 10 if pid in self.alive else 0

    def is_same(self, pid: int, started: int) -> bool:
        return pid in self.alive and started == pid * 10

    def listener_pid(self, path: str) -> int:
        return self.listeners.get(path, 0)

    def is_child(self, pid: int) -> bool:
        return pid not in self.foreign

    def ended_children(self) -> list[int]:
        return sorted(self.endings)


class FakeNames:
    """Names that are registered at once, unless the test has something against it."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.error: Exception | None = None

    def announce(self, kernel: KernelInfo, role: str) -> Future[None]:
        done: Future[None] = Future()
        if self.error is not None:
            done.set_exception(self.error)
        else:
            self.held[kernel.name] = kernel.instance
            done.set_result(None)
        return done

    def withdraw(self, kernel: str, instance: str, role: str) -> Future[None]:
        if self.held.get(kernel) == instance:
            del self.held[kernel]
        done: Future[None] = Future()
        done.set_result(None)
        return done


class World:
    """A supervisor with everything around it faked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes = FakeProcesses()
        monkeypatch.setattr(lifecycle, "processes", self.processes)
        monkeypatch.setattr(supervisor, "processes", self.processes)
        self.loop = FakeLoop()
        self.places = Places.of(Settings(runtime_dir=str(folder / "r"), state_dir=str(folder / "s")))
        self.places.create()
        self.names = FakeNames()
        self.launches: list[Launch] = []
        self.next_pid = 100
        self.begin()

    def begin(self) -> None:
        """Start a host, the first one or the next."""
        self.deaths = DeathLog(self.places.deaths)
        launcher: Any = types.SimpleNamespace(launch=self.launches.append, give_up=Launch.failed)
        loop: Any = self.loop
        situation = Situation(mesh="m", host="h", ns="n", lifeline_fd=-1, environ={}, extra_environ={})
        self.supervisor = Supervisor(loop, launcher, self.places, self.deaths, situation)
        self.supervisor.attach(self.names)

    def launch_of(self, name: str) -> Launch:
        """The latest launch of a kernel."""
        return next(launch for launch in reversed(self.launches) if launch.birth.spec["name"] == name)

    def bear(self, name: str) -> int:
        """Give a launched kernel a process."""
        self.next_pid += 1
        self.processes.alive.add(self.next_pid)
        self.launch_of(name).born(self.next_pid)
        return self.next_pid

    def report(self, name: str, **fields: Any) -> None:
        """Let a kernel say that it is ready, or why not."""
        self.launch_of(name)._on_ready({"ok": True, "uri": f"uri of {name}", **fields})

    def raise_kernel(self, name: str) -> int:
        """Bring a launched kernel all the way to ready."""
        pid = self.bear(name)
        self.report(name)
        return pid

    def start(self, *names: str, **fields: Any) -> list[KernelInfo]:
        """Start kernels, all the way to ready."""
        futures = self.supervisor.start([KernelSpec(name=name, **fields) for name in names])
        for name in names:
            self.raise_kernel(name)
        return [future.result(0) for future in futures]

    def die(self, pid: int, ending: Ending = KILLED) -> None:
        """Let a process end."""
        self.processes.alive.discard(pid)
        self.processes.endings[pid] = ending
        self.supervisor.reap()

    def info(self, name: str) -> KernelInfo:
        return next(info for info in self.supervisor.kernels() if info.name == name)

    def all_deaths(self) -> list[Death]:
        return self.deaths.after(0, 0)[1]

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.places.records / f"{name}.json").read_text())
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


# Births


def test_a_kernel_is_there_when_it_is_ready_and_has_its_name(world: World) -> None:
    (future,) = world.supervisor.start([KernelSpec(name="k0", tags=("t",))])
    assert world.info("k0").status == "starting"
    world.bear("k0")
    assert not future.done()
    world.report("k0")
    assert future.result(0) == world.info("k0")
    assert (world.info("k0").status, world.info("k0").uri, world.info("k0").tags) == ("idle", "uri of k0", ("t",))
    assert world.names.held == {"k0": world.info("k0").instance}


def test_a_kernel_that_cannot_be_recorded_runs_all_the_same(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.places.records.rmdir()
    world.places.records.write_text("in the way")
    assert [info.status for info in world.start("k0")] == ["idle"]
    assert "cannot record kernel k0" in caplog.text


def test_a_kernel_is_on_record_before_it_is_born(world: World) -> None:
    world.supervisor.start([KernelSpec(name="k0")])
    assert (world.record("k0")["pid"], world.record("k0")["uri"]) == (0, "")
    pid = world.bear("k0")
    assert (world.record("k0")["pid"], world.record("k0")["uri"]) == (pid, "")
    world.report("k0")
    assert world.record("k0")["uri"] == "uri of k0"


def test_kernels_that_were_quicker_than_the_name_server_are_announced_then(world: World, tmp_path: Path) -> None:
    names, world.names = world.names, FakeNames()
    world.supervisor._cycle._names = None
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    world.raise_kernel("k0")
    assert not future.done()
    world.supervisor.attach(names)
    assert future.done()
    assert "k0" in names.held


def test_all_specs_are_checked_before_one_is_started(world: World) -> None:
    world.start("k0")
    with pytest.raises(NameTakenError):
        world.supervisor.start([KernelSpec(name="k1"), KernelSpec(name="k0")])
    with pytest.raises(SettingsError):
        world.supervisor.start([KernelSpec(name="k1"), KernelSpec(name="no good")])
    assert [info.name for info in world.supervisor.kernels()] == ["k0"]


def test_processors_are_shared_by_all_that_are_started_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    world.supervisor.start([KernelSpec(name=f"k{number}") for number in range(4)])
    assert {launch.birth.spec["env"]["OMP_NUM_THREADS"] for launch in world.launches} == {"2"}


def test_a_first_start_that_fails_is_told_and_not_tried_again(world: World) -> None:
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    pid = world.bear("k0")
    world.report("k0", ok=False, error="FileNotFoundError", message="no such directory: /data", fields={})
    world.die(pid, Ending(exit_code=1))
    with pytest.raises(HostError, match="no such directory: /data"):
        future.result(0)
    assert world.supervisor.kernels() == []
    assert len(world.launches) == 1
    assert not (world.places.records / "k0.json").exists()


def test_a_kernel_that_never_was_is_told_too(world: World) -> None:
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    world.launch_of("k0").failed(HostError("preloading nonumpy failed"))
    with pytest.raises(HostError, match="nonumpy"):
        future.result(0)
    assert world.supervisor.kernels() == []


def test_a_kernel_that_hangs_on_its_way_is_killed(world: World) -> None:
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    pid = world.bear("k0")
    world.loop.pass_time(START_SECONDS)
    assert (pid, signal.SIGKILL) in world.processes.signals
    world.die(pid)
    with pytest.raises(HostError, match="not ready within 30 s"):
        future.result(0)


def test_a_kernel_born_too_late_is_killed(world: World) -> None:
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    launch = world.launch_of("k0")
    world.loop.pass_time(START_SECONDS)
    with pytest.raises(HostError, match="not ready within 30 s"):
        future.result(0)
    assert launch.over
    world.processes.alive.add(7)
    launch.born(7)
    assert (7, signal.SIGKILL) in world.processes.signals


def test_a_taken_name_ends_the_kernel_that_wanted_it(world: World) -> None:
    world.names.error = NameTakenError(name="k0", holder="somebody")
    (future,) = world.supervisor.start([KernelSpec(name="k0")])
    pid = world.raise_kernel("k0")
    assert (pid, signal.SIGKILL) in world.processes.signals
    world.die(pid)
    with pytest.raises(NameTakenError):
        future.result(0)


def test_without_a_name_server_a_kernel_runs_all_the_same(world: World) -> None:
    world.names.error = NameServerNotFoundError("gone")
    assert [info.status for info in world.start("k0")] == ["idle"]


# Deaths


def test_a_death_is_recorded_announced_and_followed_by_a_fresh_instance(world: World) -> None:
    (before,) = world.start("k0")
    world.die(before.pid, Ending(signal=signal.SIGSEGV, peak_memory_bytes=5))
    (death,) = world.all_deaths()
    assert (death.kernel, death.instance, death.signal, death.peak_memory_bytes) == ("k0", before.instance, 11, 5)
    assert not death.asked
    world.raise_kernel("k0")
    after = world.info("k0")
    assert (after.instance, after.restarts, after.status) == (death.successor, 1, "idle")
    assert world.names.held == {"k0": after.instance}


def test_a_death_is_announced_before_the_restart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (info,) = world.start("k0")
    known = len(world.launches)
    counts: list[int] = []
    append = world.deaths.append
    monkeypatch.setattr(world.deaths, "append", lambda death: (counts.append(len(world.launches)), append(death)))
    world.die(info.pid)
    assert counts == [known]
    assert len(world.launches) == known + 1


def test_what_is_left_of_a_dead_kernel_is_killed(world: World) -> None:
    (info,) = world.start("k0")
    world.die(info.pid)
    assert (info.pid, signal.SIGKILL) in world.processes.signals, "its group"
    assert info.pid in world.processes.swept, "its session"


def test_the_restart_policy_is_kept(world: World) -> None:
    (info,) = world.start("k0", restart="never")
    world.die(info.pid)
    assert (world.info("k0").status, world.info("k0").pid) == ("dead", 0)
    assert "SIGKILL" in world.info("k0").cause
    assert world.names.held == {}
    assert not (world.places.records / "k0.json").exists()


def test_a_kernel_that_keeps_dying_is_given_up(world: World) -> None:
    world.start("k0")
    for number in range(MAX_DEATHS):
        world.die(world.info("k0").pid)
        world.loop.pass_time(2)
        world.raise_kernel("k0")
        assert world.info("k0").restarts == number + 1
    world.die(world.info("k0").pid)
    world.loop.pass_time(60)
    assert world.info("k0").status == "dead"
    assert "given up" in world.info("k0").cause
    future = world.supervisor.restart(["k0"])
    world.raise_kernel("k0")
    assert future.result(0)[0].status == "idle"


def test_a_restart_that_fails_is_tried_again(world: World) -> None:
    (info,) = world.start("k0")
    world.die(info.pid)
    world.die(world.bear("k0"), Ending(exit_code=1))
    world.raise_kernel("k0")
    assert world.info("k0").status == "idle"
    assert world.info("k0").restarts == 2


def test_how_a_kernel_died_is_known_also_where_it_is_not_the_hosts_child_yet(world: World) -> None:
    """The process between it and its template may be slower to end than the kernel is to start, and to die."""
    (info,) = world.start("k0")
    world.processes.foreign.add(info.pid)
    kernel = world.supervisor._kernels["k0"]
    world.supervisor._cycle.on_end(kernel, kernel.life)  # the descriptor of the process tells of it
    assert world.all_deaths() == []
    world.processes.foreign.clear()
    world.die(info.pid)  # SIGCHLD comes
    (death,) = world.all_deaths()
    assert "SIGKILL" in death.cause


def test_orphans_of_kernels_are_collected(world: World) -> None:
    world.start("k0")
    world.die(4711, DONE)
    assert world.processes.endings == {}
    assert world.all_deaths() == []


def test_nothing_is_brought_back_when_the_client_is_gone(world: World) -> None:
    read_end, write_end = os.pipe()
    cycle = world.supervisor._cycle
    cycle._situation = dataclasses.replace(cycle._situation, lifeline_fd=read_end)
    first, second = world.start("k0", "k1")
    world.die(first.pid)
    assert world.info("k0").status == "starting"
    os.close(write_end)
    world.die(second.pid)
    assert world.info("k1").restarts == 0
    assert second.pid in world.processes.endings, "not collected, so that its number cannot be another's when all end"
    world.supervisor.kill_all()
    assert world.supervisor.kernels() == []
    assert world.processes.endings == {}
    os.close(read_end)


# Requests


def test_stop_asks_and_waits_for_the_end(world: World) -> None:
    (info,) = world.start("k0")
    future = world.supervisor.stop(["k0"])
    assert world.processes.signals == [(info.pid, signal.SIGTERM)]
    assert not future.done()
    world.die(info.pid, DONE)
    (death,) = future.result(0)
    assert (death.asked, death.exit_code, death.successor) == (True, 0, "")
    assert world.supervisor.kernels() == []
    assert world.names.held == {}


def test_stop_kills_what_does_not_listen(world: World) -> None:
    (info,) = world.start("k0")
    world.supervisor.stop(["k0"], timeout=5.0)
    world.loop.pass_time(5.0)
    assert world.processes.signals[-1] == (info.pid, signal.SIGKILL)


def test_stop_of_a_dead_kernel_returns_how_it_died(world: World) -> None:
    (info,) = world.start("k0", restart="never")
    world.die(info.pid)
    (death,) = world.supervisor.stop(["k0"]).result(0)
    assert death.signal == signal.SIGKILL
    assert world.supervisor.kernels() == []


def test_stop_calls_off_a_restart_that_waits(world: World) -> None:
    world.start("k0")
    for _ in range(3):
        world.die(world.info("k0").pid)
        if world.info("k0").status != "dead":
            world.raise_kernel("k0")
    launched = len(world.launches)
    world.supervisor.stop(["k0"]).result(0)
    world.loop.pass_time(60)
    assert len(world.launches) == launched


def test_stop_of_an_unborn_kernel_kills_it_at_birth(world: World) -> None:
    (started,) = world.supervisor.start([KernelSpec(name="k0")])
    stopped = world.supervisor.stop(["k0"])
    pid = world.bear("k0")
    assert (pid, signal.SIGKILL) in world.processes.signals
    world.die(pid)
    assert stopped.result(0)[0].asked
    assert isinstance(started.exception(0), HostError)
    assert world.supervisor.kernels() == []


def test_an_unknown_name_stops_nothing(world: World) -> None:
    world.start("k0")
    with pytest.raises(KernelNotFoundError, match="k9"):
        world.supervisor.stop(["k0", "k9"])
    assert world.processes.signals == []


def test_restart_gives_a_fresh_instance_whatever_the_policy(world: World) -> None:
    (before,) = world.start("k0", restart="never")
    future = world.supervisor.restart(["k0"])
    assert world.processes.signals == [(before.pid, signal.SIGTERM)]
    world.die(before.pid, DONE)
    world.raise_kernel("k0")
    (after,) = future.result(0)
    assert after.instance != before.instance
    assert world.all_deaths()[0].successor == after.instance


def test_a_protected_kernel_is_restarted_only_by_force(world: World) -> None:
    (info,) = world.start("k0", protected=True)
    with pytest.raises(AccessRefusedError, match="protected"):
        world.supervisor.restart(["k0"])
    world.supervisor.restart(["k0"], force=True)
    assert world.processes.signals == [(info.pid, signal.SIGKILL)]


def test_a_stop_is_the_last_word(world: World) -> None:
    (info,) = world.start("k0")
    restarted = world.supervisor.restart(["k0"])
    world.supervisor.stop(["k0"])
    world.die(info.pid)
    assert world.supervisor.kernels() == []
    assert isinstance(restarted.exception(0), HostError)


def test_signals_reach_only_the_instance_that_is_meant(world: World) -> None:
    (info,) = world.start("k0")
    Path(world.launch_of("k0").birth.journal_dir).mkdir(parents=True)
    assert world.supervisor.send_signal("k0", info.instance, signal.SIGINT, "cell 7")
    assert world.processes.signals == [(info.pid, signal.SIGINT)]
    assert Path(world.launch_of("k0").birth.journal_dir, "interrupt").read_text() == "cell 7"
    assert not world.supervisor.send_signal("k0", "another", signal.SIGINT)
    assert not world.supervisor.send_signal("k9", info.instance, signal.SIGINT)
    with pytest.raises(HostError, match="SIGINT and SIGKILL"):
        world.supervisor.send_signal("k0", info.instance, signal.SIGTERM)


def test_an_interrupt_arrives_also_when_the_cell_cannot_be_named(world: World) -> None:
    (info,) = world.start("k0")
    assert not Path(world.launch_of("k0").birth.journal_dir).exists()
    assert world.supervisor.send_signal("k0", info.instance, signal.SIGINT, "cell 7")
    assert world.processes.signals == [(info.pid, signal.SIGINT)]


def test_a_kill_that_was_asked_for_does_not_count_against_the_kernel(world: World) -> None:
    world.start("k0", restart="never")
    for _ in range(MAX_DEATHS + 3):
        info = world.info("k0")
        assert world.supervisor.send_signal("k0", info.instance, signal.SIGKILL)
        world.die(info.pid)
        world.raise_kernel("k0")
    assert all(death.asked for death in world.all_deaths())


def test_the_successor_of_a_dead_instance_can_be_awaited(world: World) -> None:
    (before,) = world.start("k0")
    world.die(before.pid)
    future = world.supervisor.successor("k0", before.instance)
    assert not future.done()
    world.raise_kernel("k0")
    assert future.result(0).instance != before.instance
    assert world.supervisor.successor("k0", before.instance).result(0) == world.info("k0")


def _kernel_whose_restart_waits(world: World) -> KernelInfo:
    """Let a kernel die until there is a pause before its next life; return the last one."""
    world.start("k0")
    for _ in range(PAUSES_SECONDS.count(0.0)):
        world.die(world.info("k0").pid)
        world.raise_kernel("k0")
    last = world.info("k0")
    world.die(last.pid)
    assert world.info("k0").status == "dead"
    return last


def test_whoever_waits_for_a_restart_that_waits_is_told_when_the_kernel_is_stopped(world: World) -> None:
    before = _kernel_whose_restart_waits(world)
    future = world.supervisor.successor("k0", before.instance)
    world.supervisor.stop(["k0"]).result(0)
    with pytest.raises(KernelNotFoundError, match="'k0' was stopped"):
        future.result(0)


def test_whoever_waits_for_a_restart_that_waits_gets_the_kernel_that_is_started_meanwhile(world: World) -> None:
    before = _kernel_whose_restart_waits(world)
    future = world.supervisor.successor("k0", before.instance)
    (after,) = world.start("k0")
    assert future.result(0) == after


# Hosts that follow each other


def test_the_next_host_adopts_the_living(world: World) -> None:
    (info,) = world.start("k0")
    world.begin()
    (future,) = world.supervisor.adopt()
    assert future.result(0) == info
    assert world.supervisor.is_adopted("k0")
    world.processes.alive.clear()
    world.processes.ProcessWatch = None  # type: ignore[method-assign, assignment]
    world.supervisor._cycle.on_end(*_present(world))
    (death,) = world.all_deaths()
    assert (death.signal, death.exit_code) == (None, None), "not a child: nobody could collect it"
    assert world.launch_of("k0").birth.instance == death.successor


def test_the_next_host_replaces_a_gateway_that_goes_by_other_settings(world: World) -> None:
    told = {"PYROKERNEL_LISTEN": "127.0.0.1:9191", "PYROKERNEL_POLICY": "/etc/policy.toml"}
    world.supervisor.start_gateway(told)
    pid = world.raise_kernel("~gateway")
    world.begin()
    world.supervisor.adopt()
    world.supervisor.start_gateway(dict(told)).result(0)
    assert world.processes.signals == []
    changed = {**told, "PYROKERNEL_POLICY": "/home/ana/policy.toml"}
    ready = world.supervisor.start_gateway(changed)
    assert world.processes.signals == [(pid, signal.SIGKILL)]
    world.processes.alive.discard(pid)
    world.supervisor._cycle.on_end(*_present(world, "~gateway"))
    assert changed.items() <= world.launch_of("~gateway").birth.spec["env"].items()
    world.raise_kernel("~gateway")
    assert ready.result(0).pid == world.next_pid


def _present(world: World, name: str = "k0") -> Any:
    kernel = world.supervisor._kernels[name]
    return kernel, kernel.life


def test_the_next_host_tells_of_the_dead_and_restarts_them(world: World) -> None:
    (info,) = world.start("k0")
    world.processes.alive.clear()
    world.begin()
    (future,) = world.supervisor.adopt()
    (death,) = world.all_deaths()
    assert (death.instance, death.cause) == (info.instance, "died while no host watched")
    world.raise_kernel("k0")
    assert future.result(0).restarts == 1


def test_a_number_that_belongs_to_another_process_by_now_is_not_adopted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (info,) = world.start("k0")
    monkeypatch.setattr(world.processes, "is_same", lambda pid, started: False)
    world.begin()
    world.supervisor.adopt()
    assert world.all_deaths()[0].instance == info.instance


def test_a_dead_kernel_that_is_declared_anew_is_not_restarted_twice(world: World) -> None:
    world.start("k0")
    world.processes.alive.clear()
    world.begin()
    launched = len(world.launches)
    world.supervisor.adopt(except_names=["k0"])
    assert len(world.launches) == launched
    world.start("k0")
    assert world.info("k0").restarts == 0


def test_a_kernel_whose_host_died_before_its_report_is_replaced(world: World) -> None:
    world.supervisor.start([KernelSpec(name="k0")])
    pid = world.bear("k0")
    world.begin()
    world.supervisor.adopt()
    assert (pid, signal.SIGKILL) in world.processes.signals


def test_a_kernel_whose_host_died_before_its_birth_is_found_by_its_socket(world: World) -> None:
    world.supervisor.start([KernelSpec(name="k0")])
    world.processes.alive.add(55)
    world.processes.listeners[world.record("k0")["socket"]] = 55
    world.begin()
    world.supervisor.adopt()
    assert (55, signal.SIGKILL) in world.processes.signals


def test_the_end_of_a_private_mesh_kills_all_at_once(world: World) -> None:
    infos = world.start("k0", "k1")
    world.supervisor.kill_all()
    assert {pid for pid, _ in world.processes.signals} == {info.pid for info in infos}
    assert sorted(world.processes.swept) == sorted(info.pid for info in infos)
    assert world.supervisor.kernels() == []
    assert list(world.places.records.iterdir()) == []
