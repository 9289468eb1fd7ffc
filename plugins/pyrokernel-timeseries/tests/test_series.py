"""Statistics, averages and transforms of a series.

The expected values of the first half are those that Sage's manual shows for its class of this name; those of the
second are computed another way, with exact fractions where that is possible. Runs in the test process.
"""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest

from pyrokernel_timeseries import TimeSeries

STEPS = TimeSeries([1, 1, 1, 2, 3])
TEN = TimeSeries([13, 8, 15, 4, 4, 12, 11, 7, 14, 12])
EIGHT = TimeSeries([5, 4, 1.3, 2, 8, 10, 3, -5])


def test_moments_are_those_of_sage() -> None:
    assert STEPS.sum() == 8.0
    assert STEPS.prod() == 6.0
    assert STEPS.mean() == 1.6
    assert (STEPS.moment(1), STEPS.moment(2)) == (1.6, 3.2)
    assert TimeSeries([1, 2, 3]).central_moment(1) == 0.0
    assert TimeSeries([1, 2, 3]).central_moment(2) == pytest.approx(2 / 3, rel=1e-15)
    assert STEPS.variance() == pytest.approx(0.8, rel=1e-15)
    assert STEPS.variance(bias=True) == pytest.approx(0.64, rel=1e-15)
    assert STEPS.standard_deviation() == pytest.approx(0.8944271909999159, rel=1e-15)
    assert STEPS.standard_deviation(bias=True) == pytest.approx(0.8, rel=1e-15)
    for short in (TimeSeries([1]), TimeSeries([])):
        assert short.variance() == short.standard_deviation() == 0.0
    assert (TimeSeries([]).sum(), TimeSeries([]).prod()) == (0.0, 1.0)


def test_covariances_are_those_of_sage() -> None:
    v, w = TimeSeries([1, -2, 3]), TimeSeries([4, 5, -10])
    assert v.covariance(w) == pytest.approx(-11.777777777777779, rel=1e-15)
    assert v.correlation(w) == pytest.approx(-0.558041609, rel=1e-8)
    assert TEN.autocovariance(0) == pytest.approx(14.4, rel=1e-15)
    assert TEN.autocovariance(1) == pytest.approx(-2.7, rel=1e-15)
    assert TEN.autocorrelation() == TEN.autocorrelation(1) == pytest.approx(-0.1875, rel=1e-15)
    assert TEN.autocorrelation(0) == 1.0
    assert TEN.autocorrelation(2) == pytest.approx(-0.20138888888888887, rel=1e-14)
    assert TEN.autocorrelation(3) == pytest.approx(0.18055555555555555, rel=1e-14)
    assert TimeSeries(range(1, 1001)).autocorrelation() == pytest.approx(0.997, rel=1e-12)


def test_transforms_are_those_of_sage() -> None:
    assert repr(TimeSeries([1, -4, 3, -2.5, -4, 3]).exp()) == "[2.7183, 0.0183, 20.0855, 0.0821, 0.0183, 20.0855]"
    assert repr(EIGHT.exp().log()) == repr(EIGHT)
    assert TimeSeries([1, 0, 3]).log()[1] == -math.inf
    assert math.isnan(TimeSeries([-1]).log()[0])
    assert TimeSeries([1, -4]).abs().list() == [1.0, 4.0]
    assert STEPS.pow(2).list() == [1.0, 1.0, 1.0, 4.0, 9.0]
    assert EIGHT.scale(0.5).list() == [2.5, 2.0, 0.65, 1.0, 4.0, 5.0, 1.5, -2.5]
    assert EIGHT.add_scalar(0.5).list() == [5.5, 4.5, 1.8, 2.5, 8.5, 10.5, 3.5, -4.5]
    assert repr(TimeSeries([5, 4, 1.3, 2, 8]).diffs()) == "[-1.0000, -2.7000, 0.7000, 6.0000]"
    assert STEPS.sums().list() == [1.0, 2.0, 3.0, 5.0, 8.0]
    v = TimeSeries([1, 2, -5])
    assert v.add_entries([3, 4]).list() == [4.0, 6.0, -5.0]
    assert v.add_entries(v).list() == [2.0, 4.0, -10.0]
    assert v.add_entries([3, 4, 7, 18.5]).list() == [4.0, 6.0, 2.0, 18.5]
    changed = TimeSeries([5, 4])
    changed.rescale(0.5)
    assert changed.list() == [2.5, 2.0]


