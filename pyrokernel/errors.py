"""Every public exception of pyrokernel, and how it crosses the wire. Runs in every process.

The tree (an `except` clause can be chosen from here without further search)::

    PyrokernelError
      SettingsError (also ValueError)             a value or a PYROKERNEL_* name is wrong
      AccessRefusedError (also PermissionError)   a peer, address or directory fails the trust rules
      NameServerError
        NameServerNotFoundError                   nobody answers at the configured address
        NameTakenError                            a living instance holds the name
        KernelNotFoundError (also LookupError)    no kernel of that name, number, pattern or tag
      HostError                                   the host could not start, stop or place a kernel
      KernelConnectionError
        KernelUnreachableError                    no connection, although no death was announced
          MachineLostError                        nothing is heard of its machine: cable, power, or a firewall
        KernelDiedError                           the process is gone: signal or exit code, last cell, tail
        KernelRestartedError                      the handle belongs to an earlier instance
      CellError
        CellNotFoundError (also LookupError)      the kernel never saw a cell of that id
        CellCancelledError                        cancelled before it started
        ResultExpiredError                        the reply was evicted; the journal may still have its output
        ResultUnavailableError                    the value stayed in the kernel: too large or not picklable
      VariableNotFoundError (also LookupError)    the namespace has no variable of that name
      ReferenceGoneError (also LookupError)       what a reference led to: expired, revoked, or ended with its kernel
      InputUnavailableError (also EOFError)       input() with no front end attached, or no answer in time
      WouldDeadlockError                          a kernel would wait on itself, directly or in a ring
      ShipError                                   a file or folder that cannot become a module in kernels
      PluginError
        PluginLoadError                           a plugin could not be imported, or does not keep its contract
        CommandNameTakenError                     another plugin or file has a command of that name
        CommandNotFoundError (also LookupError)   no kernel of the group has a command of that name
      StateError
        StateUnavailableError                     the service of the shared state does not answer
        StateConflictError                        a condition does not hold: key, expected and actual revision
        StateKeyError (also KeyError)             the shared state has no such key
        StateTypeError (also TypeError)           the value of a key is not of a kind that allows this
        StateValueError                           a value cannot be loaded here, or its author is not trusted
        StateCompactedError                       changes that far back are forgotten
        StateStorageError                         the service cannot write: the disk is full, say
          StateCorruptError                       its file is damaged, or none of ours
        LockLostError                             a lock or lease that was held is held no more
      ReplyTimeoutError (also TimeoutError)       seconds waited, replies so far, names missing
      ProtocolError                               a message that does not parse or is out of place
        VersionMismatchError                      the peer speaks another protocol version
        MessageTooLargeError                      above the size one message may have
        NotSerializableError                      a value that cannot travel
      RemoteError                                 your code raised in a kernel
      GatherError                                 your code raised in several kernels

Two families: *your code raised* (`RemoteError`, `GatherError`) and *the machinery failed* (all others).
Every field is an attribute; messages are built from the fields, and end with what to try next.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AccessRefusedError",
    "CellCancelledError",
    "CellError",
    "CellNotFoundError",
    "CommandNameTakenError",
    "CommandNotFoundError",
    "GatherError",
    "HostError",
    "InputUnavailableError",
    "KernelConnectionError",
    "KernelDiedError",
    "KernelNotFoundError",
    "KernelRestartedError",
    "KernelUnreachableError",
    "LockLostError",
    "MachineLostError",
    "MessageTooLargeError",
    "NameServerError",
    "NameServerNotFoundError",
    "NameTakenError",
    "NotSerializableError",
    "PluginError",
    "PluginLoadError",
    "ProtocolError",
    "PyrokernelError",
    "ReferenceGoneError",
    "RemoteError",
    "ReplyTimeoutError",
    "ResultExpiredError",
    "ResultUnavailableError",
    "SettingsError",
    "ShipError",
    "StateCompactedError",
    "StateConflictError",
    "StateCorruptError",
    "StateError",
    "StateKeyError",
    "StateStorageError",
    "StateTypeError",
    "StateUnavailableError",
    "StateValueError",
    "VariableNotFoundError",
    "VersionMismatchError",
    "WouldDeadlockError",
    "error_from_wire",
    "error_to_wire",
]


class PyrokernelError(Exception):
    """Base of everything this package raises on purpose.

    Subclasses that carry fields list them in `fields`; those are the keyword
    arguments of the constructor, the attributes, and what crosses the wire.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **fields: Any) -> None:
        for name in self.fields:
            setattr(self, name, fields.pop(name, None))
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {min(fields)!r}")
        super().__init__(message or self.describe())

    def describe(self) -> str:
        """Build the message from the fields, for when none was given."""
        return type(self).__name__

    def __repr__(self) -> str:
        # The first line: what is below is a traceback, or the tail of an output, and would spoil a list of results.
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return error_from_wire, (error_to_wire(self),)


