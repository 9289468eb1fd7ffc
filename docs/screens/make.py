"""The pictures in docs/shell.md, made anew: run `python docs/screens/make.py [NAME ...]` with the extra `docs`.

Each moment is played on a private mesh of its own, by keys typed into a real shell in a real
pseudo-terminal; what it shows goes to an emulated terminal, whose screen is drawn. Nothing is
staged but ids and measures, which would differ each time: they are replaced where they stand.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]

import pyte  # noqa: E402 - the path comes first
from svg import Screen, picture  # noqa: E402
from terminals import Terminal  # noqa: E402

import pyrokernel as pk  # noqa: E402

ROWS, COLUMNS = 40, 106
CTRL_C, CTRL_L, TAB, BACKSPACE = "\x03", "\x0c", "\t", "\x7f"
GPUS = ("a100", "a100", "h100", "h100")
"""What the environment variable GPU is in each kernel, so that they have something to differ in."""

_USER = getpass.getuser()
_IDS = ("3fa2b1c4", "9605002c", "c81e728d", "1b6453a9")
_MASKS = {
    r"(?<=peak memory )\d+ MiB": "19 MiB",
    r"\b\d+ ms": "1 ms",
    r"\b2\.\d s": "2.0 s",
    r"\b3\.\d s": "3.0 s",
    rf"\b{re.escape(_USER)}\b": "you".ljust(len(_USER)),
}


class Mask:
    """Replaces what differs from run to run by something of the same length; the same id by the same."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def __call__(self, line: str) -> str:
        """Return a row as it is drawn."""
        for pattern, fixed in _MASKS.items():
            for match in re.finditer(pattern, line):
                line = line[: match.start()] + fixed.rjust(len(match[0]))[-len(match[0]) :] + line[match.end() :]
        return re.sub(r"\b(?=[a-f]*\d)[0-9a-f]{8}\b", self._fixed_id, line)

    def _fixed_id(self, match: re.Match[str]) -> str:
        return self._ids.setdefault(match[0], _IDS[len(self._ids) % len(_IDS)])


class Player:
    """Plays at a shell, and sees what a person would see.

    Args:
        mesh: Whose kernels it is on.
        words: The first group, as for `use`.
    """

    def __init__(self, mesh: pk.Mesh, *words: str) -> None:
        self.screen = Screen(COLUMNS, ROWS)
        environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
        command = [sys.executable, "-m", "pyrokernel", "shell", "--no-startup", *words]
        paths = {"PYTHONPATH": str(HERE.parents[1])}
        self._terminal = Terminal(
            command, {**environ, **paths, **mesh.settings.to_env()}, (ROWS, COLUMNS), pyte.ByteStream(self.screen).feed
        )
        self.at_prompt()
        # Python has colours a moment after the first prompt; what is typed sooner may or may not be in them.
        self.type("'")
        self._until(lambda _: self._before_cursor() not in ("", "default"), "a quote in colour")
        self.type(BACKSPACE)
        self.at_prompt()

    def _before_cursor(self) -> str:
        """Return the colour of the character before the cursor, "" where there is none."""
        cursor = self.screen.cursor
        cell = self.screen.buffer[cursor.y][cursor.x - 1]
        return str(cell.fg) if cell.data == "'" else ""

    def at_prompt(self, typed: str = "") -> None:
        """Wait for the prompt, with nothing or something typed behind it and nothing below."""
        shown = re.compile(rf"(k\d|\d kernels)( \(.*\))?> ?{re.escape(typed)}")
        self._until(lambda lines: shown.fullmatch(lines[-1]), f"the prompt with {typed!r}")

    def sees(self, *texts: str) -> None:
        """Wait until texts are on the screen."""
        self._until(lambda lines: all(text in "\n".join(lines) for text in texts), " and ".join(texts))

    def clear(self) -> None:
        """Clear the screen."""
        self.type(CTRL_L)
        self._until(lambda lines: len(lines) == 1, "an empty screen")

    def type(self, keys: str) -> None:
        """Press keys."""
        self._terminal.type(keys)

    def run(self, *cells: str) -> None:
        """Enter lines or blocks one by one, each at the prompt, and wait for the next."""
        for cell in cells:
            self.begin(cell)
            self.at_prompt()

    def begin(self, cell: str) -> None:
        """Enter a line or block, and wait until something comes of it."""
        self.type(cell)
        last = cell.rpartition("\r")[2] or "..."
        self._until(lambda lines: lines[-1].endswith(last), last)
        self.type("\r")
        self._until(lambda lines: not lines[-1].endswith(last), f"what {cell!r} does")

    def close(self) -> None:
        """Leave, whatever goes on."""
        self._terminal.close()

    def _until(self, condition: Callable[[list[str]], object], wanted: str) -> None:
        self._terminal.until(lambda: condition(self.screen.shown() or [""]), wanted, timeout=30)


