"""Who may hold which name at the name server, and what an entry may look like. Runs in a name server.

Decides only; `nameserver` asks it before it does anything. A name belongs to who registered it: an account of this
machine, a user or a host, by kind and name. That is kept with the entry, in a word of its metadata that nobody else
may write: "owner:host:lab1".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

from Pyro5.core import NAMESERVER_NAME, URI
from Pyro5.errors import NamingError, PyroError

from pyrokernel.messages import HOST_PREFIX, KERNEL_PREFIX, STATE_OBJECT
from pyrokernel.roles import Role
from pyrokernel.settings import split_address
from pyrokernel.wire.trust import Peer, described_identity

__all__ = [
    "NAMES_OF_ONE",
    "OWNER",
    "check_change",
    "check_claim",
    "check_keeper",
    "check_location",
    "check_metadata",
    "check_name",
    "owners_in",
]

OWNER = "owner:"
"""Begins the word of the metadata that says whose an entry is."""

NAMES_OF_ONE = 10_000
"""So many names one owner may hold: ten times the kernels of a large host."""

MAX_NAME_CHARS = 200
MAX_URI_CHARS = 400
MAX_WORDS = 64
MAX_METADATA_CHARS = 4096

_OURS = "pyrokernel."
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""What the names of kernels and hosts are made of."""

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")

_KEYS = ("class", "host", "instance", "kernel", "pid", "tag", "version")
"""Words `KEY:VALUE` that pyrokernel itself reads, so their values are plain."""


def owners_in(metadata: Iterable[str]) -> frozenset[str]:
    """Return who may change an entry, by its metadata.

    What is of a host is that host's, whoever wrote it: only the host itself and the account of the name server may
    write this word. So a host that was on this machine's own socket yesterday finds its entries today.
    """
    words = frozenset(metadata)
    mine = {word.removeprefix(OWNER) for word in words if word.startswith(OWNER)}
    return frozenset(mine | {word for word in words if word.startswith("host:")})


