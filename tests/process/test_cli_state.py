"""`pyrokernel state` at a terminal and in scripts: keys, the past, files, backups, and what `doctor` says of it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminals import Terminal
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.cli import ExitCode


class Line:
    """The command line in a private mesh.

    Args:
        mesh: Which.
    """

    def __init__(self, mesh: pk.Mesh) -> None:
        self.environ = {**os.environ, **mesh.settings.to_env()}

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `pyrokernel state`."""
        done = subprocess.run(
            [sys.executable, "-m", "pyrokernel", "state", *words],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def told(self, *words: str) -> Any:
        """Run it, and read its JSON."""
        return json.loads(self(*words, "--json").stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "pyrokernel", "state", *words],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def state(mesh: pk.Mesh) -> Line:
    return Line(mesh)


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    """Let every test begin with no keys."""
    if "mesh" in request.fixturenames:
        shared = request.getfixturevalue("mesh").shared
        for space in shared.spaces():
            (shared[space] if space else shared).clear()


# Keys


def test_keys_are_set_listed_read_and_deleted(state: Line) -> None:
    assert state("ls").stdout == ""
    for key, value in (("steps", "5"), ("cal/a", "[1, 2]"), ("cal/b", "two words")):
        state("set", key, value)
    header, *rows = state("ls").stdout.splitlines()
    assert header.split() == ["KEY", "TYPE", "SIZE", "SUMMARY", "AUTHOR", "AGE", "REVISION"]
    assert [row.split()[:2] for row in rows] == [["cal/a", "list"], ["cal/b", "str"], ["steps", "int"]]
    assert [entry["key"] for entry in state.told("ls", "cal/")] == ["cal/a", "cal/b"]
    assert state("get", "cal/b").stdout == "two words\n"
    assert state("get", "cal/a").stdout == "[1, 2]\n"
    state("rm", "cal/a", "cal/b")
    assert [entry["key"] for entry in state.told("ls")] == ["steps"]


def test_what_is_set_is_a_literal_or_text_or_json(state: Line, mesh: pk.Mesh) -> None:
    for key, words in {
        "int": ["3"], "negative": ["-5"], "quoted": ["'3'"], "tuple": ["(1, 'a')"], "text": ["a \\d b"],
        "json": ["--json", '{"a": [1, null, true]}'], "none": ["None"],
    }.items():  # fmt: skip
        state("set", key, *words)
    found = {key: mesh.shared.read(key).value for key in mesh.shared.m}
    assert found == {
        "int": 3,
        "negative": -5,
        "quoted": "3",
        "tuple": (1, "a"),
        "text": "a \\d b",
        "json": {"a": [1, None, True]},
        "none": None,
    }
    assert "is not JSON" in state("set", "x", "{1", "--json", code=ExitCode.USAGE).stderr


def test_a_value_is_printed_for_people_for_scripts_and_to_the_byte(state: Line, mesh: pk.Mesh) -> None:
    numpy = pytest.importorskip("numpy")
    shared = mesh.shared
    shared.set("bytes", b"\x00\xff")
    shared.set("array", numpy.arange(3))
    shared.set("set", {1})
    assert json.loads(state("get", "array", "--json").stdout) == [0, 1, 2]
    assert state("get", "array").stdout == "array([0, 1, 2])\n"
    raw = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "state", "get", "bytes", "--raw"],
        env=state.environ, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert raw.stdout == b"\x00\xff"
    assert "text and bytes only" in state("get", "set", "--raw", code=ExitCode.FAILED).stderr
    assert "as JSON" in state("get", "set", "--json", code=ExitCode.FAILED).stderr


def test_a_key_that_is_not_there_ends_with_the_code_for_that(state: Line) -> None:
    state("set", "here", "1")
    for words in (("get", "gone"), ("undo", "gone"), ("diff", "gone"), ("history", "gone"), ("rm", "here", "gone")):
        done = state(*words, code=ExitCode.NO_KERNEL)
        assert "gone" in done.stderr
    assert state("get", "here").stdout == "1\n"  # all are deleted, or none


def test_namespaces_are_apart_and_named_where_a_list_is_empty(state: Line) -> None:
    state("set", "x", "1", "--space", "project")
    assert state("ls").stderr == "no key; namespaces with keys: project\n"
    assert state("get", "x", "--space", "project").stdout == "1\n"
    state("get", "x", code=ExitCode.NO_KERNEL)
    assert "space name" in state("ls", "--space", "no such/thing", code=ExitCode.USAGE).stderr


