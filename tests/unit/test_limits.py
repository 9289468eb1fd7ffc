"""What one user may ask of a process: counted for each, and not for admins."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyrokernel.errors import AccessRefusedError
from pyrokernel.roles import Role
from pyrokernel.wire import limits as room
from pyrokernel.wire.limits import PATIENCE_SECONDS, Limits, Quota, Turns
from pyrokernel.wire.trust import Peer

ANA, BOB = (Peer(uid=-1, role=Role.USER, user=name) for name in ("ana", "bob"))
ROOT = Peer(uid=0, role=Role.ADMIN, user="root")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_user_has_so_many_requests_a_second_and_others_as_many() -> None:
    clock = Clock()
    limits = Limits(Quota(user_requests=10), clock)
    assert [limits.early(ANA) for _ in range(10)] == [0.0] * 10
    assert limits.early(ANA) == pytest.approx(0.1)
    assert limits.early(BOB) == 0.0
    clock.now = 0.5
    assert [limits.early(ANA) for _ in range(4)] == [0.0] * 4
    assert limits.early(ANA) > 0


def test_a_flood_owes_no_more_than_a_moment() -> None:
    clock = Clock()
    limits = Limits(Quota(user_requests=10), clock)
    assert max(limits.early(ANA) for _ in range(10_000)) <= 2 * PATIENCE_SECONDS
    clock.now = 2 * PATIENCE_SECONDS + 0.11
    assert limits.early(ANA) == 0.0


def test_admins_are_not_counted_and_0_is_no_limit() -> None:
    limits = Limits(Quota(user_requests=1, user_connections=1), Clock())
    assert {limits.early(ROOT) for _ in range(100)} == {0.0}
    for _ in range(5):
        limits.arrive(ROOT)
    limits = Limits(Quota(user_requests=0, user_connections=0), Clock())
    assert {limits.early(ANA) for _ in range(100)} == {0.0}
    for _ in range(1000):
        limits.arrive(ANA)


def test_a_connection_too_many_is_refused_until_another_is_closed() -> None:
    limits = Limits(Quota(user_connections=2))
    limits.arrive(ANA)
    limits.arrive(ANA)
    with pytest.raises(AccessRefusedError, match=r"ana has 2 connections.*user_connections"):
        limits.arrive(ANA)
    limits.arrive(BOB)
    limits.leave(ANA)
    limits.arrive(ANA)


def test_who_is_early_waits_and_who_is_too_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(room.time, "sleep", slept.append)
    limits = Limits(Quota(user_requests=10), Clock())
    outcomes: list[str] = []

    def ask() -> None:
        for _ in range(30):
            try:
                limits.pace(ANA)
                outcomes.append("done")
            except AccessRefusedError as error:
                outcomes.append("refused" if "user_requests" in str(error) else str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert outcomes == ["done"] * 20 + ["refused"] * 10
    assert slept[0] == pytest.approx(0.1)
    assert max(slept) == PATIENCE_SECONDS


def test_the_main_thread_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.time, "sleep", lambda seconds: pytest.fail("it slept"))
    limits = Limits(Quota(user_requests=1), Clock())
    limits.pace(ANA)
    with pytest.raises(AccessRefusedError):
        limits.pace(ANA)


def test_users_who_ask_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_KNOWN_USERS", 10)
    clock = Clock()
    limits = Limits(Quota(user_requests=5), clock)
    for number in range(100):
        clock.now += 1.0
        limits.early(Peer(uid=-1, role=Role.USER, user=f"u{number}"))
    assert len(limits._buckets) <= 11


def test_a_host_counts_as_many_users_and_not_as_the_user_of_its_name() -> None:
    limits = Limits(Quota(user_connections=2, user_requests=1), Clock())
    host = Peer(uid=-1, role=Role.USER, user="ana", kind="host")
    for _ in range(2 * room._USERS_OF_A_HOST):
        limits.arrive(host)
    with pytest.raises(AccessRefusedError, match="no host has more than 32"):
        limits.arrive(host)
    assert [limits.early(host) for _ in range(room._USERS_OF_A_HOST)] == [0.0] * room._USERS_OF_A_HOST
    assert limits.early(host) > 0
    limits.arrive(ANA)
    assert limits.early(ANA) == 0.0


def test_users_of_one_name_from_two_hosts_are_two() -> None:
    limits = Limits(Quota(user_connections=1))
    for through in ("", "lab2", "lab3"):
        limits.arrive(Peer(uid=-1, role=Role.USER, user="ana", kind="user", through=through))
    with pytest.raises(AccessRefusedError, match="ana@lab2 has 1 connections"):
        limits.arrive(Peer(uid=-1, role=Role.USER, user="ana", kind="user", through="lab2"))


def test_whoever_asks_one_thing_after_the_other_is_paced_and_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the main thread too: a loop of calls of 200 us each, for ten seconds."""
    clock = Clock()
    limits = Limits(Quota(user_requests=2000), clock)

    def sleep(seconds: float) -> None:
        assert seconds <= room.HARDLY_SECONDS
        clock.now += seconds

    monkeypatch.setattr(room.time, "sleep", sleep)
    for _ in range(20_000):
        limits.pace(ANA)
        clock.now += 0.0002
    assert clock.now == pytest.approx(20_000 / 2000, rel=0.2)


def test_those_who_may_only_look_are_served_one_after_the_other() -> None:
    turns, begun, goes_on = Turns(), threading.Semaphore(0), threading.Event()

    def ask(name: str, role: Role) -> None:
        with turns.of(Peer(uid=-1, role=role, user=name)):
            begun.release()
            assert goes_on.wait(10)

    lookers = [("olga", Role.OBSERVER), ("olga", Role.OBSERVER), ("eve", Role.OBSERVER)]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, *one) for one in lookers]
        assert begun.acquire(timeout=10)
        asked.append(threads.submit(ask, "ana", Role.USER))
        assert begun.acquire(timeout=10), "who may run code waits for nobody"
        assert not begun.acquire(timeout=0.2)
        goes_on.set()
        for one in asked:
            one.result(10)


def test_what_was_worked_for_those_who_may_only_look_is_left_to_the_others_three_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    worked = iter([1.0, 1.1, 2.0, 2.0001, 3.0, 9.0])
    monkeypatch.setattr(time, "thread_time", lambda: next(worked))
    monkeypatch.setattr(time, "sleep", slept.append)
    turns, peer = Turns(), Peer(uid=-1, role=Role.OBSERVER, user="olga")
    for _ in range(3):
        with turns.of(peer):
            pass
    assert slept == [pytest.approx(0.3), 1.0]
