"""The journal keeps every event in order, on a full disk too, and says what is missing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrokernel import journal_files
from pyrokernel.journal import Journal, JournalReader
from pyrokernel.messages import Event, EventKind


def read_all(source: Journal | JournalReader, after: int = 0, cell: str | None = None) -> list[Event]:
    """Read in small steps, as a follower does."""
    events: list[Event] = []
    while more := source.read(after, max_bytes=500, cell=cell):
        assert more[-1].seq > after
        events += more
        after = more[-1].seq
    return events


def assert_complete(events: list[Event], last: int) -> None:
    """Every number up to `last` is there once, as an event or inside a gap."""
    expected = 1
    for event in events:
        if event.kind == EventKind.GAP and "first" in event.data:
            assert event.data["first"] == expected
            assert event.data["last"] == event.seq
        else:
            assert event.seq == expected
        expected = event.seq + 1
    assert expected == last + 1


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Journal]:
    """A journal whose memory and disk hold only a few events."""
    journal = Journal(tmp_path / "journal", cap_bytes=16_000, ring_bytes=500)
    yield journal
    journal.close()


def test_events_come_back_as_they_were_appended(journal: Journal) -> None:
    assert journal.append(EventKind.STARTED, "c1", source="1 + 1") == 1
    assert journal.append("output", cell="c1", stream="stdout", text="2\n") == 2
    first, second = journal.read(0)
    assert (first.seq, first.kind, first.cell, first.data) == (1, "started", "c1", {"source": "1 + 1"})
    assert second.data == {"stream": "stdout", "text": "2\n"}
    assert second.at >= first.at > 1_600_000_000
    assert journal.read(1) == [second]
    assert journal.read(2) == []
    assert journal.last_seq == 2


def test_memory_and_disk_tell_the_same(small: Journal) -> None:
    texts = ["plain", "\udc80 lone", "\x00\x1b[0m", 'quo"te \\ \n', "🙂é"] * 4
    for text in texts:
        small.append("output", "c", text=text)
    from_disk = read_all(JournalReader(small.directory))
    assert [event.data["text"] for event in from_disk] == texts
    assert read_all(small) == from_disk


def test_data_that_is_not_plain_is_refused_and_leaves_no_trace(journal: Journal) -> None:
    with pytest.raises(TypeError):
        journal.append("result", "c", value=object())
    assert journal.last_seq == 0
    assert journal.append("result", "c", value=1) == 1


def test_read_stops_at_max_bytes_but_returns_at_least_one(small: Journal) -> None:
    for number in range(20):
        small.append("output", "c", text="x" * 300, number=number)
    for source in (small, JournalReader(small.directory)):
        assert len(source.read(0, max_bytes=1)) == 1
        assert len(source.read(0, max_bytes=1000)) < 20
        assert_complete(read_all(source), 20)


def test_read_finds_every_position_in_a_long_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ring_bytes=1)
    for number in range(1, 3001):
        journal.append("output", "c", text=str(number) * (1 + number % 97))
    for after in (*range(0, 2999, 37), 2998):
        assert journal.read(after, max_bytes=1)[0].seq == after + 1
    journal.close()


def test_read_of_one_cell_passes_over_the_others(small: Journal) -> None:
    for number in range(60):
        small.append("output", f"c{number % 3}", text=f"{number}")
    for source in (small, JournalReader(small.directory)):
        texts = [event.data["text"] for event in read_all(source, cell="c1")]
        assert texts == [str(number) for number in range(1, 60, 3)]
        assert source.read(0, cell="nobody") == []


def test_past_the_cap_the_oldest_are_gone_and_a_gap_says_so(small: Journal) -> None:
    for number in range(500):
        small.append("output", "c", text=f"{number:0100d}")
    assert sum(path.stat().st_size for path in small.directory.iterdir()) <= 16_000
    for source in (small, JournalReader(small.directory)):
        events = read_all(source)
        assert events[0].kind == EventKind.GAP
        assert events[0].data["first"] == 1
        assert "cap" in events[0].data["reason"]
        assert_complete(events, 500)
        middle = events[0].seq // 2
        assert source.read(middle)[0].data["first"] == middle + 1
        assert source.read(0, cell="other") == [events[0]]


def test_wait_returns_when_an_event_comes(journal: Journal) -> None:
    assert not journal.wait(0, 0.0)
    seen: list[bool] = []
    waiter = threading.Thread(target=lambda: seen.append(journal.wait(0, 10)))
    waiter.start()
    journal.append("output", "c", text="x")
    waiter.join(10)
    assert seen == [True]


def test_close_wakes_those_who_wait(journal: Journal) -> None:
    seen: list[bool] = []
    waiter = threading.Thread(target=lambda: seen.append(journal.wait(0, 10)))
    waiter.start()
    journal.close()
    waiter.join(10)
    assert seen == [False]


def test_many_writers_and_readers_lose_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ring_bytes=2_000)
    seen: list[list[Event]] = [[] for _ in range(3)]

    def write(name: str) -> None:
        for number in range(400):
            journal.append("output", name, number=number)

    def follow(events: list[Event]) -> None:
        while len(events) < 1600:
            after = events[-1].seq if events else 0
            assert journal.wait(after, 10)
            events += journal.read(after, max_bytes=3_000)

    threads = [threading.Thread(target=write, args=(f"w{number}",)) for number in range(4)]
    threads += [threading.Thread(target=follow, args=(events,)) for events in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for events in (*seen, read_all(JournalReader(tmp_path))):
        assert_complete(events, 1600)
        for name in ("w0", "w1", "w2", "w3"):
            assert [event.data["number"] for event in events if event.cell == name] == list(range(400))
    journal.close()


def test_a_reader_behind_the_cap_catches_up_while_segments_are_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, cap_bytes=8_000, ring_bytes=500)
    done = threading.Event()

    def write() -> None:
        for _ in range(3000):
            journal.append("output", "c", text="x" * 50)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    events: list[Event] = []
    while not done.is_set() or (events and events[-1].seq < journal.last_seq):
        events += journal.read(events[-1].seq if events else 0, max_bytes=1_000)
    writer.join()
    assert_complete(events, 3000)
    journal.close()


class FullDisk:
    """Makes `os.write` fail, after it has taken a few bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write: Callable[[int, bytes], int] = os.write
        monkeypatch.setattr("pyrokernel.journal.os.write", self._fake)

    def _fake(self, fd: int, data: bytes) -> int:
        if not self.full:
            return self._write(fd, data)
        if len(data) <= 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(fd, data[:7]) if len(data) % 2 else self._raise()

    def _raise(self) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_events_stay_in_memory_and_are_written_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    journal.append("output", "c", text="before")
    disk.full = True
    for number in range(10):
        journal.append("output", "c", text="x" * number)
    assert "No space" in journal.disk_error
    assert_complete(read_all(journal), 11)
    assert read_all(JournalReader(journal.directory))[-1].data == {"text": "before"}
    disk.full = False
    journal.append("output", "c", text="after")
    assert journal.disk_error == ""
    assert read_all(JournalReader(journal.directory)) == read_all(journal)
    assert_complete(read_all(journal), 12)


