"""The plugin contract: every hook that a plugin may implement, one page each. Runs in every process.

A plugin is a module, named by an entry point of the group `pyrokernel`; it implements what it
needs of the functions below, marked with `hookimpl`::

    from pyrokernel import hookimpl

    @hookimpl
    def pyrokernel_register_commands(register):
        register(hello)

An implementation takes those of the arguments that it needs, by their names. `settings` is always
the plugin's own section of the configuration, `[plugins.NAME]`, {} when there is none. What a hook
raises is noted beside the plugin's name (`pyrokernel plugins` shows it) and harms nobody else.
Whatever is heavy is imported inside functions: a plugin is imported where it is first used.
docs/hooks.md shows each hook with an example that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from pyrokernel.commands import KernelIdentity
from pyrokernel.stores import Store

if TYPE_CHECKING:
    import argparse

PROJECT = "pyrokernel"
"""Name of the entry-point group, and what the names of all hooks begin with."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterCommand(Protocol):
    """What `pyrokernel_register_commands` is handed."""

    def __call__(self, function: Callable[..., Any], *, name: str = "", safe: bool = False) -> None:
        """Make a function a command, named like it unless `name` says otherwise; `safe` as in `command`."""


class RegisterSubcommand(Protocol):
    """What `pyrokernel_register_subcommands` is handed."""

    def __call__(
        self,
        name: str,
        run: Callable[..., int],
        *,
        help: str = "",
        configure: Callable[[argparse.ArgumentParser], None] | None = None,
    ) -> None:
        """Add `pyrokernel NAME`: `run(args, settings)` returns the exit code, `configure(parser)` adds arguments."""


@hookspec
def pyrokernel_register_commands(
    register: RegisterCommand, kernel: KernelIdentity, settings: Mapping[str, Any]
) -> None:
    """Contribute commands: functions that can be called on a kernel by name.

    Called once in each kernel, in any of its threads, before its first cell or when somebody asks for commands.

    Args:
        register: Call it once for each function. One annotated function gives the remote call, the shell command
            and `pyrokernel call`; a first parameter `self` receives the context of the call (`commands.Context`).
        kernel: Where this happens, for plugins that serve only some kernels.
        settings: The plugin's own section of the configuration.

    A name that another plugin or a shipped file has is refused: the plugin keeps its other commands, and
    `pyrokernel plugins` names both owners.

    Source: llm's `register_tools`, which hands over `register` in the same way.
    """


@hookspec
def pyrokernel_add_names(kernel: KernelIdentity, settings: Mapping[str, Any]) -> Mapping[str, object]:
    """Contribute names that cells and shipped files find without an import.

    Called once in each kernel before its first cell.

    Args:
        kernel: Where this happens.
        settings: The plugin's own section of the configuration.

    Returns:
        Value by name. The names are set in every namespace and in the globals of shipped modules before those run.
        A user may overwrite them; `who` leaves them out until then. Names of commands need not be given: they are
        set too. Of two plugins that give the same name the first in alphabetical order has it.
    """
    raise NotImplementedError


@hookspec
def pyrokernel_transform_source(
    source: str, filename: str, kernel: KernelIdentity, settings: Mapping[str, Any]
) -> str | None:
    """Rewrite source before it is compiled, as a dialect of Python needs it.

    Called in the main thread of a kernel for each cell, and for each file that is shipped. Of several plugins the
    first in alphabetical order that returns a text has its way: dialects do not mix. The journal, `_i` and the
    lists of cells have what was typed; tracebacks show the lines that were typed, so the number of lines should
    stay the same.

    Args:
        source: What is to run.
        filename: "<cell 3>" for a cell, else the name of the file, such as "analysis.py" or "script.sage".
        kernel: Where this happens.
        settings: The plugin's own section of the configuration.

    Returns:
        The new source; None to leave it as it is. A hook that raises leaves it as it is as well, and is noted.
    """
    raise NotImplementedError


@hookspec
def pyrokernel_cell_started(cell: Mapping[str, Any], kernel: KernelIdentity, settings: Mapping[str, Any]) -> None:
    """Learn that a cell begins to run.

    Called in the main thread of a kernel; the cell waits for the hook, and what the hook prints belongs to the cell.

    Args:
        cell: id, source (or how a call reads), author, namespace, execution_count.
        kernel: Where this happens.
        settings: The plugin's own section of the configuration.
    """


