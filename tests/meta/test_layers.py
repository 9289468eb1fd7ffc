"""The house keeps its order: imports go one way, and each foreign library stays in its room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyrokernel"

LAYERS = {
    "errors": 0,
    "settings": 0,
    "messages": 0,
    "texts": 0,
    "controls": 0,
    "survey": 0,
    "tracebacks": 0,
    "scripts": 0,
    "arguments": 0,
    "wording": 0,
    "again": 0,
    "systems": 0,
    "roles": 0,
    "birth": 0,
    "loop": 0,
    "loglimit": 0,
    "journal": 1,
    "shelf": 1,
    "journal_files": 1,
    "hookspecs": 1,
    "commands": 1,
    "plugins": 1,
    "policy": 1,
    "audit": 1,
    "stores": 1,
    "wire": 2,
    "client": 3,
    "certs": 3,
    "kernel": 4,
    "state": 4,
    "host": 4,
    "gateway": 4,
    "testing": 5,
    "shell": 5,
    "front": 6,
    "cli": 7,
    "__main__": 8,
    "": 5,  # the facade, __init__.py
}
"""Room to layer: a module imports from its own room and lower layers; in layers 0 and 1 also from its neighbours."""

PROCESSES = {"kernel", "state", "host", "gateway"}
"""Rooms that are processes of their own: same layer, and strangers to each other."""

FOREIGN = {
    "Pyro5": {"wire"},
    "serpent": {"wire"},
    "cloudpickle": {"wire", "client", "kernel"},
    "pluggy": {"hookspecs", "plugins", "commands"},
    "cmd2": {"shell"},
    "rich": {"shell"},
    "prompt_toolkit": {"shell"},
    "pygments": {"shell"},
    "cryptography": {"certs"},
    "pytest": {"testing"},
    # Inside functions that are handed one of their values, so loaded already: see test_nothing_heavy_comes_along.
    "numpy": {"client", "wire"},
    "pandas": {"client"},
    "matplotlib": {"kernel"},
}
"""Library to the rooms that may import it; one that is not listed is not a dependency."""

BACKWARDS = {
    ("pyrokernel.client.kernel", "pyrokernel.client.group"),  # a single kernel calls as a group of one does
    ("pyrokernel.client.shared", "pyrokernel.client.mesh"),  # a kernel's `shared` finds the mesh at its first use
    ("pyrokernel.client.reaching", "pyrokernel.client.mesh"),  # a reference may arrive where there is no mesh yet
}
"""Imports inside functions that go against the reading order of their room."""


def modules() -> dict[str, Path]:
    """Map every module of the package to its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
EACH_MODULE = pytest.mark.parametrize("module", MODULES)


def room(module: str) -> str:
    """Return the top-level folder or module below the package, "" for the facade."""
    return [*module.split("."), ""][1]


def nodes(tree: ast.AST, *, typing: bool = True) -> Iterator[ast.AST]:
    """Walk a tree, if asked without what stands below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if typing or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from nodes(node, typing=typing)


def imports(module: str, *, typing: bool = True) -> Iterator[str]:
    """List what a module imports, at its top or inside functions, as dotted names of modules."""
    for node in nodes(ast.parse(MODULES[module].read_bytes()), typing=typing):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in submodules)


def strings(module: str) -> Iterator[str]:
    """List the string constants of a module."""
    for node in ast.walk(ast.parse(MODULES[module].read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in MODULES} <= set(LAYERS)


@EACH_MODULE
def test_imports_go_down(module: str) -> None:
    for imported in imports(module):
        if imported.split(".")[0] != "pyrokernel" or room(imported) == room(module):
            continue
        assert room(imported) in LAYERS, f"{module} imports {imported}, which does not exist"
        here, there = LAYERS[room(module)], LAYERS[room(imported)]
        assert there < here or there == here <= 1, f"{module} (layer {here}) imports {imported} (layer {there})"


@EACH_MODULE
def test_processes_never_import_each_other(module: str) -> None:
    if room(module) in PROCESSES:
        others = {room(imported) for imported in imports(module) if imported.startswith("pyrokernel.")}
        assert not others & (PROCESSES - {room(module)})


@EACH_MODULE
def test_foreign_libraries_stay_in_their_rooms(module: str) -> None:
    for imported in imports(module):
        library = imported.split(".")[0]
        if library == "pyrokernel" or library in sys.stdlib_module_names:
            continue
        assert room(module) in FOREIGN.get(library, set()), f"{module} imports {library}"


def test_no_import_goes_in_a_circle() -> None:
    graph = {
        module: {name for name in imports(module, typing=False) if name in MODULES and (module, name) not in BACKWARDS}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imports go in a circle: " + " -> ".join(error.args[1]))


@EACH_MODULE
def test_only_roles_names_what_the_host_starts(module: str) -> None:
    """Strings can name what imports may not: `host/roles.py` is the one place, and its names exist."""
    if room(module) not in PROCESSES:
        return
    named = {text for text in strings(module) if text.startswith("pyrokernel.") and room(text) in PROCESSES}
    siblings = {text for text in named if room(text) != room(module) and " " not in text}
    if module == "pyrokernel.host.roles":
        entry_points = {text.partition(":")[0] for text in siblings}
        assert entry_points, "host/roles.py starts nothing"
        assert entry_points <= set(MODULES)
    else:
        assert not siblings & set(MODULES)
