"""Counting over given bins, merging counts, drawing them as text. Runs in every process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

from pyrokernel_timeseries.later import np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Histogram", "count", "draw", "intervals", "merge", "outside", "size"]

_BLOCK = 1 << 16
"""How many values are counted at a time: few enough to stay in the processor's cache."""


class Histogram(TypedDict):
    """Counts over bins of one width; plain data, so that it travels to those who lack this package."""

    low: float
    """Where the first bin begins."""
    high: float
    """Where the last bin ends; a value right there belongs to it."""
    counts: list[int]
    """How many values fell into each bin."""
    below: int
    """How many were less than `low`."""
    above: int
    """How many were more than `high`."""


def count(values: npt.NDArray[np.float64], low: float, step: float, bins: int) -> npt.NDArray[np.int64]:
    """Count values in `bins` bins of width `step` from `low` on; those at the end of the last bin belong to it.

    Args:
        values: Shape (n,), all of them within the bins.

    Returns:
        Shape (bins,).
    """
    counts = np.zeros(bins, dtype=np.int64)
    for start in range(0, len(values), _BLOCK):
        places = values[start : start + _BLOCK] - low
        places /= step
        counts += np.bincount(np.minimum(places.astype(np.int64), bins - 1), minlength=bins)
    return counts


def outside(values: npt.NDArray[np.float64], low: float, high: float) -> tuple[npt.NDArray[np.float64], int, int]:
    """Return the values from `low` to `high`, and how many are below and above."""
    below, above = values < low, values > high
    return values[~(below | above)], int(below.sum()), int(above.sum())


def intervals(low: float, step: float, bins: int) -> list[tuple[float, float]]:
    """Return where each bin begins and ends."""
    return [(low + j * step, low + (j + 1) * step) for j in range(bins)]


def size(histogram: Histogram) -> int:
    """Return how many values were counted, those outside the bins included."""
    return sum(histogram["counts"]) + histogram["below"] + histogram["above"]


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Add up histograms over the same bins.

    Raises:
        ValueError: There is none, or they have different bins.
    """
    merged: Histogram | None = None
    for one in histograms:
        if merged is None:
            merged = {**one, "counts": list(one["counts"])}
            continue
        bins, others = _bins(merged), _bins(one)
        if bins != others:
            raise ValueError(f"only histograms over the same bins can be merged: one has {bins}, another {others}")
        merged["counts"] = [a + b for a, b in zip(merged["counts"], one["counts"], strict=True)]
        merged["below"] += one["below"]
        merged["above"] += one["above"]
    if merged is None:
        raise ValueError("there is no histogram to merge")
    return merged


def _bins(histogram: Histogram) -> str:
    return f"{len(histogram['counts'])} bins from {histogram['low']!r} to {histogram['high']!r}"


_EIGHTHS = " ▏▎▍▌▋▊▉"


def draw(histogram: Histogram, width: int = 80, *, ascii_only: bool = False) -> str:
    """Draw a histogram as lines of text, a line per bin: where it begins, a bar, its count.

    Args:
        width: Of a line, in characters.
        ascii_only: Draw bars with "#", for terminals without block characters.
    """
    counts = histogram["counts"]
    step = (histogram["high"] - histogram["low"]) / len(counts)
    begins = [f"{begin:.4g}" for begin, _ in intervals(histogram["low"], step, len(counts))]
    numbers = [f"{number:,}" for number in counts]
    left = max(map(len, begins))
    room = max(width - left - max(map(len, numbers)) - 3, 8)
    most = max(counts) or 1
    lines = [
        f"{begin:>{left}} {'|' if ascii_only else '│'}{_bar(number / most, room, ascii_only)} {shown}"
        for begin, number, shown in zip(begins, counts, numbers, strict=True)
    ]
    for word in ("below", "above"):
        if number := histogram[word]:
            bound = histogram["low"] if word == "below" else histogram["high"]
            lines.append(f"{number:,} {word} {bound:.4g}")
    return "\n".join(lines)


def _bar(share: float, room: int, ascii_only: bool) -> str:
    if ascii_only:
        return "#" * round(share * room)
    whole, eighths = divmod(round(share * room * 8), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()
