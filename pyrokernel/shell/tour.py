"""`tour`: the shell taught by doing, one thing after the other. Runs in the shell process.

`Tour` and its steps are data and a position in them; `TourCommands` shows them and watches what is typed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from cmd2 import Cmd2ArgumentParser, CommandSet, with_argparser
from cmd2.plugin import PostcommandData

from pyrokernel.errors import PyrokernelError
from pyrokernel.shell.helping import wrap
from pyrokernel.shell.parser import PYTHON
from pyrokernel.shell.source import bound_names, in_background

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer

    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class


@dataclasses.dataclass(frozen=True)
class Deed:
    """Something that was typed, after it ran.

    Attributes:
        text: As typed.
        command: Which command that was, "" for Python.
        ok: Whether it went well.
        completed: Whether TAB offered something for it.
        interrupted: Whether Ctrl-C ended it.
    """

    text: str
    command: str = ""
    ok: bool = True
    completed: bool = False
    interrupted: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to learn.

    Attributes:
        title: What it is about.
        text: What to type, and what to make of it; {kernel} is the name of one, {more} says how there are more.
        done: Whether a deed was it.
        needs: Commands without which there is nothing to learn here.
        alone: The text where there is one kernel only; "" for the same.
    """

    title: str
    text: str
    done: Callable[[Deed], bool]
    needs: Sequence[str] = ()
    alone: str = ""


STEPS = (
    Step(
        "Python",
        "What is no command is Python, and runs in the kernels. Type:\n    x = 20 + 22",
        lambda deed: not deed.command and deed.ok and "x" in bound_names(deed.text),
    ),
    Step(
        "TAB",
        "TAB asks the kernels what there is: variables, attributes, keys. Type this, with TAB where it says so:\n"
        "    x.bit_l<TAB>",
        lambda deed: not deed.command and deed.completed,
    ),
    Step(
        "some of the kernels",
        "Python goes to all kernels of the group; `on` sends one line to some, `use` chooses where all lines go, `ps` "
        "lists the kernels. Type:\n"
        "    on {kernel} x + 1",
        lambda deed: deed.command == "on" and deed.ok,
        ("on", "use"),
        "`on` sends one line to some of the kernels, `use` chooses where all lines go, `ps` lists the kernels. Type:\n"
        "    on {kernel} x + 1\n"
        "{more}",
    ),
    Step(
        "data to kernels and back",
        "`scatter` gives each kernel its part of a sequence, `gather` joins the parts here. Type line by line:\n"
        "    scatter part = range(10)\n"
        "    part = [n * n for n in part]\n"
        "    gather part\n"
        "What was gathered is in a Python of the shell's own: `here sum(part)`.",
        lambda deed: deed.command == "gather" and deed.ok,
        ("scatter", "gather", "here"),
    ),
    Step(
        "what all share",
        "What is set in `shared.m` all kernels have, now and later, and it outlives them; `shared` lists it. Type:\n"
        '    shared.m["tour"] = x\n'
        "    shared\n"
        "`shared history tour` tells its past, `shared rm tour` takes it away again.",
        lambda deed: deed.command == "shared" and deed.ok,
        ("shared",),
    ),
    Step(
        "questions",
        "A kernel that asks is answered here; of several that ask, each in its turn. Type, and answer:\n"
        '    on {kernel} name = input("who? ")',
        lambda deed: deed.command in ("", "on") and deed.ok and "input(" in deed.text,
        alone='A kernel that asks is answered here. Type, and answer:\n    name = input("who? ")',
    ),
    Step(
        "Ctrl-C",
        "Ctrl-C interrupts what runs, and leaves kernel, variables and shell alone. Type, wait a moment, Ctrl-C:\n"
        "    import time; time.sleep(60)",
        lambda deed: deed.interrupted,
    ),
    Step(
        "in the background",
        "With `&` at its end a line runs on while you type others; a word above the prompt tells its end. Type:\n"
        "    import time; time.sleep(5); x &",
        lambda deed: deed.ok and bool(in_background(deed.text)),
    ),
    Step(
        "what ran",
        "The kernels remember what ran and what it printed, whoever sent it: `cells` lists it, `cells 1` shows one "
        "again, `logs {kernel}` is the end of it all. Type:\n"
        "    cells",
        lambda deed: deed.command == "cells" and deed.ok,
        ("cells", "logs"),
    ),
)

LEAVING = (
    "Now leave with Ctrl-D, or `exit`, and come back with `pyrokernel shell`: `x` is still there, also from another "
    "terminal, also while something runs. `help` lists all commands. That was the tour."
)


