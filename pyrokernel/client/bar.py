"""Bar: how much of many calls is done, how fast it goes and what is left, as one line. Runs in the caller's process."""

from __future__ import annotations

import os
import shutil
from collections import deque
from typing import TextIO

from pyrokernel.texts import one_line, span

REDRAW_SECONDS = 0.2
_BAR_WIDTH = 20
_RECENT_SECONDS = 10.0
"""What the rate is taken from: long enough to even out, short enough to follow a change."""

_ERASE = "\r\x1b[K"


class LiveLine:
    """A line that is drawn over itself, on a terminal that can.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.possible = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = False

    def show(self, text: str) -> None:
        """Draw the line, cut to the width of the terminal; the cursor must be at the margin."""
        if not self.possible:
            return
        # The last column stays free: a terminal that wraps there could not take the line back.
        width = max(1, shutil.get_terminal_size((80, 24)).columns - 1)
        text = text if len(text) <= width else text[: max(0, width - 3)] + "..."
        self._stream.write(f"{_ERASE}\x1b[2m{text}\x1b[0m" if not os.environ.get("NO_COLOR") else _ERASE + text)
        self._stream.flush()
        self._shown = True

    def erase(self) -> None:
        """Take the line back."""
        if self._shown:
            self._stream.write(_ERASE)
            self._stream.flush()
            self._shown = False


class Bar:
    """Knows from one look to the next how fast something goes.

    Args:
        what: What is done, in a word or two.
        begun: When it began, a monotonic moment as all others here.
    """

    def __init__(self, what: str, begun: float) -> None:
        self._what = what
        self._begun = begun
        self._seen = deque([(begun, 0)])

    def text(self, done: int, total: int, now: float, *, failed: int = 0) -> str:
        """Return the line of a moment; the rate is the recent one, at the end that of the whole.

        Args:
            done, total: How many are done, failed ones included, of how many.
            now: The moment.
            failed: How many of them failed.
        """
        if done != self._seen[-1][1]:
            self._seen.append((now, done))
        # Two are kept: where one takes longer than what is recent, the last two tell.
        while len(self._seen) > 2 and self._seen[1][0] <= now - _RECENT_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0] if done < total else (self._begun, 0)
        rate = (done - before) / (now - since) if now > since else 0.0
        return bar(self._what, done, total, now - self._begun, rate=rate, failed=failed)


def bar(what: str, done: int, total: int, seconds: float, *, rate: float = 0.0, failed: int = 0) -> str:
    """Return, as one line, how much of something is done after so long.

    Args:
        what: What is done.
        done, total: How many, of how many.
        seconds: For how long it has gone on.
        rate: How many are done per second now; 0 where nobody knows.
        failed: How many of those that are done failed.
    """
    share = done * _BAR_WIDTH // max(1, total)
    parts = [f"[{'#' * share}{'.' * (_BAR_WIDTH - share)}] {done:,} of {total:,}"]
    if seconds >= 1:
        parts.append(span(seconds))
    if rate > 0:
        parts.append(per_time(rate))
        if done < total:
            parts.append(f"{span((total - done) / rate)} left")
    if failed:
        parts.append(f"{failed:,} failed")
    return f"{', '.join(parts)}  {one_line(what, 30)}"


def per_time(rate: float) -> str:
    """Return a rate per second for people: two digits or more, per second, minute or hour."""
    number, unit = (rate, "s") if rate >= 1 else (rate * 60, "min") if rate * 60 >= 1 else (rate * 3600, "h")
    return f"{number:,.0f}/{unit}" if number >= 10 else f"{number:.1f}/{unit}"
