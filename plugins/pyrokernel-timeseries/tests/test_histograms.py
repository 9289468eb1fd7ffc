"""Counting, as Sage counts; merging, and drawing as text. Runs in the test process."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyrokernel_timeseries import Histogram, TimeSeries, draw, merge
from pyrokernel_timeseries.histograms import size

EIGHT = TimeSeries([5, 4, 1.3, 2, 8, 10, 3, -5])


def slow_histogram(values: list[float], bins: int) -> tuple[list[int], list[tuple[float, float]]]:
    low = min(values)
    step = (max(values) - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / step), bins - 1)] += 1
    return counts, [(low + j * step, low + (j + 1) * step) for j in range(bins)]


def test_the_histogram_is_that_of_sage() -> None:
    assert EIGHT.histogram(3) == ([1, 4, 3], [(-5.0, 0.0), (0.0, 5.0), (5.0, 10.0)])


def test_a_value_between_two_bins_belongs_to_the_later_and_the_greatest_to_the_last() -> None:
    counts, intervals = TimeSeries([0, 1, 1, 2, 3, 3, 3]).histogram(3)
    assert counts == [1, 2, 4]
    assert intervals == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]


@pytest.mark.parametrize("bins", [1, 2, 7, 50, 1000])
def test_the_histogram_agrees_with_its_definition(bins: int) -> None:
    for n in (2, 10, 1000, 70_000):
        series = TimeSeries(n).randomize("normal", seed=n)
        assert series.histogram(bins) == slow_histogram(series.list(), bins)
    whole = TimeSeries([i % 10 for i in range(1000)])
    assert whole.histogram(bins) == slow_histogram(whole.list(), bins)


def test_there_are_50_bins_of_python_integers_unless_asked_otherwise() -> None:
    counts, intervals = TimeSeries(100).randomize(seed=1).histogram()
    assert (len(counts), len(intervals), sum(counts)) == (50, 50, 100)
    assert {type(count) for count in counts} == {int}
    assert {type(bound) for pair in intervals for bound in pair} == {float}


def test_a_normalized_histogram_has_area_1() -> None:
    series = TimeSeries(1000).randomize("lognormal", seed=1)
    counts, intervals = series.histogram(20, normalize=True)
    assert sum(c * (b - a) for c, (a, b) in zip(counts, intervals, strict=True)) == pytest.approx(1)
    plain, _ = series.histogram(20)
    assert np.array(counts) / counts[0] == pytest.approx(np.array(plain) / plain[0])


@pytest.mark.parametrize(
    ("values", "bins", "message"),
    [
        ([1, 2], 0, "bins must be positive"),
        ([1, 2], -1, "bins must be positive"),
        ([], 50, r"min\(\) arg is an empty sequence"),
        ([2, 2, 2], 50, "bins have 0 width"),
        ([0, 5e-324], 50, "bins have 0 width"),
        ([1, math.nan], 50, "finite"),
        ([1, math.inf], 50, "finite"),
        ([-1e308, 1e308], 50, "finite"),
    ],
)
def test_what_cannot_be_counted_is_refused(values: list[float], bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeSeries(values).histogram(bins)


def one(counts: list[int], *, low: float = 0.0, high: float = 1.0, below: int = 0, above: int = 0) -> Histogram:
    return Histogram(low=low, high=high, counts=counts, below=below, above=above)


def test_merged_histograms_have_the_sums_of_all_counts() -> None:
    first, second = one([1, 2], below=3), one([10, 20], above=4)
    assert merge([first, second, first]) == one([12, 24], below=6, above=4)
    assert merge(iter([first])) == first == one([1, 2], below=3)
    assert size(merge([first, second])) == 40


@pytest.mark.parametrize("other", [one([1]), one([1, 2], low=-1.0), one([1, 2], high=1.5)])
def test_histograms_over_other_bins_are_not_merged(other: Histogram) -> None:
    with pytest.raises(ValueError, match="only histograms over the same bins"):
        merge([one([1, 2]), other])


def test_of_no_histograms_there_is_no_sum() -> None:
    with pytest.raises(ValueError, match="no histogram to merge"):
        merge([])


def test_a_drawing_has_a_line_per_bin_and_its_longest_bar_fills_the_width() -> None:
    drawn = draw(one([0, 500, 1000, 3], low=-1.0, below=7, above=1200), width=60).splitlines()
    assert len(drawn) == 6
    assert max(map(len, drawn)) <= 60
    bars = [line.count("█") for line in drawn]
    assert bars[0] == bars[3] == 0
    assert bars[2] == 2 * bars[1] > 20
    assert drawn[2].strip().startswith("0 │")
    assert drawn[2].endswith(" 1,000")
    assert drawn[4:] == ["7 below -1", "1,200 above 1"]


def test_a_drawing_can_do_without_block_characters() -> None:
    drawn = draw(one([1, 2]), width=30, ascii_only=True)
    assert drawn.isascii()
    assert "##" in drawn
    assert len(draw(one([0, 0]), width=3).splitlines()) == 2
