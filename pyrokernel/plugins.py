"""Finding plugins, and loading them one by one, so that a broken one costs itself alone. Runs in every process.

Finding reads metadata only and runs no code of a plugin; the template does it, so that kernels
need not. Loading imports a plugin, in a thread that is given up when the import hangs.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import importlib
import importlib.machinery
import logging
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrokernel.commands import Command, CommandTable, KernelIdentity
from pyrokernel.errors import PluginError, PluginLoadError
from pyrokernel.messages import PluginInfo
from pyrokernel.settings import Settings

if TYPE_CHECKING:
    import pluggy

GROUP = "pyrokernel"
"""The group of entry points that name plugins."""

PREFIX = "pyrokernel_"
"""How the names of hooks begin, and those of the modules in a plugins folder that are plugins."""

LOAD_SECONDS = 10.0
"""How long a plugin may take to be imported and to answer the hooks that are called then."""

PRELOAD_SECONDS = 20.0
"""How long a plugin may take in the template, where it imports what is heavy: kernels have 30 s to start."""

log = logging.getLogger(__name__)

_OURS = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen ")
"""How the files begin in which no fault of a plugin lies; so do pluggy's, which is imported only with a plugin."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A plugin that was found, and not yet imported.

    Attributes:
        name, module, distribution, version, where: As `PluginInfo` has them.
    """

    name: str
    module: str
    distribution: str
    version: str
    where: str


_found: tuple[object, list[Found]] | None = None
"""What was found last, and the state of the folders then; a forked kernel inherits it from its template."""


_with_plugins: dict[str, tuple[int, list[Path]]] = {}
"""By folder, the metadata in it that names a plugin, and the time stamp that the folder had then.

A kernel has other folders on its path than its template, and looks into those only.
"""


_at_preload: dict[Found, list[str]] = {}
"""What went wrong in the template, for its forks to tell."""


def stamp(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Return the state of what is installed: it changes with what pip does, and with a file of a plugins folder."""
    files = [one.where for one in _modules(_folders(settings))]
    return tuple((place, _changed(place)) for place in [*_installed(), *_folders(settings), *files])


def find(settings: Settings) -> list[Found]:
    """Return the plugins there are, in alphabetical order, without those to go without; imports none of them."""
    global _found
    state = stamp(settings)
    held = _found  # another thread may replace it meanwhile
    if held is None or held[0] != state:
        by_name = {one.name: one for one in [*_entry_points(), *_modules(_folders(settings))]}
        held = _found = (state, sorted(by_name.values(), key=lambda one: one.name))
    without = {name.strip() for name in settings.no_plugin.split(",")}
    return [one for one in held[1] if one.name not in without]


def preload(settings: Settings, each_within: Callable[[], object]) -> None:
    """Find the plugins; import those whose sections say so, and have them import what kernels will need.

    For the template. What fails here is among the problems of the plugin in each kernel.

    Args:
        settings: Their sections.
        each_within: Called before each plugin; begins to count its time.
    """
    all_found = find(settings)
    if all_found:
        importlib.import_module("pyrokernel.hookspecs")  # with pluggy, which loading a plugin takes
    for found in all_found:
        if settings.plugins.get(found.name, {}).get("preload"):
            each_within()
            print(f"preloading plugin {found.name}", file=sys.stderr, flush=True)  # the last word, if it ends us
            plugins = Plugins(settings, [found], in_thread=False)
            plugins.load(lambda plugin: None)
            for _ in plugins.each("pyrokernel_preload"):
                pass
            _at_preload[found] = plugins.all[0].problems


class Plugin:
    """One plugin in this process.

    Attributes:
        found: Where it comes from.
        settings: Its section of the configuration.
        module: It, once it is imported.
        hooks: The names of the hooks that it implements.
        commands, names: What it has contributed; filled in by whoever took it.
        problems: What went wrong, for people.
        tried: Whether it was loaded, or given up.
    """

    def __init__(self, found: Found, settings: Mapping[str, Any]) -> None:
        self.found = found
        self.settings = settings
        self.module: types.ModuleType | None = None
        self.hooks: tuple[str, ...] = ()
        self.commands: list[str] = []
        self.names: list[str] = []
        self.problems: list[str] = list(_at_preload.get(found, ()))
        self.tried = False
        self._noted = set(self.problems)

    @property
    def name(self) -> str:
        """How it is called."""
        return self.found.name

    def note(self, problem: str, kind: str = "") -> None:
        """Remember what went wrong, once; of what may happen in every cell anew, once of its kind."""
        if (kind or problem) not in self._noted:
            self._noted.add(kind or problem)
            # What fails amid a cell is told there; what fails before, for whoever asks, and not in every new kernel.
            log.log(logging.WARNING if kind else logging.INFO, "plugin %r: %s", self.name, problem)
            self.problems.append(problem)

    def info(self) -> PluginInfo:
        """Return what front ends are told."""
        return PluginInfo(
            **dataclasses.asdict(self.found),
            hooks=self.hooks,
            commands=tuple(self.commands),
            names=tuple(self.names),
            loaded=self.module is not None,
            problems=tuple(self.problems),
        )


