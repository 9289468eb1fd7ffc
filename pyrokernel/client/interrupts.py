"""Interrupting kernels, and what their hosts do about those that cannot react. Runs in the caller's process."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrokernel import systems
from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link
from pyrokernel.errors import PyrokernelError
from pyrokernel.messages import Receipt

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

_ANSWER_SECONDS = 0.2
"""Added to the time a kernel insists: one that does not even say that it failed holds its interpreter."""

_CLEAN_UP_SECONDS = 1.0
"""How long a cell that caught an interrupt may take to end by itself before it is killed."""

_REACT_SECONDS = 0.5
"""How long a kernel may take to be seen idle after its host has signalled it."""


def interrupt(
    mesh: Mesh, links: Sequence[Link], cell: str, *, escalate: bool, wait: float
) -> tuple[dict[str, Receipt], dict[str, PyrokernelError]]:
    """Interrupt what runs on some kernels, all at once.

    Args:
        mesh: Where they are.
        links: The ways to them.
        cell: Only where this cell is running; "" for any.
        escalate: Kill those whose cell goes on all the same, unless they are protected.
        wait: Seconds to insist before escalating.

    Returns:
        A receipt for each kernel that could be asked, the error for each of the others.
    """
    request = kernel_request("interrupt", cell, wait)
    values, errors, missing = gather(mesh, links, request, kind="control", timeout=wait + _ANSWER_SECONDS)
    receipts = {name: Receipt.from_wire(value) for name, value in values.items()}
    cells = {link.name: cell or (receipts[link.name].cell if link.name in receipts else "") for link in links}
    outcomes = {**dict.fromkeys(missing, "unanswered"), **{name: found.outcome for name, found in receipts.items()}}
    held = [link for link in links if outcomes.get(link.name) == "unanswered"]
    if held:
        receipts.update(_by_hosts(mesh, held, cells, kill=escalate))
    if escalate:
        receipts.update(_end_caught(mesh, [link for link in links if outcomes.get(link.name) == "caught"], cells))
    return {link.name: receipts[link.name] for link in links if link.name in receipts}, errors


def _by_hosts(mesh: Mesh, links: Sequence[Link], cells: dict[str, str], *, kill: bool) -> dict[str, Receipt]:
    """Let the hosts signal kernels that hold their interpreters in C calls, and kill those that hold on."""
    receipts: dict[str, Receipt] = {}

    def settle(link: Link, outcome: str, detail: str) -> None:
        receipts[link.name] = Receipt(kernel=link.name, cell=cells[link.name], outcome=outcome, detail=detail)

    asked = []
    for link in links:
        try:
            if mesh.signal_kernel(link, signal.SIGINT, cells[link.name]):
                asked.append(link)
            else:
                settle(link, "not running", "that instance is gone")
        except PyrokernelError as error:
            settle(link, "unanswered", f"its host cannot help: {error}")
    values, _, _ = gather(mesh, asked, kernel_request("describe"), kind="control", timeout=_REACT_SECONDS)
    for link in asked:
        about = values.get(link.name)
        running = about and about["running"]
        if about and (running is None or (cells[link.name] and running["cell"] != cells[link.name])):
            settle(link, "interrupted", "by its host")
        elif not kill:
            settle(link, "unanswered", "a C call does not let go")
        else:
            receipts[link.name] = _kill(mesh, link, cells[link.name], "a C call did not let go")
    return receipts


def _end_caught(mesh: Mesh, links: Sequence[Link], cells: dict[str, str]) -> dict[str, Receipt]:
    """Kill the kernels whose cells caught the interrupt and go on, once they had time to clean up."""
    requests = {link.name: kernel_request("reply", cells[link.name], _CLEAN_UP_SECONDS) for link in links}
    ended, _, _ = gather(mesh, links, requests, kind="control", timeout=_CLEAN_UP_SECONDS + _ANSWER_SECONDS)
    detail = "after it had cleaned up"
    return {
        link.name: Receipt(kernel=link.name, cell=cells[link.name], outcome="interrupted", detail=detail)
        if link.name in ended
        else _kill(mesh, link, cells[link.name], "the cell went on")
        for link in links
    }


def _kill(mesh: Mesh, link: Link, cell: str, why: str) -> Receipt:
    """Kill a kernel that does not react, unless it is protected."""

    def receipt(outcome: str, detail: str) -> Receipt:
        return Receipt(kernel=link.name, cell=cell, outcome=outcome, detail=detail)

    if mesh.is_protected(link.name):
        return receipt("refused", "the kernel is protected; only a restart by force ends what it runs")
    try:
        if not mesh.signal_kernel(link, systems.KILL):
            return receipt("not running", "that instance is gone")
    except PyrokernelError as error:
        return receipt("unanswered", f"its host cannot help: {error}")
    mesh.note_death(link.instance)
    return receipt("killed", f"{why}; instance {link.instance} is gone, a fresh one takes the name")
