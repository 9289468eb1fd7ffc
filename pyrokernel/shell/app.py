"""The shell: a cmd2 application in which Python falls through to the current group. Runs in the shell process."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cmd2 import Statement
from cmd2.exceptions import Cmd2ArgparseError

from pyrokernel.client.group import Group
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import PyrokernelError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.shell.aliases import Aliases
from pyrokernel.shell.background import Background
from pyrokernel.shell.cells import CellCommands
from pyrokernel.shell.commands import KernelCommands
from pyrokernel.shell.contributed import ContributedCommands
from pyrokernel.shell.data import DataCommands
from pyrokernel.shell.editing import Editing
from pyrokernel.shell.extending import extend
from pyrokernel.shell.habits import HabitCommands
from pyrokernel.shell.here import Here
from pyrokernel.shell.hints import for_failure, for_unknown
from pyrokernel.shell.history import History, Unwritten
from pyrokernel.shell.house import House
from pyrokernel.shell.inspecting import InspectCommands
from pyrokernel.shell.jobs import JobCommands
from pyrokernel.shell.keys import set_up_prompt
from pyrokernel.shell.leaving import what_stays
from pyrokernel.shell.lending import ReferenceCommands
from pyrokernel.shell.local import HereCommands
from pyrokernel.shell.lookout import Lookout, View, look
from pyrokernel.shell.parser import Parser, Piece, SourceReader, Takes
from pyrokernel.shell.remote import Remote
from pyrokernel.shell.restricted import ignore_job_control
from pyrokernel.shell.runner import Runner
from pyrokernel.shell.shared import SharedCommands
from pyrokernel.shell.shipping import ShipCommands
from pyrokernel.shell.source import bound_names, dedented, in_background
from pyrokernel.shell.startup import run_startup, startup_file
from pyrokernel.shell.target import Target
from pyrokernel.shell.tour import TourCommands
from pyrokernel.shell.variables import look_up
from pyrokernel.texts import label, span


class Shell(House):
    """The application.

    Args:
        mesh: Whose kernels it reaches.
        words: The first group, as for `use`.
        restricted: Serve others: without what touches this machine's files and processes.

    Attributes:
        target: The current group.
        reader: Tells commands from Python.
        offers: By command, what completes the text after it: the `offer_` method beside its `do_` method.
        at_prompt: Whether lines are typed at its prompt; else they come from a script.
        left: Whether the last of some lines left the shell.
        runner, background: What runs cells, before the prompt and behind it.
        remote: The commands of kernels that are words of the shell.
        plugins: Those that this process has loaded for commands of the shell.
    """

    def __init__(self, mesh: Mesh, words: Iterable[str] = (), *, restricted: bool = False) -> None:
        self.at_prompt = self.left = False
        self.target = Target(mesh, words, tell=self._tell_change)
        self.reader = SourceReader()
        here = Here({"shared": lambda: mesh.shared})
        command_sets = [
            KernelCommands(),
            CellCommands(),
            InspectCommands(),
            HabitCommands(),
            HereCommands(here),
            DataCommands(here),
            SharedCommands(),
            JobCommands(here),
            TourCommands(),
            ShipCommands(),
            ContributedCommands(),
            ReferenceCommands(),
        ]
        past = Unwritten() if restricted else History(mesh.settings.mesh_state_dir / "shell-history")
        super().__init__(command_sets, past, restricted=restricted)
        self.take_in(Aliases(self).do_alias)
        self.take_in(Editing(self).do_edit)
        self.plugins = extend(self, mesh.settings)
        # _eof is what cmd2 makes of Ctrl-D.
        self.reader.commands = {
            name: getattr(self.get_command_func(name), "takes", Takes.WORDS)
            for name in [*self.get_visible_commands(), "_eof"]
        } | dict.fromkeys(self.refused, Takes.TEXT)
        self.offers = {
            name: offer
            for name in self.reader.commands
            if (offer := getattr(getattr(self.get_command_func(name), "__self__", None), f"offer_{name}", None))
        }
        self.statement_parser = self._parser = Parser(self.reader)
        self.continuation_prompt = "... "
        self.runner = Runner(self)
        self.background = Background(self.runner)
        self.remote = Remote(self)
        self.reader.learn = self.remote.learn_for
        set_up_prompt(self, past)
        self._lookout = Lookout(self._look, self._take_view)
        self.show_target()

    def do__python(self, statement: Statement) -> bool:
        """Run Python on the current group; commands that were pasted between its lines are run in their turn."""
        pieces = self.reader.split(str(statement))
        if len(pieces) > 1:
            self.run_pieces(pieces)
            return self.left
        hint = self.reader.shadowed(str(statement))
        if hint and self.interactive:
            self.notice(f"`{hint}` is a variable here; `:{hint}` is the command")
        self.last_result = self.run_on_target(str(statement))
        return False

    def run_on_target(self, source: str, **options: Any) -> bool:
        """Run a cell on the current group, as it is now; say whether it succeeded everywhere.

        Where it would meet an empty namespace unawares, that is told instead; options as `Runner.run`.
        """
        changed = self.target.refresh()
        self.show_target()
        if changed:
            self.reader.variables.clear()
            others = len(changed) < len(self.target.group)
            again = "nothing ran on the others either, repeat the line" if others else "repeat the line to run it there"
            self.fail(f"{label(changed)}: restarted since the last cell, variables are gone; {again}")
            return False
        ok = self.run_cell(self.target.group, source, **options)
        self.target.settle()
        self.show_target()
        return ok

    def do__unknown(self, statement: Statement) -> None:
        """Say that there is no such command."""
        self.fail(for_unknown(statement.raw, self.reader.commands))

    def run_cell(self, group: Group, source: str, **options: Any) -> bool:
        """Run a cell on a group and show it; say whether it succeeded everywhere. With a trailing `&`, only send it.

        Args:
            group: The kernels.
            source: Python source.
            options: As `Runner.run`.
        """
        behind = in_background(source)
        if behind:
            source = behind
            job = self.background.start(group, dedented(source), **options)
            if self.at_prompt:
                self.notice(job.announce())
        begun = time.monotonic()
        ok = bool(behind) or self.runner.run(group, dedented(source), **options)
        if not behind and self.runner.died:
            self.target.settle()  # what was told of need not be told again before the next cell
        if self.times_cells and not behind:
            self.notice(f"took {span(time.monotonic() - begun)}")
        self.failed = not ok
        words = self.reader.commands.keys() - self.remote.words.keys()
        hint = "" if ok or not self.at_prompt else for_failure(source, self.runner.outcomes.values(), words)
        if hint:
            self.notice(hint)
        self.reader.variables |= bound_names(source) & self.reader.commands.keys()
        return ok

    def run_pieces(self, pieces: Iterable[Piece]) -> bool:
        """Run commands and Python in turn, up to the first that fails or leaves; say whether all succeeded."""
        with self._parser.as_script():
            for piece in pieces:
                self.failed = False
                self.left = self.onecmd_plus_hooks(piece.text, add_to_history=False)
                if self.left:
                    break
                if self.failed:
                    return False
        return True

    def run_line(self, text: str) -> bool:
        """Run a line or block that a command made; say whether it leaves the shell."""
        self.left = False
        self.run_pieces([Piece(text)])
        return self.left

    def onecmd_plus_hooks(self, line: str, **options: Any) -> bool:
        """Run a line, after it was found out whether its first word is a variable in the kernels."""
        with self.sigint_protection:
            self.remote.learn_for(line)
            look_up(line, self.reader, self.target.group)
        return super().onecmd_plus_hooks(line, **options)

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

    def show_target(self) -> None:
        """Bring the prompt up to date with what is known without asking anybody."""
        self.prompt = f"{View(self.target.group.names).prompt}> "
        self.remote.settle()

    def pre_prompt(self) -> None:
        """Begin to look at the kernels; cmd2 calls this when the prompt waits."""
        self._lookout.resume()

    def precmd(self, statement: Statement | str) -> Statement:
        """Stop looking at the kernels; cmd2 calls this when a line was entered."""
        self.failed = False
        self._lookout.pause()
        return super().precmd(statement)

    def tell(self, text: str) -> None:
        """Show lines above the prompt; what they tell of may have changed what the prompt says."""
        super().tell(text)
        self._lookout.look_again()

    def _tell_change(self, sentence: str) -> None:
        """Say who joined or left the group, before anything is sent to it."""
        self.notice(sentence)
        self.show_target()

    def _take_view(self, view: View) -> None:
        """Have the prompt say what was seen; the thread that looks calls this."""
        self.remote.settle()
        self.add_alert(prompt=f"{view.prompt}> ")

    def _look(self) -> View:
        """Look at the kernels, and ask those whose commands have changed."""
        view = look(self.target)
        self.remote.follow(self.target.group, view.revisions)
        return view

    def learn_words(self) -> None:
        """Find out which commands the kernels have, if nobody has asked them yet."""
        self.remote.learn(self.target.group)

    def usage_of(self, name: str) -> str:
        """Return what the parser of a command says of its arguments; "" when it has none."""
        return self.remote.help_of(name) or super().usage_of(name)

    def preloop(self) -> None:
        """Say what is amiss before the first line is typed; cmd2 calls this."""
        super().preloop()
        with contextlib.suppress(PyrokernelError, OSError):  # a host that is away is told of where it is missed
            user, role = self.target.mesh.me()
            if role is Role.OBSERVER:
                self.notice(f"you are {user}, an observer: you look, complete and follow; what runs code is refused")
        for problem in self.plugins.problems:
            self.notice(f"{problem}; `plugins` tells more")

    @property
    def greeting(self) -> str:
        """What newcomers need to know, in two lines."""
        group = self.target.group
        where = group.names[0] if len(group) == 1 else f"all of {label(group.names)}"
        return (
            f"Python runs on {where}. TAB completes, Ctrl-C interrupts, Ctrl-D leaves; kernels keep running.\n"
            "`use k0` chooses kernels, `on k0 EXPR` asks one, `ps` lists them; `help` lists commands, `tour` teaches."
        )

    def leave(self) -> None:
        """Say what stays running, and how to stop it."""
        self._lookout.close()
        for sentence in what_stays(self.target.mesh, restricted=self.restricted):
            self.notice(sentence)


def run_shell(
    settings: Settings,
    words: list[str],
    *,
    command: str | None = None,
    script: str | None = None,
    restricted: bool = False,
    startup: bool = True,
) -> int:
    """Run the shell on a mesh that runs already, until its user leaves.

    Args:
        settings: Which mesh.
        words: The first group; none means all kernels.
        command: Run this text instead, and return.
        script: Run this file instead; "-" is standard input, as is input that is not a terminal.
        restricted: Serve others: without what touches this machine's files and processes.
        startup: Run the startup file before the first prompt, if there is one; a restricted shell never does.

    Returns:
        0; or 1 when a command or cell of `command`, `script` or piped input failed, which ends it.

    Raises:
        NameServerNotFoundError: No mesh runs.
        KernelNotFoundError: The words mean no kernel.
        BrokenPipeError: Nobody reads standard output any more; what runs goes on.
    """
    with connect(settings) as mesh:
        shell = Shell(mesh, words, restricted=restricted)
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
        shell.at_prompt = True
        shell.background.tell = shell.tell
        if restricted:
            ignore_job_control()
        elif startup and run_startup(shell, startup_file(settings), wanted=bool(settings.shell_startup)):
            shell.leave()
            return shell.exit_code
        shell.reader.learn = None  # from here on lines are typed, and what kernels have comes by the lookout
        code = shell.cmdloop(shell.fitted(shell.greeting))
        shell.leave()
        return code


def _run_lines(shell: Shell, lines: Iterable[str]) -> int:
    ok = shell.run_pieces(shell.reader.pieces(lines))
    if ok:
        finished = shell.background.finish()
        return shell.exit_code or (0 if finished else 1)  # which `here exit(3)` sets
    for job in shell.background.jobs:
        shell.notice(f"{job.announce()}: not waited for; `cells` tells how it went")
    return 1
