"""`nameserver status`: whether a name server answers, and what it holds, for people, scripts and monitoring.

Runs in the caller's process. Works with a stock `pyro5-ns` as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator

from pyrokernel.errors import PyrokernelError
from pyrokernel.front.exits import ExitCode, code_of
from pyrokernel.front.nameserver_places import listen_of, socket_of
from pyrokernel.front.terminal import complain, say, say_json
from pyrokernel.messages import HOST_PREFIX, KERNEL_PREFIX, STATE_OBJECT
from pyrokernel.settings import Settings
from pyrokernel.texts import label, plural, span
from pyrokernel.wire.naming import Directory, Entry, answers
from pyrokernel.wire.remote import Credentials

_PATIENCE_SECONDS = 5.0


@dataclasses.dataclass
class Status:
    """What was found.

    Attributes:
        address: Of the name server.
        answers: Whether it did.
        seconds: What a connection and a first answer took.
        names: How many there are, its own included.
        kernels, hosts: Of these; shared: whether there is a shared state.
        dead: Names at whose sockets on this machine nobody listens.
        error: Why it did not answer.
    """

    address: str
    answers: bool = False
    seconds: float = 0.0
    names: int = 0
    kernels: int = 0
    hosts: tuple[str, ...] = ()
    shared: bool = False
    dead: tuple[str, ...] = ()
    error: str = ""


def status(args: argparse.Namespace, settings: Settings) -> int:
    """Say how a name server is; the exit code says whether it answers."""
    address = address_of(args, settings)
    directory = Directory(
        address, timeout=min(settings.timeout, _PATIENCE_SECONDS), credentials=Credentials.of(settings)
    )
    found, code = look(directory)
    if args.json:
        say_json(dataclasses.asdict(found))
    elif args.metrics:
        say("\n".join(metrics(found)))
    elif found.answers:
        _show(found)
    if found.error:
        complain(found.error)
    return code


def address_of(args: argparse.Namespace, settings: Settings) -> str:
    """Return which name server is meant: that of -u, that of -n and -p, or that of the settings."""
    if args.unixsocket:
        return f"./u:{socket_of(args, settings)}"
    return listen_of(args) or settings.ns_address


def look(directory: Directory) -> tuple[Status, ExitCode]:
    """Ask a name server."""
    found = Status(directory.address)
    try:
        begun = time.perf_counter()
        directory.ping()
        found.seconds, found.answers = time.perf_counter() - begun, True
        found.names = directory.count()
        entries = [*directory.list(KERNEL_PREFIX), *directory.list(HOST_PREFIX), *directory.list(STATE_OBJECT)]
    except PyrokernelError as error:
        found.error = str(error)
        return found, code_of(error)
    finally:
        directory.close()
    _sort(found, entries)
    return found, ExitCode.OK


def _sort(found: Status, entries: list[Entry]) -> None:
    names = [entry.name for entry in entries]
    found.kernels = sum(name.startswith(KERNEL_PREFIX) for name in names)
    found.hosts = tuple(name.removeprefix(HOST_PREFIX) for name in names if name.startswith(HOST_PREFIX))
    found.shared = STATE_OBJECT in names
    found.dead = tuple(
        sorted(entry.name for entry in entries if not entry.is_elsewhere and not answers(entry.uri_here))
    )


def _show(found: Status) -> None:
    say(f"name server at {found.address} answers in {span(found.seconds)}")
    hosts = f" ({label(found.hosts)})" if found.hosts else ""
    shared = "a shared state" if found.shared else "no shared state"
    kernels, number = plural(found.kernels, "kernel"), plural(len(found.hosts), "host")
    say(f"  {plural(found.names, 'name')}: {kernels}, {number}{hosts}, {shared}")
    if found.dead:
        say(f"  nobody listens any more at: {label(found.dead)}; their host removes them when it is back")


def metrics(found: Status) -> Iterator[str]:
    """Give what was found in the text format of Prometheus."""
    values = (
        ("up", "Whether the name server answers.", int(found.answers)),
        ("answer_seconds", "What a connection and a first answer took.", f"{found.seconds:.6f}"),
        ("names", "Names it holds, its own included.", found.names),
        ("kernels", "Kernels among them.", found.kernels),
        ("hosts", "Hosts among them.", len(found.hosts)),
        ("dead_names", "Names of this machine at whose sockets nobody listens.", len(found.dead)),
    )
    for name, text, value in values:
        yield f"# HELP pyrokernel_nameserver_{name} {text}"
        yield f"# TYPE pyrokernel_nameserver_{name} gauge"
        yield f"pyrokernel_nameserver_{name} {value}"
