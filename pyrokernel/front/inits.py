"""What became of init files, as `serve` tells it. Runs in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence

from pyrokernel.client.inits import INIT_SECONDS, await_init
from pyrokernel.client.links import Link
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import complain, note
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import label


def report_inits(
    links: Sequence[Link], settings: Settings, protected: Container[str] = (), timeout: float = INIT_SECONDS
) -> ExitCode:
    """Wait for the init files of some kernels, say which failed and how to mend it, and which go on.

    Args:
        links: The ways to the kernels, all of which have an init file.
        settings: Their mesh.
        protected: Names of those that only force restarts.
        timeout: Seconds for all of it.

    Returns:
        CODE_RAISED when one has failed; its kernel runs all the same.
    """
    deadline = time.monotonic() + timeout
    failed: dict[str, list[str]] = {}
    going_on: list[str] = []
    for link in links:
        end = await_init(link, deadline)
        if end is None:
            going_on.append(link.name)
        elif end.ename:
            failed.setdefault(str(end), []).append(link.name)
    for said, names in failed.items():
        complain(
            f"{label(names)}: the init file failed: {said}; all of it: {command_line(settings, f'logs {names[0]}')}; "
            f"{advise_restart(names, settings, protected)}"
        )
    if going_on:
        watch = command_line(settings, f"logs {going_on[0]} -f")
        note(f"the init file still runs on {label(going_on)}; watch it: {watch}")
    return ExitCode.CODE_RAISED if failed else ExitCode.OK


def advise_restart(names: Sequence[str], settings: Settings, protected: Container[str]) -> str:
    """Return what mends kernels whose init file failed.

    Args:
        names: Which.
        settings: Their mesh.
        protected: Names of those that only force restarts.
    """
    words = [*names, *(["--force"] if any(name in protected for name in names) else [])]
    return f"correct the file, then: {command_line(settings, ' '.join(['restart', *words]))}"
