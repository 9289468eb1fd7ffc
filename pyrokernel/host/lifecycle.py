"""The life of a kernel from birth to death, and on to the next life. Runs in the host's main thread.

Nothing here waits: what takes time comes back as a callback. What follows a death is
decided by `policy`; the order is always the same: collect, kill what is left of the
kernel, record, announce, and only then restart.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from pyrokernel import systems
from pyrokernel.again import pipe_is_ready
from pyrokernel.errors import AccessRefusedError, HostError, NameTakenError, SettingsError, StateError, error_from_wire
from pyrokernel.host import policy, processes
from pyrokernel.host.deaths import DeathLog, examine
from pyrokernel.host.launch import Launch
from pyrokernel.host.launcher import Launcher
from pyrokernel.host.lives import Kernel, Life
from pyrokernel.host.places import Places
from pyrokernel.host.policy import Asked, Ending
from pyrokernel.host.registry import Registry
from pyrokernel.loop import Loop
from pyrokernel.messages import START_SECONDS, Death, KernelBirth, KernelInfo, KernelSpec, KernelStatus, new_instance_id

log = logging.getLogger(__name__)


class NameKeeper(Protocol):
    """Tells the name server about instances (`names.Announcer`)."""

    def announce(self, kernel: KernelInfo, role: str) -> Future[None]:
        """Register the name of an instance."""

    def withdraw(self, kernel: str, instance: str, role: str) -> Future[None]:
        """Remove the name of an instance that is gone."""


@dataclasses.dataclass(frozen=True)
class Situation:
    """What all kernels of a host have in common.

    Attributes:
        mesh, host, ns: Names of the mesh and the machine, address of the name server.
        lifeline_fd: Handed to each kernel of a private mesh; -1 for none.
        environ: The host's environment.
        extra_environ: What each kernel gets besides: the settings, so that `connect()` in it finds this mesh.
        address, gateway: As in `KernelBirth`.
        portable: As the setting.
    """

    mesh: str
    host: str
    ns: str
    lifeline_fd: int
    environ: Mapping[str, str]
    extra_environ: Mapping[str, str]
    address: str = ""
    gateway: str = ""
    portable: bool = False


class LifeCycle:
    """Begins and ends lives, and does what must be done when they end by themselves.

    Args:
        loop, launcher, places, deaths: The parts of the host.
        situation: What all kernels have in common.
        on_gone: Called with a kernel that will not come back.

    Attributes:
        sharing: How many kernels share the processors.
        registry: Records of the living.
    """

    def __init__(
        self,
        loop: Loop,
        launcher: Launcher,
        places: Places,
        deaths: DeathLog,
        situation: Situation,
        on_gone: Callable[[Kernel], None],
    ) -> None:
        self.sharing = 1
        self.registry = Registry(places.records, kept=situation.lifeline_fd < 0)
        self._loop = loop
        self._launcher = launcher
        self._places = places
        self._deaths = deaths
        self._situation = situation
        self._on_gone = on_gone
        self._names: NameKeeper | None = None
        self._unannounced: list[tuple[Kernel, Life]] = []

    def attach(self, names: NameKeeper) -> None:
        """Register names from now on; catch up with the kernels that were quicker."""
        self._names = names
        waiting, self._unannounced = self._unannounced, []
        for kernel, life in waiting:
            self.announce(kernel, life)

    def new_life(self, spec: KernelSpec, role: str, instance: str = "") -> Life:
        """Make the plan of a life."""
        instance = instance or new_instance_id()
        situation = self._situation
        threads = policy.thread_variables(spec, os.cpu_count() or 1, self.sharing, situation.environ)
        return Life(
            KernelBirth(
                spec=dataclasses.replace(spec, env={**situation.extra_environ, **threads, **spec.env}).to_wire(),
                instance=instance,
                mesh=situation.mesh,
                host=situation.host,
                ns=situation.ns,
                address=situation.address,
                gateway=situation.gateway if role != "gateway" else "",
                socket=str(self._places.kernel_socket(instance)),
                journal_dir=str(self._places.directory_of(role, spec.name, instance)),
                shelf=str(self._places.shelf),
                lifeline_fd=situation.lifeline_fd,
                role=role,
            )
        )

    # Beginning

    def begin(self, kernel: Kernel, life: Life) -> None:
        """Start an instance."""
        kernel.pause = None
        kernel.life = life
        kernel.alive = True
        kernel.cause = ""
        # Before there is a process: should this host die at the wrong moment, the next one must know of it.
        self.registry.write(kernel.record())
        self._places.forget_old_journals(kernel.name, living=life.instance)
        life.timer = self._loop.after(START_SECONDS, lambda: self._on_late(life))
        life.launch = Launch(
            self._loop,
            life.birth,
            on_born=lambda pid: self._on_born(kernel, life, pid),
            on_ready=lambda report: self._on_report(kernel, life, report),
            on_unborn=lambda error: self._on_unborn(kernel, life, error),
            portable=self._situation.portable,
        )
        self._launcher.launch(life.launch)

    def begin_again(self, kernel: Kernel, instance: str = "") -> None:
        """Start the next instance."""
        kernel.restarts += 1
        self.begin(kernel, self.new_life(kernel.spec, kernel.role, instance))

    def watch(self, kernel: Kernel, life: Life) -> None:
        """Learn of the end of a process.

        Raises:
            ProcessLookupError: It has ended, and was nobody's child here.
        """
        life.watch = processes.ProcessWatch(life.pid)
        self._loop.watch(life.watch, lambda: self.on_end(kernel, life))

    def _unwatch(self, life: Life) -> None:
        if life.watch is not None:
            self._loop.unwatch(life.watch)
            life.watch.close()
            life.watch = None

    def announce(self, kernel: Kernel, life: Life) -> None:
        """Register the name; whoever waits for the kernel is answered after that."""
        if kernel.role == "gateway":  # by which others come in; it has no name of its own
            kernel.settle_ready(kernel.info())
            return
        if self._names is None:
            self._unannounced.append((kernel, life))
            return
        announced = self._names.announce(kernel.info(), kernel.role)
        announced.add_done_callback(lambda done: self._loop.call(lambda: self._on_announced(kernel, life, done)))

    def _on_born(self, kernel: Kernel, life: Life, pid: int) -> None:
        if not kernel.has(life):  # given up on in the meantime
            processes.send_signal(pid, systems.KILL)
            return
        life.pid = pid
        life.start_time = processes.start_time(pid)
        try:
            self.watch(kernel, life)
        except ProcessLookupError:  # a template died and took the news along
            self.on_end(kernel, life)
            return
        self.registry.write(kernel.record())
        if life.asked is not Asked.NOT:
            processes.send_signal(pid, systems.KILL)

    def _on_report(self, kernel: Kernel, life: Life, report: dict[str, Any]) -> None:
        if not report.get("ok"):
            life.failure = error_from_wire(report)  # its process is about to end
            return
        if not kernel.has(life):
            return
        life.cancel_timer()
        life.close_launch()
        life.status = KernelStatus.IDLE
        life.uri = report["uri"]
        kernel.ever_ran = True
        self.registry.write(kernel.record())
        self.announce(kernel, life)

    def _on_unborn(self, kernel: Kernel, life: Life, error: Exception) -> None:
        """Bury what has no process: as good as dead, only that nothing is left to collect."""
        life.failure = error
        self.bury(kernel, life, Ending(), cause=str(error))

    def _on_late(self, life: Life) -> None:
        life.failure = HostError(f"it was not ready within {START_SECONDS:.0f} s{life.first_words()}")
        if life.pid:
            processes.send_signal(life.pid, systems.KILL)
        elif life.launch is not None:
            self._launcher.give_up(life.launch, life.failure)

    def _on_announced(self, kernel: Kernel, life: Life, announced: Future[None]) -> None:
        if not kernel.has(life) or life.asked is not Asked.NOT:
            return
        error = announced.exception()
        # A shared state that may not have its name would be a second truth.
        if isinstance(error, NameTakenError) or (isinstance(error, AccessRefusedError) and kernel.role == "state"):
            log.warning("%s is ended: %s", kernel.shown, error)
            life.failure = error
            self.end(life, Asked.STOP, 0.0)
            return
        if error is not None:
            # Without a name server the kernel runs all the same, and its name follows.
            log.warning("%s has no name yet: %s", kernel.shown, error)
        kernel.settle_ready(kernel.info())

    # Ending

    def end(self, life: Life, asked: Asked, timeout: float) -> None:
        """Make a living instance end: ask, and kill it when the time is up."""
        life.ask(asked)
        if not life.pid:
            return  # killed when it is born
        life.cancel_timer()
        if timeout > 0 and life.status is not KernelStatus.STARTING:
            processes.ask_to_end(life.pid)
            life.timer = self._loop.after(timeout, lambda: processes.send_signal(life.pid, systems.KILL))
        else:
            processes.send_signal(life.pid, systems.KILL)

    def on_end(self, kernel: Kernel, life: Life) -> None:
        """Find out how an instance ended, and kill what is left of it."""
        if not kernel.has(life) or self.is_over():
            return  # in a mesh that is over, all kernels are about to be collected together
        if not life.adopted:
            if not processes.is_child(life.pid):
                self._unwatch(life)  # SIGCHLD comes when it is
                return
            # Before it is collected: until then nobody else can get its number, nor a group of that number.
            processes.send_signal(life.pid, systems.KILL)
        ending = Ending() if life.adopted else processes.collect(life.pid)
        processes.kill_sessions({life.pid: life.start_time})
        cause = policy.describe_ending(ending, life.asked)
        if life.launch is not None:
            life.launch.take_report()  # in which it may say why
        if life.status is KernelStatus.STARTING:
            life.failure = life.failure or HostError(f"it ended before it was ready: {cause}{life.first_words()}")
            cause = str(life.failure)
        self.bury(kernel, life, ending, cause)

    def bury(self, kernel: Kernel, life: Life, ending: Ending, cause: str, *, revive: bool = True) -> None:
        """Record and announce a death, tidy up, and do what the policy says if `revive`."""
        kernel.alive = False
        life.cancel_timer()
        self._unwatch(life)
        now = time.monotonic()
        if not policy.ended_by_request(life.asked, ending, kernel.spec):
            kernel.deaths = [*kernel.deaths[-policy.MAX_DEATHS :], now]
        verdict = policy.after_death(kernel.spec, ending, life.asked, kernel.deaths, now)
        # The first start has somebody who waits and is told; only what once ran is brought back by itself.
        wanted = revive and not self.is_over() and (kernel.ever_ran or life.asked is Asked.RESTART)
        restart = verdict.restart and wanted
        kernel.cause = "; ".join(filter(None, (cause, verdict.given_up)))
        successor = new_instance_id() if restart else ""
        death = self._describe_death(kernel, life, ending, successor)
        life.close_launch()
        self._deaths.append(death)
        log.info("%s: %s", kernel.shown, kernel.cause)
        Path(life.birth.socket).unlink(missing_ok=True)
        if restart and verdict.pause == 0:
            self.begin_again(kernel, successor)
        elif restart:
            kernel.pause = self._loop.after(verdict.pause, lambda: self.begin_again(kernel, successor))
        else:
            self._lay_down(kernel, life, death)
            return
        kernel.settle_end(death)

    def is_over(self) -> bool:
        """Tell whether the client of a private mesh is gone: its kernels see that too, and some before this host."""
        lifeline_fd = self._situation.lifeline_fd
        return lifeline_fd >= 0 and pipe_is_ready(lifeline_fd, 0.0)

    def _lay_down(self, kernel: Kernel, life: Life, death: Death) -> None:
        """Let the kernel stay dead: nobody may find it alive, and whoever waits for it is told why it is not."""
        self.registry.remove(kernel.name)
        if self._names is None or kernel.role == "gateway":
            kernel.settle_end(death)
        else:
            # Not before the name is free: whoever stopped a kernel may want to use its name.
            withdrawn = self._names.withdraw(kernel.name, life.instance, kernel.role)
            withdrawn.add_done_callback(lambda _: self._loop.call(lambda: kernel.settle_end(death)))
        if life.asked is Asked.STOP or not kernel.ever_ran:
            self._on_gone(kernel)
        failure = life.failure or HostError(kernel.cause)
        # What is wrong with an address, or with the papers, is the user's to mend, and says so.
        plain = (SettingsError, AccessRefusedError) if kernel.role == "gateway" else (NameTakenError, StateError)
        if not isinstance(failure, plain):
            failure = HostError(f"{kernel.shown} is not running: {failure}")
        kernel.settle_ready(failure)

    def _describe_death(self, kernel: Kernel, life: Life, ending: Ending, successor: str) -> Death:
        last_cell, tail = examine(Path(life.birth.journal_dir)) if kernel.role == "kernel" else (None, "")
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
            started=life.started,
        )
