"""Events of a running cell, written while they happen. Runs in the caller's process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol, TextIO

from pyrokernel.client.bar import LiveLine
from pyrokernel.front.terminal import paint
from pyrokernel.messages import Event, EventKind
from pyrokernel.texts import describe_gap


class Writer(Protocol):
    """What shows the events of a cell."""

    def write(self, kernel: str, event: Event) -> None:
        """Write one event."""

    def line(self, kernel: str, text: str, *, error: bool = False) -> None:
        """Write whole lines."""


class LiveWriter:
    """Writes the events of a running cell: what a program at the terminal would have written.

    With more than one kernel each line begins with its kernel's name, and a line is
    written when it is complete: half lines of several kernels would mix. Where errors go to
    a terminal, how far a command is stands in a line that is drawn over itself.

    Args:
        names: The kernels.
        out, err: Where output, and errors, go.
    """

    def __init__(self, names: Sequence[str], out: TextIO, err: TextIO) -> None:
        self._out, self._err = out, err
        width = max((len(name) for name in names), default=0)
        self._prefixes = {name: f"{name}:{' ' * (width - len(name))} " for name in names} if len(names) > 1 else {}
        self._pieces: dict[tuple[str, str], str] = {}
        self._column = 0
        self._live = LiveLine(err)
        self._progress: dict[str, tuple[float, str]] = {}

    def write(self, kernel: str, event: Event) -> None:
        """Write one event."""
        data = event.data
        if event.kind == EventKind.OUTPUT:
            stream = self._err if data.get("stream") == "stderr" else self._out
            self._text(kernel, stream, data["text"])
        elif event.kind == EventKind.RESULT:
            self.line(kernel, data["text"])
        elif event.kind == EventKind.FIGURE:
            self.line(kernel, f"[figure: {data['path']}]")
        elif event.kind == EventKind.ERROR:
            self.line(kernel, data["traceback"] or f"{data['ename']}: {data['evalue']}", error=True)
        elif event.kind == EventKind.GAP:
            self.line(kernel, describe_gap(event), error=True)
        elif event.kind == EventKind.PROGRESS:
            self._progress[kernel] = (data["done"] / (data["total"] or 1.0), data["text"])
            self._draw()
        elif event.kind == EventKind.INPUT:
            self._live.erase()  # whoever answers types in this line
        elif event.kind == EventKind.ENDED:
            self._live.erase()
            self._progress.pop(kernel, None)
            self._finish(kernel)
            self._draw()

    def line(self, kernel: str, text: str, *, error: bool = False) -> None:
        """Write whole lines."""
        self._finish(kernel)
        self._text(kernel, self._err if error else self._out, text.rstrip("\n") + "\n")

    def _text(self, kernel: str, stream: TextIO, text: str) -> None:
        prefix = self._prefixes.get(kernel)
        self._live.erase()
        if prefix is None:
            stream.write(text)
            stream.flush()
            self._column = len(text) - text.rfind("\n") - 1
            self._draw()
            return
        key = (kernel, "err" if stream is self._err else "out")
        *lines, self._pieces[key] = (self._pieces.get(key, "") + text).split("\n")
        shown = paint(prefix, "cyan", stream)
        stream.write("".join(f"{shown}{line}\n" for line in lines))
        stream.flush()
        self._draw()

    def _draw(self) -> None:
        """Show how far the commands are, unless output has left the cursor amid a line."""
        if self._progress and not self._column:
            parts = [
                f"{name + ' ' if self._prefixes else ''}{min(1.0, max(0.0, share)):.0%} {text}".rstrip()
                for name, (share, text) in self._progress.items()
            ]
            self._live.show(", ".join(parts))

    def _finish(self, kernel: str) -> None:
        """End a line that its kernel left open."""
        if not self._prefixes:
            if self._column:
                self._text(kernel, self._out, "\n")
            return
        for name, stream in (("out", self._out), ("err", self._err)):
            if self._pieces.get((kernel, name)):
                self._text(kernel, stream, "\n")


class JsonWriter:
    """Writes each event as a line of JSON, for scripts."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, kernel: str, event: Event) -> None:
        """Write one event."""
        self._out.write(json.dumps({"kernel": kernel, **event.to_wire()}) + "\n")
        self._out.flush()

    def line(self, kernel: str, text: str, *, error: bool = False) -> None:
        """Write what is not an event: why there are no more."""
        self._out.write(json.dumps({"kernel": kernel, "error" if error else "note": text}) + "\n")
        self._out.flush()
