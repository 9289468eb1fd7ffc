"""A time series is a list of floats. Runs in the test process."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest

from pyrokernel_timeseries import TimeSeries


def test_a_series_is_made_of_a_length_of_numbers_or_of_an_array() -> None:
    assert TimeSeries(3).list() == [0.0, 0.0, 0.0]
    assert TimeSeries(np.int64(2)).list() == [0.0, 0.0]
    assert len(TimeSeries(10, initialize=False)) == 10
    assert TimeSeries([1, 2.5, Fraction(1, 4), np.float32(2)]).list() == [1.0, 2.5, 0.25, 2.0]
    assert TimeSeries(x for x in range(3)).list() == [0.0, 1.0, 2.0]
    assert TimeSeries(np.array([[1, 2], [3, 4]])).list() == [1.0, 2.0, 3.0, 4.0]
    assert TimeSeries(np.array([[1.0, 2.0], [3.0, 4.0]])[:, 0]).list() == [1.0, 3.0]
    assert TimeSeries(TimeSeries([1, 2])).list() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "error"),
    [(2.5, TypeError), (None, TypeError), (np.array([1j]), TypeError), (["x"], ValueError), (-1, ValueError)],
)
def test_what_is_no_length_and_no_numbers_is_refused(values: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        TimeSeries(values)  # type: ignore[arg-type]


def test_a_series_shares_no_memory_with_what_it_was_made_of() -> None:
    array = np.ones(3)
    first = TimeSeries(array)
    second = TimeSeries(first)
    first[0] = 7
    assert (array[0], second[0]) == (1.0, 1.0)
    part = first[:2]
    part[1] = 9
    assert first.list() == [7.0, 1.0, 1.0]


def test_numpy_gives_a_copy_or_the_memory_itself() -> None:
    series = TimeSeries([1, -3, 4.5])
    series.numpy()[0] = 20
    assert series[0] == 1.0
    series.numpy(copy=False)[0] = 20
    assert series[0] == 20.0
    assert np.asarray(series, dtype=np.float32).dtype == np.float32
    assert np.exp(TimeSeries([0])).tolist() == [1.0]


def test_a_series_is_shown_with_four_digits_and_its_middle_left_out() -> None:
    assert repr(TimeSeries([1, 3.1908439, -4, 5.93932])) == "[1.0000, 3.1908, -4.0000, 5.9393]"
    assert TimeSeries([1, 3.1908439])._repr(2) == "[1.00, 3.19]"
    assert repr(TimeSeries(0)) == "[]"
    assert repr(TimeSeries(range(10))).count(",") == 9
    assert repr(TimeSeries(range(11))) == "[0.0000, 1.0000, 2.0000, 3.0000, 4.0000 ... 6.0000, 7.0000, 8.0000, 9.0000, 10.0000]"  # fmt: skip # noqa: E501  one line of output


def test_indices_and_slices_are_those_of_lists() -> None:
    plain = [1.0, -4.0, 3.0, -2.5, -4.0, 3.0]
    series = TimeSeries(plain)
    assert (series[2], series[-1], series[np.int64(5)]) == (3.0, 3.0, 3.0)
    bounds = (None, -9, -6, -3, -1, 0, 1, 2, 5, 6, 20)
    for part in (slice(a, b, step) for a in bounds for b in bounds for step in (None, 1, 2, 3, -1, -2)):
        assert series[part].list() == plain[part], part
    for outside in (6, -7, 100):
        with pytest.raises(IndexError, match="TimeSeries index out of range"):
            series[outside]
    series[-1] = 8
    assert series[5] == 8.0
    with pytest.raises(IndexError, match="TimeSeries index out of range"):
        series[6] = 1


def test_iteration_gives_python_floats() -> None:
    series = TimeSeries(range(10_000))
    values = list(series)
    assert values == series.list() == [float(i) for i in range(10_000)]
    assert {type(value) for value in values} == {float}
    assert 9_999 in series
    assert not TimeSeries(0)


def test_plus_concatenates_and_times_repeats() -> None:
    series = TimeSeries([1, 2, -5])
    assert series + TimeSeries([7]) == TimeSeries([1, 2, -5, 7])
    assert series * 2 == 2 * series == np.int64(2) * series == TimeSeries([1, 2, -5, 1, 2, -5])
    assert len(series * 0) == len(series * -1) == 0
    numbers = [1.0]
    for wrong in (lambda: series + numbers, lambda: numbers + series, lambda: np.ones(3) + series):
        with pytest.raises(TypeError, match="operand must be a time series"):
            wrong()
    with pytest.raises(TypeError, match="integer"):
        series * series


def test_series_compare_as_lists_do() -> None:
    lists = [[], [1], [1, 2], [1, 2, 3], [1, 3], [2], [float("inf")], [-1, 5]]
    for a in lists:
        for b in lists:
            x, y = TimeSeries(a), TimeSeries(b)
            assert (x == y, x != y, x < y, x <= y, x > y, x >= y) == (a == b, a != b, a < b, a <= b, a > b, a >= b)
    nan = TimeSeries([float("nan")])
    assert nan != nan
    assert TimeSeries([1]) != [1]
    with pytest.raises(TypeError):
        TimeSeries([1]) < [1]  # noqa: B015
    with pytest.raises(TypeError, match="unhashable"):
        hash(TimeSeries([1]))


def test_copies_are_independent() -> None:
    series = TimeSeries([1, 2])
    for other in (copy.copy(series), copy.deepcopy(series), pickle.loads(pickle.dumps(series)), series[:]):
        assert other == series
        other[0] = 5
        assert series[0] == 1.0


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_the_memory_and_little_more(protocol: int) -> None:
    series = TimeSeries(1000).randomize(seed=1)
    blob = pickle.dumps(series, protocol)
    assert pickle.loads(blob) == series
    # Protocol 2 writes bytes as text of more than a byte each.
    assert len(blob) < (8000 + 300 if protocol > 2 else 16_000)
    assert b"pyrokernel_timeseries.series" in blob


def test_protocol_5_sends_the_memory_beside_the_pickle_and_the_series_can_be_changed_there() -> None:
    series = TimeSeries(1000).randomize(seed=1)
    buffers: list[pickle.PickleBuffer] = []
    blob = pickle.dumps(series, 5, buffer_callback=buffers.append)
    assert len(blob) < 300
    assert len(buffers) == 1
    arrived = pickle.loads(blob, buffers=[bytes(buffers[0])])
    assert arrived == series
    arrived[0] = 7
    assert arrived[0] == 7.0


def test_extend_reversed_and_clip_remove() -> None:
    series = TimeSeries([1, 2, -5])
    series.extend([-3.5, 2])
    assert series.list() == [1.0, 2.0, -5.0, -3.5, 2.0]
    assert series.reversed().list() == [2.0, -3.5, -5.0, 2.0, 1.0]
    ten = TimeSeries(range(1, 11))
    assert ten.clip_remove(3, 7).list() == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert ten.clip_remove(3).list() == [float(i) for i in range(3, 11)]
    assert ten.clip_remove(max=7).list() == [float(i) for i in range(1, 8)]
    assert ten.clip_remove() == ten
