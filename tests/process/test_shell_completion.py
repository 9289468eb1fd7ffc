"""Tab and live variables at a prompt, on real kernels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from shells import Start, run_lines, starting

import pyrokernel as pk
from pyrokernel.shell.app import Shell
from pyrokernel.shell.completer import Router


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh) as begin:
        yield begin


@pytest.fixture
def folder(tmp_path: Path, group: pk.Group) -> Path:
    """A directory that all kernels are in."""
    (tmp_path / "my results").mkdir()
    (tmp_path / "my results" / "final.csv").write_text("the content\n")
    group.execute(f"import os; os.chdir({str(tmp_path)!r})")
    return tmp_path


def offered(shell: Shell, text: str) -> list[tuple[str, str]]:
    """Return what Tab offers, and what is said of it; an answer that is late is none, so it is asked for again."""
    for _ in range(20):
        found = list(Router(shell).get_completions(Document(text), CompleteEvent()))
        if found:
            return [(match.text, match.display_meta_text) for match in found]
    return []


def test_a_variable_of_another_client_wins_over_the_command(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    kernel.execute("ps = 4711")
    shell.enter("ps")
    shell.expect("`ps` is a variable here; `:ps` is the command")
    shell.expect("\n4711\n")
    shell.enter(":ps")
    shell.expect("MEMORY")
    shell.expect("k0>")
    kernel.execute("del ps")
    shell.enter("ps")
    shell.expect("MEMORY")


def test_a_variable_of_one_kernel_is_enough_and_another_group_has_none(start: Start, mesh: pk.Mesh) -> None:
    mesh["k1"].execute("from time import time; ps = 'of k1'")
    shell = start(prompt="3 kernels>")
    shell.enter("ps")
    shell.expect("`ps` is a variable here")
    shell.expect("'of k1'")
    shell.expect("3 kernels>")
    shell.enter("use k0")
    shell.expect("k0>")
    shell.enter("ps")
    shell.expect("MEMORY")
    mesh["k1"].restart()
    shell.expect("k0>")
    shell.enter("use k1")
    shell.expect("k1>")
    shell.enter("ps")
    shell.expect("MEMORY")


def test_a_script_knows_variables_before_its_first_line_and_after_each(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute("ps = 4711")
    first, *after = run_lines(
        mesh, "ps", "del ps", "ps", "exec('ps = 42')", "ps", "del ps", words=("k0",)
    ).stdout.split("\n")
    assert first == "4711"
    assert "MEMORY" in after[0]
    assert after[-2:] == ["42", ""]


def test_a_module_named_as_a_command_leaves_the_command_its_own_lines(mesh: pk.Mesh) -> None:
    lines = run_lines(mesh, "import time", "time", "time sum([40, 2])", words=("k2",)).stdout.splitlines()
    assert lines[:2] == ["<module 'time' (built-in)>", "42"]
    assert "(CPU " in lines[2]


def test_keys_and_lines_that_can_be_only_one_thing_ask_nobody(mesh: pk.Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("kernels were asked")

    shell = Shell(mesh)
    monkeypatch.setattr("pyrokernel.shell.variables.ask_all", ask)
    shell.onecmd_plus_hooks(":history -n 1")
    shell.onecmd_plus_hooks("history -s 'what nobody typed'")
    shell.reader.command_of("ps")
    with pytest.raises(AssertionError, match="were asked"):
        shell.onecmd_plus_hooks("history")


def test_tab_completes_files_where_the_kernels_are(start: Start, folder: Path) -> None:
    shell = start("k0")
    shell.type("open('my")
    shell.tab("results/")
    shell.type("fi")
    shell.tab("nal.csv")
    shell.type("').read()\r")
    shell.expect("\n'the content\\n'\n")


def test_tab_offers_kernels_after_on(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    assert [match for match, _ in offered(shell, "on k")] == ["k0", "k1", "k2"]
    assert [match for match, _ in offered(shell, "on ")] == ["all", "k0", "k1", "k2"]
    assert [match for match, _ in offered(shell, "on k0,k")] == ["k0,k1", "k0,k2"]
    assert [match for match, _ in offered(shell, ":on al")] == ["all "]
    assert ("len", "function") in [(match.rstrip("("), about) for match, about in offered(shell, "on k0 le")]


def test_tab_completes_files_after_commands(mesh: pk.Mesh, folder: Path) -> None:
    shell = Shell(mesh)
    assert offered(shell, "cd my") == [("my results/", "directory")]
    assert offered(shell, "cd my results/") == []
    assert offered(shell, "cd ") == [("my results/", "directory")]
    assert offered(shell, "!cat m") == [("my\\ results/", "directory")]
    assert offered(shell, "!cat my\\ results/f") == [("final.csv", "file")]
    assert offered(shell, "lines = !cat 'my results/") == [("final.csv", "file")]
    assert ("cat", "program") in offered(shell, "!ca")
    assert offered(shell, "pip install ./m") == [("my\\ results/", "directory")]
    assert offered(shell, "pip install m") == []
    assert offered(shell, "time open('my results/fi") == [("final.csv", "file")]


def test_tab_after_run_means_files_of_this_machine(
    mesh: pk.Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "only_here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    for text in ("run scripts/on", "%run scripts/on"):
        ((match, _),) = offered(Shell(mesh), text)
        assert match.rstrip() == "scripts/only_here.py"
    assert offered(Shell(mesh, restricted=True), "run scripts/on") == []


@pytest.mark.parametrize(
    ("columns", "last"),
    [(120, "name_of  function; 1 of 3"), (40, "name_5   int")],
)
def test_a_long_list_has_types_and_says_what_only_some_have(
    start: Start, mesh: pk.Mesh, columns: int, last: str
) -> None:
    mesh[:].execute("for n in range(9): globals()[f'name_{n}'] = n")
    mesh["k1"].execute("def name_of(): pass")
    mesh[:2].execute("name_1 = 'text'")
    shell = start(prompt="3 kernels>", columns=columns)
    shell.type("name_")
    shell.tab("name_1   str; type differs on k2")
    shell.expect(last)


def test_a_kernel_that_is_deaf_does_not_keep_the_others_from_answering(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    mesh[:].execute("class Box: pass\nbox = Box(); box.inner = Box(); box.inner.lid_size = 3")
    expected = [("lid_size", "int")]
    assert offered(shell, "box.inner.li") == expected
    pid = mesh["k2"].describe()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert offered(shell, "box.inner.li") == expected
    finally:
        os.kill(pid, signal.SIGCONT)
