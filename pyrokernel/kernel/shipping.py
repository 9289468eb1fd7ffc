"""Shipped modules: real modules, imported from the shelf, replaced as a whole. Runs in the kernel process.

`Shipping.take` runs as a cell in the main thread, because what it runs is the user's code. The old
version stays until the new one has run to its end.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrokernel.commands import Command, CommandTable, commands_in
from pyrokernel.errors import ShipError
from pyrokernel.messages import Shipped
from pyrokernel.shelf import Kept, Shelf
from pyrokernel.wire.codec import send_by_value

_INSTALLED = tuple({sysconfig.get_path(kind) + os.sep for kind in ("purelib", "platlib")})
_RESERVED = frozenset({"pyrokernel", "__main__"})


class Shipping:
    """The shipped modules of a kernel.

    Args:
        kernel: Its name, for messages.
        shelf: Where their files are.
        table: Where their commands go.
        given: The names that plugins give, set in the globals of each module before it runs.
        transform: Rewrites source before it is compiled, given the name of its file.
    """

    def __init__(
        self,
        kernel: str,
        shelf: Shelf,
        table: CommandTable,
        given: Callable[[], Mapping[str, Any]],
        transform: Callable[[str, str], str],
    ) -> None:
        self._kernel = kernel
        self._shelf = shelf
        self._table = table
        self._given = given
        self._transform = transform
        self._versions: dict[str, Shipped] = {}
        self._installed = False

    def loaded(self) -> list[Shipped]:
        """Return what is loaded, by name."""
        return sorted(self._versions.copy().values(), key=lambda one: one.name)

    def compare(self, wanted: Sequence[Shipped]) -> list[Shipped]:
        """Say of each whether it is loaded in that version ("unchanged"), or its files are "missing"."""
        return [
            _with(self._versions[one.name], state="unchanged")
            if self._is_current(one)
            else _with(one, state="" if self._shelf.has(one.digest) else "missing")
            for one in wanted
        ]

    def store(self, modules: Sequence[Mapping[str, Any]]) -> None:
        """Put the files that came along on the shelf.

        Raises:
            ShipError: They cannot be there.
        """
        for one in modules:
            if one.get("files"):
                self._shelf.store(str(one["digest"]), one["files"], str(one.get("shown") or one["name"]))

    def take(self, wanted: Sequence[Shipped]) -> list[Shipped]:
        """Load modules, all of them or none, and say what that did; what is loaded already stays as it is.

        When the files of one are not on the shelf, nothing is loaded, and those are "missing".

        Raises:
            ShipError: A name may not be used. CommandNameTakenError: Another owner has one of the commands.
            BaseException: Whatever the code of a module raises; the old versions are back in place then.
        """
        for one in wanted:
            self._check_name(one)
        compared = self.compare(wanted)
        if any(one.state == "missing" for one in compared):
            return compared
        fresh = [one for one in wanted if not self._is_current(one)]
        before = self._versions.copy()
        rerun = self._depending_on({one.name for one in fresh}) if fresh else []
        if fresh:
            self._load([_with(one, at=time.time()) for one in fresh], rerun)
        done = []
        for one in wanted:
            old = before.get(one.name)
            if one in fresh:
                state = "replaced" if old else "shipped"
            else:
                state = "rerun" if one.name in rerun else "unchanged"
            was = old.digest if old and state == "replaced" else ""
            done.append(_with(self._versions[one.name], state=state, was=was))
        return done

    def give_back(self, names: Iterable[str]) -> list[str]:
        """Forget modules and their commands; return the names of those that were loaded."""
        gone = [name for name in names if name in self._versions]
        for name in gone:
            self._table.remove(_owner(self._versions[name]))
            self._versions = {key: one for key, one in self._versions.items() if key != name}
            for module in _tree(name):
                del sys.modules[module]
        return gone

    def _is_current(self, one: Shipped) -> bool:
        held = self._versions.get(one.name)
        return held is not None and held.digest == one.digest and one.name in sys.modules

    def _check_name(self, one: Shipped) -> None:
        """Refuse a name that would hide something else.

        Raises:
            ShipError: It is no identifier, or names a module of Python's or one that is installed.
        """
        name = one.name
        if not name.isidentifier():
            raise ShipError(f"{one.shown or name}: {name!r} is no name that Python could import; rename the file")
        if name in sys.stdlib_module_names or name in _RESERVED:
            raise ShipError(f"{one.shown}: it would hide the module {name!r} of Python itself; rename the file")
        if name in self._versions:
            return
        spec = importlib.machinery.PathFinder.find_spec(name)
        where = (spec.origin or "") if spec else ""
        if where.startswith(_INSTALLED):
            raise ShipError(
                f"{one.shown}: it would hide the module {name!r} that is installed for kernel {self._kernel!r} "
                f"({where}); rename the file"
            )

    def _load(self, fresh: Sequence[Shipped], rerun: Sequence[str]) -> None:
        """Run modules in place of their old versions; put those back if anything fails."""
        if not self._installed:
            # First of all: a shipped module is what was meant, also where a file of that name lies about.
            sys.meta_path.insert(0, _Finder(self))
            self._installed = True
        names = [one.name for one in fresh] + list(rerun)
        old_modules = {name: sys.modules[name] for root in names for name in _tree(root)}
        old_versions = self._versions
        self._versions = old_versions | {one.name: one for one in fresh}
        for name in old_modules:
            del sys.modules[name]
        owners = {_owner(one) for one in [*fresh, *(old_versions[name] for name in rerun)]}
        owners |= {_owner(old_versions[one.name]) for one in fresh if one.name in old_versions}
        try:
            found = {name: self._run(name) for name in names}
            self._table.replace(owners, [command for commands in found.values() for command in commands])
        except BaseException as error:
            for root in names:
                for name in _tree(root):
                    del sys.modules[name]
            sys.modules.update(old_modules)
            self._versions = old_versions
            if isinstance(error, ModuleNotFoundError):
                self._explain(error)
            raise
        self._versions |= {
            name: _with(self._versions[name], commands=tuple(command.name for command in commands))
            for name, commands in found.items()
        }

    def _run(self, name: str) -> list[Command]:
        """Import a module, and find its commands."""
        one = self._versions[name]
        __import__(name)  # unlike importlib.import_module it leaves no frames of its own in a traceback
        module = sys.modules[name]
        return commands_in(vars(module), owner=_owner(one), module=name)

    def _depending_on(self, changed: set[str]) -> list[str]:
        """Return the loaded modules, besides these, that hold something of theirs and would go on using the old."""
        found: list[str] = []
        while True:
            more = [
                name
                for name in self._versions
                if name not in changed and any(_holds(sys.modules[module], changed) for module in _tree(name))
            ]
            if not more:
                return found
            found += more
            changed = changed | set(more)

    def _explain(self, error: ModuleNotFoundError) -> None:
        """Say of a missing import where it is missing, and what to do."""
        missing = (error.name or "").partition(".")[0]
        frame, importer = error.__traceback__, ""
        while frame is not None:
            path = Path(frame.tb_frame.f_code.co_filename)
            if path.is_relative_to(self._shelf.folder):
                importer = f", which {path.relative_to(self._shelf.folder).parts[-1]} imports in line {frame.tb_lineno}"
            frame = frame.tb_next
        error.msg = (
            f"kernel {self._kernel!r} has no module {error.name!r}{importer}; install it there "
            f"(`%pip install {missing}`), or ship {missing}.py together with this"
        )

    def spec_of(self, name: str) -> importlib.machinery.ModuleSpec | None:
        """Return how a module of what was shipped is imported; None for any other."""
        root, _, below = name.partition(".")
        one = self._versions.get(root)
        if one is None:
            return None
        folder = self._shelf.version(one.digest)
        if not below:
            path = folder / one.main
            is_package = path.name == "__init__.py"
        else:
            stem = folder.joinpath(*name.split("."))
            is_package = (stem / "__init__.py").is_file()
            path = stem / "__init__.py" if is_package else stem.with_suffix(".py")
            if not path.is_file():
                return None  # a folder of data, or compiled: whoever else can may find it below the package's path
        loader = _Loader(name, str(path), self._given, self._transform)
        places = [str(path.parent)] if is_package else None
        return importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=places)


def meant_for(index: Iterable[Kept], name: str, tags: Sequence[str]) -> list[Shipped]:
    """Return what is on the shelf for a kernel: of each module what was shipped to it last."""
    found: dict[str, Shipped] = {}
    for kept in index:
        from pyrokernel.client.roster import meant  # with `client` behind it; most kernels find an empty shelf

        if name not in kept.without and any(meant(word, {name: tags}) for word in kept.words):
            found.pop(kept.shipped.name, None)
            found[kept.shipped.name] = kept.shipped
    return list(found.values())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds shipped modules before anybody else does."""

    def __init__(self, shipping: Shipping) -> None:
        self._shipping = shipping

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return self._shipping.spec_of(fullname)


