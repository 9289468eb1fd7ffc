"""Values of any size and shape in a few words."""

from __future__ import annotations

from typing import Any

import pytest

from pyrokernel.kernel.summaries import summary


def test_summaries_stay_short_for_deep_long_and_recursive_values() -> None:
    recursive: list[Any] = []
    recursive.append(recursive)
    assert summary(recursive) == "[[[[...]]]]"
    assert len(summary([list(range(1000))] * 1000)) <= 200
    assert len(summary({"x" * 500: "y" * 500})) <= 200


def test_arrays_and_frames_are_described_not_printed() -> None:
    numpy = pytest.importorskip("numpy")
    assert summary(numpy.zeros((300, 4))) == "<array float64 (300, 4)>"
    assert summary(numpy.arange(3)) == "<array int64 (3,): [0, 1, 2]>"
    assert summary(numpy.float64(1.5)) == "1.5"
    pandas = pytest.importorskip("pandas")
    assert summary(pandas.DataFrame({"a": [1, 2]})) == "<DataFrame, 2 rows: a>"
