"""Copying large data: all of it arrives, whoever helps, and nobody copies on when the copy is over."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from pyrokernel.wire import copying
from pyrokernel.wire.copying import copy_into

numpy = pytest.importorskip("numpy")

LARGE = 40 << 20
STEP = copying._HELPED_STEP_BYTES


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_processors", lambda: 2)


def is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def meet_in_first_step(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> list[threading.Thread]:
    """Have each of two threads do something when both are at their first step; return who took each step."""
    copyto, met, took = numpy.copyto, threading.Barrier(2), []

    def step(*args: Any) -> None:
        took.append(threading.current_thread())
        if took.count(threading.current_thread()) == 1:
            met.wait(timeout=20)
            then()
        copyto(*args)

    monkeypatch.setattr(numpy, "copyto", step)
    return took


def source(size: int = LARGE) -> memoryview:
    return memoryview(numpy.random.default_rng(size).bytes(size))


@pytest.mark.parametrize("size", [0, 1, (16 << 20) - 1, 16 << 20, LARGE + 3])
def test_all_arrives(size: int) -> None:
    target = bytearray(size)
    copy_into(memoryview(target), source(size), None)
    assert target == source(size)


def test_a_second_thread_copies_too_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    took = meet_in_first_step(monkeypatch, lambda: None)
    target = bytearray(LARGE)
    copy_into(memoryview(target), source(), None)
    assert target == source()
    assert len(set(took)) == 2
    assert [thread for thread in took if thread.is_alive()] == [one for one in took if one is threading.main_thread()]
    target.append(0)  # nobody has a view of it any more, or this would raise


def test_small_data_and_one_processor_need_no_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        pytest.fail("no thread is worth its start here")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    copy_into(memoryview(bytearray(1 << 20)), source(1 << 20), None)
    monkeypatch.setattr(copying, "_processors", lambda: 1)
    copy_into(memoryview(bytearray(LARGE)), source(), None)


def test_where_no_thread_is_to_be_had_one_copies_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    target = bytearray(LARGE)
    copy_into(memoryview(target), source(), None)
    assert target == source()


def test_ctrl_c_waits_for_the_step_of_the_other_thread_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    waited, wait_for = threading.Event(), copying._wait_for

    def ctrl_c() -> None:
        if is_main():
            raise KeyboardInterrupt
        assert waited.wait(timeout=20)

    def begin_to_wait(working: threading.Lock) -> None:
        waited.set()
        wait_for(working)

    monkeypatch.setattr(copying, "_wait_for", begin_to_wait)
    took = meet_in_first_step(monkeypatch, ctrl_c)
    target = bytearray(LARGE)
    with pytest.raises(KeyboardInterrupt):
        copy_into(memoryview(target), source(), None)
    assert len(took) == 2
    assert not any(thread.is_alive() for thread in took if thread is not threading.main_thread())
    arrived = [target[place : place + STEP] == source()[place : place + STEP] for place in range(0, LARGE, STEP)]
    assert arrived.count(True) == 1


def test_a_helper_that_was_not_waited_for_keeps_others_from_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C in the instant before the wait."""

    class Use:
        """Of a segment, which another use may have once this one is gone."""

    go_on = threading.Event()

    def ctrl_c(*_: object) -> None:
        if is_main():
            raise KeyboardInterrupt
        assert go_on.wait(timeout=20)

    took = meet_in_first_step(monkeypatch, ctrl_c)
    monkeypatch.setattr(copying, "_wait_for", ctrl_c)
    use = Use()
    held = weakref.ref(use)
    with pytest.raises(KeyboardInterrupt):
        copy_into(memoryview(bytearray(LARGE)), source(), use)
    del use
    gc.collect()
    assert held() is not None
    go_on.set()
    for thread in took:
        if thread is not threading.main_thread():
            thread.join(20)
    gc.collect()
    assert held() is None


def test_a_second_ctrl_c_while_waiting_waits_on() -> None:
    class Working:
        tries = 0

        def __enter__(self) -> None:
            self.tries += 1
            if self.tries < 3:
                raise KeyboardInterrupt

        def __exit__(self, *exception: object) -> None:
            """Nothing is held."""

    working: Any = Working()
    with pytest.raises(KeyboardInterrupt):
        copying._wait_for(working)
    assert working.tries == 3


def test_what_the_other_thread_could_not_copy_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        if not is_main():
            raise MemoryError("in the helper")

    meet_in_first_step(monkeypatch, fail)
    with pytest.raises(MemoryError, match="in the helper"):
        copy_into(memoryview(bytearray(LARGE)), source(), None)