def answers(player: Player) -> None:
    """The first prompt: a cell on four kernels, equal and different answers folded, each with its kernels."""
    player.run("20 + 22", "import os", "os.environ['GPU']", "on k2 os.environ['GPU'].upper()")


def tab(player: Player) -> None:
    """The menu of TAB on four kernels: names with types, and the number of kernels that have them."""
    player.run("epoch, weights = 12, [0.5] * 8", "on k3 weights = {'w': 0.5}", "on k0,k1 weekly = 'monday'")
    player.clear()
    player.type("we")
    player.at_prompt("we")
    player.type(TAB)
    player.sees("2 of 4", "type differs on k3")


def live(player: Player) -> None:
    """The line that says who has answered and who still runs, below the answers that are there."""
    player.run("import os, threading", "slow = os.environ['GPU'] == 'a100'; gate = threading.Event()")
    player.clear()
    player.begin("print('epoch 12'); slow and gate.wait(); 0.97")
    player.sees("2 of 4 done, k0-k1 run, 3")


def interrupt(player: Player) -> None:
    """Ctrl-C and its receipt; Ctrl-C again, where the cell caught the first, and the question that it asks."""
    player.run("import time")
    player.clear()
    player.begin("time.sleep(60)")
    player.type(CTRL_C)
    player.at_prompt()
    player.begin("while True:\rtry: time.sleep(60)\rexcept KeyboardInterrupt: print('not now')\r")
    player.type(CTRL_C)
    player.sees("Ctrl-C again offers")
    player.type(CTRL_C)
    player.sees("[w/k/l]")


def error(player: Player) -> None:
    """An error that two of four kernels raise, shown once with their names, beside the answer of the others."""
    player.run("import os", "cores = {'a100': 8, 'h100': 0}[os.environ['GPU']]")
    player.clear()
    player.run("def share(work):\rreturn work / cores\r", "share(1000)")


def background(player: Player) -> None:
    """A cell in the background, its notice above a half-typed line, and the list of cells."""
    player.run("import threading")
    player.clear()
    player.begin("threading.Event().wait(2); sum(range(10**6)) &")
    player.at_prompt()
    player.type("print('half-typed")
    player.sees("done in")
    player.type(" line')\r")
    player.at_prompt()
    player.run("cells")


def data(player: Player) -> None:
    """Scatter and gather, and the bar of a map that is under way."""
    player.run("import threading", "def train(seed):\rreturn seed if seed < 24 else threading.Event().wait()\r")
    player.clear()
    player.run("scatter x = range(1000)", "y = [n ** 2 for n in x]", "gather y")
    player.begin("map train over range(40)")
    player.sees("] 24 of 40, 2")


def death(player: Player) -> None:
    """A kernel that dies in the middle of a cell: its last words, the cause, and the fresh kernel of the same name."""
    player.run("import os")
    player.clear()
    player.run("epoch = 12", "on k2 print('last words'); os.kill(os.getpid(), 9)", "epoch * 2")


def flood(player: Player) -> None:
    """A million lines, cut after the first few; the last of them follow, and the way to see all."""
    player.run("set lines 4")
    player.clear()
    player.run("for n in range(1_000_000): print('line', n)")


MOMENTS: dict[str, tuple[Callable[[Player], None], tuple[str, ...]]] = {
    "answers": (answers, ()),
    "tab": (tab, ()),
    "live": (live, ()),
    "interrupt": (interrupt, ("k0",)),
    "error": (error, ()),
    "background": (background, ("k0",)),
    "data": (data, ()),
    "death": (death, ()),
    "flood": (flood, ("k0",)),
}
"""By the name of its picture, what is played and on which kernels."""


def make(name: str) -> None:
    """Play a moment and write its picture."""
    play, words = MOMENTS[name]
    specs = [pk.KernelSpec(name=f"k{number}", env={"GPU": gpu}) for number, gpu in enumerate(GPUS)]
    with pk.local(specs) as mesh:
        player = Player(mesh, *words)
        try:
            play(player)
            (HERE / f"{name}.svg").write_text(picture(player.screen, play.__doc__ or name, Mask()), encoding="utf-8")
        finally:
            player.close()


def main() -> None:
    """Make the pictures that are named, or all."""
    for name in sys.argv[1:] or MOMENTS:
        make(name)
        print(HERE / f"{name}.svg")


if __name__ == "__main__":
    main()
