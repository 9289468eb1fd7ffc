"""The command line without a mesh: parser, exit codes, and what the subcommands decide and format."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel import errors
from pyrokernel.cli import ExitCode, build_parser, main
from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh
from pyrokernel.client.roster import Roster, describe, split_words
from pyrokernel.errors import (
    AccessRefusedError,
    GatherError,
    HostError,
    KernelDiedError,
    KernelNotFoundError,
    RemoteError,
    SettingsError,
)
from pyrokernel.front import control, doctor, machine, serve
from pyrokernel.front.cells import format_cells
from pyrokernel.front.demo import balance, own_command
from pyrokernel.front.doctor import check_policy
from pyrokernel.front.exits import code_of, worst
from pyrokernel.front.progress import Progress
from pyrokernel.front.reach import settings_of
from pyrokernel.front.serve import explained, spec_of, specs_of
from pyrokernel.front.source import read_source
from pyrokernel.front.terminal import paint
from pyrokernel.front.waiting import describe_waiting
from pyrokernel.front.writer import JsonWriter, LiveWriter
from pyrokernel.host.policy import MAX_DEATHS, Asked, Ending, after_death
from pyrokernel.messages import Event, KernelInfo, KernelSpec, Receipt
from pyrokernel.scripts import Source, exit_of
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import describe_receipts, format_kernels
from pyrokernel.wire.endpoints import listen


def parse(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(words)


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PYROKERNEL_MESH", "PYROKERNEL_NS", "PYROKERNEL_CONFIG", "PYRO_NS_HOST", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("PYROKERNEL_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setenv("PYROKERNEL_STATE_DIR", str(tmp_path / "s"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# Parser


@pytest.mark.parametrize("words", [("--mesh", "lab", "ps"), ("ps", "--mesh", "lab")])
def test_common_options_stand_before_or_after_the_command(words: tuple[str, ...]) -> None:
    assert parse(*words).mesh == "lab"


def test_kernels_are_named_several_times_or_with_commas() -> None:
    assert split_words(parse("run", "-k", "k0,k1", "-k", "tag:big", "file.py").kernels) == ["k0", "k1", "tag:big"]


def test_one_text_is_one_word_and_not_its_letters() -> None:
    assert split_words("k0") == ["k0"]
    assert split_words("k0,k1") == ["k0", "k1"]


@pytest.mark.parametrize(
    "words",
    [("bad",), ("serve", "-n", "-1"), ("run", "--timeout", "soon"), ("logs",), ("logs", "k0", "k1"), ("ps", "--jsn")],
)
def test_a_wrong_command_line_is_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrokernel: ")
    assert line.endswith(" --help`")


@pytest.mark.parametrize(
    ("words", "meant", "remedy"),
    [
        (("sevre",), "serve", "`pyrokernel --help`"),
        (("list",), "ps, cells, logs", "`pyrokernel --help`"),
        (("run", "--timout", "3", "file.py"), "--timeout", "`pyrokernel run --help`"),
        (("serve", "--restrt=never"), "--restart", "`pyrokernel serve --help`"),
    ],
)
def test_what_is_mistyped_is_guessed(
    words: tuple[str, ...], meant: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
    text = capsys.readouterr().err
    assert meant in text
    assert remedy in text


@pytest.mark.parametrize(
    ("word", "at"),
    [
        ("2026-01-31", datetime.datetime(2026, 1, 31)),
        ("2026-01-31T14:05", datetime.datetime(2026, 1, 31, 14, 5)),
        ("2026-01-31T14:05+00:00", datetime.datetime(2026, 1, 31, 14, 5, tzinfo=datetime.UTC)),
    ],
)
def test_a_moment_is_a_date_of_this_machine_unless_it_names_its_zone(word: str, at: datetime.datetime) -> None:
    assert parse("audit", "--since", word).since == at.timestamp()


def test_a_moment_is_also_how_long_ago_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("audit", "--since", "2h").since == pytest.approx(time.time() - 7200, abs=60)
    assert parse("audit").since == 0
    with pytest.raises(SystemExit):
        parse("audit", "--since", "yesterday")
    assert "'yesterday' is no time" in capsys.readouterr().err


def test_no_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert "list the cells that run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "defaults"),
    [("run", ["all", "wait"]), ("serve", ["always", "64M", "none", "never"]), ("demo", ["as many as processors"])],
)
def test_help_shows_defaults(command: str, defaults: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(command, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert [word for word in defaults if f"default: {word}" not in text] == []


# Exit codes


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_error_has_an_exit_code_that_is_not_ok(name: str) -> None:
    cls = getattr(errors, name)
    assert code_of(cls("text")) not in (ExitCode.OK, ExitCode.UNWELL)


def test_several_failures_end_with_the_worst() -> None:
    raised, died = RemoteError(kernel="a", ename="E"), KernelDiedError(kernel="b", tail="")
    assert code_of(GatherError(errors={"a": raised})) == ExitCode.CODE_RAISED
    assert code_of(GatherError(errors={"b": died, "a": raised})) == ExitCode.KERNEL_DIED
    assert worst([ExitCode.TIMEOUT, ExitCode.OK, ExitCode.CODE_RAISED]) == ExitCode.TIMEOUT
    assert worst([]) == ExitCode.OK


@pytest.mark.parametrize("words", [("ps",), ("run", "-c", "1"), ("logs", "k0"), ("stop",), ("restart", "all")])
def test_without_a_mesh_one_line_says_what_to_do(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.NO_MESH
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyrokernel: ")
    assert "not running" in line


def test_an_address_beyond_this_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--ns", "192.0.2.1:9090"]) == ExitCode.REFUSED
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_wrong_setting_is_usage_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--mesh", "a/b"]) == ExitCode.USAGE
    assert "'a/b'" in capsys.readouterr().err


def test_two_v_show_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ps", "-vv", "--mesh", "a/b"])
    assert "Traceback" in capsys.readouterr().err


# serve


def test_numbered_kernels_get_names_that_are_free() -> None:
    specs = specs_of(parse("serve", "-n", "2", "--name", "k1"), taken=["k0"])
    assert [spec.name for spec in specs] == ["k1", "k2", "k3"]


def test_a_kernel_of_the_command_line_has_all_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "camera.py").touch()
    spec = spec_of(
        parse(
            *("serve", "--tag", "optics,big", "--init", str(tmp_path / "camera.py"), "--env", "A=b=c"),
            *("--cwd", str(tmp_path), "--preload", "json", "--protected", "--memory", "4G", "--descriptors", "9"),
            *("--journal", "1M", "--idle-stop", "2h", "--restart", "never", "--threads", "3"),
        ),
        "camera",
    )
    assert spec.tags == ("optics", "big")
    assert spec.init == str(tmp_path / "camera.py")
    assert spec.env == {"A": "b=c"}
    assert spec.preload == ("json",)
    assert spec.protected
    assert (spec.memory_bytes, spec.journal_bytes, spec.idle_stop) == (4 << 30, 1 << 20, 7200)
    assert (spec.descriptors, spec.restart, spec.threads, spec.cwd) == (9, "never", 3, str(tmp_path))


@pytest.mark.parametrize(
    "words",
    [("--env", "A"), ("--memory", "much"), ("--idle-stop", "soon"), ("--init", "/nowhere/x.py"), ("--name", "a b")],
)
def test_a_value_that_cannot_be_used_is_named(words: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=words[1].replace("/", ".")):
        specs_of(parse("serve", "--name", "ok", *words), taken=[])


def test_a_module_that_cannot_be_preloaded_is_named_with_what_to_do() -> None:
    words = "kernel 'k0' is not running: preloading json, numpyy failed: ModuleNotFoundError: No module named 'numpyy'"
    text = str(explained(HostError(words)))
    assert text.startswith(words)
    assert "correct --preload" in text
    assert text.endswith("can import numpyy")
    other = HostError("kernel 'k0' is not running: it ended before it was ready")
    assert explained(other) is other


def test_a_mesh_file_gives_way_to_environment_and_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(parse("serve"), {"mesh": "file", "timeout": 3.0}).mesh == "file"
    monkeypatch.setenv("PYROKERNEL_MESH", "environment")
    found = settings_of(parse("serve"), {"mesh": "file", "timeout": 3.0})
    assert (found.mesh, found.timeout) == ("environment", 3.0)
    assert settings_of(parse("serve", "--mesh", "option"), {"mesh": "file"}).mesh == "option"


def test_hints_reach_the_same_mesh() -> None:
    assert command_line(settings_of(parse("ps")), "ps") == "pyrokernel ps"
    assert command_line(settings_of(parse("ps", "--mesh", "lab")), "stop") == "pyrokernel --mesh lab stop"


# Choosing kernels


INFOS = [
    KernelInfo(name="k0", instance="1"),
    KernelInfo(name="gpu-1", instance="2", tags=("big",)),
    KernelInfo(name="gpu-2", instance="3", status="dead"),
]


ROSTER = Roster(Mesh(Settings()), INFOS, {}, {})


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["k0"], ["k0"]),
        (["gpu-*", "k0"], ["gpu-1", "gpu-2", "k0"]),
        (["tag:big"], ["gpu-1"]),
        (["gpu-0-gpu-2"], ["gpu-1", "gpu-2"]),
        (["gpu-[2-10]"], ["gpu-2"]),
        (["*-[1-2]"], ["gpu-1", "gpu-2"]),
        (["all"], 3),
    ],
)
def test_words_choose_kernels_also_dead_ones(words: list[str], names: Any) -> None:
    found = [info.name for info in ROSTER.choose(words)]
    assert found == names or len(found) == names


def test_a_dead_kernel_is_called_dead_with_its_cause_and_the_remedy() -> None:
    dead = KernelInfo(name="k7", instance="1", status="dead", cause="killed by SIGSEGV")
    error = Roster(Mesh(Settings()), [*INFOS, dead], {}, {}).nobody("k7")
    assert str(error) == "kernel 'k7' is dead: killed by SIGSEGV; `pyrokernel restart k7` starts afresh"


def test_a_kernel_that_was_given_up_has_its_remedy_told_once() -> None:
    cause = after_death(KernelSpec(name="k7"), Ending(signal=9), Asked.NOT, [1.0] * (MAX_DEATHS + 1), 1.0).given_up
    dead = KernelInfo(name="k7", instance="1", status="dead", cause=cause)
    assert str(Roster(Mesh(Settings()), [dead], {}, {}).nobody("k7")).count("restart k7") == 1


def test_where_there_is_no_kernel_it_is_said_how_to_start_one() -> None:
    error = Roster(Mesh(Settings()), [], {}, {}).nobody("all")
    assert str(error).startswith("there is no kernel; start one: `pyrokernel serve -n 1 --detach`")


def test_a_living_kernel_without_an_entry_is_not_said_to_be_unknown() -> None:
    """It was: "no kernel matches 'k0'; there are: k0"."""
    assert "the name server has no entry for it" in str(ROSTER.nobody("k0"))
    assert "there are" not in str(ROSTER.nobody("k0"))


def test_ps_says_that_a_kernel_waits_for_input() -> None:
    running = {"cell": "1", "source": "x = input('age? ')", "asks": {"request": "1", "prompt": "age? "}}
    info = KernelInfo(name="k0", instance="1", status="busy", running=running)
    assert format_kernels([info], now=0.0).endswith("waits for input: age?")


def test_a_word_without_a_kernel_is_an_error_that_lists_them() -> None:
    with pytest.raises(KernelNotFoundError, match="k0, gpu-1, gpu-2"):
        ROSTER.choose(["k0", "cpu"])


def test_where_a_host_does_not_answer_nobody_says_that_its_kernels_do_not_exist() -> None:
    roster = Roster(Mesh(Settings(mesh="lab")), INFOS, {}, {"bench": OSError("gone")})
    with pytest.raises(HostError, match=r"bench does not answer.*`pyrokernel --mesh lab serve --detach`"):
        roster.choose(["k7"])
    assert "bench does not answer" in str(roster.nobody("k7"))


# ps


def test_ps_shows_what_runs_and_why_the_dead_died() -> None:
    busy = KernelInfo(name="k0", instance="1", status="idle", started=90.0, memory_bytes=8 << 20, pid=7)
    about = {"status": "busy", "running": {"source": "fit(\n)"}, "waiting": [{}, {}], "execution_count": 3}
    dead = KernelInfo(name="k1", instance="2", status="dead", started=1.0, restarts=5, cause="killed by SIGSEGV")
    text = format_kernels([describe(busy, about, None), describe(dead, None, None)], now=100.0)
    header, first, second = text.splitlines()
    assert header.split() == ["NAME", "STATUS", "CELLS", "WAIT", "MEMORY", "UP", "RESTARTS", "PID", "DOING"]
    assert first.split() == ["k0", "busy", "3", "2", "8", "MiB", "10.0", "s", "7", "fit(", "..."]
    assert second.split() == ["k1", "dead", "5", "killed", "by", "SIGSEGV"]


def test_a_kernel_that_does_not_describe_itself_is_busy_if_its_host_knows_that_it_lives() -> None:
    info = describe(KernelInfo(name="k0", instance="1", status="idle"), None, None)
    assert (info.status, info.answers) == ("busy", False)
    lost = describe(KernelInfo(name="k0", instance="1", status="unknown"), None, None)
    assert (lost.status, lost.answers) == ("unknown", False)
    assert format_kernels([lost], now=0.0).endswith("neither it nor its host answers")


# Writing


def test_colour_only_where_a_person_looks_and_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert paint("a", "red", io.StringIO()) == "a"
    assert paint("a", "red", Terminal()) == "\x1b[31ma\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("a", "red", Terminal()) == "a"


# Events as text


def output(text: str, stream: str = "stdout", cell: str = "c", **data: Any) -> Event:
    return Event(seq=1, kind="output", cell=cell, data={"text": text, "stream": stream, **data})


ENDED = Event(seq=9, kind="ended", cell="c", data={"status": "ok"})


def test_output_of_one_kernel_is_written_as_it_is() -> None:
    out, err = io.StringIO(), io.StringIO()
    writer = LiveWriter(["k0"], out, err)
    for event in (output("a"), output("b\nc"), output("oops\n", "stderr"), ENDED):
        writer.write("k0", event)
    assert out.getvalue() == "ab\nc"
    assert err.getvalue() == "oops\n"


def test_a_result_begins_on_a_line_of_its_own() -> None:
    out = io.StringIO()
    writer = LiveWriter(["k0"], out, io.StringIO())
    writer.write("k0", output("no newline"))
    writer.write("k0", Event(seq=2, kind="result", cell="c", data={"text": "42"}))
    assert out.getvalue() == "no newline\n42\n"


def test_lines_of_several_kernels_are_named_and_never_mix() -> None:
    out, err = io.StringIO(), io.StringIO()
    writer = LiveWriter(["k0", "k10"], out, err)
    writer.write("k0", output("half "))
    writer.write("k10", output("whole\n"))
    writer.write("k0", output("a line\nrest"))
    writer.write("k10", Event(seq=2, kind="error", cell="c", data={"traceback": "T\nE: x\n"}))
    writer.write("k0", ENDED)
    assert out.getvalue() == "k10: whole\nk0:  half a line\nk0:  rest\n"
    assert err.getvalue() == "k10: T\nk10: E: x\n"


def test_events_for_scripts_are_lines_of_json() -> None:
    out = io.StringIO()
    writer = JsonWriter(out)
    writer.write("k0", output("\ud800"))
    writer.line("k0", "died", error=True)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["kernel"], first["kind"], first["data"]["text"]) == ("k0", "output", "\ud800")
    assert second == {"kernel": "k0", "error": "died"}


# run


def test_source_comes_from_option_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
    assert read_source(parse("run", "-c", "1")) == Source("1")
    assert read_source(parse("run", str(path))) == Source("# coding: latin-1\nx = 'é'\n", str(path), (str(path),))
    monkeypatch.setattr("sys.stdin", io.StringIO("2"))
    assert read_source(parse("run")) == Source("2", "<stdin>", ("-",), is_stdin=True)


@pytest.mark.parametrize("words", [("a", "b"), ("--", "a", "b")])
def test_words_after_the_file_are_for_the_script(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.touch()
    assert read_source(parse("run", "-k", "k0", str(path), *words)).argv == (str(path), "a", "b")
    assert read_source(parse("run", str(path), "--", "--json", "-k")).argv == (str(path), "--json", "-k")


def test_a_file_and_code_are_not_both_run() -> None:
    with pytest.raises(SettingsError, match="not both"):
        read_source(parse("run", "script.py", "-c", "1"))


@pytest.mark.parametrize(
    ("evalue", "found"),
    [("", (0, "")), ("None", (0, "")), ("3", (3, "")), ("-1", (255, "")), ("True", (1, "")), ("no", (1, "no"))],
)
def test_a_script_exits_as_in_python(evalue: str, found: tuple[int, str]) -> None:
    assert exit_of(Event(seq=1, kind="error", data={"ename": "SystemExit", "evalue": evalue})) == found
    assert exit_of(Event(seq=1, kind="error", data={"ename": "ValueError", "evalue": evalue})) is None


@pytest.mark.parametrize(
    ("running", "said"),
    [
        ({"author": "ada", "since": 88.0}, "k0 is busy with a cell of ada since 12.0 s: fit( ...; waiting"),
        ({"author": "init"}, "k0 is busy with its init file: fit( ...; waiting"),
        ({"author": "ada", "asks": {"prompt": "?"}}, "a cell of ada, which waits for an answer to input(): fit( ..."),
    ],
)
def test_a_busy_kernel_is_described(running: dict[str, Any], said: str) -> None:
    assert said in describe_waiting("k0", {"source": "fit(\n)", **running}, now=100.0)


# cells


def test_cells_are_listed_with_what_became_of_them() -> None:
    about = {"kernel": "k0", "cell": "12345678" * 4, "author": "ada"}
    cells = [
        {**about, "status": "error", "ename": "ValueError", "duration": 0.5, "source": "fit(\n)"},
        {**about, "status": "error", "ename": "SystemExit", "duration": 0.5, "source": "exit()"},
        {**about, "status": "running", "started": 90.0, "source": "wait()"},
        {**about, "status": "waiting", "author": "", "source": ""},
    ]
    lines = [line.split() for line in format_cells(cells, now=100.0).splitlines()]
    assert lines[0] == ["KERNEL", "CELL", "STATUS", "AUTHOR", "TIME", "SOURCE"]
    assert lines[1] == ["k0", "12345678", "raised", "ValueError", "ada", "500", "ms", "fit(", "..."]
    assert lines[2][2:4] == ["exit", "0"]
    assert lines[3] == ["k0", "12345678", "running", "ada", "10.0", "s", "wait()"]
    assert lines[4] == ["k0", "12345678", "waiting", "(not", "read", "yet)"]


def test_no_source_at_a_terminal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(SettingsError, match="-c CODE"):
        read_source(parse("run"))


def test_an_interrupt_that_was_of_no_use_says_how_to_go_on() -> None:
    receipts = [
        Receipt(kernel="k0", outcome="unanswered", detail="a C call does not let go"),
        Receipt(kernel="k1", outcome="interrupted"),
        Receipt(kernel="k2", outcome="unanswered", detail="a C call does not let go"),
    ]
    held, interrupted = describe_receipts(receipts, "pyrokernel interrupt --kill")
    assert held.startswith("k0, k2: unanswered (a C call does not let go)")
    assert held.endswith("pyrokernel interrupt --kill k0 k2")
    assert interrupted == "k1: interrupted"


# serve


def test_joining_waits_until_the_host_has_registered_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [[], [], [Link("host", "")]]
    closed = []

    class FakeMesh:
        def hosts(self) -> list[Link]:
            return looks.pop(0)

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr(serve, "open_mesh", lambda settings: FakeMesh())
    serve._open_when_ready(Settings())
    assert (looks, len(closed)) == ([], 2)


# demo


def test_shares_have_equal_bytes_and_lose_nothing() -> None:
    sizes = {f"f{number}": weight for number, weight in enumerate([100, 1, 1, 1, 50, 49, 2, 96])}
    shares = balance(list(sizes), 3, sizes.__getitem__)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    assert [sum(sizes[name] for name in share) for share in shares] == [100, 100, 100]


def test_progress_says_at_once_what_goes_on_and_never_floods_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("one kernel", 1000) as progress:
        assert "0 of 1,000 files" in capsys.readouterr().out
        for done in range(1, 1001):
            progress({"k0": (done, 1000)})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["250", "500", "750", "1,000"]
    assert all(" s " in line for line in lines)


def test_progress_at_a_terminal_counts_the_seconds_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(Progress, "_TICK_SECONDS", 0.001)
    with Progress("one kernel", 10):
        wait_until(lambda: terminal.getvalue().count("0 of 10 files") >= 3)
    assert terminal.getvalue().count("\n") == 1


def test_the_demo_names_the_command_by_which_it_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pyrokernel"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert own_command() == str(script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_command() == "pyrokernel"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py"), "demo"])
    assert own_command() == f"{shlex.quote(sys.executable)} -m pyrokernel"


def test_who_misses_a_command_is_told_which_functions_are_commands() -> None:
    text = str(errors.CommandNotFoundError(name="add", names=()))
    assert "marked with @pyrokernel.command, or named remote_" in text


# doctor


def wrong(settings: Settings) -> dict[str, machine.Finding]:
    return {found.about: found for found in machine.check_machine(settings) if found.level == "wrong"}


def test_a_fresh_machine_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == ExitCode.OK
    assert "all is well" in capsys.readouterr().out


def test_doctor_says_where_each_setting_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("timeout = 3\n")
    main(["doctor", "--json", "--mesh", "lab", "--config", str(config)])
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["mesh"] == {"value": "lab", "from": "--mesh"}
    assert settings["timeout"] == {"value": 3.0, "from": str(config)}
    assert settings["runtime_dir"]["from"] == "PYROKERNEL_RUNTIME_DIR"
    assert settings["trust"]["from"] == "default"


def test_an_open_runtime_directory_is_wrong_and_mended_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r" / "default"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert main(["doctor", "--json"]) == ExitCode.UNWELL
    (finding,) = [found for found in json.loads(capsys.readouterr().out)["findings"] if found["level"] == "wrong"]
    assert finding["remedy"] == f"chmod 700 {folder}"


def test_a_path_too_long_for_a_socket_is_wrong() -> None:
    settings = Settings(runtime_dir="/tmp/" + "x" * 100, state_dir="/tmp/none")
    assert "PYROKERNEL_RUNTIME_DIR" in wrong(settings)["runtime dir"].remedy


def test_a_socket_that_nobody_listens_at_is_wrong(tmp_path: Path) -> None:
    settings = settings_of(parse("ps"))
    settings.mesh_runtime_dir.mkdir(parents=True, mode=0o700)
    path = settings.mesh_runtime_dir / "0123456789abcdef.sock"
    endpoint = listen(path, portable=settings.portable)
    assert "sockets" not in wrong(settings)
    endpoint.sock.close()
    assert wrong(settings)["sockets"].remedy == f"rm {path}"


def test_a_damaged_record_does_not_stop_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(parse("ps"))
    (settings.mesh_runtime_dir / "kernels").mkdir(parents=True, mode=0o700)
    settings.mesh_runtime_dir.chmod(0o700)
    (settings.mesh_runtime_dir / "kernels" / "k0.json").write_text("{")
    assert main(["doctor"]) == ExitCode.OK
    assert "note" in capsys.readouterr().out


def test_doctor_reads_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    settings = Settings(policy=str(path))
    assert list(check_policy(settings)) == []
    path.write_text('[users]\nana = "admin"\n[kernels."a*"]\n"*" = "nobody"\n')
    (finding,) = check_policy(settings)
    assert (finding.level, finding.text) == ("ok", f"{path}: 2 lines, default observer")
    for text in ('[users]\nana = "root"\n', "[users\n"):
        path.write_text(text)
        (finding,) = check_policy(settings)
        assert (finding.level, finding.about) == ("wrong", "policy")
        assert str(path) in finding.text


@pytest.mark.parametrize(("address", "invites"), [("127.0.1.1", False), ("10.77.0.1", True)])
def test_a_name_that_is_loopback_here_invites_no_other_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str, invites: bool
) -> None:
    monkeypatch.setattr(serve.socket, "gethostbyname", lambda _: address)
    serve._describe("mesh", ["k0"], Settings(listen="lab1:9191"), foreground=False)
    told = capsys.readouterr().out
    assert ("other machines reach it at lab1:9191" in told) == invites
    assert ("other machines do not" in told and "lab1 is 127.0.1.1 here" in told) == (not invites)


@pytest.mark.parametrize(
    ("settings", "host", "serve"),
    [
        (Settings(host="lab1"), "lab3", "pyrokernel serve --detach --join lab1:9191, on lab3"),
        (Settings(host="lab1"), "lab1", "pyrokernel serve --detach, on lab1"),
        (Settings(host="lab1", ns="lab1:9090"), "lab3", "pyrokernel --ns lab1:9090 serve --detach, on lab3"),
    ],
)
def test_doctor_says_how_a_machine_that_was_switched_off_joins_again(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, host: str, serve: str
) -> None:
    monkeypatch.setattr(doctor, "ask_each", lambda *_: {host: errors.KernelUnreachableError("nobody answers")})
    monkeypatch.setattr(doctor, "described_here", lambda _: {"address": "lab1:9191"})
    links = [Link(host, "")]
    mesh: Any = SimpleNamespace(hosts=lambda: links, settings=settings)
    (finding,) = doctor._check_hosts(mesh)
    assert finding.remedy.startswith(serve)


@contextlib.contextmanager
def as_another_account() -> Iterator[None]:
    """Be an account that modes of files hold for, which they do not for root."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files hold for nobody there")
