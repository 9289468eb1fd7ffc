"""Drawing with matplotlib. Runs in the test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyrokernel_timeseries import Histogram, TimeSeries
from pyrokernel_timeseries.plots import save

matplotlib = pytest.importorskip("matplotlib")

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@pytest.fixture
def axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure().subplots()


@pytest.fixture
def screenless() -> Iterator[None]:
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


def test_a_plot_draws_the_values_over_their_numbers(axes: Axes) -> None:
    series = TimeSeries([5, 4, 1.3, 2])
    assert series.plot(axes=axes, color="red") is axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == series.list()
    assert line.get_color() == "red"
    series.show(points=True, axes=axes)
    assert (axes.lines[1].get_linestyle(), axes.lines[1].get_marker()) == ("None", ".")


def test_a_long_series_is_drawn_by_a_part_of_its_values(axes: Axes) -> None:
    series = TimeSeries(10_000).randomize(seed=1)
    series.plot(axes=axes)
    series.plot(0, axes=axes)
    few, all_of_them = axes.lines
    assert list(few.get_xdata()) == list(range(0, 10_000, 10))
    assert few.get_ydata()[1] == series[10]
    assert len(all_of_them.get_xdata()) == 10_000
    TimeSeries(0).plot(axes=axes)
    with pytest.raises(ValueError, match="plot_points"):
        series.plot(-1, axes=axes)


def test_a_histogram_is_drawn_as_bars_over_its_bins(axes: Axes) -> None:
    series = TimeSeries([5, 4, 1.3, 2, 8, 10, 3, -5])
    assert series.plot_histogram(3, normalize=False, axes=axes, color="green") is axes
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches] == [
        (-5.0, 5.0, 1), (0.0, 5.0, 4), (5.0, 5.0, 3)
    ]  # fmt: skip


@pytest.mark.usefixtures("screenless")
def test_without_axes_the_current_ones_of_pyplot_are_drawn_on() -> None:
    from matplotlib import pyplot

    axes = TimeSeries([1, 2, 3]).plot()
    assert axes is pyplot.gca()
    assert TimeSeries([1, 2, 3]).plot_histogram(2) is axes


def test_a_picture_of_a_histogram_is_saved(tmp_path: Path) -> None:
    histogram = Histogram(low=0.0, high=1.0, counts=[1, 2, 3], below=0, above=0)
    save(histogram, str(tmp_path / "h.png"), "three bins")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
