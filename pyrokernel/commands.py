"""Functions that can be called on a kernel by name: the mark, and the table. Runs in every process.

A front end marks functions and reads `CommandInfo`; the table itself is a kernel's.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import keyword
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from pyrokernel.arguments import Parameters
from pyrokernel.errors import CommandNameTakenError, PluginError
from pyrokernel.messages import CommandInfo

F = TypeVar("F", bound=Callable[..., Any])

REMOTE_PREFIX = "remote_"
"""A function of a shipped file that is named so is the command that follows."""

_MARK = "__pyrokernel_command__"


@overload
def command(function: F, /) -> F: ...
@overload
def command(*, name: str = ..., safe: bool = ...) -> Callable[[F], F]: ...
def command(function: Any = None, /, *, name: str = "", safe: bool = False) -> Any:
    """Mark a function of a shipped file as a command; the function itself stays as it is.

    Args:
        function: What is marked, when it is used as `@command`.
        name: How it is called; "" for its own name, without a `remote_` before it.
        safe: It may run beside a running cell, on another thread: an instrument's `abort` must not wait.
    """

    def mark(target: F) -> F:
        try:
            setattr(target, _MARK, {"name": name, "safe": safe})
        except (AttributeError, TypeError):
            raise PluginError(f"{target!r} cannot be a command: it takes no attributes; write a function") from None
        return target

    return mark if function is None else mark(function)


@dataclasses.dataclass(frozen=True)
class KernelIdentity:
    """The kernel in which a hook is called.

    Attributes:
        name: Name in the mesh. tags: The words it carries.
        host, mesh: Names of its machine and of its mesh.
    """

    name: str
    tags: tuple[str, ...] = ()
    host: str = ""
    mesh: str = ""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a command learns of its call, as its first parameter when that is named `self`.

    Attributes:
        kernel, instance, tags: The kernel it runs in.
        namespace: The live variables of the namespace of the call.
        settings: The section of the plugin that the command comes from; {} for a shipped file.
        log: A logger of its own, `pyrokernel.command.NAME`.
        progress: Call it with (done, total, text): front ends show how far the command is. `total` is 1 unless given.
    """

    kernel: str
    instance: str
    tags: tuple[str, ...]
    namespace: dict[str, Any]
    settings: Mapping[str, Any]
    log: logging.Logger
    progress: Callable[..., None]


class Command:
    """One command of a kernel.

    Its signature is read when somebody asks for it: of a thousand commands in a shipped file few are called.

    Args:
        function: What is called; its own mark counts where name and safe are not given.
        owner: Whose it is.
        name: How it is called.
        safe: Whether it runs beside a running cell.
        settings: The section of its plugin.

    Raises:
        PluginError: It is no function, or has no name that Python could call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        owner: str,
        name: str = "",
        safe: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise PluginError(f"{owner} registers {type(function).__name__}, which cannot be called, as a command")
        name = name or _marked_name(function) or str(getattr(function, "__name__", ""))
        self.name = name.removeprefix(REMOTE_PREFIX)
        if not self.name.isidentifier() or self.name.startswith("_") or keyword.iskeyword(self.name):
            raise PluginError(f"{owner} registers a command {self.name!r}: a command is named by a Python identifier")
        self.function = function
        self.owner = owner
        self.safe = safe or bool((mark_of(function) or {}).get("safe"))
        self.settings = settings or {}

    @functools.cached_property
    def parameters(self) -> Parameters:
        """What it takes, without the `self` that receives the context.

        Raises:
            PluginError: It has no signature that could be read.
        """
        try:
            return Parameters.of(self.function, self.name)
        except Exception as error:  # a __signature__ may be anything, and annotations run code of the plugin's
            raise PluginError(f"{self.owner}: the signature of {self.name} cannot be read: {error}") from error

    @functools.cached_property
    def info(self) -> CommandInfo:
        """What front ends are told.

        Raises:
            PluginError: It has no signature that could be read.
        """
        doc = inspect.getdoc(self.function) or ""
        return CommandInfo(
            name=self.name,
            owner=self.owner,
            doc=doc,
            parameters=tuple(self.parameters.described(doc)),
            returns=self.parameters.returns,
            safe=self.safe,
            streams=inspect.isgeneratorfunction(inspect.unwrap(self.function)),
        )

    def __call__(self, context: Context, /, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments and call the function.

        Raises:
            TypeError: Which argument it is, what was expected and what was given.
        """
        args, kwargs = self.parameters.checked(args, kwargs)
        return self.function(*([context] if self.parameters.takes_context else []), *args, **kwargs)


