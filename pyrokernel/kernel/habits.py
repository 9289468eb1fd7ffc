"""What commands such as `!ls`, `timeit` and `cd` do in a kernel. Runs in the kernel process, in its main thread.

A front end sends each as a cell of one line that calls a function from here; what a person
typed stands in events as its `shown`. Imported on first use.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import linecache
import math
import os
import re
import shlex
import signal
import string
import subprocess
import sys
import timeit
from typing import Any

from pyrokernel.kernel.interpreter import HabitError
from pyrokernel.messages import HABIT
from pyrokernel.texts import stopwatch

_GRACE_SECONDS = 2.0
"""A program that is interrupted may clean up for so long; Ctrl-C once more ends it at once."""

_RUNS = 7
_TIMED = "<timeit>"
_TIMER = """\
def inner(_it, _timer):
    _t0 = _timer()
    for _i in _it:
        pass
    return _timer() - _t0
"""
_SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]\w*")

_left = ""
"""The directory before the last `cd`."""


def sh(command: str, variables: dict[str, Any]) -> None:
    """Run a command of the system's shell; what it and its children write is output of the cell.

    Args:
        command: As typed; see `expand`.
        variables: The namespace; `_exit_code` is set there.

    Raises:
        HabitError: Its exit code is not 0.
    """
    _fail_unless_ok(_run(expand(command, variables), variables))


def lines_of(command: str, variables: dict[str, Any]) -> list[str]:
    """Run a command of the system's shell and return the lines that it writes to standard output."""
    output: list[bytes] = []
    code = _run(expand(command, variables), variables, output)
    if code:
        print(_ending(code), file=sys.stderr)
    return b"".join(output).decode("utf-8", "surrogateescape").splitlines()


def pip(words: str, variables: dict[str, Any]) -> None:
    """Run pip with the Python of this kernel.

    Raises:
        HabitError: It failed, or there is none.
    """
    if importlib.util.find_spec("pip") is None:
        raise HabitError(f"{sys.executable} has no pip; `!uv pip install --python {sys.executable} ...` may do")
    # There is nobody whom it could ask.
    sure = " --yes" if re.match(r"\s*uninstall\b", words) else ""
    code = _run(f"{shlex.quote(sys.executable)} -m pip {expand(words, variables)}{sure}", variables)
    importlib.invalidate_caches()
    _fail_unless_ok(code)


def cd(path: str, variables: dict[str, Any]) -> None:
    """Change the working directory: home without a path, "-" is the one before.

    Raises:
        HabitError: There is no such directory.
    """
    global _left
    path = expand(path, variables).strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        path = path[1:-1]
    before = _directory()
    target = (_left or before) if path == "-" else os.path.expanduser(path or "~")
    try:
        os.chdir(target)
    except OSError as error:
        raise HabitError(f"cd: {target}: {error.strerror}") from None
    _left = before
    print(os.getcwd())


def pwd() -> None:
    """Print the working directory."""
    print(_directory() or "the working directory was deleted; `cd` goes home")


def env(text: str, variables: dict[str, Any]) -> None:
    """List, print or set variables of the environment: "", NAME, NAME=VALUE or NAME VALUE.

    Raises:
        HabitError: There is no such variable, or no such name.
    """
    text = text.strip()
    if not text:
        for name, value in sorted(os.environ.items()):
            print(f"{name}={'<hidden>' if _SECRET.search(name) else value}")
        return
    match = re.fullmatch(r"([^\s=]+)(?:\s*=\s*|\s+)(.*)", text, re.DOTALL)
    if match:
        try:
            os.environ[match[1]] = expand(match[2], variables)
        except ValueError as error:
            raise HabitError(f"env: {error}") from None
    elif text in os.environ:
        print(os.environ[text])
    else:
        raise HabitError(f"env: there is no variable {text!r}; `env {text}=VALUE` sets it")


def time_it(statement: str, setup: str, number: int, repeat: int, variables: dict[str, Any]) -> None:
    """Measure how long a statement takes, and print it as IPython does.

    Args:
        statement: Names that it sets are its own, as in a function.
        setup: Runs before each run, in the same function, and is not measured.
        number: Loops in each run, 0 for as many as take 0.2 s.
        repeat: Runs, 0 for seven.
        variables: The namespace.
    """
    timer = timeit.Timer()
    timer.inner = _timed(statement, setup, variables)  # type: ignore[attr-defined]  # what Timer calls
    try:
        loops = number
        while not loops or (not number and timer.timeit(loops) < 0.2 and loops < 10**9):
            loops = loops * 10 or 1
        runs = [seconds / loops for seconds in timer.repeat(repeat or _RUNS, loops)]
    except BaseException as error:
        # From where the statement begins: nobody asked how it is called.
        error.__traceback__ = _from_statement(error)
        raise
    mean = math.fsum(runs) / len(runs)
    deviation = math.sqrt(math.fsum((seconds - mean) ** 2 for seconds in runs) / len(runs))
    print(
        f"{stopwatch(mean)} ± {stopwatch(deviation)} per loop (mean ± std. dev. of "
        f"{len(runs)} run{'s' * (len(runs) != 1)}, {loops:,} loop{'s' * (loops != 1)} each)"
    )
    if max(runs) > 4 * min(runs) > 0 and max(runs) > 1e-6:
        print(f"The slowest run took {max(runs) / min(runs):.2f} times longer than the fastest.")


