"""What stands around the prompt, in a real pseudo-terminal: startup, prompt, help, history, edit, aliases, tour."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import SHELL, Start, interrupt_all, run, starting

import pyrokernel as pk
from pyrokernel.cli import build_parser
from pyrokernel.shell.app import Shell
from pyrokernel.shell.helping import EXAMPLES
from pyrokernel.shell.lookout import look
from pyrokernel.shell.parser import UNKNOWN
from pyrokernel.shell.source import completeness, in_background
from pyrokernel.shell.target import Target

COMING_FROM = Path(__file__).parents[2] / "docs" / "coming-from.md"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the startup file goes."""
    folder = tmp_path / "config" / "pyrokernel"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def start(mesh: pk.Mesh, config: Path) -> Iterator[Start]:
    """Start a shell and wait for its prompt."""
    with starting(mesh, XDG_CONFIG_HOME=str(config.parent)) as begin:
        yield begin
    interrupt_all(mesh)


def test_the_startup_file_runs_before_the_first_prompt(start: Start, config: Path) -> None:
    (config / "shell.pk").write_text(
        "# mine\nalias create answer 6 *\n\nalias crate x\n"
        "def f():\n    return 'from the file'\n\n1 / 0\nset timing true\n"
    )
    shell = start("k0", prompt="Python runs on k0")
    shell.expect("k0>")
    shell.enter("answer 7")
    shell.expect("\n42\n")
    shell.expect("took ")
    shell.enter("f()")
    shell.expect("\n'from the file'\n")


def test_what_fails_in_the_startup_file_is_told_with_its_line(start: Start, config: Path) -> None:
    (config / "shell.pk").write_text("alias crate x\n\n1 / 0\nprint('the rest')\n")
    shell = start("k0", prompt="usage: alias")
    shell.expect("shell.pk, line 1: alias crate x")
    shell.expect("ZeroDivisionError")
    shell.expect("shell.pk, line 3: 1 / 0")
    shell.expect("\nthe rest\n")
    shell.expect("k0>")


def test_the_startup_file_is_for_prompts_only(start: Start, mesh: pk.Mesh, config: Path) -> None:
    (config / "shell.pk").write_text("print('started up')\n")
    assert run(mesh, "k0", "-c", "1 + 1", XDG_CONFIG_HOME=str(config.parent)).stdout == "2\n"
    assert run(mesh, "k0", text="1 + 1\n", XDG_CONFIG_HOME=str(config.parent)).stdout == "2\n"
    shell = start("k0", "--no-startup", prompt="Python runs on k0")
    shell.enter("1 + 1")
    assert "started up" not in shell.expect("\n2\n")


def test_a_setting_names_another_startup_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "other.pk").write_text("print('the other one')\n")
    start("k0", prompt="the other one", PYROKERNEL_SHELL_STARTUP=str(tmp_path / "other.pk"))
    shell = start("k0", prompt="there is no startup file", PYROKERNEL_SHELL_STARTUP=str(tmp_path / "missing.pk"))
    shell.expect("k0>")


def test_settings_of_the_startup_file_are_made_without_a_word(start: Start, config: Path) -> None:
    (config / "shell.pk").write_text("set timing true\nset lines 5\nset lines none\n")
    shell = start("k0", prompt="shell.pk, line 3: set lines none")
    assert "timing" not in shell.expect("k0>")
    shell.enter("set lines 6")
    shell.expect("lines ─> 6")


def test_exit_in_the_startup_file_leaves(start: Start, config: Path) -> None:
    (config / "shell.pk").write_text("exit\nprint('never')\n")
    shell = start("k0", prompt="")
    assert "\nnever\n" not in shell.expect("stay running")
    assert shell.wait() == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ps > /nonexist/x", "Failed to redirect output"),
        ("ps | no-such-program", "exited with code 127"),
        ("ps | (cat > /dev/null; exit 3)", "`(cat > /dev/null; exit 3)` ended with code 3"),
        ("set lines none", "Error setting lines"),
    ],
)
def test_output_that_cannot_go_where_it_should_ends_a_script(mesh: pk.Mesh, line: str, why: str) -> None:
    done = run(mesh, "k0", "-c", f"{line}\nprint('went on')")
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr


