"""Deaths are numbered, announced to whoever waits, and remembered by the next host."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrokernel.host.deaths import KEPT_DEATHS, DeathLog, examine
from pyrokernel.messages import Death


def death(number: int) -> Death:
    return Death(kernel="k", instance=f"{number:016x}", at=float(number), last_cell={"cell": "c", "source": "1"})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DeathLog]:
    found = DeathLog(tmp_path / "deaths.jsonl")
    yield found
    found.close()


def test_deaths_are_read_from_a_number_on(log: DeathLog) -> None:
    for number in range(3):
        log.append(death(number))
    assert log.after(0, 0) == (3, [death(0), death(1), death(2)])
    assert log.after(2, 0) == (3, [death(2)])
    assert log.after(3, 0) == (3, [])


def test_a_new_listener_asks_where_the_count_stands(log: DeathLog) -> None:
    log.append(death(0))
    assert log.after(-1, 60) == (1, [])


def test_a_number_of_an_earlier_host_gets_everything(log: DeathLog) -> None:
    log.append(death(0))
    assert log.after(900, 0) == (1, [death(0)])


def test_whoever_waits_is_told_at_once(log: DeathLog) -> None:
    heard: list[object] = []
    threads = [
        threading.Thread(target=lambda: heard.append(log.after(0, 30))),
        threading.Thread(target=lambda: heard.append(log.of(death(1).instance, 30))),
    ]
    for thread in threads:
        thread.start()
    log.append(death(1))
    for thread in threads:
        thread.join(10)
    assert death(1) in heard
    assert (1, [death(1)]) in heard


def test_the_death_of_somebody_else_does_not_answer(log: DeathLog) -> None:
    log.append(death(0))
    assert log.of(death(1).instance, 0.02) is None


def test_closing_lets_everybody_go(log: DeathLog) -> None:
    started = time.monotonic()
    thread = threading.Thread(target=lambda: log.of("nobody", 60))
    thread.start()
    log.close()
    thread.join(10)
    assert time.monotonic() - started < 10
    assert log.after(0, 60) == (0, [])


def test_the_next_host_remembers(log: DeathLog, tmp_path: Path) -> None:
    log.append(death(0))
    log.append(death(1))
    with (tmp_path / "deaths.jsonl").open("a") as stream:
        stream.write('{"kernel": "half a li')
    later = DeathLog(tmp_path / "deaths.jsonl")
    assert later.after(0, 0) == (2, [death(0), death(1)])
    assert later.of(death(0).instance, 0) == death(0)


def test_memory_is_bounded(log: DeathLog) -> None:
    for number in range(KEPT_DEATHS + 5):
        log.append(death(number))
    number, kept = log.after(1, 0)
    assert number == KEPT_DEATHS + 5
    assert len(kept) == KEPT_DEATHS
    assert kept[-1] == death(KEPT_DEATHS + 4)


def test_a_full_disk_does_not_silence_an_announcement(tmp_path: Path) -> None:
    log = DeathLog(tmp_path / "no such directory" / "deaths.jsonl")
    log.append(death(0))
    assert log.of(death(0).instance, 0) == death(0)


def test_a_large_file_is_cut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrokernel.host.deaths._MAX_FILE_BYTES", 4000)
    path = tmp_path / "deaths.jsonl"
    log = DeathLog(path)
    for number in range(100):
        log.append(death(number))
    later = DeathLog(path)
    assert path.stat().st_size < 4000
    assert later.of(death(99).instance, 0) == death(99)
    assert later.of(death(0).instance, 0) is None


def test_a_kernel_without_a_journal_leaves_no_last_words(tmp_path: Path) -> None:
    assert examine(tmp_path / "missing") == (None, "")
