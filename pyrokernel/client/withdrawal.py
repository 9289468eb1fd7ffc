"""Withdrawal: taking cells back that nobody waits for any more, as after Ctrl-C. Runs in the caller's process."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.errors import KernelDiedError, KernelRestartedError, PyrokernelError
from pyrokernel.texts import label

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh
    from pyrokernel.wire.fanout import Request

_ANSWER_SECONDS = 0.5
"""A kernel that takes longer holds its interpreter; it finds the request when it lets go."""

_INSIST_SECONDS = 0.2

_CTRL_C_SECONDS = 3.0
"""Whoever presses Ctrl-C has the prompt back after so long, whatever the kernels do."""

_SLICE_SECONDS = 0.1


def withdraw(mesh: Mesh, cells: Mapping[Link, Sequence[str]]) -> dict[str, str]:
    """Keep cells from starting and interrupt those that run, on all kernels at once; no other cell is touched.

    Args:
        mesh: Where they are.
        cells: The way to each kernel, and the ids of what was sent to it, in that order.

    Returns:
        Kernel name to why something of it may go on there; empty when nothing does.
    """
    links = {link.name: link for link in cells}
    left: dict[str, list[str]] = {link.name: list(sent) for link, sent in cells.items()}
    holding: dict[str, str] = {}

    def ask(requests: Mapping[str, Request]) -> tuple[dict[str, Any], set[str]]:
        """Ask kernels by name; return answers and who did not answer."""
        asked = [links[name] for name in requests]
        answers, errors, missing = gather(mesh, asked, requests, kind="control", timeout=_ANSWER_SECONDS)
        for name, error in errors.items():
            left[name].clear()
            if not isinstance(error, (KernelDiedError, KernelRestartedError)):
                holding[name] = str(error)
        return answers, set(missing)

    # From the back: what waits behind the running cell must not start when that one is interrupted.
    for name, cancelled in ask({name: kernel_request("cancel", sent[::-1]) for name, sent in left.items()})[0].items():
        left[name] = [cell for cell, gone in zip(left[name], reversed(cancelled), strict=True) if not gone]
    for position in range(max(map(len, left.values()), default=0)):
        running = {name: sent[position] for name, sent in left.items() if len(sent) > position}
        receipts, silent = ask(
            {name: kernel_request("interrupt", cell, _INSIST_SECONDS) for name, cell in running.items()}
        )
        for name, receipt in receipts.items():
            if receipt["outcome"] == "unanswered":
                silent.add(name)
            elif receipt["outcome"] not in ("interrupted", "not running"):
                holding[name] = f"{receipt['outcome']}: the code went on after the interrupt"
        for name in silent:
            holding[name] = _signal(mesh, links[name], running[name])
            left[name].clear()  # whoever was silent once is not asked about each of the others in turn
    return holding


def _signal(mesh: Mesh, link: Link, cell: str) -> str:
    """Have its host signal a kernel that cannot answer; return why the cell may go on."""
    try:
        mesh.signal_kernel(link, signal.SIGINT, cell)
    except PyrokernelError as error:
        return f"a C call holds the interpreter, and its host cannot help: {error}"
    return "a C call holds the interpreter; the interrupt waits for its end"


def describe_withdrawal(what: str, names: Sequence[str], holding: Mapping[str, str]) -> str:
    """Say what became of a withdrawal, and what to try where something goes on.

    Args:
        what: What was sent, such as "the cell".
        names: The kernels it was sent to.
        holding: As `withdraw` returned it.
    """
    stopped = [name for name in names if name not in holding]
    parts = [f"{what} was stopped on {label(stopped)}"] if stopped else []
    parts += [f"{what} may go on in {name} ({why})" for name, why in holding.items()]
    if holding:
        parts.append("`interrupt(escalate=True)` there ends it at the cost of the variables")
    return "; ".join(parts)


def obey_ctrl_c(error: KeyboardInterrupt, stop: Callable[[], str], otherwise: str) -> None:
    """Stop what Ctrl-C was pressed for, and note on the exception what came of it; the caller raises it again.

    Takes at most 3 s, whatever the kernels do; a second Ctrl-C leaves at once.

    Args:
        error: What Ctrl-C raised.
        stop: Does it, and says what came of it; goes on in a thread of its own when the time is up.
        otherwise: What to note when that is not known in time.
    """
    said: list[str] = []

    def work() -> None:
        try:
            said.append(stop())
        except PyrokernelError as failure:
            said.append(f"{otherwise} ({failure})")

    thread = threading.Thread(target=work, name="pyrokernel-ctrl-c", daemon=True)
    try:
        thread.start()
        deadline = time.monotonic() + _CTRL_C_SECONDS
        while thread.is_alive() and time.monotonic() < deadline:
            # In slices: a signal just before a lock is waited for does not end that wait.
            thread.join(_SLICE_SECONDS)
    except KeyboardInterrupt as again:
        again.add_note(otherwise)
        raise
    error.add_note(said[0] if said else otherwise)
