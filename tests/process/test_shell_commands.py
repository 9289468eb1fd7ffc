"""Commands of kernels as commands of the shell, and what plugins bring to the shell itself, over real kernels."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import Start, interrupt_all, run, run_lines, starting
from waiting import wait_until

import pyrokernel as pk

PLUGIN = '''
import pathlib
from typing import Literal

from pyrokernel import hookimpl


def hello(self, who: str, times: int = 1, how: Literal["loud", "quiet"] = "loud") -> str:
    """Greet somebody: kindly, at 100 %.

    Args:
        who: Whom to greet.
        times: How often.
    """
    return " ".join(["hello", *[who] * times, how])


def length(path: pathlib.Path) -> int:
    """Count the characters of a file."""
    return len(path.read_text())


def steps(self, n: int):
    """Go step by step."""
    import time

    for step in range(n):
        self.progress(step, n, "walking")
        time.sleep(0.7)
        yield f"step {step}"


def pairs():
    """Yield lists."""
    yield from ([0], 1, [2, 3])


def who_is_it() -> str:
    """Ask."""
    return "it is " + input("who is it? ")


def sleeps() -> None:
    """Sleep."""
    import time

    time.sleep(60)


def boom() -> None:
    """Fail."""
    raise ValueError("boom")


def ps() -> str:
    """Be called like a command of the shell."""
    return "of the kernel"


@hookimpl
def pyrokernel_register_commands(register, kernel):
    for function in (hello, length, steps, pairs, who_is_it, sleeps, boom, ps):
        register(function)
    if kernel.name == "k0":
        register(ps, name="only_here")


@hookimpl
def pyrokernel_register_command_sets(register):
    import cmd2

    class Lights(cmd2.CommandSet):
        DEFAULT_CATEGORY = "Lights"

        def do_lights(self, statement):
            """Switch the lights."""
            self._cmd.print_lines([f"lights of {', '.join(self._cmd.target.group.names)}"])

    class Taken(cmd2.CommandSet):
        def do_spare(self, statement):
            """Come with a name that is taken."""

        def do_ps(self, statement):
            """Take a name of the shell."""

    class Files(cmd2.CommandSet):
        LOCAL = True

        def do_touch_file(self, statement):
            """Work on this machine."""
            self._cmd.print_lines(["a file was touched"])

    for command_set in (Lights, Taken, Files):
        register(command_set())
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin, and with one that cannot be imported."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "pyrokernel_greeter.py").write_text(PLUGIN)
    (folder / "pyrokernel_broken.py").write_text("raise RuntimeError('broken on purpose')\n")
    return folder


@pytest.fixture(scope="module")
def mesh(folder: Path) -> Iterator[pk.Mesh]:
    """Two kernels with these plugins."""
    with pk.local(2, plugins_dir=str(folder)) as found:
        yield found


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on both kernels and wait for its prompt."""
    with starting(mesh, prompt="2 kernels>") as begin:
        yield begin
    interrupt_all(mesh)


def test_words_after_a_command_are_its_arguments(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "hello Ada --times 2", 'hello "Ada L" --how quiet', "on k1 hello Bob", ":hello Cy", "boom")
    assert done.stdout.splitlines() == [
        "[k0-k1] 'hello Ada Ada loud'",
        "[k0-k1] 'hello Ada L quiet'",
        "'hello Bob loud'",
        "[k0-k1] 'hello Cy loud'",
    ]
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: boom\n")
    assert 'raise ValueError("boom")' in done.stderr


