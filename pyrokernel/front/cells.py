"""`cells`: what kernels run, what waits, what ended last. Runs in the caller's process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel.client.group import Group
from pyrokernel.client.listing import fold_jobs, list_cells
from pyrokernel.errors import CellNotFoundError, SettingsError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.texts import describe_missing, label, plural, span, status_of, wide_table

_HEADER = ("KERNEL", "CELL", "STATUS", "AUTHOR", "TIME", "SOURCE")


def main(args: argparse.Namespace) -> int:
    """List the cells of some kernels."""
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        found, silent = list_cells(mesh.select(args.words), args.ended)
    if args.json:
        say_json(found)
    elif found:
        say(format_cells(found, now=time.time()))
    elif not silent:
        note("no cells yet")
    for line in describe_missing(silent):
        complain(line)
    return ExitCode.TIMEOUT if silent else ExitCode.OK


def format_cells(cells: Sequence[Mapping[str, Any]], *, now: float) -> str:
    """Lay out cells, one a line, as wide as the terminal; all parts of a job on a kernel are one line.

    Args:
        cells: As `client.listing.list_cells` returns them.
        now: Unix time in seconds.
    """
    rows = [
        (
            cell["kernel"],
            cell["cell"][:8],
            _status_of(cell),
            cell["author"],
            _time_of(cell, now),
            cell["source"] or "(not read yet)",
        )
        for cell in fold_jobs(cells)
    ]
    return wide_table(_HEADER, rows, right=("TIME",))


def take_back(group: Group, beginning: str) -> tuple[str, list[str]]:
    """Cancel a cell where it waits.

    Args:
        group: The kernels that may have it.
        beginning: Its id, or how that begins.

    Returns:
        The whole id, also when it runs already; and the kernels on which it was waiting and now will not run.

    Raises:
        CellNotFoundError: No cell that runs or waits has such an id.
        SettingsError: Several have.
    """
    cells, silent = list_cells(group, 0)
    meant = [cell for cell in cells if cell["cell"].startswith(beginning)]
    ids = sorted({cell["cell"] for cell in meant})
    if not ids and silent and len(beginning) == 32:
        return beginning, []  # the kernel that runs it may be the one that cannot answer
    if not ids:
        raise CellNotFoundError(f"no cell that runs or waits on {label(group.names)} has an id that begins {beginning}")
    if len(ids) > 1:
        raise SettingsError(f"several cells have an id that begins {beginning}: {', '.join(ids)}")
    waiting = [cell["kernel"] for cell in meant if cell["status"] == "waiting"]
    return ids[0], [name for name in waiting if group[name].cancel(ids[0])]


def _status_of(cell: Mapping[str, Any]) -> str:
    status = status_of(cell)
    status = f"raised {status}" if status == cell.get("ename") else status
    return f"{status} ({plural(cell['items'], 'item')})" if cell.get("items") else status


def _time_of(cell: Mapping[str, Any], now: float) -> str:
    if cell["status"] == "running":
        return span(max(0.0, now - cell["started"])) if cell["started"] else ""
    return span(cell["duration"]) if cell.get("duration") else ""