def expand(command: str, variables: dict[str, Any]) -> str:
    """Put values of the namespace into a command: `$name` and `{expression}`.

    As in IPython, `$$` is a dollar, `{{` and `}}` are braces, and single quotes keep a `$` from meaning
    anything. What is no variable, or no Python, stays as it is: it may mean something to the shell.
    """
    parts: list[str] = []
    quote, braces, at = "", 0, 0
    while at < len(command):
        sign, pair = command[at], command[at : at + 2]
        text, length = sign, 1
        if sign == "\\" and quote != "'":
            text, length = pair, 2
        elif sign in "'\"" and quote in ("", sign):
            quote = "" if quote else sign
        elif sign == "$" and quote != "'":
            text, length = _dollar(command, at, variables)
        elif pair == "{{":
            text, length, braces = "{", 2, braces + 1
        elif pair == "}}" and braces:
            text, length, braces = "}", 2, braces - 1
        elif sign == "{":
            text, length = _braces(command, at, variables)
        parts.append(text)
        at += length
    return "".join(parts)


def _dollar(command: str, at: int, variables: dict[str, Any]) -> tuple[str, int]:
    """Return what a dollar sign becomes, together with the characters after it that are used up."""
    if command.startswith("$$", at):
        return "$", 2
    if command.startswith("${", at):
        end = command.find("}", at)
        return (command[at : end + 1], end + 1 - at) if end > 0 else ("${", 2)
    name = _NAME.match(command, at + 1)
    if name is None or name[0] not in variables:
        return "$", 1
    return str(variables[name[0]]), name.end() - at


def _braces(command: str, at: int, variables: dict[str, Any]) -> tuple[str, int]:
    """Return what an opening brace becomes, together with the characters up to its closing one."""
    end = at
    while (end := command.find("}", end + 1)) > 0:
        for expression, spec, conversion in _readings(command[at + 1 : end]):
            # The name of a builtin alone is more likely a word of another language, as in awk '{print}'.
            if _NAME.fullmatch(expression) and expression not in variables:
                continue
            try:
                value = eval(compile(expression.strip(), HABIT, "eval", dont_inherit=True), variables)
            except (SyntaxError, NameError):
                continue
            return format(string.Formatter().convert_field(value, conversion), spec), end + 1 - at
    return "{", 1


def _readings(text: str) -> list[tuple[str, str, Any]]:
    """Return how what stands in braces can be read: expression, format, conversion."""
    readings: list[tuple[str, str, Any]] = [(text, "", None)] if text.strip() else []
    try:
        parsed = list(string.Formatter().parse("{" + text + "}"))
    except ValueError:
        return readings
    if len(parsed) == 1 and parsed[0][1] and (parsed[0][2] or parsed[0][3]):
        readings.append((parsed[0][1], parsed[0][2] or "", parsed[0][3]))
    return readings


def _run(command: str, variables: dict[str, Any], output: list[bytes] | None = None) -> int:
    """Run a command of the system's shell and return its exit code; an interrupt gives it time to clean up.

    Args:
        command: Already expanded.
        variables: Get the exit code.
        output: Takes standard output; None leaves it where output goes.
    """
    usual = os.environ.get("SHELL", "")
    shell = usual if os.path.isabs(usual) and os.access(usual, os.X_OK) else "/bin/sh"
    sys.stdout.flush()
    # It stays in the kernel's process group, so that an interrupt reaches it, and its children, without us.
    with subprocess.Popen([shell, "-c", command], stdout=None if output is None else subprocess.PIPE) as process:
        try:
            if process.stdout is not None and output is not None:
                output.extend(process.stdout)
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    variables["_exit_code"] = code
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()


def _fail_unless_ok(code: int) -> None:
    if code:
        raise HabitError(_ending(code))


def _ending(code: int) -> str:
    """Say how a program ended that did not end well."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _directory() -> str:
    """Return the working directory, "" when it does not exist any more."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _timed(statement: str, setup: str, variables: dict[str, Any]) -> Any:
    """Make the function that runs a statement so many times and returns how long that took.

    From syntax trees, as IPython does: to indent the text would change the strings in it.
    """
    source = f"{setup}\n{statement}" if setup else statement
    linecache.cache[_TIMED] = (len(source), None, [f"{line}\n" for line in source.split("\n")], _TIMED)
    trees = []
    for text in (setup, "\n" * (setup.count("\n") + 1) * bool(setup) + statement):
        compile(text, _TIMED, "exec", dont_inherit=True)  # or `return` would leave our function
        trees.append(ast.parse(text, _TIMED).body)
    tree = ast.parse(_TIMER)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    loop = function.body[1]
    assert isinstance(loop, ast.For)
    loop.body = trees[1] or loop.body
    function.body[:0] = trees[0]
    made: dict[str, Any] = {}
    exec(compile(tree, _TIMED, "exec", dont_inherit=True), variables, made)
    return made["inner"]


def _from_statement(error: BaseException) -> Any:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != _TIMED:
        trace = trace.tb_next
    return trace
