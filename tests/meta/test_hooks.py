"""No hook without a page, an example that runs, a package that needs it, and a test."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from served import PORTABLE
from shells import run as run_shell

import pyrokernel as pk
from pyrokernel import hookspecs
from pyrokernel.testing import assert_loaded

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hooks.md").read_text()
HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("pyrokernel_")}
SECTIONS: dict[str, str] = dict(re.findall(r"^## (pyrokernel_\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ELSEWHERE = {"pyrokernel_register_command_sets", "pyrokernel_register_subcommands", "pyrokernel_policy"}
"""Hooks that act in a front end, or in a gateway: their examples need no kernel."""

EACH_HOOK = pytest.mark.parametrize("hook", HOOKS)


def examples(hook: str) -> list[str]:
    """Return the plugin of a section, and what shows it if there is such a block."""
    return re.findall(r"^```python\n(.*?)^```$", SECTIONS[hook], re.MULTILINE | re.DOTALL)


def file_name(example: str) -> str:
    match = re.match(r"# (pyrokernel_\w+\.py)\n", example)
    assert match, "the first line of an example names its file"
    return match[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugins folder with all examples of the page."""
    made = tmp_path_factory.mktemp("hooks")
    for hook in SECTIONS:
        plugin = examples(hook)[0]
        (made / file_name(plugin)).write_text(plugin)
    return made


@pytest.fixture(scope="module")
def mesh(folder: Path) -> Iterator[pk.Mesh]:
    with pk.local(1, plugins_dir=str(folder), plugins={"ready": {"preload": True}}, state_store="json") as found:
        yield found


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_exactly_the_hooks_in_the_order_of_the_contract() -> None:
    assert list(SECTIONS) == list(HOOKS)
    assert re.findall(r"^\| \[(pyrokernel_\w+)\]\(#\1\)", PAGE, re.MULTILINE) == list(HOOKS)


@EACH_HOOK
def test_a_section_answers_every_question(hook: str) -> None:
    for question in ("**Called**", "**Where:**", "**Arguments:**", "**Result:**", "**When it fails:**"):
        assert question in SECTIONS[hook]
    for argument in HOOKS[hook].__code__.co_varnames[: HOOKS[hook].__code__.co_argcount]:
        assert f"`{argument}`" in SECTIONS[hook] or "as for" in SECTIONS[hook], argument


@EACH_HOOK
def test_the_example_implements_its_hook(hook: str) -> None:
    tree = ast.parse(examples(hook)[0])
    marked = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and "hookimpl" in map(ast.unparse, node.decorator_list)
    }
    assert hook in marked


@EACH_HOOK
def test_a_package_of_this_repository_implements_it(hook: str) -> None:
    pattern = re.compile(rf"^@hookimpl\ndef {hook}\(", re.MULTILINE)
    sources = [path for path in (ROOT / "plugins").rglob("*.py") if "tests" not in path.parts]
    assert any(pattern.search(path.read_text()) for path in sources)


@EACH_HOOK
def test_another_test_names_it(hook: str) -> None:
    folders = [ROOT / "tests", *(ROOT / "plugins").glob("*/tests")]
    tests = [path for folder in folders for path in folder.rglob("test_*.py") if path != Path(__file__)]
    assert any(re.search(rf"\b{hook}\b", path.read_text()) for path in tests)


@pytest.mark.slow
def test_all_examples_live_together_without_problems(mesh: pk.Mesh) -> None:
    assert_loaded(mesh, *(file_name(examples(hook)[0])[len("pyrokernel_") : -len(".py")] for hook in SECTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("hook", [hook for hook in SECTIONS if hook not in ELSEWHERE])
def test_an_example_does_what_the_page_shows(mesh: pk.Mesh, hook: str) -> None:
    if PORTABLE and hook == "pyrokernel_preload":
        pytest.skip("there is no template in portable mode")
    shown = re.findall(r"^(.*?)  # -> (.*)$", examples(hook)[1], re.MULTILINE)
    assert shown
    for expression, promised in shown:
        assert repr(eval(expression, {"kernel": mesh["k0"]})) in (promised, ast.unparse(ast.parse(promised)))


@pytest.mark.slow
def test_the_subcommand_of_the_page_asks_the_mesh(
    mesh: pk.Mesh, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registered: dict[str, Any] = {}
    module = load(folder / file_name(examples("pyrokernel_register_subcommands")[0]))

    def register(name: str, run: Any, **more: Any) -> None:
        registered[name] = run, more["configure"]

    module.pyrokernel_register_subcommands(register)
    run, configure = registered["mean"]
    parser = argparse.ArgumentParser()
    configure(parser)
    mesh[:].push(x=3.0)
    assert run(parser.parse_args(["x"]), mesh.settings) == 0
    assert capsys.readouterr().out == "3.0\n"


@pytest.mark.slow
def test_the_command_set_of_the_page_works_in_a_shell(mesh: pk.Mesh) -> None:
    done = run_shell(mesh, "-c", "ages")
    assert re.fullmatch(r"k0 \d+ s\n", done.stdout), done
    assert done.stderr == ""


def test_no_page_names_a_hook_that_is_none() -> None:
    mentioned = set(re.findall(r"`(pyrokernel_[a-z_]+)`", f"{hookspecs.__doc__}{PAGE}"))
    assert mentioned <= set(HOOKS)
