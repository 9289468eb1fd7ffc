"""Every message that crosses the wire, as frozen dataclasses. Runs in every process.

On the wire a message is a plain dict (`to_wire`), so that a stock Pyro5 client in
any language can read and write it with serpent or JSON; `from_wire` takes it back
and ignores fields it does not know. docs/protocol.md is the authority.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast, dataclass_transform

from pyrokernel.errors import (
    CellCancelledError,
    KernelDiedError,
    PyrokernelError,
    RemoteError,
    ResultUnavailableError,
)

PROTOCOL_VERSION = 1
"""Changes when an older peer could no longer be understood."""

KERNEL_OBJECT = "pyrokernel.kernel"
"""Object id of the one exposed object of a kernel; the same everywhere, so that one encoded request fits all."""

HOST_OBJECT = "pyrokernel.host"
"""Object id of the one exposed object of a host."""

STATE_OBJECT = "pyrokernel.shared"
"""Object id of the shared state, and the name by which it is registered at the name server."""

KERNEL_PREFIX = "pyrokernel.kernel."
"""Kernels are registered at the name server as this prefix and their name."""

HOST_PREFIX = "pyrokernel.host."
"""Hosts are registered at the name server as this prefix and the machine's name."""

PUBLISHED_CLASS = "class:pyrokernel.published"
"""Metadata of the names of published objects at the name server."""

PUBLISHED_OBJECT = "pyrokernel.published."
"""Published objects are served as this prefix and their name; by the same they are reached as references."""

LEASE_SECONDS = 60.0
"""How long a reference lives without being renewed."""

HABIT = "<habit>"
"""File name of a cell that a front end made of a command, such as `!ls`; tracebacks leave its frame out."""

START_SECONDS = 30.0
"""How long a kernel may take to say that it is ready; its init file runs after that."""

STOP_SECONDS = 5.0
"""How long a kernel that was asked to end may take before its host kills it."""


def bounded(seconds: float, most: float) -> float:
    """Return how long to wait for somebody who may ask for anything: at most so many seconds.

    Not a number is none: no wait of that length would end, nor sleep.
    """
    return max(0.0, min(float(seconds), most))


def new_id() -> str:
    """Make an id for a cell: 32 hexadecimal digits, which is a Pyro correlation id."""
    return os.urandom(16).hex()


def new_instance_id() -> str:
    """Make an id for one life of a kernel: 16 hexadecimal digits."""
    return os.urandom(8).hex()


def new_client_id() -> str:
    """Make an id for a client, by which its cells are told from those of others: 16 hexadecimal digits."""
    return os.urandom(8).hex()


class KernelStatus(enum.StrEnum):
    """What a kernel is doing; each line says who moves it on."""

    STARTING = "starting"
    """Forked or spawned; the kernel says ready, or the host gives up on it."""
    IDLE = "idle"
    """Waits for a request; the kernel moves on when it reads one."""
    BUSY = "busy"
    """Runs a cell; the kernel moves on when the cell ends."""
    DEAD = "dead"
    """The host collected its end; a restart makes a new instance."""
    UNKNOWN = "unknown"
    """Neither its host nor the kernel answers."""
    LOST = "lost"
    """Nothing is heard of its machine; whether it goes on there, shows when the machine answers again."""


class EventKind(enum.StrEnum):
    """What a journal event reports; `Event.data` holds the fields named here."""

    QUEUED = "queued"
    """A submitted cell waits: source, author, client, job. Unless the author is this account also kind ("user" or
    "host"); via ("HOST:PORT") from another machine; through (name of the host that has let the author in)."""
    STARTED = "started"
    """A cell began: source, author, client, job, execution_count; kind, via and through as above."""
    OUTPUT = "output"
    """Text was written: stream ("stdout" or "stderr"), text, late (true after the cell ended)."""
    RESULT = "result"
    """The value of the last expression: text, data (MIME bundle, when asked for)."""
    FIGURE = "figure"
    """The cell showed a figure: path (of the picture, on the kernel's machine), type (its MIME type)."""
    ERROR = "error"
    """The cell raised: ename, evalue, traceback."""
    PROGRESS = "progress"
    """A command says how far it is: done, total, text."""
    INPUT = "input"
    """The cell asks: request (id), prompt, password (true when it must not be echoed)."""
    ENDED = "ended"
    """The cell is over: status, duration, cpu."""
    STOPPED = "stopped"
    """The kernel ended by itself: reason."""
    GAP = "gap"
    """Something is missing here: reason, and first/last sequence numbers or lost_bytes."""


