"""The kernels of this machine, and what callers ask of them. Runs in the host's main thread.

The table of kernels is here; how a single one lives and dies is in `lifecycle`. Methods
return at once: what takes time is a future.
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

from pyrokernel import systems
from pyrokernel.errors import AccessRefusedError, HostError, KernelNotFoundError
from pyrokernel.host import policy, processes
from pyrokernel.host.deaths import DeathLog
from pyrokernel.host.launcher import Launcher
from pyrokernel.host.lifecycle import LifeCycle, NameKeeper, Situation
from pyrokernel.host.lives import Kernel
from pyrokernel.host.places import Places
from pyrokernel.host.policy import Asked, Ending
from pyrokernel.host.registry import Record
from pyrokernel.loop import Loop, gather, resolve
from pyrokernel.messages import STOP_SECONDS, Death, KernelInfo, KernelSpec, KernelStatus

log = logging.getLogger(__name__)

STATE = "~shared"
"""How the process of the shared state is called among the kernels; no kernel can be called so."""
GATEWAY = "~gateway"
"""How that is called by which other machines come in."""

_GATEWAY_SECONDS = 2.0
"""By then the gateway has ended that was asked to: whoever asks waits for it."""


class Supervisor:
    """The kernels of this machine; all methods belong to the loop's thread.

    Args:
        loop, launcher, places, deaths, situation: As for `LifeCycle`.
    """

    def __init__(self, loop: Loop, launcher: Launcher, places: Places, deaths: DeathLog, situation: Situation) -> None:
        self._deaths = deaths
        self._kernels: dict[str, Kernel] = {}
        self._cycle = LifeCycle(loop, launcher, places, deaths, situation, on_gone=self._forget)

    # What callers ask for

    def kernels(self) -> list[KernelInfo]:
        """Describe all kernels, in the order they were first started."""
        return [kernel.info() for kernel in self._kernels.values() if kernel.role == "kernel"]

    def living(self) -> list[str]:
        """Return the names of the kernels that live."""
        return [kernel.name for kernel in self._living() if kernel.role == "kernel"]

    def has_living(self) -> bool:
        """Tell whether any process lives, the shared state among them; a gateway alone leads nowhere."""
        return any(kernel.role != "gateway" for kernel in self._living())

    def start(self, specs: Sequence[KernelSpec]) -> list[Future[KernelInfo]]:
        """Start kernels; each future has the kernel once it is ready and its name is registered.

        Raises:
            NameTakenError: A living kernel has one of the names; none is started.
            SettingsError: A spec cannot be used; none is started.
        """
        for spec in specs:
            policy.check_spec(spec)
        policy.check_new_names(specs, {kernel.name: kernel.life.instance for kernel in self._living()})
        self._cycle.sharing = len({*self._kernels, *(spec.name for spec in specs)} - {STATE, GATEWAY})
        return [self._start_one(spec) for spec in specs]

    def start_state(self) -> Future[KernelInfo]:
        """Start the process of the shared state unless it lives; the future has it once its name is registered."""
        return self._start_once(KernelSpec(name=STATE), "state")

    def start_gateway(self, environment: Mapping[str, str]) -> Future[KernelInfo]:
        """Start the process by which other machines come in; one that goes by other settings makes room for it.

        Args:
            environment: What it goes by, as `settings.gateway_environment` returns it.
        """
        spec, kernel = KernelSpec(name=GATEWAY, env=dict(environment)), self._kernels.get(GATEWAY)
        if kernel is None or not kernel.alive or kernel.spec == spec:
            return self._start_once(spec, "gateway")
        log.warning("the gateway that runs goes by other settings: a new one takes its place")
        kernel.spec = spec
        return self._restart_one(kernel, 0.0)

    def end_gateway(self) -> None:
        """End that process, if there is one."""
        kernel = self._kernels.get(GATEWAY)
        if kernel is None:
            return
        if kernel.alive and kernel.life.pid:
            kernel.life.ask(Asked.STOP)
            processes.end(kernel.life.pid, _GATEWAY_SECONDS)
        kernel.alive = False
        self._forget(kernel)

    def _start_once(self, spec: KernelSpec, role: str) -> Future[KernelInfo]:
        kernel = self._kernels.get(spec.name)
        if kernel is not None and kernel.alive:
            return kernel.ready() if kernel.life.status is KernelStatus.STARTING else _done(kernel.info())
        return self._start_one(spec, role=role)

    def stop_state(self) -> Future[list[Death]]:
        """End the process of the shared state; what it keeps stays on disk."""
        return self.stop([STATE] if STATE in self._kernels else [])

    def stop(self, names: Iterable[str], *, force: bool = False, timeout: float = STOP_SECONDS) -> Future[list[Death]]:
        """End kernels for good: ask, and kill those that have not ended in time.

        Raises:
            KernelNotFoundError: There is no kernel of one of the names; none is stopped.
            AccessRefusedError: One of them is protected and `force` is not given; none is stopped.
        """
        kernels = self._find(names)
        if not force:
            _check_unprotected(kernels)
        return gather([self._stop_one(kernel, timeout) for kernel in kernels])

    def stop_all(self, *, force: bool = True) -> Future[list[Death]]:
        """End all kernels for good; without `force` as `stop`."""
        return self.stop([name for name in self._kernels if name != GATEWAY], force=force)

    def restart(
        self, names: Iterable[str], *, force: bool = False, timeout: float = STOP_SECONDS
    ) -> Future[list[KernelInfo]]:
        """Give kernels a fresh instance; `force` kills at once, and is the yes that protected kernels need.

        Raises:
            KernelNotFoundError: There is no kernel of one of the names; none is restarted.
            AccessRefusedError: One of them is protected and `force` is not given; none is restarted.
        """
        kernels = self._find(names)
        if not force:
            _check_unprotected(kernels)
        return gather([self._restart_one(kernel, 0.0 if force else timeout) for kernel in kernels])

    def successor(self, name: str, instance: str) -> Future[KernelInfo]:
        """Return the instance that follows another one of the same name, once it is ready.

        Raises:
            KernelNotFoundError: There is no kernel of that name, or it stays dead.
        """
        (kernel,) = self._find([name])
        if not kernel.alive and kernel.pause is None:
            raise KernelNotFoundError(f"kernel {name!r} is not running: {kernel.cause}; `pyrokernel restart {name}`")
        if kernel.alive and kernel.life.instance != instance and kernel.life.status is not KernelStatus.STARTING:
            return _done(kernel.info())
        return kernel.ready()

    def send_signal(self, name: str, instance: str, number: int, cell: str = "") -> bool:
        """Signal a kernel's process group if that instance lives; say whether it did.

        Args:
            name, instance: Which kernel, which life of it.
            number: SIGINT, or SIGKILL, after which a fresh instance follows.
            cell: Which cell a SIGINT is meant for; "" for any.
        """
        kernel = self._kernels.get(name)
        if kernel is None or not kernel.alive or kernel.life.instance != instance or not kernel.life.pid:
            return False
        if number == signal.SIGINT and not hasattr(os, "killpg"):
            raise HostError("here only a kernel itself can interrupt its cell; restart it to end what it runs")
        if number == systems.KILL:
            kernel.life.ask(Asked.RESTART)
        elif number != signal.SIGINT:
            raise HostError(f"signal {number} is not sent to kernels; SIGINT and SIGKILL are")
        else:
            # Without a cell, too: one that was meant before may stand there still, which ended too soon to read it.
            # On a full disk, or when the journal was removed, whatever runs is interrupted: most likely that cell.
            with contextlib.suppress(OSError):
                Path(kernel.life.birth.journal_dir, "interrupt").write_text(cell)
        if number == signal.SIGINT:
            processes.interrupt(kernel.life.pid)
        else:
            processes.send_signal(kernel.life.pid, number)
        return True

    # What the host process tells

    def attach(self, names: NameKeeper) -> None:
        """Register names from now on; catch up with the kernels that were quicker."""
        self._cycle.attach(names)

    def adopt(self, except_names: Iterable[str] = ()) -> list[Future[KernelInfo]]:
        """Take over what an earlier host left: the living as they are, the dead by their policy.

        Args:
            except_names: Kernels that are about to be started anyway: if dead they are not restarted here.

        Returns:
            A future for each kernel that is registered or restarted; those that stay dead fail.
        """
        records = self._cycle.registry.read_all()
        self._cycle.sharing = max(1, sum(record.role == "kernel" for record in records))
        skipped = set(except_names)
        futures = []
        for record in records:
            kernel = self._recall(record)
            self._kernels[kernel.name] = kernel
            futures.append(kernel.ready())
            self._take_over(kernel, revive=kernel.name not in skipped)
        return futures

    def is_adopted(self, name: str) -> bool:
        """Tell whether the present instance of a kernel was started by another host."""
        return self._kernels[name].life.adopted

    def reap(self) -> None:
        """Collect ended children: kernels, templates, and orphans of either."""
        if self._cycle.is_over():
            return  # all are about to be collected together
        by_pid = {kernel.life.pid: kernel for kernel in self._living() if not kernel.life.adopted}
        for pid in processes.ended_children():
            kernel = by_pid.pop(pid, None)
            if kernel is not None:
                self._cycle.on_end(kernel, kernel.life)
            else:
                processes.collect(pid)

    def settling(self) -> list[Future[KernelInfo]]:
        """Return a future for each kernel that is on its way to ready."""
        return [kernel.ready() for kernel in self._living() if kernel.life.status is KernelStatus.STARTING]

    def kill_all(self) -> None:
        """End all kernels for good, at once, without asking and without announcing."""
        born = [kernel for kernel in self._living() if kernel.life.pid]
        for kernel in born:
            processes.send_signal(kernel.life.pid, systems.KILL)
        # What is being born right now must not write into directories that are about to be removed.
        processes.kill_unknown_births(except_pids=[kernel.life.pid for kernel in born])
        for kernel in born:
            processes.collect(kernel.life.pid)
        processes.kill_sessions({kernel.life.pid: kernel.life.start_time for kernel in born})
        for kernel in list(self._kernels.values()):
            self._forget(kernel)

    # Details

    def _start_one(self, spec: KernelSpec, role: str = "kernel") -> Future[KernelInfo]:
        """Start a kernel, in place of a dead one of its name; this is the restart, too, for which somebody may wait."""
        kernel = Kernel(spec=spec, life=self._cycle.new_life(spec, role), role=role)
        dead = self._kernels.get(spec.name)
        if dead is not None:
            kernel.awaiting_ready, dead.awaiting_ready = dead.awaiting_ready, []
            self._forget(dead)
        self._kernels[spec.name] = kernel
        ready = kernel.ready()
        self._cycle.begin(kernel, kernel.life)
        return ready

    def _stop_one(self, kernel: Kernel, timeout: float) -> Future[Death]:
        future: Future[Death] = Future()
        if kernel.alive:
            kernel.awaiting_end.append(future)
            self._cycle.end(kernel.life, Asked.STOP, timeout)
            return future
        self._forget(kernel)
        death = self._deaths.of(kernel.life.instance, 0.0)
        resolve(future, death or Death(kernel=kernel.name, instance=kernel.life.instance, at=time.time()))
        return future

    def _restart_one(self, kernel: Kernel, timeout: float) -> Future[KernelInfo]:
        kernel.deaths.clear()
        if kernel.alive:
            self._cycle.end(kernel.life, Asked.RESTART, timeout)
        else:
            kernel.cancel_pause()
            self._cycle.begin_again(kernel)
        return kernel.ready()

    def _take_over(self, kernel: Kernel, *, revive: bool) -> None:
        """Do what is to be done about one kernel of an earlier host."""
        life = kernel.life
        if life.pid == 0:
            # Its host died between asking for it and hearing of it. A kernel that cannot report ends by itself;
            # one that could is still there.
            life.pid = processes.listener_pid(life.birth.socket)
            life.start_time = processes.start_time(life.pid)
        if processes.is_same(life.pid, life.start_time):
            try:
                self._cycle.watch(kernel, life)
            except ProcessLookupError:
                pass  # it ended just now
            else:
                if life.uri:
                    self._cycle.announce(kernel, life)
                else:  # nobody has its report: whether it came up is not known
                    self._cycle.end(life, Asked.RESTART, 0.0)
                return
        processes.kill_sessions({life.pid: life.start_time})
        self._cycle.bury(kernel, life, Ending(), cause="died while no host watched", revive=revive)

    def _recall(self, record: Record) -> Kernel:
        """Make a kernel of a record."""
        spec = KernelSpec.from_wire(record.spec)
        life = self._cycle.new_life(spec, record.role, record.instance)
        life.birth = dataclasses.replace(life.birth, socket=record.socket, journal_dir=record.journal_dir)
        life.status = KernelStatus.IDLE
        life.started = record.started
        life.pid = record.pid
        life.start_time = record.start_time
        life.uri = record.uri
        life.adopted = True
        return Kernel(spec=spec, life=life, role=record.role, restarts=record.restarts, ever_ran=True)

    def _living(self) -> list[Kernel]:
        return [kernel for kernel in self._kernels.values() if kernel.alive]

    def _find(self, names: Iterable[str]) -> list[Kernel]:
        wanted = list(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self._kernels]
        if missing:
            raise KernelNotFoundError(f"no kernel {missing[0]!r} on this machine; `pyrokernel ps` lists them")
        return [self._kernels[name] for name in wanted]

    def _forget(self, kernel: Kernel) -> None:
        """Remove a kernel from the table and from the disk."""
        waits = kernel.pause is not None
        kernel.cancel_pause()
        self._cycle.registry.remove(kernel.name)
        if self._kernels.get(kernel.name) is kernel:
            del self._kernels[kernel.name]
        if waits:  # all others are told by their life cycle how they ended
            kernel.settle_ready(KernelNotFoundError(f"{kernel.shown} was stopped before its restart"))


def _done(info: KernelInfo) -> Future[KernelInfo]:
    future: Future[KernelInfo] = Future()
    future.set_result(info)
    return future


def _check_unprotected(kernels: Iterable[Kernel]) -> None:
    protected = [kernel.name for kernel in kernels if kernel.spec.protected and kernel.alive]
    if protected:
        raise AccessRefusedError(
            f"protected: {', '.join(protected)}; to lose the variables all the same, say so with --force (force=True)"
        )
