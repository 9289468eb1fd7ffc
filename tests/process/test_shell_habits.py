"""What people type in IPython, over real kernels; what a person sees, key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shells import Start, run_lines, starting
from waiting import wait_until

import pyrokernel as pk


@pytest.fixture
def start(mesh: pk.Mesh) -> Iterator[Start]:
    """Start a shell on some kernels and wait for its prompt."""
    with starting(mesh) as begin:
        yield begin


def test_a_program_streams_and_is_given_values(start: Start, kernel: pk.Kernel) -> None:
    kernel.push(name="bob")
    shell = start("k0")
    shell.enter("!echo hello $name; sleep 60")
    shell.expect("\nhello bob\n")
    assert kernel.describe()["running"]["source"] == "!echo hello $name; sleep 60"
    shell.type("\x03")
    shell.expect("k0: interrupted")
    shell.expect("KeyboardInterrupt")
    shell.expect("k0>")
    shell.enter("!echo still $((40 + 2))")
    shell.expect("\nstill 42\n")


def test_a_program_that_fails_fails_the_line(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "!echo before; exit 3", "'never'")
    assert (done.returncode, done.stderr) == (1, "[k0-k2] exit code 3\n")
    # Programs start at their own pace: lines that come long after each other are not folded.
    assert {line.partition("] ")[2] for line in done.stdout.splitlines()} == {"before"}


def test_lines_of_a_program_become_a_variable(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "n = 3", "lines = !seq {n}", "lines", "!!echo a; echo b", "_exit_code")
    assert done.stdout.splitlines() == ["[k0-k2] ['1', '2', '3']", "[k0-k2] ['a', 'b']", "[k0-k2] 0"]
    assert done.stderr == ""


def test_cd_is_for_the_kernels_and_lasts(mesh: pk.Mesh, tmp_path: Path) -> None:
    done = run_lines(
        mesh, f"cd {tmp_path}", "%pwd", "env SOME_NAME=1", "env SOME_NAME", "import os; os.getcwd()", "cd -"
    )
    assert done.stdout.splitlines()[:4] == [
        f"[k0-k2] {tmp_path}",
        f"[k0-k2] {tmp_path}",
        "[k0-k2] 1",
        f"[k0-k2] '{tmp_path}'",
    ]
    done = run_lines(mesh, "!cd /")
    assert "`cd /` changes the directory of the kernels" in done.stderr


def test_a_name_is_inspected_while_a_cell_runs(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute("def double(x):\n    '''Twice x.'''\n    return 2 * x")
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    done = run_lines(mesh, "double?", "double??", words=("k0",))
    assert kernel.describe()["running"]
    kernel.interrupt(cell.id)
    page, source = done.stdout.split("Source:")
    assert "Name:      double(x)" in page
    assert "Docstring:\nTwice x.\n" in page
    assert source == "\ndef double(x):\n    '''Twice x.'''\n    return 2 * x\n"


def test_where_kernels_differ_it_says_how(mesh: pk.Mesh) -> None:
    mesh["k1"].push(only_there=1)
    done = run_lines(mesh, "only_there?")
    assert done.returncode == 0
    assert "Value:     1\n" in done.stdout
    assert done.stderr == "k0, k2: there is no `only_there`\n"
    done = run_lines(mesh, "nowhere_at_all?")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "k0-k2: there is no `nowhere_at_all`\n")


def test_time_of_several_kernels_is_one_line(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "time 6 * 7", "%%time", "import time", "for _ in range(2):", "    time.sleep(0.1)", "", "1")
    first, *others = done.stdout.splitlines()
    assert first == "[k0-k2] 42"
    assert len(others) == 3
    time = r"[\d.]+( .?s)?( to [\d.]+ .?s)?"
    for line in others[:2]:
        assert re.fullmatch(rf"\[k0-k2\] {time} \(CPU {time}\), slowest k\d", line)
    assert int(re.match(r"\[k0-k2\] (\d+)", others[1])[1]) >= 200  # type: ignore[index]


def test_timeit_measures_in_the_namespace_of_the_kernels(mesh: pk.Mesh) -> None:
    done = run_lines(mesh, "n = 1000", "timeit -n 3 -r 2 sum(range(n))", words=("k0",))
    assert re.fullmatch(
        r"[\d.]+ .?s ± [\d.]+ .?s per loop \(mean ± std\. dev\. of 2 runs, 3 loops each\)\n(The slowest.*\n)?",
        done.stdout,
    )


def test_a_file_runs_with_its_arguments_and_may_exit(mesh: pk.Mesh, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:], __file__)\nmade = 7\nsys.exit(int(sys.argv[1]))\n")
    done = run_lines(mesh, f"run {script} 0 -v 'a b'", "made", f"run {script} 4")
    assert done.stdout.splitlines() == [
        f"[k0-k2] ['0', '-v', 'a b'] {script}",
        "[k0-k2] 7",
        f"[k0-k2] ['4'] {script}",
    ]
    assert (done.returncode, done.stderr) == (1, "[k0-k2] exit code 4\n")
    assert mesh["k0"].cells()[-1]["source"] == f"run {script} 4"


def test_tab_completes_the_file_of_run(start: Start, tmp_path: Path) -> None:
    (tmp_path / "only_script.py").write_text("print('ran' + ' whole')\n")
    shell = start("k0")
    shell.type(f"run {tmp_path}/only_s")
    shell.tab("cript.py")
    shell.type("\r")
    shell.expect("\nran whole\n")


def test_a_block_below_time_is_typed_line_by_line(start: Start) -> None:
    shell = start("k0")
    shell.enter("%%time")
    shell.expect("...")
    shell.enter("n = 20")
    shell.enter("print(n + 22)")
    shell.enter("")
    shell.expect("\n42\n")
    shell.expect("(CPU ")


def test_tab_after_a_program_where_nothing_fits_harms_nothing(start: Start) -> None:
    shell = start("k0")
    shell.type("!echo one\t two")
    shell.type("\r")
    shell.expect("\none two\n")


def test_a_line_from_another_shell_gets_a_hint(start: Start) -> None:
    shell = start("k0")
    shell.enter("ls -l")
    shell.expect("NameError")
    shell.expect("`!ls` runs a program on the kernels")
    shell.enter("%autoreload 2")
    shell.expect("kernels do not reload modules by themselves")


def test_a_measurement_goes_to_the_background(start: Start) -> None:
    shell = start("k0")
    shell.enter("timeit -n 1 -r 1 print('in the background') &")
    shell.expect("done in")


def test_what_was_typed_stands_for_what_runs(kernel: pk.Kernel) -> None:
    first = kernel.submit("import time; time.sleep(60)", shown="%first")
    second = kernel.submit("1 / 0", shown="%second " + "x" * 100_000)
    wait_until(lambda: kernel.describe()["running"])
    about = kernel.describe()
    assert about["running"]["source"] == "%first"
    assert about["waiting"][0]["source"].startswith("%second xxx")
    kernel.interrupt(first.id)
    second.reply(timeout=10, check=False)
    assert [cell["source"][:7] for cell in kernel.cells()[-2:]] == ["%first", "%second"]
    events = kernel.events(cell=second.id)
    (started,) = [event for event in events if event.kind == "started"]
    (error,) = [event for event in events if event.kind == "error"]
    assert len(started.data["source"]) < 66_000
    assert "\n    1 / 0\n" in error.data["traceback"]
    assert kernel.execute("_i[:7]").result == "%second"


def test_a_reply_says_how_much_processor_time_it_took(kernel: pk.Kernel) -> None:
    busy = kernel.execute("import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass")
    assert 0.2 <= busy.cpu <= busy.duration + 0.05
    idle = kernel.execute("time.sleep(0.2)")
    assert idle.cpu < 0.1 < idle.duration
    ended = [event for event in kernel.events(cell=idle.cell) if event.kind == "ended"]
    assert ended[0].data["cpu"] == idle.cpu


def test_a_script_of_the_system_is_typed_line_by_line(start: Start) -> None:
    shell = start("k0")
    for line in ("%%bash", "for i in one two; do", "  echo $i-{a,b}", "done", ""):
        shell.enter(line)
    shell.expect("\none-a one-b\ntwo-a two-b\n")
    shell.enter("%%nothing")
    for line in ("print('never' + ' run')", "ps"):
        shell.enter(line)
    shell.enter("")
    assert "never run" not in shell.expect("nothing ran: there is no command 'nothing'")
    assert "NAME" not in shell.expect("k0>")


def test_a_file_is_written_on_the_kernels(mesh: pk.Mesh, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    done = run_lines(mesh, f"%%writefile {path}", "x = '$HOME'", "", f"%%writefile -a {path}", "y = 2", "", "1")
    assert done.stdout.splitlines() == [f"[k0-k2] {path}: 1 line written", f"{path}: 1 line added", "[k0-k2] 1"]
    assert "on k0 only: kernels of one host share files" in done.stderr
    assert path.read_text() == "x = '$HOME'\ny = 2\n"
    assert run_lines(mesh, "writefile x").stderr.startswith("usage: %%writefile")


def test_names_are_found_by_pattern(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    kernel.execute("import os; marked_one = marked_two = 1")
    done = run_lines(mesh, "os.*cwd?", "marked*?", "?", "nothing_*_here?", words=("k0",))
    assert done.stdout.splitlines()[:3] == ["os.getcwd  function", "marked_one  int", "marked_two  int"]
    assert "np.*load*?" in done.stdout
    assert done.stderr == "no name matches `nothing_*_here`\n"


def test_options_that_are_ipythons_are_answered(mesh: pk.Mesh, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('ran')\n")
    assert re.fullmatch(r"ran\n.*\(CPU .*\)\n", run_lines(mesh, f"%run -i -t {script}", words=("k0",)).stdout)
    for line, answer in (
        (f"%run -d {script}", "`breakpoint()` in the file"),
        ("%run -m json.tool", "runpy"),
        ("%timeit -o 1 + 1", "timeit knows -n LOOPS and -r RUNS, not -o"),
    ):
        done = run_lines(mesh, line, words=("k0",))
        assert (done.returncode, done.stdout) == (1, "")
        assert answer in done.stderr


def test_what_is_longer_than_the_screen_is_shown_by_a_pager(start: Start) -> None:
    shell = start("k0", PAGER="sed s/^/paged:/")
    shell.enter("help")
    shell.expect("\npaged:Kernels\n")
    shell.enter("len?")
    shell.expect("\nName:      len(obj, /)\n")
    shell.enter("import argparse")
    shell.enter("argparse.ArgumentParser??")
    shell.expect("\npaged:Source:\n")
    shell.expect("k0>")
    shell.enter("help > /dev/null")
    assert "paged:" not in shell.expect("k0>")
    without = start("k0", PAGER="/nowhere/pager")
    without.enter("help")
    without.expect("\nKernels\n")
    shell = start("k0", "--restricted", "--trust-environment", PAGER="sed s/^/paged:/")
    shell.enter("help")
    shell.expect("\nKernels\n")
