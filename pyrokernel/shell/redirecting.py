"""Output of commands that goes to files, programs and pagers, where it may fail. Runs in the shell process."""

from __future__ import annotations

import shlex
import shutil
from typing import Any

import cmd2
from cmd2 import Statement
from cmd2.styles import Cmd2Style
from cmd2.utils import RedirectionSavedState


class Redirecting(cmd2.Cmd):
    """An application of cmd2 that knows when a line failed, and that others may be kept from files and programs.

    Attributes:
        failed: Whether the last command or cell failed.
        restricted: Serve others: without what touches this machine's files and processes.
    """

    failed = False
    restricted = False

    def perror(self, *objects: Any, style: Any = Cmd2Style.ERROR, **options: Any) -> None:
        """Print to standard error; cmd2 calls this too for what fails before or beside a command."""
        if style == Cmd2Style.ERROR:
            self.failed = True
        super().perror(*objects, style=style, **options)

    def onecmd(self, statement: Statement | str, *, add_to_history: bool = True) -> bool:
        """Run one command or cell, unless it would write a file that is not the user's."""
        if self.restricted and isinstance(statement, Statement) and statement.redirector:
            self.perror(f"`{statement.redirector}` is not in this shell, which is served to others: output stays here")
            return False
        return super().onecmd(statement, add_to_history=add_to_history)

    def _restore_output(self, statement: Statement, saved_redir_state: RedirectionSavedState) -> None:
        """Wait for the program that output went to, which cmd2 does here without a look at how it ended."""
        reader = self._cur_pipe_proc_reader if saved_redir_state.redirecting else None
        super()._restore_output(statement, saved_redir_state)
        code = reader._proc.returncode if reader else 0
        if code:
            self.failed = True
            self.perror(f"`{statement.redirect_to}` ended with code {code}", style="dim")

    def ppaged(self, *objects: Any, chop: bool = False, **kwargs: Any) -> None:
        """Print through a pager, which is a program that starts others."""
        if self.restricted:
            self.poutput(*objects, **kwargs)
        else:
            super().ppaged(*objects, chop=chop, **kwargs)

    @property
    def starts_pager(self) -> bool:
        """Whether there is a pager to start; $PAGER may be anything."""
        try:
            words = shlex.split(self.pager)
        except ValueError:  # a quotation mark is left open
            return False
        return not self.restricted and bool(words and shutil.which(words[0]))
