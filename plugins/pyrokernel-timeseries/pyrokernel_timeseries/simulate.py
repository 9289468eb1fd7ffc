"""The command `simulate`: a histogram of random numbers, made where it runs. Runs in the kernel process."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from pyrokernel_timeseries.histograms import Histogram, count, outside

__all__ = ["Distribution", "bounds", "simulate"]

Distribution: TypeAlias = Literal["uniform", "normal", "semicircle", "lognormal"]

_BLOCK = 1 << 18
"""How many values there are at a time; a multiple of the blocks of `chance.fill`, so that cutting changes none."""


def simulate(
    self: Any,
    size: int,
    distribution: Distribution = "normal",
    loc: float = 0.0,
    scale: float = 1.0,
    bins: int = 50,
    seed: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Histogram:
    """Make random numbers and count them over fixed bins, so that histograms of several kernels can be merged.

    Args:
        size: How many. They are made a few at a time, so memory sets no limit.
        distribution: As for TimeSeries.randomize, where loc and scale are explained.
        loc: Where the distribution is.
        scale: How wide it is.
        bins: How many bins.
        seed: The same one gives the same numbers; without it they are new each time, and others on each kernel.
        low: Where the first bin begins; left out, it suits the distribution.
        high: Where the last bin ends; left out, it suits the distribution.

    Returns:
        A dict: low, high, the counts, and how many numbers were below and above.
    """
    import numpy as np

    from pyrokernel_timeseries.chance import fill, generator

    if size < 0:
        raise ValueError(f"size must not be negative, but is {size}")
    if bins <= 0:
        raise ValueError(f"bins must be positive, not {bins}")
    first, last = bounds(distribution, loc, scale, low, high)
    chosen = generator(seed)
    counts = np.zeros(bins, dtype=np.int64)
    below = above = 0
    values = np.empty(min(size, _BLOCK))
    for done in range(0, size, _BLOCK):
        block = values[: size - done]
        fill(block, distribution, loc, scale, chosen)
        inside, under, over = outside(block, first, last)
        counts += count(inside, first, (last - first) / bins, bins)
        below += under
        above += over
        self.progress(done + len(block), size)
    return Histogram(low=first, high=last, counts=counts.tolist(), below=below, above=above)


def bounds(
    distribution: str, loc: float, scale: float, low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """Return where bins begin and end; what is not given holds nearly all values of the distribution.

    Raises:
        ValueError: There is no room between them, or they are not finite.
        NotImplementedError: There is no such distribution.
    """
    wide = abs(scale)
    try:
        ranges = {
            "uniform": (loc, loc + scale),
            "normal": (loc - 5 * wide, loc + 5 * wide),
            "semicircle": (loc - 1.0, loc + 1.0),
            # The upper tail is so long that more would leave the bulk to a bin or two; 1 in 740 is above.
            "lognormal": (0.0, math.exp(min(loc + 3 * wide, 700.0))),
        }
        chosen = ranges[distribution]
    except KeyError:
        raise NotImplementedError(f"no distribution {distribution!r}; there are {', '.join(ranges)}") from None
    first, last = (float(own if given is None else given) for own, given in zip(chosen, (low, high), strict=True))
    if not (first < last and math.isfinite(last - first)):
        raise ValueError(f"a histogram from {first:g} to {last:g} has no room for bins; give low and high")
    return first, last
