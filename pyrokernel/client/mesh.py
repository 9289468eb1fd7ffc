"""Mesh: all kernels registered at one name server; how to reach it or start one. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pyrokernel import settings as settings_module
from pyrokernel.client import reaching
from pyrokernel.client.auditing import Audit
from pyrokernel.client.calls import ask_kernel
from pyrokernel.client.ears import Ear, obituary
from pyrokernel.client.group import Group
from pyrokernel.client.holdings import PATIENCE_SECONDS, Holding
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.links import Link, ask
from pyrokernel.client.pace import Paces
from pyrokernel.client.roster import Roster, is_name, meant, natural, split_words
from pyrokernel.errors import (
    AccessRefusedError,
    HostError,
    KernelNotFoundError,
    KernelRestartedError,
    KernelUnreachableError,
    NameServerNotFoundError,
    PyrokernelError,
)
from pyrokernel.messages import (
    HOST_OBJECT,
    HOST_PREFIX,
    KERNEL_PREFIX,
    PUBLISHED_CLASS,
    START_SECONDS,
    STATE_OBJECT,
    STOP_SECONDS,
    KernelInfo,
    KernelSpec,
    RefInfo,
    new_client_id,
)
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.introduction import act_for
from pyrokernel.wire.naming import Directory, Entry, reachable_uri
from pyrokernel.wire.remote import Credentials

if TYPE_CHECKING:
    from pyrokernel.client.commands import KnownCommands
    from pyrokernel.client.reference import Reference
    from pyrokernel.client.shared import Shared

_SUCCESSOR_SECONDS = 10.0
"""How long the use of a name waits for the instance that follows a dead one."""


class Mesh:
    """All kernels of a name server.

    `mesh["k0"]` and `mesh[0]` are kernels; `mesh["gpu-*"]`, `mesh["k0-k3"]`, `mesh["k0,k3"]`,
    `mesh[[0, 3]]`, `mesh[:2]`, `mesh[:]` and `mesh["tag:big"]` are groups. Names are looked up when asked for;
    while the name server is away, the ones known from before still work.

    Args:
        settings: Which mesh.
        on_close: Called after `close`; ends the host of a private mesh.

    Attributes:
        client: A random id, sent with every cell: by it lists of cells tell which are this client's own.
        paces: What jobs have measured.
        known_commands: By instance, what is known of its commands.
    """

    def __init__(self, settings: Settings, *, on_close: Callable[[], None] | None = None) -> None:
        self.settings = settings
        if settings.acts_for:
            act_for(*settings.acts_for)  # before anything is connected
        self.client = new_client_id()
        self._on_close = on_close
        self.credentials = Credentials.of(settings)
        timeout = min(settings.timeout, 5.0)
        self._directory = Directory(settings.ns_address, timeout=timeout, credentials=self.credentials)
        self._entries: dict[str, Entry] = {}
        self._hosts: dict[str, Link] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._latest: dict[str, Link] = {}
        self._dead: set[str] = set()
        self._ears: dict[str, list[Ear]] = {}
        self._shared: Shared | None = None
        self.paces = Paces()
        self.known_commands: dict[str, KnownCommands] = {}
        self._closed = False
        self._holdings: dict[str, Holding] = {}
        self._others: dict[tuple[str, str], Mesh] = {}
        reaching.note_mesh(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a private mesh ends with its kernels. References are not renewed any more."""
        self._closed = True
        try:
            reaching.forget_mesh(self)
            for holding in list(self._holdings.values()):
                holding.forget()
            while self._others:
                self._others.popitem()[1].close()
            if self._shared is not None:
                self._shared.close()
            self._hang_up()
        finally:  # after Ctrl-C, too
            if self._on_close is not None:
                self._on_close()

    def _hang_up(self) -> None:
        for link in [*self._links.values(), *self._hosts.values()]:
            link.close(for_good=True)
        while self._ears:
            for ear in self._ears.popitem()[1]:
                ear.close()
        self._directory.close()

    def __repr__(self) -> str:
        try:
            return f"<Mesh {self.settings.mesh!r}: {', '.join(self.names) or 'no kernels'}>"
        except NameServerNotFoundError:
            return f"<Mesh {self.settings.mesh!r}: no name server>"

    @property
    def names(self) -> list[str]:
        """Names of all kernels, in natural order (k2 before k10)."""
        return list(self._refresh())

    def tags(self) -> dict[str, Collection[str]]:
        """Return the tags of all kernels, by their names."""
        return {name: entry.values("tag") for name, entry in self._refresh().items()}

    def __len__(self) -> int:
        return len(self._refresh())

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self[:])

    def __getitem__(self, key: Any) -> Any:
        """Return a kernel by name or number; a group by words as `select` reads them, a slice or a list.

        Raises:
            KernelNotFoundError: Nothing matches.
            NameServerNotFoundError: Nobody answers, and the name is not known from before.
        """
        if isinstance(key, str):
            if is_name(key):
                return Kernel(self, self.link_to(key))
            group = self.select([key])
            return group[0] if group.names == [key] else group
        if isinstance(key, slice):
            return self._group(self.names[key], ["all"] if key == slice(None) else [])
        if isinstance(key, (list, tuple)):
            chosen: dict[str, Kernel] = {}
            for one in key:
                found = self[one]
                chosen.update((kernel.name, kernel) for kernel in (found if isinstance(found, Group) else [found]))
            return Group(self, chosen.values())
        names = self.names
        try:
            return Kernel(self, self.link_to(names[key]))
        except IndexError:
            raise KernelNotFoundError(f"there is no kernel number {key}; the mesh has {len(names)}") from None

    def tagged(self, tag: str) -> Group:
        """Return the kernels that carry a tag.

        Raises:
            KernelNotFoundError: None does.
        """
        return self.select([f"tag:{tag}"])

    def select(self, words: str | Iterable[str] = ()) -> Group:
        """Return the kernels that any of these words mean, all of them when there is no word.

        Args:
            words: Each a name, a range such as "k0-k3", a pattern such as "gpu-*", "tag:WORD" or "all", or several
                with commas between; one need not be in a list.

        Raises:
            KernelNotFoundError: A word means none.
        """
        chosen: dict[str, Kernel] = {}
        for word in split_words(words) or ["all"]:
            if is_name(word):
                chosen[word] = Kernel(self, self.link_to(word))
                continue
            found = meant(word, self.tags())
            if not found:
                raise self.roster().nobody(word)
            chosen.update((kernel.name, kernel) for kernel in self._group(found))
        return Group(self, chosen.values(), split_words(words) or ["all"])

    def ps(self) -> list[KernelInfo]:
        """Ask hosts and kernels what runs; kernels that are dead and stay so are among them.

        Returns:
            One entry per kernel, in natural order of the names; shape (n_kernels,).
        """
        return self.roster().described()

    def roster(self) -> Roster:
        """Ask all hosts for their kernels."""
        return Roster.ask(self)

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

    def open(self, what: str) -> Reference:
        """Return a reference by its URL, or by the name of a published object; its public names are reached.

        A URL into another mesh opens that one too; it is closed with this one.

        Args:
            what: The URL, or the name.

        Raises:
            ReferenceGoneError: It has expired or was revoked, or its kernel has ended.
            KernelNotFoundError: Nothing is published by that name.
            SettingsError: It is no URL.
        """
        from pyrokernel.client import lending  # only for those who use references

        return lending.open_reference(self, what)

    def refs(self) -> list[RefInfo]:
        """List the references to objects of all kernels, oldest first; kernels that do not answer are left out."""
        from pyrokernel.client import lending  # only for those who use references

        return lending.list_references(self)[0] if self.names else []

    def revoke(self, which: str | Reference) -> int:
        """End a reference wherever it is, and all that was reached by it; return how many those were.

        Args:
            which: The reference, its id as `refs` lists it, or its URL.

        Raises:
            ReferenceGoneError: No kernel has such a reference.
        """
        from pyrokernel.client import lending  # only for those who use references

        return lending.revoke(self if self.names else [], which)

    def published(self) -> list[Entry]:
        """Return what the name server says of the objects that kernels have published, sorted by name."""
        return self._directory.having(PUBLISHED_CLASS)

    def published_entry(self, name: str) -> Entry:
        """Return what the name server says of a published object.

        Raises:
            KernelNotFoundError: Nothing is published by that name.
        """
        entry = self._directory.lookup(name)
        if PUBLISHED_CLASS not in entry.metadata:
            raise KernelNotFoundError(f"the name {name!r} is no object that a kernel has published")
        return entry

    def mesh_at(self, ns: str, name: str) -> Mesh:
        """Return the mesh at the address of a name server: this one, or another that is closed with it.

        Raises:
            NameServerNotFoundError: Nobody answers there.
        """
        if (ns, name) == (self.settings.ns_address, self.settings.mesh):
            return self
        other = self._others.get((ns, name))
        if other is None:
            # Another name server, and its own host: runtime_dir only says where those of this mesh are.
            other = self._others[ns, name] = connect(dataclasses.replace(self.settings, ns=ns, mesh=name))
        return other

    def holding(self, kernel: str, instance: str) -> Holding:
        """Return what this client holds of one life of a kernel."""
        found = self._holdings.get(instance)
        if found is None:

            def ask(method: str, *args: Any) -> Any:
                try:
                    link = self.link_of(kernel, instance)
                    return ask_kernel(self, link, method, *args, self.client, timeout=PATIENCE_SECONDS)
                finally:
                    if self._closed:  # meanwhile, so that nobody else closes what this has opened
                        self._hang_up()

            found = self._holdings.setdefault(instance, Holding(("references", self.client, instance), ask))
        return found

    def kernel_of(self, name: str, instance: str) -> Kernel:
        """Return a handle to one life of a kernel; raises as `link_of`."""
        return Kernel(self, self.link_of(name, instance))

    def link_of(self, name: str, instance: str) -> Link:
        """Return the link to one life of a kernel.

        Raises:
            KernelRestartedError, KernelDiedError: That life is over.
            KernelUnreachableError: Nobody can say what became of it.
        """
        link = self._links.get((name, instance))
        if link is not None:
            return link
        try:
            entry = self.lookup(name)
        except KernelNotFoundError:
            entry = Entry(name, "")
        if entry.value("instance") == instance and instance not in self._dead:
            return self._link(name, entry)
        host = self.host_of(name)
        death = None if host is None else obituary(host, instance, 0.0)
        if death is not None:
            raise death.to_error()
        if not entry.uri:
            message = f"kernel {name!r} is not in this mesh any more, and no host knows how its instance ended"
            raise KernelUnreachableError(message, kernel=name, instance=instance)
        raise KernelRestartedError(kernel=name, instance=instance, new_instance=entry.value("instance"))

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
        self.ask_host(host, "start_kernels", [spec.to_wire() for spec in specs], timeout=2 * START_SECONDS)
        return self._group(spec.name for spec in specs)

    def stop(self, words: str | Iterable[str], *, force: bool = False) -> list[str]:
        """End kernels for good; their names are free afterwards.

        Args:
            words: Which, as for `select`; also dead ones.
            force: Also those that are protected.

        Returns:
            Their names.

        Raises:
            KernelNotFoundError: A word means none; none is ended.
            AccessRefusedError: One of them is protected; none on its machine is ended.
        """
        ended, _ = self._end("stop_kernels", words, STOP_SECONDS, force)
        return [info.name for info in ended]

    def restart(self, words: str | Iterable[str], *, force: bool = False) -> list[KernelInfo]:
        """End kernels and start them afresh under their names; their variables are lost.

        Args:
            words: Which, as for `select`; also dead ones.
            force: Kill at once, also those that are protected.

        Returns:
            The new instances.

        Raises:
            KernelNotFoundError: A word means none; none is restarted.
            AccessRefusedError: One of them is protected; none on its machine is restarted.
        """
        _, started = self._end("restart_kernels", words, force)
        return [KernelInfo.from_wire(wire) for wire in started]

    def _end(
        self, method: str, words: str | Iterable[str], *args: Any
    ) -> tuple[list[KernelInfo], list[dict[str, Any]]]:
        """Have the hosts end what words mean; return that, and what the hosts answered."""
        roster = self.roster()
        chosen = roster.choose(words)
        answers = roster.tell(chosen, method, *args, timeout=START_SECONDS + STOP_SECONDS)
        for info in chosen:
            self.note_death(info.instance)
        return chosen, answers

    def signal_kernel(self, link: Link, signum: int, cell: str = "") -> bool:
        """Have its host signal an instance; False when that instance is gone.

        Args:
            link: The way to it.
            signum: SIGINT or SIGKILL.
            cell: Which cell a SIGINT is meant for; "" for any.

        Raises:
            HostError: No host can be asked.
        """
        host = self.host_of(link.name)
        if host is None:
            raise HostError("its host does not answer; see `pyrokernel doctor`")
        return bool(self.ask_host(host, "signal_kernel", link.name, link.instance, int(signum), cell))

    def is_protected(self, name: str) -> bool:
        """Whether a kernel may only be killed with an explicit yes."""
        return "protected" in self.lookup(name).metadata

    def lend_ear(self, host: Link) -> Ear:
        """Return an ear at a host, one that is not in use."""
        idle = self._ears.setdefault(host.name, [])
        while idle:
            ear = idle.pop()  # atomic: no lock that a forked child could find held
            if ear.pid == os.getpid() and ear.host is host:
                return ear
            ear.close()
        return Ear(host)

    def return_ear(self, ear: Ear) -> None:
        """Take an ear back for the next long wait."""
        self._ears.setdefault(ear.host.name, []).append(ear)
        if self._closed:  # meanwhile, while a job of it was at its end
            self._hang_up()

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

    def me(self) -> tuple[str, Role]:
        """Return as whom the hosts of the mesh know this process, and what that user may do."""
        you = self.ask_host(self._local_host(), "describe")["you"]
        return you["user"], Role.of(you["role"])

    def audit(self, *, user: str = "", kernel: str = "", since: float = 0.0, check: bool = True) -> Audit:
        """Return who did what, as the hosts have written it down: iterate for what there is, again for what is new.

        Args:
            user, kernel: Only of this one, "" for all; a user also as "ana@lab2", a host as "host:lab2".
            since: Unix time.
            check: Raise if a host does not answer; otherwise it is in `Audit.failed` afterwards.

        Raises:
            AccessRefusedError: When it is read, by who is no admin.
            KernelUnreachableError: Likewise, where a host does not answer.
        """
        return Audit(self, {"user": user, "kernel": kernel, "since": since}, check=check)

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
        return self._link(name, self._present(name, self.lookup(name)))

    def lookup(self, name: str) -> Entry:
        """Return what the name server says of a kernel, or said last when it is away.

        Raises:
            KernelNotFoundError: Nobody has the name.
        """
        try:
            entry = self._directory.lookup(KERNEL_PREFIX + name)
        except NameServerNotFoundError:
            if name not in self._entries:
                raise
            return self._entries[name]
        except KernelNotFoundError:
            if name in self._still_known([name]):
                return self._entries[name]
            raise self.roster().nobody(name) from None
        self._entries[name] = entry
        return entry

    @property
    def shared(self) -> Shared:
        """The shared state of the mesh; see `client.shared`."""
        if self._shared is None:
            from pyrokernel.client.shared import Shared  # only where it is used

            self._shared = Shared.of(self)
        return self._shared

    def find_state(self, known: Link | None = None, *, start: bool = True) -> Link:
        """Return the way to the process of the shared state; it is started if there is none.

        Args:
            known: The way that led there before; returned when nobody can be asked.
            start: Start the process if there is none.

        Raises:
            HostError: It cannot be started.
            AccessRefusedError: The name server leads to another host than the one that keeps it.
            StateError: It could be started and cannot read what it keeps.
            NameServerNotFoundError: Nobody answers, and no way is known.
        """
        entry: Entry | None = None
        try:
            entry = self._directory.lookup(STATE_OBJECT)
        except NameServerNotFoundError:
            if known is None:
                raise
            return known
        except KernelNotFoundError:
            if not start:
                raise
        if entry is not None:
            return self._state_link(entry.uri, entry.value("instance"), entry.value("host"))
        info = KernelInfo.from_wire(self.ask_host(self.state_host(), "start_state", timeout=START_SECONDS + 10))
        return self._state_link(reachable_uri(info.uri, info.address), info.instance, info.host)

    def await_state(self, instance: str, timeout: float) -> None:
        """Wait until the process of the shared state that follows a dead one is there.

        Raises:
            PyrokernelError: None will follow, or its host cannot be asked.
        """
        self.ask_host(self.state_host(), "await_kernel", "~shared", instance, timeout, timeout=timeout + 2)

    def _state_link(self, uri: str, instance: str, machine: str) -> Link:
        """Return the way to what claims to be the shared state, if it is where that is kept."""
        keeper, who_says = self._keeper()
        if not machine or keeper not in ("", machine):
            raise AccessRefusedError(
                f"the name server leads to the shared state on {f'host {machine!r}' if machine else 'no host'}, and "
                f"{f'host {keeper!r}' if keeper else 'a host'} keeps it ({who_says}): set state_host, the same "
                "everywhere; an admin removes a wrong entry with `pyro5-nsc remove pyrokernel.shared`"
            )
        files = not self.settings.portable
        return Link("shared", uri, instance, files=files, credentials=self.credentials, machine=machine, certified=True)

    def _keeper(self) -> tuple[str, str]:
        """Return the name of the host that keeps the shared state, "" for the only one there is, and who says so."""
        if self.settings.state_host:
            return self.settings.state_host, "setting state_host"
        return self._directory.state_host(), "says the name server"

    def state_host(self) -> Link:
        """Return the host that keeps the shared state, or is to.

        Raises:
            HostError: There is none, or several could.
        """
        hosts = {host.name: host for host in self.hosts()}
        wanted, who_says = self._keeper()
        if wanted and wanted not in hosts:
            raise HostError(
                f"host {wanted!r}, which keeps the shared state ({who_says}), is not in the mesh; run `pyrokernel "
                "serve` there, or set state_host, the same everywhere, to have another one keep it"
            )
        if not wanted and len(hosts) > 1:
            raise HostError(
                f"this mesh has several hosts ({', '.join(sorted(hosts))}); say with the setting state_host, the same "
                "everywhere, which of them keeps the shared state, as by PYROKERNEL_STATE_HOST=NAME or in the "
                "configuration file"
            )
        if not hosts:
            raise HostError("no host of this mesh runs, which could start the shared state; run `pyrokernel serve`")
        return hosts[wanted] if wanted else next(iter(hosts.values()))

    def _still_known(self, names: Iterable[str]) -> dict[str, Entry]:
        """Return the kernels known from before that live, although the name server does not list them.

        One that was restarted without storage lists nothing until the hosts have announced their kernels again.
        """
        known = {name: self._entries[name] for name in names if name in self._entries}
        if not known:
            return {}
        living = {info.instance for info in self.roster().infos if info.pid}
        return {name: entry for name, entry in known.items() if entry.value("instance") in living}

    def note_death(self, instance: str) -> None:
        """Remember that an instance is gone, so that its name is not taken for it again."""
        self._dead.add(instance)
        self.known_commands.pop(instance, None)
        for key in [key for key in list(self._links) if key[1] == instance]:
            link = self._links.pop(key, None)
            if link is not None:
                link.close(for_good=True)

    def _present(self, name: str, entry: Entry) -> Entry:
        """Return an entry as it is or, if its instance is known to be dead, that of the next one."""
        if entry.value("instance") in self._dead:
            entry = self._entries[name] = self._successor(name, entry)
        return entry

    def _successor(self, name: str, entry: Entry) -> Entry:
        """Wait until the host of a dead instance has given its name to the next one."""
        host = self.host_of(name)
        if host is None:
            return entry
        wait = min(self.settings.timeout, _SUCCESSOR_SECONDS)
        wire = self.ask_host(host, "await_kernel", name, entry.value("instance"), wait, timeout=wait + 5)
        info = KernelInfo.from_wire(wire)
        kept = {word for word in entry.metadata if not word.startswith("instance:")}
        uri = reachable_uri(info.uri, info.address)
        return Entry(name, uri, frozenset(kept | {f"instance:{info.instance}"}))

    def _link(self, name: str, entry: Entry) -> Link:
        key = (name, entry.value("instance"))
        link = self._links.get(key)
        if link is None:
            # setdefault is atomic; a lock could stay held for ever in a forked child.
            link = self._links.setdefault(
                key,
                Link(
                    name,
                    entry.uri,
                    key[1],
                    segments=not self.settings.portable,
                    credentials=self.credentials,
                    machine=entry.value("host"),
                    what="kernel",
                ),
            )
            # The name has passed on. Perhaps nobody here has noticed the death: what is still open would stay so.
            past, self._latest[name] = self._latest.get(name), link
            if past is not None and past is not link:
                self._links.pop((name, past.instance), None)
                past.close()
        return link

    def _group(self, names: Iterable[str], words: Iterable[str] = ()) -> Group:
        kernels = []
        for name in names:
            entry = self._entries.get(name) or self.lookup(name)
            try:
                entry = self._present(name, entry)
            except KernelNotFoundError:
                continue  # it stays dead, and its name is about to go
            kernels.append(Kernel(self, self._link(name, entry)))
        return Group(self, kernels, words)

    def _refresh(self) -> Mapping[str, Entry]:
        """Read the names of all kernels; while the name server is away, keep to those known from before."""
        try:
            entries = self._directory.list(KERNEL_PREFIX)
        except NameServerNotFoundError:
            if not self._entries:
                raise
            return self._entries
        found = {entry.name.removeprefix(KERNEL_PREFIX): entry for entry in entries}
        unlisted = [name for name in list(self._entries) if name not in found]  # other threads look names up
        if unlisted:
            found.update(self._still_known(unlisted))
        self._entries = dict(sorted(found.items(), key=lambda item: natural(item[0])))
        return self._entries

    def _host_link(self, name: str, uri: str) -> Link:
        link = self._hosts.get(name)
        if link is None or link.uri != uri:
            link = self._hosts[name] = Link(name, uri, credentials=self.credentials, machine=name, what="host")
        return link

    def _local_host(self) -> Link:
        hosts = {link.name: link for link in self.hosts()}
        if not hosts:
            raise HostError("no host runs in this mesh; start one with `pyrokernel serve`")
        return hosts.get(self.settings.host_name) or next(iter(hosts.values()))

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
    try:
        # Known from the start, the hosts can be asked about deaths while the name server is away.
        mesh.hosts()
    except NameServerNotFoundError as error:
        if chosen.ns or chosen.joined:
            raise error from None  # what the sockets said is of no use to whoever asks for a mesh
        serve = settings_module.command_line(chosen, "serve --detach")
        message = (
            f"mesh {chosen.mesh!r} is not running on this machine; start it with `{serve}`, "
            "or have one of your own with pyrokernel.local()"
        )
        raise NameServerNotFoundError(message) from None
    return mesh
