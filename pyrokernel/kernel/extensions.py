"""What plugins and shipped files bring into a kernel: commands, names, hooks. Runs in the kernel process.

Plugins are loaded when first needed: by the first cell or call, or by whoever asks for commands.
A kernel for which none is installed pays nothing.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

from pyrokernel import plugins as plugins_module
from pyrokernel.client.shared import of_this_process
from pyrokernel.commands import BoundCommand, Command, CommandTable, Context, KernelIdentity
from pyrokernel.errors import PluginError
from pyrokernel.kernel.interpreter import Interpreter
from pyrokernel.kernel.shipping import Shipping
from pyrokernel.messages import CommandInfo, PluginInfo, Shipped
from pyrokernel.plugins import Plugins
from pyrokernel.settings import Settings
from pyrokernel.shelf import Shelf

_PROGRESS_SECONDS = 0.1
"""Reports of progress that follow each other faster are not told."""


_RUN = ("shipped", "replaced", "rerun")


class Extensions:
    """The plugins of a kernel, what was shipped to it, and the commands of both.

    Args:
        identity: The kernel.
        instance: Which life of it.
        settings: Which plugins to go without, and their sections.
        interpreter: Whose namespaces get the names.
        shelf: Where the files of shipped modules are.
        report: Called with (cell, done, total, text) when a command tells of its progress.

    Attributes:
        ready: Whether `prepare` has been done.
        observed: The hooks by which plugins want to know of cells, and all others that they have.
    """

    def __init__(
        self,
        identity: KernelIdentity,
        instance: str,
        settings: Settings,
        interpreter: Interpreter,
        shelf: Shelf,
        report: Callable[[str, float, float, str], None],
    ) -> None:
        self.table = CommandTable()
        self.shipping = Shipping(identity.name, shelf, self.table, self.given, self.transform)
        self._identity = identity
        self._instance = instance
        self._settings = settings
        self._interpreter = interpreter
        self._report = report
        self._own: dict[str, Any] = {"shared": of_this_process()}
        self._names: dict[str, Any] = {}
        self._functions: dict[str, tuple[Command, Any]] = {}
        self._plugins: Plugins | None = None
        self.observed: frozenset[str] = frozenset()
        self.ready = self._loaded = False
        self._lock = threading.RLock()
        self.give()

    def load(self) -> None:
        """Load the plugins and take their commands, unless that is done; any thread."""
        if self._loaded:
            return
        with self._lock:
            if self._plugins is None:
                self._plugins = Plugins(self._settings, plugins_module.find(self._settings))
            plugins = self._plugins
            plugins.load(lambda plugin: plugins.take_commands(plugin, self.table, self._identity))
            self.observed = frozenset(hook for plugin in plugins.all for hook in plugin.hooks)
            self._loaded = True

    def prepare(self) -> None:
        """Load the plugins and give their names, unless that is done; in the main thread, where names are made.

        What makes them may import libraries that insist on the main thread, and may be interrupted there.
        """
        if self.ready:
            return
        self.load()
        self._take_names()
        self.ready = True
        self.give()

    def given(self) -> dict[str, Any]:
        """Return the names that the kernel itself and its plugins give."""
        return self._own | self._names

    def transform(self, source: str, filename: str) -> str:
        """Rewrite source before it is compiled, if a plugin wants that."""
        if self._plugins is not None and self._plugins.implements("pyrokernel_transform_source"):
            arguments = {"source": source, "filename": filename, "kernel": self._identity}
            for plugin, changed in self._plugins.each("pyrokernel_transform_source", **arguments):
                if isinstance(changed, str):
                    return changed
                plugin.note(f"pyrokernel_transform_source returned {type(changed).__name__}, not source")
        return source

    def tell(self, hook: str, cell: dict[str, Any]) -> None:
        """Tell the plugins of a cell that begins or has ended."""
        if self._plugins is not None:
            for _ in self._plugins.each(hook, cell=types.MappingProxyType(cell), kernel=self._identity):
                pass

    def command(self, name: Any) -> Command | None:
        """Return a command, None when there is none of that name."""
        self.load()
        return self.table.get(name) if isinstance(name, str) else None

    def commands(self) -> list[CommandInfo]:
        """Describe all commands, by name."""
        self.load()
        return [_info(each) for each in self.table.all()]

    def plugins(self) -> list[PluginInfo]:
        """Describe all plugins, by name."""
        self.load()
        return self._plugins.infos() if self._plugins is not None else []

    def context(self, each: Command, cell: str, namespace: str) -> Context:
        """Make the context of a call of a command.

        Args:
            each: The command.
            cell: Id of the cell that calls it.
            namespace: Where.
        """
        told_at, ended = 0.0, False

        def progress(done: float, total: float = 1.0, text: str = "") -> None:
            nonlocal told_at, ended
            now, ends = time.monotonic(), done >= total and not ended
            if ends or now - told_at >= _PROGRESS_SECONDS:
                told_at, ended = now, ended or ends
                self._report(cell, float(done), float(total), str(text))

        return Context(
            kernel=self._identity.name,
            instance=self._instance,
            tags=self._identity.tags,
            namespace=self._interpreter.namespace(namespace).variables,
            settings=each.settings,
            log=logging.getLogger(f"pyrokernel.command.{each.name}"),
            progress=progress,
        )

    def ship(self, wanted: list[Shipped]) -> list[dict[str, Any]]:
        """Load shipped modules; see `Shipping.take`. In the main thread."""
        try:
            done = self.shipping.take(wanted)
        finally:
            self.give()
        for name in sorted(
            {name for one in done if one.state in _RUN for name in one.commands if self._is_taken(name)}
        ):
            whose = "builtin" if hasattr(builtins, name) else "kernel's own"
            print(f"{name}: the {whose} comes first; the command is called as :{name}", file=sys.stderr)
        return [one.to_wire() for one in done]

    def unship(self, names: list[str]) -> list[str]:
        """Forget shipped modules; return the names of those that were loaded. In the main thread."""
        try:
            return self.shipping.give_back(names)
        finally:
            self.give()

    def give(self) -> None:
        """Bring the names in the namespaces up to date: those of plugins, and the commands."""
        functions: dict[str, tuple[Command, Any]] = {}
        for each in self.table.all():
            if self._is_taken(each.name):
                continue  # `open` and `shared` in a cell are what they always were
            held = self._functions.get(each.name)
            functions[each.name] = held if held and held[0] is each else (each, self._function_of(each))
        self._functions = functions
        self._interpreter.give({name: function for name, (_, function) in functions.items()} | self.given())

    def _is_taken(self, name: str) -> bool:
        """Whether no command has this name in a namespace."""
        return name in self._own or hasattr(builtins, name)

    def _function_of(self, each: Command) -> Callable[..., Any]:
        def context() -> Context:
            cell, namespace = self._interpreter.running
            return self.context(each, cell, namespace)

        return BoundCommand(each, context)

    def _take_names(self) -> None:
        """Take the names that plugins give; what cannot be taken is noted."""
        names: dict[str, Any] = {}
        givers: dict[str, str] = {}
        assert self._plugins is not None  # loaded before
        for plugin, given in self._plugins.each("pyrokernel_add_names", kernel=self._identity):
            if not isinstance(given, Mapping):
                plugin.note(f"pyrokernel_add_names returned {type(given).__name__}, not names with their values")
                continue
            plugin.names = []
            for name, value in given.items():
                if not isinstance(name, str) or not name.isidentifier():
                    plugin.note(f"pyrokernel_add_names gives {name!r}, which is no name")
                elif name in self._own:
                    plugin.note(f"the name {name!r} is the kernel's own, and stays so")
                elif name in givers:
                    plugin.note(f"the name {name!r} is given by plugin {givers[name]!r} already, which comes first")
                else:
                    names[name], givers[name] = value, plugin.name
                    plugin.names.append(name)
        self._names = names


def _info(each: Command) -> CommandInfo:
    """Describe a command; one of a shipped file whose signature cannot be read says so."""
    try:
        return each.info
    except PluginError as error:
        return CommandInfo(name=each.name, owner=each.owner, doc=str(error))
