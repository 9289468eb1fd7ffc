"""The table as markdown, and docs/performance.md with it and the plots, from the figures of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from measuring import EXPERIMENTS, OURS, Promise, Row

BEGIN, END = "<!-- table: written by tests/benchmarks/run.py --page -->", "<!-- end of table -->"

HEADINGS = {
    "multiprocessing Pipe": "Pipe",
    "multiprocessing Pool": "Pool",
    "multiprocessing Pool, best chunks": "Pool",
    "Pool.imap_unordered, chunks of 1": "Pool",
    "multiprocessing Manager": "Manager",
    "shared_memory by hand": "shared_memory",
}
"""Sides whose name is cut, or that share a column, in the table of peers."""

COLUMNS = ("Pipe", "Pool", "Manager", "shared_memory", "Pyro5 (serpent)", "Pyro5 (msgpack)", "execnet", "rpyc",
           "ipyparallel", "Dask", "Ray", "Jupyter", "Redis")  # fmt: skip


def figure(value: float | None, unit: str = "") -> str:
    """Write a figure with three digits or so."""
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}{' ' if unit else ''}{unit}"


def best(sides: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Return which of some sides took least, compared with ours in the rounds that both were in."""
    there = [name for name in names if sides.get(name, {}).get("to_ours")]
    return min(there, key=lambda name: sides[name]["to_ours"], default=None)


def promised(promise: Promise | None, unit: str) -> str:
    """Write a promise."""
    if promise is None:
        return ""
    of = " or ".join(promise.of)
    if promise.kind == "faster":
        return f"{promise.limit:g} times as fast as {'the best of ' if len(promise.of) > 1 else ''}{of}"
    if promise.kind == "within":
        return f"within {promise.limit:g} times {of}"
    if promise.kind == "above":
        return f"{of} + {promise.limit:g} {unit}"
    return f"under {promise.limit:g} {unit}"


def reached(promise: Promise | None, sides: dict[str, Any]) -> tuple[str, bool | None]:
    """Write what was reached of a promise, and say whether that is enough; None where it cannot be said."""
    if promise is None or OURS not in sides:
        return "", None
    ours = sides[OURS]["median"]
    if promise.kind == "under":
        return figure(ours), ours <= promise.limit
    other = best(sides, promise.of)
    if other is None:
        return "not taken", None
    ratio = sides[other]["to_ours"]
    of = f" ({other})" if len(promise.of) > 1 else ""
    if promise.kind == "faster":
        return f"{figure(ratio)}{of}", ratio >= promise.limit
    if promise.kind == "within":
        return f"{figure(1 / ratio)}{of}", 1 / ratio <= promise.limit
    excess = ours - sides[other]["median"]
    return f"{'+' if excess >= 0 else '-'} {figure(abs(excess))}{of}", excess <= promise.limit


def rows_of(results: dict[str, Any]) -> list[tuple[Row, dict[str, Any]]]:
    """Return the rows that there are figures or failures of, in order."""
    return [
        (row, results["rows"].get(row.name, {"sides": {}})["sides"])
        for experiment in EXPERIMENTS.values()
        for row in experiment.rows
        if row.name in results["rows"] or row.name in results["failed"]
    ]


def tables(results: dict[str, Any]) -> str:
    """Return the table of rows, then that of all peers, then what is missing."""
    made = results["made"]
    machine = f"{made['processors']} processors ({made['model']}), {made['memory_gib']} GiB, {made['system']}"
    lines = [
        f"{made['date']}, {machine}, Python {made['python']}; the run took {made['seconds']} s.",
        "",
        "| work | promised | reached | | median | p99 | first use | times the floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, sides in rows_of(results):
        text, enough = reached(row.promise, sides)
        mark = {True: "yes", False: "**no**", None: ""}[enough]
        ours = sides.get(OURS)
        if ours is None:
            why = (results["failed"].get(row.name) or "not taken").partition("\n")[0]
            lines.append(f"| {row.title} | {promised(row.promise, row.unit)} | {why} | | | | | |")
            continue
        floor = sides.get(row.floor)
        times = f"{figure(1 / floor['to_ours'])} ({row.floor})" if floor and floor["to_ours"] else ""
        cells = [row.title, promised(row.promise, row.unit), text, mark, figure(ours["median"], row.unit),
                 figure(ours["p99"]), figure(ours["first"]), times]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *peers(results)]
    return "\n".join(lines)


def peers(results: dict[str, Any]) -> list[str]:
    """Return the table of what everybody took: medians, a dash for who was not asked or cannot."""
    lines = [
        "| work | | pyrokernel | " + " | ".join(COLUMNS) + " | floor |",
        "|---|---" + "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for row, sides in rows_of(results):
        if OURS not in sides:
            continue
        by_column = {HEADINGS.get(name, name): side for name, side in sides.items()}
        values = [figure(by_column[column]["median"]) if column in by_column else "-" for column in COLUMNS]
        floor = figure(sides[row.floor]["median"]) if row.floor in sides else "-"
        lines.append("| " + " | ".join([row.title, row.unit, figure(sides[OURS]["median"]), *values, floor]) + " |")
    for side, why in results["absent"].items():
        lines += ["", f"{side}: {why}."]
    return lines


def write(docs: Path, results: dict[str, Any]) -> None:
    """Put tables and plots into the page."""
    import plots

    page = docs / "performance.md"
    text = page.read_text()
    assert BEGIN in text, f"{page} has no place for the table"
    block = f"{BEGIN}\n{tables(results)}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL))
    plots.draw(docs / "performance", results)