class SettingsError(PyrokernelError, ValueError):
    """A setting has a value it cannot have, or a name that does not exist."""


class AccessRefusedError(PyrokernelError, PermissionError):
    """A peer, an address or a directory does not pass the rules of trust."""


class NameServerError(PyrokernelError):
    """Something about the name server or the names it holds."""


class NameServerNotFoundError(NameServerError):
    """Nobody answers at the configured name-server address."""


class NameTakenError(NameServerError):
    """Another living instance holds the name."""

    fields = ("name", "holder")
    name: str
    holder: str

    def describe(self) -> str:
        return f"the name {self.name!r} is held by {self.holder}; choose another name, or stop that one first"


class KernelNotFoundError(NameServerError, LookupError):
    """No kernel answers to that name, number, pattern or tag."""


class HostError(PyrokernelError):
    """The host of a machine could not do what it was asked to."""


class KernelConnectionError(PyrokernelError):
    """The connection to a kernel is not there, or not to the kernel it was meant for."""

    fields: ClassVar[tuple[str, ...]] = ("kernel", "instance")
    kernel: str
    instance: str | None


class KernelUnreachableError(KernelConnectionError):
    """No connection to a kernel that nobody announced as dead."""


class MachineLostError(KernelUnreachableError):
    """Nothing is heard of the machine that something is on. Whether it still runs, nobody here can tell.

    Attributes:
        kernel: What was to be reached there, "" where that was no kernel.
        machine: Name or address of the machine.
        reason: What the system says.
    """

    fields = ("kernel", "instance", "machine", "reason")
    machine: str
    reason: str

    def describe(self) -> str:
        of = f"{self.kernel!r}: " if self.kernel else ""
        return (
            f"{of}nothing is heard of machine {self.machine} ({self.reason or 'no answer'}); what runs there "
            "may go on. See to its cable, power and firewall: once `pyrokernel ps` lists it again, cells are found by "
            "their ids"
        )


class KernelDiedError(KernelConnectionError):
    """The kernel's process is gone.

    Attributes:
        signal: Number of the signal that ended it, or None.
        exit_code: Its exit code when no signal ended it; None when nobody could collect it.
        peak_memory_bytes: Largest resident set it had, or None.
        last_cell: The cell that was running, as `{"cell": id, "source": str}`, or None.
        tail: The last lines of its output, at most 4 KiB.
        cause: One sentence that says all of it.
    """

    fields = ("kernel", "instance", "signal", "exit_code", "peak_memory_bytes", "last_cell", "tail", "cause")
    signal: int | None
    exit_code: int | None
    peak_memory_bytes: int | None
    last_cell: dict[str, Any] | None
    tail: str
    cause: str

    def describe(self) -> str:
        text = f"kernel {self.kernel!r} died: {self.cause or 'cause unknown'}"
        if self.tail:
            text += "\nlast output:\n" + "\n".join("  " + line for line in self.tail.splitlines()[-10:])
        return text


class KernelRestartedError(KernelConnectionError):
    """The name answers, but as a new instance: variables of the old one are gone.

    Raised once, at the first use of a handle after a restart its user did not ask
    for; from then on the handle belongs to the new instance.
    """

    fields = ("kernel", "instance", "new_instance")
    new_instance: str

    def describe(self) -> str:
        return (
            f"kernel {self.kernel!r} was restarted: instance {self.instance} is gone, {self.new_instance} answers now "
            "with a fresh namespace; repeat the call to use it"
        )


class CellError(PyrokernelError):
    """Something about one cell."""

    fields: ClassVar[tuple[str, ...]] = ("kernel", "cell")
    kernel: str
    cell: str


class CellNotFoundError(CellError, LookupError):
    """The kernel never saw a cell of that id, or has long forgotten it."""

    def describe(self) -> str:
        return f"kernel {self.kernel!r} knows no cell {self.cell}; `logs {self.kernel}` lists what it ran"


class CellCancelledError(CellError):
    """The cell was cancelled before it started."""

    def describe(self) -> str:
        return f"cell {self.cell} was cancelled on kernel {self.kernel!r} before it started"