def test_output_that_goes_to_a_program_is_no_failure(mesh: pk.Mesh) -> None:
    done = run(mesh, "k0", "-c", "ps | grep -c k0\nprint('went on')")
    assert (done.returncode, done.stdout) == (0, "1\nwent on\n")


@pytest.mark.parametrize(
    ("closed", "code", "errors"), [(">&-", 1, "pyrokernel: standard output is closed\n"), ("<&-", 0, "")]
)
def test_a_stream_may_be_closed(mesh: pk.Mesh, closed: str, code: int, errors: str) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", *SHELL, "k0", "-c", "1 + 1"]
    environ = {**os.environ, **mesh.settings.to_env()}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, errors)


def test_an_open_quote_in_the_environment_is_named_or_passed_over(start: Start) -> None:
    shell = start("k0", PAGER="less '", EDITOR="vi '", VISUAL="")
    shell.enter("help")
    shell.expect("What is no command is Python")
    shell.enter("int?")
    shell.expect("int(")
    shell.enter("edit")
    shell.expect('EDITOR is "vi \'": No closing quotation')


def test_a_locale_that_cannot_take_a_line_is_named(start: Start) -> None:
    shell = start("k0", LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    shell.enter("'ä'")
    shell.expect("nothing ran: the locale takes ASCII only")


def test_lines_are_not_kept_where_there_is_no_file(start: Start, mesh: pk.Mesh) -> None:
    path = mesh.settings.mesh_state_dir / "shell-history"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    try:
        shell = start("k0", prompt="what is typed is not kept")
        shell.enter("20 + 22")
        shell.expect("\n42\n")
    finally:
        path.unlink()


def test_help_is_as_wide_as_the_terminal(start: Start) -> None:
    for columns in (80, 120):
        shell = start("k0", columns=columns, PAGER="cat")
        shell.enter("help cells")
        told = shell.expect("For instance")
        assert "[KERNELS|CELL ...]\n" in told
        assert not re.search("\n {1,23}[a-z`(]", told), told


def test_an_alias_stands_for_a_command_or_for_python(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0")
    shell.enter("alias create ask on k0,k1")
    shell.enter("ask __import__('math').factorial(5)")
    shell.expect("[k0-k1] 120\n")
    shell.enter("alias create twice for i in range(2):")
    shell.enter("twice print('once more')")
    shell.expect("\nonce more\nonce more\n")
    shell.expect("k0>")
    shell.type("as")
    shell.tab("ask")
    shell.enter("k '%d' % 7")
    shell.expect("[k0-k1] '7'\n")
    shell.enter("alias")
    shell.expect("alias create ask on k0,k1\nalias create twice for i in range(2):\n")
    shell.enter("help ask")
    shell.expect("Stand for `on k0,k1`.")
    shell.enter("alias create bye exit")
    shell.enter("alias create loop loop")
    shell.enter("loop")
    shell.expect("alias 'loop' stands for itself")
    shell.enter("alias create ps who")
    shell.expect("'ps' is a command of the shell already")
    shell.enter("alias create class ps")
    shell.expect("'class' is a word of Python's own")
    shell.enter("alias delete ask")
    shell.enter("ask = 5; ask")
    shell.expect("\n5\n")
    shell.enter("bye")
    assert shell.wait() == 0


def test_the_result_of_an_alias_can_go_to_a_file(mesh: pk.Mesh, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "kernels.txt"
    done = run(mesh, text=f"alias create list ps\nlist > {path}\n", XDG_CONFIG_HOME=str(config.parent))
    assert (done.returncode, done.stdout) == (0, "")
    assert "NAME" in path.read_text()


def test_the_prompt_says_when_a_kernel_is_busy_and_when_not(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    cell = kernel.submit("import threading; gate = threading.Event(); gate.wait()")
    # Only what changed of a line is drawn anew.
    shell.expect(" (busy)>")
    shell.type("1 +")
    shell.expect("1 +")
    kernel.interrupt(cell.id, wait=2.0)
    shell.expect("> 1 +")
    shell.enter(" 1")
    shell.expect("\n2\n")


def test_the_prompt_notices_kernels_that_come_and_go(start: Start, mesh: pk.Mesh) -> None:
    shell = start(prompt="3 kernels>")
    mesh.start(1, name="extra")
    try:
        shell.expect("4")
        shell.enter("'here ' * 2")
        shell.expect("extra0 joined the group")
        shell.expect("4 kernels>")
    finally:
        mesh.stop(["extra0"])
    shell.expect(" (1 gone)>")
    shell.enter("'there'")
    shell.expect("extra0 left the group")
    shell.expect("3 kernels>")


def test_the_prompt_notices_a_death(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k2", prompt="k2>")
    mesh["k2"].restart()
    shell.expect("restarted)>")  # of a prompt that said (gone) in between, only what differs is drawn anew
    shell.enter("1")
    shell.expect("restarted since the last cell")
    shell.expect("k2>")


def test_kernels_are_left_alone_while_a_line_runs(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    shell.pre_prompt()
    assert shell._lookout._waits
    shell.onecmd_plus_hooks("ps > /dev/null")
    assert not shell._lookout._waits
    shell._lookout.close()


def test_a_look_at_kernels_that_are_not_there_says_so(mesh: pk.Mesh) -> None:
    mesh.start(1, name="other")
    target, alone = Target(mesh, ["k0", "other0"]), Target(mesh, ["other0"])
    assert look(target).prompt == "2 kernels"
    mesh.stop(["other0"])
    assert look(target).prompt == "k0 (1 gone)"
    assert look(alone).prompt == "other0 (gone)"


def test_who_joined_is_told_before_a_command_sends_to_it(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    told: list[str] = []
    shell.notice = told.append  # type: ignore[method-assign]
    mesh.start(1, name="other")
    try:
        shell.onecmd_plus_hooks("scatter part = range(10)")
        assert [line.partition(",")[0] for line in told] == ["other0 joined the group", *told[1:]]
        assert shell.prompt == "4 kernels> "
        mesh["k0"].restart()
        del told[:]
        shell.onecmd_plus_hooks("scatter part = range(10)")
        assert "joined" not in "".join(told)
    finally:
        mesh.stop(["other0"])
    assert shell.target.refresh() == ["k0"], "what a command used anew is still told of before a cell"
    assert told[-1] == "other0 left the group"


def test_leaving_says_of_a_kernel_that_it_stays_only_if_it_answers() -> None:
    with pk.local(1) as own, pk.connect(own.settings) as elsewhere:
        shell = Shell(elsewhere)
        told: list[str] = []
        shell.notice = told.append  # type: ignore[method-assign]
        shell.leave()
        assert told.pop().startswith("k0 stays running, with all variables: ")
        own.close()
        shell.leave()
        (said,) = told
        assert said.startswith("k0 is gone, or out of reach; `")


def test_every_command_has_an_example_that_is_one(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    for name in shell.get_visible_commands():
        assert name in EXAMPLES, f"help of {name} has no example"
        called = shell.reader.command_of(EXAMPLES[name])
        assert called == name, f"the example of {name} calls {called or 'Python'}"
        function = shell.get_command_func(name)
        assert function is not None
        assert function.__doc__, f"help lists {name} without a word"
    assert set(EXAMPLES) == set(shell.get_visible_commands())


def test_help_lists_subjects_and_tells_of_one_command(mesh: pk.Mesh, config: Path) -> None:
    listed = run(mesh, "-c", "help", XDG_CONFIG_HOME=str(config.parent)).stdout.splitlines()
    subjects = [line for line in listed if re.fullmatch(r"\w+", line)]
    assert subjects[:3] == ["Kernels", "Cells", "Data"]
    assert subjects[-1] == "Shell"
    assert not any("_python" in line or "macro" in line or "run_script" in line for line in listed)
    told = run(mesh, "-c", "help ps", XDG_CONFIG_HOME=str(config.parent)).stdout
    assert "List the kernels of the mesh" in told
    assert told.endswith("For instance: ps > kernels.txt\n")
    done = run(mesh, "-c", "help nothing", XDG_CONFIG_HOME=str(config.parent))
    assert (done.returncode, done.stderr) == (1, "there is no command 'nothing'; `help` lists them all\n")


def test_history_has_numbers_and_searches(start: Start) -> None:
    shell = start("k0", "--mesh", "local")
    shell.enter("'needle' + ' one'")
    shell.expect("\n'needle one'\n")
    shell.enter("'hay'")
    shell.expect("\n'hay'\n")
    shell.enter("history -s NEEDLE")
    found = shell.expect("  'needle' + ' one'\n")
    assert not re.search(r"\d  history", found + shell.expect("k0>"))
    shell.enter("history -n 1")
    shell.expect("  history -n 1\n")
    shell.enter("%hist -n 1")
    shell.expect("  %hist -n 1\n")


def test_edit_opens_the_last_cell_and_runs_what_is_saved(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nsed -i s/40/41/ "$1"\n')
    program.chmod(0o755)
    shell = start("k0", EDITOR=str(program))
    shell.enter("40 + 1")
    shell.expect("\n41\n")
    shell.enter("ps")
    shell.expect("k0>")
    shell.enter("edit")
    shell.expect("\n42\n")
    shell.enter("edit 100000")
    shell.expect("there is no line 100000")
    shell.expect("k0>")
    shell.type("\x1b[A\x1b[A\x1b[A")
    shell.enter("")
    shell.expect("\n42\n")


def test_edit_opens_a_program_that_was_the_last_cell(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "editor"
    program.write_text('#!/bin/sh\nsed "s/one/two/" "$1" > "$1.new"\nmv "$1.new" "$1"\n')
    program.chmod(0o755)
    shell = start("k0", EDITOR=str(program))
    shell.enter("40 + 1")
    shell.expect("\n41\n")
    shell.enter("!echo one")
    shell.expect("\none\n")
    shell.enter("edit")
    shell.expect("\ntwo\n")


def test_an_editor_that_is_left_without_success_runs_nothing(start: Start) -> None:
    shell = start("k0", VISUAL="false")
    shell.enter("'ran'")
    shell.expect("\n'ran'\n")
    shell.enter("edit")
    shell.expect("nothing was saved")
    gone = start("k0", VISUAL="/nowhere/editor")
    gone.enter("edit")
    gone.expect("/nowhere/editor: ")
    gone.expect("k0>")


def test_settings_are_ours_and_do_what_they_say(start: Start) -> None:
    shell = start("k0")
    shell.enter("set")
    listed = shell.expect("how long it took")
    assert re.search(r"\n *lines +1000 ", listed)
    assert re.search(r"\n *timing +False ", listed)
    assert "traceback" not in listed
    shell.enter("set lines 5")
    shell.enter("for i in range(50): print('line', i)")
    shell.enter("")
    assert "\nline 20\n" not in shell.expect("more output is not shown")
    shell.enter("set lines none")
    shell.expect("Error setting lines")


def test_a_pasted_exit_leaves(start: Start) -> None:
    shell = start("k0")
    shell.type("\x1b[200~x = 1\nexit\nprint('never')\n\x1b[201~\r")
    assert "\nnever\n" not in shell.expect("stay running")
    assert shell.wait() == 0


def test_the_tour_is_done_at_the_prompt(start: Start, kernel: pk.Kernel) -> None:
    shell = start("k0")
    shell.enter("tour")
    shell.expect("Tour 1 of 9: Python")
    shell.enter("x = 20 + 22")
    shell.expect("Tour 2 of 9: TAB")
    shell.expect("k0>")
    shell.type("x.bit_l")
    shell.expect("x.bit_l")
    shell.tab("ength")
    shell.enter("()")
    shell.expect("\n6\n")
    shell.expect("Tour 3 of 9: some of the kernels")
    shell.enter("ps")
    shell.expect("k0>")
    shell.enter("tour")
    shell.expect("Tour 3 of 9")
    shell.enter("on k0 x + 1")
    shell.expect("\n43\n")
    shell.expect("Tour 4 of 9: data to kernels and back")
    shell.enter("scatter part = range(10)")
    shell.enter("part = [n * n for n in part]")
    shell.enter("gather part")
    shell.expect("Tour 5 of 9: what all share")
    shell.enter('shared.m["tour"] = x')
    shell.expect("k0>")
    shell.enter("shared")
    shell.expect("tour  int")
    shell.expect("Tour 6 of 9: questions")
    shell.enter('name = input("who? ")')
    shell.expect("\nwho?")
    shell.enter("me")
    shell.expect("Tour 7 of 9: Ctrl-C")
    shell.enter("import time; print('be' 'gun'); time.sleep(60)")
    shell.expect("begun")  # so the shell follows the cell; before that, Ctrl-C would take it back
    shell.type("\x03")
    shell.expect("Tour 8 of 9: in the background")
    shell.enter("import time; time.sleep(0.1); x &")
    shell.expect("Tour 9 of 9: what ran")
    shell.enter("cells")
    shell.expect("That was the tour.")
    shell.enter("tour stop")
    shell.expect("there is no tour now")


def test_the_tour_can_be_passed_over_and_stopped(start: Start) -> None:
    shell = start("k0")
    shell.enter("tour")
    shell.expect("Tour 1 of 9")
    shell.enter("tour next")
    shell.expect("Tour 2 of 9")
    shell.enter("tour stop")
    shell.expect("the tour is over")
    shell.enter("x = 1")
    assert "Tour" not in shell.expect("k0>")


def test_forty_columns_are_enough(start: Start, config: Path) -> None:
    shell = start("k0", prompt="Python runs on k0.", columns=40, PAGER="cat")
    texts = [shell.expect("k0>")]
    for line in ("help", "help logs", "ps", "use nobody-like-this", "alias create", "tour", "history -n 1", "set"):
        shell.enter(line)
        texts.append(shell.expect("k0>"))
    shell.enter("exit")
    texts.append(shell.expect("stops"))
    assert shell.wait() == 0
    texts.append(shell.text)
    for text in texts:
        for line in text.split("\n"):
            # What is typed is drawn key by key, and anew.
            assert "k0>" in line or len(line.rstrip()) <= 40, f"{line!r} is broken by the terminal"


def columns(heading: str) -> list[str]:
    """Return the code in one column of all tables of the page for newcomers."""
    rows = [line.split(" | ") for line in COMING_FROM.read_text().splitlines() if line.startswith("| ")]
    titles = [cell.strip("| ") for cell in rows[0]]
    cells = [row[titles.index(heading)] for row in rows if len(row) == len(titles)]
    return [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]


def test_the_page_for_newcomers_names_commands_that_exist(mesh: pk.Mesh) -> None:
    shell = Shell(mesh)
    typed = columns("in the shell")
    assert len(typed) > 100
    for code in typed:
        if code.startswith("pyrokernel "):
            build_parser().parse_args(code.split()[1:])
        elif not code.startswith(("--", "~")):
            command = shell.reader.command_of(code)
            assert command != UNKNOWN, code
            if not command:
                assert completeness(in_background(code) or code) == "complete", (
                    f"{code!r} is neither command nor Python"
                )
                assert not re.fullmatch(r"[a-z]{2,}", code), f"there is no command {code!r}"


def test_the_page_for_newcomers_names_an_api_that_exists() -> None:
    classes = {"mesh": pk.Mesh, "kernel": pk.Kernel, "group": pk.Group, "job": pk.Job, "cell": pk.Cell, "pk": pk}
    fields = {field.name for field in dataclasses.fields(pk.Reply)} | set(dir(pk.Reply))
    for code in columns("in Python"):
        assert completeness(code) == "complete", code
        for name, attribute in re.findall(r"\b(mesh|kernel|group|job|cell|pk|reply)\.(\w+)", code):
            assert attribute in fields if name == "reply" else hasattr(classes[name], attribute), code


def test_a_prompt_is_there_soon(start: Start, mesh: pk.Mesh) -> None:
    start("k0")  # what is in the page cache then is not what is measured
    code = "import time; begun = time.process_time(); import pyrokernel.shell.app; print(time.process_time() - begun)"
    best = min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3))
    assert best < 2.0, f"importing the shell takes {best:.2f} s of processor time"
