"""The class TimeSeries: statistics, averages, transforms, chance. Runs in every process.

It does what the class of this name in Sage documents (https://doc.sagemath.org/html/en/reference/stats/),
written anew on NumPy. Where it does something else, the README says so.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsFloat, TypeAlias, overload

from pyrokernel_timeseries.histograms import count, intervals
from pyrokernel_timeseries.later import np
from pyrokernel_timeseries.values import Values

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    _Array: TypeAlias = npt.NDArray[np.float64]

__all__ = ["TimeSeries"]

_BLOCK = 1 << 16


def _total(function: Callable[..., _Array], *arrays: _Array) -> float:
    """Sum a function of arrays, block by block: no temporary of full length, and rounding as of pairwise sums."""
    with np.errstate(all="ignore"):
        starts = range(0, len(arrays[0]), _BLOCK)
        return float(np.sum([function(*(a[start : start + _BLOCK] for a in arrays)).sum() for start in starts]))


class TimeSeries(Values):
    """Floats in the order of time; can be changed.

    Logarithms of 0 and the like give infinities and NaN, as in C, without a warning.

    Args:
        values: A length, for that many zeros; or numbers; or an array, which is flattened. They are copied.
        initialize: False leaves the entries of a series of given length undefined, which is quicker.

    Raises:
        TypeError: It is neither a length nor numbers.
        ValueError: The length is negative, or something in `values` is no number.
    """

    __slots__ = ()

    # Chance.

    def randomize(
        self, distribution: str = "uniform", loc: float = 0, scale: float = 1, *, seed: int | None = None
    ) -> Self:
        """Overwrite the values with random numbers.

        Args:
            distribution: "uniform" from loc to loc + scale; "normal" of mean loc and standard deviation scale;
                "semicircle" of radius 1 around loc, whatever the scale; "lognormal", whose logarithm is that normal.
            seed: The same one gives the same numbers. Without it they come from the stream of this process, which
                no other process has; `set_random_seed` begins that anew.

        Returns:
            The series itself.

        Raises:
            ValueError: The scale of a uniform distribution is not positive.
            NotImplementedError: There is no such distribution.
        """
        from pyrokernel_timeseries.chance import fill, generator

        fill(self._values, distribution, loc, scale, generator(seed))
        return self

    # Transforms.

    def _mapped(self, function: Callable[[_Array], _Array]) -> Self:
        with np.errstate(all="ignore"):
            return self._of(function(self._values))

    def log(self) -> Self:
        """Return the logarithms; that of 0 is -inf, below it is NaN."""
        return self._mapped(np.log)

    def exp(self) -> Self:
        """Return the exponentials."""
        return self._mapped(np.exp)

    def abs(self) -> Self:
        """Return the absolute values."""
        return self._mapped(np.abs)

    def pow(self, k: float) -> Self:
        """Return the k-th powers."""
        return self._mapped(lambda values: np.power(values, float(k)))

    def scale(self, s: float) -> Self:
        """Return the values multiplied by `s`."""
        return self._mapped(lambda values: values * float(s))

    def rescale(self, s: float) -> None:
        """Multiply the values by `s`, in place."""
        with np.errstate(all="ignore"):
            self._values *= float(s)

    def add_scalar(self, s: float) -> Self:
        """Return the values with `s` added to each."""
        return self._mapped(lambda values: values + float(s))

    def add_entries(self, t: Iterable[SupportsFloat]) -> Self:
        """Return the sums of corresponding values; the shorter series is continued with zeros."""
        other = t if isinstance(t, Values) else TimeSeries(t)
        shorter, longer = sorted((self._values, other._values), key=len)
        summed = longer.copy()
        with np.errstate(all="ignore"):
            summed[: len(shorter)] += shorter
        return self._of(summed)

    def scale_time(self, k: int) -> Self:
        """Return every k-th value, from the first on.

        Raises:
            ValueError: k is not positive.
        """
        _positive(k)
        return self[::k]

    def diffs(self, k: int = 1) -> Self:
        """Return X_k - X_0, X_2k - X_k, ...; one value less than `scale_time(k)` has.

        Raises:
            ValueError: k is not positive.
        """
        _positive(k)
        return self._mapped(lambda values: np.diff(values[::k]))

    def log_returns(self, k: int = 1) -> Self:
        """Return the differences of the logarithms, log(X_k / X_0), log(X_2k / X_k), ...; Sage has no such method.

        Raises:
            ValueError: k is not positive.
        """
        return self.log().diffs(k)

    def sums(self, s: float = 0) -> Self:
        """Return the running sums, which begin with s + X_0."""
        if not s:
            return self._mapped(np.cumsum)
        return self._mapped(lambda values: np.cumsum(np.concatenate(([float(s)], values)))[1:])

    # Averages.

    def simple_moving_average(self, k: int) -> Self:
        """Return the averages of k values each: a value and those before it.

        The series is taken to have had its first value at all times before it. k = 0 means 1.

        Raises:
            ValueError: k is negative.
        """
        if k in (0, 1):
            return self._of(self._values.copy())
        _positive(k)
        return self._mapped(lambda values: _window_sums(values, k) / k) if len(self) else self._of(self._values.copy())

    def exponential_moving_average(self, alpha: float) -> Self:
        """Return the averages of all earlier values, of which the last has the weight alpha, and so on.

        The value at 0 is 0, that at 1 is X_0, and that at t is alpha X_(t-1) plus (1 - alpha) times that at t - 1.

        Raises:
            ValueError: alpha is not from 0 to 1.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, not {alpha!r}")
        return self._mapped(lambda values: _decaying_sums(values, float(alpha)))

    # Sums and moments.

    def sum(self) -> float:
        """Return the sum; 0.0 of an empty series."""
        with np.errstate(all="ignore"):
            return float(self._values.sum())

    def prod(self) -> float:
        """Return the product; 1.0 of an empty series."""
        with np.errstate(all="ignore"):
            return float(self._values.prod())

    def mean(self) -> float:
        """Return the mean; NaN of an empty series."""
        return _divided(self.sum(), len(self))

    def moment(self, k: int) -> float:
        """Return the mean of the k-th powers; NaN of an empty series.

        Raises:
            ValueError: k is not positive.
        """
        _positive(k)
        return self.mean() if k == 1 else _divided(_total(lambda values: values**k, self._values), len(self))

    def central_moment(self, k: int) -> float:
        """Return the mean of the k-th powers of the differences from the mean; 0.0 for k = 1, NaN of an empty series.

        Raises:
            ValueError: k is not positive.
        """
        if k == 1:
            return 0.0
        _positive(k)
        mean = self.mean()
        return _divided(_total(lambda values: (values - mean) ** k, self._values), len(self))

    def variance(self, bias: bool = False) -> float:
        """Return the variance; 0.0 of fewer than two values.

        Args:
            bias: Divide by n instead of n - 1.
        """
        if len(self) <= 1:
            return 0.0
        mean = self.mean()
        return _total(lambda values: (values - mean) ** 2, self._values) / (len(self) - (not bias))

    def standard_deviation(self, bias: bool = False) -> float:
        """Return the square root of the variance.

        Args:
            bias: Divide by n instead of n - 1.
        """
        return math.sqrt(self.variance(bias=bias))

    def covariance(self, other: TimeSeries) -> float:
        """Return the mean product of the differences from the means, over as many values as the shorter series has.

        The means are those of the whole series. NaN when a series is empty.
        """
        n = min(len(self), len(other))
        mean, mean2 = self.mean(), other.mean()
        return _divided(_total(lambda a, b: (a - mean) * (b - mean2), self._values[:n], other._values[:n]), n)

    def correlation(self, other: TimeSeries) -> float:
        """Return the covariance divided by both standard deviations.

        As in Sage, the covariance is divided by n and the deviations by n - 1: a series has the correlation
        (n - 1) / n with itself.

        Raises:
            ZeroDivisionError: A series is empty or constant.
        """
        return self.covariance(other) / (self.standard_deviation() * other.standard_deviation())

    def autocovariance(self, k: int = 0) -> float:
        """Return the covariance with the series k steps later, divided by n whatever k; NaN of an empty series.

        Raises:
            ValueError: k is negative.
        """
        if k < 0:
            raise ValueError(f"k must not be negative, but is {k}")
        mean = self.mean()
        early, late = self._values[: max(len(self) - k, 0)], self._values[k:]
        return _divided(_total(lambda a, b: (a - mean) * (b - mean), early, late), len(self))

    def autocorrelation(self, k: int = 1) -> float:
        """Return the autocovariance divided by the variance.

        Raises:
            ValueError: k is negative.
            ZeroDivisionError: The series is empty or constant.
        """
        return self.autocovariance(k) / self.variance(bias=True)

    def range_statistic(self, b: int | None = None) -> float:
        """Return Hurst's rescaled range R/S of a walk (of the positions, not of the steps).

        Args:
            b: Return the mean of those of the disjoint blocks of this length.

        Raises:
            ValueError: The series is empty, or b is not positive.
            ZeroDivisionError: All steps of a block are the same, or the series is shorter than a block.
        """
        from pyrokernel_timeseries.rescaled import range_statistic

        return range_statistic(self._values, b)

    def hurst_exponent(self) -> float:
        """Return an estimate of the Hurst exponent, from the rescaled ranges of blocks of 8, 16, 32, ... values.

        That of a constant series is 1.
        """
        from pyrokernel_timeseries.rescaled import hurst_exponent

        return hurst_exponent(self._values)

    @overload
    def min(self, index: Literal[False] = ...) -> float: ...
    @overload
    def min(self, index: Literal[True]) -> tuple[float, int]: ...
    def min(self, index: bool = False) -> float | tuple[float, int]:
        """Return the least value; with `index`, also where it is first.

        Raises:
            ValueError: The series is empty.
        """
        return self._extreme("min", np.argmin, index)

    @overload
    def max(self, index: Literal[False] = ...) -> float: ...
    @overload
    def max(self, index: Literal[True]) -> tuple[float, int]: ...
    def max(self, index: bool = False) -> float | tuple[float, int]:
        """Return the greatest value; with `index`, also where it is first.

        Raises:
            ValueError: The series is empty.
        """
        return self._extreme("max", np.argmax, index)

    def _extreme(self, name: str, place: Callable[[_Array], Any], index: bool) -> float | tuple[float, int]:
        if not len(self):
            raise ValueError(f"{name}() arg is an empty sequence")
        at = int(place(self._values))
        value = float(self._values[at])
        return (value, at) if index else value

    # Histograms and plots.

    def histogram(
        self, bins: int = 50, normalize: bool = False
    ) -> tuple[builtins.list[int] | builtins.list[float], builtins.list[tuple[float, float]]]:
        """Count the values in bins of one width, from the least to the greatest value.

        Args:
            normalize: Divide the counts, so that the area of the histogram is 1.

        Returns:
            The counts; and where each bin begins and ends. A value where two bins meet belongs to the later one, the
            greatest value to the last.

        Raises:
            ValueError: `bins` is not positive; the series is empty; its values are all the same; one is not finite.
        """
        if bins <= 0:
            raise ValueError("bins must be positive")
        low = self.min()
        spread = self.max() - low
        if not math.isfinite(spread):
            raise ValueError("a histogram needs finite values")
        step = spread / bins
        if step == 0:
            raise ValueError("bins have 0 width")
        counts: builtins.list[int] = count(self._values, low, step, bins).tolist()
        where = intervals(low, step, bins)
        if not normalize:
            return counts, where
        density = 1.0 / (len(self) * step)
        return [number * density for number in counts], where

    def plot(self, plot_points: int = 1000, points: bool = False, *, axes: Axes | None = None, **options: Any) -> Axes:
        """Draw the series with matplotlib.

        Args:
            plot_points: Draw at most about this many values, evenly chosen; 0 draws all.
            points: Draw points instead of a line.
            axes: Where to; None draws on those that are current in pyplot.
            options: For `Axes.plot`.

        Returns:
            The axes.
        """
        from pyrokernel_timeseries.plots import plot

        return plot(self._values, plot_points, points, axes, options)

    def show(self, *args: Any, **options: Any) -> Axes:
        """Draw the series, as `plot`."""
        return self.plot(*args, **options)

    def plot_histogram(
        self, bins: int = 50, normalize: bool = True, *, axes: Axes | None = None, **options: Any
    ) -> Axes:
        """Draw the histogram with matplotlib.

        Args:
            bins, normalize: As for `histogram`.
            axes: Where to; None draws on those that are current in pyplot.
            options: For `Axes.bar`.

        Returns:
            The axes.
        """
        from pyrokernel_timeseries.plots import plot_histogram

        counts, where = self.histogram(bins, normalize)
        return plot_histogram(counts, where, axes, options)


