"""The pace of a job: chunks begin small, grow to some tens of milliseconds, and stay within share and bytes."""

from __future__ import annotations

from pyrokernel.client.pace import CHUNK_BYTES, CHUNK_SECONDS, Pace, Paces
from pyrokernel.wire.codec import Packed


def test_a_job_that_nobody_knows_begins_with_single_items_one_at_a_time() -> None:
    pace = Pace(None)
    assert (pace.size("a", 1000, 1000), pace.ahead("a"), pace.measured) == (1, 1, False)


def test_chunks_grow_until_they_take_their_time() -> None:
    pace = Pace(None)
    pace.note("a", 1, 0.001, 100)
    assert pace.size("a", 10_000, 10_000) == round(CHUNK_SECONDS / 0.001)
    assert pace.size("a", 7, 7) == 7
    assert pace.size("a", 0, 0) == 1
    assert pace.ahead("a") == 2
    pace.note("a", 10, 600.0, 100)
    assert pace.size("a", 10_000, 10_000) == 1


def test_what_is_done_in_no_time_goes_to_few_kernels() -> None:
    pace = Pace(None)
    pace.note("a", 1000, 5e-5, 100)
    assert pace.size("a", 2500, 10_000) == 5000
    assert pace.size("b", 1250, 5000) == 5000
    assert pace.size("a", 250_000, 1_000_000) == 250_000


def test_a_slow_kernel_has_smaller_chunks_than_a_quick_one() -> None:
    pace = Pace(None)
    for _ in range(10):
        pace.note("quick", 10, 0.01, 100)
        pace.note("slow", 10, 0.1, 100)
    assert pace.size("quick", 10_000, 10_000) > 5 * pace.size("slow", 10_000, 10_000) > 0
    assert pace.seconds("slow", 10) > 5 * pace.seconds("quick", 10)


def test_large_items_make_small_chunks() -> None:
    pace = Pace(None)
    pace.note("a", 2, 1e-6, CHUNK_BYTES)
    assert pace.size("a", 10_000, 10_000) == 2


def test_a_size_that_was_chosen_stays_and_small_ones_are_sent_further_ahead() -> None:
    quick, slow, large = Pace(1), Pace(1), Pace(1)
    assert quick.ahead("a") == 2
    quick.note("a", 1, 1e-6, 50)
    slow.note("a", 1, 1.0, 50)
    large.note("a", 1, 1e-6, CHUNK_BYTES)
    assert [pace.size("a", 500, 500) for pace in (quick, slow, large, Pace(9))] == [1, 1, 1, 9]
    assert quick.ahead("a") > 10
    assert slow.ahead("a") == large.ahead("a") == 2


def test_another_job_of_the_same_function_begins_with_what_was_measured() -> None:
    paces = Paces()
    first = paces.pace("f", None)
    paces.note("f", first)
    assert not paces.pace("f", None).measured
    first.note("a", 100, 1e-4, 100)
    paces.note("f", first)
    assert paces.pace("f", None).size("b", 2500, 10_000) == 2500
    assert not paces.pace("g", None).measured
    large = Packed(bytes(100_000))
    paces.note(large, first)
    assert not paces.pace(large, None).measured
    for number in range(100):
        paces.note(f"f{number}", first)
    assert not paces.pace("f", None).measured