def test_a_long_list_is_bounded_where_that_is_asked_for(state: Line, mesh: pk.Mesh) -> None:
    mesh.shared.update({f"key{number:04}": number for number in range(2100)})
    assert len(state("ls").stdout.splitlines()) == 2101
    done = state("ls", "key", "-n", "50")
    assert len(done.stdout.splitlines()) == 51
    assert done.stderr == "... and 2,050 more keys\n"


def test_escapes_of_others_reach_a_pipe_only_where_a_value_is_asked_for(state: Line, mesh: pk.Mesh) -> None:
    evil = "\x1b[2Jevil\nline"
    mesh.shared.set(evil, evil)
    for words in (("ls",), ("history", evil)):
        assert "\x1b" not in state(*words).stdout
        assert len(state(*words).stdout.splitlines()) == 2
    assert state("get", evil).stdout == evil + "\n"
    terminal = Terminal([sys.executable, "-m", "pyrokernel", "state", "get", evil], state.environ)
    try:
        terminal.expect("\\x1b[2Jevil")
        assert terminal.wait() == 0
    finally:
        terminal.close()


# The past


def test_history_undo_and_diff(state: Line, mesh: pk.Mesh) -> None:
    shared = mesh.shared
    first = shared.set("plan", "one\ntwo\n")
    second = shared.set("plan", "one\n2\n")
    assert [change["revision"] for change in state.told("history", "plan")] == [second, first]
    assert "packed" not in state.told("history", "plan", "-n", "1")[0]
    lines = state("diff", "plan").stdout.splitlines()
    assert lines[-2:] == ["-two", "+2"]
    assert state("diff", "plan", str(first), str(first)).stderr == "no difference\n"
    done = state("undo", "plan")
    assert f"as at revision {first}" in done.stdout
    assert shared.get("plan") == "one\ntwo\n"
    assert "[undo to revision" in state("history", "plan").stdout
    state("rm", "plan")
    state("undo", "plan")
    assert shared.get("plan") == "one\ntwo\n"


def test_watch_shows_writes_as_they_come_and_ends_with_ctrl_c(state: Line, mesh: pk.Mesh) -> None:
    begun = mesh.shared.describe()["revision"]
    mesh.shared.set("a/1", 41)
    watching = state.start("watch", "a/", "--since", str(begun), "--json")
    assert watching.stdout is not None
    try:
        assert json.loads(watching.stdout.readline())["summary"] == "41"
        mesh.shared.set("b", 0)
        revision = mesh.shared.set("a/2", 42)
        change = json.loads(watching.stdout.readline())
        assert (change["key"], change["revision"], change["summary"]) == ("a/2", revision, "42")
        assert "packed" not in change
        mesh.shared.delete("a/1")
        assert json.loads(watching.stdout.readline())["op"] == "delete"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == ExitCode.INTERRUPTED
    finally:
        watching.kill()
        watching.communicate()


def test_locks_are_listed_and_can_be_broken(state: Line, mesh: pk.Mesh) -> None:
    assert state("locks").stderr == "no lock is held\n"
    lock = mesh.shared.lock("stage")
    lock.acquire()
    (held,) = state.told("locks")
    assert (held["name"], held["token"]) == ("stage", lock.token)
    assert "stage" in state("locks").stdout
    state("locks", "--break", "stage")
    assert state.told("locks") == []
    with pytest.raises(pk.LockLostError):
        lock.release()
    state("locks", "--break", "stage", code=ExitCode.NO_KERNEL)


# Files


def test_keys_go_to_a_file_and_come_from_one(state: Line, mesh: pk.Mesh, tmp_path: Path) -> None:
    file = str(tmp_path / "keys.jsonl")
    mesh.shared.update({"a": 1, "b": [1, 2], "other": 3})
    assert state("export", file, "o").stderr.endswith("1 key\n")
    state("export", file)
    mesh.shared.set("a", 7)
    done = state("import", file, code=ExitCode.REFUSED)
    assert "exists already" in done.stderr
    state("import", file, "--replace")
    assert mesh.shared.get("a") == 1
    state("import", file, "--space", "copy")
    assert sorted(mesh.shared["copy"].keys()) == ["a", "b", "other"]
    assert state("import", str(tmp_path / "none"), code=ExitCode.FAILED).stderr.count("\n") == 1


