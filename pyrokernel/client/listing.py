"""What kernels run, what waits there, and what ended last, asked of all at once. Runs in the caller's process."""

from __future__ import annotations

from typing import Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.group import Group
from pyrokernel.errors import PyrokernelError

ANSWER_SECONDS = 1.0
"""How long all kernels together get; one whose interpreter is held up cannot answer."""


def list_cells(group: Group, ended: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask kernels for their cells.

    Args:
        group: Which kernels.
        ended: How many of the cells that ended last.

    Returns:
        Per kernel the last cells that ended, what runs, what waits: each a dict with kernel, cell, status ("running",
        "waiting", or as a reply has it), author, source, and where they are known execution_count, ename, started
        and duration; and the kernels that did not answer.
    """
    abouts, _, _ = ask_all(group, "describe")
    pasts = ask_all(group, "cells", ended)[0] if ended else {}
    found: list[dict[str, Any]] = []
    for name, about in abouts.items():
        known = {cell["cell"] for cell in pasts.get(name, ())}
        found += [{"kernel": name, **cell} for cell in pasts.get(name, ())]
        running = about["running"]
        if running and running["cell"] not in known:
            found.append(
                {
                    **{key: running[key] for key in ("cell", "source", "author")},
                    "kernel": name,
                    "status": "running",
                    "execution_count": about["execution_count"],
                    "started": running.get("since", 0.0),
                }
            )
        found += [{"kernel": name, **cell, "status": "waiting"} for cell in about["waiting"]]
    return found, [name for name in group.names if name not in abouts]


def ask_all(
    group: Group, method: str, *args: Any, timeout: float = ANSWER_SECONDS
) -> tuple[dict[str, Any], dict[str, PyrokernelError], tuple[str, ...]]:
    """Ask all kernels of a group the same, at once, also while cells run.

    Args:
        group: Which kernels.
        method, args: A control method; docs/protocol.md lists them.
        timeout: Seconds for all of it.

    Returns:
        Values and errors by kernel name, and the names that did not answer in time.
    """
    links = [kernel.link for kernel in group]
    return gather(group.mesh, links, kernel_request(method, *args), kind="control", timeout=timeout)
