"""Exit codes have names, and every error has one. Runs in the caller's process."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from pyrokernel.errors import (
    AccessRefusedError,
    CellNotFoundError,
    CommandNotFoundError,
    GatherError,
    KernelConnectionError,
    KernelNotFoundError,
    NameServerNotFoundError,
    NameTakenError,
    ReferenceGoneError,
    RemoteError,
    ReplyTimeoutError,
    ResultExpiredError,
    SettingsError,
    StateConflictError,
    StateKeyError,
    StateUnavailableError,
)


class ExitCode(enum.IntEnum):
    """What `pyrokernel` tells the program that called it."""

    OK = 0
    """All went well."""
    CODE_RAISED = 1
    """Your code raised in a kernel, or an init file did at `serve --detach`."""
    USAGE = 2
    """The command line, a setting or a mesh file is wrong."""
    NO_MESH = 3
    """No mesh is running, or its name server does not answer."""
    NO_KERNEL = 4
    """No kernel, cell, command, shipped module, reference or shared key goes by that name."""
    KERNEL_DIED = 5
    """A kernel died, was restarted under way, or does not answer."""
    TIMEOUT = 6
    """No answer in time; what has started goes on."""
    REFUSED = 7
    """Not allowed, protected, or the name is taken."""
    UNWELL = 8
    """`doctor` found something wrong."""
    FAILED = 9
    """Anything else that the machinery could not do."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """Whoever read the output has gone."""


_CODES: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
    ((RemoteError,), ExitCode.CODE_RAISED),
    ((SettingsError,), ExitCode.USAGE),
    ((NameServerNotFoundError,), ExitCode.NO_MESH),
    (
        (KernelNotFoundError, CellNotFoundError, ResultExpiredError, CommandNotFoundError, StateKeyError),
        ExitCode.NO_KERNEL,
    ),
    ((ReferenceGoneError,), ExitCode.NO_KERNEL),
    ((KernelConnectionError,), ExitCode.KERNEL_DIED),
    ((ReplyTimeoutError, StateUnavailableError), ExitCode.TIMEOUT),
    ((AccessRefusedError, NameTakenError, StateConflictError), ExitCode.REFUSED),
    ((KeyboardInterrupt,), ExitCode.INTERRUPTED),
    ((BrokenPipeError,), ExitCode.PIPE_CLOSED),
)


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error; for several, the worst."""
    if isinstance(error, GatherError) and error.errors:
        return worst(code_of(one) for one in error.errors.values())
    return next((code for classes, code in _CODES if isinstance(error, classes)), ExitCode.FAILED)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code that says most: what the user did, then what the machinery met, then what the code did."""
    order = (ExitCode.OK, ExitCode.CODE_RAISED, ExitCode.TIMEOUT)
    return max(codes, key=lambda code: (order.index(code) if code in order else len(order), code), default=ExitCode.OK)