class ResultExpiredError(CellError):
    """The cell ended, but its reply has been evicted to keep memory bounded."""

    def describe(self) -> str:
        return (
            f"the reply of cell {self.cell} on kernel {self.kernel!r} has expired; what it printed may still be in "
            f"`logs {self.kernel}`, and values it assigned can be pulled by name"
        )


class ResultUnavailableError(CellError):
    """The cell succeeded, but its value stayed in the kernel."""

    fields = ("kernel", "cell", "reason")
    reason: str

    def describe(self) -> str:
        text = f"the result on kernel {self.kernel!r} stayed there: {self.reason}"
        if "asked for" in str(self.reason):
            return text
        larger = ", or raise max_result_bytes" if "bytes" in str(self.reason) else ""
        return f"{text}; assign it to a name and pull() a part of it{larger}"


class VariableNotFoundError(PyrokernelError, LookupError):
    """The namespace of a kernel has no variable of that name."""

    fields = ("kernel", "names")
    kernel: str
    names: tuple[str, ...]

    def describe(self) -> str:
        names = ", ".join(repr(name) for name in self.names or ())
        return f"kernel {self.kernel!r} has no variable {names}; `variables()` lists what it has"


class ReferenceGoneError(PyrokernelError, LookupError):
    """A reference leads nowhere any more; where its kernel has ended, the cause says how."""

    fields = ("kernel", "instance", "reason")
    kernel: str
    instance: str
    reason: str

    def describe(self) -> str:
        return (
            f"the reference into kernel {self.kernel!r} leads nowhere: {self.reason}; "
            "make another with kernel.ref(), or ask for a new URL"
        )


class InputUnavailableError(PyrokernelError, EOFError):
    """input() found no front end attached, the one that was went away, or no answer came in time."""


class WouldDeadlockError(PyrokernelError):
    """A kernel would wait for itself, directly or through other kernels."""

    fields = ("ring",)
    ring: tuple[str, ...]

    def describe(self) -> str:
        return (
            "this wait would never end: " + " waits on ".join(self.ring) + "; use submit() and look at the reply later"
        )


class ShipError(PyrokernelError):
    """A file or folder cannot become a module in kernels; nothing of it was sent, or the kernel kept what it had."""


class PluginError(PyrokernelError):
    """Something about plugins or the commands that they and shipped files contribute."""


class PluginLoadError(PluginError):
    """A plugin could not be imported, or does not keep its contract; everything else works without it."""

    fields = ("name", "reason")
    name: str
    reason: str

    def describe(self) -> str:
        return f"plugin {self.name!r} is not loaded: {self.reason}; `--no-plugin {self.name}` goes without it"


class CommandNameTakenError(PluginError):
    """Another plugin or shipped file has a command of that name."""

    fields = ("name", "owner", "holder")
    name: str
    owner: str
    holder: str

    def describe(self) -> str:
        return (
            f"the command {self.name!r} of {self.owner} is refused, because {self.holder} has one of that name; "
            "rename one of them, or go without its owner (unship, --no-plugin)"
        )


class CommandNotFoundError(PluginError, LookupError):
    """No kernel that was asked has a command of that name."""

    fields = ("name", "names")
    name: str
    names: tuple[str, ...]

    def describe(self) -> str:
        known = ", ".join(self.names) or "none"
        return (
            f"there is no command {self.name!r}; there is: {known}. `pyrokernel commands` lists them with arguments; "
            "functions are commands if they are marked with @pyrokernel.command, or named remote_..."
        )


class StateError(PyrokernelError):
    """Something about the shared state."""


class StateUnavailableError(StateError):
    """The service of the shared state does not answer.

    Attributes:
        reason: What was tried.
        unsure: Whether a write was sent and not answered: it may have been carried out.
    """

    fields = ("reason", "unsure")
    reason: str
    unsure: bool

    def describe(self) -> str:
        unsure = "; what was just written may or may not be there" if self.unsure else ""
        return f"the shared state does not answer: {self.reason}{unsure}; see `pyrokernel doctor`"


