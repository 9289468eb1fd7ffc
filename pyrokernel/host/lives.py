"""A kernel and its present instance, as the supervisor keeps them in mind. Runs in the host process."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future

from pyrokernel.host.launch import Launch
from pyrokernel.host.policy import Asked
from pyrokernel.host.processes import ProcessWatch
from pyrokernel.host.registry import Record
from pyrokernel.loop import Timer, resolve
from pyrokernel.messages import Death, KernelBirth, KernelInfo, KernelSpec, KernelStatus

_SHOWN = {"gateway": "the gateway (by which other machines come in)", "state": "the shared state"}


@dataclasses.dataclass(eq=False)
class Life:
    """One instance of a kernel.

    Attributes:
        birth: What it was given.
        status: STARTING until its report, then IDLE (only the kernel itself knows when it is busy).
        started: Unix time in seconds.
        pid, start_time: Its process, 0 until it is born.
        uri: Where it answers, "" until it is ready.
        watch: Tells when the process ends.
        launch: Its way to ready, while it is on it.
        failure: Why it could not become ready, in its own words.
        asked: Whether somebody wants it to end.
        timer: Ends it when it takes too long to become ready, or to stop.
        adopted: Whether another host started it.
    """

    birth: KernelBirth
    status: KernelStatus = KernelStatus.STARTING
    started: float = dataclasses.field(default_factory=time.time)
    pid: int = 0
    start_time: int = 0
    uri: str = ""
    watch: ProcessWatch | None = None
    launch: Launch | None = None
    failure: Exception | None = None
    asked: Asked = Asked.NOT
    timer: Timer | None = None
    adopted: bool = False

    @property
    def instance(self) -> str:
        """Id of this life."""
        return self.birth.instance

    def ask(self, asked: Asked) -> None:
        """Note that somebody wants it to end; a stop is the last word, whatever restart comes before or after."""
        self.asked = Asked.STOP if Asked.STOP in (asked, self.asked) else asked

    def first_words(self) -> str:
        """Return what it wrote before it was ready, as the end of a sentence."""
        text = self.launch.output() if self.launch else ""
        return f"; it wrote:\n{text}" if text else ""

    def close_launch(self) -> None:
        """Be done with its way to ready."""
        if self.launch is not None:
            self.launch.close()
            self.launch = None

    def cancel_timer(self) -> None:
        """Let it take its time."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclasses.dataclass(eq=False)
class Kernel:
    """A name with a spec, and the life it has now.

    Attributes:
        spec: What was asked for.
        role: What it is, a key of `roles.ROLES`: the shared state lives and dies as kernels do.
        life: The present instance, or the last one.
        alive: Whether `life` has not ended.
        ever_ran: Whether one of its lives became ready.
        restarts: How often a life followed another.
        deaths: Monotonic times of the unasked deaths of late.
        cause: Why it is dead, or "".
        pause: The timer of a restart that waits.
        awaiting_ready, awaiting_end: Who waits for the present life to be ready, or to be over.
    """

    spec: KernelSpec
    life: Life
    role: str = "kernel"
    alive: bool = True
    ever_ran: bool = False
    restarts: int = 0
    deaths: list[float] = dataclasses.field(default_factory=list)
    cause: str = ""
    pause: Timer | None = None
    awaiting_ready: list[Future[KernelInfo]] = dataclasses.field(default_factory=list)
    awaiting_end: list[Future[Death]] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """Name in the mesh."""
        return self.spec.name

    @property
    def shown(self) -> str:
        """What it is called in what people read."""
        return _SHOWN.get(self.role) or f"kernel {self.name!r}"

    def info(self) -> KernelInfo:
        """Describe the kernel to callers."""
        return KernelInfo(
            name=self.name,
            instance=self.life.instance,
            host=self.life.birth.host,
            uri=self.life.uri,
            address=self.life.birth.address,
            tags=self.spec.tags,
            pid=self.life.pid if self.alive else 0,
            status=self.life.status if self.alive else KernelStatus.DEAD,
            protected=self.spec.protected,
            started=self.life.started,
            restarts=self.restarts,
            cause=self.cause,
        )

    def record(self) -> Record:
        """Describe the present life to the next host."""
        return Record(
            pid=self.life.pid,
            start_time=self.life.start_time,
            instance=self.life.instance,
            socket=self.life.birth.socket,
            journal_dir=self.life.birth.journal_dir,
            spec=self.spec.to_wire(),
            uri=self.life.uri,
            started=self.life.started,
            restarts=self.restarts,
            role=self.role,
        )

    def has(self, life: Life) -> bool:
        """Tell whether this is its present life, and not over."""
        return self.alive and self.life is life

    def ready(self) -> Future[KernelInfo]:
        """Return a future for the moment when it is ready, or the reason why it will not be."""
        future: Future[KernelInfo] = Future()
        self.awaiting_ready.append(future)
        return future

    def cancel_pause(self) -> None:
        """Let a restart that waits not happen."""
        if self.pause is not None:
            self.pause.cancel()
            self.pause = None

    def settle_ready(self, outcome: KernelInfo | Exception) -> None:
        """Answer those who wait for it to be ready."""
        waiting, self.awaiting_ready = self.awaiting_ready, []
        for future in waiting:
            resolve(future, outcome)

    def settle_end(self, death: Death) -> None:
        """Answer those who wait for the end of its life."""
        waiting, self.awaiting_end = self.awaiting_end, []
        for future in waiting:
            resolve(future, death)