def test_a_line_of_the_command_line_knows_them_too(mesh: pk.Mesh) -> None:
    assert run(mesh, "-c", "hello Ada").stdout == "[k0-k1] 'hello Ada loud'\n"
    assert run(mesh, "k0", "-c", "only_here").stdout == "'of the kernel'\n"
    assert run(mesh, "k0", "-c", "hello --help").stdout.startswith("Usage: hello [-h]")
    assert "hello(who: str, times: int = 1" in run(mesh, "k0", "-c", "help hello").stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello Ada --times x", "argument --times: 'x' is not an int"),
        ("hello", "the following arguments are required: WHO"),
        ("hello Ada --how softly", "invalid choice: 'softly'"),
        ("only_here", "nothing ran: k1 has no command 'only_here'; call it where it is: `on k0 only_here ...`"),
        ("on k1 only_here x", "SyntaxError"),
        (":nothing_such", "there is no command 'nothing_such'"),
    ],
)
def test_what_a_command_does_not_take_is_said_and_nothing_runs(mesh: pk.Mesh, line: str, said: str) -> None:
    done = run_lines(mesh, line, "'never'")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "EXCEPTION" not in done.stderr


def test_versions_that_differ_are_not_read_by_the_first(mesh: pk.Mesh) -> None:
    mesh["k0"].ship("def remote_dif(a: int) -> str:\n    return repr(a)\n", name="first_version")
    mesh["k1"].ship("def remote_dif(a: str, b: int = 2) -> str:\n    return repr(a)\n", name="second_version")
    done = run_lines(mesh, "dif 7")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing ran: the kernels have different versions of 'dif'" in done.stderr
    assert "(dif(a: int) -> str on k0; dif(a: str, b: int = 2) -> str on k1); choose: `on k0 dif ...`" in done.stderr
    assert run_lines(mesh, "on k0 dif 7", "on k1 dif 7 --b 3").stdout.splitlines() == ["'7'", "\"'7'\""]
    mesh[:].unship("first_version", "second_version")


def test_python_comes_first(mesh: pk.Mesh) -> None:
    done = run_lines(
        mesh, "hello('Ada', times=2)", "ps()", "hello = 3", "hello", "hello + 1", "hello -1", "del hello", "hello Ada"
    )
    assert done.stdout.splitlines() == [
        "[k0-k1] 'hello Ada Ada loud'",
        "[k0-k1] 'of the kernel'",
        "[k0-k1] 3",
        "[k0-k1] 4",
        "[k0-k1] 2",
        "[k0-k1] 'hello Ada loud'",
    ]