M = TypeVar("M", bound=type)


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def _message(cls: M) -> M:
    """Make a frozen dataclass; comparison and repr come from `Message`.

    Generating those anew for each class would take 6 ms of every start.
    """
    return cast(M, dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls))


@_message
class Message:
    """Base of all messages: plain data with names."""

    def to_wire(self) -> dict[str, Any]:
        """Return the message as a dict of plain data."""
        return {name: _to_plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__dataclass_fields__)

    __hash__ = None  # type: ignore[assignment]  # messages hold dicts

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
        return f"{type(self).__name__}({fields})"

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the message; unknown fields, from a newer peer, are left out, lists become tuples again.

        Raises:
            TypeError: A field without a default is missing.
        """
        # Serpent and JSON have no tuple, or lose it.
        return cls(
            **{
                name: tuple(data[name]) if is_tuple else data[name]
                for name, is_tuple in _fields(cast(Any, cls))
                if name in data
            }
        )


@functools.cache
def _fields(cls: type[Message]) -> list[tuple[str, bool]]:
    """Return the names of the fields of a message, and which hold tuples; a thousand are read at a time."""
    return [(field.name, isinstance(field.default, tuple)) for field in dataclasses.fields(cls)]


def _to_plain(value: Any) -> Any:
    if type(value) in (str, int, float, bool, dict):
        return value
    if isinstance(value, Message):
        return value.to_wire()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value


@_message
class Event(Message):
    """One entry of a journal.

    Attributes:
        seq: Position in the journal of one instance, from 1, without holes except where a gap event says so.
        kind: What it reports, an `EventKind`.
        cell: Id of the cell it belongs to; "" for none.
        at: Unix time in seconds.
        data: The fields that `EventKind` names for the kind.
    """

    seq: int
    kind: str
    cell: str = ""
    at: float = 0.0
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


@_message
class Reply(Message):
    """The answer of one kernel to one cell.

    Attributes:
        status: "ok", "error" (the code raised), "cancelled" (it never started), or "lost" (no reply came).
        kernel, instance, cell: Which kernel, which life of it, which cell.
        execution_count: Number of the cell in its kernel, from 1.
        stdout, stderr: What the cell wrote until it ended; the journal has the rest.
        truncated: Whether stdout, stderr or text were cut to keep the reply small.
        text: `repr` of the last expression's value, "" when there was none.
        data: The value as a MIME bundle, when asked for.
        value: The value itself in wire form, when asked for; read it through `result`.
        value_missing: Why the value is not here, or "".
        ename, evalue, traceback: The exception, when status is "error".
        started: Unix time in seconds. duration: Seconds of the kernel's monotonic clock.
        cpu: Seconds of processor time that the kernel's process used meanwhile, all its threads together.
        failure: What the machinery met, when status is "lost"; made by the client, never on the wire.
    """

    status: str
    kernel: str = ""
    instance: str = ""
    cell: str = ""
    execution_count: int = 0
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    text: str = ""
    data: dict[str, str] | None = None
    value: Any = None
    value_missing: str = ""
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    started: float = 0.0
    duration: float = 0.0
    cpu: float = 0.0
    failure: PyrokernelError | None = None

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without raising."""
        return self.status == "ok"

    @property
    def result(self) -> Any:
        """The value of the last expression; None when there was none.

        Raises:
            RemoteError: The code raised.
            CellCancelledError: The cell never ran.
            ResultUnavailableError: The value was too large, cannot be pickled, or was asked for as text only.
        """
        if self.status != "ok":
            self.raise_if_failed()
        missing = self.value_missing
        if not missing and self.value is None and (self.text or self.data):
            missing = 'it was asked for as text, which `.text` or `.data` has, and not with want="value"'
        if missing:
            raise ResultUnavailableError(kernel=self.kernel, cell=self.cell, reason=missing)
        load = getattr(
            self.value, "load", None
        )  # of plain data nothing has one; in wire form it is `wire.codec.Packed`
        return self.value if load is None else load()

    def error(self) -> PyrokernelError | None:
        """Return the failure as an exception, None when there is none."""
        if self.status == "ok":
            return None
        if self.failure is not None:
            return self.failure
        if self.status == "cancelled":
            return CellCancelledError(kernel=self.kernel, cell=self.cell)
        return RemoteError(
            kernel=self.kernel, ename=self.ename, evalue=self.evalue, traceback=self.traceback, cell=self.cell
        )

    def raise_if_failed(self) -> None:
        """Raise `error()` when there is one."""
        error = self.error()
        if error is not None:
            raise error

    def to_wire(self) -> dict[str, Any]:
        """Return the reply as plain data; `failure` stays with the client that made it."""
        wire = super().to_wire()
        del wire["failure"]
        return wire

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the reply; what is not there has its default, and a `failure` that a peer made up is left out."""
        # Not by the constructor, which sets 19 fields one by one: the defaults are attributes of the class already.
        reply = cls.__new__(cls)
        known = _REPLY_FIELDS.issuperset(data)
        reply.__dict__.update(data if known else {name: data[name] for name in data if name in _REPLY_FIELDS})
        if "status" not in reply.__dict__:
            raise TypeError("a reply has a status")
        return reply

    def __repr__(self) -> str:
        if self.status == "ok":
            body = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        else:
            body = f"{self.ename}: {self.evalue}" if self.ename else self.status
        return f"<Reply {self.kernel}[{self.execution_count}] {self.status} {body}".rstrip() + ">"


_REPLY_FIELDS = frozenset(Reply.__dataclass_fields__) - {"failure"}


@_message
class KernelSpec(Message):
    """What the host is asked to start and keep alive. Only `name` is required.

    Attributes:
        name: Name in the mesh: letters, digits, ".", "_" and "-", at most 64.
        tags: Words to choose kernels by.
        init: Path of a Python file run in the default namespace at every start, or "".
        env: Environment variables set before `init` runs.
        cwd: Working directory, or "" for the host's.
        path: Folders to import from, behind the working directory and before all others.
        preload: Modules imported into the template before the kernel is forked.
        protected: Never escalate an interrupt or restart without an explicit yes.
        restart: "always" after any death nobody asked for, "on-failure" (signal or non-zero exit), "never".
        threads: BLAS and OpenMP threads; 0 divides the processors among the kernels.
        memory_bytes: Limit of private memory, 0 for none.
        descriptors: Limit of open files, 0 for the host's own.
        journal_bytes: Cap of the journal on disk.
        idle_stop: Seconds without a request after which the kernel ends, 0 for never.
    """

    name: str
    tags: tuple[str, ...] = ()
    init: str = ""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    cwd: str = ""
    path: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    protected: bool = False
    restart: str = "always"
    threads: int = 0
    memory_bytes: int = 0
    descriptors: int = 0
    journal_bytes: int = 64 * 1024 * 1024
    idle_stop: float = 0.0


@_message
class KernelBirth(Message):
    """What one kernel process is given at birth: the spec and its place in the mesh.

    Attributes:
        spec: What was asked for, in wire form.
        instance: Id of this life.
        mesh, host: Names of the mesh and of the machine.
        socket: Path of the unix socket to listen on.
        journal_dir: Directory of this instance's journal; the kernel creates it.
        shelf: Directory of what was shipped on this machine, "" for none.
        ns: Address of the name server, for `connect()` inside the kernel.
        address: "HOST:PORT" at which other machines reach this one, "" where they do not.
        gateway: Unix socket by which it reaches other machines, "" for none.
        lifeline: Whether the kernel ends when its client does (inherited descriptor `lifeline_fd`).
        ready_fd, lifeline_fd: Descriptors to report on and to watch; -1 for none.
        role: What to be, a key of `host.roles.ROLES`; for the shared state `journal_dir` is where it keeps everything.
    """

    spec: dict[str, Any]
    instance: str
    mesh: str
    host: str
    socket: str
    journal_dir: str
    shelf: str = ""
    ns: str = ""
    address: str = ""
    gateway: str = ""
    ready_fd: int = -1
    lifeline_fd: int = -1
    role: str = "kernel"


@_message
class HostConfig(Message):
    """What a host process is told at its start, as JSON on its standard input.

    Attributes:
        settings: `Settings.dump()` of whoever starts it.
        specs: Kernels to start, `KernelSpec` in wire form.
        ready_fd: Descriptor on which it reports that it is ready, or why not; -1 for none.
        lifeline_fd: Descriptor whose end of file ends the host and its kernels at once; -1 for none.
        private: The mesh belongs to one client (`local()`): its kernels end with the host, its files too.
        detached: Stay when the terminal goes away: own session, SIGHUP ignored, output to `host.log`.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    specs: tuple[dict[str, Any], ...] = ()
    ready_fd: int = -1
    lifeline_fd: int = -1
    private: bool = False
    detached: bool = False

    def load_specs(self) -> list[KernelSpec]:
        """Return the declared kernels as objects."""
        return [KernelSpec.from_wire(spec) for spec in self.specs]


