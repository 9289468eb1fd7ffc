"""A picture of a terminal's screen: cells in, one self-contained SVG out. Runs where the pictures are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import pyte
from pyte.screens import Char

_CELL = (8.4, 19.0)
"""Width and height of a character, in pixels at the picture's own size."""

_MARGIN = 14.0
_PAPER, _INK = "#fbfbf9", "#24292f"
"""Light, because so are the terminals that the colours of prompt_toolkit and Pygments were chosen for."""

_COLOURS = {
    "black": "#24292f", "red": "#c0262d", "green": "#116329", "brown": "#8a5a00",
    "blue": "#0550ae", "magenta": "#8250df", "cyan": "#1b7c83", "white": "#6e7781",
    "brightblack": "#6e7781", "brightred": "#a40e26", "brightgreen": "#1a7f37", "brightbrown": "#7d4e00",
    "brightblue": "#218bff", "brightmagenta": "#a475f9", "bfightmagenta": "#a475f9",  # so spelled in pyte 0.8.2
    "brightcyan": "#3192aa", "brightwhite": "#57606a",
}  # fmt: skip


class Screen(pyte.Screen):
    """The screen of an emulated terminal, which also knows dim text."""

    def select_graphic_rendition(self, *attrs: int, **kwargs: Any) -> None:
        """Take over colours; pyte passes over 2, dim, which is grey here."""
        if 38 not in attrs and 48 not in attrs:  # or a 2 is part of a colour
            attrs = tuple(90 if attr == 2 else attr for attr in attrs)
        super().select_graphic_rendition(*attrs, **kwargs)

    def shown(self) -> list[str]:
        """Return the text of each row down to the last that has any."""
        lines = [line.rstrip() for line in self.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def picture(screen: Screen, title: str, mask: Callable[[str], str] = lambda line: line) -> str:
    """Draw a screen, down to its last row that has text.

    Args:
        screen: What a terminal shows.
        title: What is to be seen, for those who do not see it.
        mask: Replaces what differs from run to run in a row, by text of the same length.
    """
    rows = max(len(screen.shown()), 1)
    wide, high = _CELL[0] * screen.columns + 2 * _MARGIN, _CELL[1] * rows + 2 * _MARGIN
    drawn: list[str] = []
    for number in range(rows):
        row = [screen.buffer[number][column] for column in range(screen.columns)]
        masked = mask("".join(cell.data for cell in row))
        assert len(masked) == len(row), "a mask keeps the length"
        if not screen.cursor.hidden and screen.cursor.y == number and screen.cursor.x < len(row):
            row[screen.cursor.x] = row[screen.cursor.x]._replace(reverse=True)
        row = [cell._replace(data=letter) for cell, letter in zip(row, masked, strict=True)]
        drawn += _row(row, _MARGIN + number * _CELL[1])
    size = f'width="{wide:.0f}" height="{high:.0f}"'
    # Without its border the picture would have no edge on a page of the same colour.
    paper = f'<rect x="0.5" y="0.5" width="{wide - 1:.1f}" height="{high - 1:.1f}" rx="8"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" {size} role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text { font: 14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }",
        ".b { font-weight: bold } .i { font-style: italic } .u { text-decoration: underline }</style>",
        f'{paper} fill="{_PAPER}" stroke="#8b93a3"/>',
    ]
    return "\n".join([*head, *drawn, "</svg>\n"])


def _row(row: Sequence[Char], top: float) -> list[str]:
    """Draw a row: what has the same looks is one text, as wide as its cells whatever the font."""
    drawn: list[str] = []
    column = 0
    for looks, cells in itertools.groupby(row, key=lambda cell: cell._replace(data="")):
        text = "".join(cell.data for cell in cells)
        left, wide = _MARGIN + column * _CELL[0], len(text) * _CELL[0]
        column += len(text)
        ink, paper = _colour(looks.fg, _INK), _colour(looks.bg, _PAPER)
        if looks.reverse:
            ink, paper = paper, ink
        if paper != _PAPER:
            drawn.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_CELL[1]}" fill="{paper}"/>')
        if text.strip():
            left += (len(text) - len(text.lstrip())) * _CELL[0]
            text = text.strip()
            marks = [("b", looks.bold), ("i", looks.italics), ("u", looks.underscore)]
            names = " ".join(name for name, wanted in marks if wanted)
            drawn.append(
                f'<text x="{left:.1f}" y="{top + 14:.1f}" textLength="{len(text) * _CELL[0]:.1f}" fill="{ink}"'
                + (f' class="{names}"' if names else "")
                + f' xml:space="preserve">{escape(text, quote=False)}</text>'
            )
    return drawn


def _colour(name: str, default: str) -> str:
    return default if name == "default" else _COLOURS.get(name, f"#{name}")