def test_pickled_objects_are_imported_from_a_trusted_file_only(state: Line, mesh: pk.Mesh, tmp_path: Path) -> None:
    file = str(tmp_path / "keys.jsonl")
    mesh.shared.set("code", pickle.PickleError("an object"))
    state("export", file)
    mesh.shared.delete("code")
    assert "runs code" in state("import", file, code=ExitCode.FAILED).stderr
    state("import", file, "--trust")
    assert isinstance(mesh.shared.get("code"), pickle.PickleError)


_TOLD = '{"key": "x", "kind": "int", "type": "int", "summary": "", "author": ""'


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "{}", '{"key": "x"}', "\xff\xfe", _TOLD + "}", _TOLD + ', "value": 3}', _TOLD + ', "value": []}',
        _TOLD + ', "value": ["not base64!"]}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_export_is_told_with_its_line_and_nothing_is_set(
    state: Line, mesh: pk.Mesh, tmp_path: Path, line: str
) -> None:
    mesh.shared.set("good", 1)
    state("export", str(tmp_path / "whole"))
    mesh.shared.clear()
    file = tmp_path / "keys.jsonl"
    file.write_bytes((tmp_path / "whole").read_bytes() + line.encode("latin1") + b"\n")
    done = state("import", str(file), code=ExitCode.FAILED)
    assert "line 3" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(mesh.shared.m) == 0


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", "-x"])
def test_a_backup_cannot_be_called_so_that_it_is_elsewhere(state: Line, name: str) -> None:
    assert "backup name" in state("backup", "--", name, code=ExitCode.USAGE).stderr
    assert state.told("backups") == []


# Backups, on a mesh that is served

_TICKING = """
import pyrokernel as pk

with pk.connect() as mesh:
    while True:
        mesh.shared.increment("ticks")
"""


@pytest.fixture
def lab(served: Any) -> Any:
    return served


def test_a_backup_takes_the_place_of_what_is_there_while_clients_go_on(lab: Any) -> None:
    lab.cli("state", "set", "x", "before")
    where = lab.cli("state", "backup", "good").stdout.strip()
    assert Path(where, "state.db").exists()
    with lab.connect() as mesh:
        mesh.shared.set("x", "after")
        numbers = subprocess.Popen([sys.executable, "-c", _TICKING], env=lab.environ, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: mesh.shared.get("ticks", 0) > 10)
            done = lab.cli("state", "restore", "good", "--yes")
            assert "good is in place" in done.stdout
            wait_until(lambda: mesh.shared.get("ticks", 0) > 10 or numbers.poll() is not None)
            assert numbers.poll() is None, numbers.communicate()
        finally:
            numbers.kill()
            numbers.communicate()
        assert mesh.shared.get("x") == "before"
    aside = Path(done.stderr.strip().rpartition(" ")[2])
    assert (aside / "state.db").exists()
    (row,) = json.loads(lab.cli("state", "backups", "--json").stdout)
    assert (row["name"], row["path"]) == ("good", where)
    # What was put aside can be brought back in the same way.
    lab.cli("state", "restore", str(aside), "--yes")
    assert lab.cli("state", "get", "x").stdout == "after\n"


def test_restore_works_without_a_mesh_and_names_what_is_no_backup(lab: Any) -> None:
    lab.cli("state", "set", "x", "before")
    lab.cli("state", "backup", "good")
    lab.cli("state", "set", "x", "after")
    lab.cli("stop")
    done = lab.cli("state", "restore", "bad", "--yes", check=False)
    assert done.returncode == ExitCode.FAILED
    assert "state backups" in done.stderr
    assert "good" in lab.cli("state", "backups").stdout
    lab.cli("state", "restore", "good", "--yes")
    lab.serve()
    assert lab.cli("state", "get", "x").stdout == "before\n"


def test_restore_asks_a_person_and_takes_no_for_an_answer(lab: Any) -> None:
    lab.cli("state", "set", "x", "before")
    lab.cli("state", "backup", "good")
    lab.cli("state", "set", "x", "after")
    command = [sys.executable, "-m", "pyrokernel", "state", "restore", "good"]
    for answer, code, value in (("", ExitCode.REFUSED, "after\n"), ("y", ExitCode.OK, "before\n")):
        terminal = Terminal(command, lab.environ)
        try:
            terminal.expect("go on? [y/N]")
            terminal.enter(answer)
            assert terminal.wait() == code
        finally:
            terminal.close()
        assert lab.cli("state", "get", "x").stdout == value


