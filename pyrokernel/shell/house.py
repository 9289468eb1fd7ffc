"""What cmd2 brings, made to fit: output, help, settings, history, and what is left out. Runs in the shell process."""

from __future__ import annotations

import argparse
import codecs
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from cmd2 import Choices, Cmd2ArgumentParser, CommandSet, Completions, Settable, Statement, with_argparser
from prompt_toolkit.input.typeahead import clear_typeahead

from pyrokernel.controls import COLOUR, harmless
from pyrokernel.shell.asking import given_up
from pyrokernel.shell.cut import MAX_LINES, RESULT_LINES
from pyrokernel.shell.helping import details, overview, wrap
from pyrokernel.shell.history import ALL, History, Unwritten, found, numbers, positive
from pyrokernel.shell.parser import PYTHON, UNKNOWN
from pyrokernel.shell.pictures import draw
from pyrokernel.shell.redirecting import Redirecting
from pyrokernel.shell.restricted import admit, is_local, refusal

_LEFT_OUT = (
    "alias", "edit", "macro", "run_pyscript", "run_script", "shell", "shortcuts", "_relative_run_script",
)  # fmt: skip
"""Commands of cmd2 that act on the machine of the shell instead of the kernels, or rewrite lines before parsing."""

_HISTORY_SHOWN = 30
_LEAST_WIDTH = 20
_NO_TERMINAL = 100
_MAX_STATUS = 255


