"""The shelf of a machine: what was shipped, for kernels now and later. Runs in the host and the kernel process.

A folder of versions, each named by the digest of its content and never changed, and an index of
which kernels get which. Kernels import from it, so what tracebacks name are files that exist. Those
of one machine share it; a kernel that starts later finds in it what was shipped to its group::

    index.json          what was kept, in the order in which it was shipped
    <digest>/           the files of one module or package
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pyrokernel.errors import ShipError
from pyrokernel.messages import Shipped

MAX_BYTES = 64 * 1024 * 1024
"""The most that one module or package may have: code travels this way, data by `push`."""

_KEPT_VERSIONS = 100
"""Versions that no kernel is to get any more stay for a while: kernels that run may still be reading their lines."""


_FRESH_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Kept:
    """What kernels that start later get.

    Attributes:
        shipped: Which module, in which version.
        words: Which kernels, as `Mesh.select` has it.
        without: Names of those that have given it back.
    """

    shipped: Shipped
    words: tuple[str, ...]
    without: tuple[str, ...] = ()


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return what names a version: 16 hexadecimal digits of the SHA-256 of names and contents."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name}\0{len(files[name])}\0".encode())
        found.update(files[name])
    return found.hexdigest()[:16]


def check_files(files: Mapping[str, bytes], shown: str) -> None:
    """Refuse what would be written elsewhere, or is too much.

    Args:
        files: Content by relative path, with "/" between.
        shown: What it is, for the error.

    Raises:
        ShipError: A path leads out of the folder, or there are more than `MAX_BYTES`.
    """
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\0" in name or "\\" in name or not {"..", "."}.isdisjoint(parts):
            raise ShipError(f"{shown}: {name!r} lies outside of what is shipped")
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        raise ShipError(
            f"{shown} has {size / 2**20:.0f} MiB, and {MAX_BYTES // 2**20} MiB are the most that is shipped; "
            "send data with push, or put it where the kernels read files"
        )


class Shelf:
    """The shelf in a folder, which is made when something is put into it.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, digest: str) -> bool:
        """Whether a version is there."""
        return self.version(digest).is_dir()

    def version(self, digest: str) -> Path:
        """Return the folder of a version.

        Raises:
            ShipError: That is no digest.
        """
        if len(digest) != 16 or not set(digest) <= set("0123456789abcdef"):
            raise ShipError(f"{digest!r} is no digest of a version")
        return self.folder / digest

    def store(self, digest: str, files: Mapping[str, bytes], shown: str) -> None:
        """Put a version in, unless it is there.

        Raises:
            ShipError: The files are not what the digest says, or may not be written.
        """
        if self.has(digest):
            return
        check_files(files, shown)
        if digest_of(files) != digest:
            raise ShipError(f"{shown} did not arrive as it was sent; ship it again")
        unfinished = self.folder / f".{digest}-{os.urandom(4).hex()}"
        try:
            for folder in sorted({os.path.dirname(unfinished / name) for name in files}):
                os.makedirs(folder, exist_ok=True)
            for name, content in files.items():
                (unfinished / name).write_bytes(content)
            os.rename(unfinished, self.version(digest))  # whole or not at all, whoever else writes it now
        except OSError as error:
            _remove_tree(unfinished)
            if not self.has(digest):
                raise ShipError(f"{shown} cannot be written to {self.folder}: {error.strerror}") from error

    def index(self) -> list[Kept]:
        """Return what is kept, in the order in which it was shipped."""
        try:
            entries = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            return [_kept(one) for one in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ShipError(f"{self.folder / 'index.json'} is damaged ({error}); remove it and ship again") from error

    def begin_loading(self, kernel: str, digests: Iterable[str]) -> None:
        """Note what a kernel is about to load at its start; should it die of that, the next life goes without."""
        with contextlib.suppress(OSError):  # on a full disk a death of it is not noted
            self._marker(kernel).write_text(" ".join(digests), encoding="utf-8")

    def end_loading(self, kernel: str) -> None:
        """Note that a kernel has lived to the end of that."""
        with contextlib.suppress(OSError):
            self._marker(kernel).unlink()

    def deadly(self, kernel: str) -> set[str]:
        """Return what the earlier life of a kernel was loading when it died; forgotten with the next shipment."""
        try:
            return set(self._marker(kernel).read_text(encoding="utf-8").split())
        except (OSError, ValueError):
            return set()

    def _marker(self, kernel: str) -> Path:
        return self.folder / f".loading-{kernel}"

    def keep(self, shipped: Iterable[Shipped], words: Iterable[str]) -> None:
        """Note what kernels that start later get; one writer at a time, the host."""
        chosen = tuple(words)
        entries = [{"shipped": one.to_wire(), "words": chosen, "without": ()} for one in shipped]
        try:
            new = {kept.shipped.name: kept for kept in map(_kept, entries)}
        except (TypeError, KeyError, ValueError) as error:
            raise ShipError(f"this cannot be kept: {error}") from error
        held = self.index()
        same = {kept.shipped.name: kept.shipped.digest for kept in held if kept.words == chosen and not kept.without}
        if all(same.get(name) == kept.shipped.digest for name, kept in new.items()):
            return  # shipping again what is there is meant to be cheap
        others = [kept for kept in held if kept.words != chosen or kept.shipped.name not in new]
        if chosen == ("all",):  # what was for some is for all now
            others = [kept for kept in others if kept.shipped.name not in new]
        self._write([*others, *new.values()])

    def drop(self, names: Iterable[str], words: Iterable[str], kernels: Iterable[str]) -> None:
        """Note what kernels that start later get no more.

        Args:
            names: Of modules.
            words: Which kernels gave them back.
            kernels: The names of those that there are.
        """
        dropped, chosen, given_back = set(names), tuple(words), set(kernels)
        left = []
        for kept in self.index():
            if kept.shipped.name not in dropped:
                left.append(kept)
            elif kept.words != chosen and chosen != ("all",) and not set(kept.words) <= given_back:
                left.append(dataclasses.replace(kept, without=tuple(sorted({*kept.without, *given_back}))))
        self._write(left)

    def _write(self, entries: list[Kept]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            [
                {"shipped": kept.shipped.to_wire(), "words": list(kept.words), "without": list(kept.without)}
                for kept in entries
            ]
        )
        unfinished = self.folder / ".index.json"
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, self.folder / "index.json")
        for marker in self.folder.glob(".loading-*"):
            marker.unlink(missing_ok=True)
        self._forget_old({kept.shipped.digest for kept in entries})

    def _forget_old(self, kept: set[str]) -> None:
        """Remove the oldest of the versions that nobody is to get; the newest may be about to be kept."""
        ages = [(_changed(path), path) for path in self.folder.iterdir() if path.is_dir() and path.name not in kept]
        spare = sorted(age for age in ages if age[0] < time.time() - _FRESH_SECONDS)
        for _, path in spare[:-_KEPT_VERSIONS]:
            _remove_tree(path)


def _kept(entry: Mapping[str, Any]) -> Kept:
    """Read an entry of the index; whoever wrote it, it must be what it says.

    Raises:
        TypeError, KeyError, ValueError: It is not.
    """
    shipped = Shipped.from_wire(entry["shipped"])
    words, without = tuple(entry["words"]), tuple(entry["without"])
    texts = (shipped.name, shipped.digest, shipped.shown, shipped.main, *words, *without)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name in it is no text")
    return Kept(shipped, words, without)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another one removed it just now
        return 0.0


def _remove_tree(path: Path) -> None:
    import shutil  # with three libraries for compression; every kernel would have them

    shutil.rmtree(path, ignore_errors=True)
