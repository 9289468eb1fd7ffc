"""The package that `plugins new` writes: one command, and a test of it. Runs in the caller's process."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from pyrokernel.commands import REMOTE_PREFIX
from pyrokernel.errors import SettingsError

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

_FILES = {
    "pyproject.toml": """[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "pyrokernel-{dashed}"
version = "0.1.0"
description = "A plugin of pyrokernel."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["pyrokernel"]

[project.optional-dependencies]
test = ["pyrokernel[test]"]

# What makes it a plugin: its name, and the module that is imported where it is needed.
[project.entry-points.pyrokernel]
{name} = "pyrokernel_{name}"

[tool.hatch.build.targets.wheel]
only-include = ["pyrokernel_{name}.py"]
""",
    "README.md": """# pyrokernel-{dashed}

A plugin of pyrokernel. Install it where the kernels run; those that start then have it:

    pip install ./pyrokernel-{dashed}
    pyrokernel call {name} --who Ada --times 2

`pyrokernel plugins` shows whether it is loaded. Its test runs without installing it, where pytest is:
`python -m pytest`.
""",
    "pyrokernel_{name}.py": '''"""A plugin of pyrokernel. Runs in kernels: import what is heavy inside of functions."""

from __future__ import annotations

from pyrokernel import hookimpl
from pyrokernel.commands import Context
from pyrokernel.hookspecs import RegisterCommand


def {name}(self: Context, who: str = "world", times: int = 1) -> str:
    """Greet somebody.

    Args:
        who: Whom.
        times: How often.
    """
    return ", ".join(["hello"] * times) + f" {{who}}, this is {{self.kernel}}"


@hookimpl
def pyrokernel_register_commands(register: RegisterCommand) -> None:
    """Register the commands."""
    register({name})
''',
    "tests/test_{name}.py": '''"""The plugin in kernels of a private mesh."""

from pyrokernel.client.mesh import Mesh
from pyrokernel.testing import assert_loaded

pytest_plugins = ["pyrokernel.testing"]


def test_it_greets(pyrokernel_mesh: Mesh) -> None:
    assert_loaded(pyrokernel_mesh, "{name}")
    assert pyrokernel_mesh["k0"].call("{name}", "Ada", times=2) == "hello, hello Ada, this is k0"
''',
}


def command_of(name: str) -> str:
    """Return the name of a plugin as Python has it."""
    return name.replace("-", "_")


def write_plugin(name: str, folder: Path) -> Path:
    """Write a package that can be installed and works.

    Args:
        name: Of the plugin, and of its one command.
        folder: Where the folder of the package is made.

    Returns:
        The folder of the package.

    Raises:
        SettingsError: The name cannot be one, or the folder is there already or cannot be written.
    """
    name = name.removeprefix("pyrokernel-").removeprefix("pyrokernel_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise SettingsError(f"{name!r} cannot name a plugin: use small letters and digits, with - or _ between")
    if command_of(name).startswith(REMOTE_PREFIX):
        short = name[len(REMOTE_PREFIX) :]
        raise SettingsError(f"{name!r} cannot name a plugin: its command would be called {short!r}; name it {short!r}")
    names = {"name": command_of(name), "dashed": name.replace("_", "-")}
    package = folder.expanduser() / f"pyrokernel-{names['dashed']}"
    try:
        package.mkdir(parents=True)
        for path, text in _FILES.items():
            file = package / path.format(**names)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.format(**names), encoding="utf-8")
    except FileExistsError as error:
        raise SettingsError(f"{package} is there already; choose another name, or --dir") from error
    except OSError as error:
        raise SettingsError(f"cannot write {package}: {error.strerror}") from error
    return package
