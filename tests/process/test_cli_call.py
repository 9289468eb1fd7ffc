"""`pyrokernel call` and `commands`: a function of a kernel as a command line."""

from __future__ import annotations

import ast
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminals import Terminal
from waiting import wait_until

from pyrokernel.cli import ExitCode, build_parser

Served = Any  # tests/process/conftest.py

SOURCE = '''
from __future__ import annotations
import pathlib, time
from collections.abc import Iterator
from typing import Literal, TYPE_CHECKING
from pyrokernel import command
if TYPE_CHECKING:
    import elsewhere

@command
def hello(self, who: str = "world", times: int = 1, *, loud: bool = False, mode: Literal["a", "b"] = "a") -> str:
    """Greet 100% of them.

    Args:
        who: Whom, 50% at most.
        times: How often.

    Returns:
        What is said.
    """
    text = "hello " * times + who
    return text.upper() if loud else text

@command
def count(self, to: int) -> Iterator[int]:
    for number in range(to):
        print("now", number)
        yield number

@command
def slow(self, gate: pathlib.Path) -> str:
    self.progress(1, 4, "moving")
    while not gate.exists():
        time.sleep(0.01)
    self.progress(3, 4)
    return "arrived"

@command
def asks() -> str:
    return input("who? ") + "!"

@command
def odd(self, x: elsewhere.Thing = object(), y: int = None, *more: float, **options: "list[int]") -> elsewhere.Thing:
    """Uses \\"quotes\\" and back\\\\slashes."""
    return [x, y, more, options]

@command
def fails() -> None:
    raise ValueError("no luck")

@command(name="list")
def list_() -> dict[str, list[int]]:
    return {"a": [1]}
'''


@pytest.fixture
def called(served: Served, tmp_path: Path) -> Served:
    """The mesh, with the commands in both kernels."""
    (tmp_path / "tools.py").write_text(SOURCE)
    served.cli("ship", str(tmp_path / "tools.py"))
    return served


def call(served: Served, *words: str) -> subprocess.CompletedProcess[str]:
    return served.cli("call", "-k", "k0", *words, check=False)  # type: ignore[no-any-return]  # Any, see above


def test_the_signature_is_the_command_line(called: Served) -> None:
    assert call(called, "hello").stdout == "'hello world'\n"
    assert call(called, "hello", "--who", "Ada", "--times", "2", "--loud").stdout == "'HELLO HELLO ADA'\n"
    done = called.cli("call", "hello", "--who=Bob", "--mode", "b")
    assert sorted(done.stdout.splitlines()) == ["k0: 'hello Bob'", "k1: 'hello Bob'"]
    assert (
        call(called, "odd", "--x", "-1e5", "--y", "0x10", "--", "2", "3").stdout == "[-100000.0, 16, (2.0, 3.0), {}]\n"
    )


def test_help_is_that_of_the_command(called: Served) -> None:
    done = call(called, "hello", "--help")
    assert done.returncode == ExitCode.OK
    assert done.stdout.startswith("usage: pyrokernel call hello [-h] ")
    for said in (
        "Greet 100% of them.",
        "Whom, 50% at most. (default: 'world')",
        "{a,b}",
        "What is said.",
        "(tools.py)",
    ):
        assert said in done.stdout
    assert "Args:" not in done.stdout


def test_what_is_wrong_is_said_and_has_a_code(called: Served) -> None:
    for words, code, said in (
        (["helo"], ExitCode.NO_KERNEL, "did you mean hello?"),
        (["hello", "--tims", "3"], ExitCode.USAGE, "no option --tims (did you mean --times?)"),
        (["hello", "--times", "x"], ExitCode.USAGE, "'x' is not an int"),
        (["hello", "--mode", "c"], ExitCode.USAGE, "invalid choice: 'c'"),
        (["count"], ExitCode.USAGE, "required: TO"),
        (["fails"], ExitCode.CODE_RAISED, "ValueError: no luck"),
    ):
        done = call(called, *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr


def test_a_command_that_some_kernels_lack_is_called_nowhere(called: Served, tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("def remote_only_here(x=1): return x\n")
    called.cli("ship", "-k", "k0", str(tmp_path / "more.py"))
    done = called.cli("call", "only_here", check=False)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "k1 has no command 'only_here'; call it where it is: -k k0" in done.stderr
    assert call(called, "only_here").stdout == "1\n"
    (tmp_path / "more.py").write_text("def remote_only_here(y=1): return y\n")
    called.cli("ship", "-k", "k1", str(tmp_path / "more.py"))
    assert "the kernels have different versions of 'only_here'" in called.cli("call", "only_here", check=False).stderr


def test_an_option_of_call_behind_the_name_is_told_where_it_belongs(called: Served) -> None:
    done = called.cli("call", "count", "2", "-k", "k0", check=False)
    assert done.returncode == ExitCode.USAGE
    assert "-k stands before the name of the command" in done.stderr


def test_values_are_shown_as_they_come_and_not_again(called: Served) -> None:
    assert call(called, "count", "2").stdout == "now 0\n0\nnow 1\n1\n"
    assert call(called, "count", "0").stdout == ""


def test_json_has_the_values_and_nothing_else(called: Served) -> None:
    done = called.cli("call", "--json", "count", "2")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"kernel": name, "status": "ok", "value": [0, 1]} for name in ("k0", "k1")
    ]
    assert sorted(done.stderr.splitlines()) == ["k0: now 0", "k0: now 1", "k1: now 0", "k1: now 1"]
    failed = call(called, "--json", "fails")
    assert json.loads(failed.stdout) == {
        "kernel": "k0", "status": "error", "ename": "ValueError", "evalue": "no luck"
    }  # fmt: skip
    assert failed.returncode == ExitCode.CODE_RAISED


