"""The command `simulate`, and simulations spread over kernels. The kernels are pretended here.

Runs in the test process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyrokernel
import pytest

from pyrokernel_timeseries import Histogram, TimeSeries, scatter, scatter_simulation
from pyrokernel_timeseries.histograms import size
from pyrokernel_timeseries.simulate import bounds, simulate

DISTRIBUTIONS = ["uniform", "normal", "semicircle", "lognormal"]


class Told:
    """The context of a command: remembers what progress it was told of."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def progress(self, done: float, total: float = 1.0, text: str = "") -> None:
        self.steps.append((done, total))


class Pretended:
    """A group whose kernels are functions called here, in an order of their own."""

    def __init__(self, kernels: int = 2) -> None:
        self.kernels = kernels
        self.calls: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self.kernels

    def map_calls(self, name: str, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> Iterator[Any]:
        assert name == "simulate"
        for args, kwargs in calls:
            self.calls.append(dict(kwargs))
            yield simulate(Told(), *args, **kwargs)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_command_counts_what_a_series_of_the_same_seed_holds(distribution: Any) -> None:
    n = 600_001  # more than two blocks
    counted = simulate(Told(), n, distribution, 0.5, 2.0, bins=40, seed=6)
    values = TimeSeries(n).randomize(distribution, 0.5, 2.0, seed=6).numpy()
    edges = np.linspace(counted["low"], counted["high"], 41)
    expected, _ = np.histogram(values, edges)
    # A value next to an edge may be rounded to either side of it.
    assert np.abs(np.array(counted["counts"]) - expected).sum() <= 2
    assert counted["below"] == (values < counted["low"]).sum()
    assert counted["above"] == (values > counted["high"]).sum()
    assert size(counted) == n


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_bins_hold_nearly_all_values_of_the_distribution_unless_told_otherwise(distribution: Any) -> None:
    counted = simulate(Told(), 100_000, distribution, 3.0, 0.5, seed=1)
    assert counted["below"] + counted["above"] < 200
    assert len(counted["counts"]) == 50
    chosen = simulate(Told(), 1000, distribution, 3.0, 0.5, seed=1, low=2, high=3.25)
    assert (chosen["low"], chosen["high"]) == (2.0, 3.25)
    assert size(chosen) == 1000


def test_the_answer_is_plain_data() -> None:
    counted = simulate(Told(), 10, seed=1)
    assert json.loads(json.dumps(counted)) == counted
    assert type(counted) is dict


def test_progress_is_told_as_it_goes() -> None:
    told = Told()
    simulate(told, 600_000)
    assert [total for _, total in told.steps] == [600_000] * 3
    assert told.steps[-1][0] == 600_000
    assert simulate(Told(), 0)["counts"] == [0] * 50


def test_without_a_seed_the_numbers_are_new_each_time() -> None:
    assert simulate(Told(), 1000) != simulate(Told(), 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": -1}, "size must not be negative"),
        ({"size": 1, "bins": 0}, "bins must be positive"),
        ({"size": 1, "low": 2.0, "high": 2.0}, "from 2 to 2 has no room"),
        ({"size": 1, "scale": 0.0}, "from 0 to 0 has no room"),
        ({"size": 1, "high": float("nan")}, "no room"),
        ({"size": 1, "distribution": "uniform", "scale": -1.0, "low": 0.0, "high": 1.0}, "left must be less"),
    ],
)
def test_arguments_without_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(Told(), **arguments)


def test_an_unknown_distribution_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="'cauchy'; there are uniform, normal"):
        bounds("cauchy", 0, 1)


def test_a_scattered_simulation_is_cut_into_parts_that_add_up() -> None:
    group = Pretended()
    merged = scatter_simulation(group, 10_007, "lognormal", 0.1, 0.2, bins=30, parts=10)
    assert size(merged) == 10_007
    assert len(merged["counts"]) == 30
    assert sorted(call["size"] for call in group.calls) == [1000] * 3 + [1001] * 7
    assert len({(call["low"], call["high"]) for call in group.calls}) == 1
    assert [call["seed"] for call in group.calls] == [None] * 10


def test_a_seed_decides_a_scattered_simulation_whatever_the_kernels() -> None:
    def scattered(seed: int, **options: int) -> Histogram:
        return scatter_simulation(Pretended(), 5000, seed=seed, **options)  # type: ignore[arg-type]

    assert scattered(1) == scattered(1) != scattered(2)
    group = Pretended()
    scatter_simulation(group, 5000, seed=1)
    seeds = [call["seed"] for call in group.calls]
    assert len(set(seeds)) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_small_simulation_has_no_more_parts_than_numbers() -> None:
    group = Pretended()
    assert size(scatter_simulation(group, 3)) == 3
    assert len(group.calls) == 3
    assert size(scatter_simulation(group, 0)) == 0


@pytest.mark.parametrize("wrong", [{"total": -1}, {"total": 1, "parts": 0}, {"total": 1, "bins": 0}])
def test_a_scattered_simulation_without_sense_asks_no_kernel(wrong: dict[str, Any]) -> None:
    group = Pretended()
    with pytest.raises(ValueError, match="must"):
        scatter_simulation(group, **wrong)
    assert not group.calls


class PretendedMesh:
    def __init__(self) -> None:
        self.group = Pretended()
        self.words: list[str] = []

    def __enter__(self) -> PretendedMesh:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def select(self, words: list[str]) -> Pretended:
        self.words = words
        return self.group


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> PretendedMesh:
    mesh = PretendedMesh()
    monkeypatch.setattr(pyrokernel, "connect", lambda settings: mesh, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    return mesh


@pytest.fixture
def simulate_line(mesh: PretendedMesh) -> Callable[..., int]:
    parser = argparse.ArgumentParser()
    scatter.configure(parser)

    def run(*words: str) -> int:
        return scatter.run(parser.parse_args(words), None)  # type: ignore[arg-type]

    return run


def test_the_command_line_draws_a_histogram(
    simulate_line: Callable[..., int], mesh: PretendedMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate_line("k0", "k1", "--size", "20000", "--distribution", "uniform", "--seed", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 25
    assert max(map(len, lines)) <= 70
    assert lines[-1].startswith("20,000 values, uniform, loc 0, scale 1: 2 kernels, ")
    assert mesh.words == ["k0", "k1"]


def test_the_command_line_answers_in_json(
    simulate_line: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate_line("--size", "1000", "--bins", "5", "--low", "-1", "--high", "1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["low"], answer["high"], len(answer["counts"])) == (-1.0, 1.0, 5)
    assert size(answer) == 1000


@pytest.mark.parametrize(
    "words",
    [
        ("--scale", "0"),
        ("--low", "3", "--high", "2"),
        ("--distribution", "uniform", "--scale", "-1", "--low", "0", "--high", "1"),
    ],
)
def test_bounds_without_room_are_an_error_of_usage(
    simulate_line: Callable[..., int], mesh: PretendedMesh, words: tuple[str, ...]
) -> None:
    with pytest.raises(pyrokernel.SettingsError, match=r"room for bins|positive scale"):
        simulate_line(*words)
    assert not mesh.group.calls


@pytest.mark.parametrize("words", [("--size", "-1"), ("--bins", "0"), ("--parts", "x"), ("--distribution", "cauchy")])
def test_numbers_without_sense_are_an_error_of_usage(
    simulate_line: Callable[..., int], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        simulate_line(*words)
    assert words[0] in capsys.readouterr().err
