"""The plots of docs/performance.md, from the figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring import EXPERIMENTS, OURS

COLOURS = {
    OURS: "#1f5fa8",
    "multiprocessing Pipe": "#000000",
    "multiprocessing Pool": "#7f7f7f",
    "multiprocessing Manager": "#bcbd22",
    "shared_memory by hand": "#17becf",
    "Pyro5 (serpent)": "#e7969c",
    "Pyro5 (msgpack)": "#d62728",
    "execnet": "#c26a1b",
    "rpyc": "#2ca02c",
    "ipyparallel": "#9467bd",
    "Dask": "#f2b134",
    "Ray": "#e377c2",
    "Jupyter": "#8c564b",
    "Redis": "#98df8a",
}
LINES = (OURS, "execnet", "rpyc", "multiprocessing Pipe")
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
    figure, axes = _axes(7.6, 1.2 + 0.22 * len(chosen))
    shown: set[str] = set()
    for place, (row, sides) in enumerate(reversed(chosen)):
        for name, side in sides.items():
            name = name.removesuffix(", best chunks")
            if name == OURS or not side["to_ours"]:
                continue
            if name == row.floor:
                axes.plot(side["to_ours"], place, "|", color="#777777", markersize=12, markeredgewidth=2.5)
            if name in COLOURS:
                label = "_" if name in shown else name
                axes.plot(side["to_ours"], place, "o", color=COLOURS[name], markersize=5, label=label)
                shown.add(name)
    axes.axvline(1.0, color=COLOURS[OURS], linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(chosen)), [row.title for row, _ in reversed(chosen)], fontsize=7)
    axes.set_xlabel("times as long as pyrokernel, which is the line; left of it is faster. Bars are floors.")
    axes.legend(frameon=False, fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.3, -0.4 / len(chosen) * 4))
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
                    if name in LINES:
                        lines.setdefault(name, []).append((int(count), side["median"] * UNIT_SECONDS[row.unit]))
    simulated = rows.get("scaling-kernels", {}).get("points", {})
    if not lines and not simulated:
        return None
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], markersize=4, label=name)
    for style, (name, points) in zip(("s--", "^:"), simulated.items(), strict=False):
        axes.plot(*zip(*points, strict=True), style, color=COLOURS[OURS], markersize=4, label=name)
    return _finish(figure, axes, "kernels", "seconds for one call on all of them")


def _bytes(rows: dict[str, Any]) -> Any:
    """Push and pull by the size of the data."""
    points = rows.get("scaling-bytes", {}).get("points", {})
    if not points:
        return None
    figure, axes = _axes()
    for name, colour in (
        ("push", COLOURS[OURS]),
        ("pull", "#c26a1b"),
        ("memcpy + checksum", "#777777"),
        ("fill new memory", "#bbbbbb"),
    ):
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