@pytest.mark.parametrize("runs", [False, True])
def test_doctor_goes_on_where_the_shared_state_is_in_the_folder_of_another_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    closed = tmp_path / "theirs"
    closed.mkdir(mode=0)

    def find_state(*, start: bool) -> Link:
        assert not start
        if not runs:
            raise KernelNotFoundError("no entry")
        return Link("state", "")

    mesh: Any = SimpleNamespace(
        state_host=lambda: Link("lab1", ""),
        ask_host=lambda *_, **__: {"shared_dir": str(closed / "shared")},
        find_state=find_state,
    )
    monkeypatch.setattr(doctor, "ask", lambda *_: {"directory": closed / "shared", "keys": {"a": 2}, "revision": 7})
    with as_another_account():
        found = doctor.check_state(mesh)
    assert found.level == ("ok" if runs else "note")
    assert "belongs to another account" in found.text
    assert ("2 keys, revision 7" in found.text) == runs


def test_stop_all_ends_the_others_where_one_host_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [SimpleNamespace(name=f"lab{number}") for number in (1, 2, 3)]

    class Mesh(contextlib.AbstractContextManager[Any]):
        def hosts(self) -> list[SimpleNamespace]:
            return hosts

        def __exit__(self, *_: object) -> None:
            pass

    def end(host: SimpleNamespace, *_: Any, **__: Any) -> list[str]:
        if host.name == "lab2":
            raise AccessRefusedError("lab2 shows a certificate that was revoked")
        return [f"k-{host.name}"]

    monkeypatch.setattr(control, "open_mesh", lambda _: Mesh())
    monkeypatch.setattr(control, "_end_host", end)
    assert control.stop(parse("stop", "--all")) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert "stopped the hosts on lab1, lab3" in told.out
    assert "host lab2 goes on, if it is there: lab2 shows a certificate that was revoked" in told.err
