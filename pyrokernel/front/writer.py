"""Journal events as text: while they happen, and replayed. Runs in the caller's process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from pyrokernel.front.terminal import paint
from pyrokernel.messages import Event, EventKind


class LiveWriter:
    """Writes the events of a running cell: what a program at the terminal would have written.

    With more than one kernel each line begins with its kernel's name, and a line is
    written when it is complete: half lines of several kernels would mix.

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

    def write(self, kernel: str, event: Event) -> None:
        """Write one event."""
        data = event.data
        if event.kind == EventKind.OUTPUT:
            stream = self._err if data.get("stream") == "stderr" else self._out
            self._text(kernel, stream, data["text"])
        elif event.kind == EventKind.RESULT:
            self.line(kernel, data["text"])
        elif event.kind == EventKind.ERROR:
            self.line(kernel, data["traceback"] or f"{data['ename']}: {data['evalue']}", error=True)
        elif event.kind == EventKind.GAP:
            self.line(kernel, describe_gap(event), error=True)
        elif event.kind == EventKind.ENDED:
            self._finish(kernel)

    def line(self, kernel: str, text: str, *, error: bool = False) -> None:
        """Write whole lines."""
        self._finish(kernel)
        self._text(kernel, self._err if error else self._out, text.rstrip("\n") + "\n")

    def _text(self, kernel: str, stream: TextIO, text: str) -> None:
        prefix = self._prefixes.get(kernel)
        if prefix is None:
            stream.write(text)
            stream.flush()
            self._column = len(text) - text.rfind("\n") - 1
            return
        key = (kernel, "err" if stream is self._err else "out")
        *lines, self._pieces[key] = (self._pieces.get(key, "") + text).split("\n")
        shown = paint(prefix, "cyan", stream)
        stream.write("".join(f"{shown}{line}\n" for line in lines))
        stream.flush()

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


class Transcript:
    """Turns a journal into the text of a session: what was sent, and what came of it.

    Args:
        write: Takes text.
        sources: Whether to show what was sent.
    """

    def __init__(self, write: Callable[[str], Any], *, sources: bool = True) -> None:
        self._write = write
        self._sources = sources
        self._open_line = False
        self._cell = ""

    def add(self, event: Event) -> None:
        """Write one event."""
        data = event.data
        if event.kind == EventKind.STARTED:
            self._cell = event.cell
            if self._sources:
                self._line(_header(event))
        elif event.kind == EventKind.OUTPUT:
            if data.get("late") or (event.cell and event.cell != self._cell):
                self._line(f"[late output of cell {event.cell[:8]}]")
            self._write(data["text"])
            self._open_line = not data["text"].endswith("\n")
        elif event.kind == EventKind.RESULT:
            self._line(data["text"])
        elif event.kind == EventKind.ERROR:
            self._line(data["traceback"].rstrip("\n") or f"{data['ename']}: {data['evalue']}")
        elif event.kind == EventKind.INPUT:
            self._line(f"[asked: {data.get('prompt', '')}]")
        elif event.kind == EventKind.GAP:
            self._line(describe_gap(event))

    def _line(self, text: str) -> None:
        self._write(("\n" if self._open_line else "") + text + "\n")
        self._open_line = False


def describe_gap(event: Event) -> str:
    """Say what is missing."""
    data = event.data
    if data.get("lost_bytes"):
        amount = f"{data['lost_bytes']:,} bytes of output"
    elif data.get("first"):
        amount = f"events {data['first']} to {data.get('last', data['first'])}"
    else:
        amount = "something"
    return f"[{amount} missing: {data.get('reason', 'unknown')}]"


def _header(event: Event) -> str:
    data = event.data
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    first, *rest = (data.get("source") or "").rstrip("\n").split("\n")
    head = f"[{data.get('execution_count', '?')}] {at} {data.get('author', '')} cell {event.cell[:8]}"
    return "\n".join([head, f">>> {first}", *(f"... {line}" for line in rest)])
