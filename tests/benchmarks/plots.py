"""The plots of docs/performance.md, from the figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring import EXPERIMENTS, OURS

COLOURS = {OURS: "#1f5fa8", "execnet": "#c26a1b", "rpyc": "#5a8f3c", "multiprocessing Pipe": "#777777"}
UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def draw(folder: Path, results: dict[str, Any]) -> None:
    """Write the plots that there are figures for."""
    import matplotlib

    matplotlib.use("svg")
    # Texts stay texts and nothing is dated: the files are small, and differ only where figures do.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "pyrokernel", "font.size": 9}
    folder.mkdir(exist_ok=True)
    for name, draw_one in (("peers", _peers), ("kernels", _kernels), ("bytes", _bytes)):
        figure = draw_one(results["rows"])
        if figure is not None:
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def _axes(width: float = 6.4, height: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _peers(rows: dict[str, Any]) -> Any:
    """How many times as long as ours each side takes, a line of dots for each row."""
    chosen = [
        (row, rows[row.name]["sides"])
        for one in EXPERIMENTS.values()
        for row in one.rows
        if row.unit != "MiB" and len(rows.get(row.name, {}).get("sides", {})) > 1
    ]
    if not chosen:
        return None
    figure, axes = _axes(7.6, 0.6 + 0.26 * len(chosen))
    for place, (row, sides) in enumerate(reversed(chosen)):
        for name, side in sides.items():
            if name == OURS or not side["to_ours"]:
                continue
            if name == row.floor:
                axes.plot(side["to_ours"], place, "|", color="#777777", markersize=11, markeredgewidth=2)
                continue
            axes.plot(side["to_ours"], place, "o", color=COLOURS.get(name, "#999999"), markersize=4)
            axes.annotate(name.removeprefix("multiprocessing "), (side["to_ours"], place), xytext=(3, 3),
                          textcoords="offset points", fontsize=5.5, color="#444444")  # fmt: skip
    axes.axvline(1.0, color=COLOURS[OURS], linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(chosen)), [row.title for row, _ in reversed(chosen)], fontsize=7)
    axes.set_xlabel("times as long as pyrokernel (the line); left of it is faster. The bar is the floor")
    return figure


def _kernels(rows: dict[str, Any]) -> Any:
    """One call on N kernels: real ones beside peers, simulated ones up to a thousand."""
    figure, axes = _axes()
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in EXPERIMENTS.values():
        for row in one.rows:
            kind, _, count = row.name.rpartition("-")
            if kind == "fan-out" and row.name in rows:
                for name, side in rows[row.name]["sides"].items():
                    if name in COLOURS:
                        lines.setdefault(name, []).append((int(count), side["median"] * UNIT_SECONDS[row.unit]))
    simulated = rows.get("scaling-kernels", {}).get("points", {})
    if not lines and not simulated:
        return None
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], markersize=4, label=name)
    for points in simulated.values():
        axes.plot(
            *zip(*points, strict=True), "s--", color=COLOURS[OURS], markersize=4, label=f"{OURS}, simulated kernels"
        )
    return _finish(figure, axes, "kernels", "seconds for one call on all of them")


def _bytes(rows: dict[str, Any]) -> Any:
    """Push and pull by the size of the data."""
    points = rows.get("scaling-bytes", {}).get("points", {})
    if not points:
        return None
    figure, axes = _axes()
    for name, colour in (("push", COLOURS[OURS]), ("pull", "#c26a1b"), ("memcpy + checksum", "#777777")):
        if points.get(name):
            axes.plot(*zip(*points[name], strict=True), "o-", color=colour, markersize=4, label=name)
    return _finish(figure, axes, "bytes", "seconds")


def _finish(figure: Any, axes: Any, across: str, up: str) -> Any:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(frameon=False)
    return figure
