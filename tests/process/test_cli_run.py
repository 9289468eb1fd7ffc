"""`pyrokernel run` as a script sees it, and as whoever waits for it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from holding import Hold
from waiting import wait_until

from pyrokernel.cli import ExitCode, main
from pyrokernel.client.calls import Exchange
from pyrokernel.client.links import Link
from pyrokernel.errors import CellNotFoundError, ReplyTimeoutError
from pyrokernel.front.cells import take_back
from pyrokernel.wire.fanout import Request

Served = Any  # tests/process/conftest.py


def run(served: Served, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `pyrokernel run` with a text on standard input, or with nothing there."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    return subprocess.run(
        [sys.executable, "-m", "pyrokernel", "run", *arguments],
        env=served.environ, capture_output=True, text=True, timeout=60, check=False, **source,
    )  # fmt: skip


def detach(served: Served, kernel: str, source: str) -> str:
    return str(served.cli("run", "-k", kernel, "--detach", "-c", source).stdout.strip())


def cells(served: Served, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(served.cli("cells", "--json", *words).stdout)
    return found


@pytest.fixture
def hold(served: Served, tmp_path: Path) -> Iterator[Hold]:
    """What holds the interpreter of k0."""

    def is_silent() -> bool:
        with served.connect() as mesh:
            try:
                mesh["k0"].describe(timeout=0.2)
            except ReplyTimeoutError:
                return True
        return False

    with Hold(tmp_path) as hold:
        detach(served, "k0", hold.source)
        wait_until(is_silent)
        yield hold


# What a script sees


def test_a_script_has_arguments_and_file_for_its_cell_alone(served: Served, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("answer = 42\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from __future__ import annotations\n"
        "import beside, json, sys\n"
        "print(json.dumps([sys.argv, __file__, __name__, beside.answer]))\n"
        "later = 1\n"
        "1 / 0\n"
    )
    done = run(served, "-k", "k0", str(script), "a", "--", "--flag")
    assert json.loads(done.stdout) == [[str(script), "a", "--flag"], str(script), "__main__", 42]
    assert f'File "{script}", line 5, in <module>\n    1 / 0' in done.stderr
    after = run(
        served, "-k", "k0", "-c", f"import sys; sys.argv, '__file__' in globals(), {str(tmp_path)!r} in sys.path"
    )
    assert after.stdout == "([''], False, False)\n"
    assert run(served, "-k", "k0", "-c", "later").stdout == "1\n"


def test_scripts_on_standard_input_have_arguments_too(served: Served) -> None:
    done = run(served, "-k", "k0", "-", "a", input="import sys; print(sys.argv, '__file__' in globals())")
    assert done.stdout == "['-', 'a'] False\n"


# How a script ends


@pytest.mark.parametrize(
    ("source", "code", "err"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no luck')", 1, "no luck\n"),
    ],
)
def test_the_exit_of_a_script_is_that_of_run(served: Served, source: str, code: int, err: str) -> None:
    done = run(served, "-k", "k0", "-c", source)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", err)


def test_of_several_kernels_the_first_that_did_not_end_well_counts(served: Served) -> None:
    source = "import os, sys; sys.exit({'pk:k0': %d, 'pk:k1': %d}[open('/proc/self/comm').read().strip()])"
    assert run(served, "-c", source % (0, 7)).returncode == 7
    assert run(served, "-c", source % (4, 7)).returncode == 4


def test_a_file_and_code_together_are_refused(served: Served) -> None:
    done = run(served, "script.py", "-c", "1")
    assert done.returncode == ExitCode.USAGE
    assert "not both" in done.stderr


# input()


def test_lines_of_standard_input_answer_input(served: Served) -> None:
    source = "a, b = input('first? '), input()\ntry:\n    input()\nexcept EOFError:\n    print('no more')\nprint(a, b)"
    done = run(served, "-k", "k0", "-c", source, input="one\ntwo\n")
    assert done.stdout == "first? no more\none two\n"
    assert done.returncode == ExitCode.OK


def test_the_end_of_input_at_a_terminal_is_an_error_that_code_can_catch(served: Served) -> None:
    ours, theirs = os.openpty()
    try:
        source = "try:\n    input('who? ')\nexcept EOFError:\n    print('nobody')"
        with subprocess.Popen(
            [sys.executable, "-m", "pyrokernel", "run", "-k", "k0", "-c", source],
            env=served.environ, stdin=theirs, stdout=subprocess.PIPE, text=True,
        ) as asked:  # fmt: skip
            assert asked.stdout
            assert asked.stdout.read(5) == "who? "
            os.write(ours, b"\x04")
            out, _ = asked.communicate(timeout=20)
        assert (out.strip(), asked.returncode) == ("nobody", ExitCode.OK)
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_deadline_ends_a_question_too(served: Served) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", "run", "-k", "k0", "--timeout", "0.5", "-c", "input('?')"],
        env=served.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as asked:  # fmt: skip
        assert asked.wait(20) == ExitCode.TIMEOUT
    served.cli("interrupt", "k0")


# Waiting


def test_the_deadline_covers_a_kernel_that_holds_its_interpreter(served: Served, hold: Hold) -> None:
    done = run(served, "--timeout", "1", "-c", "'ran'")
    assert done.returncode == ExitCode.TIMEOUT
    assert done.stdout == "k1: 'ran'\n"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("pyrokernel: ")]
    assert "k0 did not take the cell" in line
    assert "will not run there" in line
    assert line.endswith("pyrokernel interrupt --kill k0")
    hold.let_go()
    assert run(served, "-k", "k0", "-c", "1").stdout == "1\n"
    assert "'ran'" not in [cell["source"] for cell in cells(served, "k0")]


def test_who_waits_for_a_busy_kernel_is_told_for_whom(served: Served) -> None:
    cell = detach(served, "k0", "import time\ntime.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", "run", "-k", "k0", "-c", "'late'"],
        env=served.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as waiting:  # fmt: skip
        assert waiting.stderr
        told = waiting.stderr.readline()
        assert told.startswith("k0 is busy with a cell of ")
        assert "import time ...; waiting" in told
        served.cli("interrupt", "k0", "--cell", cell)
        out, err = waiting.communicate(timeout=20)
    assert (out, err) == ("'late'\n", "")


def test_a_cell_that_has_not_started_in_time_is_said_to_wait(served: Served) -> None:
    detach(served, "k0", "import time; time.sleep(60)")
    done = run(served, "-k", "k0", "--timeout", "0.5", "-c", "'late'")
    assert done.returncode == ExitCode.TIMEOUT
    assert "it has not started" in done.stderr
    served.cli("interrupt", "k0")


def test_a_script_of_events_gets_no_notes(served: Served) -> None:
    detach(served, "k0", "import time; time.sleep(2)")
    done = run(served, "-k", "k0", "--json", "-c", "1")
    assert done.stderr == ""
    assert all(json.loads(line)["kernel"] == "k0" for line in done.stdout.splitlines())


# cells


def test_cells_that_run_wait_and_ended_are_listed(served: Served) -> None:
    run(served, "-k", "k0", "-c", "1 / 0")
    first = detach(served, "k0", "import time; time.sleep(60)")
    second = detach(served, "k0", "'waits'")
    wait_until(lambda: [cell["status"] for cell in cells(served, "k0")] == ["error", "running", "waiting"])
    ended, running, waiting = cells(served, "k0")
    assert (ended["source"], ended["ename"], ended["kernel"]) == ("1 / 0", "ZeroDivisionError", "k0")
    assert (running["cell"], waiting["cell"]) == (first, second)
    assert running["author"] == ended["author"] != ""
    assert [cell["cell"] for cell in cells(served, "k0", "-n", "0")] == [first, second]
    shown = served.cli("cells").stdout
    assert "raised ZeroDivisionError" in shown
    assert first[:8] in shown
    with served.connect() as mesh:
        assert take_back(mesh[:], second[:8]) == (second, ["k0"])
        assert take_back(mesh[:], first[:8]) == (first, [])
        with pytest.raises(CellNotFoundError, match=second[:8]):
            take_back(mesh[:], second[:8])
    served.cli("interrupt", "k0")
    wait_until(lambda: [cell["status"] for cell in cells(served, "k0")] == ["error", "cancelled", "error"])


@pytest.mark.usefixtures("hold")
def test_cells_of_a_kernel_that_cannot_answer_are_said_to_be_missing(served: Served) -> None:
    done = served.cli("cells", check=False)
    assert done.returncode == ExitCode.TIMEOUT
    assert "k0 did not answer" in done.stderr


def test_a_cell_that_waits_is_cancelled_by_interrupt(served: Served) -> None:
    detach(served, "k0", "import time; time.sleep(60)")
    waiting = detach(served, "k0", "'waits'")
    assert served.cli("interrupt", "all", "--cell", waiting[:8]).stdout.splitlines() == [
        "k0: cancelled (before it started)", "k1: not running",
    ]  # fmt: skip
    assert [cell["status"] for cell in cells(served, "k0")] == ["cancelled", "running"]
    gone = served.cli("interrupt", "k0", "--cell", waiting[:8], check=False)
    assert gone.returncode == ExitCode.NO_KERNEL
    served.cli("interrupt", "k0")


# logs --lives


def test_the_lives_of_a_kernel_are_listed_with_their_ends(served: Served) -> None:
    run(served, "-k", "k0", "-c", "'first'")
    served.cli("restart", "k0")
    now, before = json.loads(served.cli("logs", "k0", "--lives", "--json").stdout)
    assert now["alive"]
    assert now["ended"] is None
    assert before["started"] <= before["ended"] <= now["started"]
    assert "a restart was asked for" in before["cause"]
    lines = served.cli("logs", "k0", "--lives").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["INSTANCE", now["instance"][:8], before["instance"][:8]]
    assert "'first'" in served.cli("logs", "k0", "--instance", lines[2].split()[0]).stdout
    assert served.cli("logs", "k9", "--lives", check=False).returncode == ExitCode.NO_KERNEL
    served.cli("stop")
    past = json.loads(served.cli("logs", "k0", "--lives", "--json").stdout)
    assert [life["instance"] for life in past] == [now["instance"], before["instance"]]
    assert "a stop was asked for" in past[0]["cause"]


def test_a_kernel_that_is_followed_by_another_before_its_cell_is_asked_for_has_died_all_the_same(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was said to have been restarted, and how it ended was not."""
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    send = Exchange.send

    def send_late(self: Exchange, link: Link, request: Request, token: Any = None) -> None:
        if request.method == "follow":
            with served.connect() as mesh:
                wait_until(lambda: [info.name for info in mesh.ps() if info.instance == link.instance] == [])
                wait_until(lambda: "k1" in mesh.names)
        send(self, link, request, token)

    monkeypatch.setattr(Exchange, "send", send_late)
    assert main(["run", "-k", "k1", "-c", "print('begun', flush=True); import os; os._exit(3)"]) == ExitCode.KERNEL_DIED
    shown = capsys.readouterr()
    assert shown.out == "begun\n"
    assert "exited with code 3" in shown.err