def test_averages_are_those_of_sage() -> None:
    assert STEPS.simple_moving_average(0) == STEPS.simple_moving_average(1) == STEPS
    assert STEPS.simple_moving_average(2).list() == [1.0, 1.0, 1.0, 1.5, 2.5]
    assert repr(STEPS.simple_moving_average(3)) == "[1.0000, 1.0000, 1.0000, 1.3333, 2.0000]"
    assert STEPS.exponential_moving_average(0).list() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert STEPS.exponential_moving_average(1).list() == [0.0, 1.0, 1.0, 1.0, 2.0]
    assert STEPS.exponential_moving_average(0.5).list() == [0.0, 1.0, 1.0, 1.0, 1.5]
    sample = TimeSeries([0.3294, 0.0959, -0.0706, -0.4646, 0.4311, 0.2275, -0.3840, -0.3528, -0.4119, -0.2933])
    shown = [0.0, 0.3294, 0.1660, 0.0003, -0.3251, 0.2042, 0.2205, -0.2027, -0.3078, -0.3807]
    assert sample.exponential_moving_average(0.7).list() == pytest.approx(shown, abs=2e-4)
    assert sample.standard_deviation() == pytest.approx(0.33729638, abs=1e-4)


def test_extremes_are_those_of_sage() -> None:
    v = TimeSeries([1, -4, 3, -2.5, -4, 3])
    assert (v.min(), v.max()) == (-4.0, 3.0)
    assert v.min(index=True) == (-4.0, 1)
    assert v.max(index=True) == (3.0, 2)
    with pytest.raises(ValueError, match=r"min\(\) arg is an empty sequence"):
        TimeSeries(0).min()
    with pytest.raises(ValueError, match=r"max\(\) arg is an empty sequence"):
        TimeSeries(0).max()


def test_scale_time_takes_every_kth_value() -> None:
    for n in range(12):
        plain = [float(i) for i in range(n)]
        for k in range(1, 14):
            assert TimeSeries(n).add_entries(plain).scale_time(k).list() == plain[::k]
            late = plain[::k]
            expected = [b - a for a, b in itertools.pairwise(late)]
            assert TimeSeries(plain).diffs(k).list() == expected


def test_log_returns_are_logarithms_of_ratios() -> None:
    prices = TimeSeries([100, 110, 99, 198])
    expected = [math.log(1.1), math.log(0.9), math.log(2)]
    assert prices.log_returns().list() == pytest.approx(expected, rel=1e-13)
    assert prices.log_returns(2).list() == pytest.approx([math.log(0.99)], rel=1e-12)
    assert math.exp(prices.log_returns().sum()) == pytest.approx(1.98)


def test_arguments_without_sense_are_refused() -> None:
    for call in (STEPS.scale_time, STEPS.diffs, STEPS.log_returns, STEPS.moment, STEPS.central_moment):
        for k in (0, -1):
            with pytest.raises(ValueError, match="k must be positive"):
                call(k)
    with pytest.raises(ValueError, match="k must be positive"):
        STEPS.simple_moving_average(-1)
    with pytest.raises(ValueError, match="negative"):
        STEPS.autocovariance(-1)
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
            STEPS.exponential_moving_average(alpha)


def test_what_divides_by_zero_says_so() -> None:
    empty, constant = TimeSeries(0), TimeSeries(5)
    for call in (empty.autocorrelation, constant.autocorrelation, constant.range_statistic):
        with pytest.raises(ZeroDivisionError):
            call()
    with pytest.raises(ZeroDivisionError):
        constant.correlation(STEPS)


def test_of_nothing_there_is_no_mean() -> None:
    empty = TimeSeries(0)
    for value in (empty.mean(), empty.moment(3), empty.central_moment(2), empty.autocovariance()):
        assert math.isnan(value)
    assert math.isnan(empty.covariance(STEPS))
    assert len(empty.diffs()) == len(empty.log_returns(2)) == 0


def exact(series: TimeSeries) -> list[Fraction]:
    return [Fraction(value) for value in series]


@pytest.mark.parametrize("n", [1, 2, 7, 100, 3001])
def test_moments_agree_with_exact_arithmetic(n: int) -> None:
    series = TimeSeries(n).randomize("normal", 3, 2, seed=n)
    values = exact(series)
    mean = sum(values) / n
    assert series.mean() == pytest.approx(float(mean), rel=1e-14)
    for k in range(1, 6):
        assert series.moment(k) == pytest.approx(float(sum(x**k for x in values) / n), rel=1e-12)
        central = float(sum((x - mean) ** k for x in values) / n)
        assert series.central_moment(k) == pytest.approx(central, rel=1e-11, abs=1e-11)
    if n > 1:
        assert series.variance() == pytest.approx(statistics.variance(series.list()), rel=1e-13)
        other = TimeSeries(n + 5).randomize("uniform", seed=1)
        theirs = exact(other)
        other_mean = sum(theirs) / len(theirs)
        covariance = sum((a - mean) * (b - other_mean) for a, b in zip(values, theirs, strict=False)) / n
        assert series.covariance(other) == pytest.approx(float(covariance), rel=1e-10, abs=1e-15)
    for k in (0, 1, 2, 50, 5000):
        products = ((a - mean) * (b - mean) for a, b in zip(values, values[k:], strict=False))
        assert series.autocovariance(k) == pytest.approx(float(sum(products) / n), rel=1e-10, abs=1e-14)


