"""Who may come in: the file, and the commands that change it."""

from __future__ import annotations

from pathlib import Path

import openssh
import pyrokernel as pk
import pytest
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from terminal_serving import Server

from pyrokernel_terminal.accounts import User, read_users, write_users
from pyrokernel_terminal.options import Options, is_loopback


@pytest.fixture
def server(mesh: pk.Mesh, tmp_path: Path) -> Server:
    return Server(mesh, tmp_path)


def test_users_are_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "users.toml"
    users = {
        name: User(name, role, keys)
        for name, role, keys in (
            ("ana", Role.USER, ('ssh-ed25519 AAAA "a \\ comment" größer\x7f', "ssh-rsa BBBB")),
            ("b.c", Role.ADMIN, ()),
        )
    }
    write_users(path, users)
    assert read_users(path) == users
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["users.toml"]


def test_without_a_file_there_is_nobody(tmp_path: Path) -> None:
    assert read_users(tmp_path / "none.toml") == {}


def test_a_file_that_others_may_change_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    path.write_text('[ana]\nrole = "user"\n')
    path.chmod(0o620)
    with pytest.raises(AccessRefusedError, match="chmod go-w"):
        read_users(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ana", "cannot read"),
        ('[ana]\nrole = "root"', "is no role"),
        ('[ana]\nrole = "nobody"', "is removed instead"),
        ('[ana]\nkeys = "one"', "keys is a list"),
        ("[ana]\nshell = 1", "has role and keys, and nothing else"),
        ('["a na"]', "user name 'a na'"),
        ('["\\u001b[2J"]', "user name"),
        ("ana = 1", "has role and keys"),
    ],
)
def test_a_file_with_a_mistake_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=message):
        read_users(path)


@openssh.needs_client
def test_the_commands_add_list_and_remove(server: Server, tmp_path: Path) -> None:
    first, second = openssh.make_key(tmp_path / "first"), openssh.make_key(tmp_path / "second")
    assert server.run("add", "ana", f"{first}.pub").stdout == "ana may come in as observer\n"
    assert server.run("add", "ana", f"{second}.pub", "--role", "user").stdout == "ana may come in as user\n"
    assert server.run("add", "ana", f"{second}.pub").stdout == "ana may come in as user\n"
    assert server.run("list").stdout.split() == ["USER", "ROLE", "KEYS", "ana", "user", "2"]
    assert server.run("add", "ana", "--role", "observer").stdout == "ana may come in as observer\n"
    shared = server.run("add", "bob", f"{first}.pub")
    assert (shared.returncode, shared.stdout) == (0, "bob may come in as observer\n")
    assert shared.stderr == "ana has a key of bob, too: whoever holds it comes in as either\n"
    server.run("remove", "bob")
    private = server.run("add", "bob", str(first))
    assert private.returncode != 0
    assert "is a private key" in private.stderr
    (tmp_path / "text").write_text("no key\n")
    assert "is no public key" in server.run("add", "bob", str(tmp_path / "text")).stderr
    assert server.run("remove", "ana").returncode == 0
    assert "there is no user 'ana'" in server.run("remove", "ana").stderr
    assert server.run("list").stdout.startswith("nobody may come in")


@pytest.mark.parametrize(
    "words", [("add", "ana", "--role", "user"), ("who", "x"), ("remove",), ("add", "a na", "/dev/null")]
)
def test_a_wrong_word_is_told(server: Server, words: tuple[str, ...]) -> None:
    done = server.run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("pyrokernel: ")


def test_options_come_from_the_section_and_the_command_line() -> None:
    settings = Settings(plugins={"terminal": {"idle": "30m", "sessions": 3}})
    options = Options.read(settings, {"sessions": 5, "ssh": None})
    assert (options.idle, options.sessions, options.ssh) == (1800.0, 5, "127.0.0.1:8022")


@pytest.mark.parametrize(
    "section",
    [{"port": 1}, {"sessions": "3"}, {"idle": "soon"}, {"sessions": 0}, {"telnet_as": "a:b:c"}, {"telnet": "here"}],
)
def test_a_wrong_option_is_told(section: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        Options.read(Settings(plugins={"terminal": section}), {})


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False), ("host:1", False)],
)
def test_loopback_is_known(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
