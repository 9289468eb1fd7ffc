"""The host's exposed object: thin, plain data in and out. Runs in the host process, on the daemon's threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from pyrokernel.audit import Filter
from pyrokernel.errors import HostError, KernelNotFoundError, PyrokernelError
from pyrokernel.host import processes
from pyrokernel.host.deaths import DeathLog
from pyrokernel.host.places import Places
from pyrokernel.host.recorder import Recorder
from pyrokernel.host.supervisor import GATEWAY, STATE, Supervisor
from pyrokernel.journal import JournalReader
from pyrokernel.loop import Loop, gather
from pyrokernel.messages import PROTOCOL_VERSION, START_SECONDS, STOP_SECONDS, KernelSpec, Shipped, bounded
from pyrokernel.roles import Role
from pyrokernel.settings import check_name
from pyrokernel.shelf import Shelf
from pyrokernel.wire.daemon import current_peer
from pyrokernel.wire.exposing import expose, refusal
from pyrokernel.wire.limits import LOOK_BYTES
from pyrokernel.wire.trust import is_own

T = TypeVar("T")

MAX_WAIT_SECONDS = 60.0
"""The longest that one request waits: a caller that has gone must not keep a thread for ever."""
MAX_READ_BYTES = 8 * 1024 * 1024
_ERROR_CHARS = 400


class HostService:
    """What callers can ask of a host; every method is described in docs/protocol.md.

    Args:
        loop, supervisor: Where requests are carried out.
        deaths, places: Where the past is kept.
        identity: What `describe` tells.
        own: What it tells this account besides.
        shutdown: Begins the end of the host.
        take_revoked: Takes up a list of revoked certificates (PEM), and says whether it was news.
        recorder: Writes down who asked for what.
    """

    def __init__(
        self,
        loop: Loop,
        supervisor: Supervisor,
        deaths: DeathLog,
        places: Places,
        identity: Mapping[str, Any],
        own: Mapping[str, Any],
        shutdown: Callable[[], None],
        take_revoked: Callable[[bytes], bool],
        recorder: Recorder,
    ) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._deaths = deaths
        self._places = places
        self._identity, self._own = dict(identity), dict(own)
        self._take_revoked = take_revoked
        self._shutdown = shutdown
        self._recorder = recorder
        self._shelf = Shelf(places.shelf)
        self._lock = threading.Lock()

    @expose(Role.OBSERVER)
    def list_kernels(self) -> list[dict[str, Any]]:
        """Return a `KernelInfo` per kernel, with the memory it takes."""
        found = self._do(self._supervisor.kernels)
        return [
            dataclasses.replace(info, memory_bytes=processes.proportional_memory(info.pid)).to_wire()
            if info.pid
            else info.to_wire()
            for info in found
        ]

    @expose(Role.ADMIN)
    def start_kernels(self, specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Start kernels and return a `KernelInfo` for each once all are ready; those that could start stay."""
        wanted = [KernelSpec.from_wire(spec) for spec in specs]
        with self._noted("start", kernels=[spec.name for spec in wanted]):
            started = self._wait(lambda: gather(self._supervisor.start(wanted)), START_SECONDS + 5)
        return [info.to_wire() for info in started]

    @expose(Role.ADMIN)
    def stop_kernels(
        self, names: Sequence[str], timeout: float = STOP_SECONDS, force: bool = False
    ) -> list[dict[str, Any]]:
        """End kernels for good and return a `Death` for each; kill those that take longer; `force` for protected."""
        with self._noted("stop", kernels=list(names), force=force):
            stop = functools.partial(self._supervisor.stop, names, force=force, timeout=timeout)
            deaths = self._wait(stop, timeout + START_SECONDS)
        return [death.to_wire() for death in deaths]

    @expose(Role.ADMIN)
    def restart_kernels(self, names: Sequence[str], force: bool = False) -> list[dict[str, Any]]:
        """Give kernels a fresh instance and return a `KernelInfo` for each; `force` kills, and says yes."""
        with self._noted("restart", kernels=list(names), force=force):
            started = self._wait(lambda: self._supervisor.restart(names, force=force), START_SECONDS + STOP_SECONDS + 5)
        return [info.to_wire() for info in started]

    @expose(Role.USER)
    def signal_kernel(self, name: str, instance: str, signum: int, cell: str = "") -> bool:
        """Send SIGINT (for a cell) or SIGKILL to a kernel's process group; False when that instance is gone.

        Raises:
            AccessRefusedError: Who may run code interrupts what runs; only admins kill.
        """
        peer = current_peer()
        if signum != signal.SIGINT and peer.role < Role.ADMIN:
            raise refusal(peer, "killing a kernel", Role.ADMIN)
        with self._noted("signal", kernel=name, instance=instance, signal=signum, cell=cell):
            return self._do(lambda: self._supervisor.send_signal(name, instance, signum, cell))

    @expose(Role.OBSERVER)
    def await_kernel(self, name: str, instance: str, timeout: float = START_SECONDS) -> dict[str, Any]:
        """Return the `KernelInfo` of the instance that follows a dead one, once it is ready."""
        seconds = bounded(timeout, MAX_WAIT_SECONDS)
        return self._wait(lambda: self._supervisor.successor(name, instance), seconds).to_wire()

    @expose(Role.OBSERVER)
    def obituary(self, instance: str, timeout: float = 0.0) -> dict[str, Any] | None:
        """Return the `Death` of an instance, None when none was noticed in time."""
        death = self._deaths.of(instance, bounded(timeout, MAX_WAIT_SECONDS))
        return death.to_wire() if death else None

    @expose(Role.OBSERVER)
    def deaths(self, after: int = -1, timeout: float = 0.0) -> dict[str, Any]:
        """Return the deaths after a number, as soon as there are some, and the number to ask with next."""
        number, found = self._deaths.after(after, bounded(timeout, MAX_WAIT_SECONDS))
        return {"next": number, "deaths": [death.to_wire() for death in found]}

    @expose(Role.OBSERVER)
    def read_journal(
        self, name: str, instance: str = "", after: int = 0, max_bytes: int = 1024 * 1024
    ) -> dict[str, Any]:
        """Return events of an instance that is dead (a living one answers `follow` itself); "" is the newest."""
        check_name(name, "kernel")
        known = [path.name for path in self._places.journals(name)]
        if not known or (instance and instance not in known):
            raise KernelNotFoundError(f"this host has no journal of {instance or 'any instance'} of kernel {name!r}")
        instance = instance or known[0]
        directory = self._places.journal(name, instance)
        # What a living kernel has captured it numbers itself, later; numbers given here would be given twice.
        reader = JournalReader(directory, waiting_bytes=0) if instance in self._living() else JournalReader(directory)
        most = MAX_READ_BYTES if current_peer().may_run_code else LOOK_BYTES
        events = reader.read(after, max_bytes=min(max_bytes, most))
        shown = [event.to_wire() for event in events]
        return {
            "instance": instance,
            "events": shown,
            "next": events[-1].seq if events else after,
        }

    @expose(Role.OBSERVER)
    def instances(self, name: str) -> list[dict[str, Any]]:
        """Return the instances of a kernel whose journals are still there, newest first."""
        check_name(name, "kernel")
        living = self._living()
        return [
            {"instance": path.name, "alive": path.name in living, "journal_dir": str(path), "at": path.stat().st_mtime}
            for path in self._places.journals(name)
        ]

    @expose(Role.USER)
    def store_shipped(self, modules: Sequence[Mapping[str, Any]]) -> None:
        """Put the files of modules on the shelf of this machine; nothing of them is run."""
        for one in modules:
            self._shelf.store(str(one["digest"]), one["files"], str(one["shown"]))

    @expose(Role.USER)
    def keep_shipped(self, modules: Sequence[Mapping[str, Any]], words: Sequence[str]) -> list[str]:
        """Have kernels that start later load modules; return the names of those whose files are not here."""
        wanted = [Shipped.from_wire(one) for one in modules]
        with self._noted("keep", modules=[one.name for one in wanted], kernels=list(words)), self._lock:
            missing = [one.name for one in wanted if not self._shelf.has(one.digest)]
            self._shelf.keep([one for one in wanted if one.name not in missing], words)
        return missing

    @expose(Role.USER)
    def drop_shipped(self, names: Sequence[str], words: Sequence[str], kernels: Sequence[str]) -> None:
        """Have kernels that start later no longer load modules; `words` chose those `kernels` that gave them back."""
        with self._noted("drop", modules=list(names), kernels=list(words)), self._lock:
            self._shelf.drop(names, words, kernels)

    @expose(Role.OBSERVER)
    def start_state(self) -> dict[str, Any]:
        """Start the process of the shared state unless it lives; return a `KernelInfo` of it once it is ready.

        Raises:
            HostError: Another host keeps the shared state.
            StateError: It cannot be started; the message says why.
        """
        keeper = self._identity["state_host"]
        if keeper and keeper != self._identity["host"]:
            raise HostError(
                f"host {keeper!r} keeps the shared state (setting state_host), not {self._identity['host']!r}"
            )
        return self._wait(self._supervisor.start_state, START_SECONDS + 5).to_wire()

    @expose(Role.ADMIN)
    def stop_state(self) -> None:
        """End the process of the shared state, such as for a backup to be put in its place."""
        with self._noted("stop state"):
            self._wait(self._supervisor.stop_state, STOP_SECONDS + START_SECONDS)

    @expose(Role.ADMIN)
    def audit(self, wanted: Mapping[str, Any], position: str = "") -> dict[str, Any]:
        """Return records of who did what, oldest first, from a position on: `records`, `next`, and `end` if no more.

        Args:
            wanted: "user", "kernel" and "since" (Unix time), as far as records are to be left out.
            position: The `next` of the answer before, "" for the first question.
        """
        self._recorder.catch_up()
        records, following, end = self._recorder.record.read(Filter.of(wanted), str(position))
        return {"records": records, "next": following, "end": end, "kept": self._recorder.record.kept}

    @expose(Role.OBSERVER)
    def describe(self) -> dict[str, Any]:
        """Return who this host is, where its files are, and as whom it knows who asks."""
        peer = current_peer()
        return {
            **self._identity,
            **(self._own if is_own(peer) else {}),
            "you": {"user": peer.author, "role": peer.role.word},
            "pid": os.getpid(),
            "protocol": PROTOCOL_VERSION,
            "runtime_dir": str(self._places.runtime),
            "state_dir": str(self._places.state),
            "shared_dir": str(self._places.shared),
            "kernels": len(self._do(self._supervisor.kernels)),
        }

    @expose(Role.ADMIN)
    def take_revoked(self, crl: str, name: str = "") -> bool:
        """Take up the authority's list of revoked certificates (PEM); say whether it was news.

        The gateway sees it a moment later, and hangs up on those who are on it.

        Args:
            crl: The list.
            name: Who was put on it, for the record; "" where nobody was.
        """
        with self._noted("revoke", of=name):
            return self._take_revoked(crl.encode())

    @expose(Role.ADMIN)
    def shutdown(self, reason: str = "", force: bool = False) -> list[dict[str, Any]]:
        """End all kernels and the host; return a `Death` for each kernel; `force` for protected ones."""
        with self._noted("shutdown", reason=reason, force=force):
            deaths = self._wait(lambda: self._supervisor.stop_all(force=force), STOP_SECONDS + START_SECONDS)
        self._shutdown()
        return [death.to_wire() for death in deaths if death.kernel not in (STATE, GATEWAY)]

    @contextlib.contextmanager
    def _noted(self, what: str, **fields: Any) -> Iterator[None]:
        """Write down who asks for something, and that it failed where it does."""
        peer = current_peer()
        try:
            yield
        except PyrokernelError as error:
            self._recorder.note(what, peer, **fields, error=str(error)[:_ERROR_CHARS])
            raise
        self._recorder.note(what, peer, **fields)

    def _living(self) -> set[str]:
        """Return the instances that are alive."""
        return {info.instance for info in self._do(self._supervisor.kernels) if info.pid}

    def _do(self, function: Callable[[], T]) -> T:
        """Run something in the supervisor's thread."""
        return _result(self._loop.submit(function), 10.0)

    def _wait(self, begin: Callable[[], Future[T]], timeout: float) -> T:
        """Begin something in the supervisor's thread and wait for what comes of it."""
        return _result(self._do(begin), timeout)


def _result(future: Future[T], timeout: float) -> T:
    try:
        return future.result(timeout)
    except concurrent.futures.TimeoutError as error:
        if future.done():
            raise  # what was asked for ended with a timeout of its own
        raise HostError(f"the host did not manage that within {timeout:g} s; see `pyrokernel doctor`") from error
