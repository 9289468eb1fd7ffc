"""Roster: all kernels of a mesh as hosts and kernels describe them at one moment. Runs in the caller's process.

The name server knows the living; only their hosts also know the dead, and can stop and
restart kernels. Whoever lists, stops or restarts kernels begins here.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.links import Link, ask_each
from pyrokernel.errors import (
    HostError,
    KernelConnectionError,
    KernelNotFoundError,
    MachineLostError,
    PyrokernelError,
)
from pyrokernel.messages import HOST_OBJECT, KernelInfo, KernelStatus
from pyrokernel.settings import command_line
from pyrokernel.wire.fanout import Request

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh

_DESCRIBE_SECONDS = 1.0
"""How long all kernels together get to describe themselves; one whose interpreter is held up cannot."""

_OWN = ("status", "running", "waiting", "execution_count", "python", "init_error", "journal_error", "last_seq")
"""What a kernel knows of itself better than its host."""

_UNHOSTED = ("host", "pid", "tags", "started", "protected")
"""What it can tell besides, where no host answers for it."""

_NAMELESS = "cannot be reached yet: the name server has no entry for it; its host brings one within seconds"

_DIGITS = re.compile(r"(\d+)")

_RANGE = re.compile(r"([^*?\[]*?)(?:(\d+)-\1(\d+)|\[(\d+)-(\d+)\])")
"""How `texts.label` writes a run of names: "k0-k3", "lab2-[0-3]"."""


class Roster:
    """The kernels of a mesh, dead ones among them, and the hosts that answer.

    Args:
        mesh: Whose kernels.
        infos: What the hosts say, in natural order of the names.
        hosts: The hosts that answer, by name.
        silent: Why the others do not, by their names.
    """

    def __init__(
        self, mesh: Mesh, infos: Sequence[KernelInfo], hosts: dict[str, Link], silent: dict[str, Exception]
    ) -> None:
        self._mesh = mesh
        self.infos = list(infos)
        self.hosts = hosts
        self.silent = silent

    @classmethod
    def ask(cls, mesh: Mesh) -> Roster:
        """Ask all hosts at once for their kernels.

        Raises:
            NameServerNotFoundError: Nobody can say who the hosts are.
        """
        hosts = {host.name: host for host in mesh.hosts()}
        request = Request(HOST_OBJECT, "list_kernels")
        answers = ask_each(dict.fromkeys(hosts.values(), request), mesh.settings.timeout)
        infos: list[KernelInfo] = []
        silent: dict[str, Exception] = {}
        for name in list(hosts):
            answer = answers[name]
            if isinstance(answer, (KernelConnectionError, OSError)):
                silent[name] = answer
                del hosts[name]
            elif isinstance(answer, Exception):
                raise answer
            else:
                infos += [KernelInfo.from_wire(wire) for wire in answer]
        return cls(mesh, sorted(infos, key=lambda info: natural(info.name)), hosts, silent)

    def described(self) -> list[KernelInfo]:
        """Ask the kernels too, all at once: what they run, what waits, how often they executed.

        Returns:
            One entry per kernel, also for those whose host does not answer; shape (n_kernels,).
        """
        group = self._mesh[:]
        known = {info.name for info in self.infos}
        # A name without a host that answers: its kernel may well do so itself.
        unhosted = [
            KernelInfo(
                name=kernel.name, instance=kernel.instance, host=kernel.link.machine, status=KernelStatus.UNKNOWN
            )
            for kernel in group
            if kernel.name not in known
        ]
        links = [kernel.link for kernel in group]
        abouts, errors, _ = gather(
            self._mesh, links, kernel_request("describe"), kind="control", timeout=_DESCRIBE_SECONDS
        )
        named = {kernel.name for kernel in group}
        errors |= {name: KernelNotFoundError(_NAMELESS) for name in known - named}
        return [
            describe(info, abouts.get(info.name), errors.get(info.name))
            for info in sorted([*self.infos, *unhosted], key=lambda info: natural(info.name))
        ]

    def choose(self, words: str | Iterable[str]) -> list[KernelInfo]:
        """Return the kernels that words mean, as `Mesh.select` reads them; also dead ones.

        Raises:
            KernelNotFoundError: A word means none.
            HostError: It means none, but a host that could know it does not answer.
        """
        chosen: dict[str, KernelInfo] = {}
        for word in split_words(words):
            found = self._meant(word)
            if not found:
                raise HostError(self._silence()) if self.silent else self.nobody(word)
            chosen.update((info.name, info) for info in found)
        return list(chosen.values())

    def nobody(self, word: str) -> KernelNotFoundError:
        """Return the error that says why no living kernel goes by a word, and what to do."""
        meant = self._meant(word)
        dead = [info for info in meant if info.status == KernelStatus.DEAD]
        if dead:
            causes = "; ".join(f"kernel {info.name!r} is dead: {info.cause or 'cause unknown'}" for info in dead[:3])
            restart = command_line(self._mesh.settings, " ".join(["restart", *(info.name for info in dead)]))
            return KernelNotFoundError(f"{causes}; `{restart}` starts afresh")
        if meant:
            return KernelNotFoundError(f"kernel {', '.join(repr(info.name) for info in meant)} {_NAMELESS}")
        if not self.infos and not self.silent:
            serve = command_line(self._mesh.settings, "serve -n 1 --detach")
            return KernelNotFoundError(f"there is no kernel; start one: `{serve}`")
        names = ", ".join(info.name for info in self.infos) or "none"
        numbered = [info.name for info in self.infos if word.isdecimal() and re.fullmatch(rf"\D+{word}", info.name)]
        hint = f"; did you mean {' or '.join(numbered)}?" if numbered else ""
        missing = f"; {self._silence()}" if self.silent else ""
        return KernelNotFoundError(f"no kernel matches {word!r}{hint or ';'} there are: {names}{missing}")

    def _meant(self, word: str) -> list[KernelInfo]:
        names = meant(word, {info.name: info.tags for info in self.infos})
        return [info for info in self.infos if info.name in names]

    def _silence(self) -> str:
        """Say which hosts do not answer, and what brings their kernels back within reach."""
        serve = command_line(self._mesh.settings, "serve --detach")
        return f"host {', '.join(self.silent)} does not answer; if it is gone, `{serve}` there takes over its kernels"

    def tell(self, infos: Iterable[KernelInfo], method: str, *args: Any, timeout: float) -> list[dict[str, Any]]:
        """Call a method of each host with the names of its kernels, all at once; return what they answered, joined.

        Args:
            infos: Which kernels.
            method, args: What to call; the names come first.
            timeout: Seconds for all of it.

        Raises:
            HostError, AccessRefusedError: As a host says; the others have done their part.
        """
        names: dict[str, list[str]] = {}
        for info in infos:
            names.setdefault(info.host, []).append(info.name)
        unknown = [host for host in names if host not in self.hosts]
        if unknown:
            raise HostError(f"host {', '.join(unknown)} does not answer; see `pyrokernel doctor`")
        requests = {self.hosts[host]: Request(HOST_OBJECT, method, (group, *args)) for host, group in names.items()}
        answers = ask_each(requests, timeout)
        for answer in answers.values():
            if isinstance(answer, Exception):
                raise answer
        return [found for host in names for found in answers[host]]


def describe(info: KernelInfo, about: dict[str, Any] | None, error: PyrokernelError | None) -> KernelInfo:
    """Join what the host knows with what the kernel says of itself.

    Args:
        info: From the host.
        about: The kernel's `describe`; None when it did not answer.
        error: Why it could not be asked, if that is known.
    """
    if info.status in (KernelStatus.DEAD, KernelStatus.STARTING) and about is None:
        return info
    if about is None:
        if isinstance(error, MachineLostError):
            note = f"nothing is heard of {info.host or error.machine}"
            return dataclasses.replace(info, status=KernelStatus.LOST, answers=False, note=note)
        if info.status == KernelStatus.UNKNOWN:  # whether it lives, its host would know
            note = str(error) if error else "neither it nor its host answers"
            return dataclasses.replace(info, answers=False, note=note)
        note = str(error) if error else "holds its interpreter"
        return dataclasses.replace(info, status=KernelStatus.BUSY, answers=False, note=note)
    own = _OWN if info.pid else (*_OWN, *_UNHOSTED)
    known = {key: about[key] for key in own if key in about}
    for key in ("tags", "waiting"):
        if key in known:
            known[key] = tuple(known[key])
    return dataclasses.replace(info, **known, answers=True)


def split_words(words: str | Iterable[str] | None) -> list[str]:
    """Take apart words, or one text, that may have commas between them."""
    texts = (words,) if isinstance(words, str) else words or ()
    return [word for given in texts for word in given.split(",") if word]


def is_name(word: str) -> bool:
    """Whether a word can mean only the one kernel of that name."""
    several = word == "all" or word.startswith("tag:") or any(character in word for character in "*?[,")
    return not several and _RANGE.fullmatch(word) is None


def meant(word: str, kernels: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names of the kernels that a word means.

    Args:
        word: A name, a range such as "k0-k3" or "lab2-[0-3]", a pattern such as "gpu-*", "tag:WORD", or "all". A kernel
            whose very name looks like a range is meant by it alone.
        kernels: The tags of those there are, by their names.
    """
    if word == "all":
        return list(kernels)
    if word.startswith("tag:"):
        return [name for name, tags in kernels.items() if word.removeprefix("tag:") in tags]
    run = _RANGE.fullmatch(word)
    if run is None or word in kernels:
        return [name for name in kernels if fnmatch.fnmatchcase(name, word)]
    numbers = range(int(run[2] or run[4]), int(run[3] or run[5]) + 1)
    numbered = re.compile(rf"{re.escape(run[1])}(\d+)")
    return [name for name in kernels if (match := numbered.fullmatch(name)) and int(match[1]) in numbers]


def natural(name: str) -> list[Any]:
    """Sort key by which k2 comes before k10."""
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(name)]