def check_name(name: object) -> None:
    """Refuse a name that a terminal, a path or a URI would take for something else.

    Raises:
        NamingError: It is one.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
        raise NamingError(f"a name has 1 to {MAX_NAME_CHARS} characters")
    if not name.isprintable() or " " in name:
        raise NamingError(f"the name {name!a} has blanks, control or invisible characters; use letters and digits")
    if "/" in name or "\\" in name or ".." in name:
        raise NamingError(f"the name {name!r} looks like a path; use single dots between its parts")
    if name.startswith(_OURS) and not _PLAIN.fullmatch(name):
        raise NamingError(f"the name {name!r}: those of kernels and hosts have letters, digits, '.', '_' and '-'")


def check_claim(peer: Peer, name: str) -> None:
    """Refuse a name that is not for this peer, whether somebody holds it or not.

    Raises:
        NamingError: It is reserved for others.
    """
    if name == NAMESERVER_NAME:
        raise NamingError(f"the name {name} is the name server's own")
    if peer.kind == "account" or not name.startswith(_OURS):
        return
    if peer.kind != "host":
        raise NamingError(f"the name {name} is for hosts, and this is {peer.described}; choose one without {_OURS}")
    if name.startswith(HOST_PREFIX) and name != HOST_PREFIX + peer.user:
        raise NamingError(f"the name {name} is for that host, and this is {peer.user} by its certificate")
    if not name.startswith((HOST_PREFIX, KERNEL_PREFIX)) and name != STATE_OBJECT:
        raise NamingError(f"the name {name} is reserved; choose one that does not begin with {_OURS}")


def check_keeper(words: Collection[str], keeper: str, hosts: Collection[str]) -> None:
    """Refuse the name of the shared state to a host that is not the one to keep it: a whole mesh would follow it there.

    Args:
        words: Metadata of the entry; that a host writes only its own name there, `check_metadata` sees to.
        keeper: Which host keeps it; "" where nobody has said so: then the only one there is.
        hosts: Those that are registered.

    Raises:
        NamingError: It is another host, or there are several and none is named.
    """
    by = next((word.removeprefix("host:") for word in words if word.startswith("host:")), "")
    if keeper and by != keeper:
        raise NamingError(
            f"host {keeper} keeps the shared state of this mesh, not {by or 'a host without a name'}; to have another "
            "one keep it, set state_host, the same everywhere, and start the host of the name server again"
        )
    others = sorted({*hosts} - {by})
    if not keeper and others:
        raise NamingError(
            f"this mesh has several hosts ({', '.join(sorted({*others, by} - {''}))}), and nobody has said which of "
            "them keeps the shared state: set state_host, the same everywhere, also where the name server is started"
        )


def check_change(peer: Peer, name: str, metadata: Iterable[str]) -> None:
    """Refuse to replace, mark or remove what is somebody else's.

    Raises:
        NamingError: It is.
    """
    if name == NAMESERVER_NAME:
        raise NamingError(f"the name {name} is the name server's own")
    owners = owners_in(metadata)
    if peer.role < Role.ADMIN and peer.identity not in owners:
        holder = " or ".join(map(described_identity, sorted(owners))) or "nobody that is known"
        raise NamingError(f"the name {name} is held by {holder}, not by {peer.described}; an admin may remove it")


def check_metadata(peer: Peer, metadata: Iterable[str]) -> frozenset[str]:
    """Return the words of an entry, without the one that says whose it is.

    Raises:
        NamingError: They are too many, too long or misleading.
    """
    if isinstance(metadata, str):
        raise TypeError("metadata should not be a str, but another iterable (set, list, etc)")  # as Pyro says it
    words = list(metadata)
    if len(words) > MAX_WORDS or not all(isinstance(word, str) for word in words):
        raise NamingError(f"metadata are at most {MAX_WORDS} words, each a text")
    if sum(map(len, words)) > MAX_METADATA_CHARS:
        raise NamingError(f"the metadata of a name have at most {MAX_METADATA_CHARS} characters together")
    for word in words:
        _check_word(peer, word)
    return frozenset(word for word in words if not word.startswith(OWNER))


def _check_word(peer: Peer, word: str) -> None:
    if not word or not word.isprintable():
        raise NamingError(f"the metadata {word!a} are empty, or have control or invisible characters")
    if word.startswith(OWNER) and word != OWNER + peer.identity and peer.role < Role.ADMIN:
        raise NamingError(f"the metadata {word!r} are the name server's own; leave them out")
    key, _, value = word.partition(":")
    if key == "socket" and (not value.startswith("/") or ".." in value):
        raise NamingError(f"the metadata {word!r}: use an absolute path after socket:")
    if value and key in _KEYS and not _PLAIN.fullmatch(value):
        raise NamingError(f"the metadata {word!r}: use letters, digits, '.', '_' and '-' after {key}:")
    if peer.kind == "account":
        return
    if key == "host" and (peer.kind != "host" or value != peer.user):
        raise NamingError(f"the metadata {word!r} are for that host, and this is {peer.described}")
    if peer.kind != "host" and (key == "socket" or (key == "class" and value.startswith(_OURS))):
        raise NamingError(f"the metadata {word!r} are for hosts, and this is {peer.described}")


def check_location(peer: Peer, uri: str, name: str = "") -> None:
    """Refuse an address that leads nowhere, or back to whoever asks for it.

    Whether it leads to who registered it cannot be told from here: names may have changed by the time somebody looks,
    and a host may have several addresses. Who connects finds out by the certificate there.

    Raises:
        NamingError: It does.
    """
    try:
        if len(uri) > MAX_URI_CHARS or not uri.isprintable():
            raise PyroError("too long, or with characters that cannot be seen")
        parsed = URI(uri)
    except (PyroError, ValueError) as error:
        raise NamingError(f"the URI of a name is PYRO:OBJECT@HOST:PORT, and this is none: {error}") from error
    if name.startswith(_OURS) and parsed.protocol != "PYRO":
        raise NamingError(f"the name {name} must lead to an object (PYRO:...), not on to another name")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise NamingError(f"the port of {uri} is none")
    if not peer.address:
        return
    if parsed.sockname:
        raise NamingError(
            f"{uri} is a unix socket: from another machine it leads nowhere; set listen, and use HOST:PORT"
        )
    if parsed.host and _is_nowhere(parsed.host, split_address(peer.address)[0]):
        raise NamingError(f"{uri} leads back to whoever asks; register the address by which others reach this machine")


def _is_nowhere(host: str, origin: str) -> bool:
    """Whether others are led to themselves by an address that came from `origin`."""
    try:
        origin_local = ipaddress.ip_address(origin).is_loopback
    except ValueError:
        origin_local = False
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return not origin_local
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        # A number that is no address as it is usually written: resolvers take 127.1 and 0x7f000001 all the same.
        return re.fullmatch(r"[0-9.]+|0x[0-9a-f.x]+", name) is not None
    mapped = getattr(found, "ipv4_mapped", None) or found
    return mapped.is_unspecified or mapped.is_multicast or (mapped.is_loopback and not origin_local)
