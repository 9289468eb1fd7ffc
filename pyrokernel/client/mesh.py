"""Mesh: all kernels registered at one name server; how to reach it or start one. Runs in the caller's process."""

from __future__ import annotations

import fnmatch
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from pyrokernel import settings as settings_module
from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import Link, ask
from pyrokernel.errors import (
    HostError,
    KernelNotFoundError,
    KernelUnreachableError,
    NameServerNotFoundError,
    PyrokernelError,
    ReplyTimeoutError,
)
from pyrokernel.messages import (
    HOST_OBJECT,
    HOST_PREFIX,
    KERNEL_PREFIX,
    KernelInfo,
    KernelSpec,
    Receipt,
)
from pyrokernel.settings import Settings
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.naming import Directory, Entry

START_SECONDS = 60.0
"""How long a host may take to start kernels; it gives up on one after 30 s itself."""
_STOP_SECONDS = 10.0
_RESTART_SECONDS = 10.0
_REACT_SECONDS = 0.5


class Mesh:
    """All kernels of a name server.

    `mesh["k0"]` and `mesh[0]` are kernels; `mesh["gpu-*"]`, `mesh[:2]`, `mesh[:]` and
    `mesh.tagged("big")` are groups. Names are looked up when asked for; while the name
    server is away, the ones known from before still work.

    Args:
        settings: Which mesh.
        on_close: Called after `close`; ends the host of a private mesh.
    """

    def __init__(self, settings: Settings, *, on_close: Callable[[], None] | None = None) -> None:
        self.settings = settings
        self._on_close = on_close
        self._directory = Directory(settings.ns_address, timeout=min(settings.timeout, 5.0))
        self._entries: dict[str, Entry] = {}
        self._hosts: dict[str, Link] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._dead: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a private mesh ends with its kernels."""
        for link in [*self._links.values(), *self._hosts.values()]:
            link.close()
        self._directory.close()
        if self._on_close is not None:
            self._on_close()

    def __repr__(self) -> str:
        try:
            return f"<Mesh {self.settings.mesh!r}: {', '.join(self.names) or 'no kernels'}>"
        except NameServerNotFoundError:
            return f"<Mesh {self.settings.mesh!r}: no name server>"

    @property
    def names(self) -> list[str]:
        """Names of all kernels, in natural order (k2 before k10)."""
        return list(self._refresh())

    def __len__(self) -> int:
        return len(self._refresh())

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self[:])

    def __getitem__(self, key: Any) -> Any:
        """Return a kernel by name or number, a group by pattern or slice.

        Raises:
            KernelNotFoundError: Nothing matches.
            NameServerNotFoundError: Nobody answers, and the name is not known from before.
        """
        if isinstance(key, str):
            if any(character in key for character in "*?["):
                return self._group(name for name in self._refresh() if fnmatch.fnmatchcase(name, key))
            return Kernel(self, self.link_to(key))
        names = self.names
        if isinstance(key, slice):
            return self._group(names[key])
        try:
            return Kernel(self, self.link_to(names[key]))
        except IndexError:
            raise KernelNotFoundError(f"there is no kernel number {key}; the mesh has {len(names)}") from None

    def tagged(self, tag: str) -> Group:
        """Return the kernels that carry a tag."""
        return self._group(name for name, entry in self._refresh().items() if tag in entry.values("tag"))

    def select(self, words: Iterable[str]) -> Group:
        """Return the kernels that any of these words mean: a name, a pattern, "tag:WORD", "all" or "".

        Raises:
            KernelNotFoundError: A word means none.
        """
        chosen: dict[str, Kernel] = {}
        for word in words or ["all"]:
            if word in ("", "all"):
                found: Any = self[:]
            elif word.startswith("tag:"):
                found = self.tagged(word.removeprefix("tag:"))
            else:
                found = self[word]
            kernels = [found] if isinstance(found, Kernel) else list(found)
            if not kernels:
                raise KernelNotFoundError(f"no kernel matches {word!r}; there are: {', '.join(self.names) or 'none'}")
            chosen.update((kernel.name, kernel) for kernel in kernels)
        return Group(self, chosen.values())

    def ps(self) -> list[KernelInfo]:
        """Ask every host what its kernels do; kernels that their host gave up on are among them."""
        infos: list[KernelInfo] = []
        for host in self.hosts():
            infos += [KernelInfo.from_wire(wire) for wire in self.ask_host(host, "list_kernels")]
        return sorted(infos, key=lambda info: _natural(info.name))

    def hosts(self) -> list[Link]:
        """Return links to the hosts of the mesh.

        Raises:
            NameServerNotFoundError: Nobody answers.
        """
        try:
            entries = self._directory.list(HOST_PREFIX)
        except NameServerNotFoundError:
            if not self._hosts:
                raise
            return list(self._hosts.values())
        return [self._host_link(entry.name.removeprefix(HOST_PREFIX), entry.uri) for entry in entries]

    def start(self, kernels: int | Sequence[KernelSpec] = 1, *, name: str = "k") -> Group:
        """Start more kernels on this machine.

        Args:
            kernels: How many, named `name` and a number that is free; or full specs.
        """
        if isinstance(kernels, int):
            taken = set(self.names)
            numbers = (number for number in range(len(taken) + kernels) if f"{name}{number}" not in taken)
            specs: Sequence[KernelSpec] = [KernelSpec(name=f"{name}{next(numbers)}") for _ in range(kernels)]
        else:
            specs = kernels
        host = self._local_host()
        self.ask_host(host, "start_kernels", [spec.to_wire() for spec in specs], timeout=START_SECONDS)
        return self._group(spec.name for spec in specs)

    def stop(self, names: Iterable[str]) -> None:
        """End kernels by name; their names are free afterwards."""
        for host, group in self._by_host(names).items():
            self.ask_host(host, "stop_kernels", group, _STOP_SECONDS, timeout=_STOP_SECONDS + 5)

    def restart(self, kernels: Sequence[Kernel], *, force: bool = False) -> None:
        """End kernels and start them afresh; the handles given follow to the new instances."""
        for host, group in self._by_host(kernel.name for kernel in kernels).items():
            self.ask_host(host, "restart_kernels", group, force, timeout=START_SECONDS)
        for kernel in kernels:
            kernel.rebind()

    def escalate(self, kernel: Kernel, cell: str, *, kill: bool) -> Receipt:
        """Do to a kernel that did not react to an interrupt what only its host can: signal it, or kill it.

        Args:
            kernel: Handle; it follows to the new instance when the old one is killed.
            cell: What was to be interrupted.
            kill: Whether to go as far as SIGKILL.
        """
        host = self.host_of(kernel.name)
        if host is None:
            return Receipt(kernel=kernel.name, cell=cell, outcome="unanswered", detail="its host does not answer")

        def receipt(outcome: str, detail: str = "") -> Receipt:
            return Receipt(kernel=kernel.name, cell=cell, outcome=outcome, detail=detail)

        def signalled(signum: int) -> bool:
            return bool(self.ask_host(host, "signal_kernel", kernel.name, kernel.instance, int(signum), cell))

        if not signalled(signal.SIGINT):
            return receipt("not running", "that instance is gone")
        try:
            running = kernel.describe(timeout=_REACT_SECONDS)["running"]
        except ReplyTimeoutError:
            pass  # still inside the C call
        else:
            if running is None or (cell and running["cell"] != cell):
                return receipt("interrupted", "by its host")
        if not kill:
            return receipt("unanswered", "a C call does not let go; escalate to kill the kernel")
        if "protected" in self._entries[kernel.name].metadata:
            return receipt("refused", "the kernel is protected; restart it with force=True")
        signalled(signal.SIGKILL)
        self.note_death(kernel.instance)
        kernel.rebind()
        return receipt("killed", f"a C call did not let go; instance {kernel.instance} answers with a fresh namespace")

    def read_journal(self, name: str, instance: str = "", after: int = 0) -> dict[str, Any]:
        """Return events of a dead instance after a position, from its host; "" is the newest instance.

        Returns:
            `events` in wire form, `next` to go on from, and the `instance`; no events when nobody has them.
        """
        host = self.host_of(name)
        if host is None:
            return {"events": [], "next": after, "instance": instance}
        try:
            answer: dict[str, Any] = self.ask_host(host, "read_journal", name, instance, after)
        except (KernelNotFoundError, KernelUnreachableError):
            return {"events": [], "next": after, "instance": instance}
        return answer

    def host_of(self, name: str) -> Link | None:
        """Return a link to the host that watches over a kernel, None when there is none to ask."""
        host = self._entries[name].value("host") if name in self._entries else self.settings.host_name
        link = self._hosts.get(host)
        if link is None:
            try:
                self.hosts()
            except PyrokernelError:
                return None
            link = self._hosts.get(host)
        return link

    def link_to(self, name: str) -> Link:
        """Return the link to the instance that has a name now.

        Raises:
            KernelNotFoundError: Nobody has it.
        """
        try:
            entry = self._directory.lookup(KERNEL_PREFIX + name)
        except NameServerNotFoundError:
            if name not in self._entries:
                raise
            entry = self._entries[name]
        except KernelNotFoundError:
            names = ", ".join(self.names) or "none"
            raise KernelNotFoundError(f"there is no kernel {name!r}; there are: {names}") from None
        instance = entry.value("instance")
        if instance in self._dead:
            entry = self._successor(name, entry)
        self._entries[name] = entry
        return self._link(name, entry)

    def note_death(self, instance: str) -> None:
        """Remember that an instance is gone, so that its name is not taken for it again."""
        self._dead.add(instance)

    def _successor(self, name: str, entry: Entry) -> Entry:
        """Wait until the host of a dead instance has given its name to the next one."""
        host = self.host_of(name)
        if host is None:
            return entry
        wait = min(self.settings.timeout, _RESTART_SECONDS)
        wire = self.ask_host(host, "await_kernel", name, entry.value("instance"), wait, timeout=wait + 5)
        info = KernelInfo.from_wire(wire)
        kept = {word for word in entry.metadata if not word.startswith("instance:")}
        return Entry(name, info.uri, frozenset(kept | {f"instance:{info.instance}"}))

    def _link(self, name: str, entry: Entry) -> Link:
        key = (name, entry.value("instance"))
        with self._lock:
            link = self._links.get(key)
            if link is None:
                link = self._links[key] = Link(name, entry.uri, key[1])
            return link

    def _group(self, names: Iterable[str]) -> Group:
        return Group(self, [Kernel(self, self._link(name, self._entries[name])) for name in self._known(names)])

    def _known(self, names: Iterable[str]) -> list[str]:
        wanted = list(names)
        if any(name not in self._entries for name in wanted):
            self._refresh()
        return wanted

    def _refresh(self) -> Mapping[str, Entry]:
        """Read the names of all kernels; while the name server is away, keep to those known from before."""
        try:
            entries = self._directory.list(KERNEL_PREFIX)
        except NameServerNotFoundError:
            if not self._entries:
                raise
            return self._entries
        found = {entry.name.removeprefix(KERNEL_PREFIX): entry for entry in entries}
        self._entries = dict(sorted(found.items(), key=lambda item: _natural(item[0])))
        return self._entries

    def _host_link(self, name: str, uri: str) -> Link:
        with self._lock:
            link = self._hosts.get(name)
            if link is None or link.uri != uri:
                link = self._hosts[name] = Link(name, uri)
            return link

    def _local_host(self) -> Link:
        hosts = {link.name: link for link in self.hosts()}
        if not hosts:
            raise HostError("no host runs in this mesh; start one with `pyrokernel serve`")
        return hosts.get(self.settings.host_name) or next(iter(hosts.values()))

    def _by_host(self, names: Iterable[str]) -> dict[Link, list[str]]:
        grouped: dict[Link, list[str]] = {}
        known = {info.name: info.host for info in self.ps()}
        for name in names:
            if name not in known:
                raise KernelNotFoundError(f"no host knows a kernel {name!r}; there are: {', '.join(known) or 'none'}")
            grouped.setdefault(self._hosts[known[name]], []).append(name)
        return grouped

    def ask_host(self, host: Link, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Call a method of a host's exposed object; docs/protocol.md lists them."""
        return ask(host, Request(HOST_OBJECT, method, args), timeout or self.settings.timeout)


def connect(settings: Settings | None = None, **options: Any) -> Mesh:
    """Reach the mesh of the settings.

    Args:
        settings: What `settings.load()` returned; None reads file and environment.
        options: Single settings, such as `mesh="lab"` or `ns="127.0.0.1:9090"`.

    Raises:
        NameServerNotFoundError: No mesh is running; the message says how to start one.
        AccessRefusedError: The address is not on this machine, or not this user's.
        SettingsError: A setting is wrong.
    """
    chosen = settings or settings_module.load(**options)
    mesh = Mesh(chosen)
    # Known from the start, the hosts can be asked about deaths while the name server is away.
    mesh.hosts()
    return mesh


def _natural(name: str) -> list[Any]:
    """Sort key by which k2 comes before k10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
