"""Starts, watches, restarts, stops and adopts kernels. Runs in the host's main thread, as callbacks of its loop.

Nothing here waits: what takes time comes back as a callback, and callers get futures.
What to do about a death is decided by `policy`; the order here is always the same:
collect, kill what is left of the kernel, record, announce, and only then restart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from pyrokernel.errors import HostError, KernelNotFoundError, NameTakenError, error_from_wire
from pyrokernel.host import policy, processes
from pyrokernel.host.deaths import DeathLog, examine
from pyrokernel.host.launch import Launch, Launcher
from pyrokernel.host.lives import Kernel, Life
from pyrokernel.host.loop import Loop, gather, resolve
from pyrokernel.host.places import Places
from pyrokernel.host.policy import Asked, Ending
from pyrokernel.host.registry import Record, Registry
from pyrokernel.messages import Death, KernelBirth, KernelInfo, KernelSpec, KernelStatus, new_instance_id

log = logging.getLogger(__name__)

START_SECONDS = 30.0
"""How long a kernel may take to say that it is ready; its init file runs after that."""
STOP_SECONDS = 5.0


class NameKeeper(Protocol):
    """Tells the name server about instances (`names.Announcer`)."""

    def announce(self, kernel: KernelInfo) -> Future[None]:
        """Register the name of an instance."""

    def withdraw(self, kernel: str, instance: str) -> None:
        """Remove the name of an instance that is gone."""


@dataclasses.dataclass(frozen=True)
class Situation:
    """What all kernels of a host have in common.

    Attributes:
        mesh, host, ns: Names of the mesh and the machine, address of the name server.
        lifeline_fd: Handed to each kernel of a private mesh; -1 for none.
        environ: The host's environment.
        extra_environ: What each kernel gets besides: the settings, so that `connect()` in it finds this mesh.
    """

    mesh: str
    host: str
    ns: str
    lifeline_fd: int
    environ: Mapping[str, str]
    extra_environ: Mapping[str, str]


class Supervisor:
    """The kernels of this machine; all methods belong to the loop's thread."""

    def __init__(self, loop: Loop, launcher: Launcher, places: Places, deaths: DeathLog, situation: Situation) -> None:
        self._loop = loop
        self._launcher = launcher
        self._places = places
        self._deaths = deaths
        self._situation = situation
        self._registry = Registry(places.records)
        self._kernels: dict[str, Kernel] = {}
        self._names: NameKeeper | None = None
        self._unannounced: list[tuple[Kernel, Life]] = []
        self._sharing = 1

    # What callers ask for

    def kernels(self) -> list[KernelInfo]:
        """Describe all kernels, in the order they were first started."""
        return [kernel.info() for kernel in self._kernels.values()]

    def start(self, specs: Sequence[KernelSpec]) -> list[Future[KernelInfo]]:
        """Start kernels; each future has the kernel once it is ready and its name is registered.

        Raises:
            NameTakenError: A living kernel has one of the names; none is started.
            SettingsError: A spec cannot be used; none is started.
        """
        for spec in specs:
            policy.check_spec(spec)
        policy.check_new_names(specs, {kernel.name: kernel.life.instance for kernel in self._living()})
        self._sharing = len({*self._kernels, *(spec.name for spec in specs)})
        futures = []
        for spec in specs:
            if spec.name in self._kernels:
                self._forget(self._kernels[spec.name])
            kernel = Kernel(spec=spec, life=self._new_life(spec))
            self._kernels[spec.name] = kernel
            futures.append(self._ready(kernel))
            self._begin(kernel, kernel.life)
        return futures

    def stop(self, names: Iterable[str], timeout: float = STOP_SECONDS) -> Future[list[Death]]:
        """End kernels for good: ask, and kill those that have not ended in time.

        Raises:
            KernelNotFoundError: There is no kernel of one of the names; none is stopped.
        """
        return gather([self._stop_one(kernel, timeout) for kernel in self._find(names)])

    def restart(
        self, names: Iterable[str], *, force: bool = False, timeout: float = STOP_SECONDS
    ) -> Future[list[KernelInfo]]:
        """Give kernels a fresh instance; `force` kills at once, and is the yes that protected kernels need.

        Raises:
            KernelNotFoundError: There is no kernel of one of the names; none is restarted.
            HostError: One of them is protected and `force` is not given; none is restarted.
        """
        kernels = self._find(names)
        for kernel in kernels:
            if kernel.spec.protected and kernel.alive and not force:
                raise HostError(f"kernel {kernel.name!r} is protected; to lose its variables all the same, force it")
        return gather([self._restart_one(kernel, 0.0 if force else timeout) for kernel in kernels])

    def send_signal(self, name: str, instance: str, number: int, cell: str = "") -> bool:
        """Signal a kernel's process group if that instance lives; say whether it did.

        Args:
            number: SIGINT, or SIGKILL, after which a fresh instance follows.
            cell: Which cell a SIGINT is meant for; "" for any.
        """
        kernel = self._kernels.get(name)
        if kernel is None or not kernel.alive or kernel.life.instance != instance or not kernel.life.pid:
            return False
        if number == signal.SIGKILL:
            kernel.life.ask(Asked.RESTART)
        elif number != signal.SIGINT:
            raise HostError(f"signal {number} is not sent to kernels; SIGINT and SIGKILL are")
        elif cell:
            Path(kernel.life.birth.journal_dir, "interrupt").write_text(cell)
        processes.send_signal(kernel.life.pid, number)
        return True

    # What the process tells

    def attach(self, names: NameKeeper) -> None:
        """From now on names can be registered; catch up with the kernels that were quicker."""
        self._names = names
        waiting, self._unannounced = self._unannounced, []
        for kernel, life in waiting:
            self._announce(kernel, life)

    def adopt(self, except_names: Iterable[str] = ()) -> None:
        """Take over what an earlier host left: the living as they are, the dead by their policy.

        Args:
            except_names: Kernels that are about to be started anyway: if dead they are not restarted here.
        """
        skipped = set(except_names)
        for record in self._registry.read_all():
            kernel = self._recall(record)
            self._kernels[kernel.name] = kernel
            life = kernel.life
            if _still_lives(record):
                try:
                    life.watch = processes.ProcessWatch(record.pid)
                except ProcessLookupError:
                    log.info("kernel %s ended while it was being adopted", kernel.name)
                else:
                    self._loop.watch(life.watch, lambda kernel=kernel, life=life: self._on_end(kernel, life))
                    if record.uri:
                        self._announce(kernel, life)
                    else:  # it was being born when its host died, and nobody has its report
                        life.asked = Asked.RESTART
                        processes.send_signal(life.pid, signal.SIGKILL)
                    continue
            processes.kill_session(life.pid, life.start_time)
            revive = kernel.name not in skipped
            self._bury(kernel, life, Ending(), cause="died while no host watched", revive=revive)

    def reap(self) -> None:
        """Collect ended children: kernels, templates, and orphans of either."""
        by_pid = {kernel.life.pid: kernel for kernel in self._living()}
        for pid in processes.ended_children():
            kernel = by_pid.get(pid)
            if kernel is not None and kernel.alive and kernel.life.pid == pid:
                self._on_end(kernel, kernel.life)
            else:
                processes.collect(pid)

    def stop_all(self, timeout: float = STOP_SECONDS) -> Future[list[Death]]:
        """End all kernels for good."""
        return self.stop(list(self._kernels), timeout)

    def kill_all(self) -> None:
        """End all kernels for good, at once, without asking and without announcing."""
        for kernel in self._living():
            if kernel.life.pid:
                processes.send_signal(kernel.life.pid, signal.SIGKILL)
        for kernel in self._living():
            if kernel.life.pid:
                processes.collect(kernel.life.pid)
                processes.kill_session(kernel.life.pid, kernel.life.start_time)
            self._forget(kernel)

    def living(self) -> list[str]:
        """Return the names of the kernels that live."""
        return [kernel.name for kernel in self._living()]

    def is_adopted(self, name: str) -> bool:
        """Tell whether the present instance of a kernel was started by another host."""
        return self._kernels[name].life.adopted

    # How a life begins

    def _begin(self, kernel: Kernel, life: Life) -> None:
        """Start one instance."""
        kernel.pause = None
        kernel.life = life
        kernel.alive = True
        kernel.cause = ""
        self._places.forget_old_journals(kernel.name, living=life.instance)
        life.timer = self._loop.after(START_SECONDS, lambda: self._on_late(life))
        life.launch = Launch(
            self._loop,
            life.birth,
            on_born=lambda pid: self._on_born(kernel, life, pid),
            on_ready=lambda report: self._on_report(kernel, life, report),
            on_unborn=lambda error: self._on_unborn(kernel, life, error),
        )
        self._launcher.launch(life.launch)

    def _begin_again(self, kernel: Kernel, instance: str = "") -> None:
        """Start the next instance."""
        kernel.restarts += 1
        self._begin(kernel, self._new_life(kernel.spec, instance))

    def _new_life(self, spec: KernelSpec, instance: str = "") -> Life:
        instance = instance or new_instance_id()
        environ = self._situation.environ
        threads = policy.thread_variables(spec, os.cpu_count() or 1, self._sharing, environ)
        return Life(
            KernelBirth(
                spec=dataclasses.replace(spec, env={**self._situation.extra_environ, **threads, **spec.env}).to_wire(),
                instance=instance,
                mesh=self._situation.mesh,
                host=self._situation.host,
                ns=self._situation.ns,
                socket=str(self._places.kernel_socket(instance)),
                journal_dir=str(self._places.journal(spec.name, instance)),
                lifeline_fd=self._situation.lifeline_fd,
            )
        )

    def _on_born(self, kernel: Kernel, life: Life, pid: int) -> None:
        if not kernel.alive or kernel.life is not life:  # given up on in the meantime
            processes.send_signal(pid, signal.SIGKILL)
            return
        life.pid = pid
        life.start_time = processes.start_time(pid)
        try:
            life.watch = processes.ProcessWatch(pid)
        except ProcessLookupError:  # not a child (a template died and took the news along), and gone already
            self._on_end(kernel, life)
            return
        self._loop.watch(life.watch, lambda: self._on_end(kernel, life))
        self._registry.write(kernel.record())
        if life.asked is not Asked.NOT:
            processes.send_signal(pid, signal.SIGKILL)

    def _on_report(self, kernel: Kernel, life: Life, report: dict[str, Any]) -> None:
        if not report.get("ok"):
            life.failure = error_from_wire(report)  # its process is about to end
            return
        if not kernel.alive or kernel.life is not life:
            return
        life.cancel_timer()
        self._close_launch(life)
        life.status = KernelStatus.IDLE
        life.uri = report["uri"]
        kernel.ever_ran = True
        self._registry.write(kernel.record())
        self._announce(kernel, life)

    def _on_unborn(self, kernel: Kernel, life: Life, error: Exception) -> None:
        """There is no process: as good as dead, only that nothing is left to collect."""
        life.failure = error
        self._bury(kernel, life, Ending(), cause=str(error))

    def _on_late(self, life: Life) -> None:
        life.failure = HostError(f"it was not ready within {START_SECONDS:.0f} s{_output_of(life)}")
        if life.pid:
            processes.send_signal(life.pid, signal.SIGKILL)
        elif life.launch is not None:
            life.launch.failed(life.failure)

    def _announce(self, kernel: Kernel, life: Life) -> None:
        """Register the name; whoever waits for the kernel is answered after that."""
        if self._names is None:
            self._unannounced.append((kernel, life))
            return
        announced = self._names.announce(kernel.info())
        announced.add_done_callback(lambda done: self._loop.call(lambda: self._on_announced(kernel, life, done)))

    def _on_announced(self, kernel: Kernel, life: Life, announced: Future[None]) -> None:
        if kernel.life is not life or not kernel.alive or life.asked is not Asked.NOT:
            return
        error = announced.exception()
        if isinstance(error, NameTakenError):
            log.warning("kernel %s is ended: %s", kernel.name, error)
            life.failure = error
            self._end(life, Asked.STOP, 0.0)
            return
        if error is not None:
            # Without a name server the kernel runs all the same, and its name follows.
            log.warning("%s", error)
        kernel.settle_ready(kernel.info())

    # How a life ends

    def _stop_one(self, kernel: Kernel, timeout: float) -> Future[Death]:
        future: Future[Death] = Future()
        if kernel.alive:
            kernel.awaiting_end.append(future)
            self._end(kernel.life, Asked.STOP, timeout)
            return future
        self._forget(kernel)
        death = self._deaths.of(kernel.life.instance, 0.0)
        resolve(future, death or Death(kernel=kernel.name, instance=kernel.life.instance, at=time.time()))
        return future

    def _restart_one(self, kernel: Kernel, timeout: float) -> Future[KernelInfo]:
        kernel.deaths.clear()
        if kernel.alive:
            # Not `_ready`: the present life may be ready, but it is the next one that is meant.
            self._end(kernel.life, Asked.RESTART, timeout)
        else:
            if kernel.pause is not None:
                kernel.pause.cancel()
            self._begin_again(kernel)
        return self._ready(kernel)

    def _end(self, life: Life, asked: Asked, timeout: float) -> None:
        """Make a living instance end: ask, and kill it when the time is up."""
        life.ask(asked)
        if not life.pid:
            return  # killed when it is born
        life.cancel_timer()
        if timeout > 0 and life.status is not KernelStatus.STARTING:
            processes.ask_to_end(life.pid)
            life.timer = self._loop.after(timeout, lambda: processes.send_signal(life.pid, signal.SIGKILL))
        else:
            processes.send_signal(life.pid, signal.SIGKILL)

    def _on_end(self, kernel: Kernel, life: Life) -> None:
        """Find out how the present instance ended, and kill what is left of it."""
        if kernel.life is not life or not kernel.alive:
            return
        if not life.adopted:
            # Before it is collected: until then nobody else can get its number, nor a group of that number.
            processes.send_signal(life.pid, signal.SIGKILL)
        ending = Ending() if life.adopted else processes.collect(life.pid)
        processes.kill_session(life.pid, life.start_time)
        cause = policy.describe_ending(ending, life.asked)
        if life.status is KernelStatus.STARTING:
            life.failure = life.failure or HostError(f"it ended before it was ready: {cause}{_output_of(life)}")
            cause = str(life.failure)
        self._bury(kernel, life, ending, cause)

    def _bury(self, kernel: Kernel, life: Life, ending: Ending, cause: str, *, revive: bool = True) -> None:
        """Record and announce a death, tidy up, and do what the policy says if `revive`."""
        kernel.alive = False
        life.cancel_timer()
        if life.watch is not None:
            self._loop.unwatch(life.watch)
            life.watch.close()
        now = time.monotonic()
        if not policy.ended_by_request(life.asked, ending, kernel.spec):
            kernel.deaths = [*kernel.deaths[-policy.MAX_DEATHS :], now]
        verdict = policy.after_death(kernel.spec, ending, life.asked, kernel.deaths, now)
        # The first start has somebody who waits and is told; only what once ran is brought back by itself.
        restart = verdict.restart and revive and (kernel.ever_ran or life.asked is Asked.RESTART)
        kernel.cause = "; ".join(filter(None, (cause, verdict.given_up)))
        successor = new_instance_id() if restart else ""
        death = self._describe_death(kernel, life, ending, successor)
        self._close_launch(life)
        self._deaths.append(death)
        log.info("kernel %s: %s", kernel.name, kernel.cause)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(life.birth.socket)
        if restart and verdict.pause == 0:
            self._begin_again(kernel, successor)
        elif restart:
            kernel.pause = self._loop.after(verdict.pause, lambda: self._begin_again(kernel, successor))
        else:
            self._lay_down(kernel, life)
        kernel.settle_end(death)

    def _lay_down(self, kernel: Kernel, life: Life) -> None:
        """Let the kernel stay dead: nobody may find it alive, and whoever waits for it is told why it is not."""
        self._registry.remove(kernel.name)
        if self._names is not None:
            self._names.withdraw(kernel.name, life.instance)
        if life.asked is Asked.STOP or not kernel.ever_ran:
            self._forget(kernel)
        failure = life.failure or HostError(kernel.cause)
        if not isinstance(failure, NameTakenError):
            failure = HostError(f"kernel {kernel.name!r} is not running: {failure}")
        kernel.settle_ready(failure)

    def _describe_death(self, kernel: Kernel, life: Life, ending: Ending, successor: str) -> Death:
        last_cell, tail = examine(Path(life.birth.journal_dir))
        return Death(
            kernel=kernel.name,
            instance=life.instance,
            at=time.time(),
            asked=policy.ended_by_request(life.asked, ending, kernel.spec),
            signal=ending.signal,
            exit_code=ending.exit_code,
            peak_memory_bytes=ending.peak_memory_bytes,
            last_cell=last_cell,
            tail=tail or (life.launch.output() if life.launch else ""),
            cause=kernel.cause,
            successor=successor,
        )

    def _forget(self, kernel: Kernel) -> None:
        """Remove a kernel from the table and from the disk."""
        if kernel.pause is not None:
            kernel.pause.cancel()
        self._registry.remove(kernel.name)
        if self._kernels.get(kernel.name) is kernel:
            del self._kernels[kernel.name]

    # Small help

    def _living(self) -> list[Kernel]:
        return [kernel for kernel in self._kernels.values() if kernel.alive]

    def _find(self, names: Iterable[str]) -> list[Kernel]:
        wanted = list(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self._kernels]
        if missing:
            raise KernelNotFoundError(f"no kernel {missing[0]!r} on this machine; `pyrokernel ps` lists them")
        return [self._kernels[name] for name in wanted]

    def _ready(self, kernel: Kernel) -> Future[KernelInfo]:
        future: Future[KernelInfo] = Future()
        kernel.awaiting_ready.append(future)
        return future

    def _close_launch(self, life: Life) -> None:
        if life.launch is not None:
            life.launch.close()
            life.launch = None

    def _recall(self, record: Record) -> Kernel:
        """Make a kernel of a record."""
        spec = KernelSpec.from_wire(record.spec)
        life = self._new_life(spec, record.instance)
        life.birth = dataclasses.replace(life.birth, socket=record.socket, journal_dir=record.journal_dir)
        life.status = KernelStatus.IDLE
        life.started = record.started
        life.pid = record.pid
        life.start_time = record.start_time
        life.uri = record.uri
        life.adopted = True
        return Kernel(spec=spec, life=life, restarts=record.restarts, ever_ran=True)


def _still_lives(record: Record) -> bool:
    return processes.is_same(record.pid, record.start_time)


def _output_of(life: Life) -> str:
    """Return what a kernel wrote before it was ready, as the end of a sentence."""
    text = life.launch.output() if life.launch else ""
    return f"; it wrote:\n{text}" if text else ""
