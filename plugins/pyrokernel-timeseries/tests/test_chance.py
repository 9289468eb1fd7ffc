"""Random numbers: their distributions, their seeds, and whose stream is whose. Runs in the test process."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyrokernel_timeseries import TimeSeries, set_random_seed

N = 200_000
# The distance of Kolmogorov and Smirnov, times the root of n, is above this once in 30 million samples.
FAR = 3.0


def normal_below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def semicircle_below(x: float) -> float:
    return 0.5 + (x * math.sqrt(1 - x * x) + math.asin(x)) / math.pi


@pytest.mark.parametrize(
    ("distribution", "loc", "scale", "below"),
    [
        ("uniform", 0, 1, lambda x: x),
        ("uniform", 5, 2, lambda x: (x - 5) / 2),
        ("uniform", -3, 0.5, lambda x: (x + 3) / 0.5),
        ("normal", 0, 1, normal_below),
        ("normal", 5, 2, lambda x: normal_below((x - 5) / 2)),
        ("normal", 1, -2, lambda x: normal_below((x - 1) / 2)),
        ("semicircle", 0, 1, semicircle_below),
        ("semicircle", 2, 1, lambda x: semicircle_below(x - 2)),
        ("semicircle", 2, 7, lambda x: semicircle_below(x - 2)),
        ("lognormal", 0, 1, lambda x: normal_below(math.log(x))),
        ("lognormal", -1, 0.3, lambda x: normal_below((math.log(x) + 1) / 0.3)),
    ],
)
def test_a_sample_has_its_distribution(
    distribution: str, loc: float, scale: float, below: Callable[[float], float]
) -> None:
    sample = np.sort(TimeSeries(N).randomize(distribution, loc, scale, seed=20).numpy())
    expected = np.array([below(x) for x in sample.tolist()])
    steps = np.arange(N + 1) / N
    distance = max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max())
    assert distance * math.sqrt(N) < FAR


@pytest.mark.parametrize("distribution", ["uniform", "normal", "semicircle", "lognormal"])
def test_neighbours_are_not_correlated(distribution: str) -> None:
    series = TimeSeries(N).randomize(distribution, 0, 0.5, seed=21)
    for k in (1, 2, 3, 1000):
        assert abs(series.autocorrelation(k)) < 6 / math.sqrt(N)


def test_moments_are_those_that_loc_and_scale_say() -> None:
    series = TimeSeries(N)
    near = 6 / math.sqrt(N)
    assert series.randomize("uniform", 5, 2, seed=1).mean() == pytest.approx(6, abs=near)
    assert 5 <= series.min() < series.max() <= 7
    assert series.randomize("normal", 5, 2, seed=1).mean() == pytest.approx(5, abs=2 * near)
    assert series.standard_deviation() == pytest.approx(2, abs=2 * near)
    assert series.randomize("semicircle", 2, seed=1).variance() == pytest.approx(0.25, abs=near)
    assert 1 <= series.min() < series.max() <= 3
    assert series.randomize("lognormal", seed=1).mean() == pytest.approx(math.exp(0.5), abs=2.2 * near)


def test_randomize_returns_the_series_itself() -> None:
    series = TimeSeries(3)
    assert series.randomize() is series
    assert series.list() != [0.0, 0.0, 0.0]
    assert len(TimeSeries(0).randomize("semicircle")) == 0


def test_a_seed_decides_the_numbers_and_leaves_the_stream_of_the_process_alone() -> None:
    def sample(**options: int) -> list[float]:
        return TimeSeries(5).randomize("normal", **options).list()

    assert sample(seed=4) == sample(seed=4) != sample(seed=5)
    set_random_seed(7)
    first = [sample(), sample()]
    set_random_seed(7)
    assert sample() == first[0]
    sample(seed=4)
    assert sample() == first[1] != first[0]
    set_random_seed()
    assert sample() != first[0]


def test_a_stream_goes_on_where_it_was() -> None:
    set_random_seed(7)
    halves = TimeSeries(500).randomize("normal") + TimeSeries(500).randomize("normal")
    set_random_seed(7)
    assert TimeSeries(1000).randomize("normal") == halves


def test_what_is_no_distribution_is_refused_and_changes_nothing() -> None:
    series = TimeSeries([1, 2])
    with pytest.raises(NotImplementedError, match="'cauchy'; there are uniform, normal, semicircle, lognormal"):
        series.randomize("cauchy")
    for scale in (0, -1):
        with pytest.raises(ValueError, match="left must be less than right"):
            series.randomize("uniform", 1, scale)
    with pytest.raises(TypeError, match="sclae"):
        series.randomize("normal", sclae=2)  # type: ignore[call-arg]
    assert series.list() == [1.0, 2.0]


@pytest.mark.slow
def test_children_of_a_fork_share_no_stream() -> None:
    """Kernels are forked from one template; theirs had a stream already, and even a seed."""
    program = """
import os
from pyrokernel_timeseries import TimeSeries, set_random_seed

set_random_seed(1)
TimeSeries(1).randomize()
for _ in range(3):
    if not os.fork():
        print(TimeSeries(1).randomize().list()[0], flush=True)
        os._exit(0)
    os.wait()
print(TimeSeries(1).randomize().list()[0])
"""
    folder = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    numbers = done.stdout.split()
    assert len(set(numbers)) == len(numbers) == 4
