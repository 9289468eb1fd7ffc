"""The tutorial of plugins: each kind of contribution in a few lines. Runs in kernels; its last part in front ends.

A plugin is this: functions, and below them the hooks that hand them over. What a hook is called for,
and when, says docs/hooks.md. Three hooks are left to others, who need them: pyrokernel-sage rewrites
source (`pyrokernel_transform_source`), pyrokernel-timeseries imports NumPy once for all kernels
(`pyrokernel_preload`), pyrokernel-redis keeps the shared state (`pyrokernel_open_store`).
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pyrokernel
from pyrokernel import hookimpl
from pyrokernel.commands import Context
from pyrokernel.hookspecs import RegisterCommand, RegisterSubcommand

GREETINGS = {"en": "hello", "de": "guten Tag", "fr": "bonjour"}

# A module is imported once in each kernel: what it keeps is the kernel's.
_stop = threading.Event()
_tally: dict[str, Any] = {"cells": 0, "seconds": 0.0, "running": ""}


# Commands. Annotations and docstring are the whole description: they check the arguments of a call from Python,
# and they are the parser, the help and the TAB completion of the shell and of `pyrokernel call`.


def hello(self: Context, who: str = "world", times: int = 1, language: Literal["en", "de", "fr"] | None = None) -> str:
    """Greet somebody.

    Args:
        who: Whom.
        times: How often.
        language: In which; unless given that of the configuration, `[plugins.hello] language`, else English.
    """
    greeting = GREETINGS[language or self.settings.get("language", "en")]
    return ", ".join([greeting] * times) + f" {who}, this is {self.kernel}"


def hello_count(self: Context, to: int = 10, pause: float = 0.0) -> Iterator[int]:
    """Count from 1; the numbers arrive one by one, and `hello_abort` ends it.

    Args:
        to: The last number.
        pause: Seconds before each.
    """
    _stop.clear()
    for number in range(1, to + 1):
        if _stop.wait(pause):
            self.log.info("ended at %d", number - 1)
            return
        self.progress(number, to, "counting")
        yield number


def hello_abort() -> str:
    """End `hello_count`; it is safe, so it does not wait until the kernel is free."""
    _stop.set()
    return "counting ends"


def hello_cells() -> dict[str, Any]:
    """Tell how many cells have run here, how many seconds they took, and which one runs now."""
    return dict(_tally)


# The hooks: in kernels.


@hookimpl
def pyrokernel_register_commands(register: RegisterCommand) -> None:
    """Register the commands."""
    register(hello)
    register(hello_count)
    register(hello_abort, safe=True)
    register(hello_cells, safe=True)


@hookimpl
def pyrokernel_add_names() -> Mapping[str, object]:
    """Give every namespace `GREETINGS`."""
    return {"GREETINGS": GREETINGS}


@hookimpl
def pyrokernel_cell_started(cell: Mapping[str, Any]) -> None:
    """Note what runs."""
    _tally["running"] = cell["source"]


@hookimpl
def pyrokernel_cell_ended(cell: Mapping[str, Any]) -> None:
    """Count it."""
    _tally.update(cells=_tally["cells"] + 1, seconds=_tally["seconds"] + cell["duration"], running="")


# The hooks: in the shell and on the command line. A command needs neither; these act in the front end itself.


@hookimpl
def pyrokernel_register_command_sets(register: Callable[[Any], None]) -> None:
    """Register `hello_here`; cmd2 is imported in here, because kernels do without it."""
    import cmd2

    class HelloCommands(cmd2.CommandSet[Any]):
        DEFAULT_CATEGORY = "Hello"

        def do_hello_here(self, _: cmd2.Statement) -> None:
            """Name the kernels to which the next line goes."""
            self._cmd.print_lines([f"hello {name}" for name in self._cmd.target.group.names])

    register(HelloCommands())


@hookimpl
def pyrokernel_register_subcommands(register: RegisterSubcommand) -> None:
    """Register `pyrokernel hello-all`."""

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("who", nargs="?", default="world", help="whom they greet (default: world)")

    def run(arguments: argparse.Namespace, settings: pyrokernel.Settings) -> int:
        with pyrokernel.connect(settings) as mesh:
            for greeting in mesh[:].call("hello", arguments.who).values():
                print(greeting)
        return 0

    register("hello-all", run, help="have all kernels greet somebody", configure=configure)


# The hook of the gateway, which lets other machines in.


@hookimpl
def pyrokernel_policy(user: str, settings: Mapping[str, Any]) -> str | None:
    """Let guests look, those of `[plugins.hello] guests`; of all others the policy's file decides."""
    return "observer" if user in settings.get("guests", ()) else None
