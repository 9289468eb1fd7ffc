"""An argument parser whose errors are one line that says what to do. Runs in the caller's process."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeAlias

from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import complain
from pyrokernel.settings import parse_span

COMMAND = "subcommand"
"""Where the parsed arguments have the name of the command."""

ACTION = "command_of_command"
"""Where they have what follows the name of a command that has commands of its own."""

_BEFORE = "before_"
_REPEATED = (
    ("no_plugin", "NAME", "go without this plugin, here and in the kernels of a host that is started"),
    ("plugins_dir", "DIR", "folder whose modules named pyrokernel_* are plugins, likewise"),
)
"""Options that add to what is configured: name, what they take, help."""


_BEFORE_NAME = ("-k", "--kernels", "--json", "--timeout", "--mesh", "-v", "--verbose")
"""Options of `call` that somebody may write behind the name of a command of kernels."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, suggests what may be meant, and names the help to read.

    Attributes:
        leaves_rest: All that follows its first word is for somebody else, and becomes `arguments` as it is.
    """

    leaves_rest = False

    def error(self, message: str) -> NoReturn:
        """End with a line on standard error."""
        complain(f"{message}; see `{self.prog} --help`")
        self.exit(ExitCode.USAGE)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a whole command line; what nobody knows is the command's error, not that of the whole."""
        words = list(sys.argv[1:] if args is None else args)
        rest: list[str] | None = None
        place = self.first_word(words)
        if place >= 0 and (command := self.commands().get(words[place])) and command.leaves_rest:
            last = command.first_word(words, place + 1)
            if last >= 0:
                words, rest = words[: last + 1], words[last + 1 :]
        found, unknown = self.parse_known_args(words, namespace)
        merge(found)
        if rest is not None:
            found.arguments = rest
        if unknown:
            command = self.commands().get(getattr(found, COMMAND, None), self)
            command = command.commands().get(getattr(found, ACTION, None), command)
            word = unknown[0]
            if word.startswith("-"):
                known = [option for option in command._option_string_actions if option.startswith("--")]
                if "--mesh" not in known and word in _BEFORE_NAME:
                    command.error(f"{word} stands before the name of the command, behind which all is its own")
                command.error(f"there is no option {word}{_suggest(word.partition('=')[0], known)}")
            options = [option for option in command._option_string_actions if option.startswith("--")]
            # Only of a command of kernels: its arguments that have defaults are options.
            named = [] if "--mesh" in options else [option for option in options if option != "--help"]
            by_name = f"; it takes {', '.join(named[:6])} by name" if named else ""
            command.error(f"{word!r} is one argument too many{by_name}")
        return found

    def commands(self) -> dict[Any, Parser]:
        """Return the commands by name, {} for a parser that has none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}

    def first_word(self, words: Sequence[str], start: int = 0) -> int:
        """Return the place of the first word that is no option, nor what one takes; -1 when there is none.

        `argparse` itself looks for options in the whole line first, also in what is not meant for it.
        """
        place = start
        while place < len(words):
            word = words[place]
            if word == "-" or not word.startswith("-"):
                return place
            place += 1
            if word == "--":
                return place if place < len(words) else -1
            if word.startswith("--"):
                known = self._option_string_actions
                near = [word] if word in known else [option for option in known if option.startswith(word)]
                action = known[near[0]] if near else None
            else:
                action = self._option_string_actions.get(word)
            if action is not None and action.nargs is None and "=" not in word:
                place += 1
        return -1

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse an unknown command in our words; all other choices in those of `argparse`."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            hint = _suggest(value, action.choices) or f"; the commands are {', '.join(action.choices)}"
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")
        super()._check_value(action, value)


def add_common(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Add the options that may stand before or after the command.

    Args:
        parser: Of a command, or of the whole.
        top: It is that of the whole.
    """

    def default(value: object) -> object:
        # A command that is not given an option must not undo what stood before it.
        return value if top else argparse.SUPPRESS

    group = parser.add_argument_group("which mesh")
    group.add_argument("--mesh", metavar="NAME", default=default(None), help="name of the mesh")
    group.add_argument(
        "--ns",
        metavar="ADDRESS",
        default=default(None),
        help='name server: "./u:PATH", or "HOST:PORT", beyond loopback by TLS',
    )
    group.add_argument("--config", metavar="FILE", default=default(None), help="configuration file (TOML)")
    group.add_argument(
        "-v", "--verbose", action="count", default=default(0), help="log what happens; -vv also shows tracebacks"
    )
    for name, metavar, text in _REPEATED:
        group.add_argument(
            f"--{name.replace('_', '-')}",
            action="append",
            metavar=metavar,
            # What stands before the command is kept apart: the parser of the command begins a list of its own.
            dest=_BEFORE + name if top else name,
            default=default(None),
            help=f"{text} (may be repeated)",
        )


Actions: TypeAlias = "argparse._SubParsersAction[Parser]"


def begin_actions(parser: Parser) -> Actions:
    """Begin the subcommands of a command, which alone shows its help."""

    def show_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return ExitCode.USAGE

    parser.set_defaults(target=show_help)
    return parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", dest=ACTION, help="one of these:")


def add_action(actions: Actions, name: str, target: str, text: str, more: str | None = None) -> Parser:
    """Add a subcommand: how it is called, module and function of `front`, what it does, what its help says below."""
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=more)
    parser.set_defaults(target=target)
    return parser


def merge(found: argparse.Namespace) -> None:
    """Bring together what was repeated before the command and after it."""
    for name, _, _ in _REPEATED:
        given = [*(getattr(found, _BEFORE + name, None) or ()), *(getattr(found, name, None) or ())]
        setattr(found, name, given or None)


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


def moment(text: str) -> float:
    """Read a moment of the past, how long ago or a date; return it as Unix time."""
    try:
        return time.time() - parse_span(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()  # local unless it says otherwise, as times are shown
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: how long ago, such as 90, 30m or 2h, or when, such as 2026-01-31 or 2026-01-31T14:05"
        ) from error


def _suggest(word: str, known: Iterable[str]) -> str:
    import difflib  # only for who mistyped

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
