"""`ship` and `unship` in the shell, over real kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import Start, interrupt_all, run, run_lines, starting

import pyrokernel as pk

SOURCE = '''def remote_area(width: float, height: float = 1.0) -> float:
    """Multiply."""
    return width * height
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a command."""
    path = tmp_path / "areas.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(autouse=True)
def _unshipped(mesh: pk.Mesh) -> Iterator[None]:
    yield
    names = {one.name for ones in mesh[:].shipped().values() for one in ones}
    if names:
        mesh[:].unship(*names)


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh, prompt="3 kernels>") as begin:
        yield begin
    interrupt_all(mesh)


def test_a_file_becomes_a_module_and_its_commands_words(mesh: pk.Mesh, path: Path) -> None:
    done = run_lines(
        mesh, f"ship {path}", "area 3 --height 2", "import areas; areas.__name__", f"ship {path}", "unship areas",
        "area 3",
    )  # fmt: skip
    digest = re.compile(r"\b[0-9a-f]{8}\b")
    assert digest.sub("DIGEST", done.stdout).splitlines() == [
        "k0-k2: areas.py DIGEST shipped; commands: area",
        "[k0-k2] 6.0",
        "[k0-k2] 'areas'",
        "k0-k2: areas.py DIGEST unchanged",
        "k0-k2: areas and its commands are gone",
    ]
    assert "SyntaxError" in done.stderr


def test_ship_alone_lists_who_has_which_version(mesh: pk.Mesh, path: Path) -> None:
    assert run_lines(mesh, "ship").stdout == "nothing was shipped; `ship FILE.py` does that\n"
    done = run_lines(mesh, f"ship {path}", "use k1", "%%ship areas", "x = 1", "", "use all", "ship")
    shown = done.stdout.splitlines()
    assert any(re.match(r"areas\.py  [0-9a-f]{8}  k0, k2 +area ", line) for line in shown), done.stdout
    assert any(re.match(r"areas\.py  [0-9a-f]{8}  k1 ", line) for line in shown), done.stdout
    assert "areas.py differs (k0, k2: " in done.stderr


def test_several_files_patterns_and_folders(mesh: pk.Mesh, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    (tmp_path / "two words").mkdir()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from package.inner import remote_inner\n")
    (tmp_path / "package" / "inner.py").write_text("def remote_inner(): return 'inner'\n")
    (tmp_path / "two words" / "three.py").write_text("y = 3\n")
    done = run_lines(mesh, f"ship {tmp_path}/o*.py {tmp_path}/package '{tmp_path}/two words/three.py'", "inner")
    assert done.stderr == ""
    assert [line.split()[1] for line in done.stdout.splitlines()[:3]] == ["one.py", "package", "three.py"]
    assert done.stdout.splitlines()[3:] == ["[k0-k2] 'inner'"]


def test_what_is_pasted_below_is_a_module(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "%%ship pasted_here", "    def remote_twice(x):", "        return 2 * x", "", "twice 21")
    assert re.match(r"k0-k2: pasted_here\.py [0-9a-f]{8} shipped; commands: twice\n\[k0-k2\] 42\n", done.stdout)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["ship /nowhere/x.py"], "cannot read /nowhere/x.py: No such file or directory"),
        (["ship --watch"], "usage: ship [--watch] PATH ..."),
        (["ship --watch /nowhere/x.py"], "there is no file /nowhere/x.py"),
        (["ship --what x.py"], "usage: ship [--watch] PATH ..."),
        (["ship 'open"], "No closing quotation"),
        (["%%ship not-a-name", "x = 1", ""], "usage: %%ship NAME"),
        (["%%ship wrong", "def f(:", ""], "wrong.py is not shipped, kernels keep what they have"),
        (["unship nothing_such"], "k0-k2: no nothing_such was shipped; `ship` lists what was"),
    ],
)
def test_what_cannot_be_shipped_says_why_and_ends_a_script(mesh: pk.Mesh, lines: list[str], said: str) -> None:
    done = run_lines(mesh, *lines, "here 'never'")
    assert done.returncode == 1
    assert "never" not in done.stdout
    assert said in done.stderr
    assert "EXCEPTION" not in done.stderr


@pytest.mark.parametrize("words", ["k0", "all"])
def test_what_raises_while_it_is_loaded_shows_its_lines(mesh: pk.Mesh, words: str) -> None:
    done = run_lines(mesh, f"use {words}", "%%ship fragile", "x = 1", "y = x / 0", "")
    names = "k0" if words == "k0" else "k0-k2"
    assert done.returncode == 1
    assert "    y = x / 0\n" in done.stderr
    assert f"ZeroDivisionError: division by zero\n{names}: not shipped; " in done.stderr
    assert done.stderr.count("ZeroDivisionError") == 1


def test_a_restricted_shell_ships_what_is_pasted_and_reads_no_file(mesh: pk.Mesh, path: Path) -> None:
    done = run(mesh, "--restricted", "--trust-environment", "-c", f"ship {path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`ship PATH` is not in this shell, which is served to others" in done.stderr
    assert run(mesh, "--restricted", "--trust-environment", "-c", f"ship --watch {path}").returncode == 1
    done = run(
        mesh,
        "--restricted",
        "--trust-environment",
        "-c",
        f"%%ship sent\ndef remote_sent(): return 5\n\nsent\nship\nship --watch {path}",
    )
    assert "[k0-k2] 5\n" in done.stdout
    assert re.search(r"^sent\.py .* sent ", done.stdout, re.MULTILINE)


def test_tab_completes_files_of_this_machine_and_what_was_shipped(start: Start, path: Path) -> None:
    shell = start()
    shell.type(f"ship {str(path)[:-5]}")
    shell.tab("as.py")
    shell.type("\r")
    shell.expect("shipped; commands: area")
    shell.enter("area 2")
    shell.expect("\n[k0-k2] 2.0")
    shell.type("unship ar")
    shell.tab("eas")
    shell.type("\r")
    shell.expect("areas and its commands are gone")


def test_with_watch_each_save_is_shipped_until_ctrl_c(start: Start, path: Path) -> None:
    shell = start()
    shell.enter(f"ship --watch {path}")
    shell.expect("shipped; commands: area")
    shell.expect("watching 1 path; Ctrl-C ends it")
    path.write_text(SOURCE.replace("remote_area", "remote_region"))
    shell.expect("; commands: region")
    path.write_text(SOURCE.replace("(width", "((width", 1))
    shell.expect("SyntaxError")
    path.write_text(SOURCE.replace("Multiply", "Multiply numbers"))
    shell.expect("; commands: area")
    shell.type("\x03")
    shell.expect("no longer watched")
    shell.expect("3 kernels>")
    shell.enter("area 5")
    shell.expect("\n[k0-k2] 5.0")


def test_ctrl_c_ends_a_module_that_does_not(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    shell.enter("%%ship slow")
    shell.enter("import time; time.sleep(60)")
    shell.enter("")
    shell.until(lambda: all(kernel.describe()["running"] for kernel in mesh[:]) or None, "a module that is loaded")
    shell.type("\x03")
    shell.expect("ship: interrupted")
    shell.expect("3 kernels>")
    assert all(not ones for ones in mesh[:].shipped().values())


def test_who_waits_for_a_busy_kernel_is_told(start: Start, mesh: pk.Mesh, path: Path) -> None:
    shell = start()
    mesh["k1"].submit("import time; time.sleep(60)")
    shell.enter(f"ship {path}")
    shell.expect("k1: busy; it is loaded there in its turn (Ctrl-C gives up)")
    mesh["k1"].interrupt(wait=2.0)
    shell.expect("k0-k2: areas.py")
