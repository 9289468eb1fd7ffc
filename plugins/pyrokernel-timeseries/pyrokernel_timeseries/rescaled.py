"""Hurst's rescaled range, and his exponent. Runs in the kernel process.

Source: E. E. Peters, Fractal Market Analysis (1994), pages 61 to 63, as in Sage's `TimeSeries`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["hurst_exponent", "range_statistic"]


def range_statistic(walk: NDArray[np.float64], b: int | None = None) -> float:
    """Return R/S of a walk, or the mean R/S of its blocks of `b` values, each moved to begin at 0."""
    if not len(walk):
        raise ValueError("an empty series has no range")
    if b is None:
        return float(_ranges(walk.reshape(1, -1))[0])
    if b <= 0:
        raise ValueError(f"a block has at least 1 value, not {b}")
    number = len(walk) // b
    if not number:
        raise ZeroDivisionError(f"a series of {len(walk)} values has no block of {b}")
    blocks = walk[: number * b].reshape(number, b)
    return float(_ranges(blocks - blocks[:, :1]).sum()) / number


def _ranges(walks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R/S of each row."""
    n = walks.shape[1]
    # One step, or none, does not deviate.
    deviations = np.diff(walks, axis=1).std(axis=1, ddof=1) if n > 2 else np.zeros(len(walks))
    if not deviations.all():
        raise ZeroDivisionError("the rescaled range of steps that are all the same is not defined")
    # The distance from the straight line to the last position.
    away = walks - np.arange(1, n + 1) * walks[:, -1:] / n
    ranges: NDArray[np.float64] = (away.max(axis=1) - away.min(axis=1)) / deviations
    return ranges


def hurst_exponent(walk: NDArray[np.float64]) -> float:
    """Return the slope of log(R/S) over the logarithm of the block length, as the lengths double."""
    b = 8 if len(walk) > 32 else 4
    lengths, ranges = [], []
    while b <= len(walk):
        try:
            ranges.append(math.log(range_statistic(walk, b)))
            lengths.append(math.log(b))
        except ZeroDivisionError:
            pass  # a block stands still; other lengths may do
        b *= 2
    if not ranges:
        return 1.0
    if len(ranges) == 1:
        return ranges[0] / lengths[0]
    return float(np.polyfit(lengths, ranges, 1)[0])
