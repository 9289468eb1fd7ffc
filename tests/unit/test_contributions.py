"""What is said of commands and plugins of kernels, as far as that needs no kernels."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyrokernel.client.commands import one_for
from pyrokernel.client.contributions import describe_old, describe_problems, format_commands, format_plugins, is_this
from pyrokernel.errors import CommandNotFoundError, SettingsError
from pyrokernel.messages import CommandInfo, PluginInfo
from pyrokernel.plugins import Found

LAMP = Found("lamp", "pyrokernel_lamp", "pyrokernel-lamp", "2.0", "/packages")
SPARE = Found("spare", "pyrokernel_spare", "", "", "/plugins/pyrokernel_spare.py")


def held(found: Found, version: str = "", problems: tuple[str, ...] = (), loaded: bool = True) -> PluginInfo:
    about = dataclasses.asdict(found) | {"version": version or found.version}
    return PluginInfo(**about, problems=problems, loaded=loaded)


def restart(names: Sequence[str]) -> str:
    return f"restart {' '.join(names)}"


def info(name: str, returns: str = "", doc: str = "") -> CommandInfo:
    return CommandInfo(name=name, owner="a.py", returns=returns, doc=doc)


def test_a_command_is_meant_where_all_have_it_and_alike() -> None:
    assert one_for("a", {"k0": [info("a")], "k1": [info("b"), info("a")]}, "-k {}") == info("a")
    with pytest.raises(CommandNotFoundError, match="there is no command 'c'; there is: a, b"):
        one_for("c", {"k0": [info("a")], "k1": [info("b")]}, "-k {}")
    with pytest.raises(SettingsError, match="k1 has no command 'a'; call it where it is: -k k0"):
        one_for("a", {"k0": [info("a")], "k1": []}, "-k {}")
    kernels = {"k0": [info("a", "int")], "k1": [info("a", "str")], "k2": [info("a", "int")]}
    with pytest.raises(SettingsError, match=r"a\(\) -> int on k0, k2; a\(\) -> str on k1\); choose: on k0,k2 a"):
        one_for("a", kernels, "on {} a")


def test_commands_are_laid_out_with_the_kernels_that_alone_have_them() -> None:
    text = format_commands({"k0": [info("a", "int", "Be a.\n\nMore."), info("b")], "k1": [info("b")]}, wide=False)
    assert [line.split() for line in text.splitlines()] == [
        ["NAME", "SIGNATURE", "OWNER", "KERNELS", "ABOUT"],
        ["a", "()", "->", "int", "a.py", "k0", "Be", "a."],
        ["b", "()", "a.py"],
    ]


def test_each_state_of_a_plugin_is_a_line_and_each_problem_is_said_once() -> None:
    bad = held(SPARE, problems=("no luck",), loaded=False)
    found = {"k0": [held(LAMP), bad], "k1": [held(LAMP, problems=("hot",)), bad]}
    assert [line.split() for line in format_plugins(found, wide=False).splitlines()] == [
        ["NAME", "VERSION", "STATE", "WHERE", "FROM"],
        ["lamp", "2.0", "loaded", "k0", "pyrokernel-lamp", "in", "/packages"],
        ["lamp", "2.0", "loaded,", "with", "problems", "k1", "pyrokernel-lamp", "in", "/packages"],
        ["spare", "failed", "/plugins/pyrokernel_spare.py"],
    ]
    assert list(describe_problems(found)) == ["spare: no luck", "k1: lamp: hot"]


def test_what_a_fresh_instance_would_have_is_said() -> None:
    found = {"k0": [held(LAMP, "1.0"), held(SPARE)], "k1": [held(LAMP)], "k2": [held(LAMP), held(SPARE)]}
    assert list(describe_old(found, [LAMP, SPARE], restart)) == [
        "k0 runs with lamp 1.0, and 2.0 is installed; a fresh instance has it, without the variables: restart k0",
        "k1 runs without spare, which is installed; a fresh instance has it, without the variables: restart k1",
    ]


def test_kernels_in_another_python_are_told_of_its_packages() -> None:
    told = list(describe_old({"k0": [], "k1": [held(LAMP, "1.0")]}, [LAMP, SPARE], restart, python="/env/bin/python"))
    spare, lamp = told
    assert spare.startswith("k0-k1 run without spare, which is installed; a fresh instance has it")
    assert lamp.startswith(f"k0 runs without lamp 2.0, which is installed for {sys.executable}; ")
    assert lamp.endswith(": /env/bin/python -m pip install pyrokernel-lamp")


def test_a_python_is_known_under_its_other_names(tmp_path: Path) -> None:
    assert is_this("")
    assert is_this(sys.executable)
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    assert not is_this(str(other))  # as in a virtual environment
