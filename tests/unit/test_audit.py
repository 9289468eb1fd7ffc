"""The record of who did what: complete, capped, told once, whatever is killed."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pyrokernel import audit as room
from pyrokernel.audit import AuditFile, Filter, entry, refusals_to
from pyrokernel.cli import main
from pyrokernel.client.auditing import Audit
from pyrokernel.errors import KernelUnreachableError, PyrokernelError
from pyrokernel.front import audit as front
from pyrokernel.front.audit import _joined
from pyrokernel.front.exits import ExitCode, code_of
from pyrokernel.host.recorder import Recorder
from pyrokernel.journal import Journal
from pyrokernel.messages import Death, EventKind
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire.trust import Peer

ANA = Peer(uid=-1, role=Role.USER, user="ana", address="10.0.0.7:9")
INSTANCE = "0123456789abcdef"


class Desk:
    """A record, and the journals it is made of.

    Args:
        directory: For all of it.
        cap_bytes: Of the record.
    """

    def __init__(self, directory: Path, cap_bytes: int = 1 << 20) -> None:
        self.directory = directory
        self.file = AuditFile(directory, cap_bytes)
        self.file.create()
        self.recorder = Recorder(self.file, directory / "journals")
        self.journals: dict[str, Journal] = {}

    def journal(self, kernel: str = "k0", instance: str = INSTANCE, **more: Any) -> Journal:
        if instance not in self.journals:
            (self.directory / "journals" / kernel).mkdir(parents=True, exist_ok=True)
            self.journals[instance] = Journal(self.directory / "journals" / kernel / instance, **more)
        return self.journals[instance]

    def run(self, source: str, cell: str = "c" * 32, author: str = "ana", status: str = "ok", **where: Any) -> None:
        journal = self.journal(**where)
        self.begin(source, cell, author, **where)
        journal.append(EventKind.OUTPUT, cell, stream="stdout", text=source * 3, late=False)
        journal.append(EventKind.ENDED, cell, status=status, duration=0.5, cpu=0.1)

    def begin(self, source: str, cell: str = "c" * 32, author: str = "ana", **where: Any) -> None:
        told = {"author": author, "client": "x", "job": "", "execution_count": 1}
        self.journal(**where).append(EventKind.STARTED, cell, source=source, **told)

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        found, position, end = [], "", False
        while not end:
            records, position, end = self.file.read(Filter(**wanted), position)
            found += records
        return found

    def successor(self, **more: Any) -> Desk:
        """Return what a host makes of it that comes after this one."""
        after = Desk(self.directory, **more)
        after.journals = self.journals
        after.recorder._recall()
        return after


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_cell_is_told_with_who_where_what_and_how_it_ended(desk: Desk) -> None:
    desk.run("x = 1", status="error")
    assert desk.recorder.catch_up()
    (record,) = desk.records()
    assert {name: record[name] for name in ("what", "user", "kernel", "instance", "source", "status", "seconds")} == {
        "what": "cell", "user": "ana", "kernel": "k0", "instance": INSTANCE, "source": "x = 1", "status": "error",
        "seconds": 0.5,
    }  # fmt: skip
    assert not desk.recorder.catch_up()
    assert len(desk.records()) == 1


def test_the_end_of_a_cell_is_told_when_it_comes(desk: Desk) -> None:
    desk.begin("slow()")
    desk.recorder.catch_up()
    assert "status" not in desk.records()[0]
    desk.journal().append(EventKind.ENDED, "c" * 32, status="ok", duration=9.0, cpu=0.1)
    desk.recorder.catch_up()
    end = desk.records()[1]
    assert (end["what"], end["user"], end["status"], end["seconds"]) == ("end", "ana", "ok", 9.0)


def test_like_calls_are_one_record_with_their_number(desk: Desk) -> None:
    for number in range(50):
        desk.run("f(...)", cell=f"{number:032x}")
    desk.run("f(...)", cell="e" * 32, status="error")
    desk.run("f(...)", cell="f" * 32, author="bob")
    desk.recorder.catch_up()
    first, failed, other = desk.records()
    assert (first["count"], first["cell"], first["last"], first["seconds"]) == (50, f"{0:032x}", f"{49:032x}", 25.0)
    assert (failed["status"], other["user"]) == ("error", "bob")


def test_what_a_dead_kernel_ran_is_told_although_half_a_line_is_at_its_end(desk: Desk) -> None:
    desk.run("x = 1")
    desk.begin("os._exit(1)", cell="d" * 32)
    (segment,) = desk.journal().directory.glob("events-*")
    with segment.open("ab") as stream:
        stream.write(b'{"seq":9,"kind":"sta')
    desk.recorder.catch_up()
    desk.recorder.catch_up()
    assert [record["source"] for record in desk.records()] == ["x = 1", "os._exit(1)"]


def test_a_host_that_takes_over_tells_nothing_twice_and_misses_nothing(desk: Desk) -> None:
    desk.run("one")
    desk.recorder.catch_up()
    desk.run("two", cell="2" * 32)
    after = desk.successor()
    after.recorder.catch_up()
    after.run("three", cell="3" * 32)
    after.successor().recorder.catch_up()
    assert [record["source"] for record in desk.records()] == ["one", "two", "three"]


def test_the_record_is_capped_and_a_host_after_that_still_knows_how_far_it_goes(desk: Desk, tmp_path: Path) -> None:
    small = Desk(tmp_path, cap_bytes=64 * 1024)
    small.run("first")
    small.recorder.catch_up()
    for number in range(3000):
        small.recorder.note("start", ANA, kernels=[f"k{number}"])
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert sum(path.stat().st_size for path in files) <= 64 * 1024
    assert room.FILES - 1 <= len(files) <= room.FILES
    assert sum(path.stat().st_size for path in files) > 64 * 1024 * 0.7, "it keeps what there is room for"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert not any(record.get("source") == "first" for record in small.records()), "it has gone"
    after = small.successor(cap_bytes=64 * 1024)
    after.recorder.catch_up()
    assert not any(record.get("source") == "first" for record in small.records()), "it is not told as if it were new"
    numbers = [int(record["kernels"][0][1:]) for record in small.records() if record["what"] == "start"]
    assert numbers == list(range(numbers[0], 3000)), "what is kept has no holes"


def test_what_a_journal_dropped_before_it_was_read_is_told_as_missing(desk: Desk) -> None:
    desk.run("one", cap_bytes=40_000)
    desk.recorder.catch_up()
    for number in range(400):
        desk.run("x" * 200, cell=f"{number:032x}")
    desk.recorder.catch_up()
    gaps = [record for record in desk.records() if record["what"] == "gap"]
    assert len(gaps) == 1
    assert gaps[0]["first"] == 4
    assert gaps[0]["last"] > 100


def test_a_full_disk_is_said_and_what_could_not_be_written_is_written_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk.run("x = 1")
    whole = os.write

    def half(descriptor: int, data: bytes) -> int:
        return whole(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(room.os, "write", half)
        desk.recorder.catch_up()
    assert "cannot be written" in caplog.text
    assert desk.records() == []
    assert (desk.directory / room.NAME).read_bytes() == b""
    desk.recorder.catch_up()
    assert [record["source"] for record in desk.records()] == ["x = 1"]


def test_records_are_chosen_by_user_kernel_and_time(desk: Desk) -> None:
    desk.file.append([entry("cell", 100.0, user="ana", kernel="k0"), entry("cell", 200.0, user="bob", kernel="k0"),
                      entry("cell", 300.0, user="ana", kernel="k1", source='"user":"bob"')])  # fmt: skip
    assert [record["at"] for record in desk.records(user="ana")] == [100.0, 300.0]
    assert [record["at"] for record in desk.records(user="bob")] == [200.0]
    assert [record["at"] for record in desk.records(kernel="k0", since=150.0)] == [200.0]


def test_what_was_asked_of_the_host_is_found_by_each_kernel_that_it_was_about(desk: Desk) -> None:
    desk.file.append([entry("restart", 100.0, user="ana", kernels=["k0", "k1"]),
                      entry("stop", 200.0, user="ana", kernels=["k10"]),
                      entry("cell", 300.0, user="ana", kernel="k2", source='"k0"'),
                      entry("cell", 400.0, user="bob", kernel="k0", source="1")])  # fmt: skip
    assert [record["at"] for record in desk.records(kernel="k0")] == [100.0, 400.0]
    assert [record["at"] for record in desk.records(kernel="k1", user="ana")] == [100.0]


def test_a_damaged_line_harms_no_other(desk: Desk) -> None:
    desk.file.append([entry("one")])
    with (desk.directory / room.NAME).open("ab") as stream:
        stream.write(b"\xff{]\n[1]\n")
    desk.file.append([entry("two")])
    one, damaged, two = desk.records()
    assert [record["what"] for record in (one, damaged, two)] == ["one", "damaged", "two"]
    assert (damaged["lines"], damaged["file"], damaged["at"]) == (2, room.NAME, one["at"])


def test_a_damaged_line_is_of_the_time_of_the_one_before_also_where_that_is_not_asked_for(desk: Desk) -> None:
    """It was shown first, as of 1970."""
    desk.file.append([entry("cell", 100.0, user="ana"), entry("cell", 200.0, user="bob")])
    with (desk.directory / room.NAME).open("ab") as stream:
        stream.write(b"{]\n")
    desk.file.append([entry("cell", 300.0, user="ana")])
    assert [record["at"] for record in desk.records(user="ana")] == [100.0, 200.0, 300.0]


def test_one_answer_looks_through_so_many_damaged_lines_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_SCANNED_BYTES", 100)
    with (desk.directory / room.NAME).open("ab") as stream:
        stream.write(b"no record\n" * 40)
    records, _, end = desk.file.read(Filter())
    assert (records[0]["lines"], end) == (10, False)
    assert sum(record["lines"] for record in desk.records()) == 40


@pytest.mark.parametrize("damage", [b"\xff{]", b'{"seq":', b""])
@pytest.mark.parametrize("number", [1, 2])
def test_lines_of_a_journal_that_are_damaged_are_told_and_cost_no_others(
    desk: Desk, number: int, damage: bytes
) -> None:
    desk.run("one")
    desk.recorder.catch_up()
    desk.run("two", cell="2" * 32)
    desk.run("three", cell="3" * 32)
    (segment,) = desk.journal().directory.glob("events-*")
    lines = segment.read_bytes().split(b"\n")
    end = len(lines) - 1  # what is behind the last newline
    lines[end - number] = damage + b" " * (len(lines[end - number]) - len(damage))
    segment.write_bytes(b"\n".join(lines))
    desk.recorder.catch_up()
    desk.run("four", cell="4" * 32)
    desk.recorder.catch_up()
    records = desk.records()
    assert {one["source"] for one in records if one["what"] == "cell"} == {"one", "two", "three", "four"}
    (lost,) = [one for one in records if one["what"] == "damaged"]
    assert (lost["kernel"], lost["instance"], lost["lines"]) == ("k0", INSTANCE, 1)


def test_a_cell_whose_event_is_damaged_is_told_as_lost(desk: Desk) -> None:
    desk.run("one")
    desk.run("two", cell="2" * 32)
    (segment,) = desk.journal().directory.glob("events-*")
    segment.write_bytes(segment.read_bytes().replace(b'"source":"one"', b'"source":"on\\"'))
    desk.recorder.catch_up()
    assert [one.get("source", one.get("lines")) for one in desk.records()] == ["two", 1]


class Hosts:
    """A mesh of hosts that answer with their records, or not."""

    def __init__(self, **answers: list[float] | PyrokernelError) -> None:
        self._answers = answers

    def hosts(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._answers]

    def ask_host(self, host: SimpleNamespace, *_: Any, timeout: float) -> dict[str, Any]:
        answer = self._answers[host.name]
        if isinstance(answer, PyrokernelError):
            raise answer
        return {"records": [entry("cell", at) for at in answer], "next": "1:1", "end": True, "kept": True}


def test_records_of_all_kernels_and_hosts_come_by_time() -> None:
    mesh: Any = Hosts(lab1=[5.0, 1.0, 4.0], lab2=[3.0, 2.0])
    assert [one["at"] for one in Audit(mesh, {})] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_host_that_does_not_answer_is_named_beside_the_records_of_the_others() -> None:
    gone = KernelUnreachableError("gone")
    mesh: Any = Hosts(lab1=gone, lab2=[3.0])
    audit = Audit(mesh, {}, check=False)
    assert [one["host"] for one in audit] == ["lab2"]
    assert audit.failed == {"lab1": gone}
    with pytest.raises(KernelUnreachableError):
        list(Audit(mesh, {}))


def test_who_somebody_is_and_which_host_let_them_in_is_told(desk: Desk) -> None:
    """A user, a host and an account of one name are not taken for each other."""
    journal = desk.journal()
    for number, whose in enumerate(
        (
            {"author": "bob"},
            {"author": "bob@lab2", "kind": "user", "via": "10.0.0.2:5", "through": "lab2"},
            {"author": "host:bob", "kind": "host", "via": "10.0.0.3:5"},
        )
    ):
        cell = f"{number}" * 32
        journal.append(EventKind.STARTED, cell, source="x", **whose, client="", job="", execution_count=1)
        journal.append(EventKind.ENDED, cell, status="ok", duration=0.5, cpu=0.1)
    for kind, through in (("account", ""), ("user", "lab2"), ("host", "")):
        desk.recorder.note("stop", Peer(uid=-1, role=Role.ADMIN, user="bob", kind=kind, through=through))
    desk.recorder.catch_up()
    told = [(one["what"], one.get("kind"), one.get("through")) for one in desk.records(user="bob@lab2")]
    assert sorted(told) == [("cell", "user", "lab2"), ("stop", "user", "lab2")]
    assert {one.get("kind") for one in desk.records(user="bob")} == {None}
    assert {one.get("kind") for one in desk.records(user="host:bob")} == {"host"}


def test_deaths_are_told(desk: Desk) -> None:
    last = {"cell": "c1", "source": "x", "started": 1.0}
    desk.recorder.on_death(Death(kernel="k0", instance="i", at=5.0, cause="killed by SIGKILL", last_cell=last))
    (record,) = desk.records()
    assert (record["what"], record["kernel"], record["cell"], record["cause"]) == (
        "death", "k0", "c1", "killed by SIGKILL"
    )  # fmt: skip


def test_a_flood_of_refusals_is_one_line_with_a_number(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    refused = refusals_to(desk.file, {"kernel": "k0"})
    for _ in range(1000):
        refused(ANA, "execute", Role.USER)
    now[0] += room.REFUSALS_SECONDS
    refused(ANA, "execute", Role.USER)
    first, second = desk.records()
    assert {name: first[name] for name in ("what", "user", "via", "role", "asked", "takes", "kernel")} == {
        "what": "refused", "user": "ana", "via": "10.0.0.7:9", "role": "user", "asked": "execute", "takes": "user",
        "kernel": "k0",
    }  # fmt: skip
    assert second["count"] == 1000


def test_names_that_a_host_invents_fill_no_record_and_hide_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_REMEMBERED", 50)
    refused = refusals_to(desk.file, {"kernel": "k0"})
    for number in range(200):
        invented = Peer(uid=-1, role=Role.USER, user=f"u{number}", kind="user", address="10.0.0.7:9", through="lab2")
        refused(invented, "execute", Role.USER)
    refused(ANA, "execute", Role.USER)
    assert [record["user"] for record in desk.records()] == ["u0@lab2", "ana"]


def test_processes_beside_the_host_add_to_a_record_and_begin_none(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), host="h")
    settings.mesh_state_dir.mkdir(parents=True)
    beside = AuditFile.beside(settings)
    beside.append([entry("refused")])
    assert not (settings.mesh_state_dir / room.NAME).exists()
    AuditFile(settings.mesh_state_dir, 1000).create()
    for _ in range(20):
        beside.append([entry("refused")])
    lines = (settings.mesh_state_dir / room.NAME).read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["refused"] * 20


def test_with_no_room_for_it_there_is_no_record(tmp_path: Path) -> None:
    none = Desk(tmp_path, cap_bytes=0)
    none.run("x = 1")
    none.recorder.start()
    none.recorder.note("start", ANA)
    assert not none.recorder.catch_up()
    assert not (tmp_path / room.NAME).exists()
    none.recorder.close()


def test_a_cell_of_a_group_ends_in_each_kernel_by_itself() -> None:
    def one(what: str, kernel: str, **fields: Any) -> dict[str, Any]:
        return {"at": 1.0, "what": what, "kernel": kernel, "cell": "c1", **fields}

    ends = [one("end", kernel, status="ok", seconds=3.0) for kernel in ("k0", "k1")]
    found = _joined([one("cell", "k0"), one("cell", "k1"), *ends])
    assert [(record["kernel"], record.get("status")) for record in found] == [("k0", "ok"), ("k1", "ok")]


def test_a_host_that_falls_silent_while_its_record_is_followed_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = KernelUnreachableError("it is gone")

    class Followed:
        failed: ClassVar[dict[str, PyrokernelError]] = {}
        looks = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            self.looks += 1
            if self.looks == 4:
                raise KeyboardInterrupt
            self.failed = {"lab2": error}
            return iter([])

    monkeypatch.setattr(front, "_FOLLOW_SECONDS", 0.0)
    followed: Any = Followed()
    assert front._follow(followed, argparse.Namespace(json=False)) == code_of(error)
    assert capsys.readouterr().err.count("host lab2 does not show its record any more: it is gone") == 1


def test_what_each_machine_has_is_told_with_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    for fields in ({"object": "host"}, {"kernel": "~gateway"}, {"kernel": "k0"}, {}):
        front._show({"at": 1.0, "what": "refused", "host": "lab2", **fields}, argparse.Namespace(json=False))
    told = [line[19:].split() for line in capsys.readouterr().out.splitlines()]
    assert [words[1:-1] for words in told] == [["lab2", "host"], ["lab2", "gateway"], ["k0"], ["lab2"]]


def test_a_pattern_of_kernels_is_refused_as_it_would_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--kernel", "cam*"]) == ExitCode.USAGE
    assert "kernel name 'cam*'" in capsys.readouterr().err
