"""What the plugin contributes, and what that costs. Runs in the test process."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pyrokernel
import pytest

import pyrokernel_timeseries
from pyrokernel_timeseries.series import TimeSeries

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there() -> None:
    for name in pyrokernel_timeseries.__all__:
        assert getattr(pyrokernel_timeseries, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pyrokernel_timeseries.nothing


def test_the_entry_point_names_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pyrokernel"] == {"timeseries": pyrokernel_timeseries.__name__}


def test_namespaces_get_the_class_and_the_decorator_of_files_written_for_sage() -> None:
    names = pyrokernel_timeseries.pyrokernel_add_names()
    assert names == {"TimeSeries": TimeSeries, "sageRemoteValue": pyrokernel.command}
    assert isinstance(TimeSeries(1), TimeSeries)
    assert isinstance(pickle.loads(pickle.dumps(TimeSeries(1))), TimeSeries)


def test_hooks_import_neither_numpy_nor_matplotlib() -> None:
    """The first cell of every kernel calls them."""
    program = """
import sys
import pyrokernel_timeseries as plugin
plugin.pyrokernel_add_names()
plugin.pyrokernel_register_commands(lambda function: None)
plugin.pyrokernel_register_subcommands(lambda *args, **kwargs: None)
print([name for name in ("numpy", "matplotlib", "Pyro5", "cmd2") if name in sys.modules])
plugin.pyrokernel_preload()
print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_the_command_and_the_subcommand_are_registered() -> None:
    commands: list[Any] = []
    pyrokernel_timeseries.pyrokernel_register_commands(commands.append)
    assert [function.__name__ for function in commands] == ["simulate"]
    subcommands: dict[str, Any] = {}

    def register(name: str, run: Any, **options: Any) -> None:
        subcommands[name] = options
        assert callable(run)

    pyrokernel_timeseries.pyrokernel_register_subcommands(register)
    assert list(subcommands) == ["simulate"]
    parser = argparse.ArgumentParser()
    subcommands["simulate"]["configure"](parser)
    assert "--distribution" in parser.format_help()
    assert subcommands["simulate"]["help"]


def test_the_signature_of_the_command_can_be_checked() -> None:
    from pyrokernel.commands import Command

    from pyrokernel_timeseries.simulate import simulate

    made = Command(simulate, owner="plugin timeseries")
    assert (made.name, made.parameters.takes_context) == ("simulate", True)
    by_name = {parameter["name"]: parameter for parameter in made.info.parameters}
    assert list(by_name) == ["size", "distribution", "loc", "scale", "bins", "seed", "low", "high"]
    assert by_name["distribution"]["choices"] == ["uniform", "normal", "semicircle", "lognormal"]
    assert by_name["size"]["required"]
    assert all(parameter["help"] for parameter in by_name.values())


def test_a_file_written_for_sage_kernels_runs_unchanged() -> None:
    module = ModuleType("super_func")
    vars(module).update(pyrokernel_timeseries.pyrokernel_add_names())
    exec((ROOT / "examples" / "super_func.py").read_text(), vars(module))
    counts, intervals = module.remote_mySuperFunc(None, 100_000, distribution="normal")
    assert (sum(counts), len(counts), len(intervals)) == (100_000, 50, 50)
    assert intervals[0][0] < -2 < 4 < intervals[-1][1]  # loc is 1
    for distribution in ("uniform", "semicircle", "lognormal"):
        counts, _ = module.remote_mySuperFunc(None, 1000, distribution, 0, 1, 7)
        assert (sum(counts), len(counts)) == (1000, 7)
