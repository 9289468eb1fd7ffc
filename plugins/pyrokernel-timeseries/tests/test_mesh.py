"""The plugin in real kernels: names, streams, series that travel, simulations spread. Runs in the test process."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyrokernel as pk
import pytest

from pyrokernel_timeseries import TimeSeries, scatter, scatter_simulation
from pyrokernel_timeseries.histograms import size

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mesh() -> Iterator[pk.Mesh]:
    with pk.local(2, plugins_dir=str(ROOT)) as found:
        yield found


@pytest.fixture
def group(mesh: pk.Mesh) -> pk.Group:
    found: pk.Group = mesh[:]
    return found


def test_numpy_is_imported_when_the_first_series_is_made(group: pk.Group) -> None:
    fresh = group[0]
    fresh.restart()
    assert fresh.execute("import sys; isinstance(3, TimeSeries), 'numpy' in sys.modules").result == (False, False)
    assert fresh.execute("isinstance(TimeSeries(3), TimeSeries), 'numpy' in sys.modules").result == (True, True)


def test_no_two_kernels_have_the_same_random_numbers(group: pk.Group) -> None:
    replies = group.execute("TimeSeries(3).randomize().list()")
    first, second = (reply.result for reply in replies.values())
    assert not set(first) & set(second)
    seeded = group.execute("TimeSeries(3).randomize(seed=1).list()")
    assert seeded["k0"].result == seeded["k1"].result


def test_series_travel_both_ways(group: pk.Group) -> None:
    series = TimeSeries(100_000).randomize("normal", seed=1)
    group.push(sent=series)
    for returned in group.pull("sent").values():
        assert isinstance(returned, TimeSeries)
        assert returned == series
    assert group[0].execute("sent[0] = 7; sent[:2]").result[0] == 7.0
    assert group[1].call("TimeSeries", [1, 2]) == TimeSeries([1, 2])


def test_a_simulation_is_the_same_on_one_kernel_and_on_all(group: pk.Group, mesh: pk.Mesh) -> None:
    everywhere = scatter_simulation(group, 200_000, seed=1)
    assert size(everywhere) == 200_000
    assert everywhere == scatter_simulation(mesh[:1], 200_000, seed=1)
    assert everywhere != scatter_simulation(group, 200_000)


def test_a_wrong_argument_of_the_command_is_named(group: pk.Group) -> None:
    with pytest.raises(pk.RemoteError, match="'size' takes an int"):
        group[0].call("simulate", "many")
    with pytest.raises(pk.RemoteError, match="distribution"):
        group[0].call("simulate", 10, "cauchy")


def test_a_file_written_for_sage_kernels_runs_unchanged_on_four() -> None:
    with pk.local(4, plugins_dir=str(ROOT)) as mesh:
        run_super_func(mesh[:])


def run_super_func(group: pk.Group) -> None:
    group.ship(ROOT / "examples" / "super_func.py")
    reply = group[3].execute('mySuperFunc(100000, distribution="normal")')
    assert sum(reply.result[0]) == 100_000
    for counts, intervals in group.call("mySuperFunc", 100_000, distribution="normal").values():
        assert (sum(counts), len(intervals)) == (100_000, 50)
    distributions = ("uniform", "normal", "semicircle", "lognormal")
    calls = [((1000 + n,), {"distribution": distributions[n % 4], "bins": 10 + n}) for n in range(100)]
    for n, (counts, intervals) in enumerate(group.map_calls("mySuperFunc", calls)):
        assert (sum(counts), len(counts), len(intervals)) == (1000 + n, 10 + n, 10 + n)


def test_the_subcommand_reaches_the_mesh(mesh: pk.Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    scatter.configure(parser)
    assert scatter.run(parser.parse_args(["--size", "10000", "--seed", "1"]), mesh.settings) == 0
    assert "10,000 values, normal, loc 0, scale 1: 2 kernels" in capsys.readouterr().out
    with pytest.raises(pk.KernelNotFoundError):
        scatter.run(parser.parse_args(["nobody"]), mesh.settings)
