"""The policy: which line wins, what a broken file does, what plugins may say."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.cli import main
from pyrokernel.errors import SettingsError
from pyrokernel.policy import HOST, Decider, Policy, PolicyFile
from pyrokernel.roles import Role
from pyrokernel.settings import Settings

POLICY = """
default = "nobody"
[users]
ana = "admin"
bob = "user"
eve = "observer"
[kernels."*"]
eve = "nobody"
[kernels."camera*"]
bob = "observer"
"*" = "nobody"
[kernels.camera-2]
bob = "admin"
[hosts]
lab2 = "observer"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize(
    ("user", "kernel", "role"),
    [
        ("ana", "", Role.ADMIN),
        ("ana", "k0", Role.ADMIN),
        ("bob", "", Role.USER),
        ("bob", "k0", Role.USER),
        ("bob", "camera-1", Role.OBSERVER),
        ("bob", "camera-2", Role.ADMIN),
        ("ana", "camera-1", Role.NOBODY),
        ("ana", "camera-2", Role.NOBODY),
        ("eve", "", Role.OBSERVER),
        ("eve", "k0", Role.NOBODY),
        ("mallory", "", Role.NOBODY),
        ("olga", "", Role.ADMIN),
    ],
)
def test_the_most_specific_line_wins(file: Path, user: str, kernel: str, role: Role) -> None:
    assert Policy.load(file, "olga").verdict(user, kernel=kernel).role is role


def test_without_a_file_the_owner_is_admin_others_look_and_hosts_act_for_users(tmp_path: Path) -> None:
    policy = Policy.load(tmp_path / "none", "olga")
    assert policy.verdict("olga").role is Role.ADMIN
    assert policy.verdict("bob").role is Role.OBSERVER
    assert policy.verdict("lab2", HOST).role is Role.USER
    assert policy.verdict("olga", HOST).role is Role.USER, "a host of that name is not its owner"
    assert policy.verdict("ca", "ca").role is Role.NOBODY


def test_a_host_has_lines_of_its_own(file: Path) -> None:
    policy = Policy.load(file)
    assert policy.verdict("lab2", HOST).role is Role.OBSERVER
    assert policy.verdict("lab2").role is Role.NOBODY
    assert policy.verdict("ana", HOST).role is Role.USER


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default = 'king'", "default: 'king' is no role"),
        ("[users]\nana = 3", "users: ana: '3' is no role"),
        ("users = 'ana'", "users is a table"),
        ("[groups]\na = 'user'", "'groups'; it takes default, users, kernels and hosts"),
        ("[kernels]\nk0 = 'user'", 'kernels."k0" is a table'),
        ("[users]\n'*' = 'nobody'", "users: '\\*' would hold for nobody: .* `default` is for everybody else"),
        ("[users]\n'ana@lab2' = 'observer'", "users: 'ana@lab2' would hold for nobody"),
        ("[hosts]\n'*' = 'observer'", "hosts: '\\*' would hold for nobody: .* a line of its own"),
        ("[hosts]\n'host:lab2' = 'observer'", "hosts: 'host:lab2' would hold for nobody"),
        ("[kernels.k0]\n'b*' = 'nobody'", "kernels.\"k0\": 'b\\*' would hold for nobody: .* `\\*` is everybody else"),
        ("[kernels.'tag:secret']\nbob = 'nobody'", 'kernels."tag:secret" is the name of no kernel'),
        ("[users", "is not valid TOML"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=message):
        Policy.load(path)
    with pytest.raises(SettingsError, match=message):
        PolicyFile(path, "olga")


