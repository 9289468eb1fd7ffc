"""The tutorial's plugin in a mesh of its own: how the tests of a plugin look. Runs in the test process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from pyrokernel import Mesh
from pyrokernel.commands import Context
from pyrokernel.errors import RemoteError
from pyrokernel.testing import assert_loaded

import pyrokernel_hello

pytest_plugins = ["pyrokernel.testing"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pyrokernel_options() -> dict[str, Any]:
    return {"plugins": {"hello": {"language": "fr"}}}


def test_it_is_loaded_without_problems(pyrokernel_mesh: Mesh) -> None:
    assert_loaded(pyrokernel_mesh, "hello")


def test_every_kernel_greets_in_its_own_name(pyrokernel_mesh: Mesh) -> None:
    greetings = pyrokernel_mesh[:].call("hello", "Ada", times=2, language="en")
    assert greetings == {"k0": "hello, hello Ada, this is k0", "k1": "hello, hello Ada, this is k1"}


def test_the_configuration_chooses_the_language(pyrokernel_mesh: Mesh) -> None:
    assert pyrokernel_mesh["k0"].commands.hello() == "bonjour world, this is k0"


def test_a_command_is_a_function_in_cells_too(pyrokernel_mesh: Mesh) -> None:
    reply = pyrokernel_mesh["k1"].execute("hello('Ada', language='de')")
    assert reply.result == "guten Tag Ada, this is k1"


def test_arguments_are_checked(pyrokernel_mesh: Mesh) -> None:
    with pytest.raises(RemoteError, match="argument 'times' takes an int, not 'often'"):
        pyrokernel_mesh["k0"].call("hello", times="often")


def test_numbers_arrive_one_by_one(pyrokernel_mesh: Mesh) -> None:
    assert list(pyrokernel_mesh["k0"].stream("hello_count", 3)) == [1, 2, 3]
    assert pyrokernel_mesh["k0"].call("hello_count", 3) == [1, 2, 3]


def test_abort_does_not_wait_until_the_kernel_is_free(pyrokernel_mesh: Mesh) -> None:
    kernel = pyrokernel_mesh["k0"]
    numbers = kernel.stream("hello_count", 1_000_000, pause=0.01)
    assert next(numbers) == 1
    assert kernel.call("hello_abort") == "counting ends"
    assert sum(1 for _ in numbers) < 1_000


def test_it_counts_cells(pyrokernel_fresh_mesh: Mesh) -> None:
    kernel = pyrokernel_fresh_mesh["k0"]
    kernel.execute("first = 1")
    kernel.execute("second = 2")
    assert kernel.execute("hello_cells()").result["running"] == "hello_cells()"
    told = kernel.call("hello_cells")
    assert (told["cells"], told["running"]) == (3, "")
    assert told["seconds"] > 0


def test_names_are_there_without_an_import(pyrokernel_mesh: Mesh) -> None:
    assert pyrokernel_mesh["k0"].execute("sorted(GREETINGS)").result == ["de", "en", "fr"]
    assert "GREETINGS" not in [one["name"] for one in pyrokernel_mesh["k0"].variables()]


def test_a_command_is_a_function_that_needs_no_kernel_to_be_tested() -> None:
    def progress(done: float, total: float = 1.0, text: str = "") -> None:
        steps.append((done, total, text))

    steps: list[tuple[float, float, str]] = []
    context = Context("k0", "", (), {}, {}, logging.getLogger(), progress)
    assert list(pyrokernel_hello.hello_count(context, to=2)) == [1, 2]
    assert steps == [(1, 2, "counting"), (2, 2, "counting")]


def in_front(mesh: Mesh, *words: str) -> str:
    """Run the command line of pyrokernel with the settings of a mesh; return what it printed."""
    environ = {**os.environ, **mesh.settings.to_env()}
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", *words], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_shell_has_the_commands_and_the_set(pyrokernel_mesh: Mesh) -> None:
    """What `pyrokernel_register_command_sets` adds acts in the shell, a command acts in the kernels."""
    assert in_front(pyrokernel_mesh, "shell", "-c", "hello_here") == "hello k0\nhello k1\n"
    assert "bonjour Ada, this is k1" in in_front(pyrokernel_mesh, "shell", "-c", "hello --who Ada")


def test_the_command_line_calls_commands(pyrokernel_mesh: Mesh) -> None:
    assert "guten Tag Ada, this is k0" in in_front(
        pyrokernel_mesh, "call", "-k", "k0", "hello", "--who", "Ada", "--language", "de"
    )


def test_the_subcommand_asks_all_kernels(pyrokernel_mesh: Mesh) -> None:
    """What `pyrokernel_register_subcommands` adds."""
    assert in_front(pyrokernel_mesh, "hello-all", "Ada") == "bonjour Ada, this is k0\nbonjour Ada, this is k1\n"
    assert "have all kernels greet somebody" in in_front(pyrokernel_mesh, "--help")


def test_guests_look_and_of_others_the_file_decides() -> None:
    """What `pyrokernel_policy` says."""
    assert pyrokernel_hello.pyrokernel_policy("mallory", {"guests": ["mallory"]}) == "observer"
    assert pyrokernel_hello.pyrokernel_policy("ana", {}) is None