class Plugins:
    """The plugins of this process; for all its threads.

    Args:
        settings: Which to go without, where else to look, and their sections.
        found: What `find` has found.
        in_thread: Import each in a thread of its own, so that one that hangs can be given up.
    """

    def __init__(self, settings: Settings, found: list[Found], *, in_thread: bool = True) -> None:
        self._in_thread = in_thread
        self._manager: pluggy.PluginManager | None = None
        self.all = [Plugin(one, settings.plugins.get(one.name, {})) for one in found]
        for folder in _folders(settings):
            if found and folder not in sys.path:
                sys.path.append(folder)  # behind all others: a plugins folder hides nothing but plugins
        _finder.places |= {one.module: os.path.dirname(one.where) for one in found if not one.distribution}
        if _finder.places and _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)

    def load(self, then: Callable[[Plugin], None]) -> None:
        """Import all of them, one by one; what fails is noted.

        Args:
            then: Called with each that was imported, in the same thread: takes what it contributes.
        """
        for plugin in self.all:
            if not plugin.tried:  # an interrupt may have ended an earlier turn halfway
                self._load_one(plugin, then)

    def _load_one(self, plugin: Plugin, then: Callable[[Plugin], None]) -> None:
        further = threading.Lock()  # whoever gets it says what becomes of an import: it counts, or was given up

        def work() -> None:
            try:
                module = importlib.import_module(plugin.found.module)
                if further.acquire(blocking=False):
                    plugin.hooks = self._register(plugin, module)
                    plugin.module = module
                    then(plugin)
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, even SystemExit
                plugin.note(sentence(error))

        if not self._in_thread:
            plugin.tried = True
            work()
            return
        thread = threading.Thread(target=work, name=f"pyrokernel-plugin-{plugin.name}", daemon=True)
        try:
            plugin.tried = True
            thread.start()
            thread.join(LOAD_SECONDS)
        except BaseException:
            # An interrupt: the next cell waits for this import anew, unless the hooks are being called already.
            plugin.tried = not further.acquire(blocking=False)
            raise
        if thread.is_alive():
            what = f"importing {plugin.found.module}" if further.acquire(blocking=False) else "calling its hooks"
            plugin.note(f"{what} did not end within {LOAD_SECONDS:g} s; it is left to itself")

    def _register(self, plugin: Plugin, module: types.ModuleType) -> tuple[str, ...]:
        """Have pluggy check the hooks of a module against the contract; return their names.

        Raises:
            PluginLoadError: It implements a hook that there is not, or with other arguments.
        """
        import pluggy  # 20 ms, and only for those who have plugins

        from pyrokernel import hookspecs

        if self._manager is None:
            self._manager = pluggy.PluginManager(GROUP)
            self._manager.add_hookspecs(hookspecs)
        try:
            self._manager.register(module, plugin.name)
        except Exception as error:  # pluggy's own, or what an attribute of the module raises when it is looked at
            raise PluginLoadError(name=plugin.name, reason=sentence(error)) from error
        callers = self._manager.get_hookcallers(module) or []
        unknown = sorted(caller.name for caller in callers if not caller.has_spec())
        if unknown:
            self._manager.unregister(module)
            known = ", ".join(sorted(name for name in vars(hookspecs) if name.startswith(PREFIX)))
            raise PluginLoadError(name=plugin.name, reason=f"it implements {unknown[0]}, which is no hook: {known}")
        return tuple(sorted(caller.name for caller in callers))

    def implements(self, hook: str) -> bool:
        """Whether any of them implements a hook."""
        return any(hook in plugin.hooks for plugin in self.all)

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """Call a hook of one plugin after the other; yield each with what it returned, unless that is None.

        What one raises is noted; the others are called all the same.

        Args:
            hook: Its name.
            arguments: Its arguments, besides `settings`.
        """
        for plugin in self.all:
            if hook in plugin.hooks:
                try:
                    result = self.call(plugin, hook, **arguments)
                except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - may be anything; an interrupt ends the cell
                    plugin.note(f"{hook} raised {sentence(error)}", kind=f"{hook} raised {type(error).__name__}")
                    continue
                if result is not None:
                    yield plugin, result

    def call(self, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        """Call a hook of one plugin, if it implements that; return what it returned, else None."""
        if self._manager is None or hook not in plugin.hooks:
            return None
        others = [other.module for other in self.all if other is not plugin and other.module is not None]
        caller = self._manager.subset_hook_caller(hook, others)
        results: list[Any] = caller(**arguments, settings=plugin.settings)
        return results[0] if results else None

    def take_commands(self, plugin: Plugin, table: CommandTable, kernel: KernelIdentity) -> None:
        """Have one plugin register its commands; what cannot be taken is noted, the rest is."""

        def register(function: Callable[..., Any], *, name: str = "", safe: bool = False) -> None:
            owner = f"plugin {plugin.name}"
            try:
                each = Command(function, owner=owner, name=name, safe=safe, settings=plugin.settings)
                each.info  # noqa: B018 - read now, so that a signature that lies is told beside the plugin
                table.add([each])
            except PluginError as error:
                plugin.note(str(error))
            else:
                plugin.commands.append(each.name)
                if hasattr(builtins, each.name):
                    plugin.note(f"{each.name}: the builtin comes first; the command is called as :{each.name}")

        self.call(plugin, "pyrokernel_register_commands", register=register, kernel=kernel)

    def infos(self) -> list[PluginInfo]:
        """Describe all of them."""
        return [plugin.info() for plugin in self.all]


class _Finder:
    """Imports what was found in a plugins folder from there: an author has another version installed, too.

    Attributes:
        places: Folder by module.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module, as `sys.meta_path` wants it."""
        folder = self.places.get(fullname)
        return importlib.machinery.PathFinder.find_spec(fullname, [folder], target) if folder else None


_finder = _Finder()


def _installed() -> list[str]:
    """Return the folders in which packages are installed; the working directory is nobody's installation."""
    return [folder for folder in sys.path if folder]


def _folders(settings: Settings) -> list[str]:
    return [folder for folder in settings.plugins_dir.split(os.pathsep) if folder]


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _entry_points() -> Iterator[Found]:
    """Find what is installed. Only packages that name a plugin are looked at with the library, which takes 60 ms."""
    named = [path for folder in _installed() for path in _naming_plugins(folder)]
    if not named:
        return
    from importlib.metadata import Distribution

    seen: set[str] = set()
    for path in named:
        try:
            distribution = Distribution.at(path)
            name = str(distribution.metadata["Name"])
            points = [(point.name, point.value) for point in distribution.entry_points.select(group=GROUP)]
            version = str(distribution.version)
        except Exception as error:  # noqa: BLE001 - what anybody has written there is parsed
            log.warning("the plugins of %s cannot be read: %s", path, sentence(error))
            continue
        if name in seen:
            continue  # the first on the path is the one that is imported
        seen.add(name)
        for point, value in points:
            if not re.fullmatch(r"[\w.-]+", point):
                log.warning("%s names a plugin %r, which is no name", path, point)
                continue
            yield Found(point, value.partition(":")[0].strip(), name, version, str(path.parent))


def _naming_plugins(folder: str) -> list[Path]:
    """Return the metadata folders that name a plugin."""
    changed = _changed(folder)
    held = _with_plugins.get(folder)
    if held is None or held[0] != changed:
        held = _with_plugins[folder] = (changed, list(_read_metadata(folder)))
    return held[1]


def _read_metadata(folder: str) -> Iterator[Path]:
    """Yield the metadata folders that name a plugin."""
    try:
        with os.scandir(folder) as entries:
            paths = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
    except OSError:  # no folder, such as a zip file
        return
    for path in paths:
        try:
            with open(f"{path}/entry_points.txt", encoding="utf-8") as file:
                if f"[{GROUP}]" in file.read():
                    yield Path(path)
        except (OSError, UnicodeDecodeError):
            continue


def _modules(folders: list[str]) -> Iterator[Found]:
    """Find what lies in plugins folders."""
    for folder in folders:
        try:
            paths = sorted(Path(folder).iterdir())
        except OSError as error:
            log.warning("the plugins folder %s cannot be read: %s", folder, error.strerror)
            continue
        for path in paths:
            is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
            if path.name.startswith(PREFIX) and is_module and path.stem.isidentifier():
                yield Found(path.stem.removeprefix(PREFIX), path.stem, "", "", str(path))


def sentence(error: BaseException) -> str:
    """Say what was raised, and where in the plugin."""
    if isinstance(error, PluginLoadError):
        return error.reason
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a __str__ may raise anything
        text = "(without a text)"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = ""
    if frame is not None and not frame.tb_frame.f_code.co_filename.startswith(_OURS):
        where = f" ({frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno})"
    return f"{type(error).__name__}: {text[:500]}{where}"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what plugins print out of the answers of a front end, and what is noted of them out of its log.

    The front end tells the problems itself; whoever asked for more than warnings has them in the log as well.
    """
    before = log.level
    if logging.getLogger().getEffectiveLevel() > logging.INFO:
        log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        log.setLevel(before)