def mark_of(function: Any) -> Mapping[str, Any] | None:
    """Return what `command` marked a function with; None when it did not."""
    try:
        mark = object.__getattribute__(function, "__dict__").get(_MARK)
    except AttributeError:  # most things have no attributes of their own
        return None
    return mark if isinstance(mark, dict) else None


def _marked_name(function: Any) -> str:
    return str((mark_of(function) or {}).get("name") or "")


def commands_in(names: Mapping[str, Any], *, owner: str, module: str) -> list[Command]:
    """Find the commands that a shipped module defines: marked functions, and those named `remote_`.

    Args:
        names: Its globals.
        owner: Whose they are.
        module: Its name; what it imports from elsewhere is not its own.

    Raises:
        PluginError: One cannot be a command, or two have the same name.
    """
    found: dict[str, Command] = {}
    for name, value in list(names.items()):
        # Other values are not even looked at: an object that imports itself when it is asked would do so.
        named = name.startswith(REMOTE_PREFIX) and callable(value)
        if name.startswith("__") or (not named and mark_of(value) is None):
            continue
        home = getattr(value, "__module__", None) or module  # a partial does not say
        if home != module and not str(home).startswith(module + "."):
            continue
        # What a decorator made is often called after the decorator's own function.
        own = str(getattr(value, "__name__", ""))
        made = Command(value, owner=owner, name=_marked_name(value) or (own if names.get(own) is value else name))
        held = found.get(made.name)
        if held is not None and held.function is not value:
            raise PluginError(f"{owner} has two commands {made.name!r}; give one another name")
        found[made.name] = made
    return list(found.values())


class CommandTable:
    """The commands of a kernel, by name; for all its threads.

    Attributes:
        revision: Counts the changes, so that front ends notice them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commands: dict[str, Command] = {}
        self.revision = 0

    def add(self, commands: Iterable[Command]) -> None:
        """Take in commands, all or none.

        Raises:
            CommandNameTakenError: Another owner has one of the names.
        """
        self.replace((), commands)

    def replace(self, owners: Iterable[str], commands: Iterable[Command]) -> None:
        """Take in commands at the moment in which those of some owners go; all of it or nothing.

        Raises:
            CommandNameTakenError: Another owner has one of the names.
        """
        gone = set(owners)
        with self._lock:
            kept = {name: held for name, held in self._commands.items() if held.owner not in gone}
            for each in commands:
                held = kept.get(each.name)
                if held is not None:
                    raise CommandNameTakenError(name=each.name, owner=each.owner, holder=held.owner)
                kept[each.name] = each
            self._commands = kept
            self.revision += 1

    def remove(self, owner: str) -> None:
        """Forget the commands of an owner."""
        self.replace([owner], ())

    def get(self, name: str) -> Command | None:
        """Return a command, None when there is none of that name."""
        return self._commands.get(name)

    def all(self) -> list[Command]:
        """Return all commands by name; shape (n_commands,)."""
        return sorted(self._commands.values(), key=lambda each: each.name)


class BoundCommand:
    """What stands for a command in a namespace: called as the function, without `self`.

    What `?` and `inspect` show of it is read when they ask.

    Args:
        each: The command.
        context: Makes the context of a call.
    """

    def __init__(self, each: Command, context: Callable[[], Context]) -> None:
        self._command = each
        self._context = context
        self.__name__ = self.__qualname__ = each.name
        self.__doc__ = each.function.__doc__
        self.__wrapped__ = each.function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the command, with the context of the cell that runs."""
        return self._command(self._context(), *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return self._command.parameters.signature

    def __repr__(self) -> str:
        return f"<command {self._command.name} of {self._command.owner}>"