class StateConflictError(StateError):
    """A condition of a write does not hold: nothing of it was written.

    Attributes:
        key: Which key.
        expected: The revision that was expected, 0 for no such key; None where something else was expected.
        actual: The revision that it has, 0 for no such key.
        author: Who wrote that.
    """

    fields = ("key", "expected", "actual", "author")
    key: str
    expected: int | None
    actual: int
    author: str

    def describe(self) -> str:
        by = f" by {self.author}" if self.author else ""
        if self.expected == 0:
            return f"{self.key!r} exists already (revision {self.actual}{by})"
        now = f"now at revision {self.actual}{by}" if self.actual else "gone"
        was = f"expected at revision {self.expected}" if self.expected is not None else "changed meanwhile"
        return f"{self.key!r} was {was} and is {now}; nothing was written: read it again, and decide anew"


class StateKeyError(StateError, KeyError):
    """The shared state has no such key."""

    fields = ("key",)
    key: str

    def describe(self) -> str:
        return f"{self.key!r} is no key of the shared state"

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the text in quotes


class StateTypeError(StateError, TypeError):
    """A key or value is not of a kind that allows what was asked for."""


class StateValueError(StateError):
    """A value is there, and cannot be had here.

    Attributes:
        key: Which key.
        type: Name of the value's class.
        author: Who wrote it.
        reason: Why it is not loaded.
    """

    fields = ("key", "type", "author", "reason")
    key: str
    type: str
    author: str
    reason: str

    def describe(self) -> str:
        return f"{self.key!r}, a {self.type} that {self.author or 'somebody'} wrote, is not loaded: {self.reason}"


class StateCompactedError(StateError):
    """Changes that far back are forgotten.

    Attributes:
        since: The revision to go on from.
        floor: The least revision from which all changes are known.
    """

    fields = ("since", "floor")
    since: int
    floor: int

    def describe(self) -> str:
        return (
            f"not all changes since revision {self.since} are known any more, only those since {self.floor}; "
            "read what there is now, and watch from its revision"
        )


class StateStorageError(StateError):
    """The service of the shared state cannot write; what was there before is untouched, and the service goes on."""

    fields: ClassVar[tuple[str, ...]] = ("path", "reason")
    path: str
    reason: str

    def describe(self) -> str:
        return f"the shared state cannot be kept in {self.path}: {self.reason}; nothing was changed"


class StateCorruptError(StateStorageError):
    """The file of the shared state is damaged or none of ours. It is left as it is.

    Attributes:
        backup: Path of the newest backup, "" when there is none.
    """

    fields = ("path", "reason", "backup")
    backup: str

    def describe(self) -> str:
        offer = (
            f"`pyrokernel state restore {self.backup}` puts the newest backup in its place (and keeps this file aside)"
            if self.backup
            else "there is no backup to restore; `sqlite3 FILE .recover` may still read it"
        )
        return f"the shared state in {self.path} is damaged: {self.reason}. It is left as it is; {offer}"


class LockLostError(StateError):
    """A lock or lease that was held is held no more: it ran out, or was taken away; what it protects may have changed.

    Attributes:
        name: Of the lock, or the key.
    """

    fields = ("name",)
    name: str

    def describe(self) -> str:
        return f"{self.name!r} is not held any more: its time ran out before it was renewed, or somebody broke it"


class ReplyTimeoutError(PyrokernelError, TimeoutError):
    """The deadline of a call passed.

    Attributes:
        seconds: How long was waited.
        cell: Id of the request, which goes on in the kernel.
        replies: What came in time, by kernel name.
        missing: Names of the kernels that did not answer.
    """

    fields = ("seconds", "cell", "replies", "missing")
    seconds: float
    cell: str
    replies: Mapping[str, Any]
    missing: tuple[str, ...]

    def describe(self) -> str:
        names = ", ".join(repr(name) for name in (self.missing or ())[:5])
        more = len(self.missing or ()) - 5
        if more > 0:
            names += f" and {more} more"
        noun = "kernel" if len(self.missing or ()) == 1 else "kernels"
        text = f"{noun} {names} did not answer in {self.seconds:g} s"
        if self.cell:
            return f"{text}; the cell goes on there: wait with `kernel.cell({self.cell!r}).reply()`, or interrupt it"
        return f"{text}: a C call may hold the interpreter; try `pyrokernel interrupt`"


class ProtocolError(PyrokernelError):
    """A message that does not parse, or is out of place."""


class VersionMismatchError(ProtocolError):
    """The peer speaks another version of the protocol."""


class MessageTooLargeError(ProtocolError):
    """More bytes than one message may have."""


class NotSerializableError(ProtocolError):
    """A value that cannot travel between processes."""


