"""The commands of kernels, as their callers have them. Runs in the caller's process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.parcels import pack_arguments, pack_function
from pyrokernel.errors import CommandNotFoundError, NotSerializableError, ReplyTimeoutError, SettingsError
from pyrokernel.messages import CommandInfo, new_id
from pyrokernel.texts import label
from pyrokernel.wire.codec import Packed

if TYPE_CHECKING:
    from pyrokernel.client.group import Group
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

_ASK_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
"""How old may be what is known of the commands of a kernel when a name is not among them."""

_MOMENT_SECONDS = 0.25
"""What takes longer may have waited for a running cell."""

_MAX_CALLS = 1000
"""So many are remembered of a kernel, and then only the latest."""

_POLL_SECONDS = 25.0


class Commands:
    """The commands of a kernel or of a group, by name.

    Iterating yields a `CommandInfo` each; an attribute is the command, to be called with its arguments: of a
    kernel it returns what the command returns, of a group that by kernel. What only some kernels of a group have
    is listed too.

    Args:
        where: Whose commands.
    """

    def __init__(self, where: Group | Kernel) -> None:
        self._where = where

    def __iter__(self) -> Iterator[CommandInfo]:
        return iter(self._infos().values())

    def __len__(self) -> int:
        return len(self._infos())

    def __getitem__(self, name: str) -> CommandInfo:
        """Describe a command.

        Raises:
            CommandNotFoundError: There is none of that name.
        """
        infos = self._infos()
        if name not in infos:
            raise CommandNotFoundError(name=name, names=tuple(infos))
        return infos[name]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            info = self[name]
        except CommandNotFoundError as error:
            raise AttributeError(str(error)) from None

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._where.call(f":{name}", *args, **kwargs)

        call.__name__, call.__doc__ = name, f"{name}{info.signature}\n\n{info.doc}"
        return call

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._infos()]

    def __repr__(self) -> str:
        return "\n".join(f"{info.name}{info.signature}" for info in self) or "<no commands>"

    def _infos(self) -> dict[str, CommandInfo]:
        found: dict[str, CommandInfo] = {}
        for infos in self.by_kernel().values():
            for info in infos:
                found.setdefault(info.name, info)
        return dict(sorted(found.items()))

    def by_kernel(self) -> dict[str, list[CommandInfo]]:
        """Return the commands by kernel; one that does not answer is not among them.

        Raises:
            ReplyTimeoutError: None answered.
        """
        members = self._where if isinstance(self._where, Sequence) else [self._where]
        mesh, links = self._where.mesh, [kernel.link for kernel in members]
        seconds = mesh.settings.timeout
        values, errors, missing = gather(mesh, links, kernel_request("commands"), kind="control", timeout=seconds)
        if not values:
            for error in errors.values():
                raise error
            if missing:
                raise ReplyTimeoutError(seconds=seconds, missing=missing)
        return {name: [CommandInfo.from_wire(one) for one in found] for name, found in values.items()}


def one_for(name: str, by_kernel: Mapping[str, Iterable[CommandInfo]], there: str) -> CommandInfo:
    """Return the command of a name, which all kernels must have, and alike.

    Args:
        name: Which.
        by_kernel: The commands that there are, as `Commands.by_kernel` returns them.
        there: How to call it on some kernels alone, with "{}" for their names: "-k {}".

    Raises:
        CommandNotFoundError: None has it.
        SettingsError: Some lack it, or it takes different arguments on some; the message says how to choose others.
    """
    having = {kernel: info for kernel, infos in by_kernel.items() for info in infos if info.name == name}
    if not having:
        names = sorted({info.name for infos in by_kernel.values() for info in infos})
        raise CommandNotFoundError(name=name, names=tuple(names))
    lacking = [kernel for kernel in by_kernel if kernel not in having]
    if lacking:
        verb = "has" if len(lacking) == 1 else "have"
        raise SettingsError(
            f"{label(lacking)} {verb} no command {name!r}; call it where it is: {there.format(','.join(having))}"
        )
    versions: dict[str, list[str]] = {}
    for kernel, info in having.items():
        versions.setdefault(info.signature, []).append(kernel)
    if len(versions) > 1:
        said = "; ".join(f"{name}{signature} on {label(kernels)}" for signature, kernels in versions.items())
        first = ",".join(next(iter(versions.values())))
        raise SettingsError(f"the kernels have different versions of {name!r} ({said}); choose: {there.format(first)}")
    return next(iter(having.values()))


class KnownCommands:
    """What a client knows of the commands of a kernel. A call is meant by namespace and name.

    Args:
        asked: When it asked last (monotonic).
        safe: By name, whether a command runs beside a running cell.
        settled: Calls that were answered, and of whose names the kernel said after that that they are no commands. So
            they are in the namespace, where no command takes their place.

    Attributes:
        answered: Calls that were answered in a moment since then, of names that are no commands.
    """

    __slots__ = ("answered", "asked", "safe", "settled")

    def __init__(self, asked: float, safe: Mapping[str, bool], settled: set[tuple[str, str]]) -> None:
        self.asked, self.safe, self.settled = asked, safe, settled
        self.answered: set[tuple[str, str]] = set()


def is_safe(mesh: Mesh, kernels: Sequence[Kernel], name: str, namespace: str) -> bool:
    """Whether a name is a command that runs beside a running cell.

    Each kernel is asked once for a command that is; for any other name again, as it may have become one since:
    at most each second, or at once where a ":" says that a command is meant, but not where it is settled that the
    namespace has it. A kernel that does not answer at once is taken for one without such a command: the call waits its
    turn there.

    Args:
        mesh, kernels: Where it is called.
        name: Which.
        namespace: Whose names come before commands.
    """
    explicit, name = name.startswith(":"), name.removeprefix(":")
    if not name.isidentifier():
        return False
    known, now, call = mesh.known_commands, time.monotonic(), (namespace, name)
    found, asked = False, []
    for kernel in kernels:
        have = known.get(kernel.instance)
        if have is None:
            asked.append(kernel)
        elif have.safe.get(name):
            found = True
        elif explicit or (call not in have.settled and now - have.asked > _AGAIN_SECONDS):
            asked.append(kernel)
    return (bool(asked) and _learn(mesh, asked, name)) or found


def _learn(mesh: Mesh, kernels: Sequence[Kernel], name: str) -> bool:
    """Ask kernels for their commands; return whether a name is a safe one on any of them."""
    known, now = mesh.known_commands, time.monotonic()
    settled: dict[str, set[tuple[str, str]]] = {}
    for kernel in kernels:
        had = known.get(kernel.instance)
        if had is not None:
            old = had.settled if len(had.settled) < _MAX_CALLS else set()
            settled[kernel.instance] = old | had.answered  # a copy: another thread may add to them while this one asks
    links = [kernel.link for kernel in kernels]
    values, _, _ = gather(mesh, links, kernel_request("commands"), kind="control", timeout=_ASK_SECONDS)
    found = False
    for kernel in kernels:
        safe = {info.name: info.safe for info in map(CommandInfo.from_wire, values.get(kernel.name, ()))}
        # Of a kernel that did not answer nothing is settled.
        calls = settled.get(kernel.instance, ()) if kernel.name in values else ()
        known[kernel.instance] = KnownCommands(now, safe, settled={call for call in calls if call[1] not in safe})
        found = found or safe.get(name, False)
    return found


def note_call(mesh: Mesh, kernels: Sequence[Kernel], name: str, namespace: str, seconds: float) -> None:
    """Note how a call went that was taken for none of a safe command.

    Args:
        mesh, kernels, name, namespace: As for `is_safe`.
        seconds: How long it took, infinite if it failed: then its name may have become a command, or may do so.
    """
    call = (namespace, name)
    for kernel in kernels:
        have = mesh.known_commands.get(kernel.instance)
        if have is None:
            continue
        if seconds > _MOMENT_SECONDS:
            have.answered.discard(call)
            have.settled.discard(call)
        elif call not in have.settled and name not in have.safe and len(have.answered) < _MAX_CALLS:
            have.answered.add(call)


def stream(
    kernel: Kernel, function: str | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Any]:
    """Call a generator on a kernel and yield its values as they come; see `Kernel.stream`."""
    target, shown = pack_function(function)
    call = [target, pack_arguments(args, kwargs)]
    cell = kernel.submit(f"{shown}(...)", cell=new_id(), call=call, yields=True, want="value")
    position, over = 0, False
    try:
        while not over:
            request = kernel_request("values", cell.id, position, _POLL_SECONDS)
            found, errors, _ = gather(kernel.mesh, [kernel.link], request, kind="control", timeout=None)
            for error in errors.values():
                raise error
            answer = found[kernel.name]
            for value in answer["values"]:
                position += 1
                if not isinstance(value, Packed):
                    raise NotSerializableError(f"value {position} of {shown}: {value['missing']}")
                yield value.load()
            over = answer["ended"]
        cell.reply().raise_if_failed()
    finally:
        if not over:
            leaves = kernel_request("values", cell.id, -1, 0.0)
            gather(kernel.mesh, [kernel.link], leaves, kind="control", timeout=_ASK_SECONDS)
            cell.interrupt()
