"""Long lists and dicts over several lines, as IPython shows them. Runs in the kernel process.

Only containers whose type is exactly a builtin one are laid out: their repr runs no code of a
user but that of the items. Numbers fill their lines, as arrays do; everything else has one of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

WIDTH = 80
MAX_CHARS = 64 * 1024
"""A repr that is longer stays as it is: to lay it out would take time, and nobody reads it whole."""

_MARKS: dict[type, str] = {list: "[]", tuple: "()", dict: "{}", set: "{}"}
_MAX_DEPTH = 50
_MAX_MARGIN = WIDTH // 2
"""What stands below a long key begins further left: every line has its margin, which must not multiply the text."""

_NUMBERS = (int, float, complex, bool)


@dataclasses.dataclass
class _Node:
    """A value as text: what stands before it, such as its key; a container has its marks and its items."""

    text: str
    before: str = ""
    marks: str = ""
    items: list[_Node] = dataclasses.field(default_factory=list)
    numbers: bool = False

    @property
    def flat(self) -> bool:
        return "\n" not in self.text


def laid_out(value: Any, text: str) -> str:
    """Return the repr of a value over several lines where it is a long builtin container, else as it is.

    Args:
        value: Any object.
        text: Its repr.

    Raises:
        Exception: Whatever the `__repr__` of an item raises.
    """
    if type(value) not in _MARKS or not value or len(text) > MAX_CHARS or (len(text) <= WIDTH and "\n" not in text):
        return text
    lines: list[str] = []
    _write(_read(value, ()), lines, "", 0)
    return "\n".join(lines)


def _read(value: Any, above: tuple[int, ...], before: str = "") -> _Node:
    """Read a value, and what it contains."""
    kind = type(value)
    if kind not in _MARKS or not value or len(above) == _MAX_DEPTH:
        return _Node(repr(value), before)
    if id(value) in above:  # in itself
        return _Node(_MARKS[kind][0] + "..." + _MARKS[kind][1], before)
    above = (*above, id(value))
    if kind is dict:
        items = [_read(item, above, f"{key!r}: ") for key, item in list(value.items())]
    else:
        items = [_read(item, above) for item in list(value)]
    numbers = kind is not dict and all(type(item) in _NUMBERS for item in list(value))
    opening, closing = _MARKS[kind][0], _MARKS[kind][1]
    if kind is tuple and len(items) == 1:
        closing = ",)"
    text = opening + ", ".join(item.before + item.text for item in items) + closing
    return _Node(text, before, opening + closing, items, numbers)


def _write(node: _Node, lines: list[str], begun: str, after: int) -> None:
    """Add the lines of a node.

    Args:
        node: What to write.
        lines: Where to.
        begun: The line on which it begins.
        after: How many characters follow its last one.
    """
    begun += node.before
    if not node.items or (node.flat and len(begun) + len(node.text) + after <= WIDTH):
        first, *rest = node.text.split("\n")  # an array has lines of its own
        lines += [begun + first, *(" " * min(len(begun), _MAX_MARGIN) + line for line in rest)]
        return
    opening, closing = node.marks[0], node.marks[1:]
    line, margin = begun + opening, " " * min(len(begun) + 1, _MAX_MARGIN)
    for position, item in enumerate(node.items):
        last = position == len(node.items) - 1
        end = closing if last else ","
        if node.numbers and position and len(line) + len(item.text) + len(end) < WIDTH:
            lines.pop()
            line = f"{line} "
        elif position:
            line = margin
        _write(item, lines, line, len(end) + (after if last else 0))
        lines[-1] += end
        line = lines[-1]