class House(Redirecting):
    """An application of cmd2 in which nothing surprises whoever types Python.

    Args:
        command_sets: Its commands, besides those about the shell itself.
        past: Lines typed before.
        restricted: Serve others: without what touches this machine's files and processes.

    Attributes:
        at_prompt: Whether lines are typed at its prompt; else they come from a script.
        refused: Commands that a restricted shell knows by name only.
        lines, result_lines: How many lines of a cell's output and of its result are shown.
        times_cells: Whether to say how long each cell took.
    """

    DEFAULT_CATEGORY = "Shell"

    at_prompt = False

    def __init__(
        self, command_sets: Iterable[CommandSet[Any]], past: History | Unwritten, *, restricted: bool = False
    ) -> None:
        self.past = past
        self.restricted = restricted
        self.refused: set[str] = set()
        self.lines = MAX_LINES
        self.result_lines = RESULT_LINES
        self.times_cells = False
        if restricted:
            command_sets, self.refused = admit(command_sets)
        super().__init__(
            allow_cli_args=False,
            allow_clipboard=not restricted,
            allow_redirection=not restricted,
            shortcuts={},
            terminators=[],
            command_sets=command_sets,
        )
        self.pager = os.environ.get("PAGER") or self.pager
        for name in _LEFT_OUT:
            # The way in which cmd2 itself leaves out `py` and `ipy`.
            setattr(self, f"do_{name}", None)
        self.hidden_commands += [PYTHON, UNKNOWN]
        for name in self.refused:
            self._refuse(name)

    def take_in(self, command: Callable[[Statement], Any], name: str = "") -> None:
        """Take in a command that cmd2 has a word of its own for, or that appears while the shell runs.

        Args:
            command: What runs, such as a `do_` method.
            name: Of the command; "" for what follows the `do_`.
        """
        name = name or command.__name__.removeprefix("do_")
        if self.restricted and is_local(command):
            self.refuse(name)
        else:
            setattr(self, f"do_{name}", command)

    def replace_remote(
        self,
        gone: Iterable[str],
        commands: Mapping[str, Callable[[Statement], Any]],
        complete: Callable[[str], Callable[[str, str, int, int], Completions]],
    ) -> None:
        """Bring the commands of kernels up to date.

        Args:
            gone: Names of those that are no more.
            commands: By name, what runs.
            complete: Returns what completes the words of a command.
        """
        for name, command in commands.items():
            setattr(self, f"do_{name}", command)
            setattr(self, f"complete_{name}", complete(name))
        for name in gone:
            delattr(self, f"do_{name}")
            delattr(self, f"complete_{name}")

    def refuse(self, name: str) -> None:
        """Know a command by name only."""
        self.refused.add(name)
        self._refuse(name)

    def _refuse(self, name: str) -> None:
        setattr(self, f"do_{name}", refusal(name, self.fail))
        setattr(self, f"complete_{name}", None)
        self.hidden_commands.append(name)

    def build_settables(self) -> None:
        """Offer what means something here; cmd2 calls this."""
        self.add_settable(Settable("lines", positive, "how many lines of a cell's output are shown, then a cut", self))
        self.add_settable(Settable("result_lines", positive, "how many lines of a result are shown, then a cut", self))
        self.add_settable(
            Settable("timing", bool, "say after each cell how long it took", self, settable_attrib_name="times_cells")
        )

    @property
    def interactive(self) -> bool:
        """Whether a person types at a terminal."""
        return self._is_tty_session(self.main_session)

    @property
    def width(self) -> int:
        """How many columns there are for text."""
        return max(_LEAST_WIDTH, shutil.get_terminal_size((_NO_TERMINAL, 24)).columns)

    def onecmd_plus_hooks(self, line: str, **options: Any) -> bool:
        """Run a line, unless it could not travel: a paste may bring bytes of another encoding."""
        try:
            line.encode()
        except UnicodeEncodeError:
            encoding = codecs.lookup(getattr(self.stdin, "encoding", None) or "utf-8").name
            why = "the line is not valid UTF-8, where it shows ? in place of a character"
            if encoding != "utf-8":
                why = f"the locale takes {encoding.upper()} only; start the shell with LC_ALL=C.UTF-8"
            self.fail(f"nothing ran: {why}")
            return False
        return super().onecmd_plus_hooks(line, **options)

    def preloop(self) -> None:
        """Say what is amiss before the first line is typed; cmd2 calls this."""
        if self.past.problem:
            self.notice(self.past.problem)

    def path_complete(self, *args: Any, **kwargs: Any) -> Completions:
        """Complete a file of this machine."""
        return Completions() if self.restricted else super().path_complete(*args, **kwargs)

    def shell_cmd_complete(self, *args: Any, **kwargs: Any) -> Completions:
        """Complete a program of this machine."""
        return Completions() if self.restricted else super().shell_cmd_complete(*args, **kwargs)

    def pexcept(self, exception: BaseException, **kwargs: Any) -> None:
        """Show an error in the shell itself; cmd2 calls this, for any exception of a command."""
        if isinstance(exception, BrokenPipeError):
            raise exception  # whoever reads our output went away: there is nobody to tell, and nothing to go on for
        self.failed = True
        super().pexcept(exception, **kwargs)

    def fail(self, text: str) -> None:
        """Say why a command failed."""
        self.perror(self.fitted(text, sys.stderr))

    def notice(self, text: str) -> None:
        """Say something of the shell's own, beside what kernels say."""
        self.perror(self.fitted(text, sys.stderr), style="dim")

    def tell(self, text: str) -> None:
        """Show lines above the prompt, also above a half-typed line; any thread may call this."""
        self.add_alert(msg=self.fitted(text))

    def fitted(self, text: str, file: TextIO | None = None) -> str:
        """Return a text that a terminal neither obeys nor breaks amid words.

        Args:
            text: What the shell says.
            file: Where; None for standard output.
        """
        text = harmless(text)
        if not (file or self.stdout).isatty():
            return text
        return "\n".join(part for line in text.split("\n") for part in wrap(line, self.width))

    def write(self, stream: str, text: str) -> None:
        """Show what a kernel said, at once and, unless a terminal would obey it, as it is."""
        file = sys.stderr if stream == "stderr" else self.stdout
        if file.isatty():
            text = harmless(text, backspace=True)
            if os.environ.get("NO_COLOR"):
                text = COLOUR.sub("", text)
        try:
            file.write(text)
        except UnicodeEncodeError:
            encoding = file.encoding or "ascii"
            file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()

    def draw(self, path: str) -> None:
        """Show a picture in a terminal that can; a shell for others reads no file of this machine."""
        if self.interactive and not self.restricted and self.stdout.isatty():
            self.stdout.write(draw(path, os.environ))
            self.stdout.flush()

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print what a command found."""
        for line in lines:
            # A backspace is for bars only, which kernels draw.
            self.write("stdout", (harmless(line) if self.stdout.isatty() else line) + "\n")

    @property
    def has_pager(self) -> bool:
        """Whether what is longer than the screen can be shown screen by screen; a pager starts programs."""
        return self.at_prompt and self.interactive and self.stdout.isatty() and self.starts_pager

    def page(self, text: str) -> None:
        """Print a text, screen by screen if it is longer than that."""
        rows = sum(max(1, -(-len(line) // self.width)) for line in text.split("\n"))
        if self.has_pager and rows >= shutil.get_terminal_size().lines:
            self.ppaged(harmless(text))
        elif text:
            self.print_lines([text])

    def ask(
        self, prompt: str, *, password: bool = False, afresh: bool = False, until: threading.Event | None = None
    ) -> str:
        """Read an answer, at the terminal or from the next line of a script that is piped in."""
        if self.interactive:
            if afresh:
                # Keys wait in two places: in the terminal, and where prompt_toolkit keeps what its last prompt left.
                _forget_keys()
                clear_typeahead(self.main_session.input)
            with given_up(until, lambda: self.active_session.app):
                return self.read_secret(harmless(prompt)) if password else self.read_input(harmless(prompt))
        line = self.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def command_words(self) -> Choices:
        """Return what `help` knows."""
        return Choices.from_values(self.get_visible_commands())

    @staticmethod
    def _help_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="List all commands by subject, or say what one does.")
        parser.add_argument("command", nargs="?", help="which", choices_provider=House.command_words)
        return parser

    @with_argparser(lambda: House._help_parser())
    def do_help(self, args: argparse.Namespace) -> None:
        """List all commands by subject, or say what one does."""
        name = (args.command or "").lstrip(":%")
        self.learn_words()
        if not name:
            self.page("\n".join(overview(self._subjects(), self.width)))
        elif name in self.refused:
            refusal(name, self.fail)(Statement(""))
        elif name not in self.get_visible_commands():
            self.fail(f"there is no command {name!r}; `help` lists them all")
        else:
            function = self.get_command_func(name)
            assert function is not None  # it is visible
            self.page("\n".join(details(name, function.__doc__ or "", self.usage_of(name), self.width)))

    def learn_words(self) -> None:
        """Find out which commands there are that are not the shell's own."""

    def usage_of(self, name: str) -> str:
        """Return what the parser of a command says of its arguments; "" when it has none."""
        function = self.get_command_func(name)
        parser = self.command_parsers.get(function) if function else None
        return parser.format_help() if parser else ""

    def _subjects(self) -> dict[str, dict[str, str]]:
        """Return the docstrings of all commands by subject and name."""
        subjects: dict[str, dict[str, str]] = {}
        for name in self.get_visible_commands():
            function = self.get_command_func(name)
            owner = getattr(function, "__self__", None)
            subject = getattr(owner, "DEFAULT_CATEGORY", "Aliases")
            subjects.setdefault(subject, {})[name] = function.__doc__ or ""
        return subjects

    @staticmethod
    def _history_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Show lines typed before, in this shell and earlier ones.")
        parser.add_argument("range", nargs="?", type=numbers, metavar="N or N-M", help="only those of such numbers")
        parser.add_argument("-s", "-g", "--search", default="", metavar="TEXT", help="only those that have it")
        parser.add_argument(
            "-n", "--number", type=positive, metavar="LINES", help=f"how many (default: {_HISTORY_SHOWN})"
        )
        return parser

    @with_argparser(lambda: House._history_parser())
    def do_history(self, args: argparse.Namespace) -> None:
        """Show lines typed before, in this shell and earlier ones."""
        limit = args.number or (None if args.range else _HISTORY_SHOWN)
        # The line that searches has what it searches for.
        own = self.past.last if args.search else ""
        lines = found(self.past.load_history_strings(), args.search, limit, args.range or ALL, own)
        nothing = "nothing was typed yet" if args.range is None else "there are no such lines"
        self.print_lines(lines or [f"no line has {args.search!r}" if args.search else nothing])
        self.last_result = lines

    def do_exit(self, line: Statement | str) -> bool:
        """Leave the shell; the kernels stay. With a number that is the exit status of the shell."""
        if line:
            if not line.isdecimal() or int(line) > _MAX_STATUS:
                self.fail(f"an exit status is a number up to {_MAX_STATUS}; `exit` alone is 0")
                return False
            self.exit_code = int(line)
        return True

    def do_quit(self, line: Statement | str) -> bool:
        """Leave the shell; the kernels stay. With a number that is the exit status of the shell."""
        return self.do_exit(line)


def _forget_keys() -> None:
    """Have the terminal forget what was typed and not read yet."""
    try:
        import termios
    except ImportError:  # Windows
        import msvcrt

        while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]  # Windows only
            msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]  # Windows only
    else:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
