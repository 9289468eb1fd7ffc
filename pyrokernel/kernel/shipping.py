"""Shipped modules: real modules, imported from the shelf, replaced as a whole. Runs in the kernel process.

`Shipping.take` runs as a cell in the main thread, because what it runs is the user's code. The old
version stays until the new one has run to its end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.machinery
import importlib.util
import keyword
import os
import site
import sys
import sysconfig
import time
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrokernel.commands import Command, CommandTable, commands_in
from pyrokernel.errors import ShipError
from pyrokernel.messages import Shipped
from pyrokernel.shelf import Kept, Shelf
from pyrokernel.wire.codec import send_by_value

_MANY = 100
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
        self._code: dict[str, types.CodeType] = {}
        self._finder = _Finder(self)

    def loaded(self) -> list[Shipped]:
        """Return what is loaded, by name."""
        return sorted(self._versions.copy().values(), key=lambda one: one.name)

    def state_of(self, name: str, digest: str) -> str:
        """Say whether a version is loaded ("unchanged"), lies on the shelf (""), or its files are "missing"."""
        held = self._versions.get(name)
        if held is not None and held.digest == digest and name in sys.modules:
            return "unchanged"
        return "" if self._shelf.has(digest) else "missing"

    def commands_of(self, name: str, digest: str) -> tuple[str, ...]:
        """Return the names of the commands of a version, () when it is not loaded."""
        held = self._versions.get(name)
        return held.commands if held is not None and held.digest == digest else ()

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
        installed = _installed_modules()
        for one in wanted:
            self._check_name(one, installed)
        states = {one.name: self.state_of(one.name, one.digest) for one in wanted}
        if "missing" in states.values():
            return [_with(one, state=states[one.name]) for one in wanted]
        before = self._versions
        fresh = {one.name: one for one in wanted if not states[one.name]}
        rerun = self._depending_on(set(fresh)) if fresh else []
        if fresh:
            now = time.time()
            self._load([_with(one, at=now) for one in fresh.values()], rerun)
        done = []
        for one in wanted:
            old = before.get(one.name)
            if one.name in fresh:
                state, was = ("replaced", old.digest) if old else ("shipped", "")
            else:
                state, was = ("rerun" if one.name in rerun else "unchanged"), ""
            done.append(_with(self._versions[one.name], state=state, was=was))
        return done

    def give_back(self, names: Iterable[str]) -> list[str]:
        """Forget modules and their commands; return the names of those that were loaded."""
        gone = [name for name in names if name in self._versions]
        self._table.replace({_owner(self._versions[name]) for name in gone}, ())
        self._versions = {name: one for name, one in self._versions.items() if name not in gone}
        for module in _trees(gone):
            del sys.modules[module]
            self._code.pop(module, None)
        return gone

    def _check_name(self, one: Shipped, installed: Mapping[str, str]) -> None:
        """Refuse a name that would hide something else.

        Raises:
            ShipError: It is no identifier, or names a module of Python's or one that is installed.
        """
        name = one.name
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ShipError(f"{one.shown or name}: {name!r} is no name that Python could import; rename the file")
        if name in sys.stdlib_module_names or name in _RESERVED:
            raise ShipError(f"{one.shown}: it would hide the module {name!r} of Python itself; rename the file")
        if name in installed and name not in self._versions:
            raise ShipError(
                f"{one.shown}: it would hide the module {name!r} that is installed for kernel {self._kernel!r} "
                f"({installed[name]}); rename the file"
            )

    def _load(self, fresh: Sequence[Shipped], rerun: Sequence[str]) -> None:
        """Run modules in place of their old versions; put those back if anything fails."""
        if self._finder not in sys.meta_path:
            # First of all: a shipped module is what was meant, also where a file of that name lies about.
            sys.meta_path.insert(0, self._finder)
        names = [one.name for one in fresh] + list(rerun)
        old_modules = {name: sys.modules[name] for name in _trees(names)}
        old_versions, old_code = self._versions, self._code
        gone = set(names)
        self._code = {name: code for name, code in old_code.items() if name.partition(".")[0] not in gone}
        self._versions = old_versions | {one.name: one for one in fresh}
        for name in old_modules:
            del sys.modules[name]
        owners = {_owner(one) for one in [*fresh, *(old_versions[name] for name in rerun)]}
        owners |= {_owner(old_versions[one.name]) for one in fresh if one.name in old_versions}
        try:
            with _without_collector(len(names)):
                found = {name: self._run(name) for name in names}
            self._table.replace(owners, [command for commands in found.values() for command in commands])
        except BaseException as error:
            for name in _trees(names):
                del sys.modules[name]
            sys.modules.update(old_modules)
            self._versions, self._code = old_versions, old_code
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
        # What a module has put in its own place may have no globals.
        names = getattr(sys.modules[name], "__dict__", None) or {}
        return commands_in({str(key): value for key, value in names.items()}, owner=_owner(one), module=name)

    def _depending_on(self, changed: set[str]) -> list[str]:
        """Return the loaded modules, besides these, that import one of them and would go on using the old."""
        found: list[str] = []
        while True:
            more = {
                module.partition(".")[0]
                for module, code in self._code.items()
                if not changed.isdisjoint(name.partition(".")[0] for name in code.co_names) and _imports(code, changed)
            }
            more -= changed
            if not more:
                return [name for name in self._versions if name in found]
            found += more
            changed = changed | more

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
        folder = f"{self._shelf.folder}{os.sep}{one.digest}"
        if below:
            stem = os.path.join(folder, *name.split("."))
            found = [path for path in (os.path.join(stem, "__init__.py"), f"{stem}.py") if os.path.isfile(path)]
            if not found:
                return None  # a folder of data, or compiled: whoever else can may find it below the package's path
            path = found[0]
        else:
            path = os.path.join(folder, one.main)
        places = [os.path.dirname(path)] if path.endswith(f"{os.sep}__init__.py") else None
        loader = _Loader(name, path, self._given, self._transform, self._code)
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


class _Finder:
    """Finds shipped modules before anybody else does."""

    def __init__(self, shipping: Shipping) -> None:
        self._shipping = shipping

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return self._shipping.spec_of(fullname)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a file of the shelf, with the names that plugins give; keeps no byte code, which depends on plugins."""

    def __init__(
        self,
        name: str,
        path: str,
        given: Callable[[], Mapping[str, Any]],
        transform: Callable[[str, str], str],
        kept: dict[str, types.CodeType],
    ) -> None:
        super().__init__(name, path)
        self._given, self._transform, self._kept = given, transform, kept

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(self._given())
        send_by_value(module.__name__)
        super().exec_module(module)

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        data = self.get_data(path)
        try:
            source = importlib.util.decode_source(data)
        except (SyntaxError, UnicodeDecodeError):
            return self.source_to_code(data, path)  # says which line is not UTF-8
        code = self._kept[fullname] = self.source_to_code(self._transform(source, os.path.basename(path)), path)
        return code


