"""The one exposed object of a kernel: thin, plain data in and out. Runs in the kernel process.

`execute` and `call` arrive on work connections in the main thread, or on any thread of a
control connection (a stock Pyro5 client), where they queue and wait. Everything else is
answered at once, also while a cell runs. docs/protocol.md describes each method.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

from pyrokernel.audit import AuditFile, entry, whose
from pyrokernel.client import inside
from pyrokernel.client.parcels import pack_variables
from pyrokernel.errors import NotSerializableError, ProtocolError, SettingsError, VariableNotFoundError
from pyrokernel.journal import Journal
from pyrokernel.kernel.arrays import hand_over, measure
from pyrokernel.kernel.burst import KeptJob
from pyrokernel.kernel.calls import command_meant
from pyrokernel.kernel.capture import Capture
from pyrokernel.kernel.cell import Cell, listed
from pyrokernel.kernel.cells import Cells
from pyrokernel.kernel.chunk import Chunk
from pyrokernel.kernel.completion import complete
from pyrokernel.kernel.executor import Executor
from pyrokernel.kernel.extensions import Extensions
from pyrokernel.kernel.inputs import Inputs
from pyrokernel.kernel.inspection import inspect_name, list_variables
from pyrokernel.kernel.interpreter import Namespace
from pyrokernel.kernel.interrupts import Interrupts
from pyrokernel.kernel.operations import Operation, members
from pyrokernel.kernel.paths import complete_path, complete_program
from pyrokernel.kernel.pins import SharedPins
from pyrokernel.kernel.references import Entry, References
from pyrokernel.kernel.requests import cell_id, maker, origin, show_call, shown
from pyrokernel.kernel.yielding import Yields
from pyrokernel.messages import (
    Completion,
    Event,
    EventKind,
    KernelBirth,
    KernelSpec,
    KernelStatus,
    Receipt,
    Shipped,
    bounded,
)
from pyrokernel.roles import Role
from pyrokernel.wire.codec import Packed, is_plain
from pyrokernel.wire.daemon import current_connection, current_peer
from pyrokernel.wire.exposing import expose, refusal
from pyrokernel.wire.limits import LOOK_BYTES, Turns
from pyrokernel.wire.trust import shown_identity

MAX_FOLLOW_SECONDS = 60.0
_MAX_FOLLOW_BYTES = 8 << 20
MAX_INTERRUPT_SECONDS = 5.0
_LINE_SECONDS = 0.001
"""How long a follower leaves it to the printing thread to bring the next line."""
_DETAILS = {"caught": "KeyboardInterrupt was raised, and the cell goes on"}
_WANTS = ("none", "text", "mime", "value")
_CELL_OPTIONS = (("namespace", str), ("waiters", tuple), ("filename", str), ("max_result_bytes", int))
"""Options that are attributes of the cell, and what makes them of what came."""

_MAIN = threading.main_thread().ident
_COMPLETED = ("python", "path", "program")


class KernelService:
    """What other processes may ask of a kernel.

    Args:
        birth: Who this kernel is.
        cells, executor, capture, journal, inputs, interrupts, extensions, references, pins: The rooms it is made of.
        record: The record of who did what on this machine.
        waiting_work: Lists the requests that wait unread in work connections.
        dismiss: Has nothing more begin of what has come on the work connections of somebody, by identity.
    """

    def __init__(
        self,
        birth: KernelBirth,
        *,
        cells: Cells,
        executor: Executor,
        capture: Capture,
        journal: Journal,
        inputs: Inputs,
        interrupts: Interrupts,
        extensions: Extensions,
        references: References,
        pins: SharedPins,
        record: AuditFile,
        waiting_work: Callable[[], list[dict[str, Any]]],
        dismiss: Callable[[str], None],
    ) -> None:
        self._birth = birth
        self._spec = KernelSpec.from_wire(birth.spec)
        self._cells, self._executor, self._capture, self._journal = cells, executor, capture, journal
        self._inputs, self._interrupts = inputs, interrupts
        self._extensions = extensions
        self._references = references
        self._pins, self._record = pins, record
        self._waiting_work, self._dismiss = waiting_work, dismiss
        self._followers = 0
        self._lock = threading.Lock()
        self._turns = Turns()
        self._started = time.time()
        self.init_error = ""

    @property
    def followed(self) -> bool:
        """Whether a front end waits for events right now."""
        return self._followers > 0

    @expose(Role.OBSERVER)
    def ping(self) -> str:
        """Answer with the instance id."""
        return self._birth.instance

    @expose(Role.USER)
    def execute(self, source: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a cell and return its reply."""
        self._cells.touch()
        cell = self._cell(source, options or {})
        cell.shown = shown(options or {})
        return self._run_or_wait(cell, options or {})

    @expose(Role.USER)
    def call(self, function: Any, arguments: Any, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a function or command, by name or pickled, and return the reply of that cell.

        `arguments` is a pickled (args, kwargs), or its stream; from a client without pickles, a list of the two.
        With option "map", args are the items, and the value is what `Chunk.call_each` returns.
        In place of a function, a dict is an operation on a reference.
        """
        options = {"want": "value", **(options or {})}
        cell = self._call_cell(show_call(function, options), function, arguments, options)
        if get_ident() != _MAIN and self._is_beside(cell):
            return self._for_peer(self._cells.run_beside(cell))
        return self._run_or_wait(cell, options)

    @expose(Role.USER)
    def more(self, arguments: Any, cell: str) -> dict[str, Any] | None:
        """Run another chunk of the job that this connection keeps (see `burst`); None where it keeps none."""
        self._cells.touch()
        return self._cells.known_reply(str(cell))

    @expose(Role.USER)
    def submit(self, source: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Queue a cell and return at once: its id, and the journal position to follow it from.

        With option "call", a list of function and arguments as for `call`, `source` is only how that reads; with
        "yields" the client reads the values of a generator one by one, by `values`.
        """
        options = options or {}
        call = options.get("call")
        if call is None:
            self._cells.touch()
        cell = self._cell(source, options) if call is None else self._call_cell(source, call[0], call[1], options)
        if cell.lend is None:
            cell.shown = shown(options)
        if options.get("yields"):
            cell.yields = Yields(cell.max_result_bytes, pauses=cell.lend is not None, data=cell.data)
        position = self._journal.last_seq
        if self._is_beside(cell):
            if self._cells.admit_beside(cell):
                current_connection().afterwards.append(lambda: self._start_beside(cell))
        elif self._cells.admit(cell):
            # Not before the answer is out: a cell that holds the interpreter would hold the answer too.
            current_connection().afterwards.append(lambda: self._cells.queue(cell))
        return {"cell": cell.id, "seq": position, "instance": self._birth.instance}

    @expose(Role.USER)
    def values(self, cell: str, after: int = 0, timeout: float = 0.0) -> dict[str, Any]:
        """Return what a cell that was submitted with "yields" has yielded after the first so many values.

        After less than none, the reader leaves: the rest is given up, and the generator ends; what is read through
        a reference is only made to pause.
        """
        found = self._cells.find(cell)
        if found.yields is None:
            raise SettingsError(f"cell {cell} was not submitted to be read value by value")
        if after < 0 and found.lend is not None:
            found.yields.pause()
        elif after < 0:
            found.yields.leave()
        wait = bounded(timeout, MAX_FOLLOW_SECONDS)
        return found.yields.take(after, wait, lambda: found.reply is not None, current_connection().sock)

    @expose(Role.USER)
    def ship(self, modules: list[dict[str, Any]], options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Load modules as a cell, whose value is a list of `Shipped`: from files that come along, or lie here."""
        self._cells.touch()
        options = {**(options or {}), "want": "value"}
        named = ", ".join(str(one.get("shown") or one.get("name")) for one in modules[:3])
        more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
        cell = self._cell(shown(options) or f"ship {named}{more}", options)
        by = cell.author
        wanted = [Shipped.from_wire({**one, "by": one.get("by") or by}) for one in modules]

        def run() -> list[dict[str, Any]]:
            self._extensions.shipping.store(modules)
            return self._extensions.ship(wanted)

        cell.call = (run, Packed.dump(((), {})), False)
        return self._run_or_wait(cell, options)

    @expose(Role.USER)
    def unship(self, names: list[str], options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Forget shipped modules and their commands as a cell, whose value are the names of those that were loaded."""
        self._cells.touch()
        options = {**(options or {}), "want": "value"}
        cell = self._cell(shown(options) or f"unship {', '.join(map(str, names))}", options)
        cell.call = (self._extensions.unship, Packed.dump(((list(map(str, names)),), {})), False)
        return self._run_or_wait(cell, options)

    @expose(Role.OBSERVER)
    def have(self, versions: list[list[str]]) -> list[list[str]]:
        """Say of each (name, digest) whether it is loaded ("unchanged", and its commands), lies here (""), or not."""
        shipping = self._extensions.shipping
        return [[shipping.state_of(name, digest), *shipping.commands_of(name, digest)] for name, digest in versions]

    @expose(Role.OBSERVER)
    def shipped(self) -> list[dict[str, Any]]:
        """List the modules that were shipped here."""
        return [one.to_wire() for one in self._extensions.shipping.loaded()]

    @expose(Role.OBSERVER)
    def commands(self) -> list[dict[str, Any]]:
        """List the commands: a `CommandInfo` each, by name."""
        return [info.to_wire() for info in self._extensions.commands()]

    @expose(Role.OBSERVER)
    def plugins(self) -> list[dict[str, Any]]:
        """List the plugins: a `PluginInfo` each, by name."""
        return [info.to_wire() for info in self._extensions.plugins()]

    @expose(Role.OBSERVER)
    def reference(self, token: str) -> dict[str, Any]:
        """Describe what a token reaches, a `Lent`.

        Raises:
            ReferenceGoneError: It reaches nothing any more.
        """
        return self._reached(token).lent().to_wire()

    @expose(Role.OBSERVER)
    def members(self, token: str, member: str = "") -> list[str]:
        """List the attributes of an object without running code of its owner, also while a cell runs.

        Raises:
            ReferenceGoneError: The token reaches nothing any more.
        """
        entry = self._reached(token)
        if member:
            return []
        return members(entry)

    @expose(Role.USER)
    def renew(self, tokens: list[str], seconds: float, client: str) -> list[bool]:
        """Hold references for a client for so many seconds from now; say which live."""
        return self._references.renew([str(token) for token in tokens], float(seconds), str(client))

    @expose(Role.USER)
    def give_back(self, tokens: dict[str, int], client: str) -> None:
        """End what a client holds, with each token how often it had been lent to it."""
        self._references.give_back(tokens, str(client))

    @expose(Role.USER)
    def share(self, token: str, options: dict[str, Any] | None = None) -> str:
        """Make a token that others may have: options "seconds" (null for as long as the kernel lives), "exposed".

        Raises:
            ReferenceGoneError: The token reaches nothing any more.
            SettingsError: Nothing of the object would be reached by it.
        """
        self._cells.touch()
        options = options or {}
        seconds = math.inf if options.get("seconds") is None else float(options["seconds"])
        by = maker(options, current_peer())
        return self._references.share(token, seconds=seconds, exposed=bool(options.get("exposed")), by=by).token

    @expose(Role.OBSERVER)
    def refs(self) -> list[dict[str, Any]]:
        """List the references that there are: a `RefInfo` each, without their tokens."""
        return [info.to_wire() for info in self._references.listing()]

    @expose(Role.USER)
    def revoke(self, which: str) -> int:
        """End a reference, by its id or its token, and all that was reached by it; return how many those were.

        Raises:
            AccessRefusedError: It was made by another user, and only admins end what others have made.
        """
        peer = current_peer()
        by = self._references.maker(str(which))
        if peer.role < Role.ADMIN and by not in ("", peer.identity):
            raise refusal(peer, f"revoking what {shown_identity(by)} has made", Role.ADMIN)
        return self._references.revoke(str(which))

    @expose(Role.USER)
    def pin(self, token: str, name: str) -> None:
        """Keep a reference alive under a name, whoever renews it."""
        self._cells.touch()
        self._references.pin(token, name)
        self._pins.note(token, name)

    @expose(Role.USER)
    def unpin(self, name: str) -> bool:
        """Let go of the reference that is kept under a name."""
        self._cells.touch()
        return self._references.unpin(name)

    @expose(Role.OBSERVER)
    def reply(self, cell: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the reply of a cell that was sent before, by anybody."""
        return self._for_peer(self._cells.wait(cell, _patience(timeout)))

    @expose(Role.USER)
    def cancel(self, cell: str | list[str]) -> bool | list[bool]:
        """Keep a cell from starting, or each of a list, in this order."""
        if isinstance(cell, str):
            return self._cells.cancel(cell)
        return [self._cells.cancel(str(one)) for one in cell]

    @expose(Role.ADMIN)
    def dismiss(self, identity: str) -> int:
        """Begin nothing more of what somebody has asked for who was sent away; what runs goes on.

        Args:
            identity: Such as "user:ana", "host:lab2", or "user:ana@lab2" of whom a host has let in.

        Returns:
            How many cells are cancelled that were submitted. What waits on connections is not counted.
        """
        self._dismiss(identity)
        return self._cells.dismiss(shown_identity(identity), identity.partition(":")[0])

    @expose(Role.USER)
    def curtail(self, cell: str) -> int:
        """Take back the items of a mapped call that have not begun; say how many it keeps, -1 if that is not known."""
        return self._cells.curtail(cell)

    @expose(Role.USER)
    def interrupt(self, cell: str = "", wait: float = 0.2) -> dict[str, Any]:
        """Interrupt the running cell, if it is the one that is meant; wait so many seconds for its end."""
        running, whose_cell = self._interrupts.running, self._cells.running
        outcome = self._interrupts.interrupt(cell, bounded(wait, MAX_INTERRUPT_SECONDS))
        if whose_cell is not None and whose_cell.id == running and outcome != "not running":
            self._note_interrupt(whose_cell, outcome)
        receipt = Receipt(
            kernel=self._spec.name, cell=cell or running, outcome=outcome, detail=_DETAILS.get(outcome, "")
        )
        return receipt.to_wire()

    def _note_interrupt(self, cell: Cell, outcome: str) -> None:
        """Write down that somebody interrupts what another runs."""
        peer = current_peer()
        if cell.author not in ("", peer.author):
            where = {"kernel": self._spec.name, "instance": self._birth.instance, "cell": cell.id}
            self._record.append([entry("interrupt", None, **whose(peer), of=cell.author, **where, outcome=outcome)])

    @expose(Role.OBSERVER)
    def follow(self, after: int = 0, timeout: float = 0.0, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return events after a journal position; wait up to `timeout` seconds for the first.

        Options: "cell" (only its events), "max_bytes", "stdin" (this front end answers input()).
        """
        options = options or {}
        peer = current_peer()
        if options.get("stdin") and not peer.may_run_code:
            raise refusal(peer, "answering input()", Role.USER)
        self._cells.touch()
        timeout = bounded(timeout, MAX_FOLLOW_SECONDS)
        cell = str(options.get("cell") or "")
        most = _MAX_FOLLOW_BYTES if peer.may_run_code else LOOK_BYTES
        max_bytes = min(int(options.get("max_bytes") or 1 << 20), most)
        front_end = current_connection().sock if options.get("stdin") else None
        if front_end is not None:
            self._inputs.begin_follow(cell, front_end)
        events: list[Event] = []
        try:
            self._await_events(after, timeout)
            with self._turns.of(peer):
                found = self._journal.read(after, max_bytes=max_bytes)
                events = [event for event in found if not cell or event.cell == cell or event.kind == EventKind.GAP]
                shown = [event.to_wire() for event in events]
        finally:
            if front_end is not None:
                self._inputs.end_follow(cell, front_end, events)
        return {
            "instance": self._birth.instance,
            "events": shown,
            "next": found[-1].seq if found else after,
            "last": self._journal.last_seq,
        }

    @expose(Role.USER)
    def answer(self, request: str, text: str | None) -> None:
        """Answer a question that input() asks; None is the end of input."""
        self._inputs.answer(request, text)

    @expose(Role.OBSERVER)
    def complete(self, code: str, cursor: int = -1, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Complete Python at a cursor; with option "what", a "path" or "program" of this machine."""
        self._cells.touch()
        idle = self._cells.running is None
        position = len(code) if cursor < 0 else cursor
        may_run = current_peer().may_run_code
        what = str((options or {}).get("what") or "python")
        if what not in _COMPLETED:
            raise SettingsError(f"what is one of {', '.join(_COMPLETED)}, not {what!r}")
        if what == "python":
            variables = self._seen(options)
            return complete(code, position, variables, allow_dir=idle and may_run, ask=may_run, files=may_run).to_wire()
        if not may_run:
            return Completion(cursor_start=position, cursor_end=position).to_wire()
        return (complete_program if what == "program" else complete_path)(code[:position]).to_wire()

    @expose(Role.OBSERVER)
    def inspect(self, code: str, cursor: int = -1, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Describe what a name means; option "detail" 1 adds the source."""
        position = len(code) if cursor < 0 else cursor
        detail = int((options or {}).get("detail", 0))
        may_run = current_peer().may_run_code
        return inspect_name(code, position, self._seen(options), detail=detail, ask=may_run).to_wire()

    @expose(Role.OBSERVER)
    def variables(self, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """List the variables of a namespace: name, type, summary; with option "names", only these."""
        names = (options or {}).get("names")
        space = self._space(options) if current_peer().may_run_code else self._existing(options)
        if space is None:
            return []
        # What plugins and commands have put there is nobody's variable, until somebody sets it.
        given = frozenset(space.untouched())
        return list_variables(space.variables, None if names is None else frozenset(names), without=given)

    @expose(Role.OBSERVER)
    def cells(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the last cells whose replies are kept, all of one job counted as one: source, author, status ..."""
        return self._cells.recent(limit)

    @expose(Role.USER)
    def push(self, items: Any, options: dict[str, Any] | None = None) -> None:
        """Set variables, at once, also while a cell runs.

        Raises:
            SettingsError: A name is not an identifier.
            NotSerializableError: The values cannot be loaded here.
        """
        self._cells.touch()
        values = items.load() if isinstance(items, Packed) else items
        for name in values:
            if not isinstance(name, str) or not name.isidentifier():
                raise SettingsError(f"cannot push to {name!r}: a variable is named by an identifier")
        self._variables(options).update(values)

    @expose(Role.USER)
    def pull(self, names: list[str], options: dict[str, Any] | None = None) -> Any:
        """Return variables, at once, also while a cell runs: pickled, or as plain data for a stock client.

        Options for one that is part of a larger array: "measure" (type and shape instead, if it is a large array),
        "into" (that, and its place in the segment that came along; true once it is there).

        Raises:
            VariableNotFoundError: There is no such variable.
            NotSerializableError: It cannot travel.
        """
        self._cells.touch()
        variables = self._variables(options)
        missing = [name for name in names if name not in variables]
        if missing:
            raise VariableNotFoundError(kernel=self._spec.name, names=tuple(missing))
        values = {name: variables[name] for name in names}
        options = options or {}
        if "into" in options:
            return hand_over(values[names[0]], options["into"], current_connection().arrival)
        measured = measure(values[names[0]]) if options.get("measure") and current_connection().segments else None
        if measured is not None:
            return measured
        if current_connection().vectored:
            of = f" of kernel {self._spec.name!r}"
            return pack_variables(values, of=of, instead="use it there, or pull what you need of it")
        if not is_plain(values):
            raise NotSerializableError("these values are not plain data, and this client does not read pickles")
        return values

    @expose(Role.OBSERVER)
    def describe(self) -> dict[str, Any]:
        """Say what this kernel is and does."""
        running = self._cells.running
        return {
            "name": self._birth.spec["name"],
            "instance": self._birth.instance,
            "host": self._birth.host,
            "mesh": self._birth.mesh,
            "pid": os.getpid(),
            "tags": list(self._spec.tags),
            "protected": self._spec.protected,
            "status": KernelStatus.BUSY.value if running else KernelStatus.IDLE.value,
            "running": {
                **listed(running.id, running.title, running.origin),
                "since": running.started,
                "asks": self._inputs.asks(running.id),
            }
            if running
            else None,
            "awaited": [list(pair) for pair in inside.awaited()],
            "waiting": self._cells.waiting()
            + [request for request in self._waiting_work() if not self._cells.is_cancelled(request["cell"])],
            "execution_count": self._executor.execution_count,
            "started": self._started,
            "python": ".".join(map(str, sys.version_info[:3])),
            "last_seq": self._journal.last_seq,
            "journal_error": self._journal.disk_error,
            "init_error": self.init_error,
            "commands": self._extensions.table.revision,
        }

    def _await_events(self, after: int, timeout: float) -> None:
        """Wait for the first event after a position, and have output collected quickly meanwhile."""
        with self._lock:
            self._followers += 1
        try:
            if timeout <= 0.0:
                self._capture.hurry()  # who only looks sees all that was written until then
            elif not self._journal.wait(after, 0.0):
                # A line that is about to be printed comes by itself; two threads that look for it would hold it up.
                self._capture.expect()
                if not self._journal.wait(after, min(timeout, _LINE_SECONDS)):
                    self._capture.hurry()
                    self._journal.wait(after, timeout)
        finally:
            with self._lock:
                self._followers -= 1

    def _run_or_wait(self, cell: Cell, options: dict[str, Any]) -> dict[str, Any]:
        if get_ident() == _MAIN:
            # The work loop sends this, and then settles the cell. All that a peer of ours finds left out is a default.
            reply = self._cells.run(cell, settle=False)
            sent = {name: value for name, value in reply.items() if value}
            if "value" in sent:
                sent["value"] = sent["value"].slim()
            return sent
        if self._cells.admit(cell):
            self._cells.queue(cell)
        return self._for_peer(self._cells.wait(cell.id, _patience(options.get("timeout"))))

    def _start_beside(self, cell: Cell) -> None:
        """Run an admitted cell on a thread of its own; where none can be had, that is what comes of it."""
        beside = threading.Thread(target=self._cells.run_admitted, args=(cell,), name="pyrokernel-beside", daemon=True)
        try:
            beside.start()
        except RuntimeError as error:
            failure = error

            def fail() -> None:
                raise failure

            cell.call, cell.chunk = (fail, Packed.dump(((), {})), False), None
            self._cells.run_admitted(cell)

    def _cell(self, source: str, options: dict[str, Any]) -> Cell:
        if not isinstance(source, str):
            raise SettingsError(f"source is a str, not {type(source).__name__}")
        want = options.get("want", "text")
        if want not in _WANTS:
            raise SettingsError(f"want is one of {', '.join(_WANTS)}, not {want!r}")
        cell = cell_id(options)
        connection = current_connection()
        whose = origin(options, connection.peer)
        begin = None
        if options.get("stdin"):
            front_end = connection.sock
            self._inputs.expect(cell, front_end)
            begin = functools.partial(self._inputs.renew, cell, front_end)
        made = Cell(source, id=cell, want=want, plain=not connection.vectored, begin=begin, **whose)
        for name, kind in _CELL_OPTIONS:
            given = options.get(name)
            if given:
                setattr(made, name, kind(given))
        if options.get("argv") is not None:
            made.argv = [str(word) for word in options["argv"]]
        return made

    def _for_peer(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Leave out a pickled value that the asking client could not read, or is not to."""
        connection = current_connection()
        if isinstance(reply["value"], Packed) and not (connection.vectored and connection.peer.may_run_code):
            return {**reply, "value": None, "value_missing": "this client does not read pickles"}
        return reply

    def _call_cell(self, source: str, function: Any, arguments: Any, options: dict[str, Any]) -> Cell:
        """Make the cell of a call, which may be an operation on a reference."""
        if isinstance(function, dict):
            return self._operation_cell(function, arguments, options)
        self._cells.touch()
        cell = self._cell(source, options)
        cell.call = (function, _packed(arguments), options.get("map") or False)
        if options.get("map"):
            cell.chunk = Chunk()
            if options.get("keep") and cell.want == "value" and cell.job:
                current_connection().kept = KeptJob(cell)
        return cell

    def _operation_cell(self, asked: dict[str, Any], arguments: Any, options: dict[str, Any]) -> Cell:
        """Make the cell of an operation on a reference; by one that is restricted only data comes and goes."""
        cell = self._cell("", options)
        makes = asked.get("op") == "make"  # nothing else is about variables, and asking for a namespace makes it
        operation = Operation(
            self._references,
            asked,
            holder=cell.client,
            by=maker(options, current_peer()),
            variables=self._executor.interpreter.namespace(cell.namespace).variables if makes else {},
            max_bytes=cell.max_result_bytes,
        )
        self._cells.touch()
        if options.get("map"):
            raise ProtocolError("an operation on a reference is not mapped")
        packed = _packed(arguments)
        cell.source, cell.data = operation.title, operation.restricted or asked.get("data") is True
        cell.call = (operation, packed.as_data() if cell.data else packed, False)
        cell.lend = operation.lend
        return cell

    def _is_beside(self, cell: Cell) -> bool:
        """Whether a cell calls a command that may run beside another, and came where it need not wait."""
        if cell.call is None or cell.lend is not None:
            return False
        meant = command_meant(cell.call[0], self._executor.interpreter.namespace(cell.namespace).variables)
        command = self._extensions.command(meant) if meant else None
        return command is not None and command.safe

    def _reached(self, token: str) -> Entry:
        """Return the entry of a token; one that is not restricted is for those who may run code."""
        entry = self._references.find(str(token))
        peer = current_peer()
        if entry.rules is None and not peer.may_run_code:
            raise refusal(peer, "what is reached by a reference", Role.USER)
        return entry

    def _space(self, options: dict[str, Any] | None) -> Namespace:
        return self._executor.interpreter.namespace(str((options or {}).get("namespace") or ""))

    def _existing(self, options: dict[str, Any] | None) -> Namespace | None:
        return self._executor.interpreter.existing(str((options or {}).get("namespace") or ""))

    def _seen(self, options: dict[str, Any] | None) -> dict[str, Any]:
        """Return the variables of a namespace; whoever may only look makes none by asking for it."""
        if current_peer().may_run_code:
            return self._variables(options)
        space = self._existing(options)
        return {} if space is None else space.variables

    def _variables(self, options: dict[str, Any] | None) -> dict[str, Any]:
        return self._space(options).variables


def _packed(arguments: Any) -> Packed:
    """Return the arguments of a call pickled, however they came."""
    return Packed.of(arguments) if isinstance(arguments, (Packed, bytes)) else Packed.dump(tuple(arguments))


def _patience(timeout: float | None) -> float | None:
    return None if timeout is None else bounded(timeout, threading.TIMEOUT_MAX)