_OTHERS = "One is in use, and more run: `use all` takes them all."
_ALONE = "There is one now; `pyrokernel serve -n 3` in another terminal makes them three in all."


class Tour:
    """How far somebody is.

    Args:
        commands: Those there are; steps about others are left out.

    Attributes:
        kernels: Names of those in use, at least one.
        others: How many more the mesh has.
        steps: What there is to learn.
        position: Index of the step they are at; the number of steps when they have done all.
    """

    def __init__(self, commands: Collection[str]) -> None:
        self.steps = [step for step in STEPS if all(name in commands for name in step.needs)]
        self.position = 0
        self.kernels: Sequence[str] = ("k0",)
        self.others = 0

    @property
    def over(self) -> bool:
        """Whether all is done."""
        return self.position >= len(self.steps)

    @property
    def text(self) -> str:
        """What to say now."""
        if self.over:
            return LEAVING
        step = self.steps[self.position]
        text = step.alone if step.alone and len(self.kernels) == 1 else step.text
        text = text.format(kernel=self.kernels[-1], more=_OTHERS if self.others else _ALONE)
        return f"Tour {self.position + 1} of {len(self.steps)}: {step.title}\n{text}"

    def take(self, deed: Deed) -> bool:
        """Note what was typed; say whether that was the step."""
        if self.over or not self.steps[self.position].done(deed):
            return False
        self.position += 1
        return True

    def skip(self) -> None:
        """Go on to the next step."""
        self.position = min(self.position + 1, len(self.steps))


class TourCommands(CommandSet["Shell"]):
    """Teach the shell."""

    DEFAULT_CATEGORY = "Shell"

    def __init__(self) -> None:
        super().__init__()
        self._tour: Tour | None = None
        self._watching = False
        self._completed = False

    @staticmethod
    def _tour_parser() -> Cmd2ArgumentParser:
        parser = Cmd2ArgumentParser(
            description="Learn the shell by doing. Anything may be typed meanwhile; the tour goes on when its line was."
        )
        parser.add_argument(
            "step", nargs="?", choices=("next", "stop"), help="pass over a step, or end; else begin, or show it again"
        )
        return parser

    @with_argparser(lambda: TourCommands._tour_parser())
    def do_tour(self, args: argparse.Namespace) -> None:
        """Learn the shell by doing, in a few minutes."""
        if not self._cmd.at_prompt:
            self._cmd.fail("the tour needs a person at a prompt")
        elif args.step == "stop":
            self._say("the tour is over; `tour` begins anew" if self._tour else "there is no tour now")
            self._tour = None
        else:
            if self._tour is None:
                self._tour = Tour(self._cmd.get_visible_commands())
                self._watch()
                self._say("`tour` says again what to do, `tour next` passes over it, `tour stop` ends.")
            elif args.step == "next":
                self._tour.skip()
            self._show(self._tour)

    def _show(self, tour: Tour) -> None:
        target = self._cmd.target
        tour.kernels = target.group.names or tour.kernels
        with contextlib.suppress(PyrokernelError):  # nobody asked for the name server
            tour.others = len(set(target.mesh.names).difference(tour.kernels))
        self._say("\n" + tour.text)
        if tour.over:
            self._tour = None

    def _say(self, text: str) -> None:
        self._cmd.print_lines(part for line in text.split("\n") for part in wrap(line, self._cmd.width))

    def _watch(self) -> None:
        """Begin to see what is typed."""
        if not self._watching:
            self._watching = True
            self._cmd.register_postcmd_hook(self._after)
            self._cmd.main_session.default_buffer.on_completions_changed += self._offered

    def _offered(self, buffer: Buffer) -> None:
        # They also change when there are none any more.
        self._completed = self._completed or buffer.complete_state is not None

    def _after(self, data: PostcommandData) -> PostcommandData:
        """Take note of a line that ran; cmd2 calls this after each."""
        text = data.statement.raw
        if self._tour is not None and len(self._cmd.reader.split(text)) == 1:
            command = "" if data.statement.command == PYTHON else data.statement.command
            endings = self._cmd.runner.outcomes.values() if self._cmd.failed and not command else ()
            interrupted = any(ending.get("ename") == "KeyboardInterrupt" for ending in endings)
            deed = Deed(text, command, not self._cmd.failed, self._completed, interrupted)
            self._completed = False
            if self._tour.take(deed):
                self._show(self._tour)
        return data