def _divided(total: float, n: int) -> float:
    """Divide as C does, and with it Sage: of nothing there is no mean."""
    return total / n if n else math.nan


def _positive(k: int) -> None:
    if k <= 0:
        raise ValueError(f"k must be positive, not {k}")


def _window_sums(values: _Array, k: int) -> _Array:
    """Sum each value and the k - 1 before it; before the first value are values like it.

    A running sum that adds one value and takes one away would keep every rounding error it ever made. Here a window
    is the end of one block of k values and the beginning of the next: nothing is taken away.
    """
    n = len(values)
    begun = min(k - 1, n)
    sums = np.empty(n)
    sums[:begun] = np.cumsum(values[:begun]) + values[0] * np.arange(k - 1, k - 1 - begun, -1)
    if begun == n:
        return sums
    blocks = np.zeros((-(-n // k), k))
    blocks.reshape(-1)[:n] = values
    beginnings = np.cumsum(blocks, axis=1).reshape(-1)
    ends = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].copy()
    ends[:, 0] = 0  # such a window is one whole block, which `beginnings` has
    sums[begun:] = ends.reshape(-1)[: n - begun] + beginnings[begun:n]
    return sums


def _decaying_sums(values: _Array, alpha: float) -> _Array:
    """Compute the exponential moving average by doubling how far each entry looks back.

    After the pass with a shift s an entry has summed the 2s terms up to it, each with its power of 1 - alpha; it ends
    when the powers are 0 or the beginning is reached. Dividing running sums by powers would overflow.
    """
    averages = np.zeros(len(values))
    averages[1:] = alpha * values[:-1]
    averages[1:2] = values[:1]
    weight, shift = 1 - alpha, 1
    # The first entry is 0 by definition and no term.
    terms = averages[1:]
    while weight > 0 and shift < len(terms):
        terms[shift:] += weight * terms[:-shift]
        weight, shift = weight * weight, 2 * shift
    return averages
