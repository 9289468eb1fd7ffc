"""Patterns that clients send to the name server, bounded. Runs in a name server.

Python's `re` tries alternatives one after the other, and a pattern such as `(a+)+b` has more of them than there is
time; a match cannot be broken off either. So the choices that a pattern leaves are counted before it is used, and what
may have too many is refused: what is left takes some milliseconds for a name, and between names the clock is looked at.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator

__all__ = ["BadPatternError", "compile_bounded", "matching"]

MAX_PATTERN_CHARS = 200
MAX_CHOICES = 1 << 18
"""Ways through a pattern for one name: two stars, and a few alternatives beside them."""
MATCH_SECONDS = 0.5
"""For all names together."""

_MANY = 256
"""What `*` and `+` count as: names are no longer."""

_TOKEN = re.compile(
    r"""(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])
      | (?P<repeat>[*+?]|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})[?+]?
      | (?P<open>\((?:\?:)?)
      | (?P<close>\))
      | (?P<or>\|)
      | \\[1-9] (?P<backreference>)
      | \\.
      | [^\\]""",
    re.VERBOSE | re.DOTALL,
)


class BadPatternError(ValueError):
    """A pattern is none, or could take too long."""


class _Group:
    """A group that is being read.

    Attributes:
        done: Choices of the alternatives that are complete, added up.
        choices: Of the alternative that is being read.
    """

    def __init__(self) -> None:
        self.done = 0
        self.choices = 1

    def total(self) -> int:
        return self.done + self.choices


def compile_bounded(pattern: object) -> re.Pattern[str]:
    """Compile a pattern of which no match takes long.

    Raises:
        BadPatternError: It is none, or could take too long.
    """
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
        raise BadPatternError(f"a pattern is a text of at most {MAX_PATTERN_CHARS} characters")
    choices = _count_choices(pattern)
    if choices > MAX_CHOICES:
        raise BadPatternError(
            "this pattern could take very long; use at most two of * and +, fewer alternatives, or a prefix instead"
        )
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPatternError(f"this is no regular expression: {error}") from error


def matching(pattern: re.Pattern[str], names: Iterable[str]) -> Iterator[str]:
    """Yield the names whose beginning matches, as the name server of Pyro5 does.

    Raises:
        BadPatternError: It takes too long.
    """
    deadline = time.monotonic() + MATCH_SECONDS
    for name in names:
        if pattern.match(name):
            yield name
        if time.monotonic() > deadline:
            raise BadPatternError(f"this pattern takes more than {MATCH_SECONDS:g} s; use a simpler one, or a prefix")


def _count_choices(pattern: str) -> int:
    """Return in how many ways a name could be tried, at most.

    Raises:
        BadPatternError: It has what is not taken: groups that are repeated, look around, are named or referred to.
    """
    groups, before = [_Group()], ""
    for token in _TOKEN.finditer(pattern):
        if token["repeat"]:
            # A repeated group, or a repeated repetition, is what makes the time grow by powers.
            if before == ")" and token["repeat"] != "?":
                raise BadPatternError("a group cannot be repeated here; repeat single characters, or use a prefix")
            groups[-1].choices *= _repeats(token)
        elif token["open"]:
            if token["open"] == "(" and pattern.startswith("?", token.end()):
                raise BadPatternError("groups that begin with (? are not taken here, but for (?:...)")
            groups.append(_Group())
        elif token["close"]:
            if len(groups) == 1:
                raise BadPatternError("this is no regular expression: a ) has no (")
            inner = groups.pop()
            groups[-1].choices *= inner.total()
        elif token["or"]:
            groups[-1].done += groups[-1].choices
            groups[-1].choices = 1
        elif token["backreference"] is not None:
            raise BadPatternError("references to groups (\\1) are not taken here")
        before = token[0]
    return math.prod(group.total() for group in groups)


def _repeats(token: re.Match[str]) -> int:
    """Return how many lengths a repetition may have."""
    if token["least"] is None:
        return 2 if token["repeat"] == "?" else _MANY
    if not token["comma"]:
        return 1
    # A number is not taken at its word: a name ends somewhere.
    least = min(int(token["least"] or 0), _MANY)
    return max(1, min(int(token["most"] or _MANY), _MANY) - least + 1)
