"""References on the command line and in the shell: listed, revoked, completed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shells import run_lines
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.cli import ExitCode

Served = Any  # tests/process/conftest.py


@pytest.fixture
def url(kernel: pk.Kernel) -> str:
    """A URL of an object in the first kernel."""
    kernel.execute("class Camera:\n    gain = 1\ncamera = Camera()")
    return kernel.ref("camera").url("1h")


def test_the_shell_lists_and_revokes(mesh: pk.Mesh, url: str) -> None:
    info = next(info for info in reversed(mesh.refs()) if info.kind == "url")
    done = run_lines(mesh, "refs", f"refs revoke {info.id}")
    assert info.id in done.stdout
    assert "camera" in done.stdout
    assert done.stdout.endswith("revoked 1 reference\n")
    for line, said in (("refs revoke nothing", "no reference 'nothing'"), ("refs revoke", "say which")):
        done = run_lines(mesh, line)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    with pytest.raises(pk.ReferenceGoneError):
        mesh.open(url)


def test_the_list_of_the_shell_shows_no_token(mesh: pk.Mesh, url: str) -> None:
    token = url.partition("?")[0].rpartition("/")[2]
    assert token not in run_lines(mesh, "refs").stdout


def test_the_command_line_lists_and_revokes(served: Served) -> None:
    empty = served.cli("refs")
    assert (empty.stdout, "no references" in empty.stderr) == ("", True)
    with served.connect() as mesh:
        kernel = mesh["k1"]
        kernel.execute("class Camera:\n    gain = 1\ncamera = Camera()")
        url = kernel.ref("camera").url("2h")
        wait_until(lambda: [info.kind for info in kernel.refs()] == ["url"])
        (listed,) = json.loads(served.cli("refs", "--json").stdout)
        assert (listed["kernel"], listed["kind"], listed["shown"], listed["type"]) == ("k1", "url", "camera", "Camera")
        text = served.cli("refs", "-k", "k1").stdout
        assert listed["id"] in text
        assert "in 2 h" in text or "in 1 h" in text or "in 119 min" in text
        assert served.cli("refs", "-k", "k0").stdout == ""
        assert served.cli("refs", "revoke", url).stdout == "revoked 1 reference\n"
        with pytest.raises(pk.ReferenceGoneError):
            mesh.open(url)
    for words, code in (
        (("refs", "revoke", listed["id"]), ExitCode.NO_KERNEL),
        (("refs", "revoke"), ExitCode.USAGE),
        (("refs", "list", "x"), ExitCode.USAGE),
        (("refs", "nothing"), ExitCode.USAGE),
        (("refs", "revoke", "pyrokernel://k0"), ExitCode.USAGE),
    ):
        done = served.cli(*words, check=False)
        assert done.returncode == code, (words, done.stderr)
        assert done.stderr.startswith("pyrokernel: ")
        assert len(done.stderr.splitlines()) == 1