def test_moments_of_many_values_far_from_zero_lose_nothing() -> None:
    n = 3_000_001
    series = TimeSeries(np.arange(n) % 3 + 1e9)
    # 1e9, 1e9 + 1, 1e9 + 2 in turn, and one 1e9 more.
    mean = Fraction(3 * n - 3, 3 * n)
    assert series.mean() - 1e9 == pytest.approx(float(mean), abs=3e-7)
    assert series.variance(bias=True) == pytest.approx(2 / 3, rel=1e-6)
    assert series.autocovariance(3) == pytest.approx(2 / 3, rel=1e-5)
    # Summed one after the other these would be off in the eleventh digit.
    assert TimeSeries(np.full(10_000_000, 0.1)).sum() == pytest.approx(1e6, rel=1e-15)


def slow_simple(values: list[float], k: int) -> list[float]:
    return [math.fsum(values[max(j, 0)] for j in range(i - k + 1, i + 1)) / k for i in range(len(values))]


def slow_exponential(values: list[float], alpha: float) -> list[float]:
    averages = [0.0, *values[:1]][: len(values)]
    for t in range(2, len(values)):
        averages.append(alpha * values[t - 1] + (1 - alpha) * averages[-1])
    return averages


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 64])
def test_averages_agree_with_their_definitions(n: int) -> None:
    series = TimeSeries(n).randomize("normal", 1, 3, seed=n)
    for k in (1, 2, 3, 7, 8, 9, 63, 64, 65, 200):
        assert series.simple_moving_average(k).list() == pytest.approx(slow_simple(series.list(), k), rel=1e-13)
    for alpha in (0, 1e-12, 0.1, 0.5, 0.999, 1):
        expected = slow_exponential(series.list(), alpha)
        assert series.exponential_moving_average(alpha).list() == pytest.approx(expected, rel=1e-13)


def test_a_moving_average_forgets_large_values() -> None:
    series = TimeSeries([1e16, 1, 1, 1, 1, 1, 1, 1])
    assert series.simple_moving_average(3).list()[3:] == [1.0] * 5
    assert TimeSeries(5).simple_moving_average(10**9).list() == [0.0] * 5


def test_averages_of_many_values_agree_with_their_definitions() -> None:
    series = TimeSeries(50_000).randomize("lognormal", 0, 2, seed=4)
    np.testing.assert_allclose(series.simple_moving_average(77), slow_simple(series.list(), 77), rtol=1e-12)
    for alpha in (1e-6, 0.3):
        expected = slow_exponential(series.list(), alpha)
        np.testing.assert_allclose(series.exponential_moving_average(alpha), expected, rtol=1e-11)


def test_running_sums_begin_where_they_are_told() -> None:
    series = TimeSeries([0.1] * 10)
    plain, total = [], 2.0
    for value in series:
        total += value
        plain.append(total)
    assert series.sums(2).list() == plain
    assert len(TimeSeries(0).sums(3)) == 0


def slow_range(walk: list[float]) -> float:
    n = len(walk)
    away = [y - (k + 1) * walk[-1] / n for k, y in enumerate(walk)]
    steps = [b - a for a, b in itertools.pairwise(walk)]
    return (max(away) - min(away)) / statistics.stdev(steps)


def test_the_range_statistic_agrees_with_its_definition() -> None:
    walk = TimeSeries(1000).randomize("normal", seed=8).sums()
    assert walk.range_statistic() == pytest.approx(slow_range(walk.list()), rel=1e-10)
    assert walk.scale(100).range_statistic() == pytest.approx(walk.range_statistic(), rel=1e-10)
    blocks = [walk[at : at + 70].add_scalar(-walk[at]).list() for at in range(0, 980, 70)]
    expected = sum(slow_range(block) for block in blocks) / 14
    assert walk.range_statistic(70) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ZeroDivisionError, match="no block of 2000"):
        walk.range_statistic(2000)
    with pytest.raises(ValueError, match="at least 1"):
        walk.range_statistic(0)
    with pytest.raises(ValueError, match="empty"):
        TimeSeries(0).range_statistic()


def test_the_hurst_exponent_tells_walks_from_trends() -> None:
    walk = TimeSeries(100_000).randomize("normal", seed=8).sums()
    assert walk.hurst_exponent() == pytest.approx(0.53, abs=0.05)
    assert TimeSeries(100).hurst_exponent() == 1.0
    persistent = TimeSeries(100_000).randomize("normal", seed=9).exponential_moving_average(0.01).sums()
    assert persistent.hurst_exponent() > 0.6
    assert math.isfinite(TimeSeries(20).randomize(seed=1).hurst_exponent())
    assert math.isfinite(TimeSeries(5).randomize(seed=1).hurst_exponent())


def test_infinities_pass_without_a_warning() -> None:
    series = TimeSeries([1e308, 1e308, -math.inf])
    assert series.scale(10)[0] == math.inf
    assert TimeSeries([1000]).exp()[0] == math.inf
    assert TimeSeries([1e308, 1e308]).sum() == math.inf
    assert math.isnan(TimeSeries([math.inf, -math.inf]).sum())
    assert math.isnan(TimeSeries([math.inf, 1]).variance())
    assert TimeSeries([1e308, 1e308]).moment(2) == math.inf
