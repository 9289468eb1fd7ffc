"""`edit`: a cell that was run before, in an editor, and run again. Runs in the shell process."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cmd2 import Statement

from pyrokernel.shell.parser import Takes, takes
from pyrokernel.shell.restricted import local

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

_CELLS = ("", "on", "sh", "writefile", "time", "timeit", "run", "cd", "env", "pip")
"""Python, and the commands that are a cell too, as `cells` lists them."""

_USUAL_EDITORS = ("sensible-editor", "editor", "nano", "vim", "vi")


class Editing:
    """Changes what was typed before.

    Args:
        shell: Whose.
    """

    DEFAULT_CATEGORY = "Shell"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    @local
    @takes(Takes.TEXT)
    def do_edit(self, statement: Statement) -> bool:
        """Open the last cell in an editor; what is saved there runs: edit [NUMBER].

        NUMBER is that of another line or cell, as `history` has it. The editor is $VISUAL or $EDITOR. A file that
        is not saved, or is saved empty, does not run.
        """
        shell = self._shell
        if not shell.at_prompt:
            shell.fail("edit needs a person at a prompt")
            return False
        before = self._before(str(statement).strip())
        if before is None:
            return False
        try:
            program = editor(os.environ)
        except ValueError as error:
            shell.fail(str(error))
            return False
        if not program:
            shell.fail("no editor found; set VISUAL or EDITOR in the environment")
            return False
        try:
            text = edited(program, before)
        except (OSError, UnicodeError) as error:
            shell.fail(f"{program[0]}: {error}")
            return False
        if text is None or not text.strip():
            shell.notice("nothing was saved, so nothing runs")
            return False
        shell.past.append_string(text)
        return shell.run_line(text)

    def _before(self, number: str) -> str | None:
        """Return the line or cell of a number, the last cell without one; None when it is told that there is none."""
        lines = list(reversed(list(self._shell.past.load_history_strings())))
        if not number:
            return next((line for line in reversed(lines) if self._shell.reader.command_of(line) in _CELLS), "")
        if number.isdecimal() and 0 < int(number) <= len(lines):
            return lines[int(number) - 1]
        self._shell.fail(f"there is no line {number}; `history` lists them")
        return None


def editor(environ: Mapping[str, str]) -> list[str]:
    """Return the user's editor with its arguments; none when there is none.

    Raises:
        ValueError: The variable that names it has an open quotation mark.
    """
    for name in ("VISUAL", "EDITOR"):
        if environ.get(name, "").strip():
            try:
                return shlex.split(environ[name])
            except ValueError as error:
                raise ValueError(f"{name} is {environ[name]!r}: {error}") from None
    return next(([name] for name in _USUAL_EDITORS if shutil.which(name)), [])


def edited(program: list[str], text: str) -> str | None:
    """Have a text changed in an editor.

    Args:
        program: The editor and its arguments; the file is added.
        text: What it opens.

    Returns:
        The text as it was saved; None when it was not, or the editor failed.

    Raises:
        OSError: The editor does not start.
    """
    descriptor, name = tempfile.mkstemp(prefix="cell-", suffix=".py")
    path = Path(name)
    # A handler instead of SIG_IGN, which the editor would inherit: Ctrl-C there is not Ctrl-C here.
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text + "\n" if text else "")
        opened = _state(path)
        code = subprocess.run([*program, name], check=False).returncode
        saved = code == 0 and path.exists() and _state(path) != opened
        return path.read_text(encoding="utf-8").rstrip() if saved else None
    finally:
        signal.signal(signal.SIGINT, before)
        path.unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
