"""The mesh file: TOML that declares kernels and settings. Runs in the caller's process.

::

    mesh = "lab"

    [[kernel]]
    name = "camera"
    tags = ["optics"]
    init = "camera.py"        # relative to this file
    memory = "4G"

    [[kernel]]
    name = "worker"
    count = 8                 # worker0 ... worker7
    preload = ["numpy"]
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from pyrokernel.errors import SettingsError
from pyrokernel.host.policy import check_new_names, check_spec
from pyrokernel.messages import KernelSpec
from pyrokernel.settings import Settings, parse_size, parse_span

_MEASURES = {
    "memory": ("memory_bytes", parse_size),
    "memory_bytes": ("memory_bytes", parse_size),
    "journal": ("journal_bytes", parse_size),
    "journal_bytes": ("journal_bytes", parse_size),
    "idle_stop": ("idle_stop", parse_span),
}
"""Keys whose values are written as on the command line, the fields that they set, and how they are read."""


def load_mesh_file(path: str | Path) -> tuple[dict[str, Any], list[KernelSpec]]:
    """Read a mesh file.

    Returns:
        The settings it gives, to be passed to `settings.load`, and the kernels it declares.

    Raises:
        SettingsError: It cannot be read, is not TOML, or has a key or value that does not exist.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            data = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"cannot read the mesh file {file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the mesh file {file} is not valid TOML: {error}") from error
    tables = data.pop("kernel", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{file}: declare kernels as [[kernel]] tables")
    known = {field.name for field in dataclasses.fields(Settings)}
    for key in data:
        if key not in known:
            raise SettingsError(f"{file}: unknown key {key!r}; known are: kernel, {', '.join(sorted(known))}")
    specs: list[KernelSpec] = []
    for table in tables:
        specs.extend(_read_kernel(table, file))
    check_new_names(specs, {})
    return data, specs


def _read_kernel(table: dict[str, Any], file: Path) -> list[KernelSpec]:
    """Turn one [[kernel]] table into as many specs as it counts."""
    defaults = {field.name: _default(field) for field in dataclasses.fields(KernelSpec)}
    values: dict[str, Any] = {}
    count = None
    for key, value in table.items():
        try:
            if key == "count":
                count = _convert(0, value)
            elif key in _MEASURES:
                field, parse = _MEASURES[key]
                values[field] = parse(value)
            elif key in defaults:
                values[key] = _convert(defaults[key], value)
            else:
                known = sorted({*defaults, *_MEASURES, "count"})
                raise ValueError(f"no such key; known are: {', '.join(known)}")
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{file}: kernel {table.get('name', '?')!r}, key {key!r}: {error}") from error
    if "name" not in values:
        raise SettingsError(f"{file}: a [[kernel]] table has no name")
    for key, is_there, what in (("init", Path.is_file, "file"), ("cwd", Path.is_dir, "directory")):
        if values.get(key):
            path = file.resolve().parent / Path(values[key]).expanduser()
            if not is_there(path):
                raise SettingsError(f"{file}: kernel {values['name']!r}, key {key!r}: there is no {what} {path}")
            values[key] = str(path)
    values["path"] = tuple(str(file.resolve().parent / Path(folder).expanduser()) for folder in values.get("path", ()))
    names = [values["name"]] if count is None else [f"{values['name']}{number}" for number in range(count)]
    try:
        return [check_spec(KernelSpec(**{**values, "name": name})) for name in names]
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return a value of the type that a field of `KernelSpec` has."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return {} if field.default_factory is not dataclasses.MISSING else ""


def _convert(default: Any, value: Any) -> Any:
    """Return `value` if TOML gave it the type of `default`."""
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise TypeError(f"{value!r} is not a list of words")
    if isinstance(default, dict):
        if isinstance(value, dict) and all(isinstance(item, (str, int, float)) for item in value.values()):
            return {name: str(item) for name, item in value.items()}
        raise TypeError(f"{value!r} is not a table of texts")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise TypeError(f"{value!r} is not of type {type(default).__name__}")
    return value
