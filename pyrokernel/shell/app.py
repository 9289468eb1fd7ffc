"""The shell: a cmd2 application in which Python falls through to the current group. Runs in the shell process."""

from __future__ import annotations

import difflib
import os
import re
import sys
import termios
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cmd2
from cmd2 import Statement
from cmd2.exceptions import Cmd2ArgparseError
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition, completion_is_selected
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import HighlightMatchingBracketProcessor

from pyrokernel.client.group import Group
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import PyrokernelError
from pyrokernel.settings import Settings, command_line
from pyrokernel.shell.commands import KernelCommands
from pyrokernel.shell.completer import Router
from pyrokernel.shell.data import DataCommands
from pyrokernel.shell.display import harmless
from pyrokernel.shell.here import Here, HereCommands
from pyrokernel.shell.history import History
from pyrokernel.shell.lexer import ShellLexer
from pyrokernel.shell.parser import PYTHON, UNKNOWN, Parser, Piece, SourceReader, Takes, bound_names, dedented
from pyrokernel.shell.runner import Runner
from pyrokernel.shell.target import Target
from pyrokernel.texts import label

_LEFT_OUT = ("alias", "edit", "macro", "run_pyscript", "run_script", "shell", "shortcuts", "_relative_run_script")
"""Commands of cmd2 that act on the machine of the shell instead of the kernels, or rewrite lines before parsing."""

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Shell(cmd2.Cmd):
    """The application.

    Args:
        mesh: Whose kernels it reaches.
        words: The first group, as for `use`.

    Attributes:
        target: The current group.
        reader: Tells commands from Python.
        offers: By command, what completes the text after it: the `offer_` method beside its `do_` method.
        failed: Whether the last command or cell failed.
    """

    DEFAULT_CATEGORY = "Shell"

    def __init__(self, mesh: Mesh, words: Iterable[str] = ()) -> None:
        self.failed = False
        self.target = Target(mesh, words)
        self.reader = SourceReader()
        here = Here()
        command_sets = [KernelCommands(), HereCommands(here), DataCommands(here)]
        super().__init__(allow_cli_args=False, shortcuts={}, terminators=[], command_sets=command_sets)
        for name in _LEFT_OUT:
            # The way in which cmd2 itself leaves out `py` and `ipy`.
            setattr(self, f"do_{name}", None)
        for name in ("allow_style", "debug", "echo", "editor", "quiet", "scripts_add_to_history"):
            self.remove_settable(name)
        self.hidden_commands += [PYTHON, UNKNOWN]
        # _eof is what cmd2 makes of Ctrl-D.
        self.reader.commands = {
            name: getattr(self.get_command_func(name), "takes", Takes.WORDS)
            for name in [*self.get_visible_commands(), "_eof"]
        }
        self.offers = {
            name: offer
            for name in self.reader.commands
            if (offer := getattr(getattr(self.get_command_func(name), "__self__", None), f"offer_{name}", None))
        }
        self.statement_parser = self._parser = Parser(self.reader)
        self.continuation_prompt = "... "
        self._runner = Runner(self)
        self._set_up_prompt()
        self.show_target()

    @property
    def interactive(self) -> bool:
        """Whether a person types at a terminal."""
        return self._is_tty_session(self.main_session)

    def _set_up_prompt(self) -> None:
        """Replace what cmd2 puts into its prompt by what Python needs there."""
        session = self.main_session
        session.completer = Router(self)
        session.lexer = ShellLexer(self.reader)
        session.input_processors = [*(session.input_processors or ()), HighlightMatchingBracketProcessor()]
        session.prompt_continuation = lambda width, line_number, wrap_count: "... ".rjust(width)
        bindings = KeyBindings()

        @bindings.add(Keys.BracketedPaste)
        def paste(event: KeyPressEvent) -> None:
            """Insert a pasted block whole; cmd2 would replay it as keystrokes, and run its first half."""
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            event.current_buffer.insert_text(text if event.current_buffer.text else dedented(text))

        @bindings.add("tab", filter=Condition(_in_margin))
        def indent(event: KeyPressEvent) -> None:
            """Indent, where there is nothing to complete."""
            event.current_buffer.insert_text("    ")

        @bindings.add("enter", filter=Condition(self._in_block) & ~completion_is_selected)
        def next_line(event: KeyPressEvent) -> None:
            """Go on with a block at its margin, one step further in after a colon."""
            line = event.current_buffer.document.current_line_before_cursor
            deeper = line.rstrip().endswith(":")
            event.current_buffer.newline(copy_margin=True)
            event.current_buffer.insert_text("    " if deeper else "")

        assert session.key_bindings is not None  # cmd2 passes its own
        session.key_bindings = merge_key_bindings([session.key_bindings, bindings])
        if self.interactive:
            history = History(self.target.mesh.settings.mesh_state_dir / "shell-history")
            session.history = session.default_buffer.history = history

    def _in_block(self) -> bool:
        """Whether Enter asks for one more line."""
        return self.interactive and not self.reader.finished(get_app().current_buffer.text)

    def do__python(self, statement: Statement) -> None:
        """Run Python on the current group; commands that were pasted between its lines are run in their turn."""
        pieces = self.reader.split(str(statement))
        if len(pieces) > 1:
            self.run_pieces(pieces)
            return
        hint = self.reader.shadowed(str(statement))
        if hint and self.interactive:
            self.notice(f"`{hint}` is a variable here; `:{hint}` is the command")
        changed, notes = self.target.refresh()
        self.show_target()
        for note in notes:
            self.notice(note)
        if changed:
            self.reader.variables.clear()
            self.fail(
                f"{label(changed)}: restarted since the last cell, variables are gone; repeat the line to run it there"
            )
            return
        self.last_result = self.run_cell(self.target.group, str(statement))
        self.target.settle()
        self.show_target()

    def do__unknown(self, statement: Statement) -> None:
        """Say that there is no such command."""
        word = str(statement.raw).split()[0].lstrip(":%")
        near = difflib.get_close_matches(word, self.reader.commands, 1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        self.fail(f"there is no command {word!r}{hint or ';'} `help` lists them all")

    def run_cell(self, group: Group, source: str) -> bool:
        """Run a cell on a group and show it; say whether it succeeded everywhere."""
        ok = self._runner.run(group, dedented(source))
        self.failed = not ok
        self.reader.variables |= bound_names(source) & self.reader.commands.keys()
        return ok

    def run_pieces(self, pieces: Iterable[Piece]) -> bool:
        """Run commands and Python in turn, up to the first that fails or leaves; say whether all succeeded."""
        with self._parser.as_script():
            for piece in pieces:
                self.failed = False
                if self.onecmd_plus_hooks(piece.text, add_to_history=False):
                    break
                if self.failed:
                    return False
        return True

    def onecmd(self, statement: Statement | str, *, add_to_history: bool = True) -> bool:
        """Run one command or cell; what the machinery meets is an error message, not the end of the shell."""
        try:
            return super().onecmd(statement, add_to_history=add_to_history)
        except PyrokernelError as error:
            self.fail(str(error))
        except Cmd2ArgparseError as error:
            # Also raised for --help, which is no failure.
            cause = error.__cause__
            self.failed = not (isinstance(cause, SystemExit) and cause.code == 0)
            raise
        return False

    def pexcept(self, exception: BaseException, **kwargs: Any) -> None:
        """Show an error in the shell itself; cmd2 calls this, for any exception of a command."""
        if isinstance(exception, BrokenPipeError):
            raise exception  # whoever reads our output went away: there is nobody to tell, and nothing to go on for
        self.failed = True
        super().pexcept(exception, **kwargs)

    def fail(self, text: str) -> None:
        """Say why a command failed."""
        self.failed = True
        self.perror(harmless(text))

    def notice(self, text: str) -> None:
        """Say something of the shell's own, beside what kernels say."""
        self.perror(harmless(text), style="dim")

    def write(self, stream: str, text: str) -> None:
        """Show what a kernel said, at once and, unless a terminal would obey it, as it is."""
        file = sys.stderr if stream == "stderr" else self.stdout
        if file.isatty():
            text = harmless(text)
            if os.environ.get("NO_COLOR"):
                text = _COLOUR.sub("", text)
        try:
            file.write(text)
        except UnicodeEncodeError:
            encoding = file.encoding or "ascii"
            file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print what a command found."""
        for line in lines:
            self.write("stdout", line + "\n")

    def ask(self, prompt: str, *, password: bool = False, afresh: bool = False) -> str:
        """Read an answer, at the terminal or from the next line of a script that is piped in."""
        if self.interactive:
            if afresh:
                # Keys wait in two places: in the terminal, and where prompt_toolkit keeps what its last prompt left.
                termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
                clear_typeahead(self.main_session.input)
            return self.read_secret(harmless(prompt)) if password else self.read_input(harmless(prompt))
        line = self.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def show_target(self) -> None:
        """Bring the prompt up to date."""
        self.prompt = f"{self.target.prompt}> "

    @property
    def greeting(self) -> str:
        """What newcomers need to know, in two lines."""
        group = self.target.group
        where = group.names[0] if len(group) == 1 else f"all of {label(group.names)}"
        return (
            f"Python runs on {where}. TAB completes, Ctrl-C interrupts, Ctrl-D leaves; kernels keep running.\n"
            "`use k0` chooses kernels, `on k0 EXPR` asks one of them, `ps` lists them, `help` lists all commands."
        )

    def do_exit(self, _: Statement) -> bool:
        """Leave the shell; the kernels stay."""
        return True

    def leave(self) -> None:
        """Say what stays running, and how to stop it."""
        mesh = self.target.mesh
        doctor, shell, stop = (command_line(mesh.settings, words) for words in ("doctor", "shell", "stop"))
        try:
            names = mesh.names
        except PyrokernelError:
            self.notice(f"the name server of mesh {mesh.settings.mesh!r} does not answer; `{doctor}` tells more")
            return
        if not names:
            self.notice(f"no kernel runs in mesh {mesh.settings.mesh!r}; `{stop}` ends its host")
            return
        verb, them = ("stays", "it") if len(names) == 1 else ("stay", "them")
        self.notice(f"{label(names)} {verb} running, with all variables: `{shell}` comes back, `{stop}` stops {them}")


def _in_margin() -> bool:
    """Whether the cursor stands where only an indent can come."""
    document = get_app().current_buffer.document
    return document.cursor_position_row > 0 and not document.current_line_before_cursor.strip()


def run_shell(settings: Settings, words: list[str], *, command: str | None = None, script: str | None = None) -> int:
    """Run the shell on a mesh that runs already, until its user leaves.

    Args:
        settings: Which mesh.
        words: The first group; none means all kernels.
        command: Run this text instead, and return.
        script: Run this file instead; "-" is standard input, as is input that is not a terminal.

    Returns:
        0; or 1 when a command or cell of `command`, `script` or piped input failed, which ends it.

    Raises:
        NameServerNotFoundError: No mesh runs.
        KernelNotFoundError: The words mean no kernel.
        BrokenPipeError: Nobody reads standard output any more; what runs goes on.
    """
    with connect(settings) as mesh:
        shell = Shell(mesh, words)
        if command is not None:
            return _run_lines(shell, textwrap.dedent(command).split("\n"))
        if script is not None and script != "-":
            try:
                text = Path(script).read_text(encoding="utf-8")
            except (OSError, UnicodeError) as error:
                shell.fail(f"cannot read {script}: {error}")
                return 1
            return _run_lines(shell, text.split("\n"))
        if script == "-" or not sys.stdin.isatty():
            return _run_lines(shell, sys.stdin)
        code = shell.cmdloop(shell.greeting)
        shell.leave()
        return code


def _run_lines(shell: Shell, lines: Iterable[str]) -> int:
    return 0 if shell.run_pieces(shell.reader.pieces(lines)) else 1