def test_a_variable_of_its_name_is_not_called_in_its_place(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "def hello(*a, **k): print('mine')", "", "hello Ada")
    explicit = run_lines(mesh, ":hello Ada")
    run_lines(mesh, "del hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`hello` is a variable there, which comes before the command; `:hello` is the command" in done.stderr
    assert explicit.returncode == 0
    assert "Ada" in explicit.stdout


def test_it_is_a_cell_like_others(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "hello Ada", "cells -n 1")
    assert re.search(r"k0-k1 .* ok +hello Ada\n", done.stdout)
    assert run_lines(mesh, "hello Ada &").stdout == "[k0-k1] 'hello Ada loud'\n"
    assert "hello Ada" in run_lines(mesh, "logs k0 -n 6").stdout


def test_commands_lists_them_with_signatures_and_owners(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "commands")
    assert done.stdout.split("\n")[0].split() == ["NAME", "SIGNATURE", "OWNER", "KERNELS", "ABOUT"]
    assert re.search(r"^hello +\(who: str, .* plugin greeter +Greet somebody: ", done.stdout, re.MULTILINE)
    assert re.search(r"^only_here +\(\) .* plugin greeter +k0 ", done.stdout, re.MULTILINE)
    assert "the word `ps` is the shell's own or Python's; `ps(...)` calls the command" in done.stderr


def test_help_lists_them_under_a_heading_of_their_own(mesh: pk.Mesh) -> None:
    shown = run_lines(mesh, "help").stdout
    own = shown[shown.index("Commands of the kernels") :]
    assert re.search(r"^  hello +Greet somebody \(plugin greeter\)$", own, re.MULTILINE)
    assert re.search(r"\nLights\n  lights +Switch the lights\n", shown)
    assert "List the kernels of the mesh" in run_lines(mesh, "help ps").stdout


def test_plugins_says_where_they_are_and_what_failed(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "plugins")
    assert re.search(r"^greeter +loaded +k1 +hello, length, .*\n", done.stdout, re.MULTILINE)
    assert re.search(
        r"^greeter +loaded, with problems +this shell +lights, touch_file +register", done.stdout, re.MULTILINE
    )
    assert re.search(r"^broken +failed +/", done.stdout, re.MULTILINE)
    assert "\nbroken: RuntimeError: broken on purpose (" in f"\n{done.stderr}"  # as in the kernels, said once
    assert "this shell: greeter: its commands for the shell are refused: ps: the shell has" in done.stderr


def test_sets_of_plugins_act_in_the_shell_and_a_taken_name_is_refused(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "use k1", "lights", "touch_file", "ps")
    assert done.stdout.splitlines()[:2] == ["lights of k1", "a file was touched"]
    assert "NAME" in done.stdout
    assert done.stderr == ""
    assert "there is no command 'spare'" in run_lines(mesh, ":spare").stderr


def test_a_shell_for_others_goes_without_sets_that_are_local(mesh: pk.Mesh) -> None:
    assert run(mesh, "--restricted", "--trust-environment", "-c", "lights").stdout == "lights of k0, k1\n"
    done = run(mesh, "--restricted", "--trust-environment", "-c", "touch_file")
    assert "`touch_file` is not in this shell, which is served to others" in done.stderr
    assert done.stdout == ""


def test_a_plugin_that_fails_is_one_line_at_the_prompt(mesh: pk.Mesh) -> None:
    with starting(mesh, prompt="") as begin:
        shown = begin().expect("2 kernels>")
    assert shown.count("plugin 'broken': RuntimeError: broken on purpose") == 1
    assert shown.count("plugin 'greeter': its commands for the shell are refused") == 1


def test_tab_knows_commands_options_choices_and_paths(start: Start, tmp_path: Path) -> None:
    (tmp_path / "measured.txt").write_text("12345")
    shell = start()
    shell.enter("commands")
    shell.expect("(n: int)")
    shell.expect("2 kernels>")
    shell.type("hel")
    shell.tab("hello")
    shell.expect("command of plugin")
    shell.type("\x03")
    shell.expect("kernels>")
    shell.type("hello Ada --ti")
    shell.tab("mes")
    shell.type("2 --how ")
    shell.tab("loud")
    shell.expect("quiet")
    shell.type("\x03")
    shell.expect("kernels>")
    shell.type(f"length {tmp_path}/meas")
    shell.tab("ured.txt")
    shell.type("\r")
    shell.expect("\n[k0-k1] 5")


def test_progress_and_values_are_shown_as_they_come(start: Start) -> None:
    shell = start()
    began = time.monotonic()
    shell.enter("steps 4")
    shell.expect("[k0-k1] 'step 0'")
    first = time.monotonic() - began
    shell.expect("%")
    shell.expect("walking")
    shell.expect("[k0-k1] 'step 3'")
    assert first < time.monotonic() - began - 1
    assert "['step" not in shell.expect("2 kernels>")


def test_values_that_are_lists_are_shown_once(mesh: pk.Mesh) -> None:
    assert run_lines(mesh, "pairs").stdout.splitlines() == ["[k0-k1] [0]", "[k0-k1] 1", "[k0-k1] [2, 3]"]


def test_ctrl_c_stops_a_command_and_questions_of_it_are_answered(start: Start, mesh: pk.Mesh) -> None:
    shell = start("k0", prompt="k0>")
    shell.enter("sleeps")
    wait_until(lambda: mesh["k0"].describe()["running"])
    shell.type("\x03")
    shell.expect("k0: interrupted")
    shell.enter("who_is_it")
    shell.expect("who is it?")
    shell.enter("me")
    shell.expect("\n'it is me'\n")


def test_a_person_gets_new_commands_without_a_word(start: Start, mesh: pk.Mesh) -> None:
    shell = start()
    mesh[:].ship("def remote_brand_new(x: int) -> int:\n    return x + 1\n", name="others")
    shell.enter("brand_new 41")
    shell.expect("\n[k0-k1] 42")
    mesh[:].unship("others")
    shell.enter("brand_new 41")
    shell.expect("no command")
