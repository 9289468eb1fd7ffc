"""The line that says how far many calls are: pure text."""

from __future__ import annotations

import pytest

from pyrokernel.client.bar import Bar, bar, per_time


def test_a_bar_says_what_is_known() -> None:
    assert bar("f", 50, 100, 2.0) == "[##########..........] 50 of 100, 2.0 s  f"
    assert bar("f", 0, 0, 0.1) == "[....................] 0 of 0  f"
    assert bar("f", 50, 100, 2.0, rate=25, failed=1_000) == (
        "[##########..........] 50 of 100, 2.0 s, 25/s, 2.0 s left, 1,000 failed  f"
    )
    assert bar("f", 9, 9, 3.0, rate=3) == "[####################] 9 of 9, 3.0 s, 3.0/s  f"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(12_345.6, "12,346/s"), (10, "10/s"), (1.25, "1.2/s"), (0.5, "30/min"), (1 / 45, "1.3/min"), (1 / 3600, "1.0/h")],
)
def test_a_rate_is_told_in_the_unit_that_suits_it(rate: float, text: str) -> None:
    assert per_time(rate) == text


def test_the_rate_is_the_recent_one_and_at_the_end_that_of_the_whole() -> None:
    seen = Bar("f", 100.0)
    assert seen.text(0, 1000, 100.0).endswith("0 of 1,000  f")
    for second in range(1, 21):
        seen.text(second, 1000, 100.0 + second)  # one a second
    for second in range(21, 41):
        text = seen.text(20 + (second - 20) * 10, 1000, 100.0 + second)  # ten a second
    assert "220 of 1,000, 40.0 s, 10/s, 1 min left" in text
    assert ", 10.0 s, 100/s  f" in Bar("f", 100.0).text(1000, 1000, 110.0)


def test_the_rate_falls_while_nothing_comes() -> None:
    seen = Bar("f", 0.0)
    seen.text(10, 100, 1.0)
    assert "10/s" in seen.text(10, 100, 1.0)
    assert "1.0/s" in seen.text(10, 100, 10.0)
    assert "30/min, 3 min left" in seen.text(10, 100, 20.0)


def test_calls_that_take_minutes_have_a_rate_too() -> None:
    seen = Bar("f", 0.0)
    for minute in range(1, 6):
        seen.text(minute, 10, 60.0 * minute)
    assert "1.0/min, 5 min left" in seen.text(5, 10, 300.0)
