"""How cells are listed: one row for equal cells of several kernels. Pure. Runs in the shell process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyrokernel.client.listing import fold_jobs
from pyrokernel.texts import label, names_by, plural, span, status_of, wide_table

_HEADER = ("NUMBER", "CELL", "KERNELS", "FROM", "TIME", "STATUS", "SOURCE")
_ORDER = {"running": 1, "waiting": 2}
_NUMBERS_SHOWN = 3
_NAMES_WIDTH = 12


def format_cells(cells: Sequence[Mapping[str, Any]], *, now: float, whole_jobs: bool = True) -> str:
    """Lay out cells, one a line, as wide as the terminal: what ended, what runs, what waits.

    Args:
        cells: As `client.listing.list_cells` returns them.
        now: Unix time in seconds.
        whole_jobs: Give a job one line, and not one to each of its parts.
    """
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for cell in fold_jobs(cells) if whole_jobs else cells:
        alike.setdefault(cell["cell"], []).append(cell)
    groups = sorted(alike.values(), key=lambda found: (max(map(_order, found)), max(map(_started, found))))
    rows = [_row(found, now) for found in groups]
    return wide_table(_HEADER, rows, right=("NUMBER", "TIME"), spared=("TIME", "FROM", "CELL"))


def _row(found: Sequence[Mapping[str, Any]], now: float) -> tuple[str, ...]:
    first = found[0]
    numbers = sorted({cell["execution_count"] for cell in found if cell.get("execution_count")})
    shown = ",".join(map(str, numbers[:_NUMBERS_SHOWN])) + ("..." if len(numbers) > _NUMBERS_SHOWN else "")
    statuses = names_by({cell["kernel"]: status_of(cell) for cell in found})
    status = ", ".join(f"{what} on {_briefly(names)}" for what, names in statuses.items())
    status = status if len(statuses) > 1 else next(iter(statuses))
    items = sum(cell.get("items", 0) for cell in found)
    seconds = [_seconds(cell, now) for cell in found]
    time = span(max(seconds)) if any(cell["status"] not in ("waiting", "cancelled") for cell in found) else ""
    return (
        shown,
        first["cell"][:8],
        label(cell["kernel"] for cell in found),
        first["author"],
        time,
        f"{status} ({plural(items, 'item')})" if items else status,
        first["source"],
    )


def _briefly(names: Sequence[str]) -> str:
    """Name kernels, or count them where their names would push the source off the line."""
    named = label(names)
    return named if len(named) <= _NAMES_WIDTH else f"{len(names)} kernels"


def _order(cell: Mapping[str, Any]) -> int:
    return _ORDER.get(cell["status"], 0)


def _started(cell: Mapping[str, Any]) -> float:
    return float(cell.get("started") or 0.0)


def _seconds(cell: Mapping[str, Any], now: float) -> float:
    if cell["status"] == "running":
        return max(0.0, now - _started(cell)) if cell.get("started") else 0.0
    return float(cell.get("duration") or 0.0)