def test_a_file_is_read_anew_when_it_changes_and_a_broken_one_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following = PolicyFile(file, "olga")
    assert following.current.verdict("bob").role is Role.USER
    file.write_text("[users]\nbob = 'observer'\n")
    assert following.current.verdict("bob").role is Role.OBSERVER
    before = os.stat(file)
    with caplog.at_level(logging.ERROR):
        file.write_text("[users]\nbob = 'admin'\nana = 'queen'\n")
        assert following.current.verdict("bob").role is Role.OBSERVER
        assert following.current.verdict("bob").role is Role.OBSERVER
    assert [record.levelname for record in caplog.records].count("ERROR") == 1, "it is said once"
    assert "'queen'" in caplog.text
    assert "mend the file" in caplog.text
    file.write_text("[users]\nbob = 'nobody'  #\n")
    os.utime(file, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert following.current.verdict("bob").role is Role.NOBODY
    file.unlink()
    assert following.current.verdict("olga").role is Role.ADMIN


PLUGIN = """
from pyrokernel import hookimpl
@hookimpl
def pyrokernel_policy(user, kind, kernel, address, settings):
    if user == "bad":
        raise ValueError("no idea")
    return {"ana": "observer", "odd": "king", "far": "user" if address.startswith("10.") else "nobody"}.get(user)
"""


@pytest.fixture
def settings(tmp_path: Path, file: Path) -> Settings:
    (tmp_path / "pyrokernel_judge.py").write_text(PLUGIN)
    return Settings(policy=str(file), plugins_dir=str(tmp_path), no_plugin="hello,redis,sage,timeseries,terminal")


def test_what_a_plugin_says_comes_before_the_file_and_one_that_fails_lets_nobody_in(settings: Settings) -> None:
    decider = Decider(settings, "olga")
    assert decider.verdict("ana", "user").role is Role.OBSERVER
    assert decider.verdict("bob", "user").role is Role.USER
    assert decider.verdict("far", "user", "", "10.0.0.1:5").role is Role.USER
    assert decider.verdict("far", "user", "", "192.168.0.1:5").role is Role.NOBODY
    assert decider.verdict("odd", "user").role is Role.NOBODY
    assert decider.verdict("bad", "user").line == "plugin judge failed: no idea"
    assert decider.verdict("bad", "user").role is Role.NOBODY


@pytest.mark.parametrize(
    ("user", "kernel", "role", "line"),
    [
        ("ana", "", Role.USER, "a host that no line names"),
        ("eve", "", Role.OBSERVER, "[users] eve"),
        ("bob", "camera-1", Role.OBSERVER, '[kernels."camera*"] bob'),
        ("ana", "camera-1", Role.NOBODY, '[kernels."camera*"] *'),
        ("bob", "camera-2", Role.USER, "a host that no line names"),
        ("mallory", "", Role.USER, "a host that no line names"),
        ("olga", "", Role.USER, "a host that no line names"),
    ],
)
def test_whom_a_host_introduces_has_the_lower_role_of_the_two(
    file: Path, user: str, kernel: str, role: Role, line: str
) -> None:
    """`default` and the owner's name are for certificates: a policy of hosts alone goes on to mean what it says."""
    decider = Decider(Settings(policy=str(file), no_plugin="hello,redis,sage,timeseries,terminal"), "olga")
    found = decider.verdict(user, "user", kernel, through="lab9")
    assert (found.role, found.line) == (role, line)
    assert decider.verdict("ana", "user", through="lab2").role is Role.OBSERVER, "the host's line is the most there is"


def test_a_plugin_restricts_whom_a_host_introduces_and_gives_no_more(settings: Settings) -> None:
    decider = Decider(settings, "olga")
    assert decider.verdict("ana", "user", through="lab9").role is Role.OBSERVER
    assert decider.verdict("far", "user", "", "192.168.0.1:5", "lab9").role is Role.NOBODY
    assert decider.verdict("bad", "user", through="lab9").role is Role.NOBODY


@pytest.fixture
def check(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("PYROKERNEL_POLICY", str(file))

    def run(*words: str) -> str:
        assert main(["policy", "check", *words]) == 0
        return capsys.readouterr().out

    return run


def test_the_command_line_says_who_may_and_by_which_line(check: Any) -> None:
    assert check("bob", "camera-1").splitlines()[1].split() == [
        "bob", "camera-1", "observer", '[kernels."camera*"]', "bob"
    ]  # fmt: skip
    assert check("lab2", "--host").splitlines()[1].split()[:3] == ["lab2", "(all)", "observer"]
    assert '"role": "nobody"' in check("mallory", "--json")
    for words in (["host:lab2"], ["ana@lab2"]):  # as the record calls them
        assert check(*words).splitlines()[1].split() == [*words, "(all)", "observer", "[hosts]", "lab2"]
    everything = check()
    assert "bob camera-2 admin" in " ".join(everything.split())
    assert "host lab2" in everything


def test_a_policy_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('default = "user"\n')
    path.chmod(0o646)
    with pytest.raises(SettingsError, match=f"written by everybody: chmod o-w {path}"):
        Policy.load(path)
    path.chmod(0o664)  # as files are made where each account has a group of its own
    assert Policy.load(path).verdict("ana", "user").role is Role.USER
