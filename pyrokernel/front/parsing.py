"""An argument parser whose errors are one line that says what to do. Runs in the caller's process."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import complain
from pyrokernel.settings import parse_span

COMMAND = "subcommand"
"""Where the parsed arguments have the name of the command."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, suggests what may be meant, and names the help to read."""

    def error(self, message: str) -> NoReturn:
        """End with a line on standard error."""
        complain(f"{message}; see `{self.prog} --help`")
        self.exit(ExitCode.USAGE)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a whole command line; what nobody knows is the command's error, not that of the whole."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = self._commands().get(getattr(found, COMMAND, None), self)
            word = unknown[0]
            if word.startswith("-"):
                known = [option for option in command._option_string_actions if option.startswith("--")]
                command.error(f"there is no option {word}{_suggest(word.partition('=')[0], known)}")
            command.error(f"{word!r} is one argument too many")
        return found

    def _commands(self) -> dict[Any, Parser]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse an unknown command in our words; all other choices in those of `argparse`."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            hint = _suggest(value, action.choices) or f"; the commands are {', '.join(action.choices)}"
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")
        super()._check_value(action, value)


def count(text: str) -> int:
    """Read a number that counts something."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def seconds(text: str) -> float:
    """Read a length of time."""
    try:
        return parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _suggest(word: str, known: Iterable[str]) -> str:
    import difflib  # only for who mistyped

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
