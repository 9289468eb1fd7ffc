"""Certificates in the hands of stock programs: pyro5-ns and pyro5-nsc, by the environment that `certs env` prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from certificates import Authority

from pyrokernel.wire.identity import Identity, kind_and_name, shake_hands

SCRIPTS = Path(sys.executable).parent
NAME_SERVER = "Pyro.NameServer --> PYRO:Pyro.NameServer@127.0.0.1:"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, this machine's identities, and one for a user bob elsewhere; return the configuration."""
    found = tmp_path_factory.mktemp("certs")
    certs(found, "init")
    certs(found, "issue", "bob")
    return found


def bare(home: Path) -> dict[str, str]:
    """Return an environment without any setting of Pyro5 or ours, and without a mesh that may run here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYRO_", "PYROKERNEL_"))}
    return {**kept, "XDG_CONFIG_HOME": str(home), "PYROKERNEL_RUNTIME_DIR": str(home / "run")}


def certs(home: Path, *words: str) -> str:
    """Run `pyrokernel certs` and return what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "pyrokernel", "certs", *words],
        env=bare(home),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def with_env(home: Path, *directory: str) -> dict[str, str]:
    """Return the environment of a shell after `eval "$(pyrokernel certs env)"`."""
    words = ["-m", "pyrokernel", "certs", "env", *directory]
    shell = subprocess.run(
        ["sh", "-c", 'eval "$("$0" "$@")" && env -0', sys.executable, *words],
        env=bare(home),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """Run the stock name server with the identity of this machine; return its port."""
    yield from serve(with_env(home))


def serve(environment: Mapping[str, str]) -> Iterator[str]:
    process = subprocess.Popen(
        [SCRIPTS / "pyro5-ns", "-n", "127.0.0.1", "-p", "0", "-x"],
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        started = next((line for line in lines if line.startswith("NS running on ")), "")
        assert started, "the name server did not start"
        yield started.split()[3].rpartition(":")[2]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def ask(environment: Mapping[str, str], port: str, *words: str) -> str:
    """Run `pyro5-nsc`; return what it says and logs: the names where it was let in, and why where it was not."""
    done = subprocess.run(
        [SCRIPTS / "pyro5-nsc", "-n", "127.0.0.1", "-p", port, *words],
        env={**environment, "PYRO_LOGFILE": "{stderr}", "PYRO_LOGLEVEL": "ERROR"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_user_of_this_machine_lists_names(home: Path, server: str) -> None:
    assert NAME_SERVER + server in ask(with_env(home), server, "list")


def test_a_user_of_another_machine_registers_and_lists_names(home: Path, server: str, tmp_path: Path) -> None:
    copied = tmp_path / "certs"
    shutil.copytree(home / "pyrokernel" / "ca" / "issued" / "bob", copied)
    environment = with_env(home, str(copied))
    assert str(copied) in environment["PYRO_SSL_CLIENTKEY"]
    ask(environment, server, "register", "camera", "PYRO:camera@127.0.0.1:5")
    assert "camera --> PYRO:camera@127.0.0.1:5" in ask(environment, server, "list")


def test_the_file_env_is_one_that_a_shell_reads(home: Path, server: str) -> None:
    file = home / "pyrokernel" / "certs" / "env"
    shell = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; exec "$@"', file, SCRIPTS / "pyro5-nsc", "-n", "127.0.0.1", "-p", server, "list"],
        env=bare(home),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert NAME_SERVER + server in shell.stdout


def test_who_shows_no_certificate_is_refused(home: Path, server: str) -> None:
    environment = {name: value for name, value in with_env(home).items() if "_CLIENT" not in name}
    told = ask(environment, server, "list")
    assert "-->" not in told
    assert "cannot connect" in told  # the alert, "certificate required", may be lost: the client writes meanwhile


def test_who_speaks_plaintext_is_refused(home: Path, server: str) -> None:
    assert "-->" not in ask(bare(home), server, "list")


def test_a_user_of_another_authority_is_refused(home: Path, server: str, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "mars").identity("user", "eve")
    environment = with_env(home, str(foreign))
    told = ask(environment, server, "list")
    assert "-->" not in told
    assert "CERTIFICATE_VERIFY_FAILED" in told, "it would show itself to a server of another authority"
    told = ask({**environment, "PYRO_SSL_CACERTS": str(home / "pyrokernel" / "certs" / "ca.pem")}, server, "list")
    assert "-->" not in told
    assert "cannot connect" in told


def test_a_user_is_no_name_server(home: Path) -> None:
    bob = with_env(home, str(home / "pyrokernel" / "ca" / "issued" / "bob"))
    posing = {**bob, "PYRO_SSL_SERVERCERT": bob["PYRO_SSL_CLIENTCERT"], "PYRO_SSL_SERVERKEY": bob["PYRO_SSL_CLIENTKEY"]}
    for port in serve(posing):
        told = ask(with_env(home), port, "list")
        assert "-->" not in told
        assert "certificate purpose" in told


def test_a_renewed_user_is_let_in_at_once(home: Path, server: str) -> None:
    bob = str(home / "pyrokernel" / "ca" / "issued" / "bob")
    before = (Path(bob) / "key.pem").read_bytes()
    certs(home, "renew", "bob")
    assert (Path(bob) / "key.pem").read_bytes() != before
    assert NAME_SERVER + server in ask(with_env(home, bob), server, "list")


def test_pyrokernel_works_in_the_environment_of_stock_tools(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "run", "--local", "1", "-c", "print('hello')"],
        env=with_env(home),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_the_page_of_certificates_is_what_one_types(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "certificates.md").read_text()
    shown = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = "".join(shown).splitlines()
    assert len(commands) > 8
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "pyrokernel"
        assert words[0] == "certs"
        certs(tmp_path, *words[1:])
    listed = {one["name"]: one["state"] for one in json.loads(certs(tmp_path, "list", "--json"))}
    assert (listed["lab2"], listed["ana"]) == ("valid", "revoked")


OPENSSL = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 5 -subj /CN=theirs \
  -keyout ca.key -out ca.pem -addext "basicConstraints=critical,CA:TRUE"
for what in host:lab1:serverAuth,clientAuth user:ana:clientAuth; do
  kind=${what%%:*}; rest=${what#*:}; name=${rest%%:*}; usage=${rest#*:}
  mkdir -m 700 $kind; cp ca.pem $kind
  printf 'subjectAltName=URI:pyrokernel:%s:%s,DNS:lab1\nextendedKeyUsage=%s\n' $kind $name $usage >extensions
  openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $kind/key.pem -out request
  openssl x509 -req -in request -CA ca.pem -CAkey ca.key -days 5 -extfile extensions -out $kind/cert.pem
done
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_identities_may_be_made_by_other_tools(tmp_path: Path) -> None:
    subprocess.run(["sh", "-ec", "umask 077\n" + OPENSSL], cwd=tmp_path, capture_output=True, check=True, timeout=30)
    host, user = Identity.load(tmp_path / "host", "host"), Identity.load(tmp_path / "user", "user")
    server, client = shake_hands(host.server_context(), user.client_context(), "lab1")
    assert kind_and_name(server.getpeercert() or {}) == ("user", "ana")
    assert kind_and_name(client.getpeercert() or {}) == ("host", "lab1")
    for port in serve(with_env(tmp_path, str(tmp_path / "host"))):
        theirs = with_env(tmp_path, str(tmp_path / "user"))
        told = ask(theirs, port, "list")
        assert "certificate is not valid for '127.0.0.1'" in told, "theirs are for lab1 only"


def test_names_for_a_machine_that_has_an_identity_are_told_to_be_lacking(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    host = Identity.load(tmp_path / "pyrokernel" / "host").name
    told = said_of_init(tmp_path, "--name", "10.77.0.9")
    assert told.endswith(f"it is not for 10.77.0.9; for that: pyrokernel certs renew {host} --name 10.77.0.9"), told


def test_identities_that_another_authority_made_are_told_to_be_no_good_here(tmp_path: Path) -> None:
    certs(tmp_path, "init")
    told = said_of_init(tmp_path, "--ca", str(tmp_path / "another"))
    assert "host is there already, and left as it is: another authority made it" in told
    assert "renew" not in told, "it knows nobody of that name"


def said_of_init(home: Path, *words: str) -> str:
    """Run `certs init` where it was run before, and return what it notes of the host's identity."""
    told = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "certs", "init", *words],
        env=bare(home), capture_output=True, text=True, timeout=30, check=True,
    ).stderr  # fmt: skip
    (line,) = (line for line in told.splitlines() if "host is there" in line)
    return line
