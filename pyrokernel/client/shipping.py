"""Code on its way to kernels: read, checked, sent where it is missing, kept for later. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import keyword
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrokernel.client.links import ask_each
from pyrokernel.errors import PyrokernelError, ShipError
from pyrokernel.messages import HOST_OBJECT, Shipped
from pyrokernel.shelf import check_files, digest_of
from pyrokernel.wire.fanout import Request

if TYPE_CHECKING:
    from pyrokernel.client.group import Group
    from pyrokernel.client.mesh import Mesh

PASTED = "pasted"
"""Name of the module that source becomes which comes without one."""

_MAX_FILES = 20_000
_LEFT_OUT = frozenset({"__pycache__", "node_modules"})
_KEEP_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Module:
    """A module or package to be shipped.

    Attributes:
        name: What it is imported as.
        shown: How it is called: the name of its file or folder.
        main: Path of its first file.
        where: Path of it here.
        files: Content by path.
        digest: What names this version.
    """

    name: str
    shown: str
    main: str
    where: str
    files: Mapping[str, bytes]
    digest: str

    def check_syntax(self) -> None:
        """Compile all of it here, so that a slip of the pen never reaches a kernel.

        Raises:
            ShipError: A file is no Python; the message shows the line.
        """
        for file, content in self.files.items():
            if file.endswith(".py"):
                _check_syntax(content, self.where if len(self.files) == 1 else str(Path(self.where).parent / file))

    def shipped(self, state: str = "", commands: Sequence[str] = ()) -> Shipped:
        """Return what is said of it."""
        return Shipped(
            name=self.name,
            digest=self.digest,
            shown=self.shown,
            main=self.main,
            state=state,
            commands=tuple(commands),
        )

    def to_wire(self, *, files: bool) -> dict[str, Any]:
        """Return it as it travels, with its files or without."""
        return self.shipped().to_wire() | ({"files": dict(self.files)} if files else {})


def read_modules(sources: Iterable[str | os.PathLike[str]], name: str = "") -> list[Module]:
    """Read what is to be shipped: files, folders of packages, or source itself.

    Args:
        sources: Paths; a text of several lines is source.
        name: What source without a file is called.

    Raises:
        ShipError: One cannot be read, or is too large; or two have one name.
    """
    found: dict[str, Module] = {}
    for source in sources:
        module = _read(source, name)
        held = found.setdefault(module.name, module)
        if held is not module:
            raise ShipError(f"{held.shown} and {module.shown} are both called {module.name!r}; rename one")
    if not found:
        raise ShipError("nothing to ship: name a file, the folder of a package, or give source")
    return list(found.values())


def _read(source: str | os.PathLike[str], name: str) -> Module:
    if isinstance(source, str) and (name or "\n" in source or not _is_path(source)):
        name = name or PASTED
        shown = f"{name}.py"
        return _make(name, shown, shown, {shown: source.encode("utf-8", "surrogatepass")}, shown)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _read_folder(path.resolve())
        content = path.read_bytes()
    except OSError as error:
        raise ShipError(f"cannot read {path}: {error.strerror}") from error
    return _make(path.stem, path.name, path.name, {path.name: content}, str(path))


def _is_path(text: str) -> bool:
    """Whether a line names a file and is not source itself, such as `def f(): return 1`."""
    return text.endswith((".py", ".sage", "/")) or not re.search(r"[\s(=;]", text) or Path(text).exists()


def _read_folder(folder: Path) -> Module:
    """Read a package: all of its files, whatever they are."""
    if not (folder / "__init__.py").is_file():
        raise ShipError(
            f"{folder} is no package: it has no __init__.py; add one, or ship its files: {folder.name}/*.py"
        )
    files: dict[str, bytes] = {}
    for path in walk(folder):
        if not path.resolve().is_relative_to(folder):
            raise ShipError(f"{path} is a link to {path.resolve()}, outside of the package; it is not shipped")
        try:
            files[path.relative_to(folder.parent).as_posix()] = path.read_bytes()
        except OSError as error:
            raise ShipError(f"cannot read {path}: {error.strerror}") from error
        if len(files) > _MAX_FILES:
            raise ShipError(f"{folder} has more than {_MAX_FILES:,} files; ship the package alone, not its data")
    return _make(folder.name, folder.name, f"{folder.name}/__init__.py", files, str(folder))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files of a package, without what is hidden or made by machines."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")):
                yield Path(where, name)
        for name in folders:
            if Path(where, name).is_symlink():  # os.walk does not follow it, and nothing is to be left out unsaid
                yield Path(where, name)


def _make(name: str, shown: str, main: str, files: Mapping[str, bytes], where: str) -> Module:
    if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
        raise ShipError(f"{shown}: {name!r} is no name that Python could import; rename the file")
    if name in sys.stdlib_module_names:
        raise ShipError(f"{shown}: it would hide the module {name!r} of Python itself; rename the file")
    check_files(files, shown)
    return Module(name, shown, main, where, files, digest_of(files))


def _check_syntax(content: bytes, path: str) -> None:
    try:
        compile(content, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        shown = "".join(traceback.format_exception_only(error)).rstrip()
        raise ShipError(f"{path} is not shipped, kernels keep what they have:\n{shown}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nested too deeply
        raise ShipError(f"{path} is no Python source: {error}") from error


def ship(
    group: Group, modules: Sequence[Module], timeout: float | None, printed: dict[str, str] | None = None
) -> dict[str, list[Shipped]]:
    """Load modules in the kernels of a group, sending the files only where they are not; have the hosts keep them.

    Args:
        group: The kernels.
        modules: What `read_modules` returned.
        timeout: Seconds for all kernels; None waits.
        printed: Takes what the code printed when it was run, by kernel.

    Returns:
        By kernel, what became of each module.

    Raises:
        GatherError: A module raised in some kernels, or those failed. RemoteError: It was one kernel.
        ShipError: A host could not keep it for kernels that start later; those there are have it.
    """
    mesh = group.mesh
    states = group.ask_shipped([[module.name, module.digest] for module in modules])
    if len(states) == len(group) and all(found[0] == "unchanged" for each in states.values() for found in each):
        done = {
            name: [module.shipped("unchanged", found[1:]) for module, found in zip(modules, each, strict=True)]
            for name, each in states.items()
        }
    else:
        # One that is silent now may lack all of it.
        lacking = [
            module
            for place, module in enumerate(modules)
            if len(states) < len(group) or any(each[place][0] == "missing" for each in states.values())
        ]
        for module in lacking:
            module.check_syntax()
        if lacking:  # once for a machine; where no host answers the kernels get them
            ask_hosts(mesh, "store_shipped", [module.to_wire(files=True) for module in lacking])
        title = _title(modules)
        done = group.run_shipping("ship", [module.to_wire(files=False) for module in modules], title, timeout, printed)
        missing = [name for name, found in done.items() if any(one.state == "missing" for one in found)]
        if missing:
            whole = [module.to_wire(files=True) for module in modules]
            done |= group[missing].run_shipping("ship", whole, title, timeout, printed)
    problems = _keep(mesh, modules, next(iter(done.values())), group.words)
    if problems:
        raise ShipError(f"kernels that start later will not have it: {'; '.join(problems)}; those that run now do")
    return done


def unship(group: Group, names: Sequence[str], timeout: float | None) -> dict[str, list[str]]:
    """Take modules away from the kernels of a group, and from those that would start later.

    Returns:
        By kernel the names of those that it had.

    Raises:
        As `ship`.
    """
    done = group.run_shipping("unship", list(names), f"unship {' '.join(names)}", timeout)
    _, problems = ask_hosts(group.mesh, "drop_shipped", list(names), group.words, group.names)
    if problems:
        raise ShipError(f"kernels that start later may have it all the same: {'; '.join(problems)}")
    return done


def _title(modules: Sequence[Module]) -> str:
    """Return how lists of cells show a shipment."""
    shown = [module.shown for module in modules]
    return "ship " + " ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _keep(mesh: Mesh, modules: Sequence[Module], shipped: Iterable[Shipped], words: Sequence[str]) -> list[str]:
    """Have all hosts keep modules for kernels that start later; return what failed."""
    kept = [one.to_wire() for one in shipped]
    missing, problems = ask_hosts(mesh, "keep_shipped", kept, list(words))
    lacking = set().union(*missing.values())
    if lacking:  # a machine none of whose kernels was among those
        ask_hosts(mesh, "store_shipped", [module.to_wire(files=True) for module in modules if module.name in lacking])
        missing, problems = ask_hosts(mesh, "keep_shipped", kept, list(words))
        problems += [
            f"host {host}: the files of {', '.join(names)} are not there" for host, names in missing.items() if names
        ]
    return problems


def ask_hosts(mesh: Mesh, method: str, *args: Any) -> tuple[dict[str, Any], list[str]]:
    """Ask all hosts of a mesh; return by host what was answered, and what failed."""
    request = Request(HOST_OBJECT, method, args)
    try:
        answers = ask_each(dict.fromkeys(mesh.hosts(), request), _KEEP_SECONDS)
    except PyrokernelError as error:
        return {}, [str(error)]
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, Exception)}
    good = {name: answer for name, answer in answers.items() if name not in failed}
    return good, [f"host {name}: {error}" for name, error in failed.items()]