@_message
class KernelInfo(Message):
    """A kernel as its host sees it and, where it was asked, as it describes itself.

    Attributes:
        name, instance, host, uri, tags, pid, protected: Who and where.
        address: "HOST:PORT" at which other machines reach its machine, "" where they do not.
        status: A `KernelStatus`; a living kernel's own `describe` knows idle from busy.
        started: Unix time in seconds of this instance.
        restarts: How often the host restarted it.
        cause: Why it is dead, or "".
        memory_bytes: Proportional set size, 0 when unknown.
        running, waiting, execution_count, python, init_error, journal_error, last_seq: As the kernel's own
            `describe` says; None or empty where it was not asked.
        answers: Whether it was asked and answered; None when it was not asked.
        note: Why it did not answer, or "".
    """

    name: str
    instance: str
    host: str = ""
    uri: str = ""
    tags: tuple[str, ...] = ()
    pid: int = 0
    status: str = KernelStatus.STARTING
    protected: bool = False
    started: float = 0.0
    restarts: int = 0
    address: str = ""
    cause: str = ""
    memory_bytes: int = 0
    running: dict[str, Any] | None = None
    waiting: tuple[dict[str, Any], ...] = ()
    execution_count: int | None = None
    python: str = ""
    init_error: str = ""
    journal_error: str = ""
    last_seq: int = 0
    answers: bool | None = None
    note: str = ""