class _Loader(importlib.abc.FileLoader, importlib.abc.SourceLoader):
    """Loads a file of the shelf, with the names that plugins give; keeps no byte code, which depends on plugins."""

    def __init__(
        self, name: str, path: str, given: Callable[[], Mapping[str, Any]], transform: Callable[[str, str], str]
    ) -> None:
        super().__init__(name, path)
        self._given, self._transform = given, transform

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(self._given())
        send_by_value(module)
        super().exec_module(module)

    def source_to_code(self, data: Any, path: Any = "<string>") -> types.CodeType:  # type: ignore[override]
        source = importlib.util.decode_source(data) if isinstance(data, bytes) else data
        changed = self._transform(source, os.path.basename(str(path)))
        # What nobody has changed is compiled as bytes: only then does Python say which line is not UTF-8.
        return super().source_to_code(data if changed == source else changed, path)


def _owner(one: Shipped) -> str:
    return one.shown or one.name


def _tree(root: str) -> list[str]:
    """Return the loaded modules of a package, itself first."""
    return [name for name in list(sys.modules) if name == root or name.startswith(root + ".")]


def _holds(module: types.ModuleType, names: set[str]) -> bool:
    """Whether a module holds one of these modules, or a function or class of theirs."""
    for value in list(vars(module).values()):
        home: Any
        if isinstance(value, types.ModuleType):
            home = value.__name__
        elif isinstance(value, (types.FunctionType, type)):
            home = value.__module__
        else:
            continue
        if isinstance(home, str) and home.partition(".")[0] in names:
            return True
    return False


def _with(one: Shipped, **fields: Any) -> Shipped:
    return Shipped(**{**one.to_wire(), "commands": one.commands, **fields})