def test_what_neither_disk_nor_memory_could_hold_is_a_gap(small: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    small.append("output", "c", text="before")
    disk.full = True
    for _ in range(50):
        small.append("output", "c", text="x" * 50)
    while_full = read_all(small)
    assert_complete(while_full, 51)
    assert "No space" in while_full[1].data["reason"]
    disk.full = False
    small.append("output", "c", text="after")
    for source in (small, JournalReader(small.directory)):
        events = read_all(source)
        assert_complete(events, 52)
        assert [event.kind for event in events[:3]] == ["output", "gap", "output"]
        assert "disk" in events[1].data["reason"]


def test_a_directory_that_vanished_fails_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    journal = Journal(directory, cap_bytes=800)
    directory.rmdir()
    for number in range(20):
        journal.append("output", "c", number=number)
    assert journal.disk_error
    assert len(journal.read(0)) == 20
    journal.close()


def test_a_tiny_file_system_fills_up_and_is_freed(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount")
    try:
        journal = Journal(tmp_path)
        for _ in range(200):
            journal.append("output", "c", text="x" * 1000)
        assert "No space" in journal.disk_error
        assert_complete(read_all(journal), 200)
        on_disk = read_all(JournalReader(tmp_path))
        assert_complete(on_disk, on_disk[-1].seq)
        journal.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_limit_on_file_size_makes_smaller_segments(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from pyrokernel.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
journal = Journal(Path(sys.argv[1]))
for number in range(100):
    journal.append("output", "c", text="x" * 100)
assert journal.disk_error == "", journal.disk_error
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert_complete(read_all(JournalReader(tmp_path)), 100)


def test_a_half_written_last_line_is_not_read(journal: Journal) -> None:
    journal.append("output", "c", text="whole")
    with next(journal.directory.iterdir()).open("ab") as file:
        file.write(b'{"seq":2,"kind":"outp')
    reader = JournalReader(journal.directory)
    assert [event.seq for event in reader.read(0)] == [1]
    assert reader.last_seq == 1
    assert reader.tail_text() == "whole"


def test_a_damaged_line_is_a_gap(journal: Journal) -> None:
    for number in range(3):
        journal.append("output", "c", number=number)
    path = next(journal.directory.iterdir())
    path.write_bytes(path.read_bytes().replace(b'"number":1', b"\0" * 10))
    assert_complete(read_all(JournalReader(journal.directory)), 3)


def test_a_journal_goes_on_where_an_earlier_writer_ended(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append("output", "c", text="1")
    first.close()
    second = Journal(tmp_path)
    assert second.append("output", "c", text="2") == 2
    assert [event.data["text"] for event in second.read(0)] == ["1", "2"]
    assert_complete(read_all(second), 2)
    second.close()


def test_a_reader_of_nothing_finds_nothing(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "missing")
    assert reader.read(0) == []
    assert reader.last_seq == 0
    assert reader.last_cell() is None
    assert reader.tail_text() == ""


def test_last_cell_is_the_one_that_started_and_did_not_end(journal: Journal) -> None:
    reader = JournalReader(journal.directory)
    journal.append("started", "c1", source="a")
    journal.append("ended", "c1", status="ok")
    assert reader.last_cell() is None
    journal.append("started", "c2", source="while True: pass")
    journal.append("output", "c2", text='"kind":"ended"')
    last = reader.last_cell()
    assert last is not None
    assert (last["cell"], last["source"]) == ("c2", "while True: pass")
    assert last["started"] > 0


def test_of_a_burst_the_chunk_that_began_last_is_told(journal: Journal) -> None:
    reader = JournalReader(journal.directory)
    first, second, third = ("a" * 32, "b" * 32, "c" * 32)
    journal.append("started", first, source="map(f, ...)")
    assert (reader.last_cell() or {})["cell"] == first
    for chunk in (second, third):
        assert journal.note_chunk(first, chunk)
        assert (reader.last_cell() or {})["cell"] == chunk
    journal.append("ended", first, status="ok")
    assert reader.last_cell() is None
    journal.append("started", second, source="another")
    assert (reader.last_cell() or {})["cell"] == second
    (journal.directory / "chunk").write_bytes(second.encode() + b"half")
    assert (reader.last_cell() or {})["cell"] == second


def test_a_chunk_that_cannot_be_noted_is_told(journal: Journal) -> None:
    (journal.directory / "chunk").mkdir()
    assert not journal.note_chunk("a" * 32, "b" * 32)
    assert journal.disk_error


def test_last_cell_is_known_when_its_start_was_deleted_by_the_cap(small: Journal) -> None:
    small.append("started", "c", source="flood()")
    for _ in range(500):
        small.append("output", "c", text="x" * 100)
    last = JournalReader(small.directory).last_cell()
    assert last is not None
    assert last["source"] == "flood()"


def test_tail_text_is_the_end_of_the_output_across_segments(small: Journal) -> None:
    small.append("started", "c", source="print()")
    for number in range(100):
        small.append("output", "c", text=f"line {number} é\n")
    reader = JournalReader(small.directory)
    whole = "".join(f"line {number} é\n" for number in range(100))
    assert reader.tail_text(10_000) == whole
    assert reader.tail_text(500) == whole.encode()[-500:].decode("utf-8", "ignore")
    assert reader.tail_text(0) == ""


def test_output_that_was_captured_but_not_journalled_follows(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("started", "c2", source="crash()")
    journal.close()
    journal_files.capture_path(tmp_path, 1, "stdout").write_bytes(b"known new")
    journal_files.capture_path(tmp_path, 1, "stderr").write_bytes(b"e" * 300)
    journal_files.capture_path(tmp_path, 2, "stdout").write_bytes(b"late")
    table = bytearray(200)
    for record, offset in (
        journal_files.pack_position(0, 1, 0),
        journal_files.pack_position(1, 6, 0),
        journal_files.pack_position(2, 0, 0, "c1"),
    ):
        table[offset : offset + len(record)] = record
    (tmp_path / journal_files.POSITIONS).write_bytes(table)

    reader = JournalReader(tmp_path, waiting_bytes=100)
    events = read_all(reader)
    assert_complete(events, 5)
    assert [(event.kind, event.cell, event.data.get("text")) for event in events[1:]] == [
        ("output", "c1", "late"),
        ("output", "c2", "new"),
        ("gap", "c2", None),
        ("output", "c2", "e" * 100),
    ]
    assert events[1].data["late"]
    assert not events[2].data["late"]
    assert events[3].data["lost_bytes"] == 200
    assert reader.read(3) == events[3:]
    assert reader.read(0, cell="c1") == [events[1]]
    assert reader.tail_text().startswith("latenew")
    assert len(JournalReader(tmp_path, waiting_bytes=0).read(0)) == 1


def test_a_forked_child_leaves_the_journal_alone(journal: Journal) -> None:
    journal.append("output", "c", text="parent")
    child = os.fork()
    if child == 0:
        journal.abandon_in_child()
        journal.append("output", "c", text="child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(read_all(JournalReader(journal.directory))) == 1
    journal.append("output", "c", text="parent again")
    assert_complete(read_all(JournalReader(journal.directory)), 2)


def test_a_signal_handler_may_append_in_the_middle_of_an_append(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    nested = iter([True])

    def interrupted(fd: int, data: bytes) -> int:
        count = write(fd, data)
        if next(nested, False):
            journal.append("output", "c", text="handler")
        return count

    monkeypatch.setattr("pyrokernel.journal.os.write", interrupted)
    journal.append("output", "c", text="main")
    journal.append("output", "c", text="next")
    for source in (journal, JournalReader(journal.directory)):
        assert [event.data["text"] for event in read_all(source)] == ["main", "handler", "next"]


def test_every_line_is_ascii_json_that_begins_with_its_number(journal: Journal) -> None:
    journal.append("output", "c", text="é\udc80\n")
    header, line = next(journal.directory.iterdir()).read_bytes().splitlines()
    assert json.loads(header) == {"running": None, "first": 1}
    assert line.startswith(b'{"seq":1,')
    assert line.isascii()