@_message
class Death(Message):
    """What the host recorded about the end of one instance.

    Attributes:
        kernel, instance: Who.
        at: Unix time in seconds.
        asked: Whether somebody had asked for it (stop, restart, idle limit).
        signal, exit_code: How it ended; both None when the host could not collect it (an adopted kernel).
        peak_memory_bytes: Largest resident set, or None.
        last_cell: The cell that was running: `{"cell": id, "source": str, "started": float}`, or None.
        tail: The last lines of its output, at most 4 KiB.
        cause: One sentence, for people.
        successor: Instance id that answers to the name now, "" when none does.
        started: Unix time in seconds of its birth, 0 when unknown.
    """

    kernel: str
    instance: str
    at: float
    asked: bool = False
    signal: int | None = None
    exit_code: int | None = None
    peak_memory_bytes: int | None = None
    last_cell: dict[str, Any] | None = None
    tail: str = ""
    cause: str = ""
    successor: str = ""
    started: float = 0.0

    def to_error(self) -> KernelDiedError:
        """Return the exception that callers of the kernel get."""
        return KernelDiedError(
            kernel=self.kernel,
            instance=self.instance,
            signal=self.signal,
            exit_code=self.exit_code,
            peak_memory_bytes=self.peak_memory_bytes,
            last_cell=self.last_cell,
            tail=self.tail,
            cause=self.cause,
        )