class RemoteError(PyrokernelError):
    """Code raised in a kernel.

    Attributes:
        kernel: Name of the kernel.
        ename: Class name of the exception there.
        evalue: Its text.
        traceback: The formatted traceback with the lines of the cell.
        cell: Id of the cell.
        index, item: Of a job, which item the function was called with: its index, and a short text of it.
    """

    fields = ("kernel", "ename", "evalue", "traceback", "cell", "index", "item")
    kernel: str
    ename: str
    evalue: str
    traceback: str
    cell: str
    index: int | None
    item: str | None

    def describe(self) -> str:
        head = f"{self.ename}: {self.evalue}" if self.evalue else str(self.ename)
        which = f"item {self.index} ({self.item}) " if self.index is not None else ""
        text = f"{head} ({which}in kernel {self.kernel!r})"
        if self.traceback:
            text += "\n" + self.traceback.rstrip("\n")
        return text


class GatherError(PyrokernelError):
    """Several kernels of a group failed, or some did.

    Attributes:
        errors: Kernel name to the exception it met; shape (n_failed,).
        replies: Kernel name to what the others answered; shape (n_ok,).
    """

    fields = ("errors", "replies")
    errors: Mapping[str, PyrokernelError]
    replies: Mapping[str, Any]

    SHOWN: ClassVar[int] = 3

    def describe(self) -> str:
        errors = dict(self.errors or {})
        total = len(errors) + len(self.replies or {})
        lines = [f"{len(errors)} of {total} kernel{'' if total == 1 else 's'} failed"]
        alike: dict[str, list[str]] = {}
        for name, error in errors.items():
            alike.setdefault(without_origin(str(error), name), []).append(name)
        for text, names in list(alike.items())[: self.SHOWN]:
            shown = text if len(names) > 1 else str(errors[names[0]])
            lines.append(f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}: {shown}")
        restarted = [name for name, error in errors.items() if isinstance(error, KernelRestartedError)]
        if restarted and self.replies:
            lines.append(f"the others have done it: repeat it on group[{restarted!r}] only")
        more = len(alike) - self.SHOWN
        if more > 0:
            lines.append(f"and {more} other failure{'' if more == 1 else 's'}; see .errors")
        return "\n".join(lines)


def without_origin(text: str, kernel: str) -> str:
    """Return a failure's text without what differs where kernels fail alike: kernel's name and number of the cell.

    Only where a text of ours names the kernel: the same letters may stand in what the user's code said.
    """
    name = re.escape(repr(kernel))
    text = re.sub(rf"\bkernel {name}|^{name}(?=: )", "this kernel", text)
    return re.sub(r"<cell \d+>", "<cell>", text)


def error_to_wire(error: BaseException) -> dict[str, Any]:
    """Describe an exception as plain data.

    An exception of this package keeps its class and its fields. Any other keeps
    its class name and its text.
    """
    if isinstance(error, PyrokernelError):
        fields = {name: _plain(getattr(error, name, None)) for name in error.fields}
        return {"error": type(error).__name__, "message": str(error), "fields": fields}
    return {"error": type(error).__name__, "message": str(error), "fields": {}}


def error_from_wire(data: Mapping[str, Any]) -> Exception:
    """Rebuild what `error_to_wire` described.

    Only classes of this module and the builtin exceptions come back as themselves;
    anything else becomes a `ProtocolError` that names it, so a peer cannot choose
    what is constructed here.
    """
    name = str(data.get("error", ""))
    message = str(data.get("message", ""))
    cls = globals().get(name)
    if isinstance(cls, type) and issubclass(cls, PyrokernelError):
        fields = {key: _revive(value) for key, value in dict(data.get("fields") or {}).items() if key in cls.fields}
        # Never an empty text: describe() would be run on fields whose types a peer chose.
        return cls(message or name, **fields)
    builtin = getattr(builtins, name, None)
    # UnicodeError and ExceptionGroup cannot be made from a text alone.
    special = (UnicodeError, BaseExceptionGroup)
    if isinstance(builtin, type) and issubclass(builtin, Exception) and not issubclass(builtin, special):
        return builtin(message)
    return ProtocolError(f"{name}: {message}")


def _plain(value: Any) -> Any:
    """Turn exceptions inside a field into plain data, one level deep."""
    if isinstance(value, PyrokernelError):
        return error_to_wire(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _revive(value: Any) -> Any:
    """Undo `_plain`."""
    if isinstance(value, Mapping):
        if set(value) == {"error", "message", "fields"}:
            return error_from_wire(value)
        return {key: _revive(item) for key, item in value.items()}
    return value
