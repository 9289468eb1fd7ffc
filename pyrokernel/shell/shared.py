"""`shared`: keys of the shared state at the prompt, their past, locks, writes as they come. Runs in the shell process.

Values are set by Python in the kernels, `shared.m["x"] = 1`, which the parser tells from the command.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cmd2 import Cmd2ArgumentParser, CommandSet, Statement, with_argparser

from pyrokernel.client.shared_map import keys_of
from pyrokernel.client.state_texts import (
    LISTED,
    describe_change,
    describe_undo,
    format_entries,
    format_history,
    format_locks,
    format_spaces,
    key_text,
    list_entries,
)
from pyrokernel.shell.cut import cut_text
from pyrokernel.shell.here import Offers
from pyrokernel.shell.restricted import refusal
from pyrokernel.texts import plural

if TYPE_CHECKING:
    from pyrokernel.client.shared import Shared  # the prompt does not wait for what few lines need
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_OFFERED = 200
_ANY = 1_000_000
_ACTIONS = {
    "get": (1, 1),
    "history": (1, 1),
    "undo": (1, 1),
    "diff": (1, 3),
    "rm": (1, _ANY),
    "locks": (0, 0),
    "watch": (0, 1),
    "spaces": (0, 0),
    "backup": (0, 1),
}
"""Words that say what to do, and how many words follow at least and at most."""

_OF_KEYS = ("get", "history", "undo", "diff", "rm", "watch")
_LOADING = ("get", "diff", "backup")
"""What loads values in this process, which may run code of theirs, or writes files of this machine."""

_DESCRIPTION = (
    "List the keys of the shared state: all, with `PREFIX*` those that begin so, with KEY that one. Or: get KEY, "
    "history KEY, undo KEY, diff KEY [OLD [NEW]], rm KEY ..., locks, watch [PREFIX], spaces, backup [NAME]. A value "
    'is set by Python, in the kernels: shared.m["KEY"] = VALUE'
)


class SharedCommands(CommandSet["Shell"]):
    """Look at the shared state, and go back in its history."""

    DEFAULT_CATEGORY = "Data"

    @staticmethod
    def _shared_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description=_DESCRIPTION)
        parser.add_argument("words", nargs="*", metavar="WORD", help="what to do, as above, or which keys to list")
        parser.add_argument("-s", "--space", default="", metavar="NAME", help="namespace (default: the common one)")
        parser.add_argument(
            "-n", "--number", type=int, default=LISTED, metavar="N", help=f"how many rows (default: {LISTED})"
        )
        return parser

    @with_argparser(lambda: SharedCommands._shared_parser())
    def do_shared(self, args: argparse.Namespace) -> None:
        """List the keys of the shared state, or look at one: shared, shared cal/*, shared history KEY."""
        shared = self._space(args.space)
        action, *rest = args.words or [""]
        limit = max(1, args.number)
        if action not in _ACTIONS:
            if rest:
                self._cmd.fail(f"usage: shared [PREFIX*], or shared {'|'.join(_ACTIONS)} ...; `help shared` tells more")
                return
            self._list(shared, action, limit)
            return
        least, most = _ACTIONS[action]
        if not least <= len(rest) <= most:
            self._cmd.fail(f"usage: {_usage(action)}")
        elif self._cmd.restricted and action in _LOADING:
            refusal(f"shared {action}", self._cmd.fail)(Statement(""))
        elif action == "history":
            self._history(shared, rest[0], limit)
        else:
            methods: dict[str, Callable[[Shared, Sequence[str]], None]] = {
                "get": self._get,
                "undo": self._undo,
                "diff": self._diff,
                "rm": self._remove,
                "locks": self._locks,
                "watch": self._watch,
                "spaces": self._spaces,
                "backup": self._backup,
            }
            methods[action](shared, rest)

    def _space(self, space: str) -> Shared:
        common = self._cmd.target.mesh.shared
        return common[space] if space else common

    def _list(self, shared: Shared, word: str, limit: int) -> None:
        prefix = word.removesuffix("*")
        if word == prefix and word:
            found, more = [entry for entry in shared.entries(word, limit=1) if entry.key == word], ""
            if not found:
                self._cmd.fail(f"there is no key {key_text(word)}; `shared {word}*` lists those that begin so")
        else:
            found, more = list_entries(shared, prefix, limit)
            if not found:
                what = f"no key begins {key_text(prefix)}" if prefix else 'no keys; shared.m["x"] = 1 sets one'
                others = [name or "the common one" for name in shared.spaces() if name != shared.space]
                self._cmd.print_lines([what + (f"; namespaces with keys: {', '.join(others)}" if others else "")])
        if found:
            self._cmd.print_lines([format_entries(found, now=time.time(), wide=self._cmd.stdout.isatty())])
        if more:
            self._cmd.notice(f"{more}; `shared {prefix}* -n {4 * limit}` shows them")
        self._cmd.last_result = [entry.key for entry in found]

    def _get(self, shared: Shared, words: Sequence[str]) -> None:
        from pyrokernel.kernel.results import text_of  # late, as in `here`

        value = shared.read(words[0]).value
        try:
            text, _ = text_of(value, for_people=True)
        except Exception as error:  # noqa: BLE001 - the repr is code of the value's class
            self._cmd.fail(f"{key_text(words[0])} is a {type(value).__name__} whose repr raises {error!r}")
            return
        if self._cmd.interactive:
            text = cut_text(text, f"`shared get {shlex.quote(words[0])} > FILE` writes all", self._cmd.result_lines)
        self._cmd.print_lines([text])
        self._cmd.last_result = value

    def _history(self, shared: Shared, key: str, limit: int) -> None:
        changes = shared.history(key, limit)
        if changes:
            self._cmd.print_lines([format_history(changes, now=time.time(), wide=self._cmd.stdout.isatty())])
        else:
            self._cmd.fail(f"nothing is known of a key {key_text(key)}")
        self._cmd.last_result = [change.revision for change in changes]

    def _undo(self, shared: Shared, words: Sequence[str]) -> None:
        change = shared.undo(words[0])
        self._cmd.print_lines([describe_undo(words[0], change)])
        self._cmd.last_result = change.revision if change else None

    def _diff(self, shared: Shared, words: Sequence[str]) -> None:
        key, *revisions = words
        if not all(word.isdecimal() for word in revisions):
            self._cmd.fail(f"usage: {_usage('diff')}, the last two being numbers that `shared history` lists")
            return
        lines = shared.diff(key, *map(int, revisions))
        self._cmd.print_lines(lines or ["no difference"])
        self._cmd.last_result = lines

    def _remove(self, shared: Shared, words: Sequence[str]) -> None:
        keys = list(dict.fromkeys(words))
        shared.delete_many(keys)
        self._cmd.print_lines([f"deleted {plural(len(keys), 'key')}; `shared undo KEY` brings one back"])
        self._cmd.last_result = keys

    def _locks(self, shared: Shared, _: Sequence[str]) -> None:
        held = shared.locks()
        self._cmd.print_lines([format_locks(held, now=time.time()) if held else "no lock is held"])
        self._cmd.last_result = held

    def _watch(self, shared: Shared, words: Sequence[str]) -> None:
        prefix = (words[0] if words else "").removesuffix("*")
        self._cmd.last_result = 0
        try:
            with shared.watch(prefix) as changes:
                what = f"keys that begin {key_text(prefix)}" if prefix else "all keys"
                self._cmd.notice(f"watching {what}; Ctrl-C ends it")
                for change in changes:
                    self._cmd.print_lines([describe_change(change)])
                    self._cmd.last_result += 1
        except KeyboardInterrupt:
            self._cmd.notice("no longer watched")

    def _spaces(self, shared: Shared, _: Sequence[str]) -> None:
        keys: dict[str, int] = shared.describe()["keys"]
        self._cmd.print_lines([format_spaces(keys) if keys else "no namespace has keys"])
        self._cmd.last_result = sorted(keys)

    def _backup(self, shared: Shared, words: Sequence[str]) -> None:
        where = shared.backup(words[0] if words else "")
        self._cmd.print_lines([where])
        self._cmd.last_result = where

    def offer_shared(self, text: str) -> Offers:
        """Complete what to do, and keys; asks the service, for a moment at most."""
        before, word, begin = _split(text)
        space = ""
        for option, value in itertools.pairwise(before):
            if option in ("-s", "--space"):
                space = value
        if before and before[-1] in ("-s", "--space"):
            return [(name, begin, "namespace") for name in self._space("").spaces() if name and name.startswith(word)]
        words = [one for place, one in enumerate(before) if not _is_option(before, place)]
        offers: Offers = []
        if not words:
            offers = [(action, begin, "what to do") for action in _ACTIONS if action.startswith(word)]
        elif words[0] not in _OF_KEYS or (len(words) > 1 and words[0] != "rm"):
            return []
        keys = keys_of(self._space(space).m).complete_keys(word, _OFFERED) if words or word else []
        # What could not be typed is not offered either.
        fitting = (key for key in keys if key.isprintable() and key not in words[1:])
        return [*offers, *((shlex.quote(key), begin, "key") for key in fitting)]


def _usage(action: str) -> str:
    """Say what follows a word that says what to do."""
    return {
        "diff": "shared diff KEY [OLD [NEW]]",
        "rm": "shared rm KEY ...",
        "watch": "shared watch [PREFIX]",
        "backup": "shared backup [NAME]",
        "locks": "shared locks",
        "spaces": "shared spaces",
    }.get(action, f"shared {action} KEY")


def _split(text: str) -> tuple[list[str], str, int]:
    """Return the words before the last one, that as far as it is typed, without its quotes, and where it begins."""
    begin, quote = 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            begin = place + 1
    try:
        typed = "".join(shlex.split(text[begin:] + quote))
        return shlex.split(text[:begin]), typed, begin
    except ValueError:  # it ends amid what a backslash began
        return [], "", len(text)


def _is_option(words: Sequence[str], place: int) -> bool:
    """Whether a word is an option, or what one takes."""
    return words[place].startswith("-") or (place > 0 and words[place - 1] in ("-s", "--space", "-n", "--number"))
