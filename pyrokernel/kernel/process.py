"""A kernel process from birth to end: limits, descriptors, daemon, init file. Runs in the kernel process."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pyrokernel import settings as settings_module
from pyrokernel import systems
from pyrokernel.again import show_as
from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.birth import end_with_client, log_aside, report
from pyrokernel.client import inside, own, publishing
from pyrokernel.client.shared import of_this_process
from pyrokernel.commands import KernelIdentity
from pyrokernel.errors import HostError, PyrokernelError, SettingsError, error_to_wire
from pyrokernel.journal import Journal
from pyrokernel.kernel.burst import Bursts
from pyrokernel.kernel.capture import Capture
from pyrokernel.kernel.cell import Cell
from pyrokernel.kernel.cells import Cells
from pyrokernel.kernel.executor import Executor
from pyrokernel.kernel.extensions import Extensions
from pyrokernel.kernel.figures import Figures
from pyrokernel.kernel.handlers import Handlers
from pyrokernel.kernel.inputs import Inputs
from pyrokernel.kernel.interpreter import Interpreter
from pyrokernel.kernel.interrupts import Interrupts
from pyrokernel.kernel.pins import SharedPins
from pyrokernel.kernel.publications import Publications
from pyrokernel.kernel.references import References
from pyrokernel.kernel.service import KernelService
from pyrokernel.kernel.shipping import meant_for
from pyrokernel.kernel.workloop import WorkLoop
from pyrokernel.messages import KERNEL_OBJECT, EventKind, KernelBirth, KernelSpec, Lent, Shipped
from pyrokernel.shelf import Shelf
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.limits import Quota

log = logging.getLogger(__name__)

_BROKEN = 70
"""Exit code of a kernel that cannot serve any more (EX_SOFTWARE)."""

_MACHINERY = ("pyrokernel.wire", "pyrokernel.audit")
"""Loggers of what others ask for."""

SWITCH_SECONDS = 0.0005
"""How soon another thread gets the interpreter from a cell that computes: completion answers within it."""


def main(birth: KernelBirth, *, preload: bool = False) -> NoReturn:
    """Be a kernel until the end. Never returns: the process exits.

    Args:
        birth: Who to be. `ready_fd` is told, as one line of JSON, whether that worked.
        preload: Import the modules of the spec first; a fork finds them in its template.
    """
    try:
        if preload:
            _preload(KernelSpec.from_wire(birth.spec).preload)
        kernel = KernelProcess(birth)
    except BaseException as error:  # all of it is reported to the host, which tells the user
        report(birth, {"ok": False, **error_to_wire(error)})
        if not isinstance(error, (PyrokernelError, OSError)):
            raise
        os._exit(1)
    report(birth, {"ok": True, "pid": os.getpid(), "uri": kernel.daemon.uri_for(KERNEL_OBJECT)})
    kernel.run()


def _preload(names: Sequence[str]) -> None:
    """Import modules before anything else.

    Raises:
        HostError: One of them cannot be imported; in the words that a host has for its template.
    """
    if not sys.path or sys.path[0] not in ("", os.getcwd()):
        sys.path.insert(0, "")  # what the user preloads may be a file beside the mesh
    try:
        for name in names:
            importlib.import_module(name)
    except Exception as error:
        raise HostError(f"preloading {', '.join(names)} failed: {type(error).__name__}: {error}") from error


class KernelProcess:
    """The rooms of a kernel process, put together."""

    def __init__(self, birth: KernelBirth) -> None:
        self.birth = birth
        self.spec = spec = KernelSpec.from_wire(birth.spec)
        _prepare_process(spec)
        settings = settings_module.load()
        # Sections of plugins may hold passwords, and what a cell starts inherits the environment.
        os.environ.pop(f"{settings_module.ENV_PREFIX}PLUGINS", None)
        directory = Path(birth.journal_dir)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whoever asks for nonsense would write into what the cells of others print.
        log_aside(_MACHINERY, directory / "kernel.log")
        self.journal = Journal(directory, cap_bytes=spec.journal_bytes)
        self.capture = Capture(directory, self.journal)
        interrupts = Interrupts(directory / "interrupt", lambda: self.cells.begun(), self.capture.postpone)
        interpreter = Interpreter(interrupts)
        self.loop = WorkLoop(
            lambda: self.cells.settle(), self._look_around, lambda: self.cells.idle_seconds(), spec.idle_stop
        )
        self._handlers = Handlers(lambda: interrupts.armed, self.capture.postpone, self.loop.wake)
        identity = KernelIdentity(name=spec.name, tags=spec.tags, host=birth.host, mesh=birth.mesh)
        self.shelf = Shelf(Path(birth.shelf) if birth.shelf else directory / "shelf")
        extensions = Extensions(identity, birth.instance, settings, interpreter, self.shelf, self._report_progress)
        interpreter.transform = extensions.transform
        self.executor = Executor(spec.name, birth.instance, interpreter, self.capture, self.journal, extensions)
        self.cells = Cells(self.executor, self.loop.wake)
        self.loop.bursts = Bursts(self.cells)
        inputs = Inputs(self._ask, self._running_cell, settings.input_timeout)
        self.references = References(spec.name, birth.instance, self.loop.wake)
        own.declare(spec.name, birth.instance, self.references.own, self._lend_own)
        record = AuditFile.beside(settings)
        self.service = KernelService(
            birth,
            cells=self.cells,
            executor=self.executor,
            capture=self.capture,
            journal=self.journal,
            inputs=inputs,
            interrupts=interrupts,
            extensions=extensions,
            references=self.references,
            pins=SharedPins(self.references, of_this_process()),
            record=record,
            waiting_work=self.loop.waiting,
            dismiss=self.loop.dismiss,
        )
        greeting = {"kernel": spec.name, "instance": birth.instance, "pid": os.getpid()}
        self.daemon = Daemon(
            Path(birth.socket),
            identity=greeting,
            portable=settings.portable,
            on_work=self.loop.adopt,
            before_control=self.cells.await_settled,
            quota=Quota.of(settings),
            on_refused=refusals_to(record, {"kernel": spec.name, "instance": birth.instance}),
            paper=None if settings.portable else Path(birth.socket).with_name(settings_module.PAPER),
        )
        self.daemon.register(self.service, KERNEL_OBJECT)
        self.publications = Publications(birth, self.daemon, self.references)
        publishing.become(self.publications)
        inside.become(spec.name, birth.instance)
        self.capture.install()
        inputs.install()
        interrupts.install()
        self._handlers.install()
        Figures(directory / "figures", self._announce_figure).install()
        systems.at_fork(before=self.capture.before_fork, after_in_child=self._abandon)
        self.capture.start_drainer(lambda: self.service.followed)
        self.daemon.start()
        end_with_client(birth)

    def run(self) -> NoReturn:
        """Load what was shipped earlier, run the init file, then serve."""
        self._take_from_shelf()
        if self.spec.init:
            self._run_init(Path(self.spec.init))
        while True:
            try:
                reason = self.loop.run(self.daemon)
            except KeyboardInterrupt:
                continue  # a SIGINT between the cells
            except Exception as error:  # noqa: BLE001  a signal handler of the user's raised while nothing ran
                if isinstance(error, OSError) and error.errno == errno.EBADF:
                    self.end("user code closed the descriptors of the kernel itself", code=_BROKEN)
                log.warning("raised between the cells: %r", error)
                continue
            self.end(reason)

    def _lend_own(self, value: Any, shown: str) -> Lent:
        """Lend an object of user code to this very kernel, which is about to pin it."""
        return self.references.lend(value, shown=shown, holder=self.birth.instance)

    def _look_around(self) -> bool:
        """Do what waits for the main thread to rest; say whether a submitted cell was among it."""
        self._handlers.run_waiting(self.executor.interpreter.run_aside)
        if self.references.has_remains:
            self.executor.interpreter.run_aside(self.references.bury)
        return self.cells.run_queued()

    def end(self, reason: str, code: int = 0) -> NoReturn:
        """Say goodbye in the journal and leave at once; the host knows why."""
        self.publications.close()
        self.capture.drain()
        self.journal.append(EventKind.STOPPED, reason=reason)
        with contextlib.suppress(OSError):
            os.unlink(self.birth.socket)
        # Not sys.exit: threads of user code could hold the process for ever.
        os._exit(code)

    def _take_from_shelf(self) -> None:
        """Load what was shipped to the group of this kernel before it started, as cells like that of shipping."""
        name = self.spec.name
        try:
            wanted = meant_for(self.shelf.index(), name, self.spec.tags)
        except PyrokernelError as error:
            self.service.init_error = str(error)
            return
        if not wanted:
            return
        # The earlier life died of these: one by one the next one finds out which it is, and the one after goes without.
        suspects = self.shelf.deadly(name)
        died = "the kernel died of it at its last start; ship it anew when it is mended"
        deadly = suspects if len(suspects) == 1 else set()
        failures = [f"ship {one.shown}: {died}" for one in wanted if one.digest in deadly]
        wanted = [one for one in wanted if one.digest not in deadly]
        failed = self._load_shipped(wanted) if wanted and not suspects - deadly else ""
        # Together, as they were shipped; if that fails, one by one: what is broken costs itself alone.
        if suspects - deadly or (failed and len(wanted) > 1):
            failures += [failure for one in wanted if (failure := self._load_shipped([one]))]
        elif failed:
            failures.append(failed)
        if deadly:
            self.shelf.begin_loading(name, deadly)
        else:
            self.shelf.end_loading(name)
        self.service.init_error = "; ".join(failures)

    def _load_shipped(self, wanted: list[Shipped]) -> str:
        """Load modules as a cell; return what failed, "" when all went well."""
        shown = f"ship {', '.join(one.shown for one in wanted)}"
        self.shelf.begin_loading(self.spec.name, [one.digest for one in wanted])
        call = (self.executor.extensions.ship, Packed.dump(((wanted,), {})), False)
        reply = self.cells.run(Cell(source=shown, call=call, want="none", author="shelf"))
        if reply["status"] != "ok":
            return f"{shown}: {reply['ename']}: {reply['evalue']}"
        held = {(one.name, one.digest) for one in self.executor.extensions.shipping.loaded()}
        lost = [one.shown for one in wanted if (one.name, one.digest) not in held]
        return f"{shown}: the files of {', '.join(lost)} are gone from {self.shelf.folder}; ship again" if lost else ""

    def _run_init(self, path: Path) -> None:
        """Run the init file as the first cell, visible and interruptible like any other."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            source = f"raise FileNotFoundError({f'the init file {path}: {error}'!r})"
        sys.path.insert(0, str(path.parent))
        reply = self.cells.run(Cell(source=source, want="none", author="init", filename=str(path)))
        if reply["status"] != "ok":
            raised = f"{reply['ename']}: {reply['evalue']}"
            self.service.init_error = f"{raised}; {self.service.init_error}".removesuffix("; ")

    def _running_cell(self) -> str:
        running = self.cells.running
        return running.id if running else ""

    def _announce_figure(self, path: str) -> None:
        self.capture.drain()
        self.journal.append(EventKind.FIGURE, self._running_cell(), path=path, type="image/png")

    def _report_progress(self, cell: str, done: float, total: float, text: str) -> None:
        self.journal.append(EventKind.PROGRESS, cell, done=done, total=total, text=text)

    def _ask(self, cell: str, request: str, prompt: str, password: bool) -> None:
        self.capture.drain()
        self.journal.append(EventKind.INPUT, cell, request=request, prompt=prompt, password=password)

    def _abandon(self) -> None:
        """In a child forked by user code: it is no kernel, and must not keep the kernel's sockets open."""
        self.daemon.abandon()
        self.capture.abandon_in_child()
        for connection in list(self.loop.connections):
            connection.close()


