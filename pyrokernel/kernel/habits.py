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
import subprocess
import sys
import tempfile
import timeit
from typing import Any

from pyrokernel.kernel.expanding import expand
from pyrokernel.kernel.interpreter import HabitError
from pyrokernel.texts import stopwatch

_GRACE_SECONDS = 2.0
"""A program that is interrupted may clean up for so long; Ctrl-C once more ends it at once."""

_LONG_BYTES = 100_000  # as one argument, Linux takes 128 KiB
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


def script(program: str, text: str, variables: dict[str, Any]) -> None:
    """Run lines of a shell, as they are: what they write is output of the cell.

    Args:
        program: Which shell; "" for the one of `sh`.
        text: The lines.
        variables: The namespace; `_exit_code` is set there.

    Raises:
        HabitError: There is no such shell, or the exit code is not 0.
    """
    _fail_unless_ok(_run(text, variables, program=program))


def writefile(path: str, text: str, append: bool, variables: dict[str, Any]) -> None:
    """Write lines to a file, as they are; of the path, `$name` and `{expression}` become values.

    Raises:
        HabitError: It cannot be written.
    """
    path = _path(path, variables)
    try:
        with open(path, "a" if append else "w", encoding="utf-8") as stream:
            stream.write(text + "\n" if text else "")
    except (OSError, UnicodeError) as error:
        raise HabitError(f"writefile: {path}: {getattr(error, 'strerror', None) or error}") from None
    lines = text.count("\n") + bool(text)
    print(f"{path}: {lines} line{'s' * (lines != 1)} {'added' if append else 'written'}")


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
    before = _directory()
    target = _path(path, variables)
    target = (_left or before) if target == "-" else target or os.path.expanduser("~")
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


def _path(text: str, variables: dict[str, Any]) -> str:
    """Return the path that somebody typed, perhaps between quotation marks."""
    path = expand(text, variables).strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        path = path[1:-1]
    return os.path.expanduser(path)


def _run(command: str, variables: dict[str, Any], output: list[bytes] | None = None, program: str = "") -> int:
    """Run a command of the system's shell and return its exit code; an interrupt gives it time to clean up.

    Args:
        command: Already expanded.
        variables: Get the exit code.
        output: Takes standard output; None leaves it where output goes.
        program: The shell; "" for the user's.

    Raises:
        HabitError: The shell does not start.
    """
    usual = os.environ.get("SHELL", "")
    shell = program or (usual if os.path.isabs(usual) and os.access(usual, os.X_OK) else "/bin/sh")
    sys.stdout.flush()
    # It stays in the kernel's process group, so that an interrupt reaches it, and its children, without us.
    try:
        process = _start(shell, command, None if output is None else subprocess.PIPE)
    except (OSError, ValueError) as error:  # such as no shell of that name, a zero byte
        raise HabitError(f"{shell}: {getattr(error, 'strerror', None) or error}") from None
    with process:
        try:
            if process.stdout is not None and output is not None:
                output.extend(process.stdout)
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise KeyboardInterrupt from None  # a new one, without the frames of waiting
    variables["_exit_code"] = code
    return code


def _start(shell: str, command: str, stdout: int | None) -> subprocess.Popen[bytes]:
    """Start a shell on a command; one that is long it reads from a file, as if that was typed."""
    text = os.fsencode(command)
    if len(text) <= _LONG_BYTES:
        return subprocess.Popen([shell, "-c", command], stdout=stdout)
    with tempfile.TemporaryFile() as file:
        file.write(text + b"\n")
        file.seek(0)
        # Not the file as its argument: `$0` is that of other commands.
        return subprocess.Popen([shell, "-c", f". /dev/fd/{file.fileno()}"], stdout=stdout, pass_fds=[file.fileno()])


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
