"""Commands about code that travels: ship, and unship. Runs in the shell process."""

from __future__ import annotations

import argparse
import contextlib
import glob
import shlex
import signal
import textwrap
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmd2 import Choices, Cmd2ArgumentParser, CommandSet, Statement, with_argparser

from pyrokernel.client import shipping
from pyrokernel.client.group import Group
from pyrokernel.client.listing import ask_all
from pyrokernel.client.shipping import PASTED, Module, read_modules
from pyrokernel.client.versions import (
    describe_differences,
    describe_given_back,
    describe_printed,
    describe_shipped,
    format_shipped,
)
from pyrokernel.client.watching import Watched, ship_at_saves
from pyrokernel.errors import GatherError, RemoteError
from pyrokernel.messages import Shipped
from pyrokernel.shell.display import Display
from pyrokernel.shell.here import Offers
from pyrokernel.shell.parser import Takes, block_of, heads_block, rest_of, takes
from pyrokernel.shell.paths import offer_local_words
from pyrokernel.shell.restricted import refusal
from pyrokernel.texts import describe_silence, label, plural

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

_PATIENCE_SECONDS = 1.0
_WATCH = "--watch"
_USAGE = "usage: ship [--watch] PATH ..., or %%ship NAME and source below"


class ShipCommands(CommandSet["Shell"]):
    """Send code to kernels, and take it away again."""

    DEFAULT_CATEGORY = "Code"

    def __init__(self) -> None:
        super().__init__()
        self._ctrl_c = _CtrlC()

    @takes(Takes.WORD_AND_PYTHON)
    def do_ship(self, statement: Statement) -> None:
        """Send files to the kernels as modules, which they then import: ship [--watch] PATH ...; or list them: ship.

        A PATH is a file, or the folder of a package. Marked functions, and those named remote_..., become commands.
        What was shipped before in the same version is not run again. With --watch each save is shipped, until Ctrl-C.
        Below %%ship NAME, what is pasted or typed is sent as module NAME.
        """
        try:
            with self._ctrl_c:
                self._obey(statement)
        except KeyboardInterrupt as ctrl_c:
            notes = [str(note) for note in getattr(ctrl_c, "__notes__", ())]
            self._cmd.fail("; ".join(["ship: interrupted", *notes]))

    def _obey(self, statement: Statement) -> None:
        """Do what a line or block says."""
        if heads_block(statement.raw):
            self._ship_block(statement.raw)
            return
        try:
            words = shlex.split(rest_of(statement.raw))
        except ValueError as error:
            self._cmd.fail(f"{error}; {_USAGE}")
            return
        paths = [path for word in words if word != _WATCH for path in _meant(word)]
        unknown = [path for path in paths if path.startswith("-")]
        if unknown or (_WATCH in words and not paths):
            self._cmd.fail(_USAGE)
        elif not paths:
            self._list()
        elif self._cmd.restricted:
            refusal("ship PATH", self._cmd.fail)(statement)
        elif _WATCH in words:
            self._watch(paths)
        else:
            # A Path is a file, whatever it looks like; a text may be source.
            self._ship(read_modules([Path(path) for path in paths]))

    def offer_ship(self, text: str) -> Offers:
        """Complete files of this machine, and the option."""
        if "\n" in text or self._cmd.restricted:
            return []
        begin = len(text) - len(text.split(" ")[-1])
        if text[begin:].startswith("-"):
            return [(_WATCH, begin, "ship at each save")] if _WATCH.startswith(text[begin:]) else []
        return offer_local_words(text)

    def _ship_block(self, raw: str) -> None:
        _, name, below = block_of(raw)
        source = textwrap.dedent(below)
        name = name or PASTED
        if not name.isidentifier() or not source.strip():
            self._cmd.fail("usage: %%ship NAME, and on the lines below the source of the module")
            return
        self._ship(read_modules([source + "\n"], name))

    def _ship(self, modules: Sequence[Module]) -> None:
        """Ship, say what became of it, and know the commands that came."""
        group = self._cmd.target.anew()
        printed: dict[str, str] = {}
        try:
            with self._ctrl_c.raised(), self._told_of_busy(group):
                found = shipping.ship(group, modules, None, printed)
            self._cmd.print_lines([*describe_printed(printed), *describe_shipped(found)])
            self._cmd.last_result = found
        except RemoteError as error:
            self._show_errors(group, {error.kernel: error}, {})
        except GatherError as error:
            self._show_errors(group, error.errors, error.replies)
        finally:
            self._cmd.remote.learn(self._cmd.target.group, afresh=True)

    @contextlib.contextmanager
    def _told_of_busy(self, group: Group) -> Iterator[None]:
        """Say to a person who waits what for: a module is loaded as a cell, in its turn."""

        def tell() -> None:
            abouts, _, silent = ask_all(group, "describe")
            # Those that run something, with the shipment behind it.
            busy = [name for name in group.names if name in silent or (name in abouts and abouts[name]["waiting"])]
            if busy and not over.is_set():
                self._cmd.notice(f"{label(busy)}: busy; it is loaded there in its turn (Ctrl-C gives up)")

        over = threading.Event()
        timer = threading.Timer(_PATIENCE_SECONDS, tell)
        timer.daemon = True
        if self._cmd.at_prompt:
            timer.start()
        try:
            yield
        finally:
            over.set()
            timer.cancel()

    def _show_errors(self, group: Group, errors: Mapping[str, Exception], replies: Mapping[str, Any]) -> None:
        """Show what modules raised, as of cells: equal failures once."""
        self._cmd.failed = True
        display = Display(group.names, self._cmd.write)
        for name, error in errors.items():
            if name in group.names:
                text = error.traceback if isinstance(error, RemoteError) and error.traceback else str(error)
                display.error(name, text)
        for name in group.names:
            display.ended(name)
        display.flush(all_of_it=True)
        kept = label([name for name in group.names if name in errors])
        self._cmd.notice(f"{kept}: not shipped; a version from before stays")
        good = {name: [Shipped.from_wire(one) for one in reply.result] for name, reply in replies.items()}
        self._cmd.print_lines(describe_shipped(good))

    def _watch(self, paths: Sequence[str]) -> None:
        """Ship, and ship again what is saved, until Ctrl-C; what fails is shown, and does not end it."""
        watched = Watched(paths)  # before they are read: no save is missed
        watched.check()
        self._cmd.target.anew()

        def began() -> None:
            self._cmd.notice(f"watching {plural(len(paths), 'path')}; Ctrl-C ends it, and kernels keep what they have")

        ship_at_saves(
            watched, self._ship, lambda error: self._cmd.fail(str(error)), began, lambda: self._ctrl_c.pressed
        )
        self._cmd.failed = False
        self._cmd.notice("no longer watched")

    def _list(self) -> None:
        """List what was shipped."""
        found = {
            name: [Shipped.from_wire(one) for one in ones] for name, ones in ask_group(self._cmd, "shipped").items()
        }
        if any(found.values()):
            self._cmd.print_lines([format_shipped(found, now=time.time())])
            for line in describe_differences(found):
                self._cmd.notice(line)
        elif found:
            self._cmd.print_lines(["nothing was shipped; `ship FILE.py` does that"])
        self._cmd.last_result = {name: [one.name for one in ones] for name, ones in found.items()}

    def shipped_names(self) -> Choices:
        """Return the names of what was shipped."""
        found, _, _ = ask_all(self._cmd.target.group, "shipped")
        return Choices.from_values(sorted({str(one["name"]) for ones in found.values() for one in ones}))

    @staticmethod
    def _unship_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(description="Take shipped modules and their commands away from the kernels again.")
        parser.add_argument(
            "names", nargs="+", metavar="NAME", help="of a module", choices_provider=ShipCommands.shipped_names
        )
        return parser

    @with_argparser(lambda: ShipCommands._unship_parser())
    def do_unship(self, args: argparse.Namespace) -> None:
        """Take shipped modules and their commands away from the kernels again."""
        group = self._cmd.target.anew()
        names = [Path(name).stem for name in args.names]
        found = group.unship(*args.names)
        self._cmd.print_lines(describe_given_back(found, names))
        unknown = [name for name in names if not any(name in had for had in found.values())]
        if unknown:
            self._cmd.fail(f"{label(group.names)}: no {', '.join(unknown)} was shipped; `ship` lists what was")
        self._cmd.remote.learn(self._cmd.target.group, afresh=True)
        self._cmd.last_result = found


class _CtrlC:
    """Has SIGINT noted, and raised only where that does no harm: not amid a question to kernels."""

    def __init__(self) -> None:
        self.pressed = False
        self._raises = False
        self._before: Any = None

    def __enter__(self) -> None:
        self.pressed = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the block, and at its beginning for what was pressed before."""
        self._raises = True
        try:
            if self.pressed:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _press(self, signum: int, frame: types.FrameType | None) -> None:
        self.pressed = True
        if self._raises:
            raise KeyboardInterrupt


def ask_group(shell: Shell, method: str) -> dict[str, Any]:
    """Ask all kernels of the current group, by name; tell of those that do not answer."""
    group = shell.target.anew()
    values, errors, silent = ask_all(group, method, timeout=group.mesh.settings.timeout)
    for error in errors.values():
        shell.fail(str(error))
    if silent:
        shell.fail(describe_silence(silent))
    return values


def _meant(word: str) -> list[str]:
    """Return the files that a word means: a pattern those that match, any other itself."""
    if Path(word).expanduser().exists() or not glob.has_magic(word):
        return [word]
    return sorted(glob.glob(str(Path(word).expanduser()))) or [word]
