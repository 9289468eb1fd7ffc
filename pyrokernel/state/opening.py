"""Opening the store that the settings name: our own, or one that a plugin brings. Runs in the state process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pyrokernel import plugins as plugins_module
from pyrokernel.errors import PyrokernelError, StateCorruptError, StateStorageError
from pyrokernel.plugins import Plugin, Plugins
from pyrokernel.settings import Settings
from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.backups import AHEAD, DATABASE, Backups
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Store

log = logging.getLogger(__name__)

SQLITE = "sqlite"
"""The store that needs no plugin."""

HOOK = "pyrokernel_open_store"


def open_store(directory: Path, settings: Settings, backups: Backups) -> Store:
    """Open the store that the settings name, or make it where none has ever been.

    Args:
        directory: Of the state.
        settings: Which store, how durable, and the sections of plugins.
        backups: Of which the newest is named should the store be damaged.

    Raises:
        StateCorruptError: It is damaged or gone; with the newest backup, if there is one.
        StateStorageError: It cannot be opened, or there is none of that name.
    """
    if settings.state_store == SQLITE:
        return _open_sqlite(directory, backups, power=settings.durability == "power")
    return _open_other(directory, settings)


def _open_sqlite(directory: Path, backups: Backups, *, power: bool) -> Store:
    database, ahead = directory / DATABASE, directory / AHEAD
    if not database.exists():
        # A new one would say that there is nothing, and the values would be removed as nobody's.
        left = [path for path in (ahead, directory / "values", backups.directory) if _has_content(path)]
        if left:
            reason = f"it is missing, and {' and '.join(path.name for path in left)} beside it are not"
            raise StateCorruptError(path=str(database), reason=reason, backup=backups.newest())
    store = SQLiteStore(database, power=power, newest_backup=backups.newest)
    try:
        return WriteAhead(store, ahead, power=power)
    except StateCorruptError as error:
        store.close()
        raise StateCorruptError(path=error.path, reason=error.reason, backup=backups.newest()) from error
    except BaseException:
        store.close()
        raise


def _has_content(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and path.stat().st_size > 0


def _open_other(directory: Path, settings: Settings) -> Store:
    """Have the plugin of that name open its store. It is used as it is: appending to a file first is for SQLite."""
    # Only this plugin is imported: what others do is nothing to the data.
    found = [one for one in plugins_module.find(settings) if one.name == settings.state_store]
    if not found:
        raise _refused(settings, "there is no plugin of that name")
    plugins = Plugins(settings, found)
    plugins.load(lambda plugin: None)
    (plugin,) = plugins.all
    if plugin.module is None:
        raise _refused(settings, f"plugin {plugin.name!r} could not be loaded: {'; '.join(plugin.problems)}")
    if HOOK not in plugin.hooks:
        raise _refused(settings, f"plugin {plugin.name!r} brings no store")
    arguments: dict[str, Any] = {"directory": directory, "mesh": settings.mesh, "durability": settings.durability}
    try:
        store = plugins.call(plugin, HOOK, **arguments)
    except PyrokernelError:
        raise  # it says itself what is wrong
    except (Exception, SystemExit) as error:
        log.exception("plugin %r cannot open its store", plugin.name)
        reason = f"plugin {plugin.name!r} cannot open its store: {plugins_module.sentence(error)}"
        raise _refused(settings, reason) from error
    return _checked(plugin, store, settings)


def _checked(plugin: Plugin, store: Any, settings: Settings) -> Store:
    """Return what a plugin gave, if it has all that a store has."""
    wanted = [name for name in (*vars(Store), *Store.__annotations__) if not name.startswith("_")]
    missing = [name for name in wanted if not hasattr(store, name)]
    if missing:
        raise _refused(
            settings, f"plugin {plugin.name!r} returned a {type(store).__name__} without {', '.join(missing[:3])}"
        )
    found: Store = store
    return found


def _refused(settings: Settings, reason: str) -> StateStorageError:
    """Return the error that names the setting, and the stores that there are."""
    others = [one for one in plugins_module.find(settings) if one.name != settings.state_store]
    plugins = Plugins(settings, others)
    plugins.load(lambda plugin: None)
    names = [SQLITE, *(plugin.name for plugin in plugins.all if HOOK in plugin.hooks)]
    return StateStorageError(
        path=f"{settings.state_store!r} (setting state_store)",
        reason=f"{reason}; what else there is: {', '.join(names)}",
    )
