"""What is known of machines that do not answer: not waited for twice, and not given up for ever."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pyrokernel.errors import MachineLostError
from pyrokernel.wire import silence

ADDRESS = "192.0.2.7:9191"
GONE = TimeoutError(errno.ETIMEDOUT, "Connection timed out")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Let a test say what time it is, and forget what it found out."""
    now = [100.0]
    monkeypatch.setattr(silence.time, "monotonic", lambda: now[0])
    yield now
    silence.heard(ADDRESS)


def test_a_first_dial_has_all_its_time_and_one_after_silence_a_second() -> None:
    assert silence.patience(ADDRESS, 3.0) == 3.0
    silence.note(ADDRESS, GONE)
    assert silence.is_silent(ADDRESS)
    assert silence.patience(ADDRESS, 3.0) == 1.0


def test_what_a_dial_found_out_holds_for_a_moment_and_then_longer_dials_are_tried(clock: list[float]) -> None:
    silence.note(ADDRESS, GONE)
    error = silence.note_dial(ADDRESS, GONE)
    assert (error.machine, error.reason) == (ADDRESS, "Connection timed out")
    with pytest.raises(MachineLostError, match=ADDRESS):
        silence.patience(ADDRESS, 3.0)
    clock[0] += 2.5
    assert silence.patience(ADDRESS, 3.0) == 2.0
    silence.note_dial(ADDRESS, GONE)
    clock[0] += 2.5
    assert silence.patience(ADDRESS, 3.0) == 3.0  # a way that is slow by now is found all the same


def test_whoever_answers_is_not_silent_any_more() -> None:
    silence.note_dial(ADDRESS, GONE)
    silence.heard(ADDRESS)
    assert not silence.is_silent(ADDRESS)
    assert silence.patience(ADDRESS, 3.0) == 3.0


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EAGAIN])
def test_a_refusal_is_an_answer(number: int) -> None:
    silence.note(ADDRESS, OSError(number, "no"))
    assert not silence.is_silent(ADDRESS)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_no_answer_at_all_is_silence(number: int) -> None:
    assert silence.is_silence(OSError(number, "no"))
    assert not silence.is_silence(None)
    assert not silence.is_silence(ValueError())


def test_a_machine_that_is_off_for_days_is_dialled_all_the_same(clock: list[float]) -> None:
    silence.note(ADDRESS, GONE)
    for _ in range(3000):
        silence.note_dial(ADDRESS, GONE)
        clock[0] += 60.0
        assert silence.patience(ADDRESS, 3.0) <= 3.0
