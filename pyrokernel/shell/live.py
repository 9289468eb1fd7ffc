"""One line below the output that says who still runs, gone before anything else is shown. Runs in the shell process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pyrokernel.texts import label, one_line, span

FIRST_SECONDS = 1.0
"""What is quicker needs no line."""

AGAIN_SECONDS = 1.0

PROGRESS_SECONDS = 0.25
"""How often the line says anew how far commands are."""

_BAR_WIDTH = 10
_TEXT_WIDTH = 24


class Watch:
    """Says, once a second, who has answered and who still runs.

    Args:
        names: The kernels asked, in the order of the group.
        clock: Seconds, as `time.monotonic`.
    """

    def __init__(self, names: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._names = list(names)
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + FIRST_SECONDS
        self._shown = self._begun
        self._shares: dict[str, float] = {}
        self._text = ""

    def progress(self, name: str, done: float, total: float, text: str) -> None:
        """Note how far a kernel is.

        Args:
            name: Its name.
            done, total: How much is done, of how much.
            text: What it says of it.
        """
        self._shares[name] = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        self._text = text
        self._next = min(self._next, self._shown + PROGRESS_SECONDS)

    def due(self) -> float:
        """Return in how many seconds the line has something new to say."""
        return max(0.0, self._next - self._clock())

    def line(self, live: Sequence[str], waiting: Sequence[str] = (), *, ctrl_c: str) -> str:
        """Return what to say now.

        Args:
            live: Kernels whose cell has not ended.
            waiting: Those among them on which it has not begun.
            ctrl_c: What Ctrl-C does.
        """
        now = self._clock()
        self._next = now + AGAIN_SECONDS
        self._shown = now
        running = [name for name in self._names if name in live and name not in waiting]
        behind = [name for name in self._names if name in live and name in waiting]
        parts = [self._bar(live)] if self._shares else []
        parts += [f"{len(self._names) - len(live)} of {len(self._names)} done"] if len(self._names) > 1 else []
        if running:
            parts.append(f"{label(running)} {'runs' if len(running) == 1 else 'run'}")
        if behind:
            parts.append(f"{label(behind)} {'waits' if len(behind) == 1 else 'wait'} for the cell before")
        return f"{', '.join(parts)}, {span(now - self._begun)} (Ctrl-C {ctrl_c})"

    def _bar(self, live: Sequence[str]) -> str:
        """Return how far all kernels are together; those that have ended have done all."""
        share = sum(self._shares.get(name, 0.0) if name in live else 1.0 for name in self._names) / len(self._names)
        signs = int(share * _BAR_WIDTH)
        return f"[{'#' * signs}{'.' * (_BAR_WIDTH - signs)}] {share:4.0%} {one_line(self._text, _TEXT_WIDTH)}".rstrip()
