"""What the kernels say, put on the screen: equal things once, with the names of those that say them.

One kernel is shown as it is, character by character. Of several, lines, results and errors are
held for a moment, so that those that are equal can be folded into one; each is marked by its
kernels. Pure: text and times in, text out. Runs in the shell process.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from pyrokernel.controls import RESET, in_line, redrawn, tinted
from pyrokernel.errors import without_origin
from pyrokernel.shell.cut import LAST_LINES, MAX_LINES, RESULT_LINE_CHARS, RESULT_LINES, Cut, cut_text
from pyrokernel.texts import label

HOLD_LINE_SECONDS = 0.05
"""How long a line of output waits for its equals of other kernels."""

HOLD_REPLY_SECONDS = 1.0
"""How long a result or an error does; a kernel that is much slower than the others shows its own later."""

_TOGETHER_SECONDS = 0.25
"""Results and errors that came no later after the one that is due are shown with it, in the order of the kernels."""

_BRIEF_LINES = 4
"""Of a result or an error, when those of other kernels have filled the screen."""


@dataclasses.dataclass(frozen=True)
class _Item:
    """Something one kernel said: a line of output, a result, or an error.

    Attributes:
        key: What makes it equal to another: the same error has another cell number in each kernel.
        brief: What to show instead when the screen is full already, "" for nothing else.
        always: It is shown also then: it tells of what is not.
    """

    stream: str
    text: str
    key: str
    ready: float
    block: bool = False
    brief: str = ""
    always: bool = False


class Display:
    """Shows one cell of one or several kernels.

    Args:
        names: The kernels, in the order of the group.
        write: Takes a stream ("stdout" or "stderr") and text.
        clock: Seconds, as `time.monotonic`.
        see_all: Says how to see all of a kernel's output, where floods are to be cut; None shows everything.
        see_result: Says how to see a whole result, where long ones are to be cut much sooner than output.
        lines: How many are shown before the cut.
        result_lines: How many of a result, if there is `see_result`.

    Attributes:
        at_margin: Whether the last thing that was shown ended its line.
    """

    def __init__(
        self,
        names: Sequence[str],
        write: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        see_all: Callable[[str], str] | None = None,
        see_result: Callable[[str], str] | None = None,
        lines: int = MAX_LINES,
        result_lines: int = RESULT_LINES,
    ) -> None:
        self._names = list(names)
        self._several = len(self._names) > 1
        self._write = write
        self._clock = clock
        self._held: dict[str, collections.deque[_Item]] = {name: collections.deque() for name in self._names}
        self._partial: dict[tuple[str, str], str] = {}
        self._live = set(self._names)
        self.at_margin = True
        self._tinted = ""  # the stream that a colour is on in
        self._see_all, self._see_result = see_all, see_result
        self._max_lines, self._result_lines = lines, result_lines
        last = max(1, LAST_LINES // len(self._names))
        self._cuts = {name: Cut(lines, last) for name in self._names if see_all}
        self._told: set[str] = set()
        self._lines = 0

    def output(self, kernel: str, stream: str, text: str) -> None:
        """Show text that a kernel wrote."""
        cut = self._cuts.get(kernel)
        if cut is not None:
            if self._lines >= self._max_lines:
                self._close(kernel)
            text = cut.take(text)
        if text:
            self._output(kernel, stream, text)
        if cut is not None and cut.closed:
            self._tell_cut(kernel)
            self.flush()

    def _close(self, kernel: str, *lines: str) -> None:
        """Show no more lines of a kernel: those that wait to be shown are counted with the rest.

        Kernels that say different things fill the screen together.
        """
        cut = self._cuts[kernel]
        cut.closed = True
        held = self._held[kernel]
        hidden = [item for item in held if not (item.block or item.always)]
        self._held[kernel] = collections.deque(item for item in held if item.block or item.always)
        for line in [*lines, *(item.text for item in hidden)]:
            cut.take(line + "\n")
        for stream in ("stdout", "stderr"):
            cut.take(self._partial.pop((kernel, stream), ""))
        self._tell_cut(kernel)

    def _tell_cut(self, kernel: str) -> None:
        """Say, once, that a kernel's output is cut."""
        if kernel not in self._told:
            assert self._see_all is not None  # or nothing would be cut
            self._told.add(kernel)
            self._remark(kernel, f"... more output is not shown; {self._see_all(kernel)}")

    def _output(self, kernel: str, stream: str, text: str) -> None:
        if not self._several:
            self._emit(stream, text)
            return
        *lines, rest = (self._partial.pop((kernel, stream), "") + text).split("\n")
        for line in lines:
            self._hold(kernel, stream, line, HOLD_LINE_SECONDS)
        if rest:
            self._partial[kernel, stream] = rest
        self.flush()

    def remark(self, kernel: str, text: str) -> None:
        """Show, on a line of its own, something about the output of a kernel."""
        if kernel in self._told:
            self._cuts[kernel].take(text + "\n")
        else:
            self._remark(kernel, text)
            self.flush()

    def _remark(self, kernel: str, text: str) -> None:
        if not self._several:
            self.margin()
            self._emit("stderr", text + "\n")
            return
        self._end_lines(kernel)
        self._hold(kernel, "stderr", text, HOLD_LINE_SECONDS, always=True)

    def result(self, kernel: str, text: str) -> None:
        """Show the value of a cell."""
        shown = self._without_middle(kernel, text)
        if self._see_all is not None and self._see_result is not None:
            how = self._see_result if shown is text else self._see_all
            shown = cut_text(text, how(kernel), min(self._result_lines, self._max_lines), RESULT_LINE_CHARS)
        self._reply(kernel, "stdout", shown, text)

    def error(self, kernel: str, text: str) -> None:
        """Show a traceback, or why there is no reply."""
        text = text.rstrip("\n")
        self._reply(kernel, "stderr", self._without_middle(kernel, text), without_origin(text, kernel))

    def ended(self, kernel: str) -> None:
        """Note that a kernel says no more."""
        self._show_rest(kernel)
        self._end_lines(kernel)
        self._live.discard(kernel)
        self.flush()
        if not self._live:
            self.margin()

    def margin(self) -> None:
        """End a colour and a line that have been begun, before something else is shown."""
        if self._tinted:
            self._write(self._tinted, RESET)
            self._tinted = ""
        if not self.at_margin:
            self._emit("stdout", "\n")

    def due(self) -> float | None:
        """Return in how many seconds `flush` has something to show, None when there is nothing."""
        times = [held[0].ready for held in self._held.values() if held]
        return max(0.0, min(times) - self._clock()) if times else None

    def flush(self, *, all_of_it: bool = False) -> None:
        """Show what has waited long enough, or what all kernels that still run have an answer to."""
        while True:
            heads = {name: held[0] for name, held in self._held.items() if held}
            if not heads:
                return
            first = self._first_due(heads, all_of_it=all_of_it)
            if first is None:
                return
            item = heads[first]
            alike = [name for name, head in heads.items() if (head.stream, head.key) == (item.stream, item.key)]
            for name in alike:
                self._held[name].popleft()
            self._show(alike, item)

    def _first_due(self, heads: Mapping[str, _Item], *, all_of_it: bool) -> str | None:
        """Return whose item is to be shown next: lines as they came, then results in the order of the kernels."""
        now = self._clock()
        # With a head from everyone, waiting longer cannot fold more.
        whole = all_of_it or self._live <= heads.keys()
        due = {name: item for name, item in heads.items() if whole or item.ready <= now}
        lines = [name for name in due if not due[name].block]
        if lines:
            return min(lines, key=lambda name: (due[name].ready, self._names.index(name)))
        if due:
            due |= {name: item for name, item in heads.items() if item.block and item.ready <= now + _TOGETHER_SECONDS}
        return min(due, key=self._names.index, default=None)

    def _show_rest(self, kernel: str) -> None:
        """Show the end of what was cut."""
        cut = self._cuts.get(kernel)
        if cut is None or not cut.hidden:
            return
        hidden, lines = cut.hidden, cut.rest()
        if hidden > len(lines):
            self._remark(kernel, f"... {hidden:,} lines not shown; the last of them:")
        for line in lines:
            if self._several:
                self._hold(kernel, "stdout", line, HOLD_LINE_SECONDS, always=True)
            else:
                self._emit("stdout", line + "\n")

    def _without_middle(self, kernel: str, text: str) -> str:
        """Cut a giant, where floods are to be cut."""
        return text if self._see_all is None else cut_text(text, self._see_all(kernel), self._max_lines)

    def _reply(self, kernel: str, stream: str, text: str, key: str) -> None:
        self._show_rest(kernel)
        if not self._several:
            self.margin()
            self._emit(stream, text + "\n")
            return
        self._end_lines(kernel)
        brief = "" if self._see_all is None else cut_text(text, self._see_all(kernel), _BRIEF_LINES, RESULT_LINE_CHARS)
        # Two giants may differ in what is cut; a number stands for all of it while it is held.
        digest = f"{len(key)} {hash(key)}"
        ready = self._clock() + HOLD_REPLY_SECONDS
        self._held[kernel].append(_Item(stream, text, digest, ready, block=True, brief=brief))

    def _hold(self, kernel: str, stream: str, text: str, seconds: float, *, always: bool = False) -> None:
        text = redrawn(text)
        self._held[kernel].append(_Item(stream, text, text, self._clock() + seconds, always=always))

    def _end_lines(self, kernel: str) -> None:
        for stream in ("stdout", "stderr"):
            rest = self._partial.pop((kernel, stream), "")
            if rest:
                self._hold(kernel, stream, rest, HOLD_LINE_SECONDS)

    def _show(self, kernels: Sequence[str], item: _Item) -> None:
        full = bool(self._cuts) and self._lines >= self._max_lines
        if full and not (item.block or item.always):
            for name in kernels:
                self._close(name, item.text)
            return
        text = item.brief if full and item.brief else item.text
        gap = "\n" if item.block and "\n" in text else " "
        self._emit(item.stream, f"[{label(kernels)}]{gap}{in_line(text)}\n")

    def _emit(self, stream: str, text: str) -> None:
        if text:
            self._lines += text.count("\n")
            self.at_margin = text.endswith("\n")
            self._tinted = stream if tinted(text, bool(self._tinted)) else ""
            self._write(stream, text)
