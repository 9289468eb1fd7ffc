"""The shared state at the prompt: the command `shared`, its keys under TAB, and Python beside it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from shells import Start, run, run_lines, starting

import pyrokernel as pk
from pyrokernel.shell.app import Shell
from pyrokernel.shell.completer import Router


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh) as begin:
        yield begin


@pytest.fixture(autouse=True)
def _empty(mesh: pk.Mesh) -> None:
    """Let every test begin with no keys."""
    for space in mesh.shared.spaces():
        (mesh.shared[space] if space else mesh.shared).clear()


def offered(shell: Shell, text: str) -> list[tuple[str, str]]:
    """Return what Tab offers, and what is said of it; an answer that is late is none, so it is asked for again."""
    for _ in range(20):
        found = list(Router(shell).get_completions(Document(text), CompleteEvent()))
        if found:
            return [(match.text, match.display_meta_text) for match in found]
    return []


def test_shared_is_a_table_of_the_keys(mesh: pk.Mesh) -> None:
    mesh.shared.update({"cal/a": [1, 2], "cal/b": "text", "steps": 5})
    header, *rows = run(mesh, "-c", "shared").stdout.splitlines()
    assert header.split() == ["KEY", "TYPE", "SIZE", "SUMMARY", "AUTHOR", "AGE", "REVISION"]
    assert [row.split()[0] for row in rows] == ["cal/a", "cal/b", "steps"]
    assert [row.split()[0] for row in run(mesh, "-c", "shared cal/*").stdout.splitlines()[1:]] == ["cal/a", "cal/b"]
    assert [row.split()[0] for row in run(mesh, "-c", "shared steps").stdout.splitlines()[1:]] == ["steps"]
    done = run(mesh, "-c", "shared step")
    assert done.returncode == 1
    assert "`shared step*` lists those that begin so" in done.stderr


def test_a_long_table_is_bounded_and_says_how_many_more(mesh: pk.Mesh) -> None:
    mesh.shared.update({f"key{number:03}": number for number in range(250)})
    done = run(mesh, "-c", "shared")
    assert len(done.stdout.splitlines()) == 201
    assert "... and 50 more keys; `shared * -n 800` shows them" in done.stderr
    assert len(run(mesh, "-c", "shared key* -n 5").stdout.splitlines()) == 6


def test_the_table_goes_to_a_file_of_this_machine(mesh: pk.Mesh, tmp_path: Path) -> None:
    mesh.shared.set("steps", 5)
    assert run(mesh, "-c", f"shared > {tmp_path}/keys.txt").returncode == 0
    assert "steps" in (tmp_path / "keys.txt").read_text()


def test_values_history_undo_diff_and_removal(mesh: pk.Mesh) -> None:
    shared = mesh.shared
    first = shared.set("two words", "one\ntwo")
    shared.set("two words", "one\n2")
    done = run_lines(
        mesh, "shared get 'two words'", "shared history 'two words'", "shared diff 'two words'",
        f"shared diff 'two words' {first} {first}", "shared undo 'two words'", "shared rm 'two words'", "shared",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "'one\\n2'"
    assert lines[1].split()[:2] == ["REVISION", "WHAT"]
    assert "+2" in lines
    assert "no difference" in lines
    assert any(f"as at revision {first}" in line for line in lines)
    assert any(line.startswith("deleted 1 key") for line in lines)
    assert lines[-1].startswith("no keys")


def test_namespaces_locks_and_backups(mesh: pk.Mesh) -> None:
    mesh.shared["project"].set("x", 1)
    with mesh.shared.lock("stage"):
        done = run_lines(
            mesh, "shared -s project", "shared get x -s project", "shared spaces", "shared locks", "shared backup kept",
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("\nx ", "\n1\n", "NAMESPACE", "\nproject", "TOKEN", "\nstage"):
        assert part in "\n" + done.stdout
    assert Path(done.stdout.splitlines()[-1], "state.db").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shared get", "usage: shared get KEY"),
        ("shared diff k 1 2 3", "usage: shared diff KEY [OLD [NEW]]"),
        ("shared diff k one", "being numbers"),
        ("shared locks now", "usage: shared locks"),
        ("shared what now", "usage: shared [PREFIX*]"),
        ("shared get gone", "'gone' is no key of the shared state"),
        ("shared history gone", "nothing is known of a key gone"),
        ("shared rm gone", "gone"),
        ("shared -s 'no/such'", "space name"),
    ],
)
def test_what_cannot_be_is_said(mesh: pk.Mesh, line: str, said: str) -> None:
    done = run(mesh, "-c", line)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_python_about_shared_runs_in_the_kernels_and_the_word_alone_is_the_command(mesh: pk.Mesh) -> None:
    done = run_lines(
        mesh, "shared.m['k'] = 41", "shared.m['k'] += 1", "shared.m['k']", "shared", "shared['project'].m['x'] = 1",
        "shared -s project", words=("k0",),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "42"
    assert lines[1].split()[0] == "KEY"
    assert lines[2].split()[0] == "k"
    assert lines[4].split()[0] == "x"
    assert mesh.shared["project"].get("x") == 1


def test_a_variable_of_that_name_is_somebodys(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "shared = 'mine'", "shared", ":shared", "del shared", "shared.m['x'] = 1", words=("k1",))
    lines = done.stdout.splitlines()
    assert lines[0] == "'mine'"
    assert lines[1].startswith("no keys")
    assert mesh.shared.get("x") == 1


def test_the_shells_own_python_has_it_too(mesh: pk.Mesh) -> None:
    done = run_lines(
        mesh, "here", "here shared.m['list'] = [1]", "here shared.m['list'].append(2); shared.m['list']", "here", "exit"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "no variables here"
    assert "shared" not in done.stdout.splitlines()[-1]
    assert mesh.shared.get("list") == [1, 2]


def test_tab_offers_what_to_do_keys_and_namespaces(mesh: pk.Mesh) -> None:
    shared = mesh.shared
    shared.update({"cal/a": 1, "cal/b": 2, "two words": 3, "it's": 4, "esc\x1b[31m": 5, "get": 6})
    shared["project"].set("px", 1)
    shell = Shell(mesh)
    assert offered(shell, "shared hist") == [("history", "what to do")]
    assert offered(shell, "shared cal") == [("cal/a", "key"), ("cal/b", "key")]
    assert offered(shell, "shared ge") == [("get", "what to do"), ("get", "key")]
    assert [text for text, _ in offered(shell, "shared undo ")] == [
        "cal/a", "cal/b", "get", "'it'\"'\"'s'", "'two words'",
    ]  # fmt: skip
    assert offered(shell, "shared get 'two w") == [("'two words'", "key")]
    assert offered(shell, "shared get two") == [("'two words'", "key")]
    assert [text for text, _ in offered(shell, "shared rm cal/a cal")] == ["cal/b"]
    assert offered(shell, "shared -s pro") == [("project", "namespace")]
    assert offered(shell, "shared -s project get p") == [("px", "key")]
    assert offered(shell, "shared get cal/a ") == []
    assert offered(shell, "shared locks ") == []


def test_tab_offers_nothing_where_the_service_does_not_answer_and_is_there_again_after(mesh: pk.Mesh) -> None:
    mesh.shared.set("cal/a", 1)
    shell = Shell(mesh)
    assert offered(shell, "shared get cal") == [("cal/a", "key")]
    pid = mesh.shared.describe()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        document = Document("shared get cal")
        for _ in range(6):  # more than there are threads for questions without an answer
            assert list(Router(shell).get_completions(document, CompleteEvent())) == []
        assert time.monotonic() - begun < mesh.settings.timeout  # with which every other request would have waited
    finally:
        os.kill(pid, signal.SIGCONT)
    assert offered(shell, "shared get cal") == [("cal/a", "key")]


def test_tab_completes_a_key_in_a_terminal(start: Start, mesh: pk.Mesh) -> None:
    mesh.shared.set("unlikely_key_name", 4711)
    shell = start("k0")
    shell.enter("shared")  # from here on the way to the service is known, and TAB waits for nothing else
    shell.expect("unlikely_key_name")
    shell.expect("k0>")
    shell.type("shared history unl")
    shell.expect("history unl")
    shell.tab("ikely_key_name")
    shell.type("\r")
    shell.expect("REVISION")
    shell.expect("4711")
    shell.expect("k0>")
    shell.type("here shared.m['unl")
    shell.expect("m['unl")
    shell.tab("ikely_key_name")
    shell.type("']\r")
    shell.expect("\n4711\n")


def test_ctrl_c_ends_a_watch_and_not_the_shell(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0")
    for number in (1, 2):
        shell.enter("shared watch cal/")
        shell.expect("watching keys that begin cal/; Ctrl-C ends it")
        mesh.shared.set("other", 1)
        mesh.shared.set("cal/\x1b[2Jgain", number)
        assert "other" not in shell.expect(f"'cal/\\x1b[2Jgain' = {number}  by ")
        mesh.shared.delete("cal/\x1b[2Jgain")
        shell.expect("deleted")
        shell.type("\x03")
        shell.expect("no longer watched")
        shell.expect("k0>")
    shell.enter("20 + 22")
    shell.expect("\n42\n")
    shell.enter("shared")
    shell.expect("other")
    shell.expect("k0>")
