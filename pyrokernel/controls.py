"""Characters that a terminal would obey or hide, made visible. Pure. Runs in shell, command line, terminal server."""

from __future__ import annotations

import functools
import re

COLOUR = re.compile("\x1b\\[([0-9;]*)m")
RESET = "\x1b[0m"
_ERASURE = re.compile("\x1b\\[[0-9;]*K")

_INVISIBLE = (
    # What turns the direction of text, separates lines, or has no width (Unicode's category Cf); not the joiners that
    # scripts and emoji need (200c, 200d), nor the signs below numbers, which show (0600-0605, 06dd, 08e2 and such).
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_OBEYED = "\x1b\\[[0-9;]*[mK]|[{}\x0b\x0c\x0e-\x1f\x7f-\x9f" + _INVISIBLE + "]"
_CONTROLS = re.compile(_OBEYED.format("\x00-\x08"))
_BUT_BACKSPACE = re.compile(_OBEYED.format("\x00-\x07"))

_HIDING = {"5", "6", "8"}
"""Of the parameters of colours: text that blinks or is not seen."""

_EXTENDED = {("38", "5"): 3, ("48", "5"): 3, ("58", "5"): 3, ("38", "2"): 5, ("48", "2"): 5, ("58", "2"): 5}
"""What begins one colour out of many; how many parameters that takes."""


def plain(text: str) -> str:
    """Return a text without colours, and with control characters shown instead of obeyed."""
    return harmless(COLOUR.sub("", text))


def harmless(text: str, *, backspace: bool = False) -> str:
    """Show control characters instead of letting the terminal obey them; colours, tabs and redrawn lines stay.

    Args:
        text: What somebody else says.
        backspace: Leave backspaces too, as progress bars use them: no name of a kernel stands before them.
    """
    return (_BUT_BACKSPACE if backspace else _CONTROLS).sub(_shown, text)


def in_line(text: str) -> str:
    """Return a text that stays behind what is before it on its line, and leaves no colour to what follows."""
    text = _ERASURE.sub("", text).replace("\b", "\\x08").replace("\r\n", "\n").replace("\r", "\\x0d")
    return text + RESET if tinted(text) else text


def redrawn(line: str) -> str:
    """Return what a terminal shows in the end of a line that was drawn over, as progress bars do."""
    line = line.rstrip("\r").rpartition("\r")[2]
    if "\b" not in line:
        return line
    kept: list[str] = []
    for character in line:
        if character != "\b":
            kept.append(character)
        elif kept:
            kept.pop()
    return "".join(kept)


def tinted(text: str, before: bool = False) -> bool:
    """Tell whether a colour is on after a text, which one was before it or not."""
    if "\x1b" in text:
        for match in COLOUR.finditer(text):
            before = bool(match[1].strip("0;"))
    return before


def _shown(match: re.Match[str]) -> str:
    return _instead(match[0])


@functools.lru_cache(256)
def _instead(found: str) -> str:
    if len(found) == 1:
        code = ord(found)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return found if found[-1] == "K" else _seen(found)


def _seen(colour: str) -> str:
    """Return a sequence that sets colours, without what hides text."""
    left = [number.lstrip("0") for number in colour[2:-1].split(";")]
    if _HIDING.isdisjoint(left):
        return colour
    kept: list[str] = []
    while left:
        count = _EXTENDED.get((left[0], left[1]), 1) if len(left) > 1 else 1
        if left[0] not in _HIDING:
            kept += left[:count]
        del left[:count]
    return f"\x1b[{';'.join(kept)}m" if kept else ""
