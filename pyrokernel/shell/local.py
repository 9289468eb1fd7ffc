"""What commands share that run code on the machine of the shell, and the first of them. Runs in the shell process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from cmd2 import CommandSet, Statement

from pyrokernel.shell.completer import ANSWER_SECONDS, merge
from pyrokernel.shell.cut import cut_text
from pyrokernel.shell.here import Here, Offers, Outcome, described
from pyrokernel.shell.parser import Takes, takes
from pyrokernel.shell.variables import is_variable
from pyrokernel.texts import table

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_ASK_SECONDS = 0.8 * ANSWER_SECONDS
"""For an answer to Tab, what the kernels get: those that answered are shown, though another holds on."""


class LocalCommands(CommandSet["Shell"]):
    """Commands that evaluate or unpickle in the process of the shell.

    Args:
        here: The Python that data comes from and lands in.

    Attributes:
        LOCAL: A shell for others goes without them.
    """

    DEFAULT_CATEGORY = "Data"
    LOCAL: ClassVar[bool] = True

    def __init__(self, here: Here) -> None:
        super().__init__()
        self._here = here

    def _failed(self, outcome: Outcome) -> bool:
        """Show the traceback of an outcome, if it has one, and where the variable is that it misses; say whether."""
        if outcome.error:
            self._cmd.failed = True
            self._cmd.write("stderr", self._in_short(outcome.error, "here import traceback; traceback.print_last()"))
            name = outcome.unknown
            if name and is_variable(name, self._cmd.target.group):
                self._cmd.notice(
                    f"`{name}` is a variable of the kernels, not here: `pull {name}` first, or `here {name} = ...`"
                )
        return bool(outcome.error)

    def _in_short(self, text: str, line: str) -> str:
        """Cut a giant for a person at the terminal.

        Args:
            text: What to show.
            line: What shows all of it.
        """
        return cut_text(text, f"`{line}` shows all") if self._cmd.interactive else text

    def _land(self, name: str, value: Any, lines: Iterable[str] | None = None, *, about: str = "") -> None:
        """Set a variable of the shell's own Python, show it in short, and tell a person where it is."""
        from pyrokernel.kernel.summaries import summary  # late, as in `here`

        self._here.namespace[name] = value
        self._cmd.last_result = value
        self._cmd.print_lines(lines if lines is not None else [summary(value)])
        if self._cmd.interactive:
            self._cmd.notice(f"here: {name} ({described(value)}{about})")

    def _on_kernels(self, text: str) -> Offers:
        """Ask the kernels of the group what a text could become."""
        return merge(self._cmd.target.group.complete(text, timeout=_ASK_SECONDS))


class HereCommands(LocalCommands):
    """Run Python in the shell's own process."""

    @takes(Takes.PYTHON)
    def do_here(self, statement: Statement) -> None:
        """Run Python in the shell's own process: here SOURCE. Without SOURCE, list the variables there.

        That is where `gather` and `pull` put what they bring, and where `scatter`, `push` and `map` take from.
        """
        source = str(statement)
        if source.strip():
            try:
                outcome = self._here.run(source)
            except SystemExit as left:
                if left.code is None or isinstance(left.code, int):
                    raise
                self._cmd.fail(str(left.code))  # as Python itself
                raise SystemExit(1) from None
            if not self._failed(outcome) and outcome.shown:
                self._cmd.print_lines([self._in_short(outcome.shown, "here print(_)")])
            self._cmd.last_result = outcome.value
            return
        rows = [(found["name"], found["type"], found["summary"]) for found in self._here.variables()]
        self._cmd.print_lines([table(("NAME", "TYPE", "VALUE"), rows) if rows else "no variables here"])
        self._cmd.last_result = [name for name, _, _ in rows]

    def offer_here(self, text: str) -> Offers:
        """Complete the Python after the command."""
        return self._here.offer(text)
