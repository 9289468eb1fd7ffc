"""Pictures are drawn where the terminal can, and only real ones."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pyrokernel.shell import pictures
from pyrokernel.shell.pictures import draw

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
KITTY = {"TERM": "xterm-kitty"}
ITERM = {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "figure-1.png"
    path.write_bytes(PNG)
    return str(path)


def test_iterm_gets_it_whole(picture: str) -> None:
    head, _, rest = draw(picture, ITERM).partition(":")
    assert head == f"\x1b]1337;File=inline=1;size={len(PNG)}"
    assert base64.b64decode(rest.removesuffix("\x07\n")) == PNG


def test_kitty_gets_it_in_pieces(picture: str) -> None:
    *pieces, end = draw(picture, KITTY).split("\x1b\\")
    assert end == "\n"
    heads, texts = zip(*(piece.split(";") for piece in pieces), strict=True)
    assert heads == ("\x1b_Gf=100,a=T,q=2,m=1", *["\x1b_Gm=1"] * (len(pieces) - 2), "\x1b_Gm=0")
    assert max(map(len, texts)) <= 4096
    assert base64.b64decode("".join(texts)) == PNG


@pytest.mark.parametrize(
    "environ", [{}, {"TERM": "xterm"}, {"TERM": "dumb"}, {**KITTY, "TMUX": "1"}, {**ITERM, "STY": "1"}]
)
def test_other_terminals_get_nothing(picture: str, environ: dict[str, str]) -> None:
    assert draw(picture, environ) == ""


def test_what_is_no_picture_or_not_here_or_too_large_is_not_sent(
    picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("\x1b]0;title\x07")
    assert draw(str(tmp_path / "text"), KITTY) == ""
    assert draw(str(tmp_path / "gone"), KITTY) == ""
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    assert draw(picture, KITTY) == ""
