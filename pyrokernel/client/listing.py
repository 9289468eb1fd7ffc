"""What kernels run, what waits there, and what ended last, asked of all at once. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.group import Group
from pyrokernel.errors import PyrokernelError

ANSWER_SECONDS = 1.0
"""How long all kernels together get; one whose interpreter is held up cannot answer."""


def list_cells(group: Group, ended: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Ask kernels for their cells.

    Args:
        group: Which kernels.
        ended: How many of the cells that ended last.

    Returns:
        Per kernel the last cells that ended, what runs, what waits: each a dict with kernel, cell, status ("running",
        "waiting", or as a reply has it), author, client, job, source, and where they are known execution_count,
        ename, evalue, started, duration, items and failed; and by kernel name why others told nothing, "" where they
        did not answer in time.
    """
    abouts, errors, _ = ask_all(group, "describe")
    pasts = ask_all(group, "cells", ended)[0] if ended else {}
    found: list[dict[str, Any]] = []
    for name, about in abouts.items():
        known = {cell["cell"] for cell in pasts.get(name, ())}
        found += [{"kernel": name, **cell} for cell in pasts.get(name, ())]
        running = about["running"]
        if running and running["cell"] not in known:
            found.append(
                {
                    **{key: running[key] for key in ("cell", "source", "author", "client", "job") if key in running},
                    "kernel": name,
                    "status": "running",
                    "execution_count": about["execution_count"],
                    "started": running.get("since", 0.0),
                }
            )
        found += [{"kernel": name, **cell, "status": "waiting"} for cell in about["waiting"]]
    return found, {name: str(errors.get(name, "")) for name in group.names if name not in abouts}


def fold_jobs(cells: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return cells with those of one job on one kernel as one entry, whose id is the job's.

    Args:
        cells: As `list_cells` returns them.
    """
    folded: dict[Any, list[Mapping[str, Any]]] = {}
    for position, cell in enumerate(cells):
        folded.setdefault((cell["kernel"], cell["job"]) if cell.get("job") else position, []).append(cell)
    return [_fold(found) if found[0].get("job") else found[0] for found in folded.values()]


def _fold(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one entry for the parts of a job on one kernel: from the beginning of the first to the end of the last."""
    begun = [part for part in parts if part.get("started")]
    ended = [part for part in parts if part["status"] not in ("running", "waiting")]
    # The first that failed speaks for all; between two parts a job runs, too.
    entry = {**next((part for part in ended if part["status"] != "ok"), parts[0]), "cell": parts[0]["job"]}
    entry["items"], entry["failed"] = (sum(part.get(name, 0) for part in ended) for name in ("items", "failed"))
    if len(ended) < len(parts):
        entry["status"], entry["ename"] = "running" if begun else "waiting", ""
    if begun:
        entry["started"] = min(part["started"] for part in begun)
        entry["execution_count"] = min(part["execution_count"] for part in begun)
        entry["duration"] = max(part["started"] + part.get("duration", 0.0) for part in begun) - entry["started"]
    return entry


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
