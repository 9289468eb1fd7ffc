"""Pictures in terminals that can draw them. Pure, but for reading the file. Runs in the shell process.

Two ways are common: that of iTerm2 (https://iterm2.com/documentation-images.html), which WezTerm
has too, and that of kitty (https://sw.kovidgoyal.net/kitty/graphics-protocol/), which Ghostty has
too. A terminal is known by the variables it sets; asking it would read from the keyboard.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

MAX_BYTES = 8 * 1024 * 1024
_KITTY_CHUNK = 4096


def draw(path: str, environ: Mapping[str, str]) -> str:
    """Return what makes the terminal draw a PNG file; "" where it cannot, or the file is not here or too large.

    Args:
        path: The file, on the machine of the kernel, which may be another one.
        environ: Environment of the shell.
    """
    way = _way(environ)
    if not way:
        return ""
    try:
        picture = Path(path)
        if picture.stat().st_size > MAX_BYTES:
            return ""
        data = picture.read_bytes()
    except OSError:
        return ""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    text = base64.b64encode(data).decode()
    if way == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(data)}:{text}\x07\n"
    chunks = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    heads = ["f=100,a=T,q=2," if number == 0 else "" for number in range(len(chunks))]
    more = [int(number < len(chunks) - 1) for number in range(len(chunks))]
    return (
        "".join(f"\x1b_G{head}m={m};{chunk}\x1b\\" for head, m, chunk in zip(heads, more, chunks, strict=True)) + "\n"
    )


def _way(environ: Mapping[str, str]) -> str:
    """Return how this terminal takes pictures: "iterm", "kitty", or "" for not at all."""
    if environ.get("TMUX") or environ.get("STY") or environ.get("TERM", "dumb").startswith(("dumb", "screen", "tmux")):
        return ""  # a multiplexer in between passes none on
    if environ.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if environ.get("KITTY_WINDOW_ID") or environ.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    return ""