def _owner(one: Shipped) -> str:
    return one.shown or one.name


def _trees(roots: Collection[str]) -> list[str]:
    """Return the loaded modules of some packages, and those themselves."""
    wanted = set(roots)
    return [name for name in list(sys.modules) if name.partition(".")[0] in wanted]


def _imports(code: types.CodeType, names: set[str]) -> bool:
    """Whether a module imports one of these when it is run; what functions import they find anew each time."""
    import dis  # 5 ms, and only once a module was replaced whose name another one has

    return any(
        step.opname == "IMPORT_NAME" and str(step.argval).partition(".")[0] in names
        for step in dis.get_instructions(code)
    )


@contextlib.contextmanager
def _without_collector(modules: int) -> Iterator[None]:
    """Keep the collector from looking through what many modules make, none of which is garbage: a fifth of the time."""
    pauses = modules >= _MANY and gc.isenabled()
    if pauses:
        gc.disable()
    try:
        yield
    finally:
        if pauses:
            gc.enable()


def _installed_modules() -> dict[str, str]:
    """Return where each module lies that is installed."""
    found = {}
    for folder in {*map(sysconfig.get_path, ("purelib", "platlib")), *site.getsitepackages()}:
        with contextlib.suppress(OSError):  # there may be none
            for name in os.listdir(folder):
                found[name.partition(".")[0]] = os.path.join(folder, name)
    return found


def _with(one: Shipped, **fields: Any) -> Shipped:
    return Shipped(**{**vars(one), **fields})
