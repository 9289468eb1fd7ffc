"""How much of what a cell says is put on a screen: floods and giants are cut. Pure. Runs in the shell process."""

from __future__ import annotations

MAX_LINES = 1000
LINE_CHARS = 200
"""A line that is longer counts as several."""

LAST_LINES = 20
TEXT_LINE_CHARS = 20
"""Of a giant, so many characters are shown for each line that might be."""

RESULT_LINES = 70
"""A result at the prompt is shown up to here, a little more than a screen: pandas shows 60 rows itself."""

RESULT_LINE_CHARS = 80
"""One that has no lines is shown up to so many characters for each that it may have."""

_TAIL_CHARS = 8000


class Cut:
    """Lets the beginning of a text through that comes in pieces, counts the rest and keeps its end.

    Args:
        lines: How many pass.
        last: How many of the others `rest` returns.
    """

    def __init__(self, lines: int = MAX_LINES, last: int = LAST_LINES) -> None:
        self._left = lines
        self._last = last
        self._open = 0
        self._tail = ""
        self._ends = 0
        self.closed = False

    def take(self, text: str) -> str:
        """Return what of the next piece is to be shown."""
        passed = 0 if self.closed else self._fitting(text)
        if passed < len(text):
            self.closed = True
            hidden = text[passed:]
            self._ends += hidden.count("\n")
            self._tail = (self._tail + hidden[-_TAIL_CHARS:])[-_TAIL_CHARS:]
        return text[:passed]

    @property
    def hidden(self) -> int:
        """How many lines were not shown."""
        return self._ends + (self._tail != "" and not self._tail.endswith("\n"))

    def rest(self) -> list[str]:
        """Return the last of the lines that were not shown, and begin to hide anew."""
        lines = self._tail.removesuffix("\n").split("\n") if self._tail else []
        if len(self._tail) == _TAIL_CHARS:
            lines[0] = "..." + lines[0]  # its beginning may be gone
        lines = lines[-self._last :]
        self._tail, self._ends = "", 0
        return [line.rpartition("\r")[2][:_TAIL_CHARS] for line in lines]

    def _fitting(self, text: str) -> int:
        """Return how many characters may still be shown."""
        position = 0
        while position < len(text):
            end = text.find("\n", position)
            stop = end if end >= 0 else len(text)
            begin = text.rfind("\r", position, max(position, stop - 1)) + 1
            if begin:
                self._open = 0  # a progress bar draws over itself: what was there is no longer shown
            begin = max(begin, position)
            room = self._left * LINE_CHARS - self._open
            if stop - begin > room:
                return begin + room
            self._open += stop - begin
            if end < 0:
                break
            self._left -= 1 + self._open // LINE_CHARS
            self._open = 0
            position = end + 1
            if self._left <= 0:
                return position
        return len(text)


def cut_text(text: str, see_all: str, lines: int = MAX_LINES, line_chars: int = TEXT_LINE_CHARS) -> str:
    """Return a text that came whole, of which the middle is left out if it is a giant.

    Args:
        text: Such as a repr.
        see_all: How to see all of it.
        lines: How many lines may stay.
        line_chars: So many times as many characters.
    """
    chars = lines * line_chars
    if len(text) <= chars and text.count("\n") < lines:
        return text
    last_lines, last_chars = max(1, lines // 4), chars // 4
    first_lines = lines - last_lines
    head = "\n".join(text.split("\n", first_lines)[:first_lines])[: chars - last_chars]
    tail = "\n".join(text.rsplit("\n", last_lines)[-last_lines:])[-last_chars:]
    hidden = len(text) - len(head) - len(tail)
    return f"{head}\n... {hidden:,} characters are not shown; {see_all} ...\n{tail}"