def _prepare_process(spec: KernelSpec) -> None:
    """Bring environment, directory, limits and `sys` to where user code expects them.

    Raises:
        SettingsError, OSError: The working directory or a limit cannot be had.
    """
    os.environ.update(spec.env)
    show_as(f"pk:{spec.name}")
    if spec.cwd:
        os.chdir(spec.cwd)
    _set_limits(spec)
    sys.setswitchinterval(SWITCH_SECONDS)
    sys.argv = [""]
    if not sys.path or sys.path[0] != "":
        sys.path.insert(0, "")
    sys.path[1:1] = [folder for folder in spec.path if folder not in sys.path]
    # No handler for SIGTERM, with which the host asks to end: CPython forgets a signal that reaches a forked child in
    # its first moment if there is one, and `Process.terminate()` would then be lost.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A parent that ignores SIGINT (a shell's background job) hands that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _set_limits(spec: KernelSpec) -> None:
    """Limit memory and descriptors.

    Raises:
        SettingsError: Memory is to be limited where the system has no such thing.
    """
    resource = systems.limits()
    if resource is None:
        if spec.memory_bytes:
            raise SettingsError(f"kernel {spec.name!r}: this system limits no memory; start it without `memory_bytes`")
        return
    if spec.memory_bytes:
        # Data, not address space: BLAS and memory maps reserve far more of that than they use.
        resource.setrlimit(resource.RLIMIT_DATA, (spec.memory_bytes, spec.memory_bytes))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = spec.descriptors or hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
