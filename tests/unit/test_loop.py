"""The host's loop: one thread, callbacks, timers, and calls from elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from pyrokernel.loop import Loop, gather, resolve, when_done


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def test_calls_from_other_threads_run_in_the_loop(loop: Loop) -> None:
    future = loop.submit(threading.get_ident)
    future.add_done_callback(lambda _: loop.stop())
    starter = threading.Thread(target=loop.run)
    starter.start()
    assert future.result(10) == starter.ident
    starter.join(10)


def test_a_failure_belongs_to_whoever_asked(loop: Loop) -> None:
    future: Future[float] = loop.submit(lambda: 1 / 0)
    loop.call(loop.stop)
    loop.run()
    with pytest.raises(ZeroDivisionError):
        future.result(0)


def test_timers_run_in_order_and_not_when_cancelled(loop: Loop) -> None:
    seen: list[str] = []
    loop.after(0.02, lambda: seen.append("later"))
    loop.after(0.01, lambda: seen.append("soon"))
    loop.after(0.0, lambda: seen.append("never")).cancel()
    loop.after(0.03, loop.stop)
    loop.run()
    assert seen == ["soon", "later"]


def test_a_watched_descriptor_calls_back_until_it_is_unwatched(loop: Loop) -> None:
    read_end, write_end = os.pipe()
    seen: list[bytes] = []

    def readable() -> None:
        seen.append(os.read(read_end, 1))
        if len(seen) == 2:
            loop.unwatch(read_end)
            loop.stop()

    loop.watch(read_end, readable)
    os.write(write_end, b"abc")
    loop.run()
    assert seen == [b"a", b"b"]
    os.close(read_end)
    os.close(write_end)


def test_a_descriptor_closed_by_an_earlier_callback_is_left_alone(loop: Loop) -> None:
    ends = [os.pipe() for _ in range(2)]
    seen: list[int] = []

    def readable(mine: int, other: int) -> None:
        seen.append(mine)
        loop.unwatch(other)
        loop.stop()

    loop.watch(ends[0][0], lambda: readable(ends[0][0], ends[1][0]))
    loop.watch(ends[1][0], lambda: readable(ends[1][0], ends[0][0]))
    for _, write_end in ends:
        os.write(write_end, b"x")
    loop.run()
    assert len(seen) == 1
    for pair in ends:
        for end in pair:
            os.close(end)


def test_an_object_closed_by_an_earlier_callback_is_left_alone(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    seen: list[int] = []

    def readable(number: int) -> None:
        seen.append(number)
        for ours, theirs in pairs:
            loop.unwatch(ours)
            ours.close()
            theirs.close()
        loop.stop()

    loop.watch(pairs[0][0], lambda: readable(0))
    loop.watch(pairs[1][0], lambda: readable(1))
    for _, theirs in pairs:
        theirs.send(b"x")
    loop.run()
    assert len(seen) == 1


def test_a_mistake_in_a_callback_does_not_end_the_loop(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.call(lambda: 1 / 0)
    loop.call(loop.stop)
    with caplog.at_level(logging.ERROR):
        loop.run()
    assert "ZeroDivisionError" in caplog.text


def test_a_signal_wakes_the_loop_and_the_earlier_handler_comes_back(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    other = Loop()
    other.on_signal(signal.SIGUSR1, other.stop)
    other.call(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    other.run()
    other.close()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_gather_keeps_order_and_waits_for_all_before_it_fails() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    together = gather([first, second])
    second.set_result(2)
    first.set_result(1)
    assert together.result(0) == [1, 2]
    assert gather([]).result(0) == []

    bad: Future[int] = Future()
    slow: Future[int] = Future()
    together = gather([bad, slow])
    bad.set_exception(ValueError("bad"))
    assert not together.done()
    slow.set_result(3)
    with pytest.raises(ValueError, match="bad"):
        together.result(0)


def test_when_done_calls_once() -> None:
    calls: list[int] = []
    futures: list[Future[int]] = [Future(), Future()]
    when_done(futures, lambda: calls.append(1))
    for future in futures:
        assert calls == []
        future.set_result(0)
    assert calls == [1]
    when_done([], lambda: calls.append(2))
    assert calls == [1, 2]


def test_the_first_answer_stays() -> None:
    future: Future[int] = Future()
    resolve(future, 1)
    resolve(future, ValueError())
    assert future.result(0) == 1


def test_who_calls_a_loop_that_has_ended_is_not_in_trouble() -> None:
    ended = Loop()
    ended.close()
    ended.call(lambda: None)
    ended.stop()
