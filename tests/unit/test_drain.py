"""The thread that brings output to the journal: how soon, and when somebody else does it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from pyrokernel.kernel import drain
from pyrokernel.kernel.drain import Drainer
from tests.waiting import wait_until


class Quiet:
    """Something to drain that never has anything."""

    def __init__(self) -> None:
        self.running = True
        self.drained: list[str] = []
        self.listeners: list[Callable[[], None]] = []

    def tick(self) -> bool:
        return False

    def drain(self) -> None:
        self.drained.append(threading.current_thread().name)

    def is_flooded(self) -> bool:
        return False

    def has_late(self) -> bool:
        return False

    def listen(self, on_write: Callable[[], None] | None) -> None:
        if on_write is not None:
            self.listeners.append(on_write)


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    """The threads of these tests go to sleep for good once the cell is over."""
    found = Quiet()
    yield found
    found.running = False


def test_a_follower_who_reads_fast_does_not_set_the_pace(quiet: Quiet) -> None:
    """Each tick takes the interpreter from the cell: in a flood that made printing three times slower."""
    drainer = Drainer(quiet, followed=lambda: True)
    drainer._far = False  # the next tick comes within 5 ms
    drainer.hurry()
    assert drainer._bell.locked()
    drainer._far = True
    drainer.hurry()
    assert not drainer._bell.locked()


def test_the_thread_that_prints_the_awaited_line_brings_it_to_the_journal(quiet: Quiet) -> None:
    Drainer(quiet, followed=lambda: True).start()
    wait_until(lambda: quiet.listeners)
    quiet.listeners[0]()
    assert quiet.drained == [threading.main_thread().name]


def test_lines_that_follow_at_once_are_left_to_the_next_tick(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    """To bring each to a follower who waits again at once took 1,000 lines a second, and no flood ever began."""
    now = [1000.0]
    monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    drainer = Drainer(quiet, followed=lambda: True)
    drainer.expect()
    quiet.listeners.pop()()
    drainer.expect()
    assert quiet.listeners == []
    now[0] += 2 * drain.FOLLOWED_SECONDS
    drainer.expect()
    assert len(quiet.listeners) == 1


def test_another_thread_leaves_it_to_the_one_for_that(quiet: Quiet) -> None:
    """Only the main thread is shielded from signals while it appends to the journal."""
    Drainer(quiet, followed=lambda: True).start()
    wait_until(lambda: quiet.listeners)
    printing = threading.Thread(target=quiet.listeners[0])
    printing.start()
    printing.join()
    assert quiet.drained == []