@_message
class Receipt(Message):
    """What became of an interrupt, per kernel.

    Attributes:
        kernel, cell: What was to be interrupted; cell is "" when nothing ran.
        outcome: "interrupted" (the exception was raised in the cell, and it has ended), "not running",
            "cancelled" (it had not started; `pyrokernel interrupt --cell`),
            "caught" (the exception was raised, and the cell goes on: it cleans up, or caught it),
            "unanswered" (the exception could not be raised: a C call holds on), "killed" (SIGKILL,
            a fresh instance answers), or "refused" (protected).
        detail: One sentence, for people.
    """

    kernel: str
    cell: str = ""
    outcome: str
    detail: str = ""


@_message
class Lent(Message):
    """An object that stays in its kernel, as its client learns of it.

    Attributes:
        token: What reaches it; whoever has it may use it.
        member: The method of it that is meant, "" for the object itself.
        shown: How it reads, such as the expression that it was made from.
        type: Name of its class.
        restricted: Whether public names only are reached, as by a URL.
        lease: Seconds until it has to be renewed; 0 when it need not be.
        times: How often it was lent to this client; given back with a smaller number, it stays.
    """

    token: str
    member: str = ""
    shown: str = ""
    type: str = ""
    restricted: bool = False
    lease: float = 0.0
    times: int = 0


@_message
class RefInfo(Message):
    """A reference as `refs` lists it. Its token is not in it: who may look need not be able to use it.

    Attributes:
        id: What `revoke` takes; it does not open anything.
        kernel: Where the object is.
        kind: "handle" (held by clients), "url" (mailed), "shared" (pinned under a name) or "published".
        shown, type: How it reads, and the class of the object.
        by: Who made it.
        created: Unix time in seconds.
        expires: Unix time in seconds at which it ends whatever happens; 0 for never.
        left: Seconds until it ends unless somebody renews it; 0 when nobody has to.
        restricted, exposed: Whether public names only are reached, or only those that are marked.
        uses: How many operations went through it.
        holders: How many clients hold it.
        pins: The names under which it is pinned.
    """

    id: str
    kernel: str = ""
    kind: str = "handle"
    shown: str = ""
    type: str = ""
    by: str = ""
    created: float = 0.0
    expires: float = 0.0
    left: float = 0.0
    restricted: bool = False
    exposed: bool = False
    uses: int = 0
    holders: int = 0
    pins: tuple[str, ...] = ()


@_message
class Completion(Message):
    """Answer to Tab.

    Attributes:
        matches: Full replacements of the text between the cursors; shape (n_matches,).
        types: One word per match ("function", "module", "int", ...); shape (n_matches,).
        cursor_start, cursor_end: Offsets in characters into the code that was sent.
    """

    matches: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    cursor_start: int = 0
    cursor_end: int = 0


@_message
class CommandInfo(Message):
    """What front ends are told of a command: enough to complete, check, document and call it.

    Attributes:
        name: How it is called.
        owner: Whose it is: "plugin NAME", or the shipped file.
        doc: Its docstring, "" for none.
        parameters: One dict each, in order; shape (n_parameters,). Their keys: name; kind ("positional", "either",
            "keyword", "rest" for `*args`, "options" for `**kwargs`); annotation (as written, "" for none); type (what
            a word on a command line becomes: "int", "float", "str", "bool", "path", "any", or "list of" one of them);
            choices (the only values, [] for no such limit); default (its repr); required; help (from the docstring).
        returns: What it returns, as written; "" when it does not say.
        safe: Whether it runs beside a running cell.
        streams: Whether it yields values one by one.
    """

    name: str
    owner: str = ""
    doc: str = ""
    parameters: tuple[dict[str, Any], ...] = ()
    returns: str = ""
    safe: bool = False
    streams: bool = False

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return self.doc.strip().partition("\n")[0]

    @property
    def signature(self) -> str:
        """Its signature as Python would write it."""
        written: list[str] = []
        kinds = [parameter["kind"] for parameter in self.parameters]
        for place, parameter in enumerate(self.parameters):
            if parameter["kind"] == "keyword" and not {"keyword", "rest"} & set(kinds[:place]):
                written.append("*")
            stars = {"rest": "*", "options": "**"}.get(parameter["kind"], "")
            annotation = f": {parameter['annotation']}" if parameter["annotation"] else ""
            equals = " = " if annotation else "="
            default = "" if parameter["required"] or stars else f"{equals}{parameter['default']}"
            written.append(f"{stars}{parameter['name']}{annotation}{default}")
            if parameter["kind"] == "positional" and kinds[place + 1 : place + 2] != ["positional"]:
                written.append("/")
        return f"({', '.join(written)})" + (f" -> {self.returns}" if self.returns else "")


