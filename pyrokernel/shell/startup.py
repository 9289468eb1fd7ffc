"""The lines that a shell runs before its first prompt. Runs in the shell process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pyrokernel.settings import Settings, configuration_dir
from pyrokernel.shell.parser import Piece
from pyrokernel.texts import one_line

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell


def startup_file(settings: Settings) -> Path:
    """Return where the lines are: the setting `shell_startup`, else `shell.pk` beside the configuration file."""
    if settings.shell_startup:
        return Path(settings.shell_startup).expanduser()
    return configuration_dir() / "shell.pk"


def run_startup(shell: Shell, path: Path, *, wanted: bool) -> bool:
    """Run a startup file; whatever fails in it is told with its line, and the rest runs all the same.

    Settings are made without a word. Says whether a line of it leaves the shell.

    Args:
        shell: Whose.
        path: The file.
        wanted: Whether somebody named it, so that it is missed when it does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if wanted:
            shell.fail(f"there is no startup file {path}")
        return False
    except (OSError, UnicodeError) as error:
        shell.fail(f"cannot read the startup file {path}: {error}")
        return False
    lines = text.split("\n")
    shell.quiet = True
    try:
        for number, piece in numbered(shell.reader.pieces(lines), lines):
            if not shell.run_pieces([piece]):
                shell.notice(f"{path}, line {number}: {one_line(piece.text)}")
            if shell.left:
                return True
    except KeyboardInterrupt:
        shell.fail(f"{path}: interrupted; the rest of it was not run")
    finally:
        shell.quiet = shell.failed = False
    return False


def numbered(pieces: Iterable[Piece], lines: list[str]) -> Iterator[tuple[int, Piece]]:
    """Yield the pieces of a script, each with the number of the line where it begins.

    Args:
        pieces: In the order of the script, which are whole lines of it.
        lines: Of the script.
    """
    whole = [line.rstrip("\r") for line in lines]
    begin = 0
    for piece in pieces:
        block = piece.text.split("\n")
        while whole[begin : begin + len(block)] != block:
            begin += 1
        yield begin + 1, piece
        begin += len(block)
