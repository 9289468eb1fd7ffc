"""Drawing a series or a histogram, with matplotlib. Runs in the process that asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyrokernel_timeseries.histograms import Histogram, intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot", "plot_histogram", "save"]


def plot(
    values: NDArray[np.float64], plot_points: int, points: bool, axes: Axes | None, options: Mapping[str, Any]
) -> Axes:
    """Draw a series; its parameters are those of `TimeSeries.plot`."""
    if plot_points < 0:
        raise ValueError("plot_points must not be negative")
    every = len(values) // plot_points if 0 < plot_points <= len(values) else 1
    drawn = axes or _current()
    look = {"linestyle": "none", "marker": "."} if points else {}
    drawn.plot(np.arange(0, len(values), every), values[::every], **{**look, **options})
    return drawn


def plot_histogram(
    counts: Sequence[float], where: Sequence[tuple[float, float]], axes: Axes | None, options: Mapping[str, Any]
) -> Axes:
    """Draw counts as bars over their bins."""
    drawn = axes or _current()
    begins = [begin for begin, _ in where]
    widths = [end - begin for begin, end in where]
    drawn.bar(begins, list(counts), **{"width": widths, "align": "edge", **options})
    return drawn


def save(histogram: Histogram, path: str, title: str) -> None:
    """Write a picture of a histogram; the end of `path` says of which format."""
    # Not by pyplot: this figure is nobody else's, and needs no screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    bins = len(histogram["counts"])
    where = intervals(histogram["low"], (histogram["high"] - histogram["low"]) / bins, bins)
    plot_histogram(histogram["counts"], where, axes, {})
    axes.set_title(title)
    figure.savefig(path)


def _current() -> Axes:
    from matplotlib import pyplot

    return pyplot.gca()