@_message
class Shipped(Message):
    """A module that was shipped, in one version.

    Attributes:
        name: Of the module or package.
        digest: Of its files, 16 hexadecimal digits.
        shown: How it is called: the name of its file or folder.
        main: Path of its first file within the version.
        by: Who shipped it. at: Unix time in seconds.
        commands: Names of the commands that it has, where it is loaded.
        state: What shipping it did: "shipped", "replaced", "unchanged", "rerun" (what it imports was replaced), or
            "missing" (its files are not there yet); "" where that was not asked.
        was: The digest that it replaced, or "".
    """

    name: str
    digest: str
    shown: str = ""
    main: str = ""
    by: str = ""
    at: float = 0.0
    commands: tuple[str, ...] = ()
    state: str = ""
    was: str = ""


@_message
class StateEntry(Message):
    """What is known of a key of the shared state, without its value.

    Attributes:
        space: "" for the common one. key: Within it.
        revision: Of the last write. created: Of the one by which the key came to be. version: How many there were.
        kind: Who may read it: "int", "float", "str", "bytes", "plain", "pickle" or "reference" (`wire.values`).
        type: Name of its class. summary: It in a few words. size: In bytes.
        author: The account that wrote it, or whom it acted for. via: The kernel it was written from, and whose cell it
            ran if not of its account, "k0, ana"; "" for none.
        at: When, Unix time in seconds.
        expires: Seconds until it goes away unless somebody renews it; None for never.
    """

    space: str = ""
    key: str
    revision: int
    created: int = 0
    version: int = 1
    kind: str = ""
    type: str = ""
    summary: str = ""
    size: int = 0
    author: str = ""
    via: str = ""
    at: float = 0.0
    expires: float | None = None


@_message
class StateChange(StateEntry):
    """One write to a key of the shared state.

    Attributes:
        op: "set", "delete", or "expire" (its time ran out).
        restores: The revision that an undo brought back, -1 for the time before the first, 0 for no undo.
        kept: Whether the value of that version is still there.
        packed: The value in wire form, when it was asked for and is kept; read it through `Change.value`.
    """

    op: str = "set"
    restores: int = 0
    kept: bool = True
    packed: Any = None


@_message
class PluginInfo(Message):
    """What a process knows of a plugin.

    Attributes:
        name: The name of its entry point, or what follows `pyrokernel_` in the name of its file.
        module: What is imported.
        distribution, version: The package that it comes from, "" for a file of a plugins folder.
        where: The folder or file that it was found in.
        hooks, commands, names: What it contributes there; () as long as it is not loaded.
        loaded: Whether it was imported, and not given up.
        problems: What failed, one sentence each; with `loaded` the rest of it works all the same.
    """

    name: str
    module: str = ""
    distribution: str = ""
    version: str = ""
    where: str = ""
    hooks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    loaded: bool = False
    problems: tuple[str, ...] = ()


@_message
class Inspection(Message):
    """Answer to `name?`.

    Attributes:
        found: Whether the expression names something.
        name, type, signature, docstring, source, summary: What is known of it; "" where nothing is.
    """

    found: bool
    name: str = ""
    type: str = ""
    signature: str = ""
    docstring: str = ""
    source: str = ""
    summary: str = ""
