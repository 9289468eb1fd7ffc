"""A certificate that is revoked where the authority is: its connections end on other machines, and none begins."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from ports import free_port
from waiting import wait_until

from pyrokernel.certs.crl import make_crl, take_over
from pyrokernel.errors import AccessRefusedError, PyrokernelError
from pyrokernel.messages import HOST_OBJECT, KERNEL_OBJECT, new_id
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.fanout import Answer, ConnectionLost, Fanout, Request
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.remote import Credentials

POLICY = """
default = "observer"

[users]
mallory = "user"
trudy = "user"
walter = "user"
"""


class Lab:
    """A host that lets others in, on a machine whose account has the authority."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYRO_", "PYROKERNEL_"))}
        self.environ = {
            **kept,
            "XDG_CONFIG_HOME": str(folder / "c"),
            "PYROKERNEL_RUNTIME_DIR": str(folder / "r"),
            "PYROKERNEL_STATE_DIR": str(folder / "s"),
            "PYROKERNEL_HOST": "lab1",
        }
        self.issued = folder / "c" / "pyrokernel" / "ca" / "issued"
        self.run("certs", "init")
        self.policy = folder / "c" / "pyrokernel" / "policy.toml"
        self.policy.write_text(POLICY)
        self.run("serve", "-n", "1", "--detach", "--listen", self.address)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on that machine."""
        return subprocess.run(
            [sys.executable, "-m", "pyrokernel", *words],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    def ask(self, credentials: Credentials) -> str:
        """Return the name of the host, as it says it to somebody."""
        connection = connect(f"PYRO:{HOST_OBJECT}@{self.address}", kind="control", credentials=credentials)
        try:
            return str(ask_directly(connection, HOST_OBJECT, "describe", (), 20)["host"])
        finally:
            connection.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = Path("/tmp") / f"pk-{os.urandom(6).hex()}"
    folder.mkdir(mode=0o700)
    made = Lab(folder)
    yield made
    made.run("stop")


def test_revoking_ends_what_is_open_and_refuses_what_comes(lab: Lab) -> None:
    for name in ("bob", "eve"):
        lab.run("certs", "issue", name)
    bob, eve = (Credentials(lab.issued / name) for name in ("bob", "eve"))
    opened = connect(f"PYRO:{HOST_OBJECT}@{lab.address}", kind="control", credentials=eve)
    assert ask_directly(opened, HOST_OBJECT, "describe", (), 20)["you"] == {"user": "eve", "role": "observer"}
    done = lab.run("--ns", lab.address, "certs", "revoke", "eve")
    assert "told lab1" in done.stdout
    wait_until(lambda: opened.has_input)
    with pytest.raises((ConnectionLost, PyrokernelError)):
        ask_directly(opened, HOST_OBJECT, "describe", (), 20)
    with pytest.raises((ConnectionLost, PyrokernelError), match="revoked"):
        lab.ask(eve)
    assert lab.ask(bob) == "lab1"
    assert "revoke of=eve" in " ".join(lab.run("audit").stdout.split())


@pytest.mark.parametrize(("user", "handed"), [("mallory", False), ("trudy", True), ("walter", False)])
def test_what_somebody_has_asked_for_does_not_begin_after_that_or_without_the_role(
    lab: Lab, tmp_path: Path, user: str, handed: bool
) -> None:
    lab.run("certs", "issue", user)
    credentials = Credentials(lab.issued / user)
    (info,) = json.loads(lab.run("ps", "--json").stdout)
    go, marks = tmp_path / "go", tmp_path / "marks"
    marks.mkdir()
    uri = f"PYRO:{KERNEL_OBJECT}/{info['instance']}@{lab.address}"
    control, work = (
        connect(uri, kind=kind, credentials=credentials, handed=handed and kind == "work")
        for kind in ("control", "work")
    )
    assert work.is_handed is handed
    busy = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    lab.run("run", "--detach", "-c", busy)

    def ask(connection: Connection, method: str, mark: str) -> Answer:
        cell, source = new_id(), f"open({str(marks / mark)!r}, 'w').close()"
        with contextlib.closing(Fanout()) as fanout, contextlib.closing(connection):
            fanout.send(connection, Request(KERNEL_OBJECT, method, (source, {"cell": cell}), None, cell), mark)
            while not (found := list(fanout.answers(1))):
                continue
        return found[0]

    def waiting() -> set[str]:
        cells = json.loads(lab.run("cells", "--json").stdout)
        waiting = [cell["source"] for cell in cells if cell["status"] == "waiting"]
        return {mark for mark in ("submitted", "waited") if any(str(marks / mark) in source for source in waiting)}

    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.ExitStack() as at_last:
        at_last.callback(go.touch)
        assert ask(control, "submit", "submitted").error is None
        waits = pool.submit(ask, work, "execute", "waited")
        wait_until(lambda: waiting() == {"submitted", "waited"})
        if user == "walter":
            lab.policy.write_text(POLICY.replace('walter = "user"', 'walter = "observer"'))
        else:
            lab.run("--ns", lab.address, "certs", "revoke", user)
        assert waits.result(30).lost
        wait_until(lambda: "submitted" not in waiting())
        go.touch()
        lab.run("run", "-c", "'the next one'")
    assert list(marks.iterdir()) == []


def test_a_list_that_is_older_or_somebody_elses_is_not_taken(lab: Lab, tmp_path: Path) -> None:
    directory = lab.issued.parents[1] / "host"
    ours = (directory / "crl.pem").read_bytes()
    assert not take_over(ours, directory)
    other = Authority(tmp_path, "other")
    forged = make_crl({}, 10_000, ca_key=other.key, ca=other.cert)
    for crl in (forged, b"", b"garbage", ours[:-100]):
        with pytest.raises(AccessRefusedError, match="no list of revoked certificates"):
            take_over(crl, directory)
    assert (directory / "crl.pem").read_bytes() == ours


def test_a_host_that_runs_says_by_which_other_settings_it_lets_others_in(lab: Lab, tmp_path: Path) -> None:
    serve = ["serve", "-n", "1", "--detach", "--listen", lab.address]
    assert "other settings" not in lab.run(*serve).stderr
    told = lab.run(*serve, PYROKERNEL_POLICY=str(tmp_path / "policy.toml")).stderr
    assert "lets other machines in by other settings (policy), which hold on; for those of now, end it alone" in told