def test_input_is_answered(called: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "call", "-k", "k0", "asks"],
        env=called.environ, input="Ada\n", capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == "who? 'Ada!'\n"


def test_how_far_it_is_stands_in_a_line_that_goes_away(called: Served, tmp_path: Path) -> None:
    seen = bytearray()
    terminal = Terminal(
        [sys.executable, "-m", "pyrokernel", "call", "slow", str(tmp_path / "gate")], called.environ, feed=seen.extend
    )
    try:
        terminal.until(lambda: "k0 25% moving" in terminal.text and "k1 25% moving" in terminal.text, "25%")
        (tmp_path / "gate").touch()
        terminal.expect("'arrived'")
        assert terminal.wait() == ExitCode.OK
        assert seen.endswith(b"\r\x1b[K")
    finally:
        terminal.close()
    quiet = call(called, "slow", str(tmp_path / "gate"))
    assert (quiet.stdout, quiet.stderr) == ("'arrived'\n", "")


def test_ctrl_c_interrupts_the_command(called: Served, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", "call", "-k", "k0", "slow", str(tmp_path / "never")],
        env=called.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until(lambda: '"busy"' in called.cli("ps", "--json").stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in err


def test_commands_are_listed(called: Served, tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("def remote_only_here(x=1): return x\n")
    called.cli("ship", "-k", "k0", str(tmp_path / "more.py"))
    header, *rows = called.cli("commands").stdout.splitlines()
    assert header.split() == ["NAME", "SIGNATURE", "OWNER", "KERNELS", "ABOUT"]
    assert [row.split()[0] for row in rows] == ["asks", "count", "fails", "hello", "list", "odd", "only_here", "slow"]
    assert "(to: int) -> Iterator[int]" in rows[1]
    assert rows[3].endswith("Greet 100% of them.")
    assert rows[6].split() == ["only_here", "(x=1)", "more.py", "k0"]
    named = {
        name: [info["name"] for info in infos]
        for name, infos in json.loads(called.cli("commands", "--json").stdout).items()
    }
    assert "only_here" in named["k0"]
    assert "only_here" not in named["k1"]


def test_the_stub_is_what_type_checkers_read(called: Served, tmp_path: Path) -> None:
    stub = tmp_path / "commands.pyi"
    assert f"{stub}: 7 commands" in called.cli("commands", "--stub", str(stub)).stderr
    tree = ast.parse(stub.read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    single, several = (
        {node.name: node for node in classes[name].body if isinstance(node, ast.FunctionDef)}
        for name in ("KernelCommands", "GroupCommands")
    )
    assert ast.unparse(single["hello"].args) == (
        "self, who: str='world', times: int=1, *, loud: bool=False, mode: Literal['a', 'b']=..."
    )
    assert "What is said." in (ast.get_docstring(single["hello"]) or "")
    assert ast.get_docstring(single["odd"]) == 'Uses "quotes" and back\\slashes.'
    shown = {name: ast.unparse(node.returns) for name, node in several.items() if node.returns}
    assert shown["hello"] == "dict[str, str]"
    assert shown["count"] == "dict[str, builtins.list[int]]"  # beside a method that is called list
    assert shown["odd"] == "dict[str, Any]"
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    user = tmp_path / "user.py"
    user.write_text(
        "from commands import GroupCommands, KernelCommands\n"
        "def use(one: KernelCommands, all: GroupCommands) -> int:\n"
        "    return len(one.hello('Ada', times=2)) + sum(all.count(3)['k0']) + one.list()['a'][0]\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(stub), str(user)],
        capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_what_follows_the_name_is_left_alone() -> None:
    args = build_parser().parse_args(["-v", "call", "-kk0", "--timeout", "3", "f", "--ve", "-v", "--", "-k", "call"])
    assert (args.name, args.arguments) == ("f", ["--ve", "-v", "--", "-k", "call"])
    assert (args.verbose, args.kernels, args.timeout) == (1, ["k0"], 3.0)