def test_restore_keeps_its_hands_off_a_state_whose_host_is_gone(lab: Any) -> None:
    lab.cli("state", "set", "x", "1")
    lab.cli("state", "backup", "good")
    pid = lab.host_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    done = lab.cli("state", "restore", "good", "--yes", check=False)
    assert done.returncode == ExitCode.REFUSED
    assert "serve --detach" in done.stderr
    lab.serve()
    lab.cli("state", "restore", "good", "--yes")
    assert lab.cli("state", "get", "x").stdout == "1\n"


def test_status_says_where_and_how_much(lab: Any) -> None:
    lab.cli("state", "set", "x", "1")
    text = lab.cli("state", "status").stdout
    assert "1 key in the common namespace" in text
    assert "newest backup  none" in text
    lab.cli("state", "backup", "good")
    told = json.loads(lab.cli("state", "status", "--json").stdout)
    assert told["keys"] == {"": 1}
    assert told["bytes"] > 0 < told["backup_bytes"]
    assert told["newest_backup"].endswith("/good")
    assert "good, " in lab.cli("state", "status").stdout


# The rest of the command line


def about_state(lab: Any) -> dict[str, Any]:
    findings = json.loads(lab.cli("doctor", "--json", check=False).stdout)["findings"]
    (found,) = [finding for finding in findings if finding["about"] == "shared state"]
    return dict(found)


def test_doctor_says_how_the_shared_state_is_and_what_mends_it(lab: Any) -> None:
    assert about_state(lab)["text"] == "not used yet; the first use starts it"
    lab.cli("state", "set", "x", "1")
    found = about_state(lab)
    assert found["level"] == "ok"
    assert "1 key, revision 1, no backup yet" in found["text"]
    lab.cli("state", "backup", "good")
    assert "newest backup good" in about_state(lab)["text"]
    with lab.connect() as mesh:
        host = mesh.state_host()
        mesh.ask_host(host, "stop_state")
        database = Path(mesh.ask_host(host, "describe")["shared_dir"], "state.db")
    database.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    found = about_state(lab)
    assert found["level"] == "wrong"
    assert "damaged" in found["text"]
    assert found["remedy"].endswith("backups/good")
    remedy = [sys.executable, "-m", *found["remedy"].split(), "--yes"]
    subprocess.run(remedy, env=lab.environ, check=True, capture_output=True, timeout=60)
    assert about_state(lab)["level"] == "ok"
    assert lab.cli("state", "get", "x").stdout == "1\n"


def test_a_state_that_does_not_answer_is_told_by_doctor(lab: Any) -> None:
    lab.cli("state", "set", "x", "1")
    pid = json.loads(lab.cli("state", "status", "--json").stdout)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = about_state(lab)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found["level"] == "wrong"
    assert "does not answer" in found["text"]


def test_ps_and_stop_are_about_kernels(lab: Any) -> None:
    before = [info["name"] for info in json.loads(lab.cli("ps", "--json").stdout)]
    lab.cli("state", "set", "x", "1")
    pid = json.loads(lab.cli("state", "status", "--json").stdout)["pid"]
    assert [info["name"] for info in json.loads(lab.cli("ps", "--json").stdout)] == before == ["k0", "k1"]
    assert json.loads(lab.cli("stop", "k1", "--json").stdout)["kernels"] == ["k1"]
    assert lab.cli("state", "get", "x").stdout == "1\n"
    assert json.loads(lab.cli("stop", "--json").stdout)["kernels"] == ["k0"]
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    lab.serve()
    assert lab.cli("state", "get", "x").stdout == "1\n"


def test_a_state_without_host_and_kernels_is_ended_by_stop_and_is_no_kernel(lab: Any) -> None:
    lab.cli("state", "set", "x", "1")
    pid = json.loads(lab.cli("state", "status", "--json").stdout)["pid"]
    lab.cli("stop", "all")
    host = lab.host_pid()
    os.kill(host, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{host}").exists())
    assert "its kernels live" not in lab.cli("state", "ls", check=False).stderr
    lab.cli("stop")
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert lab.cli("stop", check=False).returncode == ExitCode.NO_MESH