@hookspec
def pyrokernel_cell_ended(cell: Mapping[str, Any], kernel: KernelIdentity, settings: Mapping[str, Any]) -> None:
    """Learn that a cell has ended.

    Called in the main thread of a kernel, before the reply leaves; what the hook prints belongs to the cell.

    Args:
        cell: As for `pyrokernel_cell_started`, and status ("ok" or "error"), duration (seconds), ename, evalue.
        kernel: Where this happens.
        settings: The plugin's own section of the configuration.
    """


@hookspec
def pyrokernel_register_command_sets(register: Callable[[Any], None], settings: Mapping[str, Any]) -> None:
    """Contribute commands to the interactive shell that act in the process of the shell.

    Called once, when a shell starts. A command of kernels needs no such thing: it is a shell command by itself.

    Args:
        register: Call it with a `cmd2.CommandSet`; `self._cmd` in it is the shell: `target.group` are the current
            kernels, `fail(text)` says why something failed, `print_lines(lines)` shows lines. A set that reads
            files or starts programs says `LOCAL = True`, and a shell for others goes without it. Set
            `DEFAULT_CATEGORY` to say under which heading `help` lists it.
        settings: The plugin's own section of the configuration.

    A name that the shell has already is refused, with the plugin's whole set, and noted.
    """


@hookspec
def pyrokernel_register_subcommands(register: RegisterSubcommand, settings: Mapping[str, Any]) -> None:
    """Contribute subcommands of the command line: `pyrokernel NAME`.

    Called when the command line names no subcommand of pyrokernel's own, or asks for help.

    Args:
        register: Call it with name, function, help text, and a function that adds arguments to the parser. The
            function is called with the parsed arguments and the `Settings` of the mesh that the command line means
            (`pyrokernel.connect(settings)` reaches it), and returns the exit code.
        settings: The plugin's own section of the configuration.
    """


@hookspec
def pyrokernel_preload(settings: Mapping[str, Any]) -> None:
    """Import what kernels will need, before they are made.

    Called in the template, from which kernels are forked, and only if the plugin's section says `preload = true`:
    then all kernels share what is imported here, and none waits for it. What starts a thread or opens a file or
    connection has no place here; with a thread in the template kernels are spawned instead, which is slower. Nobody
    calls it where kernels are never forked, as in portable mode: so it may only spare time.

    Args:
        settings: The plugin's own section of the configuration.
    """


@hookspec
def pyrokernel_open_store(directory: Path, mesh: str, durability: str, settings: Mapping[str, Any]) -> Store:
    """Open the place where the shared state is kept.

    Called in the state process as it starts, of the one plugin that the setting `state_store` names, and of no
    other: `state_store = "redis"` is the store of plugin "redis". The process serves nobody before the hook returns.

    Args:
        directory: Of the state on this machine; large values are kept in files there, whatever the store.
        mesh: Whose state it is: two meshes may have one place.
        durability: What a committed write must survive: "process" (the end of any process), "power" (a power cut).
        settings: The plugin's own section of the configuration.

    Returns:
        The store; `pyrokernel.stores` says what it must be able to do. It is used by the main thread.

    Raises:
        StateStorageError: It cannot be opened, such as when another service has it: two would ruin it. The service
            does not start then, and the client that asked for it is told; the next one that asks tries again.
    """
    raise NotImplementedError


@hookspec
def pyrokernel_policy(user: str, kind: str, kernel: str, address: str, settings: Mapping[str, Any]) -> str | None:
    """Say what somebody from another machine may do.

    Called in the gateway when a connection shows a good certificate, and once a second while some are open: those whose
    role has changed are closed. One answer is for all who are the same user, from the same machine, at the same kernel,
    for a second. It is called on several threads at once, at most sixteen for one certificate and whom it introduces,
    and has 3 s with the wait for one of them: whom it has said nothing of by then is refused, and those who are in have
    to go. Of several plugins the first in alphabetical order that answers is believed, and the policy's file is asked
    only where none does. It can give a role, and never more: who is on this machine as the account that runs the mesh
    is an admin whatever it says. For whom a host introduces it is asked twice, first of the host and then of that user,
    and the lower role counts.

    Args:
        user: The name in the certificate, or of whom a host introduces.
        kind: Of the certificate: "user", or "host", for another machine that acts for its users.
        kernel: Which kernel the connection leads to, "" for host, name server and shared state.
        address: "HOST:PORT" where one of the connections comes from.
        settings: The plugin's own section of the configuration.

    Returns:
        "nobody", "observer", "user" or "admin"; None to leave it to others. Where it raises, or says anything else,
        nobody gets in, and it is noted.
    """
    raise NotImplementedError
