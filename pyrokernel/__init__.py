"""Persistent, named Python kernels: the front door, and a map of the house. Runs in every process.

A *kernel* is a process that keeps your variables alive and runs your code, one cell
at a time. Kernels have names; all kernels registered at one name server are a *mesh*;
some of them, chosen together, are a *group*::

    import pyrokernel as pk

    with pk.local(4) as mesh:  # a private mesh that ends with the block
        replies = mesh[:].execute("import os; os.getpid()")

``pk.connect()`` reaches the mesh that ``pyrokernel serve`` keeps running.

The house: a folder is a process, `wire` is what lies between them. A room imports
from rooms above it, never from those below, nor from another process's folder::

    errors, settings, messages   the words: what can go wrong, be configured, be said
    roles, policy                what somebody may do, and who that is said of
    audit, loglimit              what is written down of who did what; how often a log says the same
    systems, loop, birth         what operating systems do differently; an event loop; the beginning of our processes
    texts                        what front/ and shell/ write: tables, sizes, journals as sessions
    controls                     what a terminal would obey in somebody else's words, made visible
    journal                      a kernel's event file: written in the kernel, read by its host
    again                        starting this interpreter anew with this very package
    commands, arguments          functions as commands: their signatures, checked and as command lines
    hookspecs, plugins           what plugins may contribute; finding and loading them
    stores                       what a store of the shared state must be able to do, for plugins that bring one
    scripts                      Python files as front/ and shell/ send them to kernels
    tracebacks                   tracebacks without the frames of whoever ran the code
    survey                       the analysis that `pyrokernel demo` spreads over kernels
    wire/                        connections, and who may open them; the only room that knows Pyro5
    certs/                       the authority of a mesh and its certificates; the only room that knows cryptography
    client/                      what you hold: Mesh, Group, Kernel, Cell, Job, Reference, Shared
    kernel/                      inside a kernel process: runs cells, captures output, completes names, lends objects
    state/                       the shared state of a mesh: one process that keeps keys, locks, queues and their past
    host/                        once per machine: starts, watches, restarts and stops kernels
    gateway/                     once per machine that lets others in: the one process that speaks TLS
    shell/                       the interactive front end; the only room that knows cmd2
    front/                       what each subcommand of `pyrokernel` does
    cli                          the `pyrokernel` command: its parser, exit codes

Public is what `__all__` lists, and `pyrokernel.errors`; the rest carries no promise.
Names are looked up when first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers know this name; importing it from `typing` would be half the cost of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrokernel import errors
    from pyrokernel.client.cell import Cell
    from pyrokernel.client.group import Group
    from pyrokernel.client.job import Job
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.launch import local
    from pyrokernel.client.locks import Lock
    from pyrokernel.client.mesh import Mesh, connect
    from pyrokernel.client.publishing import publish, unpublish
    from pyrokernel.client.queues import Queue
    from pyrokernel.client.reference import Reference
    from pyrokernel.client.shared import Shared
    from pyrokernel.client.transactions import Transaction
    from pyrokernel.client.watches import Change, Watch
    from pyrokernel.commands import command
    from pyrokernel.errors import (
        AccessRefusedError,
        CellCancelledError,
        CellError,
        CellNotFoundError,
        CommandNameTakenError,
        CommandNotFoundError,
        GatherError,
        HostError,
        InputUnavailableError,
        KernelConnectionError,
        KernelDiedError,
        KernelNotFoundError,
        KernelRestartedError,
        KernelUnreachableError,
        LockLostError,
        MachineLostError,
        MessageTooLargeError,
        NameServerError,
        NameServerNotFoundError,
        NameTakenError,
        NotSerializableError,
        PluginError,
        PluginLoadError,
        ProtocolError,
        PyrokernelError,
        ReferenceGoneError,
        RemoteError,
        ReplyTimeoutError,
        ResultExpiredError,
        ResultUnavailableError,
        SettingsError,
        ShipError,
        StateCompactedError,
        StateConflictError,
        StateCorruptError,
        StateError,
        StateKeyError,
        StateStorageError,
        StateTypeError,
        StateUnavailableError,
        StateValueError,
        VariableNotFoundError,
        VersionMismatchError,
        WouldDeadlockError,
    )
    from pyrokernel.hookspecs import hookimpl
    from pyrokernel.messages import (
        CommandInfo,
        Completion,
        Event,
        Inspection,
        KernelInfo,
        KernelSpec,
        PluginInfo,
        Receipt,
        RefInfo,
        Reply,
        Shipped,
        StateEntry,
    )
    from pyrokernel.settings import Settings
    from pyrokernel.wire.exposing import expose

__all__ = [
    "AccessRefusedError",
    "Cell",
    "CellCancelledError",
    "CellError",
    "CellNotFoundError",
    "Change",
    "CommandInfo",
    "CommandNameTakenError",
    "CommandNotFoundError",
    "Completion",
    "Event",
    "GatherError",
    "Group",
    "HostError",
    "InputUnavailableError",
    "Inspection",
    "Job",
    "Kernel",
    "KernelConnectionError",
    "KernelDiedError",
    "KernelInfo",
    "KernelNotFoundError",
    "KernelRestartedError",
    "KernelSpec",
    "KernelUnreachableError",
    "Lock",
    "LockLostError",
    "MachineLostError",
    "Mesh",
    "MessageTooLargeError",
    "NameServerError",
    "NameServerNotFoundError",
    "NameTakenError",
    "NotSerializableError",
    "PluginError",
    "PluginInfo",
    "PluginLoadError",
    "ProtocolError",
    "PyrokernelError",
    "Queue",
    "Receipt",
    "RefInfo",
    "Reference",
    "ReferenceGoneError",
    "RemoteError",
    "Reply",
    "ReplyTimeoutError",
    "ResultExpiredError",
    "ResultUnavailableError",
    "Settings",
    "SettingsError",
    "Shared",
    "ShipError",
    "Shipped",
    "StateCompactedError",
    "StateConflictError",
    "StateCorruptError",
    "StateEntry",
    "StateError",
    "StateKeyError",
    "StateStorageError",
    "StateTypeError",
    "StateUnavailableError",
    "StateValueError",
    "Transaction",
    "VariableNotFoundError",
    "VersionMismatchError",
    "Watch",
    "WouldDeadlockError",
    "__version__",
    "command",
    "connect",
    "errors",
    "expose",
    "hookimpl",
    "local",
    "publish",
    "unpublish",
]

__version__ = "0.1.0"

_ROOMS = {
    "Cell": "client.cell",
    "Change": "client.watches",
    "CommandInfo": "messages",
    "Completion": "messages",
    "Event": "messages",
    "Group": "client.group",
    "Inspection": "messages",
    "Job": "client.job",
    "Kernel": "client.kernel",
    "KernelInfo": "messages",
    "KernelSpec": "messages",
    "Lock": "client.locks",
    "Mesh": "client.mesh",
    "PluginInfo": "messages",
    "Queue": "client.queues",
    "Receipt": "messages",
    "RefInfo": "messages",
    "Reference": "client.reference",
    "Reply": "messages",
    "Settings": "settings",
    "Shared": "client.shared",
    "Shipped": "messages",
    "StateEntry": "messages",
    "Transaction": "client.transactions",
    "Watch": "client.watches",
    "command": "commands",
    "connect": "client.mesh",
    "expose": "wire.exposing",
    "hookimpl": "hookspecs",
    "local": "client.launch",
    "publish": "client.publishing",
    "unpublish": "client.publishing",
}
"""In which room each public name lives; the exceptions, which all end in "Error", live in `errors`."""


def __getattr__(name: str) -> object:
    """Fetch a public name from its room at first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'pyrokernel' has no attribute {name!r}")
    if name == "errors":
        return import_module("pyrokernel.errors")
    value: object = getattr(import_module("pyrokernel." + _ROOMS.get(name, "errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, fetched or not."""
    return sorted({*globals(), *__all__})
